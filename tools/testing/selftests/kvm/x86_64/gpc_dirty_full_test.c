// SPDX-License-Identifier: GPL-2.0-only
/*
 * A dirty ring that is not harvested: KVM refuses its own writes before they overrun the
 * ring.  No entry is lost, and after a reset of the ring the writes succeed again.
 */
#include <asm/barrier.h>

#include "apic.h"
#include "gpc_harness.h"
#include "gpc_xen.h"

/* The smallest ring with room for all entries that KVM reserves, including PML's. */
#define RING_ENTRIES	1024
#define RSVD_ENTRIES	64

#define RECORD		GPC_SPAN_GPA
#define ACROSS		(GPC_SPAN_END - GPC_RECORD_MAX + 1)

#define BIG_GPA		0x80000000ul
#define BIG_PAGES	(2 * RING_ENTRIES)

static void *mem;

FIXTURE(gpc_dirty_full)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_dirty_full)
{
	struct kvm_vm *vm;

	self->vcpu = gpc_xen_create_with_ring(_metadata, RING_ENTRIES);
	vm = self->vcpu->vm;
	gpc_set_abi(vm, GPC_64);
	mem = gpc_mmap_anon(NULL);
	gpc_slot(vm, KVM_MEM_LOG_DIRTY_PAGES, GPC_GPA, GPC_SIZE, mem);
}

FIXTURE_TEARDOWN(gpc_dirty_full)
{
	gpc_free(self->vcpu);
}

#define FULL_TEST(test) KVM_ONE_VCPU_TEST(gpc_dirty_full, test, gpc_guest)

static uint32_t ring_next;

/* Take all entries, which must be of @slot, and give the ring back to KVM. */
static unsigned int harvest(struct kvm_vcpu *vcpu, uint32_t slot)
{
	struct kvm_dirty_gfn *ring = vcpu_map_dirty_ring(vcpu), *gfn;
	unsigned int nr = 0;

	for (;;) {
		gfn = &ring[ring_next % RING_ENTRIES];
		/* Pairs with KVM's release of the entry: the rest is valid. */
		if (smp_load_acquire(&gfn->flags) != KVM_DIRTY_GFN_F_DIRTY)
			break;
		TEST_ASSERT_EQ(gfn->slot, slot);
		/* Pairs with KVM's acquire: the entry has been read. */
		smp_store_release(&gfn->flags, KVM_DIRTY_GFN_F_RESET);
		ring_next++;
		nr++;
	}
	TEST_ASSERT_EQ(kvm_vm_reset_dirty_ring(vcpu->vm), nr);
	return nr;
}

/*
 * Repeat @write, which marks @nr pages each time, until KVM refuses it.  The ring has the
 * pages of all previous writes.
 */
static void assert_refused(struct kvm_vcpu *vcpu, int (*write)(struct kvm_vcpu *),
			   uint32_t slot, unsigned int nr)
{
	unsigned int done = 0;
	int r, round;

	for (round = 0; round < 3; round++) {
		for (done = 0; done <= RING_ENTRIES; done++) {
			r = write(vcpu);
			if (r)
				break;
		}
		TEST_ASSERT_EQ(r, -ENOSPC);
		TEST_ASSERT(done * nr > RING_ENTRIES - RSVD_ENTRIES && done * nr <= RING_ENTRIES,
			    "Refused after %u pages of %u", done * nr, RING_ENTRIES);
		/* KVM keeps refusing until an entry is taken. */
		TEST_ASSERT_EQ(write(vcpu), -ENOSPC);
		TEST_ASSERT_EQ(harvest(vcpu, slot), done * nr);
	}
	TEST_ASSERT_EQ(write(vcpu), 0);
	harvest(vcpu, slot);
}

static int enter_blocked(struct kvm_vcpu *vcpu)
{
	return gpc_set_state(vcpu, GPC_BLOCKED);
}

static int set_record(struct kvm_vcpu *vcpu)
{
	return gpc_set_record(vcpu, RECORD);
}

static int adjust(struct kvm_vcpu *vcpu)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST,
		.u.runstate.state = -1ull,
	};

	return gpc_xen_vcpu_attr(vcpu, attr);
}

FULL_TEST(runstate)
{
	TEST_ASSERT_EQ(gpc_set_record(vcpu, RECORD), 0);
	harvest(vcpu, GPC_SLOT);
	assert_refused(vcpu, enter_blocked, GPC_SLOT, 1);
	assert_refused(vcpu, adjust, GPC_SLOT, 1);
	assert_refused(vcpu, set_record, GPC_SLOT, 1);

	TEST_ASSERT_EQ(gpc_set_record(vcpu, ACROSS), 0);
	harvest(vcpu, GPC_SLOT);
	assert_refused(vcpu, enter_blocked, GPC_SLOT, 2);
}

/* Three writes each: the version, the time, the version. */
static int write_wall_clock(struct kvm_vcpu *vcpu)
{
	return _vcpu_set_msr(vcpu, MSR_KVM_WALL_CLOCK_NEW, GPC_GPA) ? 0 : -ENOSPC;
}

FULL_TEST(wall_clock)
{
	assert_refused(vcpu, write_wall_clock, GPC_SLOT, 3);
}

/* The walk sets the accessed bit of one entry in a page table of the guest. */
static int translate(struct kvm_vcpu *vcpu)
{
	struct kvm_translation tr = { .linear_address = GPC_GPA };
	uint64_t *ptes[5];

	gpc_ptes(vcpu, GPC_GPA, ptes);
	*ptes[0] &= ~GPC_PTE_ACCESSED;
	return __vcpu_ioctl(vcpu, KVM_TRANSLATE, &tr) ? -errno : 0;
}

