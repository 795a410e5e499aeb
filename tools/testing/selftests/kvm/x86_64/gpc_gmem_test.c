// SPDX-License-Identifier: GPL-2.0-only
/*
 * Caches of guest memory that is converted between shared and private: KVM writes to
 * shared memory only while the guest uses it.
 */
#include "gpc_harness.h"
#include "gpc_uffd.h"

#include <linux/falloc.h>

#define CLOCK_OFFSET	(GPC_CLOCK - GPC_GPA)

FIXTURE(gpc_gmem)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_gmem)
{
	self->vcpu = gpc_create_vm(_metadata, KVM_X86_SW_PROTECTED_VM, 0);
}

FIXTURE_TEARDOWN(gpc_gmem)
{
	gpc_free(self->vcpu);
}

#define GMEM_TEST(test) KVM_ONE_VCPU_TEST(gpc_gmem, test, gpc_guest)

/* Add a memslot, all of it shared.  Returns the clock's page and the guest_memfd. */
static void *slot_add(struct kvm_vm *vm, int *gmem)
{
	void *mem = gpc_mmap_anon(NULL);
	int fd = vm_create_guest_memfd(vm, GPC_SIZE, 0);

	vm_set_user_memory_region2(vm, GPC_SLOT, KVM_MEM_GUEST_MEMFD, GPC_GPA, GPC_SIZE,
				   mem, fd, 0);
	if (gmem)
		*gmem = fd;
	return mem + CLOCK_OFFSET;
}

static void clock_on(struct kvm_vcpu *vcpu)
{
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	gpc_assert_served(vcpu, GPC_CLOCK);
}

static void assert_served(struct kvm_vcpu *vcpu, void *page)
{
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
}

static void assert_not_written(struct kvm_vcpu *vcpu, void *page)
{
	memset(page, GPC_POISON, PAGE_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(page, PAGE_SIZE);
}

static void punch_hole(int gmem, off_t offset, size_t size)
{
	TEST_ASSERT(!fallocate(gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size),
		    __KVM_SYSCALL_ERROR("fallocate()", -1));
}

GMEM_TEST(clock_to_private)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL);
	int i;

	clock_on(vcpu);
	for (i = 0; i < 3; i++) {
		vm_mem_set_private(vm, GPC_CLOCK, PAGE_SIZE);
		assert_not_written(vcpu, page);

		vm_mem_set_shared(vm, GPC_CLOCK, PAGE_SIZE);
		assert_served(vcpu, page);
	}
}

/* While the page is private, the VMM frees the unused shared memory. */
GMEM_TEST(clock_back_to_shared)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL), *hoard;

	clock_on(vcpu);
	vm_mem_set_private(vm, GPC_GPA, GPC_SIZE);
	memset(page, GPC_POISON, PAGE_SIZE);
	gpc_drop(page);
	hoard = gpc_hoard();
	gpc_update(vcpu);
	TEST_ASSERT(!gpc_pfn(page), "KVM has faulted shared memory in");

	vm_mem_set_shared(vm, GPC_GPA, GPC_SIZE);
	assert_served(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

GMEM_TEST(clock_on_in_private)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL);

	vm_mem_set_private(vm, GPC_CLOCK, PAGE_SIZE);
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW), GPC_CLOCK | KVM_MSR_ENABLED);
	GPC_ASSERT_POISON(page, PAGE_SIZE);
	assert_not_written(vcpu, page);

	vm_mem_set_shared(vm, GPC_CLOCK, PAGE_SIZE);
	assert_served(vcpu, page);
}

GMEM_TEST(xen_areas_in_private)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL);

	gpc_xen_on(vm);
	vm_mem_set_private(vm, GPC_CLOCK, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), -EFAULT);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vm, GPC_CLOCK), -EFAULT);
	assert_not_written(vcpu, page);

	vm_mem_set_shared(vm, GPC_CLOCK, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), 0);
	gpc_assert_served_in(vcpu, GPC_CLOCK + GPC_XEN_VCPU_INFO_TIME, page);
}

GMEM_TEST(event_in_private)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL);

	gpc_xen_on(vm);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vm, GPC_CLOCK), 0);
	memset(page, 0, PAGE_SIZE);

	vm_mem_set_private(vm, GPC_CLOCK, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), -EFAULT);
	TEST_ASSERT(!gpc_xen_event_pending(page), "Event delivered to shared memory");

	vm_mem_set_shared(vm, GPC_CLOCK, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), 0);
	TEST_ASSERT(gpc_xen_event_pending(page), "Event not delivered");
}

static int set_runstate(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR,
		.u.gpa = gpa,
	};

	return __vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr) ? -errno : 0;
}

