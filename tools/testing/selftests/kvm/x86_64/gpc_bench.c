// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cost of the guest page cache.  Prints a line "name value unit" for each figure.
 *
 * Costs are differences of the TSC, read in userspace.  On an emulator that counts
 * instructions with the TSC, the figures repeat and kernels can be compared.  Elsewhere
 * the figures are ticks, and noisy.  A figure is a median.  A subtracted cost was
 * measured on the same kernel.
 *
 * One VM has 1,280 vCPUs, each with kvmclock and three of Xen's areas.  These are turned
 * on one by one, each in a page of its own between pages that are not cached, until N
 * caches are active.  PLACES places are spread evenly over them, and the worst one
 * counts.
 *
 * none		madvise(MADV_DONTNEED) of a touched page, with no cache active
 * miss_N	the same of a page that is not cached, with N caches, minus none
 * hit_N	the same of a page that is cached, with N caches, minus none
 * miss_guest	as miss_N, in a Xen guest of 1,024 vCPUs that uses all areas:
 *		shared info, and on each vCPU kvmclock, vCPU info, time info and
 *		a runstate area across the end of a page
 *
 * Other VMs have one vCPU.  Whole round trips, from userspace into the guest and back:
 *
 * run_plain	KVM_RUN with no record registered
 * run_clock	the same with kvmclock
 * run_steal	the same with kvmclock and steal time
 * run_xen	the same in a Xen VM, with no record registered
 * run_runstate	the same in a Xen VM, with a runstate area
 * run_across	the same in a Xen VM, with a runstate area across the end of a page
 *
 * Cost of the parts:
 *
 * use_clock	KVM_RUN that rewrites the guest's clock, minus the same without a
 *		clock: check, lock, write, unlock
 * use_steal	KVM_RUN, minus the same without steal time
 * preempted	from the expiry of a timer to the thread that it wakes, on a CPU that
 *		a vCPU loses to the thread, minus the same without steal time
 * use_runstate	an ioctl that rewrites the runstate area, minus the same without an
 *		area: check, lock, write, unlock
 * use_across	as use_runstate, for an area across the end of a page
 * send_event	the whole ioctl that sends an event channel; it uses the caches of
 *		the shared info and the vCPU info
 * fast_event	the whole write to the eventfd of an irqfd that sends an event channel
 * refresh	the ioctl of use_runstate after the page was dropped and touched,
 *		minus the same without that
 * activate	the whole ioctl that sets the MSR of kvmclock; the page is present
 * first_run	activate, and the KVM_RUN that writes the clock for the first time
 *
 * Then a second thread drops DROP_SIZE of memory in one call.  When the first page is
 * gone and the last one is not, the runstate area is rewritten.  The area's page was
 * dropped and touched since its last use.
 *
 * elsewhere	cost of the rewrite when the area's page lies elsewhere
 * overlap	the same when the page is the first one of the dropped memory, so
 *		that the rewrite waits for the drop to end
 * overlap_cpu	CPU time of overlap
 */
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <asm/kvm_para.h>
#include <asm/pvclock-abi.h>

#include "gpc_count.h"
#include "kselftest.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define SLOT		10
#define DROP_SLOT	11
#define GPA		0x40000000ul
#define DROP_GPA	0x80000000ul
#define OFF		KVM_XEN_INVALID_GPA

#define POISON		0xa5a5a5a5

#define PLACES		8
#define MEANWHILES	3
#define DROP_SIZE	(128ul << 20)

#define NR_VCPUS	1280
#define NR_GUEST_VCPUS	1024
#define NR_CACHES	(NR_VCPUS * NR_KINDS)
#define NR_PAGES	(2 * NR_CACHES + 1)

/* The 64-bit ABI in Xen's public headers. */
#define EVTCHN_PENDING	2048		/* in the shared info, a bit a port; xen.h */
#define EVTCHN_SEL	8		/* in the vCPU info; xen.h */
#define PORT		64
#define RUNNABLE	1		/* a runstate; vcpu.h */

enum kind { CLOCK, VCPU_INFO, TIME_INFO, RUNSTATE, NR_KINDS };

static const int counts[] = { 1, 16, 64, 512, 1024, 2048, NR_CACHES };

