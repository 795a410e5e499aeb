// SPDX-License-Identifier: GPL-2.0-only
/*
 * The cache when something that it needs is unavailable: an allocation, a page, a kernel
 * address.  Either the operation reports that or the guest is served later.  Nothing
 * leaks, KVM writes to no page that it does not have, other caches keep working, and the
 * next attempt succeeds.
 *
 * Repeat each operation with its first fault, its second fault, and so on, until no fault
 * occurs.
 */
#include "gpc_harness.h"
#include "gpc_fault.h"
#include "gpc_reserve.h"
#include "gpc_area.h"
#include "gpc_xen.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif

/* The slot: an unused page, two pages for records, and one for a clock. */
#define RECORD_GPA	GPC_CLOCK
#define WITNESS		(GPC_GPA + 3 * PAGE_SIZE + 64)

/* Timeout of a test, in seconds: there are many faults. */
#define TIMEOUT		300

static void *pages;		/* at RECORD_GPA */
static uint8_t fill;		/* their content, except for the record */

static int set_address(struct kvm_vcpu *vcpu, uint16_t type, uint64_t val)
{
	return gpc_xen_vcpu_attr(vcpu, (struct kvm_xen_vcpu_attr) { .type = type, .u.gpa = val });
}

/* Another cache of the VM.  Its clock shows that KVM serves it. */
static void witness_on(struct kvm_vcpu *vcpu)
{
	TEST_ASSERT_EQ(set_address(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, WITNESS), 0);
	gpc_assert_served(vcpu, WITNESS);
}

static struct kvm_vcpu *create(struct __test_metadata *metadata)
{
	struct kvm_vcpu *vcpu = gpc_create(metadata);
	void *mem = gpc_mmap_anon(NULL);

	vcpu_arch_set_entry_point(vcpu, gpc_guest);
	gpc_fault_init();

	gpc_xen_on(vcpu->vm);
	gpc_set_abi(vcpu->vm, GPC_64);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	pages = mem + (RECORD_GPA - GPC_GPA);
	fill = GPC_POISON;
	return vcpu;
}

static void finish(struct kvm_vcpu *vcpu)
{
	gpc_fault_select(GPC_FAIL_ALLOC);
	close(gpc_fault.fd);
	gpc_free(vcpu);
}

static bool is_filled(const void *mem, size_t size)
{
	const uint8_t *p = mem;

	while (size && *p == fill) {
		p++;
		size--;
	}
	return !size;
}

static void poison(int nr_pages)
{
	memset(pages, GPC_POISON, nr_pages * PAGE_SIZE);
	fill = GPC_POISON;
}

/*
 * Records.  All operations return 0 or a negative errno.
 */

struct record {
	size_t start;		/* of what KVM writes, relative to RECORD_GPA */
	size_t size;
	int nr_pages;
	bool drops;		/* failed activation leaves no cache active */
	bool at_once;		/* activation writes it, unchanged */
	int (*on)(struct kvm_vcpu *vcpu);
	int (*off)(struct kvm_vcpu *vcpu);
	int (*update)(struct kvm_vcpu *vcpu);
	uint64_t (*time)(const void *rec);	/* when it was written */
	uint64_t (*guest_time)(struct kvm_vcpu *vcpu, uint64_t gva);
};

static bool is_of_era(uint64_t ns)
{
	return ns >= gpc_era && ns - gpc_era < GPC_ERA_NS;
}

/* finish_run() completes the step if KVM_RUN fails. */
static int run(struct kvm_vcpu *vcpu)
{
	gpc_step = (struct gpc_step) { };
	sync_global_to_guest(vcpu->vm, gpc_step);
	return __vcpu_run(vcpu) ? -errno : 0;
}

static void finish_run(struct kvm_vcpu *vcpu, int ret)
{
	if (ret)
		vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	TEST_ASSERT_EQ(get_ucall(vcpu, NULL), UCALL_SYNC);
}

static int set_clock(struct kvm_vcpu *vcpu, uint64_t val)
{
	int r = _vcpu_set_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, val);

	return r == 1 ? 0 : r ? -errno : -EINVAL;
}

static uint64_t clock_time(const void *rec)
{
	const struct pvclock_vcpu_time_info *clock = rec;

	return clock->version & 1 ? 0 : clock->system_time;
}

