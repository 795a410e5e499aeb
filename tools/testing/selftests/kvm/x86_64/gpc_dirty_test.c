// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM marks the pages that it writes on its own behalf dirty: exactly the written pages,
 * each in its memslot, in the bitmap and in the dirty ring alike.
 *
 * The guest itself touches none of this memory.
 */
#include "gpc_harness.h"
#include "gpc_xen.h"

#include <asm/barrier.h>

/* The pages on either side of the page end. */
#define NONE	0
#define FIRST	1
#define SECOND	2
#define BOTH	3

#define IN_FIRST	(GPC_SPAN_END - GPC_RECORD_MAX)
#define ACROSS		(GPC_SPAN_END - GPC_RECORD_MAX + 1)
#define IN_SECOND	GPC_SPAN_END

/* Layout of the 64-bit ABI in Xen's public header xen.h. */
#define VCPU_INFO_PENDING	0
#define VCPU_INFO_PENDING_SEL	8
#define VCPU_INFO_TIME		32

#define UPCALL_VECTOR	0x40
#define PORT		5

/* KVM reserves some entries, and a few hundred for PML. */
#define RING_ENTRIES	4096

static bool use_ring;
static uint32_t ring_next;
static struct gpc_span span;
static bool two_slots;

FIXTURE(gpc_dirty)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_VARIANT(gpc_dirty)
{
	bool use_ring;
};

FIXTURE_VARIANT_ADD(gpc_dirty, bitmap) { .use_ring = false };
FIXTURE_VARIANT_ADD(gpc_dirty, ring) { .use_ring = true };

FIXTURE_SETUP(gpc_dirty)
{
	use_ring = variant->use_ring;
	if (use_ring)
		TEST_REQUIRE(kvm_has_cap(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) ||
			     kvm_has_cap(KVM_CAP_DIRTY_LOG_RING));
	self->vcpu = gpc_xen_create_with_ring(_metadata, use_ring ? RING_ENTRIES : 0);
	gpc_set_abi(self->vcpu->vm, GPC_64);
}

FIXTURE_TEARDOWN(gpc_dirty)
{
	gpc_free(self->vcpu);
}

#define DIRTY_TEST(test) KVM_ONE_VCPU_TEST(gpc_dirty, test, gpc_guest)

/*
 * The logs
 */

static int slots_from_bitmap(struct kvm_vm *vm, uint32_t slot)
{
	struct kvm_dirty_log log = { .slot = slot };
	uint64_t bitmap = 0;

	log.dirty_bitmap = &bitmap;
	/* A memslot that is not logged, or does not exist, has no bitmap. */
	if (__vm_ioctl(vm, KVM_GET_DIRTY_LOG, &log)) {
		TEST_ASSERT_EQ(errno, ENOENT);
		return 0;
	}
	return bitmap;
}

static int pages_from_bitmaps(struct kvm_vm *vm)
{
	return slots_from_bitmap(vm, GPC_SLOT) | slots_from_bitmap(vm, GPC_SPAN_SLOT2) << 1;
}

static int pages_from_ring(struct kvm_vcpu *vcpu)
{
	struct kvm_dirty_gfn *ring = vcpu_map_dirty_ring(vcpu), *gfn;
	int pages = 0;

	for (;;) {
		gfn = &ring[ring_next % RING_ENTRIES];
		/* Pairs with KVM's release of the entry: the rest is valid. */
		if (smp_load_acquire(&gfn->flags) != KVM_DIRTY_GFN_F_DIRTY)
			break;

		TEST_ASSERT((gfn->slot == GPC_SLOT && gfn->offset < (two_slots ? 1 : 2)) ||
			    (gfn->slot == GPC_SPAN_SLOT2 && two_slots && !gfn->offset),
			    "Page %llu of memslot %u", gfn->offset, gfn->slot);
		pages |= gfn->slot == GPC_SPAN_SLOT2 ? SECOND : 1 << gfn->offset;
		/* Pairs with KVM's acquire: the entry has been read. */
		smp_store_release(&gfn->flags, KVM_DIRTY_GFN_F_RESET);
		ring_next++;
	}
	kvm_vm_reset_dirty_ring(vcpu->vm);
	return pages;
}

/* The pages that were marked since the last call. */
static int dirty_pages(struct kvm_vcpu *vcpu)
{
	return use_ring ? pages_from_ring(vcpu) : pages_from_bitmaps(vcpu->vm);
}