/*
 * Memory
 */

static void *mmap_small(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	(void)madvise(mem, size, MADV_NOHUGEPAGE);
	return mem;
}

static void touch(void *page)
{
	WRITE_ONCE(*(uint32_t *)page, POISON);
}

static void drop(void *mem, size_t size)
{
	TEST_ASSERT(!madvise(mem, size, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
}

static bool is_present(void *page)
{
	unsigned char vec;

	TEST_ASSERT(!mincore(page, PAGE_SIZE, &vec), __KVM_SYSCALL_ERROR("mincore()", -1));
	return vec & 1;
}

/* Guest memory from GPA on */
static void *pages;

static void *page_at(int i)
{
	return pages + i * PAGE_SIZE;
}

/*
 * Caches
 */

static void set_msr(struct kvm_vcpu *vcpu, uint32_t msr, uint64_t gpa)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} msrs = {
		.header.nmsrs = 1,
		.entry.index = msr,
		.entry.data = gpa == OFF ? 0 : gpa | KVM_MSR_ENABLED,
	};

	TEST_ASSERT_EQ(__vcpu_ioctl(vcpu, KVM_SET_MSRS, &msrs.header), 1);
}

static void set_clock(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	set_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, gpa);
}

static void set_xen_area(struct kvm_vcpu *vcpu, int type, uint64_t gpa)
{
	struct kvm_xen_vcpu_attr attr = { .type = type, .u.gpa = gpa };

	vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
}

/*
 * Activate a cache and have its page looked up, or deactivate the cache.  The MSR only
 * stores the clock's address: KVM looks the page up when the vCPU is about to run.
 */
static void set_cache(struct kvm_vcpu *vcpu, enum kind kind, uint64_t gpa)
{
	static const int types[] = {
		[VCPU_INFO] = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		[TIME_INFO] = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		[RUNSTATE] = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR,
	};

	if (kind != CLOCK) {
		set_xen_area(vcpu, types[kind], gpa);
		return;
	}

	set_clock(vcpu, gpa);
	if (gpa != OFF) {
		vcpu_run(vcpu);
		TEST_ASSERT(is_present(page_at((gpa - GPA) / PAGE_SIZE)),
			    "The clock was not written");
	}
}

static void set_long_mode(struct kvm_vm *vm)
{
	struct kvm_xen_hvm_attr mode = {
		.type = KVM_XEN_ATTR_TYPE_LONG_MODE,
		.u.long_mode = 1,
	};

	vm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &mode);
}

static void set_shared_info(struct kvm_vm *vm, uint64_t gpa)
{
	struct kvm_xen_hvm_attr info = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO,
		.u.shared_info.gfn = gpa / PAGE_SIZE,
	};

	set_long_mode(vm);
	vm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &info);
}

/* A state by which to recognize the runstate area. */
static void set_runnable(struct kvm_vcpu *vcpu)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT,
		.u.runstate.state = RUNNABLE,
	};

	vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
}

/* Add nothing to the runstate's times, which makes KVM rewrite the area. */
static void use_runstate(struct kvm_vcpu *vcpu)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST,
		.u.runstate.state = -1ull,
	};

	vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
}

static void assert_runstate(uint32_t *area)
{
	TEST_ASSERT_EQ(READ_ONCE(*area), RUNNABLE);
}

/*
 * Many caches
 */

static struct kvm_vcpu *vcpus[NR_VCPUS];

static uint64_t gpa_of(int i)
{
	return GPA + i * PAGE_SIZE;
}

static void set_nth(int i, bool on)
{
	set_cache(vcpus[i / NR_KINDS], i % NR_KINDS,
		  on ? gpa_of(2 * i + 1) : OFF);
}

static int64_t drop_cost(void *page)
{
	return GPC_MEDIAN(touch(page), drop(page, PAGE_SIZE));
}

/* Cost in the worst of some places that are spread over @n steps of @step pages. */
static int64_t miss_cost(int n, int step)
{
	int64_t worst = 0;
	int i;

	for (i = 1; i < 2 * PLACES; i += 2)
		worst = max(worst, drop_cost(page_at(DIV_ROUND_UP(n * i, 2 * PLACES) * step)));
	return worst;
}