FULL_TEST(translation)
{
	TEST_ASSERT_EQ(translate(vcpu), 0);
	vm_mem_region_set_flags(vcpu->vm, 0, KVM_MEM_LOG_DIRTY_PAGES);
	assert_refused(vcpu, translate, 0, 1);
}

FULL_TEST(pre_fault_memory)
{
	struct kvm_pre_fault_memory range = { .gpa = BIG_GPA, .size = BIG_PAGES * PAGE_SIZE };
	uint64_t left = range.size;
	unsigned int nr;

	GPC_REQUIRE(kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY), "KVM cannot map memory ahead");
	vm_set_user_memory_region(vcpu->vm, GPC_SLOT + 1, KVM_MEM_LOG_DIRTY_PAGES, BIG_GPA,
				  BIG_PAGES * PAGE_SIZE,
				  gpc_mmap(NULL, BIG_PAGES * PAGE_SIZE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	while (range.size) {
		TEST_ASSERT(!__vcpu_ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &range),
			    __KVM_SYSCALL_ERROR("KVM_PRE_FAULT_MEMORY", -1));
		TEST_ASSERT(range.size < left, "Nothing was mapped");
		if (range.size)
			TEST_ASSERT(__vcpu_ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &range) == -1 &&
				    errno == ENOSPC, "Not refused, error %d", errno);
		nr = harvest(vcpu, GPC_SLOT + 1);
		TEST_ASSERT_EQ(nr, (left - range.size) / PAGE_SIZE);
		left = range.size;
	}
}

/*
 * The guest: one exit for which KVM writes more often than it has reserved entries
 */

/* Run the guest, and harvest its ring when it is full.  Returns the number of entries. */
static unsigned int run_and_harvest(struct kvm_vcpu *vcpu, struct gpc_step step)
{
	unsigned int nr = 0;

	gpc_step = step;
	sync_global_to_guest(vcpu->vm, gpc_step);
	for (;;) {
		vcpu_run(vcpu);
		nr += harvest(vcpu, GPC_SLOT);
		if (vcpu->run->exit_reason != KVM_EXIT_DIRTY_RING_FULL)
			break;
	}
	gpc_assert_synced(vcpu);
	sync_global_from_guest(vcpu->vm, gpc_step);
	return nr;
}

/* Leave @nr entries in the ring, and no record for KVM to write when the vCPU runs. */
static void fill(struct kvm_vcpu *vcpu, unsigned int nr)
{
	if (nr) {
		TEST_ASSERT_EQ(gpc_set_record(vcpu, RECORD), 0);
		while (--nr)
			TEST_ASSERT_EQ(enter_blocked(vcpu), 0);
	}
	TEST_ASSERT_EQ(gpc_set_record(vcpu, KVM_XEN_INVALID_GPA), 0);
}

/* Number of entries at which KVM_RUN exits at once.  It depends on the CPU. */
static unsigned int soft_limit(struct kvm_vcpu *vcpu)
{
	unsigned int low = 1, high = RING_ENTRIES - RSVD_ENTRIES, nr;
	bool full;

	while (low < high) {
		nr = (low + high) / 2;
		fill(vcpu, nr);
		gpc_step = (struct gpc_step) { };
		sync_global_to_guest(vcpu->vm, gpc_step);
		vcpu_run(vcpu);
		full = vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL;
		if (!full)
			gpc_assert_synced(vcpu);
		TEST_ASSERT_EQ(harvest(vcpu, GPC_SLOT), nr);
		if (full)
			high = nr;
		else
			low = nr + 1;
	}
	return low;
}

FULL_TEST(hypercall_page)
{
	unsigned int limit = soft_limit(vcpu);

	fill(vcpu, limit - 1);
	TEST_ASSERT_EQ(run_and_harvest(vcpu, (struct gpc_step) {
		.msr = GPC_XEN_MSR, .val = GPC_GPA,
	}), limit);
	TEST_ASSERT(!gpc_step.vector, "WRMSR raised vector %u", gpc_step.vector);
}

#define APIC_WORDS	1024

static void guest_copies_apic(void)
{
	void *dst = (void *)GPC_GPA, *src = (void *)APIC_DEFAULT_GPA;
	uint64_t count = APIC_WORDS;

	asm volatile("cld; rep movsl" : "+D"(dst), "+S"(src), "+c"(count) : : "memory");
	GUEST_ASSERT_EQ(count, 0);
}

/* KVM emulates up to 1,024 iterations per exit, and marks the page for each of them. */
FULL_TEST(emulated_string_io)
{
	const uint32_t *copy = mem;
	unsigned int limit = soft_limit(vcpu), nr;

	GPC_REQUIRE(!(host_cpu_is_intel ? get_kvm_intel_param_bool("enable_apicv") :
					  get_kvm_amd_param_bool("avic")),
		    "the CPU reads the APIC for the guest");
	virt_pg_map(vcpu->vm, APIC_DEFAULT_GPA, APIC_DEFAULT_GPA);
	fill(vcpu, limit - 1);
	nr = run_and_harvest(vcpu, (struct gpc_step) { .call = guest_copies_apic });
	TEST_ASSERT(nr >= limit - 1 + APIC_WORDS, "%u entries of %u", nr, limit - 1 + APIC_WORDS);
	TEST_ASSERT(copy[APIC_LVR / 4] && copy[APIC_LVR / 4] != 0xa5a5a5a5 && !copy[APIC_WORDS - 1],
		    "Copied 0x%x and 0x%x", copy[APIC_LVR / 4], copy[APIC_WORDS - 1]);
}

int main(int argc, char *argv[])
{
	GPC_REQUIRE_RUNSTATE();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) ||
		     kvm_has_cap(KVM_CAP_DIRTY_LOG_RING));

	return test_harness_run(argc, argv);
}
