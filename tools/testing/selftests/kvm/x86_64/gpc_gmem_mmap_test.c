// SPDX-License-Identifier: GPL-2.0-only
/*
 * Caches of memory that the VMM has mapped from a guest_memfd, in a memslot that has no
 * other memory: KVM writes to the pages that the guest sees, and not to pages that the
 * file has lost.
 */
#include "gpc_harness.h"

#include <linux/falloc.h>

#define CLOCK_OFFSET	(GPC_CLOCK - GPC_GPA)
#define GMEM_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

FIXTURE(gpc_gmem_mmap)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_gmem_mmap)
{
	self->vcpu = gpc_create_vm(_metadata, KVM_X86_DEFAULT_VM, 0);
}

FIXTURE_TEARDOWN(gpc_gmem_mmap)
{
	gpc_free(self->vcpu);
}

#define GMEM_MMAP_TEST(test) KVM_ONE_VCPU_TEST(gpc_gmem_mmap, test, gpc_guest)

/* Add a memslot of a mapped guest_memfd, with the clock on.  Returns the clock's page. */
static void *clock_on(struct kvm_vcpu *vcpu, int *gmem)
{
	void *mem;

	*gmem = vm_create_guest_memfd(vcpu->vm, GPC_SIZE, GMEM_FLAGS);
	mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, *gmem, 0);
	vm_set_user_memory_region2(vcpu->vm, GPC_SLOT, KVM_MEM_GUEST_MEMFD, GPC_GPA, GPC_SIZE,
				   mem, *gmem, 0);

	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	return mem + CLOCK_OFFSET;
}

/* Both the guest's page tables and the VMM's mapping lead to the file. */
static void assert_served(struct kvm_vcpu *vcpu, void *page)
{
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
}

static void punch_hole(int gmem, off_t offset, size_t size)
{
	TEST_ASSERT(!fallocate(gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size),
		    __KVM_SYSCALL_ERROR("fallocate()", -1));
}

GMEM_MMAP_TEST(guest_and_vmm_see_the_clock)
{
	int gmem;
	void *page = clock_on(vcpu, &gmem);

	assert_served(vcpu, page);
}

GMEM_MMAP_TEST(hole_takes_the_page_away)
{
	int gmem, i;
	void *page = clock_on(vcpu, &gmem), *hoard;
	uint64_t hits;

	for (i = 0; i < 3; i++) {
		assert_served(vcpu, page);
		memset(page, GPC_POISON, PAGE_SIZE);
		hits = gpc_stat(vcpu->vm, "gpc_invalidation_hits");
		punch_hole(gmem, CLOCK_OFFSET, PAGE_SIZE);
		TEST_ASSERT_EQ(gpc_stat(vcpu->vm, "gpc_invalidation_hits"), hits + 1);

		hoard = gpc_hoard();
		assert_served(vcpu, page);
		GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
	}
}

GMEM_MMAP_TEST(holes_elsewhere_leave_it_alone)
{
	int gmem;
	void *page = clock_on(vcpu, &gmem);
	uint64_t hits;

	assert_served(vcpu, page);
	hits = gpc_stat(vcpu->vm, "gpc_invalidation_hits");
	punch_hole(gmem, 0, CLOCK_OFFSET);
	punch_hole(gmem, CLOCK_OFFSET + PAGE_SIZE, GPC_SIZE - CLOCK_OFFSET - PAGE_SIZE);
	assert_served(vcpu, page);
	TEST_ASSERT_EQ(gpc_stat(vcpu->vm, "gpc_invalidation_hits"), hits);
}

/* The guest still has the page, but KVM has no access. */
GMEM_MMAP_TEST(unmapping_stops_the_clock)
{
	int gmem;
	void *page = clock_on(vcpu, &gmem), *mem = page - CLOCK_OFFSET;

	assert_served(vcpu, page);
	memset(page, GPC_POISON, PAGE_SIZE);
	munmap(mem, GPC_SIZE);
	gpc_update(vcpu);

	TEST_ASSERT(mmap(mem, GPC_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, gmem,
			 0) == mem, __KVM_SYSCALL_ERROR("mmap()", -1));
	GPC_ASSERT_POISON(page, PAGE_SIZE);
	assert_served(vcpu, page);
}

/* A mapping keeps the file alive. */
GMEM_MMAP_TEST(closing_the_file_leaves_it_alone)
{
	int gmem;
	void *page = clock_on(vcpu, &gmem);

	assert_served(vcpu, page);
	close(gmem);
	assert_served(vcpu, page);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE((kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS) & GMEM_FLAGS) == GMEM_FLAGS);

	return test_harness_run(argc, argv);
}
