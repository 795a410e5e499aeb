// SPDX-License-Identifier: GPL-2.0-only
/*
 * A record across the end of a page: KVM finds it in both pages, wherever each page is,
 * and follows when one page, the other, or both are taken away.
 */
#include "gpc_harness.h"
#include "gpc_xen.h"

/* The entry time is in the first page.  The next word crosses the page end. */
#define RECORD	(GPC_SPAN_END - 20)

/* Layout of the two pages. */
enum layout {
	ONE_SLOT,	/* in one memslot, adjacent also in the host's memory */
	TWO_SLOTS,	/* in two memslots, anywhere */
	REVERSED,	/* the second page comes before the first one in the VMM */
	ALIASED,	/* two memslots of the same page, which then holds both parts */
};

/* The pages that are affected: the first one, the second one, both. */
static const struct {
	int first;
	int last;
} halves[] = {
	{ 0, 0 }, { 1, 1 }, { 0, 1 },
};

static enum layout layout;
static struct gpc_span span;

FIXTURE(gpc_span)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_VARIANT(gpc_span)
{
	enum layout layout;
};

FIXTURE_VARIANT_ADD(gpc_span, one_slot) { .layout = ONE_SLOT };
FIXTURE_VARIANT_ADD(gpc_span, two_slots) { .layout = TWO_SLOTS };
FIXTURE_VARIANT_ADD(gpc_span, reversed) { .layout = REVERSED };
FIXTURE_VARIANT_ADD(gpc_span, aliased) { .layout = ALIASED };

FIXTURE_SETUP(gpc_span)
{
	self->vcpu = gpc_xen_create(_metadata);
	layout = variant->layout;
}

FIXTURE_TEARDOWN(gpc_span)
{
	gpc_free(self->vcpu);
}

#define SPAN_TEST(test) KVM_ONE_VCPU_TEST(gpc_span, test, gpc_guest)

/* Put the guest's record across the page end. */
static void record_on(struct kvm_vcpu *vcpu)
{
	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, RECORD), 0);
	gpc_assert_record_in(vcpu, &span, RECORD, GPC_64);
}

static void span_on(struct kvm_vcpu *vcpu)
{
	void *mem = gpc_mmap_adjacent();

	switch (layout) {
	case ONE_SLOT:
		span = gpc_span_one_slot(vcpu->vm, mem);
		break;
	case TWO_SLOTS:
		span = gpc_span_two_slots(vcpu->vm, mem, gpc_mmap_anon(NULL));
		break;
	case REVERSED:
		span = gpc_span_two_slots(vcpu->vm, mem + PAGE_SIZE, mem);
		break;
	case ALIASED:
		span = gpc_span_two_slots(vcpu->vm, mem, mem);
		break;
	}
	record_on(vcpu);
}

/* KVM finds the current pages by itself, and again after the VMM has touched them. */
static void assert_follows(struct kvm_vcpu *vcpu)
{
	gpc_assert_record(vcpu, RECORD, GPC_64);
	gpc_assert_record_in(vcpu, &span, RECORD, GPC_64);
}

/* Pages were freed: their old contents stay poisoned, whoever has the pages now. */
static void assert_follows_elsewhere(struct kvm_vcpu *vcpu)
{
	void *hoard = gpc_hoard();

	assert_follows(vcpu);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
	munmap(hoard, GPC_HOARD_SIZE);
}

/* While the record is inaccessible, KVM writes nothing, not even half of it. */
static void assert_not_written(struct kvm_vcpu *vcpu)
{
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	gpc_run(vcpu, (struct gpc_step) { });
}