static int64_t hit_cost(int n)
{
	int64_t worst = 0;
	int i, nth;

	for (i = 1; i < 2 * PLACES; i += 2) {
		nth = n * i / (2 * PLACES);
		worst = max(worst, GPC_MEDIAN(set_nth(nth, true),
					      drop(page_at(2 * nth + 1), PAGE_SIZE)));
		set_nth(nth, true);
	}
	return worst;
}

/* Pages of a vCPU: none, clock, none, info, none, time, none, runstate (2), none. */
#define GUEST_STEP 10

static void become_guest(struct kvm_vm *vm)
{
	int i;

	for (i = 0; i < NR_CACHES; i++)
		set_nth(i, false);
	for (i = 0; i < NR_GUEST_VCPUS; i++) {
		set_cache(vcpus[i], CLOCK, gpa_of(i * GUEST_STEP + 1));
		set_cache(vcpus[i], VCPU_INFO, gpa_of(i * GUEST_STEP + 3));
		set_cache(vcpus[i], TIME_INFO, gpa_of(i * GUEST_STEP + 5));
		set_cache(vcpus[i], RUNSTATE, gpa_of(i * GUEST_STEP + 8) - 16);
	}
	set_shared_info(vm, gpa_of(i * GUEST_STEP));
}

/* At the reset vector, all vCPUs find code that exits to the VMM again and again. */
static void add_code(struct kvm_vm *vm)
{
	static const uint8_t code[] = {
		0xe6, 0x80,	/* 1: out %al, $0x80 */
		0xeb, 0xfc,	/* jmp 1b */
	};
	uint8_t *page = mmap_small(PAGE_SIZE);

	memcpy(page + 0xff0, code, sizeof(code));
	vm_set_user_memory_region(vm, SLOT + 1, 0, 0xfffff000, PAGE_SIZE, page);
}

static void bench_invalidation(void)
{
	/* The library opens two for a vCPU, or one. */
	const rlim_t nr_files = 2 * NR_VCPUS + 100;
	struct rlimit files = { .rlim_cur = nr_files, .rlim_max = nr_files };
	struct kvm_vm *vm = vm_create_barebones();
	int64_t none;
	int i, n;

	__TEST_REQUIRE(!setrlimit(RLIMIT_NOFILE, &files), "cannot open %lu files", nr_files);
	for (i = 0; i < NR_VCPUS; i++)
		vcpus[i] = __vm_vcpu_add(vm, i);
	pages = mmap_small(NR_PAGES * PAGE_SIZE);
	vm_set_user_memory_region(vm, SLOT, 0, GPA, NR_PAGES * PAGE_SIZE, pages);
	add_code(vm);

	/* A VM that has run has mapped memory, which an invalidation has to search. */
	vcpu_run(vcpus[0]);
	none = miss_cost(NR_CACHES, 2);
	gpc_figure(none, "none");
	for (i = n = 0; n < ARRAY_SIZE(counts); n++) {
		while (i < counts[n])
			set_nth(i++, true);
		gpc_figure(miss_cost(i, 2) - none, "miss_%d", i);
		gpc_figure(hit_cost(i) - none, "hit_%d", i);
	}

	become_guest(vm);
	gpc_figure(miss_cost(NR_GUEST_VCPUS, GUEST_STEP) - none, "miss_guest");
	kvm_vm_free(vm);
	munmap(pages, NR_PAGES * PAGE_SIZE);
}

/*
 * One vCPU
 */

#define RUNSTATE_PAGE 4

static void guest(void)
{
	for (;;)
		asm volatile("outb %%al, $0x80" : : "a"(0));
}

static struct kvm_vcpu *start_guest(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&vcpu, guest);

	pages = mmap_small(6 * PAGE_SIZE);
	vm_set_user_memory_region(vm, SLOT, 0, GPA, 6 * PAGE_SIZE, pages);
	vcpu_run(vcpu);
	return vcpu;
}

static void end_guest(struct kvm_vcpu *vcpu)
{
	kvm_vm_free(vcpu->vm);
	munmap(pages, 6 * PAGE_SIZE);
}

