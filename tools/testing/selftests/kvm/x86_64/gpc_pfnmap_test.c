// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest memory that does not belong to the host kernel: RAM that "mem=" on the kernel's
 * command line excludes, and that /dev/mem maps for the VMM.
 *
 * RAM far from the kernel's RAM has no struct page.  RAM right after the kernel's may
 * have one, if the kernel's RAM ends within a section of SPARSEMEM.  Then only
 * pfn_valid() is true: the page is not in the kernel's direct map.  The same holds for
 * device memory that begins where RAM ends.
 */
#include "gpc_harness.h"
#include "gpc_reserve.h"
#include "gpc_xen.h"

/* The unit in which struct pages exist: SECTION_SIZE_BITS of sparsemem.h. */
#define SECTION_SIZE	BIT(27)

FIXTURE(gpc_pfnmap)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_pfnmap)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_pfnmap)
{
	gpc_free(self->vcpu);
}

#define PFNMAP_TEST(test) KVM_ONE_VCPU_TEST(gpc_pfnmap, test, gpc_guest)

static void assert_each_page_served(struct kvm_vcpu *vcpu, void *mem)
{
	int i;

	gpc_clock_on(vcpu, mem, GPC_SIZE);
	for (i = 0; i < GPC_PAGES; i++) {
		uint64_t gpa = GPC_GPA + i * PAGE_SIZE + 64 * i;

		gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, gpa | KVM_MSR_ENABLED);
		gpc_assert_served(vcpu, gpa);
		gpc_assert_served_in(vcpu, gpa, mem + i * PAGE_SIZE);
	}
}

PFNMAP_TEST(is_served)
{
	assert_each_page_served(vcpu, gpc_map_reserve(NULL, GPC_FAR, 0, GPC_SIZE));
}

PFNMAP_TEST(mmap_over)
{
	void *alias = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_RESERVE_SIZE);
	void *mem = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_SIZE), *page;

	memset(alias, GPC_POISON, GPC_RESERVE_SIZE);
	page = gpc_clock_on(vcpu, mem, GPC_SIZE);
	TEST_ASSERT(!memcmp(mem, alias, GPC_SIZE), "Two views of the memory differ");

	memset(alias, GPC_POISON, GPC_RESERVE_SIZE);
	gpc_map_reserve(mem, GPC_FAR, GPC_SIZE, GPC_SIZE);
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
	GPC_ASSERT_POISON(alias, GPC_SIZE);
	TEST_ASSERT(!memcmp(mem, alias + GPC_SIZE, GPC_SIZE), "Two views of the memory differ");
}

/* Change to a page that has a struct page, and back. */
PFNMAP_TEST(swap_with_ram)
{
	void *alias = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_SIZE);
	void *mem = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_SIZE), *page;
	int i;

	page = gpc_clock_on(vcpu, mem, GPC_SIZE);
	for (i = 0; i < 2; i++) {
		memset(alias, GPC_POISON, GPC_SIZE);
		gpc_mmap_anon(mem);
		gpc_assert_served(vcpu, GPC_CLOCK);
		gpc_assert_served_in(vcpu, GPC_CLOCK, page);
		GPC_ASSERT_POISON(alias, GPC_SIZE);

		gpc_map_reserve(mem, GPC_FAR, 0, GPC_SIZE);
		gpc_assert_served(vcpu, GPC_CLOCK);
		gpc_assert_served_in(vcpu, GPC_CLOCK, page);
		TEST_ASSERT(!memcmp(mem, alias, GPC_SIZE), "Two views of the memory differ");
	}
}

PFNMAP_TEST(unmapped_then_mapped)
{
	void *alias = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_SIZE);
	void *mem = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_SIZE), *page;

	page = gpc_clock_on(vcpu, mem, GPC_SIZE);
	memset(alias, GPC_POISON, GPC_SIZE);
	TEST_ASSERT(!munmap(mem, GPC_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	gpc_update(vcpu);
	GPC_ASSERT_POISON(alias, GPC_SIZE);

	gpc_map_reserve(mem, GPC_FAR, 0, GPC_SIZE);
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
}

PFNMAP_TEST(behind_ram)
{
	assert_each_page_served(vcpu, gpc_map_reserve(NULL, GPC_NEAR, 0, GPC_SIZE));
}

/*
 * A record that crosses from one such page into another
 */

FIXTURE(gpc_pfnmap_span)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_pfnmap_span)
{
	GPC_REQUIRE_RUNSTATE();
	self->vcpu = gpc_xen_create(_metadata);
	gpc_set_abi(self->vcpu->vm, GPC_64);
}

FIXTURE_TEARDOWN(gpc_pfnmap_span)
{
	gpc_free(self->vcpu);
}

#define SPAN_TEST(test) KVM_ONE_VCPU_TEST(gpc_pfnmap_span, test, gpc_guest)

#define RECORD	(GPC_SPAN_END - 20)

static void *map_page(void *at, enum gpc_reserve where, int page)
{
	return memset(gpc_map_reserve(at, where, page * PAGE_SIZE, PAGE_SIZE),
		      GPC_POISON, PAGE_SIZE);
}