#define ASSERT_DIRTY(vcpu, pages)	TEST_ASSERT_EQ(dirty_pages(vcpu), pages)

/*
 * The memory: @logged has the pages whose memslot is logged
 */

static uint32_t flags_of(int page, int logged)
{
	return logged & page ? KVM_MEM_LOG_DIRTY_PAGES : 0;
}

static void set_logged(struct kvm_vm *vm, int logged)
{
	vm_set_user_memory_region(vm, GPC_SLOT, flags_of(FIRST, logged), GPC_SPAN_GPA,
				  two_slots ? PAGE_SIZE : GPC_SPAN_SIZE, span.page[0]);
	if (two_slots)
		vm_set_user_memory_region(vm, GPC_SPAN_SLOT2, flags_of(SECOND, logged),
					  GPC_SPAN_END, PAGE_SIZE, span.page[1]);
}

static void one_slot_on(struct kvm_vcpu *vcpu)
{
	span = gpc_span_one_slot(vcpu->vm, gpc_mmap_anon(NULL));
	two_slots = false;
	set_logged(vcpu->vm, BOTH);
	ASSERT_DIRTY(vcpu, NONE);
}

static void two_slots_on(struct kvm_vcpu *vcpu, int logged)
{
	span = gpc_span_two_slots(vcpu->vm, gpc_mmap_anon(NULL), gpc_mmap_anon(NULL));
	two_slots = true;
	set_logged(vcpu->vm, logged);
	ASSERT_DIRTY(vcpu, NONE);
}

static void run(struct kvm_vcpu *vcpu)
{
	gpc_run(vcpu, (struct gpc_step) { });
}

/*
 * The clock.  KVM writes it on request and at times of its own choice: the versions show
 * which clock was written.  The version in a page without a clock does not change.
 */

static uint32_t version_in(int page, size_t offset)
{
	struct pvclock_vcpu_time_info *clock = span.page[page] + offset;

	return READ_ONCE(clock->version);
}

/* Let the guest do @step.  Exactly the pages whose clock KVM writes are marked. */
static int run_marks_clocks(struct kvm_vcpu *vcpu, size_t offset, struct gpc_step step)
{
	const uint32_t before[] = { version_in(0, offset), version_in(1, offset) };
	int written = NONE;

	gpc_run(vcpu, step);
	if (version_in(0, offset) != before[0])
		written |= FIRST;
	if (version_in(1, offset) != before[1])
		written |= SECOND;
	ASSERT_DIRTY(vcpu, written);
	return written;
}

static void assert_clock_marks(struct kvm_vcpu *vcpu, size_t offset, int page)
{
	int i;

	for (i = 0; i < 100; i++)
		run_marks_clocks(vcpu, offset, (struct gpc_step) { });

	gpc_new_era(vcpu->vm);
	TEST_ASSERT_EQ(run_marks_clocks(vcpu, offset, (struct gpc_step) { }), page);
}

DIRTY_TEST(clock)
{
	struct gpc_step step = { .msr = MSR_KVM_SYSTEM_TIME_NEW };

	one_slot_on(vcpu);

	step.val = GPC_SPAN_GPA | KVM_MSR_ENABLED;
	TEST_ASSERT(run_marks_clocks(vcpu, 0, step) & FIRST, "Clock was not written");
	assert_clock_marks(vcpu, 0, FIRST);

	step.val = GPC_SPAN_END | KVM_MSR_ENABLED;
	TEST_ASSERT(run_marks_clocks(vcpu, 0, step) & SECOND, "Clock was not written");
	assert_clock_marks(vcpu, 0, SECOND);

	step.val = 0;
	run_marks_clocks(vcpu, 0, step);
	assert_clock_marks(vcpu, 0, NONE);
}

/*
 * Xen's vCPU info
 */

static void vcpu_info_on(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		.u.gpa = gpa,
	};

	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, attr), 0);
}

DIRTY_TEST(vcpu_time_info)
{
	one_slot_on(vcpu);

	vcpu_info_on(vcpu, GPC_SPAN_END);
	assert_clock_marks(vcpu, VCPU_INFO_TIME, SECOND);
}