static void bench_run(void)
{
	struct kvm_vcpu *vcpu = start_guest();
	struct kvm_steal_time *steal_time = page_at(1);
	struct pvclock_vcpu_time_info *clock = page_at(0);

	gpc_figure(GPC_MEDIAN(, vcpu_run(vcpu)), "run_plain");
	set_clock(vcpu, gpa_of(0));
	gpc_figure(GPC_MEDIAN(, vcpu_run(vcpu)), "run_clock");
	TEST_ASSERT(clock->version >= 2, "The clock was not written");
	set_msr(vcpu, MSR_KVM_STEAL_TIME, gpa_of(1));
	gpc_figure(GPC_MEDIAN(, vcpu_run(vcpu)), "run_steal");
	TEST_ASSERT(steal_time->version >= 2 * GPC_ROUNDS, "Steal time was not written each time");
	end_guest(vcpu);
}

/* A VM becomes a Xen VM when the VMM names the MSR of its hypercall page. */
#define XEN_MSR		0x40000200

static void bench_run_xen(void)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = XEN_MSR,
	};
	struct kvm_vcpu *vcpu = start_guest();
	uint64_t *entry_time = page_at(2) + sizeof(uint64_t);
	uint64_t *entry_time_across = page_at(3) - 2 * sizeof(uint64_t);

	vm_ioctl(vcpu->vm, KVM_XEN_HVM_CONFIG, &config);
	set_long_mode(vcpu->vm);
	gpc_figure(GPC_MEDIAN(, vcpu_run(vcpu)), "run_xen");
	set_cache(vcpu, RUNSTATE, gpa_of(2));
	gpc_figure(GPC_MEDIAN(*entry_time = 0, vcpu_run(vcpu)), "run_runstate");
	TEST_ASSERT(*entry_time, "The runstate was not written");
	set_cache(vcpu, RUNSTATE, gpa_of(3) - 3 * sizeof(uint64_t));
	gpc_figure(GPC_MEDIAN(*entry_time_across = 0, vcpu_run(vcpu)), "run_across");
	TEST_ASSERT(*entry_time_across, "The runstate was not written");
	end_guest(vcpu);
}

static void new_time(struct kvm_vm *vm)
{
	struct kvm_clock_data data = { .clock = NSEC_PER_SEC };

	vm_ioctl(vm, KVM_SET_CLOCK, &data);
}

static void bench_clock(struct kvm_vcpu *vcpu)
{
	struct pvclock_vcpu_time_info *clock = page_at(0);
	int64_t without;

	without = GPC_MEDIAN(new_time(vcpu->vm), vcpu_run(vcpu));
	set_clock(vcpu, gpa_of(0));
	gpc_figure(GPC_MEDIAN(new_time(vcpu->vm), vcpu_run(vcpu)) - without, "use_clock");
	TEST_ASSERT(clock->version >= 2 * GPC_ROUNDS, "The clock was not rewritten each time");
	gpc_figure(GPC_MEDIAN(set_clock(vcpu, OFF), set_clock(vcpu, gpa_of(0))), "activate");
	gpc_figure(GPC_MEDIAN(set_clock(vcpu, OFF),
			      { set_clock(vcpu, gpa_of(0)); vcpu_run(vcpu); }), "first_run");
	set_clock(vcpu, OFF);
}

static void bench_steal_time(struct kvm_vcpu *vcpu)
{
	struct kvm_steal_time *steal_time = page_at(1);
	int64_t without;

	without = GPC_MEDIAN(, vcpu_run(vcpu));
	set_msr(vcpu, MSR_KVM_STEAL_TIME, gpa_of(1));
	gpc_figure(GPC_MEDIAN(, vcpu_run(vcpu)) - without, "use_steal");
	TEST_ASSERT(steal_time->version >= 2 * GPC_ROUNDS, "Steal time was not written each time");
	set_msr(vcpu, MSR_KVM_STEAL_TIME, OFF);
}

/* A vCPU that stays in the guest while it has the CPU. */
static struct spinning {
	bool on;
	bool stop;
} spinning;

static void spin(void)
{
	for (;;) {
		WRITE_ONCE(spinning.on, true);
		while (!READ_ONCE(spinning.stop))
			;
		GUEST_SYNC(0);
	}
}