static void *map_ram(void *at)
{
	return gpc_mmap(at, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void assert_span_served(struct kvm_vcpu *vcpu, const struct gpc_span *span)
{
	gpc_assert_record(vcpu, RECORD, GPC_64);
	gpc_assert_record_in(vcpu, span, RECORD, GPC_64);
}

static struct gpc_span span_on(struct kvm_vcpu *vcpu, void *first, void *second)
{
	struct gpc_span span = gpc_span_two_slots(vcpu->vm, first, second);

	TEST_ASSERT_EQ(gpc_set_record(vcpu, RECORD), 0);
	assert_span_served(vcpu, &span);
	return span;
}

static void assert_span_refused(struct kvm_vcpu *vcpu, void *first, void *second)
{
	struct gpc_span span = gpc_span_two_slots(vcpu->vm, first, second);

	TEST_ASSERT_EQ(gpc_set_record(vcpu, RECORD), -EFAULT);
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	gpc_run(vcpu, (struct gpc_step) { });
	gpc_span_assert_poison(&span);
}

static void delete_slots(struct kvm_vm *vm)
{
	vm_set_user_memory_region(vm, GPC_SLOT, 0, 0, 0, NULL);
	vm_set_user_memory_region(vm, GPC_SPAN_SLOT2, 0, 0, 0, NULL);
}

/* Adjacent pages in either order, distant pages, and one page in both places. */
static void assert_spans_served(struct kvm_vcpu *vcpu, enum gpc_reserve where)
{
	const int pages[][2] = { { 0, 1 }, { 1, 0 }, { 0, 5 }, { 6, 2 }, { 3, 3 } };
	struct gpc_span span;
	int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		span_on(vcpu, map_page(NULL, where, pages[i][0]),
			map_page(NULL, where, pages[i][1]));
		delete_slots(vcpu->vm);
	}

	span = gpc_span_one_slot(vcpu->vm, gpc_map_reserve(NULL, where, 0, GPC_SPAN_SIZE));
	assert_span_served(vcpu, &span);
}

SPAN_TEST(both_pages)
{
	assert_spans_served(vcpu, GPC_FAR);
}

SPAN_TEST(both_pages_behind_ram)
{
	assert_spans_served(vcpu, GPC_NEAR);
}

/* Replace one page after the other, by a page that is adjacent or not. */
SPAN_TEST(mmap_over_half)
{
	const int pages[][2] = { { 0, 3 }, { 1, 4 }, { 0, 1 }, { 1, 2 }, { 1, 7 }, { 0, 6 } };
	void *alias = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_RESERVE_SIZE);
	struct gpc_span span;
	int i, other, now[2] = { 0, 1 };

	span = span_on(vcpu, map_page(NULL, GPC_FAR, 0), map_page(NULL, GPC_FAR, 1));
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		other = now[pages[i][0]];
		now[pages[i][0]] = pages[i][1];

		gpc_span_poison(&span);
		map_page(span.page[pages[i][0]], GPC_FAR, pages[i][1]);
		assert_span_served(vcpu, &span);
		GPC_ASSERT_POISON(alias + other * PAGE_SIZE, PAGE_SIZE);
		TEST_ASSERT(!memcmp(span.page[0], alias + now[0] * PAGE_SIZE, PAGE_SIZE) &&
			    !memcmp(span.page[1], alias + now[1] * PAGE_SIZE, PAGE_SIZE),
			    "Two views of the memory differ");
	}
}

/*
 * A page with a struct page and a page without one have no common kernel address.  KVM
 * refuses the record, and writes it again when the pages are of one kind.
 */
SPAN_TEST(half_with_struct_page)
{
	void *far = map_page(NULL, GPC_FAR, 0), *ram = map_ram(NULL);

	assert_span_refused(vcpu, far, ram);
	delete_slots(vcpu->vm);
	assert_span_refused(vcpu, ram, far);
	delete_slots(vcpu->vm);

	span_on(vcpu, far, map_page(NULL, GPC_FAR, 1));
	delete_slots(vcpu->vm);
	span_on(vcpu, ram, map_ram(NULL));
}

SPAN_TEST(halves_of_two_kinds)
{
	struct gpc_span span;
	int i;

	span = span_on(vcpu, map_page(NULL, GPC_FAR, 0), map_page(NULL, GPC_FAR, 1));
	for (i = 0; i < 2; i++) {
		/* Change to ordinary memory, one half first, and back. */
		gpc_span_poison(&span);
		map_ram(span.page[i]);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		gpc_run(vcpu, (struct gpc_step) { });
		gpc_span_assert_poison(&span);

		map_ram(span.page[!i]);
		assert_span_served(vcpu, &span);

		gpc_span_poison(&span);
		map_page(span.page[!i], GPC_FAR, !i);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		gpc_run(vcpu, (struct gpc_step) { });
		gpc_span_assert_poison(&span);

		map_page(span.page[i], GPC_FAR, i);
		assert_span_served(vcpu, &span);
	}
}

/* A page that happens to have a struct page works like ordinary memory. */
SPAN_TEST(half_behind_ram)
{
	void *near = map_page(NULL, GPC_NEAR, 0), *ram = map_ram(NULL);

	GPC_REQUIRE(gpc_find_reserve(GPC_NEAR) % SECTION_SIZE,
		    "the kernel's RAM ends where its struct pages do");
	span_on(vcpu, near, ram);
	delete_slots(vcpu->vm);
	span_on(vcpu, ram, near);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));

	return test_harness_run(argc, argv);
}