/* KVM checks for pending events there on each guest entry. */
DIRTY_TEST(vcpu_info_read)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_UPCALL_VECTOR,
		.u.vector = UPCALL_VECTOR,
	};

	one_slot_on(vcpu);
	memset(span.page[0], 0, PAGE_SIZE);
	vcpu_info_on(vcpu, GPC_SPAN_GPA);
	TEST_ASSERT_EQ(gpc_xen_vm_attr(vcpu->vm, attr), 0);
	assert_clock_marks(vcpu, VCPU_INFO_TIME, FIRST);
}

/*
 * If the vCPU info is inaccessible when an event is sent, KVM injects the event when the
 * vCPU runs.  (Otherwise KVM sets the event at once, and does not mark the page:
 * Documentation/virt/kvm/api.rst, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO.)
 */
DIRTY_TEST(vcpu_info_injection)
{
	void *shared_info = gpc_mmap_anon(NULL);
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA,
		.u.shared_info.hva = (uintptr_t)shared_info,
	};
	struct kvm_irq_routing_xen_evtchn event = {
		.port = PORT,
		.vcpu = vcpu->id,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};
	uint8_t *info;

	GPC_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
		    "KVM cannot send Xen's events");
	memset(shared_info, 0, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_vm_attr(vcpu->vm, attr), 0);

	one_slot_on(vcpu);
	info = span.page[1];
	vcpu_info_on(vcpu, GPC_SPAN_END);
	assert_clock_marks(vcpu, VCPU_INFO_TIME, SECOND);

	TEST_ASSERT(!madvise(info, PAGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
	vm_ioctl(vcpu->vm, KVM_XEN_HVM_EVTCHN_SEND, &event);
	TEST_ASSERT(!info[VCPU_INFO_PENDING], "Injected too early");
	ASSERT_DIRTY(vcpu, NONE);

	run(vcpu);
	TEST_ASSERT(info[VCPU_INFO_PENDING] == 1 && info[VCPU_INFO_PENDING_SEL] == 1,
		    "Not injected");
	ASSERT_DIRTY(vcpu, SECOND);
	run_marks_clocks(vcpu, VCPU_INFO_TIME, (struct gpc_step) { });
}

/*
 * Xen's runstate
 */

/* KVM writes the record when its address is set, on a change of state, and in KVM_RUN. */
static void assert_record_marks(struct kvm_vcpu *vcpu, uint64_t gpa, int pages)
{
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
	ASSERT_DIRTY(vcpu, pages);
	ASSERT_DIRTY(vcpu, NONE);

	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	ASSERT_DIRTY(vcpu, pages);
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_RUNNABLE), 0);
	ASSERT_DIRTY(vcpu, pages);

	run(vcpu);
	ASSERT_DIRTY(vcpu, pages);
}

DIRTY_TEST(one_page)
{
	one_slot_on(vcpu);

	assert_record_marks(vcpu, GPC_SPAN_GPA, FIRST);
	assert_record_marks(vcpu, IN_FIRST, FIRST);
	assert_record_marks(vcpu, IN_SECOND, SECOND);
	assert_record_marks(vcpu, GPC_SPAN_GPA + GPC_SPAN_SIZE - GPC_RECORD_MAX, SECOND);
}

DIRTY_TEST(across_pages)
{
	one_slot_on(vcpu);

	assert_record_marks(vcpu, ACROSS, BOTH);
	assert_record_marks(vcpu, GPC_SPAN_END - 20, BOTH);
	assert_record_marks(vcpu, GPC_SPAN_END - 1, BOTH);
}

DIRTY_TEST(across_memslots)
{
	two_slots_on(vcpu, BOTH);

	assert_record_marks(vcpu, ACROSS, BOTH);
	assert_record_marks(vcpu, GPC_SPAN_END - 20, BOTH);
	assert_record_marks(vcpu, GPC_SPAN_END - 1, BOTH);
	assert_record_marks(vcpu, IN_FIRST, FIRST);
	assert_record_marks(vcpu, IN_SECOND, SECOND);
}

DIRTY_TEST(memslot_not_logged)
{
	int logged;

	for (logged = NONE; logged <= BOTH; logged++) {
		two_slots_on(vcpu, logged);
		assert_record_marks(vcpu, ACROSS, BOTH & logged);
		assert_record_marks(vcpu, GPC_SPAN_END - 1, BOTH & logged);
		assert_record_marks(vcpu, IN_FIRST, FIRST & logged);
		assert_record_marks(vcpu, IN_SECOND, SECOND & logged);

		TEST_ASSERT_EQ(gpc_set_record(vcpu, KVM_XEN_INVALID_GPA), 0);
		vm_set_user_memory_region(vcpu->vm, GPC_SLOT, 0, 0, 0, NULL);
		vm_set_user_memory_region(vcpu->vm, GPC_SPAN_SLOT2, 0, 0, 0, NULL);
	}
}