static uint64_t guest_clock_time(struct kvm_vcpu *vcpu, uint64_t gva)
{
	gpc_run(vcpu, (struct gpc_step) { .clock = gva });
	return gpc_step.ns;
}

static uint64_t runstate_time(const void *rec)
{
	return gpc_record_at(rec, GPC_64).entry_time;
}

static uint64_t guest_runstate_time(struct kvm_vcpu *vcpu, uint64_t gva)
{
	gpc_run(vcpu, (struct gpc_step) { .peek = gva + GPC_64 });
	return gpc_step.word;
}

static int kvmclock_on(struct kvm_vcpu *vcpu)
{
	return set_clock(vcpu, RECORD_GPA | KVM_MSR_ENABLED);
}

static int kvmclock_off(struct kvm_vcpu *vcpu)
{
	return set_clock(vcpu, 0);
}

static const struct record kvmclock = {
	.size = GPC_CLOCK_SIZE, .nr_pages = 1,
	.on = kvmclock_on, .off = kvmclock_off, .update = run,
	.time = clock_time, .guest_time = guest_clock_time,
};

static int vcpu_info_on(struct kvm_vcpu *vcpu)
{
	return gpc_xen_set_vcpu_info(vcpu, RECORD_GPA);
}

static int vcpu_info_off(struct kvm_vcpu *vcpu)
{
	return gpc_xen_set_vcpu_info(vcpu, KVM_XEN_INVALID_GPA);
}

static const struct record vcpu_info = {
	.start = GPC_XEN_VCPU_INFO_TIME, .size = GPC_CLOCK_SIZE, .nr_pages = 1,
	.on = vcpu_info_on, .off = vcpu_info_off, .update = run,
	.time = clock_time, .guest_time = guest_clock_time,
};

static int vcpu_info_hva_on(struct kvm_vcpu *vcpu)
{
	return set_address(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, (uintptr_t)pages);
}

static int vcpu_info_hva_off(struct kvm_vcpu *vcpu)
{
	return set_address(vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, 0);
}

static const struct record vcpu_info_hva = {
	.start = GPC_XEN_VCPU_INFO_TIME, .size = GPC_CLOCK_SIZE, .nr_pages = 1,
	.on = vcpu_info_hva_on, .off = vcpu_info_hva_off, .update = run,
	.time = clock_time, .guest_time = guest_clock_time,
};

/* The entry time lies across the end of the page. */
#define RUNSTATE_START	(PAGE_SIZE - GPC_64 - 4)

static int runstate_on(struct kvm_vcpu *vcpu)
{
	return gpc_set_record(vcpu, RECORD_GPA + RUNSTATE_START);
}

static int runstate_off(struct kvm_vcpu *vcpu)
{
	return gpc_set_record(vcpu, KVM_XEN_INVALID_GPA);
}

/* KVM_RUN would work, too, but updates again when the vCPU's thread is preempted. */
static int runstate_update(struct kvm_vcpu *vcpu)
{
	return gpc_set_state(vcpu, GPC_RUNNING);
}

static const struct record runstate = {
	.start = RUNSTATE_START, .size = GPC_RECORD_SIZE(GPC_64), .nr_pages = 2,
	.drops = true, .at_once = true,
	.on = runstate_on, .off = runstate_off, .update = runstate_update,
	.time = runstate_time, .guest_time = guest_runstate_time,
};

/* Assert that KVM has written all of the record, or nothing, to the record's pages. */
static void assert_written(const struct record *rec, bool written)
{
	const size_t end = rec->start + rec->size;

	FAULT_ASSERT(is_filled(pages + rec->start, rec->size) == !written,
		     "Record%s written", written ? " not" : "");
	FAULT_ASSERT(is_filled(pages, rec->start), "Written in front of the record");
	FAULT_ASSERT(is_filled(pages + end, rec->nr_pages * PAGE_SIZE - end),
		     "Written behind the record");
}

static void assert_new(const struct record *rec)
{
	assert_written(rec, true);
	FAULT_ASSERT(is_of_era(rec->time(pages + rec->start)), "The record is old");
}

