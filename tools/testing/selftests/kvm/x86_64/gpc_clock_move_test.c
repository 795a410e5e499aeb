// SPDX-License-Identifier: GPL-2.0-only
/*
 * kvmclock when its guest address or the memslots change: KVM writes the clock to its
 * current guest address and nowhere else.
 */
#include "gpc_harness.h"

#define LAST_OFFSET	(PAGE_SIZE - GPC_CLOCK_SIZE)

/* A memslot that is unrelated to the clock. */
#define OTHER_SLOT	(GPC_SLOT + 1)
#define OTHER_GPA	(GPC_GPA + GPC_SIZE)

FIXTURE(gpc_move)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_move)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_move)
{
	gpc_free(self->vcpu);
}

#define MOVE_TEST(test) KVM_ONE_VCPU_TEST(gpc_move, test, gpc_guest)

static void *slot_add(struct kvm_vm *vm)
{
	void *mem = gpc_mmap_anon(NULL);

	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	return mem;
}

static void clock_on(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, gpa | KVM_MSR_ENABLED);
}

/* Assert that KVM writes the clock at @gpa, and nothing else in the slot at @mem. */
static void assert_served_only(struct kvm_vcpu *vcpu, uint64_t gpa, void *mem)
{
	size_t start = gpa - GPC_GPA, end = start + GPC_CLOCK_SIZE;

	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_assert_served(vcpu, gpa);
	GPC_ASSERT_POISON(mem, start);
	GPC_ASSERT_POISON(mem + end, GPC_SIZE - end);
}

static void assert_served_at_each(struct kvm_vcpu *vcpu, uint32_t msr,
				  const uint64_t *offsets, int nr)
{
	void *mem = slot_add(vcpu->vm);
	int i;

	for (i = 0; i < nr; i++) {
		gpc_wrmsr(vcpu, msr, (GPC_GPA + offsets[i]) | KVM_MSR_ENABLED);
		assert_served_only(vcpu, GPC_GPA + offsets[i], mem);
	}
}

/* Any even address is valid: only bit 0 is not part of the address. */
static const uint64_t within_page[] = {
	0, 64, 32, LAST_OFFSET, 2, LAST_OFFSET - 2, 0,
};

static const uint64_t across_pages[] = {
	0, PAGE_SIZE, 2 * PAGE_SIZE + 64, PAGE_SIZE + 64, PAGE_SIZE + LAST_OFFSET,
	3 * PAGE_SIZE + LAST_OFFSET, 0,
};

MOVE_TEST(msr_within_page)
{
	assert_served_at_each(vcpu, MSR_KVM_SYSTEM_TIME_NEW, within_page,
			      ARRAY_SIZE(within_page));
}

MOVE_TEST(old_msr_within_page)
{
	assert_served_at_each(vcpu, MSR_KVM_SYSTEM_TIME, within_page, ARRAY_SIZE(within_page));
}

MOVE_TEST(msr_to_other_page)
{
	assert_served_at_each(vcpu, MSR_KVM_SYSTEM_TIME_NEW, across_pages,
			      ARRAY_SIZE(across_pages));
}

MOVE_TEST(old_msr_to_other_page)
{
	assert_served_at_each(vcpu, MSR_KVM_SYSTEM_TIME, across_pages, ARRAY_SIZE(across_pages));
}

/* The MSR write itself causes a write of the clock, without KVM_SET_CLOCK. */
MOVE_TEST(written_by_wrmsr)
{
	const uint32_t msrs[] = { MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME_NEW };
	void *mem = slot_add(vcpu->vm);
	uint64_t gpa, prev = 0;
	int i;

	for (i = 0; i < 2 * ARRAY_SIZE(within_page); i++) {
		gpa = GPC_CLOCK + within_page[i / 2];
		memset(mem, GPC_POISON, GPC_SIZE);
		gpc_run(vcpu, (struct gpc_step) {
			.msr = msrs[i % 2], .val = gpa | KVM_MSR_ENABLED, .clock = gpa,
		});
		TEST_ASSERT(!gpc_step.vector, "WRMSR raised vector %u", gpc_step.vector);
		TEST_ASSERT(gpc_step.ns < GPC_ERA_NS && gpc_step.ns + NSEC_PER_SEC > prev,
			    "Guest reads %lu ns after %lu ns", gpc_step.ns, prev);
		prev = gpc_step.ns;
		TEST_ASSERT_EQ(vcpu_get_msr(vcpu, msrs[i % 2]), gpa | KVM_MSR_ENABLED);
	}
}

/* Like a restore of a VM. */
MOVE_TEST(msr_set_by_vmm)
{
	void *mem = slot_add(vcpu->vm);
	int i;

	for (i = 0; i < ARRAY_SIZE(across_pages); i++) {
		vcpu_set_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     (GPC_GPA + across_pages[i]) | KVM_MSR_ENABLED);
		assert_served_only(vcpu, GPC_GPA + across_pages[i], mem);
	}
}