static void *run_spinner(void *vcpu)
{
	vcpu_run(vcpu);
	return NULL;
}

static int64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return timespec_to_ns(ts);
}

static int64_t wakeup_cost(struct kvm_vcpu *spinner, uint8_t preempted)
{
	struct spinning *s = addr_gva2hva(spinner->vm, (uintptr_t)&spinning);
	struct kvm_steal_time *steal_time = page_at(1);
	int64_t samples[GPC_ROUNDS], at;
	struct timespec ts;
	pthread_t thread;
	int i;

	*s = (struct spinning) { };
	TEST_ASSERT(!pthread_create(&thread, NULL, run_spinner, spinner), "pthread_create");
	while (!READ_ONCE(s->on))
		usleep(1000);
	for (i = 0; i < GPC_ROUNDS; i++) {
		at = monotonic_ns() + 3 * NSEC_PER_SEC / 1000;
		ts = (struct timespec) { at / NSEC_PER_SEC, at % NSEC_PER_SEC };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
		samples[i] = monotonic_ns() - at;
		TEST_ASSERT_EQ(READ_ONCE(steal_time->preempted), preempted);
	}
	WRITE_ONCE(s->stop, true);
	pthread_join(thread, NULL);
	return gpc_median(samples, GPC_ROUNDS);
}

static void bench_preempted(struct kvm_vm *vm)
{
	struct sched_param first = { .sched_priority = 1 }, none = { };
	struct kvm_vcpu *spinner = vm_vcpu_add(vm, 1, spin);
	int64_t without;

	TEST_ASSERT(!sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first),
		    __KVM_SYSCALL_ERROR("sched_setscheduler()", -1));
	without = wakeup_cost(spinner, 0);
	set_msr(spinner, MSR_KVM_STEAL_TIME, gpa_of(1));
	gpc_figure(wakeup_cost(spinner, KVM_VCPU_PREEMPTED) - without, "preempted");
	sched_setscheduler(0, SCHED_OTHER, &none);
}

static int make_irqfd(struct kvm_vm *vm, struct kvm_irq_routing_xen_evtchn *event)
{
	struct {
		struct kvm_irq_routing header;
		struct kvm_irq_routing_entry entry;
	} routing = {
		.header.nr = 1,
		.entry = { .gsi = 1, .type = KVM_IRQ_ROUTING_XEN_EVTCHN, .u.xen_evtchn = *event },
	};
	struct kvm_irqfd irqfd = { .fd = eventfd(0, 0), .gsi = routing.entry.gsi };

	vm_ioctl(vm, KVM_SET_GSI_ROUTING, &routing.header);
	vm_ioctl(vm, KVM_IRQFD, &irqfd);
	return irqfd.fd;
}

static void bench_event(struct kvm_vcpu *vcpu)
{
	struct kvm_irq_routing_xen_evtchn event = {
		.port = PORT,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};
	uint64_t *pending = page_at(2) + EVTCHN_PENDING + PORT / 8;
	uint64_t *sel = page_at(3) + EVTCHN_SEL;
	int64_t used;
	int fd;

	set_shared_info(vcpu->vm, gpa_of(2));
	set_cache(vcpu, VCPU_INFO, gpa_of(3));
	used = GPC_MEDIAN((*pending = 0, *sel = 0),
			  vm_ioctl(vcpu->vm, KVM_XEN_HVM_EVTCHN_SEND, &event));
	gpc_figure(used, "send_event");
	TEST_ASSERT(*pending && *sel, "No event was sent");

	fd = make_irqfd(vcpu->vm, &event);
	gpc_figure(GPC_MEDIAN((*pending = 0, *sel = 0), eventfd_write(fd, 1)), "fast_event");
	TEST_ASSERT(*pending && *sel, "No event was sent");
	close(fd);
	set_cache(vcpu, VCPU_INFO, OFF);
}