/* KVM writes the runstate when a run of the vCPU begins. */
GMEM_TEST(runstate_across_pages)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL), *end = page + PAGE_SIZE;
	const uint64_t gpas[] = { GPC_CLOCK, GPC_CLOCK + PAGE_SIZE };
	const uint64_t gpa = gpas[1] - 16;
	int i;

	GPC_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE,
		    "kernel without CONFIG_SCHED_INFO");
	gpc_xen_on(vm);
	TEST_ASSERT_EQ(set_runstate(vcpu, gpa), 0);

	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		vm_mem_set_private(vm, gpas[i], PAGE_SIZE);
		memset(page, GPC_POISON, 2 * PAGE_SIZE);
		gpc_run(vcpu, (struct gpc_step) { });
		GPC_ASSERT_POISON(page, 2 * PAGE_SIZE);

		vm_mem_set_shared(vm, gpas[i], PAGE_SIZE);
		gpc_run(vcpu, (struct gpc_step) { });
		TEST_ASSERT(!gpc_is_poison(end - 16, 16) && !gpc_is_poison(end, 16),
			    "Runstate not written");
	}

	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		vm_mem_set_private(vm, gpas[i], PAGE_SIZE);
		TEST_ASSERT_EQ(set_runstate(vcpu, gpa), -EFAULT);
		vm_mem_set_shared(vm, gpas[i], PAGE_SIZE);
		TEST_ASSERT_EQ(set_runstate(vcpu, gpa), 0);
	}
}

/* After a conversion in either direction, KVM looks the page up again. */
GMEM_TEST(conversions_counted)
{
	struct kvm_vm *vm = vcpu->vm;
	uint64_t hits;

	slot_add(vm, NULL);
	clock_on(vcpu);
	hits = gpc_stat(vm, "gpc_invalidation_hits");

	vm_mem_set_private(vm, GPC_CLOCK, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_invalidation_hits"), hits + 1);
	vm_mem_set_shared(vm, GPC_CLOCK, PAGE_SIZE);
	gpc_assert_served(vcpu, GPC_CLOCK);

	hits = gpc_stat(vm, "gpc_invalidation_hits");
	vm_mem_set_private(vm, GPC_GPA, GPC_SIZE);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_invalidation_hits"), hits + 1);
}

GMEM_TEST(conversions_elsewhere)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL);
	uint64_t hits, refreshes;

	clock_on(vcpu);
	hits = gpc_stat(vm, "gpc_invalidation_hits");
	refreshes = gpc_stat(vm, "gpc_refreshes");

	vm_mem_set_private(vm, GPC_GPA, CLOCK_OFFSET);
	vm_mem_set_private(vm, GPC_CLOCK + PAGE_SIZE, GPC_SIZE - CLOCK_OFFSET - PAGE_SIZE);
	vm_mem_set_private(vm, GPC_GPA + GPC_SIZE, GPC_SIZE);
	vm_mem_set_shared(vm, GPC_CLOCK + PAGE_SIZE, 2 * GPC_SIZE);
	vm_mem_set_shared(vm, GPC_GPA, CLOCK_OFFSET);
	assert_served(vcpu, page);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_invalidation_hits"), hits);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refreshes"), refreshes);
}

/* A guest_memfd holds private memory, which no cache maps: shared memory stays as is. */
GMEM_TEST(gmem_punch_hole)
{
	struct kvm_vm *vm = vcpu->vm;
	int gmem;
	void *page = slot_add(vm, &gmem);
	uint64_t hits, refreshes;

	clock_on(vcpu);
	hits = gpc_stat(vm, "gpc_invalidation_hits");
	refreshes = gpc_stat(vm, "gpc_refreshes");

	punch_hole(gmem, CLOCK_OFFSET, PAGE_SIZE);
	assert_served(vcpu, page);
	punch_hole(gmem, 0, GPC_SIZE);
	assert_served(vcpu, page);
	close(gmem);
	assert_served(vcpu, page);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_invalidation_hits"), hits);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refreshes"), refreshes);
}

/* The lookup begins in shared memory, and ends when the page is private. */
GMEM_TEST(conversion_in_refresh)
{
	struct kvm_vm *vm = vcpu->vm;
	void *page = slot_add(vm, NULL);
	struct gpc_task task;
	int uffd;

	clock_on(vcpu);
	uffd = gpc_uffd_make_missing(page);
	gpc_task_update(&task, vcpu, uffd, page);
	vm_mem_set_private(vm, GPC_CLOCK, PAGE_SIZE);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	GPC_ASSERT_POISON(page, PAGE_SIZE);

	vm_mem_set_shared(vm, GPC_CLOCK, PAGE_SIZE);
	assert_served(vcpu, page);
}

GMEM_TEST(conversion_and_back_in_refresh)
{
	struct kvm_vm *vm = vcpu->vm;
	struct gpc_task task;
	int gmem, uffd;
	void *page = slot_add(vm, &gmem);

	clock_on(vcpu);
	uffd = gpc_uffd_make_missing(page);
	gpc_task_update(&task, vcpu, uffd, page);
	vm_mem_set_private(vm, GPC_GPA, GPC_SIZE);
	vm_mem_set_shared(vm, GPC_GPA, GPC_SIZE);
	punch_hole(gmem, 0, GPC_SIZE);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	gpc_assert_written(page);
	assert_served(vcpu, page);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XEN_HVM));
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM));

	return test_harness_run(argc, argv);
}