/* The next page does not matter, present or absent. */
MOVE_TEST(last_legal_offset)
{
	const uint64_t gpas[] = {
		GPC_CLOCK + LAST_OFFSET,
		GPC_GPA + GPC_SIZE - GPC_CLOCK_SIZE,
	};
	void *mem = slot_add(vcpu->vm);
	int i;

	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		clock_on(vcpu, gpas[i]);
		assert_served_only(vcpu, gpas[i], mem);

		TEST_ASSERT(!madvise(mem, GPC_SIZE, MADV_DONTNEED),
			    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
		assert_served_only(vcpu, gpas[i], mem);
	}
}

MOVE_TEST(memslot_recreated)
{
	void *mem = slot_add(vcpu->vm);

	clock_on(vcpu, GPC_CLOCK);
	assert_served_only(vcpu, GPC_CLOCK, mem);

	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_slot_delete(vcpu->vm);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_assert_served(vcpu, GPC_CLOCK);
	assert_served_only(vcpu, GPC_CLOCK, mem);
}

/* No update happens while the slot is deleted: only the memslots' generation changes. */
MOVE_TEST(memslot_recreated_elsewhere)
{
	void *old = slot_add(vcpu->vm), *mem = gpc_mmap_anon(NULL);

	clock_on(vcpu, GPC_CLOCK);
	assert_served_only(vcpu, GPC_CLOCK, old);

	memset(old, GPC_POISON, GPC_SIZE);
	gpc_slot_delete(vcpu->vm);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_assert_served(vcpu, GPC_CLOCK);
	assert_served_only(vcpu, GPC_CLOCK, mem);
	GPC_ASSERT_POISON(old, GPC_SIZE);
}

/* Move the slot by a page, up and down: another page then backs the clock. */
MOVE_TEST(memslot_moved)
{
	void *mem = slot_add(vcpu->vm);
	int i, page;

	clock_on(vcpu, GPC_CLOCK);
	for (i = 0; i < 4; i++) {
		memset(mem, GPC_POISON, GPC_SIZE);
		page = !(i % 2);
		gpc_slot(vcpu->vm, 0, GPC_CLOCK - page * PAGE_SIZE, GPC_SIZE, mem);

		gpc_assert_served(vcpu, GPC_CLOCK);
		gpc_assert_served_in(vcpu, GPC_CLOCK, mem + page * PAGE_SIZE);
		GPC_ASSERT_POISON(mem + !page * PAGE_SIZE, PAGE_SIZE);
		GPC_ASSERT_POISON(mem + 2 * PAGE_SIZE, GPC_SIZE - 2 * PAGE_SIZE);
	}
}

MOVE_TEST(memslot_moved_away)
{
	void *mem = slot_add(vcpu->vm);

	clock_on(vcpu, GPC_GPA);
	assert_served_only(vcpu, GPC_GPA, mem);

	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA + PAGE_SIZE, GPC_SIZE, mem);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	assert_served_only(vcpu, GPC_GPA, mem);
}

MOVE_TEST(other_memslots_change)
{
	void *mem = slot_add(vcpu->vm), *other = gpc_mmap_anon(NULL);
	int i;

	clock_on(vcpu, GPC_CLOCK);
	for (i = 0; i < 3; i++) {
		vm_set_user_memory_region(vcpu->vm, OTHER_SLOT, 0, OTHER_GPA, GPC_SIZE, other);
		assert_served_only(vcpu, GPC_CLOCK, mem);
		vm_set_user_memory_region(vcpu->vm, OTHER_SLOT, 0, 0, 0, NULL);
		assert_served_only(vcpu, GPC_CLOCK, mem);
	}
	GPC_ASSERT_POISON(other, GPC_SIZE);
}

static uint64_t dirty_pages(struct kvm_vm *vm)
{
	uint64_t bitmap = 0;

	kvm_vm_get_dirty_log(vm, GPC_SLOT, &bitmap);
	return bitmap;
}

MOVE_TEST(dirty_log)
{
	void *mem = gpc_mmap_anon(NULL);
	int i;

	gpc_slot(vcpu->vm, KVM_MEM_LOG_DIRTY_PAGES, GPC_GPA, GPC_SIZE, mem);
	for (i = 0; i < ARRAY_SIZE(across_pages); i++) {
		clock_on(vcpu, GPC_GPA + across_pages[i]);
		dirty_pages(vcpu->vm);

		gpc_update(vcpu);
		TEST_ASSERT_EQ(dirty_pages(vcpu->vm), 1ull << (across_pages[i] / PAGE_SIZE));
		TEST_ASSERT_EQ(dirty_pages(vcpu->vm), 0);
	}
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));

	return test_harness_run(argc, argv);
}