static void bench_runstate(struct kvm_vcpu *vcpu)
{
	void *area = page_at(RUNSTATE_PAGE), *across = page_at(RUNSTATE_PAGE + 1) - 16;
	int64_t without, used, missed;

	set_runnable(vcpu);
	without = GPC_MEDIAN(, use_runstate(vcpu));
	set_cache(vcpu, RUNSTATE, gpa_of(RUNSTATE_PAGE + 1) - 16);
	gpc_figure(GPC_MEDIAN(touch(across), use_runstate(vcpu)) - without, "use_across");
	assert_runstate(across);

	set_cache(vcpu, RUNSTATE, gpa_of(RUNSTATE_PAGE));
	used = GPC_MEDIAN(touch(area), use_runstate(vcpu));
	gpc_figure(used - without, "use_runstate");
	assert_runstate(area);
	missed = GPC_MEDIAN((drop(area, PAGE_SIZE), touch(area)), use_runstate(vcpu));
	gpc_figure(missed - used, "refresh");
	assert_runstate(area);
}

/*
 * Two threads
 */

static void *drop_all(void *mem)
{
	drop(mem, DROP_SIZE);
	return NULL;
}

static int64_t cpu_ns(void)
{
	struct timespec ts;

	TEST_ASSERT(!clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts),
		    __KVM_SYSCALL_ERROR("clock_gettime()", -1));
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* After a tick, threads that share a CPU share it in the same way each time. */
static void await_tick(void)
{
	uint64_t now = rdtsc(), before;

	do {
		before = now;
		now = rdtsc();
	} while (now - before < 500);
}

/* Rewrite the runstate area, which is in @page, while another thread drops @mem. */
static void use_meanwhile(struct kvm_vcpu *vcpu, void *page, void *mem,
			  int64_t *elapsed, int64_t *cpu)
{
	int64_t elapseds[MEANWHILES], cpus[MEANWHILES];
	pthread_t thread;
	int i;

	for (i = 0; i < MEANWHILES; i++) {
		TEST_ASSERT(!madvise(mem, DROP_SIZE, MADV_POPULATE_WRITE),
			    __KVM_SYSCALL_ERROR("madvise(MADV_POPULATE_WRITE)", -1));
		use_runstate(vcpu);
		drop(page, PAGE_SIZE);
		touch(page);

		await_tick();
		TEST_ASSERT(!pthread_create(&thread, NULL, drop_all, mem), "pthread_create");
		while (is_present(mem))
			;
		TEST_ASSERT(is_present(mem + DROP_SIZE - PAGE_SIZE),
			    "The memory was dropped before this thread could run");

		cpus[i] = cpu_ns();
		elapseds[i] = GPC_COUNT(use_runstate(vcpu));
		cpus[i] = cpu_ns() - cpus[i];
		pthread_join(thread, NULL);
		assert_runstate(page);
	}

	*elapsed = gpc_median(elapseds, MEANWHILES);
	*cpu = gpc_median(cpus, MEANWHILES) - GPC_MEDIAN(cpu_ns(), cpu_ns());
}

static void bench_refresh(struct kvm_vcpu *vcpu)
{
	void *mem = mmap_small(DROP_SIZE);
	int64_t elapsed, cpu;

	use_meanwhile(vcpu, page_at(RUNSTATE_PAGE), mem, &elapsed, &cpu);
	gpc_figure(elapsed, "elsewhere");

	vm_set_user_memory_region(vcpu->vm, DROP_SLOT, 0, DROP_GPA, PAGE_SIZE, mem);
	set_cache(vcpu, RUNSTATE, DROP_GPA);
	use_meanwhile(vcpu, mem, mem, &elapsed, &cpu);
	gpc_figure(elapsed, "overlap");
	gpc_figure(cpu, "overlap_cpu");
}

int main(int argc, char *argv[])
{
	struct kvm_vcpu *vcpu;
	const char *unit;

	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE);
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_MAX_VCPUS) >= NR_VCPUS);

	ksft_print_header();
	ksft_set_plan(1);

	unit = gpc_tick_unit();
	bench_invalidation();
	bench_run();
	bench_run_xen();

	vcpu = start_guest();
	bench_clock(vcpu);
	bench_steal_time(vcpu);
	bench_preempted(vcpu->vm);
	bench_event(vcpu);
	bench_runstate(vcpu);
	bench_refresh(vcpu);
	end_guest(vcpu);

	gpc_tell_figures(unit);
	ksft_test_result_pass("gpc_bench\n");
	ksft_finished();
}