static void *fresh_page(void *at)
{
	return gpc_mmap(at, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void move_page(void *from, void *to)
{
	TEST_ASSERT(mremap(from, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
		    __KVM_SYSCALL_ERROR("mremap()", -1));
}

/*
 * Page tables
 */

/* @replace puts another page at the address. */
static void assert_follows_each(struct kvm_vcpu *vcpu, void (*replace)(void *page))
{
	int h, i;

	span_on(vcpu);
	for (h = 0; h < ARRAY_SIZE(halves); h++) {
		gpc_span_poison(&span);
		for (i = halves[h].first; i <= halves[h].last; i++)
			replace(span.page[i]);
		assert_follows_elsewhere(vcpu);
	}
}

SPAN_TEST(madvise_dontneed)
{
	assert_follows_each(vcpu, gpc_drop);
}

static void map_over(void *page)
{
	TEST_ASSERT(mmap(page, PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page,
		    __KVM_SYSCALL_ERROR("mmap()", -1));
}

SPAN_TEST(mmap_over)
{
	assert_follows_each(vcpu, map_over);
}

/* The pages live on at another address, which is not guest memory. */
SPAN_TEST(mremap_away)
{
	void *moved[2];
	int h, i;

	span_on(vcpu);
	for (h = 0; h < ARRAY_SIZE(halves); h++) {
		gpc_span_poison(&span);
		for (i = halves[h].first; i <= halves[h].last; i++) {
			moved[i] = fresh_page(NULL);
			move_page(span.page[i], moved[i]);
			fresh_page(span.page[i]);
		}

		assert_follows(vcpu);
		for (i = halves[h].first; i <= halves[h].last; i++)
			GPC_ASSERT_POISON(moved[i], PAGE_SIZE);
	}
}

static void move_over(void *page)
{
	move_page(fresh_page(NULL), page);
}

SPAN_TEST(mremap_over)
{
	assert_follows_each(vcpu, move_over);
}

/* The same pages in reverse order. */
SPAN_TEST(pages_swapped)
{
	void *spare;
	int i;

	span_on(vcpu);
	for (i = 0; i < 2; i++) {
		gpc_span_poison(&span);
		spare = fresh_page(NULL);
		move_page(span.page[0], spare);
		if (span.page[0] != span.page[1])
			move_page(span.page[1], span.page[0]);
		move_page(spare, span.page[1]);

		assert_follows(vcpu);
	}
}

SPAN_TEST(mprotect)
{
	const int prots[] = { PROT_NONE, PROT_READ };
	int h, i, j;

	span_on(vcpu);
	for (j = 0; j < ARRAY_SIZE(prots); j++) {
		for (h = 0; h < ARRAY_SIZE(halves); h++) {
			gpc_span_poison(&span);
			for (i = halves[h].first; i <= halves[h].last; i++)
				TEST_ASSERT(!mprotect(span.page[i], PAGE_SIZE, prots[j]),
					    __KVM_SYSCALL_ERROR("mprotect()", -1));
			assert_not_written(vcpu);

			for (i = halves[h].first; i <= halves[h].last; i++)
				TEST_ASSERT(!mprotect(span.page[i], PAGE_SIZE,
						      PROT_READ | PROT_WRITE),
					    __KVM_SYSCALL_ERROR("mprotect()", -1));
			gpc_span_assert_poison(&span);
			assert_follows(vcpu);
		}
	}
}

SPAN_TEST(unmapped_then_mapped)
{
	void *hoard;
	int h, i;

	span_on(vcpu);
	for (h = 0; h < ARRAY_SIZE(halves); h++) {
		gpc_span_poison(&span);
		hoard = gpc_hoard_reserve();
		for (i = halves[h].first; i <= halves[h].last; i++)
			TEST_ASSERT(!munmap(span.page[i], PAGE_SIZE),
				    __KVM_SYSCALL_ERROR("munmap()", -1));
		memset(hoard, GPC_POISON, GPC_HOARD_SIZE);
		assert_not_written(vcpu);

		for (i = halves[h].first; i <= halves[h].last; i++)
			fresh_page(span.page[i]);
		gpc_span_assert_poison(&span);
		assert_follows(vcpu);
		GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
		munmap(hoard, GPC_HOARD_SIZE);
	}
}

/*
 * Memslots
 */

#define OTHER_SLOT	(GPC_SPAN_SLOT2 + 1)
#define ELSEWHERE	(GPC_GPA + (1ul << 30))

static void slot_set(struct kvm_vm *vm, int i, uint32_t flags, uint64_t gpa)
{
	vm_set_user_memory_region(vm, i ? GPC_SPAN_SLOT2 : GPC_SLOT, flags, gpa + i * PAGE_SIZE,
				  layout == ONE_SLOT ? GPC_SPAN_SIZE : PAGE_SIZE, span.page[i]);
}

static void slot_delete(struct kvm_vm *vm, int i)
{
	vm_set_user_memory_region(vm, i ? GPC_SPAN_SLOT2 : GPC_SLOT, 0, 0, 0, NULL);
}

/* A memslot of both pages is handled as the first page's. */
static bool is_whole_slot(int h)
{
	return layout != ONE_SLOT || !halves[h].last;
}

SPAN_TEST(memslot_recreated)
{
	struct gpc_span old;
	int h, i;

	span_on(vcpu);
	for (h = 0; h < ARRAY_SIZE(halves); h++) {
		if (!is_whole_slot(h))
			continue;

		gpc_span_poison(&span);
		for (i = halves[h].first; i <= halves[h].last; i++)
			slot_delete(vcpu->vm, i);
		assert_not_written(vcpu);
		gpc_span_assert_poison(&span);

		for (i = halves[h].first; i <= halves[h].last; i++)
			slot_set(vcpu->vm, i, 0, GPC_SPAN_GPA);
		assert_follows(vcpu);

		/* The same with other memory. */
		old = span;
		gpc_span_poison(&old);
		for (i = halves[h].first; i <= halves[h].last; i++) {
			slot_delete(vcpu->vm, i);
			span.page[i] = gpc_mmap_anon(NULL);
			if (layout == ONE_SLOT)
				span.page[1] = span.page[0] + PAGE_SIZE;
			slot_set(vcpu->vm, i, 0, GPC_SPAN_GPA);
		}
		gpc_assert_record(vcpu, RECORD, GPC_64);
		for (i = halves[h].first; i <= halves[h].last; i++) {
			/* A page that was both halves may still be the other half. */
			if (old.page[i] != span.page[!i])
				GPC_ASSERT_POISON(old.page[i], PAGE_SIZE);
		}
		gpc_assert_record_in(vcpu, &span, RECORD, GPC_64);
	}
}

/* Each half, or both, is in a memslot for a while where KVM cannot write. */
static void assert_waits_out(struct kvm_vcpu *vcpu, uint32_t flags, uint64_t gpa)
{
	int h, i;

	span_on(vcpu);
	for (h = 0; h < ARRAY_SIZE(halves); h++) {
		if (!is_whole_slot(h))
			continue;

		gpc_span_poison(&span);
		for (i = halves[h].first; i <= halves[h].last; i++) {
			if (flags)
				slot_delete(vcpu->vm, i);
			slot_set(vcpu->vm, i, flags, gpa);
		}
		assert_not_written(vcpu);
		gpc_span_assert_poison(&span);

		for (i = halves[h].first; i <= halves[h].last; i++) {
			if (flags)
				slot_delete(vcpu->vm, i);
			slot_set(vcpu->vm, i, 0, GPC_SPAN_GPA);
		}
		assert_follows(vcpu);
	}
}

SPAN_TEST(memslot_moved_elsewhere)
{
	assert_waits_out(vcpu, 0, ELSEWHERE);
}

SPAN_TEST(read_only_memslot)
{
	assert_waits_out(vcpu, KVM_MEM_READONLY, GPC_SPAN_GPA);
}

SPAN_TEST(other_memslots_change)
{
	void *mem = gpc_mmap_anon(NULL);
	int i;

	span_on(vcpu);
	for (i = 0; i < 3; i++) {
		vm_set_user_memory_region(vcpu->vm, OTHER_SLOT, 0, ELSEWHERE, GPC_SIZE, mem);
		assert_follows(vcpu);
		vm_set_user_memory_region(vcpu->vm, OTHER_SLOT, 0, 0, 0, NULL);
		assert_follows(vcpu);
	}
	GPC_ASSERT_POISON(mem, GPC_SIZE);
}

/*
 * One memslot only
 */

FIXTURE(gpc_one_span)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_one_span)
{
	self->vcpu = gpc_xen_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_one_span)
{
	gpc_free(self->vcpu);
}

#define ONE_SLOT_TEST(test) KVM_ONE_VCPU_TEST(gpc_one_span, test, gpc_guest)

/* Replace one memslot by two, and those by one, with the same memory. */
ONE_SLOT_TEST(memslot_cut)
{
	void *mem = gpc_mmap_adjacent();
	int i;

	for (i = 0; i < 2; i++) {
		span = gpc_span_one_slot(vcpu->vm, mem);
		record_on(vcpu);
		slot_delete(vcpu->vm, 0);

		span = gpc_span_two_slots(vcpu->vm, mem, mem + PAGE_SIZE);
		assert_follows(vcpu);
		slot_delete(vcpu->vm, 0);
		slot_delete(vcpu->vm, 1);
	}
}

/*
 * Huge pages
 */

/* Put the record's page end at @end. */
static void span_on_at(struct kvm_vcpu *vcpu, void *end)
{
	span = gpc_span_one_slot(vcpu->vm, end - PAGE_SIZE);
	record_on(vcpu);
}

static void assert_neighbours(void)
{
	TEST_ASSERT(gpc_pfn(span.page[1]) == gpc_pfn(span.page[0]) + 1,
		    "The pages are at 0x%lx and 0x%lx",
		    gpc_pfn(span.page[0]), gpc_pfn(span.page[1]));
}

ONE_SLOT_TEST(thp_collapse)
{
	void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE), *hoard;

	span_on_at(vcpu, mem + GPC_HUGE_SIZE / 2);
	gpc_span_poison(&span);
	gpc_make_huge(mem);
	assert_neighbours();
	hoard = gpc_hoard();

	gpc_span_assert_poison(&span);
	assert_follows(vcpu);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

/* Where one huge page ends and another begins.  One after the other becomes huge. */
ONE_SLOT_TEST(thp_collapse_either_side)
{
	void *mem = gpc_mmap_aligned(2 * GPC_HUGE_SIZE), *hoard;
	int i;

	span_on_at(vcpu, mem + GPC_HUGE_SIZE);
	for (i = 0; i < 2; i++) {
		gpc_span_poison(&span);
		gpc_make_huge(mem + i * GPC_HUGE_SIZE);
		hoard = gpc_hoard();

		gpc_span_assert_poison(&span);
		assert_follows(vcpu);
		GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
	}
}

/* Drop one of the pages from the huge page. */
ONE_SLOT_TEST(madvise_dontneed_thp)
{
	int i;

	for (i = 0; i < 2; i++) {
		void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE);
		uint64_t pfn;

		gpc_make_huge(mem);
		span_on_at(vcpu, mem + GPC_HUGE_SIZE / 2);
		assert_neighbours();

		pfn = gpc_pfn(span.page[i]);
		TEST_ASSERT(!madvise(span.page[i], PAGE_SIZE, MADV_DONTNEED),
			    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
		assert_follows(vcpu);
		TEST_ASSERT(gpc_pfn(span.page[i]) != pfn, "Page was not cut out");
		GPC_ASSERT_POISON(mem, span.page[0] - mem);
		GPC_ASSERT_POISON(span.page[1] + PAGE_SIZE, GPC_HUGE_SIZE / 2 - PAGE_SIZE);
		gpc_slot_delete(vcpu->vm);
	}
}

/*
 * Where one hugetlb page ends and another begins.  Either one goes back to the pool, and
 * from there to another mapping.  The slot gets a third one.
 */
ONE_SLOT_TEST(hugetlb_replaced)
{
	void *mem, *other;
	uint64_t pfn;
	int i;

	gpc_hugetlb_pool("3");
	mem = gpc_mmap_hugetlb(2 * GPC_HUGE_SIZE);
	other = gpc_mmap_hugetlb(GPC_HUGE_SIZE);

	span_on_at(vcpu, mem + GPC_HUGE_SIZE);
	for (i = 0; i < 2; i++) {
		gpc_span_poison(&span);
		pfn = gpc_pfn(mem + i * GPC_HUGE_SIZE);
		TEST_ASSERT(!madvise(other, GPC_HUGE_SIZE, MADV_DONTNEED) &&
			    !madvise(mem + i * GPC_HUGE_SIZE, GPC_HUGE_SIZE, MADV_DONTNEED),
			    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
		memset(other, GPC_POISON, GPC_HUGE_SIZE);
		TEST_ASSERT(gpc_pfn(other) == pfn, "The pool did not hand out the last page freed");

		assert_follows(vcpu);
		GPC_ASSERT_POISON(other, GPC_HUGE_SIZE);
	}

	/* Free all pages, so that the pool can shrink again. */
	gpc_slot_delete(vcpu->vm);
	munmap(mem, 2 * GPC_HUGE_SIZE);
	munmap(other, GPC_HUGE_SIZE);
}

int main(int argc, char *argv[])
{
	GPC_REQUIRE_RUNSTATE();

	return test_harness_run(argc, argv);
}