/* KVM writes the record, and the guest reads it.  The same for the other cache. */
static void assert_record_served(struct kvm_vcpu *vcpu, const struct record *rec)
{
	int ret;

	poison(rec->nr_pages);
	gpc_new_era(vcpu->vm);
	ret = rec->update(vcpu);
	FAULT_ASSERT(!ret, "Afterwards: %s", strerror(-ret));
	if (rec->update == run)
		finish_run(vcpu, ret);
	assert_new(rec);
	FAULT_ASSERT(is_of_era(rec->guest_time(vcpu, RECORD_GPA + rec->start)),
		     "Guest does not see the record");

	gpc_assert_served(vcpu, WITNESS);
}

/*
 * Backing of the pages: new memory each time, from page @first on.  The old memory stays
 * for a while, and must not be written.
 */
struct backing {
	void (*renew)(int first, int nr);
	void (*release)(int first, int nr);
};

static int record_pages;
static void *parked;		/* the previous anonymous pages */

/* KVM uses vmap() only for pages that are not adjacent: take what lies between. */
static void spread(void)
{
	poison(2);
	while (gpc_pfn(pages + PAGE_SIZE) == gpc_pfn(pages) + 1) {
		FAULT_ASSERT(!gpc_give_back(pages + PAGE_SIZE), "Page leaked");
		gpc_mmap(NULL, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		poison(2);
	}
}

static void *park(int first, int nr)
{
	if (!parked)
		parked = gpc_mmap_anon(NULL);
	return mremap(pages + first * PAGE_SIZE, nr * PAGE_SIZE, nr * PAGE_SIZE,
		      MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
		      parked + first * PAGE_SIZE);
}

/* A single page is absent until it is looked up. */
static void anon_renew(int first, int nr)
{
	poison(record_pages);
	TEST_ASSERT(park(first, nr) != MAP_FAILED, __KVM_SYSCALL_ERROR("mremap()", -1));
	if (record_pages > 1)
		spread();
	else
		fill = 0;
}

static void anon_release(int first, int nr)
{
	uint64_t pfn;
	int i;

	for (i = first; i < first + nr; i++) {
		FAULT_ASSERT(gpc_is_poison(parked + i * PAGE_SIZE, PAGE_SIZE),
			     "The old page was written");
		pfn = gpc_give_back(parked + i * PAGE_SIZE);
		FAULT_ASSERT(!pfn, "Page 0x%lx leaked", pfn);
	}
}

static const struct backing anon = { anon_renew, anon_release };

/* Pages without a struct page, with at least one page between the two. */
static void *reserve;
static int reserve_set;

static int reserve_page(int i)
{
	return reserve_set * 4 + i * 2;
}

static void reserve_renew(int first, int nr)
{
	int i;

	if (!reserve)
		reserve = gpc_map_reserve(NULL, GPC_FAR, 0, GPC_RESERVE_SIZE);
	memset(reserve, GPC_POISON, GPC_RESERVE_SIZE);
	fill = GPC_POISON;
	reserve_set = !reserve_set;
	for (i = first; i < first + nr; i++)
		gpc_map_reserve(pages + i * PAGE_SIZE, GPC_FAR, reserve_page(i) * PAGE_SIZE,
				PAGE_SIZE);
}

static void reserve_release(int first, int nr)
{
	int i, last = reserve_page(record_pages - 1);

	for (i = 0; i < GPC_RESERVE_SIZE / PAGE_SIZE; i++) {
		if (i != reserve_page(0) && i != last)
			FAULT_ASSERT(gpc_is_poison(reserve + i * PAGE_SIZE, PAGE_SIZE),
				     "Page %d was written", i);
	}
}

static const struct backing no_struct_page = { reserve_renew, reserve_release };

/* The same pages, inaccessible for a while. */
static void protect_renew(int first, int nr)
{
	spread();
	TEST_ASSERT(!mprotect(pages + first * PAGE_SIZE, nr * PAGE_SIZE, PROT_NONE) &&
		    !mprotect(pages + first * PAGE_SIZE, nr * PAGE_SIZE, PROT_READ | PROT_WRITE),
		    __KVM_SYSCALL_ERROR("mprotect()", -1));
}

static void protect_release(int first, int nr)
{
}

static const struct backing same_pages = { protect_renew, protect_release };

/*
 * Operations
 */

struct operation {
	const struct record *rec;
	const struct backing *backing;
	bool activation;	/* else a refresh */
	int first, nr;		/* pages to renew first */
	int mapped;		/* kernel mappings that it creates */
	unsigned int faults[GPC_NR_FAULTS];	/* failed refreshes; minimum, for allocation */
};

/* @cached: whether an invalidation of the pages finds a cache. */
static void renew(struct kvm_vm *vm, const struct operation *op, bool cached)
{
	uint64_t hits = gpc_stat(vm, "gpc_invalidation_hits");

	op->backing->renew(op->first, op->nr);
	hits = gpc_stat(vm, "gpc_invalidation_hits") - hits;
	FAULT_ASSERT(!hits == !cached, "%s cache was found", cached ? "No" : "A");
}

/* Number of successful and of failed refreshes. */
struct refreshes {
	uint64_t done, failed;
};

static struct refreshes refreshes(struct kvm_vm *vm, struct refreshes since)
{
	return (struct refreshes) {
		gpc_stat(vm, "gpc_refreshes") - since.done,
		gpc_stat(vm, "gpc_refresh_failures") - since.failed,
	};
}

/* @ret: what the operation returned. */
static void assert_outcome(const struct operation *op, bool fault, int ret, struct refreshes n)
{
	FAULT_ASSERT(ret <= 0 && ret > -4096, "Returned %d", ret);
	if (!fault)
		FAULT_ASSERT(!ret && n.done == 1 && !n.failed,
			     "Without a fault: %s, %lu refreshes, %lu failed",
			     strerror(-ret), n.done, n.failed);
	else if (gpc_fault.kind == GPC_FAIL_ALLOC)
		FAULT_ASSERT(n.done + n.failed <= 1 && (ret || !op->activation || n.done),
			     "%s, %lu refreshes, %lu failed", strerror(-ret), n.done, n.failed);
	else
		FAULT_ASSERT(ret == (op->activation ? -GPC_FAULT_ERRNO : 0) &&
			     !n.done && n.failed == 1,
			     "%s, %lu refreshes, %lu failed", strerror(-ret), n.done, n.failed);

	if (n.done && !op->activation)
		assert_new(op->rec);
	else
		assert_written(op->rec, n.done && op->rec->at_once);
}

static unsigned int nr_failed;	/* refreshes that the selected kind of fault made fail */

/* Returns whether there was an n-th fault.  @mapped: mappings without the record. */
static bool fail(struct kvm_vcpu *vcpu, const struct operation *op, unsigned int nth,
		 unsigned int mapped)
{
	const struct record *rec = op->rec;
	int (*act)(struct kvm_vcpu *vcpu) = op->activation ? rec->on : rec->update;
	struct kvm_vm *vm = vcpu->vm;
	struct refreshes n;
	bool fault;
	int ret;

	renew(vm, op, !op->activation);
	gpc_new_era(vm);
	n = refreshes(vm, (struct refreshes) { });

	gpc_fault_arm(nth);
	ret = act(vcpu);
	fault = gpc_fault_disarm();

	n = refreshes(vm, n);
	nr_failed += n.failed;
	assert_outcome(op, fault, ret, n);
	op->backing->release(op->first, op->nr);

	/* Only a cache that has its pages has an address.  Any bound cache is found. */
	if (n.done || n.failed) {
		FAULT_ASSERT(gpc_nr_mapped() == mapped + n.done * op->mapped,
			     "%u kernel addresses, without the record %u", gpc_nr_mapped(), mapped);
		renew(vm, op, n.done || !op->activation || !rec->drops);
		op->backing->release(op->first, op->nr);
	}
	if (act == run)
		finish_run(vcpu, ret);

	gpc_assert_served(vcpu, WITNESS);
	if (op->activation) {
		ret = rec->on(vcpu);
		FAULT_ASSERT(!ret, "Afterwards: %s", strerror(-ret));
	}
	assert_record_served(vcpu, rec);
	FAULT_ASSERT(gpc_nr_mapped() == mapped + op->mapped, "%u kernel addresses, before %u",
		     gpc_nr_mapped(), mapped + op->mapped);
	if (op->activation) {
		ret = rec->off(vcpu);
		FAULT_ASSERT(!ret, "Off: %s", strerror(-ret));
		FAULT_ASSERT(gpc_nr_mapped() == mapped, "%u kernel addresses, before %u",
			     gpc_nr_mapped(), mapped);
	}
	return fault;
}

static void fail_each(struct kvm_vcpu *vcpu, const struct operation *op)
{
	const struct record *rec = op->rec;
	unsigned int nth, mapped = gpc_nr_mapped();
	enum gpc_fault kind;

	witness_on(vcpu);
	record_pages = rec->nr_pages;
	op->backing->renew(0, rec->nr_pages);
	op->backing->release(0, rec->nr_pages);
	if (!op->activation) {
		TEST_ASSERT_EQ(rec->on(vcpu), 0);
		assert_record_served(vcpu, rec);
	}

	for (kind = GPC_FAIL_ALLOC; kind <= GPC_FAIL_MAP; kind++) {
		gpc_fault_select(kind);
		nr_failed = 0;
		for (nth = 1; fail(vcpu, op, nth, mapped); nth++)
			FAULT_ASSERT(nth < 10000, "The faults do not end");
		ksft_print_msg("%s: %u faults, %u refreshes failed\n",
			       gpc_fault_names[kind], nth - 1, nr_failed);
		FAULT_ASSERT(kind == GPC_FAIL_ALLOC ? nr_failed >= op->faults[kind] :
						      nr_failed == op->faults[kind],
			     "%u refreshes failed, not %u", nr_failed, op->faults[kind]);
	}

	TEST_ASSERT_EQ(rec->off(vcpu), 0);
	TEST_ASSERT_EQ(gpc_nr_mapped(), mapped);
	renew(vcpu->vm, op, false);
	op->backing->release(op->first, op->nr);
}

FIXTURE(gpc_fault)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_VARIANT(gpc_fault)
{
	struct operation op;
};

FIXTURE_SETUP(gpc_fault)
{
	self->vcpu = create(_metadata);
}

FIXTURE_TEARDOWN(gpc_fault)
{
	finish(self->vcpu);
}

FIXTURE_VARIANT_ADD(gpc_fault, activation_of_vcpu_info)
{
	.op = {
		.rec = &vcpu_info, .backing = &anon, .activation = true, .nr = 1,
		.faults = { 1, 1, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, activation_of_vcpu_info_at_a_user_address)
{
	.op = {
		.rec = &vcpu_info_hva, .backing = &anon, .activation = true, .nr = 1,
		.faults = { 1, 1, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, activation_of_a_runstate_in_two_pages)
{
	.op = {
		.rec = &runstate, .backing = &anon, .activation = true, .nr = 2,
		.mapped = 1, .faults = { 1, 2, 1 },
	},
};

/* vmap_pfn() maps the pages for which memremap() finds no memory. */
FIXTURE_VARIANT_ADD(gpc_fault, activation_of_a_runstate_without_struct_pages)
{
	.op = {
		.rec = &runstate, .backing = &no_struct_page, .activation = true, .nr = 2,
		.mapped = 1, .faults = { 1, 2, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_kvmclock)
{
	.op = {
		.rec = &kvmclock, .backing = &anon, .nr = 1, .faults = { 1, 1, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_vcpu_info)
{
	.op = {
		.rec = &vcpu_info, .backing = &anon, .nr = 1, .faults = { 1, 1, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_vcpu_info_at_a_user_address)
{
	.op = {
		.rec = &vcpu_info_hva, .backing = &anon, .nr = 1, .faults = { 1, 1, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_a_runstate_in_two_pages)
{
	.op = {
		.rec = &runstate, .backing = &anon, .nr = 2, .mapped = 1,
		.faults = { 1, 2, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_a_runstate_that_has_lost_its_first_page)
{
	.op = {
		.rec = &runstate, .backing = &anon, .nr = 1, .mapped = 1,
		.faults = { 1, 2, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_a_runstate_that_has_lost_its_second_page)
{
	.op = {
		.rec = &runstate, .backing = &anon, .first = 1, .nr = 1, .mapped = 1,
		.faults = { 1, 2, 1 },
	},
};

/* The cache keeps its address for the same pages, and frees it if there are no pages. */
FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_a_runstate_in_the_same_pages)
{
	.op = {
		.rec = &runstate, .backing = &same_pages, .nr = 2, .mapped = 1,
		.faults = { 0, 2, 0 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_kvmclock_without_struct_page)
{
	.op = {
		.rec = &kvmclock, .backing = &no_struct_page, .nr = 1, .mapped = 1,
		.faults = { 0, 1, 1 },
	},
};

FIXTURE_VARIANT_ADD(gpc_fault, refresh_of_a_runstate_without_struct_pages)
{
	.op = {
		.rec = &runstate, .backing = &no_struct_page, .nr = 2, .mapped = 1,
		.faults = { 1, 2, 1 },
	},
};

TEST_F_TIMEOUT(gpc_fault, is_told_and_leaves_nothing, TIMEOUT)
{
	fail_each(self->vcpu, &variant->op);
}

/*
 * Invalidations
 */

FIXTURE(gpc_fault_of_invalidation)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_fault_of_invalidation)
{
	self->vcpu = create(_metadata);
}

FIXTURE_TEARDOWN(gpc_fault_of_invalidation)
{
	finish(self->vcpu);
}

#define INVALIDATION_TEST(test) TEST_F_TIMEOUT(gpc_fault_of_invalidation, test, TIMEOUT)

static int do_munmap(void)
{
	return munmap(pages, PAGE_SIZE) ? -errno : 0;
}

static int do_mprotect(void)
{
	return mprotect(pages, PAGE_SIZE, PROT_NONE) ? -errno : 0;
}

static int do_mremap(void)
{
	return park(0, 1) == MAP_FAILED ? -errno : 0;
}

static int do_madvise(void)
{
	return madvise(pages, PAGE_SIZE, MADV_DONTNEED) ? -errno : 0;
}

static void start_kvmclock(struct kvm_vcpu *vcpu)
{
	witness_on(vcpu);
	TEST_ASSERT_EQ(kvmclock_on(vcpu), 0);
	assert_record_served(vcpu, &kvmclock);
}

/* Take the page away, and supply another one.  Returns whether there was a fault. */
static bool take(struct kvm_vcpu *vcpu, int (*act)(void), unsigned int nth)
{
	uint64_t pfn = gpc_pfn(pages);
	bool fault;
	int ret;

	poison(1);
	gpc_fault_arm(nth);
	ret = act();
	fault = gpc_fault_disarm();

	if (ret) {
		FAULT_ASSERT(fault, "Without a fault: %s", strerror(-ret));
		FAULT_ASSERT(gpc_pfn(pages) == pfn && gpc_is_poison(pages, PAGE_SIZE),
			     "It failed only in part");
	} else {
		gpc_mmap(pages, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (act == do_mremap)
			anon_release(0, 1);
		else
			FAULT_ASSERT(!gpc_is_held(pfn), "Page 0x%lx leaked", pfn);
	}
	assert_record_served(vcpu, &kvmclock);
	return fault;
}

INVALIDATION_TEST(takes_the_page_away_or_does_not)
{
	int (*const acts[])(void) = { do_munmap, do_mprotect, do_mremap, do_madvise };
	unsigned int nth, faults = 0;
	int i;

	start_kvmclock(self->vcpu);
	gpc_fault_select(GPC_FAIL_ALLOC);
	for (i = 0; i < ARRAY_SIZE(acts); i++) {
		for (nth = 1; take(self->vcpu, acts[i], nth); nth++)
			faults++;
	}
	ksft_print_msg("%u faults\n", faults);
	TEST_ASSERT(faults, "No fault occurred");
}

/*
 * Invalidations without a record: there is room for a few records, and no memory for
 * more.  As in gpc_progress_test, threads that share this CPU do nothing but
 * write-protect and unprotect an area each, from the first page to the last.  This
 * thread, SCHED_FIFO, stops them at any point.
 */
#define NR_RECORDS	4	/* KVM_GPC_NR_INVALIDATIONS */
#define NR_AREAS	(NR_RECORDS + 4)

/* Pages in many page tables: a thread can be stopped between two of them. */
#define NR_TABLES	32
#define TABLE_SIZE	(2ul << 20)
#define AREA_SIZE	(NR_TABLES * TABLE_SIZE)

#define NR_ROUNDS	50

static struct gpc_area areas[NR_AREAS];

static void start_areas(void)
{
	int uffd, i;
	size_t at;
	void *mem;

	gpc_areas_preempt();
	uffd = gpc_uffd_open(UFFD_FEATURE_WP_ASYNC);

	for (i = 0; i < NR_AREAS; i++) {
		mem = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
		(void)madvise(mem, AREA_SIZE, MADV_NOHUGEPAGE);
		for (at = 0; at < AREA_SIZE; at += TABLE_SIZE)
			*(char *)(mem + at) = 1;
		gpc_uffd_register(uffd, mem, AREA_SIZE, UFFDIO_REGISTER_MODE_WP);
		gpc_area_start(&areas[i], uffd, mem, AREA_SIZE, mem + AREA_SIZE - TABLE_SIZE);
	}
}

/* Number of areas in progress.  @nr_done distinguishes their invalidations. */
static int nr_in_progress(unsigned long *nr_done, bool since_then)
{
	unsigned long done;
	int i, nr = 0;

	for (i = 0; i < NR_AREAS; i++) {
		done = READ_ONCE(areas[i].nr_done);
		if (gpc_area_in_progress(&areas[i]) &&
		    (!since_then || done == nr_done[i]))
			nr++;
		else
			done = -1ul;
		nr_done[i] = done;
	}
	return nr;
}

INVALIDATION_TEST(is_seen_without_a_record)
{
	unsigned int tries, rounds = 0, unrecorded = 0;
	struct kvm_vm *vm = self->vcpu->vm;
	unsigned long nr_done[NR_AREAS];
	uint64_t hits;
	int nr;

	start_kvmclock(self->vcpu);
	hits = gpc_stat(vm, "gpc_invalidation_hits");
	gpc_fault_select(GPC_FAIL_RECORD);
	gpc_fault_arm_all();
	start_areas();

	for (tries = 0; rounds < NR_ROUNDS || !unrecorded; tries++) {
		if (!gpc_areas_try(areas, NR_AREAS, tries))
			break;
		gpc_areas_run();
		if (nr_in_progress(nr_done, false) <= NR_RECORDS)
			continue;

		/* Invalidate the page itself, most likely without a record, too. */
		gpc_fault_arm(1);
		gpc_drop(pages);
		unrecorded += gpc_fault_disarm();
		TEST_ASSERT_EQ(gpc_stat(vm, "gpc_invalidation_hits"), ++hits);

		/* At least one of the others has no record; it is unknown which. */
		gpc_update(self->vcpu);
		nr = nr_in_progress(nr_done, true);
		TEST_ASSERT(nr <= NR_RECORDS, "Refreshed amid %d invalidations", nr);
		gpc_assert_written(pages);
		rounds++;
	}
	gpc_areas_end(areas, NR_AREAS);

	ksft_print_msg("%u tries, %u of the page were not recorded\n", tries, unrecorded);
	TEST_ASSERT(rounds >= NR_ROUNDS && unrecorded, "Only %u such refreshes", rounds);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refresh_waits"), rounds);
}

/* The check that finds leaks elsewhere finds this leak. */
TEST(leaked_page_is_found)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	char buf[PAGE_SIZE];
	int pipefd[2];
	uint64_t pfn;

	/* The kernel holds new pages for a while, per CPU. */
	gpc_pin_to_cpu(sched_getcpu());
	pages = gpc_mmap_anon(NULL);
	TEST_ASSERT(!gpc_give_back(pages), "Page leaked");

	poison(1);
	pfn = gpc_pfn(pages);
	iov.iov_base = pages;
	TEST_ASSERT(!pipe(pipefd) && vmsplice(pipefd[1], &iov, 1, 0) == PAGE_SIZE,
		    "The pipe does not take the page");
	TEST_ASSERT(gpc_give_back(pages) == pfn, "A page that a pipe holds counts as free");
	TEST_ASSERT(read(pipefd[0], buf, sizeof(buf)) == sizeof(buf) && !gpc_is_held(pfn),
		    "The page is still held");
}

int main(int argc, char *argv[])
{
	if (!gpc_fault_possible())
		ksft_exit_skip("kernel without FAIL_FUNCTION, FAILSLAB and FAIL_PAGE_ALLOC\n");
	TEST_REQUIRE(gpc_fault_has(GPC_FAIL_LOOKUP));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE);
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);

	return test_harness_run(argc, argv);
}
