// SPDX-License-Identifier: GPL-2.0-only
/*
 * kvmclock at an address where KVM cannot write it.  The MSR write succeeds and reads
 * back, the guest continues, and KVM writes nothing.  The clock appears once the VMM has
 * repaired the memory, without any action of the guest.
 */
#include "gpc_harness.h"

FIXTURE(gpc_refuse)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_refuse)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_refuse)
{
	gpc_free(self->vcpu);
}

#define REFUSE_TEST(test) KVM_ONE_VCPU_TEST(gpc_refuse, test, gpc_guest)

static const uint32_t msrs[] = { MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME_NEW };

static void *slot_add(struct kvm_vm *vm)
{
	void *mem = gpc_mmap_anon(NULL);

	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	return mem;
}

/* Write the old MSR and the new one, from the guest and from the VMM. */
static void write_msrs(struct kvm_vcpu *vcpu, uint64_t val)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		gpc_wrmsr(vcpu, msrs[i], val);
		TEST_ASSERT_EQ(vcpu_get_msr(vcpu, msrs[i]), val);
		gpc_update(vcpu);

		TEST_ASSERT_EQ(_vcpu_set_msr(vcpu, msrs[i], val), 1);
		TEST_ASSERT_EQ(vcpu_get_msr(vcpu, msrs[i]), val);
		gpc_update(vcpu);
	}
}

static void clock_on(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	write_msrs(vcpu, gpa | KVM_MSR_ENABLED);
}

/* KVM_KVMCLOCK_CTRL is for vCPUs that have a clock, even if KVM cannot write it. */
static void assert_clock_ctrl(struct kvm_vcpu *vcpu, int err)
{
	int r = __vcpu_ioctl(vcpu, KVM_KVMCLOCK_CTRL, NULL);

	TEST_ASSERT(err ? r == -1 && errno == err : !r,
		    "KVM_KVMCLOCK_CTRL: %d, errno %d, expected errno %d", r, errno, err);
}

static const uint64_t crossing[] = {
	PAGE_SIZE - GPC_CLOCK_SIZE + 2,
	PAGE_SIZE - GPC_CLOCK_SIZE / 2,
	PAGE_SIZE - 2,
};

REFUSE_TEST(across_page_end)
{
	void *mem = slot_add(vcpu->vm);
	int i;

	for (i = 0; i < ARRAY_SIZE(crossing); i++) {
		clock_on(vcpu, GPC_CLOCK + crossing[i]);
		assert_clock_ctrl(vcpu, EINVAL);
		gpc_update(vcpu);
		GPC_ASSERT_POISON(mem, GPC_SIZE);
	}

	clock_on(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
}

/* KVM refuses the new address.  The clock stays at the old one. */
REFUSE_TEST(across_page_end_clock_on)
{
	void *mem = slot_add(vcpu->vm);
	int i;

	clock_on(vcpu, GPC_CLOCK);
	for (i = 0; i < ARRAY_SIZE(crossing); i++) {
		memset(mem, GPC_POISON, GPC_SIZE);
		clock_on(vcpu, GPC_CLOCK + PAGE_SIZE + crossing[i]);
		assert_clock_ctrl(vcpu, 0);
		gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
		GPC_ASSERT_POISON(mem, PAGE_SIZE);
		GPC_ASSERT_POISON(mem + 2 * PAGE_SIZE, GPC_SIZE - 2 * PAGE_SIZE);
	}
}

REFUSE_TEST(gpa_without_memslot)
{
	void *mem = gpc_mmap_anon(NULL);

	clock_on(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, 0);
	gpc_update(vcpu);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	GPC_ASSERT_POISON(mem, GPC_SIZE);
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
}

REFUSE_TEST(gpa_without_memslot_clock_on)
{
	void *mem = slot_add(vcpu->vm);

	clock_on(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);

	clock_on(vcpu, GPC_GPA + GPC_SIZE);
	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	clock_on(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
}

REFUSE_TEST(gpa_beyond_any_memory)
{
	const uint64_t gpas[] = {
		1ul << 45,
		1ul << 52,
		1ul << 63,
		-PAGE_SIZE,		/* the last possible page */
		-GPC_CLOCK_SIZE,	/* ends at the end of the address space */
		-2ul,			/* with bit 0, the MSR is all ones */
	};
	void *mem = slot_add(vcpu->vm);
	int i;

	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		clock_on(vcpu, gpas[i]);
		gpc_update(vcpu);
		GPC_ASSERT_POISON(mem, GPC_SIZE);
	}

	clock_on(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
}

REFUSE_TEST(read_only_memslot)
{
	void *mem = gpc_mmap_anon(NULL);

	GPC_REQUIRE(kvm_has_cap(KVM_CAP_READONLY_MEM), "no KVM_CAP_READONLY_MEM");

	gpc_slot(vcpu->vm, KVM_MEM_READONLY, GPC_GPA, GPC_SIZE, mem);
	clock_on(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, 0);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	/* KVM cannot change the flag of a memslot, only replace the memslot. */
	gpc_slot_delete(vcpu->vm);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);

	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_slot_delete(vcpu->vm);
	gpc_slot(vcpu->vm, KVM_MEM_READONLY, GPC_GPA, GPC_SIZE, mem);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);
}

