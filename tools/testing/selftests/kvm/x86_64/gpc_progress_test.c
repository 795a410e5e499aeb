// SPDX-License-Identifier: GPL-2.0-only
/*
 * A refresh while the VMM's memory is invalidated without a gap: invalidations of other
 * memory do not delay the refresh.  During an invalidation of its own page, the refresh
 * sleeps.
 *
 * Userspace can neither delay nor see an invalidation, but it can stop the thread that
 * makes the invalidation.  All threads share a CPU.  Four of them do nothing but
 * write-protect and unprotect large areas, so that most of the time an invalidation is in
 * progress.  The vCPU's thread is SCHED_FIFO and preempts them whenever it wants to run.
 * If only one of an area's first and last page is protected, the area's invalidation is
 * in progress, and makes no progress as long as the vCPU does not sleep.  A refresh that
 * waits for this invalidation without sleeping waits forever.
 */
#include <sys/resource.h>
#include <time.h>

#include "gpc_area.h"
#include "gpc_harness.h"

/* Many page tables: a thread can be stopped between two of them. */
#define AREA_SIZE	(16ul << 20)
#define NR_AREAS	4

/* A page, then the areas; half of them are in the memslot. */
#define SLOT_SIZE	(PAGE_SIZE + NR_AREAS / 2 * AREA_SIZE)
#define OUTSIDE		GPC_GPA
#define INSIDE		(GPC_GPA + 2 * PAGE_SIZE)

#define NR_ROUNDS	50

FIXTURE(gpc_progress)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_progress)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_progress)
{
	gpc_free(self->vcpu);
}

#define PROGRESS_TEST(test) KVM_ONE_VCPU_TEST(gpc_progress, test, gpc_guest)

static struct gpc_area areas[NR_AREAS];

static struct gpc_area *find_in_progress(void)
{
	int i;

	for (i = 0; i < NR_AREAS; i++) {
		if (gpc_area_in_progress(&areas[i]))
			return &areas[i];
	}
	return NULL;
}

/* Enable the guest's clock at @gpa, and start invalidations of the first @nr areas. */
static void *start(struct kvm_vcpu *vcpu, uint64_t gpa, int nr)
{
	const size_t size = PAGE_SIZE + NR_AREAS * AREA_SIZE;
	void *mem;
	int uffd, i;

	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	(void)madvise(mem, size, MADV_NOHUGEPAGE);
	memset(mem, GPC_POISON, size);
	/* The kernel itself makes a protected page writable on a write. */
	uffd = gpc_uffd_open(UFFD_FEATURE_WP_ASYNC);
	gpc_uffd_register(uffd, mem + PAGE_SIZE, size - PAGE_SIZE, UFFDIO_REGISTER_MODE_WP);

	gpc_slot(vcpu->vm, 0, GPC_GPA, SLOT_SIZE, mem);
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, gpa | KVM_MSR_ENABLED);
	gpc_assert_served(vcpu, gpa);

	gpc_areas_preempt();
	for (i = 0; i < nr; i++)
		gpc_area_start(&areas[i], uffd, mem + PAGE_SIZE + i * AREA_SIZE, AREA_SIZE,
			       mem + (i + 1) * AREA_SIZE);
	return mem + (gpa - GPC_GPA);
}

static void finish(int nr, int rounds, int tries)
{
	gpc_areas_end(areas, nr);
	TEST_ASSERT(rounds == NR_ROUNDS, "Only %d refreshes during an invalidation, in %d tries",
		    rounds, tries);
}

/*
 * The guest reads nothing, because its own faults spin.  Once two invalidations have been
 * in progress at a time, these faults spin until all have ended: KVM's MMU merges their
 * ranges.
 */
static void update(struct kvm_vcpu *vcpu, void *page)
{
	gpc_update(vcpu);
	gpc_assert_written(page);
}

PROGRESS_TEST(invalidation_elsewhere)
{
	void *page = start(vcpu, OUTSIDE, NR_AREAS);
	struct kvm_vm *vm = vcpu->vm;
	int tries, rounds = 0;
	struct gpc_area *area;
	unsigned long nr;
	uint64_t hits;

	hits = gpc_stat(vm, "gpc_invalidation_hits");
	for (tries = 0; rounds < NR_ROUNDS && gpc_areas_try(areas, NR_AREAS, tries); tries++) {
		gpc_areas_run();
		area = find_in_progress();
		if (!area)
			continue;
		nr = READ_ONCE(area->nr_done);

		gpc_drop(page);
		hits++;
		update(vcpu, page);

		/* Count only an invalidation that was in progress all the time. */
		if (gpc_area_in_progress(area) && READ_ONCE(area->nr_done) == nr)
			rounds++;
	}
	finish(NR_AREAS, rounds, tries);

	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_invalidation_hits"), hits);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refresh_retries"), 0);
	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refresh_waits"), 0);
}

static uint64_t cpu_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* Number of times that this thread has slept. */
static unsigned long nr_slept(void)
{
	struct rusage usage;

	TEST_ASSERT(!getrusage(RUSAGE_THREAD, &usage), __KVM_SYSCALL_ERROR("getrusage()", -1));
	return usage.ru_nvcsw;
}

static uint64_t nr_in_wait_hist(struct kvm_vm *vm)
{
	uint64_t hist[64] = {}, sum = 0;
	int i;

	gpc_get_stat(vm, "gpc_refresh_wait_hist", hist, ARRAY_SIZE(hist));
	for (i = 0; i < ARRAY_SIZE(hist); i++)
		sum += hist[i];
	return sum;
}

PROGRESS_TEST(invalidation_of_its_page)
{
	void *page = start(vcpu, INSIDE, 1);
	struct kvm_vm *vm = vcpu->vm;
	unsigned long slept, nr;
	int tries, rounds = 0;
	uint64_t cpu = 0;

	for (tries = 0; rounds < NR_ROUNDS && gpc_areas_try(areas, 1, tries); tries++) {
		gpc_areas_run();
		if (!gpc_area_in_progress(&areas[0]))
			continue;
		nr = READ_ONCE(areas[0].nr_done);
		slept = nr_slept();
		cpu -= cpu_time();

		update(vcpu, page);

		cpu += cpu_time();
		rounds++;
		TEST_ASSERT(nr_slept() > slept, "Refreshed without sleeping");
		TEST_ASSERT(READ_ONCE(areas[0].nr_done) != nr || !gpc_area_in_progress(&areas[0]),
			    "Refreshed amid an invalidation of the page");
		TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refresh_waits"), rounds);
		TEST_ASSERT_EQ(nr_in_wait_hist(vm), rounds);
	}
	finish(1, rounds, tries);

	TEST_ASSERT_EQ(gpc_stat(vm, "gpc_refresh_retries"), 0);
	/* A thread that spins here has the CPU for at least 950 ms of each second. */
	TEST_ASSERT(cpu / NR_ROUNDS < NSEC_PER_SEC / 10, "%lu us of the CPU for %d refreshes",
		    cpu / 1000, NR_ROUNDS);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));

	return test_harness_run(argc, argv);
}
