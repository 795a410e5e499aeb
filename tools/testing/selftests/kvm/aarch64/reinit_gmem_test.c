// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_ARM_VCPU_INIT of vCPUs that have run, where memory is a guest_memfd that the VMM has
 * mapped, in a memslot of nothing but that. reinit_test.c has other memory.
 */
#include <fcntl.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/sizes.h>

#include "bare.h"
#include "cmo_watch.h"
#include "kvm_test_harness.h"

#define SIZE		(2ul * SZ_1M)
#define IMAGE		(BARE_GPA + SIZE - cmo_page)
#define GMEM_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

FIXTURE(reinit_gmem)
{
	struct kvm_vcpu *vcpus[2];
	struct cmo_watch data;
	struct kvm_vm *vm;
	char *mem;
	int gmem;
};

FIXTURE_SETUP(reinit_gmem)
{
	if (!cmo_watch_setup())
		SKIP(return, "kernel without kprobe events");
	self->vm = vm_create_barebones();
	self->gmem = vm_create_guest_memfd(self->vm, SIZE, GMEM_FLAGS);
	self->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, self->gmem, 0);
	TEST_ASSERT(self->mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	vm_set_user_memory_region2(self->vm, BARE_SLOT, KVM_MEM_GUEST_MEMFD, BARE_GPA, SIZE,
				   self->mem, self->gmem, 0);
	self->data = cmo_watch(BARE_GPA, self->mem, SIZE);
	bare_add_vcpus(self->vm, self->vcpus, 2);
}

FIXTURE_TEARDOWN(reinit_gmem)
{
	kvm_vm_free(self->vm);
}

/* The guest's program, too: no other memory faults in. It touches all pages before that. */
static struct bare_report run(struct kvm_vcpu *vcpu, uint64_t value)
{
	bare_start(vcpu, IMAGE, (struct bare_work) {
		.start = BARE_GPA, .end = IMAGE, .stride = cmo_page, .value = value,
	});
	return bare_run(vcpu);
}

/*
 * The VMM writes to all of it, after the reset of both vCPUs. A guest whose MMU is off
 * reads that from pages that have faulted in, and were cleaned for it, once.
 */
static void reset_and_assert(struct kvm_vcpu **vcpus, struct cmo_watch *data, char *mem,
			     uint64_t factor)
{
	uint64_t sum;
	size_t i;

	bare_init(vcpus[0], false);
	bare_init(vcpus[1], false);
	sum = bare_write_words(mem, SIZE, factor, IMAGE);
	bare_load(bare_word(mem, IMAGE), factor);
	cmo_watch_start();
	bare_assert_report(run(vcpus[0], 0), factor, sum);
	cmo_watch_end(data);
	for (i = 0; i < data->pages; i++) {
		/* Memory stays mapped if the CPU has FEAT_S2FWB. */
		if (cmo_fwb)
			TEST_ASSERT_EQ(data->seen[i].cleans, 0);
		else
			cmo_assert_seen(data, i, 1, 1);
	}
}

TEST_F(reinit_gmem, each_reset)
{
	int i;

	for (i = 1; i < 5; i++)
		reset_and_assert(self->vcpus, &self->data, self->mem, i);
}

/* A page of a hole faults in anew. The reset comes for it, too. */
TEST_F(reinit_gmem, after_hole)
{
	reset_and_assert(self->vcpus, &self->data, self->mem, 1);
	TEST_ASSERT(!fallocate(self->gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE),
		    __KVM_SYSCALL_ERROR("fallocate()", -1));
	bare_load(bare_word(self->mem, IMAGE), 2);
	run(self->vcpus[0], 3);
	reset_and_assert(self->vcpus, &self->data, self->mem, 4);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE((kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS) & GMEM_FLAGS) == GMEM_FLAGS);

	return test_harness_run(argc, argv);
}