/* The freed pages go to the hoard, which must not be mapped at their address. */
REFUSE_TEST(backing_unmapped)
{
	void *mem = slot_add(vcpu->vm), *hoard = gpc_hoard_reserve();

	TEST_ASSERT(!munmap(mem, GPC_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	clock_on(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, 0);
	gpc_update(vcpu);

	gpc_mmap_anon(mem);
	GPC_ASSERT_POISON(mem, GPC_SIZE);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);

	memset(mem, GPC_POISON, GPC_SIZE);
	TEST_ASSERT(!munmap(mem, GPC_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	memset(hoard, GPC_POISON, GPC_HOARD_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);

	gpc_mmap_anon(mem);
	gpc_update(vcpu);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

REFUSE_TEST(backing_mapped_read_only)
{
	void *mem = slot_add(vcpu->vm);

	TEST_ASSERT(!mprotect(mem, GPC_SIZE, PROT_READ),
		    __KVM_SYSCALL_ERROR("mprotect()", -1));
	clock_on(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, 0);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	TEST_ASSERT(!mprotect(mem, GPC_SIZE, PROT_READ | PROT_WRITE),
		    __KVM_SYSCALL_ERROR("mprotect()", -1));
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
}

/* The memory is mapped, but an access raises SIGBUS. */
REFUSE_TEST(backing_beyond_end_of_file)
{
	int fd = kvm_memfd_alloc(GPC_SIZE, false);
	void *mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0), *hoard;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	TEST_ASSERT(!ftruncate(fd, PAGE_SIZE), __KVM_SYSCALL_ERROR("ftruncate()", -1));
	clock_on(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, 0);
	GPC_ASSERT_POISON(mem, PAGE_SIZE);

	TEST_ASSERT(!ftruncate(fd, GPC_SIZE), __KVM_SYSCALL_ERROR("ftruncate()", -1));
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);

	memset(mem, GPC_POISON, GPC_SIZE);
	TEST_ASSERT(!ftruncate(fd, PAGE_SIZE), __KVM_SYSCALL_ERROR("ftruncate()", -1));
	hoard = gpc_hoard();
	gpc_update(vcpu);
	TEST_ASSERT(!ftruncate(fd, GPC_SIZE), __KVM_SYSCALL_ERROR("ftruncate()", -1));
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

REFUSE_TEST(disabled_msr)
{
	void *mem = slot_add(vcpu->vm);

	write_msrs(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, EINVAL);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	clock_on(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, 0);
	gpc_assert_served_in(vcpu, GPC_CLOCK, mem + PAGE_SIZE);

	write_msrs(vcpu, GPC_CLOCK);
	assert_clock_ctrl(vcpu, EINVAL);
	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	/* A change of the backing memory does not bring the clock back. */
	TEST_ASSERT(!madvise(mem, GPC_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	clock_on(vcpu, GPC_CLOCK + 64);
	gpc_assert_served_in(vcpu, GPC_CLOCK + 64, mem + PAGE_SIZE);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));

	return test_harness_run(argc, argv);
}
