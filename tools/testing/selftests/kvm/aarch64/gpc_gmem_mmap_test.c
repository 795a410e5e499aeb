// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stolen time in memory that the VMM has mapped from a guest_memfd, in a memslot of nothing
 * but that: KVM writes to the page that the guest sees, and to none that the file has lost.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/falloc.h>

#include "gpc_rival.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

#define SLOT		10
#define GPA		0x40000000ul	/* the guest maps it 1:1 */
#define SIZE		(4 * getpagesize())
#define RECORD_OFFSET	(getpagesize() + 1024)
#define STOLEN		(GPA + RECORD_OFFSET + 8)
#define POISON		0xa5
#define GMEM_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

/* The guest reports the record's time, from @stolen. */
static uint64_t stolen;

static void guest(void)
{
	for (;;)
		GUEST_SYNC(READ_ONCE(*(uint64_t *)stolen));
}

FIXTURE(gpc_gmem_mmap)
{
	struct kvm_vcpu *vcpu;
	char *mem;
	int gmem;
};

FIXTURE_SETUP(gpc_gmem_mmap)
{
	struct kvm_vm *vm = vm_create_with_one_vcpu(&self->vcpu, guest);
	uint64_t ipa = GPA + RECORD_OFFSET;

	self->gmem = vm_create_guest_memfd(vm, SIZE, GMEM_FLAGS);
	self->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, self->gmem, 0);
	TEST_ASSERT(self->mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	vm_set_user_memory_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, GPA, SIZE, self->mem,
				   self->gmem, 0);
	virt_map(vm, GPA, GPA, SIZE / vm->page_size);
	stolen = STOLEN;
	sync_global_to_guest(vm, stolen);
	vcpu_device_attr_set(self->vcpu, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA,
			     &ipa);
}

FIXTURE_TEARDOWN(gpc_gmem_mmap)
{
	kvm_vm_free(self->vcpu->vm);
}

static uint64_t run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, &uc), UCALL_SYNC);
	return uc.args[1];
}

/* Time moves on in the page that the VMM has mapped, and the guest reads that page. */
static void assert_served(struct kvm_vcpu *vcpu, char *mem)
{
	uint64_t *time = (uint64_t *)(mem + RECORD_OFFSET + 8), last;
	pid_t rival = gpc_rival_start();
	int i;

	for (i = 0; i < 3; i++) {
		run(vcpu);
		last = READ_ONCE(*time);
		gpc_lose_cpu();
		TEST_ASSERT(run(vcpu) > last, "The guest sees no time pass");
		TEST_ASSERT(READ_ONCE(*time) > last, "The VMM sees no time pass");
	}
	gpc_rival_end(rival);
}

static void punch_hole(int gmem, off_t offset, size_t size)
{
	TEST_ASSERT(!fallocate(gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size),
		    __KVM_SYSCALL_ERROR("fallocate()", -1));
}

TEST_F(gpc_gmem_mmap, guest_and_vmm_see_time)
{
	assert_served(self->vcpu, self->mem);
}

TEST_F(gpc_gmem_mmap, hole_takes_the_page_away)
{
	uint64_t hits;
	int i;

	for (i = 0; i < 3; i++) {
		assert_served(self->vcpu, self->mem);
		hits = vm_get_stat(self->vcpu->vm, gpc_invalidation_hits);
		punch_hole(self->gmem, getpagesize(), getpagesize());
		TEST_ASSERT_EQ(vm_get_stat(self->vcpu->vm, gpc_invalidation_hits), hits + 1);
	}
	assert_served(self->vcpu, self->mem);
}

TEST_F(gpc_gmem_mmap, holes_elsewhere_leave_it_alone)
{
	uint64_t hits;

	assert_served(self->vcpu, self->mem);
	hits = vm_get_stat(self->vcpu->vm, gpc_invalidation_hits);
	punch_hole(self->gmem, 0, getpagesize());
	punch_hole(self->gmem, 2 * getpagesize(), 2 * getpagesize());
	assert_served(self->vcpu, self->mem);
	TEST_ASSERT_EQ(vm_get_stat(self->vcpu->vm, gpc_invalidation_hits), hits);
}

/* The guest still has the page, KVM has no way to it. */
TEST_F(gpc_gmem_mmap, unmapping_stops_time)
{
	assert_served(self->vcpu, self->mem);
	memset(self->mem, POISON, SIZE);
	TEST_ASSERT(!munmap(self->mem, SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	TEST_ASSERT_EQ(run(self->vcpu), 0xa5a5a5a5a5a5a5a5);

	TEST_ASSERT(mmap(self->mem, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 self->gmem, 0) == self->mem, __KVM_SYSCALL_ERROR("mmap()", -1));
	assert_served(self->vcpu, self->mem);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE((kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS) & GMEM_FLAGS) == GMEM_FLAGS);

	return test_harness_run(argc, argv);
}