/* Logging takes effect without setting the address again. */
DIRTY_TEST(logging_on_off)
{
	const int changes[] = { BOTH, FIRST, SECOND, NONE, FIRST, BOTH, SECOND, BOTH, NONE, BOTH };
	int i;

	two_slots_on(vcpu, NONE);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, ACROSS), 0);
	for (i = 0; i < ARRAY_SIZE(changes); i++) {
		set_logged(vcpu->vm, changes[i]);
		ASSERT_DIRTY(vcpu, NONE);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		ASSERT_DIRTY(vcpu, changes[i]);
		run(vcpu);
		ASSERT_DIRTY(vcpu, changes[i]);
	}
}

/* A 32-bit record ends at the page's end, a 64-bit record crosses it. */
DIRTY_TEST(size_by_mode)
{
	const uint64_t gpa = GPC_SPAN_END - GPC_RECORD_SIZE(GPC_32);
	int i;

	two_slots_on(vcpu, BOTH);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
	ASSERT_DIRTY(vcpu, BOTH);
	for (i = 0; i < 2; i++) {
		gpc_set_abi(vcpu->vm, GPC_32);
		ASSERT_DIRTY(vcpu, NONE);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		ASSERT_DIRTY(vcpu, FIRST);
		run(vcpu);
		ASSERT_DIRTY(vcpu, FIRST);

		gpc_set_abi(vcpu->vm, GPC_64);
		ASSERT_DIRTY(vcpu, NONE);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		ASSERT_DIRTY(vcpu, BOTH);
		run(vcpu);
		ASSERT_DIRTY(vcpu, BOTH);
	}
}

/* The record follows the page, and KVM marks the guest's address, not the VMM's. */
DIRTY_TEST(memory_moves)
{
	int i;

	two_slots_on(vcpu, BOTH);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, ACROSS), 0);
	ASSERT_DIRTY(vcpu, BOTH);
	for (i = 0; i < 2; i++) {
		TEST_ASSERT(!madvise(span.page[i], PAGE_SIZE, MADV_DONTNEED),
			    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
		ASSERT_DIRTY(vcpu, NONE);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		ASSERT_DIRTY(vcpu, BOTH);
	}
}

/* Both pages of the guest are one page of the VMM. */
DIRTY_TEST(aliased_memslots)
{
	void *mem = gpc_mmap_anon(NULL);

	span = gpc_span_two_slots(vcpu->vm, mem, mem);
	two_slots = true;
	set_logged(vcpu->vm, BOTH);

	assert_record_marks(vcpu, ACROSS, BOTH);
	assert_record_marks(vcpu, IN_FIRST, FIRST);
	assert_record_marks(vcpu, IN_SECOND, SECOND);
}

static void assert_marks_nothing(struct kvm_vcpu *vcpu)
{
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	run(vcpu);
	ASSERT_DIRTY(vcpu, NONE);
}

DIRTY_TEST(not_written)
{
	struct kvm_xen_vcpu_attr data = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };
	void *page;
	int i;

	two_slots_on(vcpu, BOTH);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, ACROSS), 0);
	ASSERT_DIRTY(vcpu, BOTH);

	/* A read and a refused change mark nothing. */
	vcpu_ioctl(vcpu, KVM_XEN_VCPU_GET_ATTR, &data);
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_NR_STATES), -EINVAL);
	ASSERT_DIRTY(vcpu, NONE);

	/* One of the two halves is missing. */
	for (i = 0; i < 2; i++) {
		page = span.page[i];
		TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
		assert_marks_nothing(vcpu);

		gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		ASSERT_DIRTY(vcpu, BOTH);
	}

	/* No address. */
	TEST_ASSERT_EQ(gpc_set_record(vcpu, KVM_XEN_INVALID_GPA), 0);
	assert_marks_nothing(vcpu);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, GPC_SPAN_GPA + GPC_SPAN_SIZE - 1), -EFAULT);
	assert_marks_nothing(vcpu);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, ACROSS), 0);
	ASSERT_DIRTY(vcpu, BOTH);
}

int main(int argc, char *argv[])
{
	GPC_REQUIRE_RUNSTATE();

	return test_harness_run(argc, argv);
}
