// SPDX-License-Identifier: GPL-2.0-only
/*
 * While the version of a clock is odd, its readers spin, including those of other vCPUs.
 * So no interrupt may come between the odd version and the even one.
 *
 * One CPU rewrites a clock all the time, and timers interrupt it.  Another CPU watches.
 * If the watcher sees an odd version, then a timer that has not expired, then the same
 * timer expired, and then the same version, an interrupt came in between.  The test
 * measures no time, so other users of the CPUs do not matter.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#include "gpc_harness.h"

/* In a vCPU info, aligned as in Xen. */
#define VCPU_INFO	GPC_CLOCK
#define CLOCK		(VCPU_INFO + GPC_XEN_VCPU_INFO_TIME)

#define PERIOD_NS	100000
#define WATCH_NS	(10ull * NSEC_PER_SEC)

/*
 * Three timers expire in one interrupt, in this order.  The first and the last one wake
 * many waiters.  This gives the watcher time to see the odd version before and after
 * WATCHED expires.
 */
enum { BEFORE, WATCHED, AFTER, NR_TIMERS };

#define NR_WAITERS	128

FIXTURE(gpc_irq)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_irq)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_irq)
{
	gpc_free(self->vcpu);
}

struct watch {
	struct pvclock_vcpu_time_info *clock;
	int timers[NR_TIMERS];
	unsigned int nr_odd;
	bool interrupted;
	bool stop;
};

static bool has_expired(struct watch *watch)
{
	struct pollfd fd = { .fd = watch->timers[WATCHED], .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static bool is_interrupted(struct watch *watch, uint32_t version)
{
	if (has_expired(watch))
		return false;
	while (!has_expired(watch)) {
		if (READ_ONCE(watch->clock->version) != version)
			return false;
	}
	return READ_ONCE(watch->clock->version) == version;
}

static void *watch_clock(void *data)
{
	struct watch *watch = data;
	uint32_t version;

	while (!READ_ONCE(watch->stop)) {
		version = READ_ONCE(watch->clock->version);
		if (!(version & 1))
			continue;
		watch->nr_odd++;
		if (is_interrupted(watch, version))
			WRITE_ONCE(watch->interrupted, true);
	}
	return NULL;
}

static void add_waiters(int timer)
{
	struct epoll_event event = { .events = EPOLLIN };
	int i, fd;

	for (i = 0; i < NR_WAITERS; i++) {
		fd = epoll_create1(0);
		TEST_ASSERT(fd >= 0 && !epoll_ctl(fd, EPOLL_CTL_ADD, timer, &event),
			    __KVM_SYSCALL_ERROR("epoll_ctl()", -1));
	}
}

static void start_timers(struct watch *watch)
{
	uint64_t start = gpc_monotonic_ns() + NSEC_PER_SEC / 100;
	struct itimerspec its = {
		.it_value = { start / NSEC_PER_SEC, start % NSEC_PER_SEC },
		.it_interval = { 0, PERIOD_NS },
	};
	int i, *timer;

	for (i = 0; i < NR_TIMERS; i++) {
		timer = &watch->timers[i];
		*timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
		TEST_ASSERT(*timer >= 0, __KVM_SYSCALL_ERROR("timerfd_create()", -1));
		if (i != WATCHED)
			add_waiters(*timer);
		TEST_ASSERT(!timerfd_settime(*timer, TFD_TIMER_ABSTIME, &its, NULL),
			    __KVM_SYSCALL_ERROR("timerfd_settime()", -1));
	}
}

/* A timer that has expired and was read expires again in the next period. */
static bool restart_timers(struct watch *watch)
{
	uint64_t periods;
	int i;

	if (!has_expired(watch))
		return false;
	for (i = 0; i < NR_TIMERS; i++)
		(void)!read(watch->timers[i], &periods, sizeof(periods));
	return true;
}

/* Put all of the vCPU's clocks in one place: three updates in each run. */
static void clocks_on(struct kvm_vcpu *vcpu)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		.u.gpa = CLOCK,
	};

	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, CLOCK | KVM_MSR_ENABLED);
	gpc_xen_on(vcpu->vm);
	vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, VCPU_INFO), 0);
}

/*
 * With a signal that is pending only in KVM_RUN, KVM updates the clocks and returns
 * without entering the guest.  Entering the guest would take far longer than the updates.
 */
static void never_enter_guest(struct kvm_vcpu *vcpu)
{
	struct {
		struct kvm_signal_mask header;
		uint8_t set[8];
	} none = { .header.len = sizeof(none.set) };
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	TEST_ASSERT(!pthread_sigmask(SIG_BLOCK, &usr1, NULL) && !raise(SIGUSR1),
		    "Cannot send a signal");
	vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, &none.header);
}

static void update_clocks(struct kvm_vcpu *vcpu)
{
	gpc_new_era(vcpu->vm);
	TEST_ASSERT(__vcpu_run(vcpu) == -1 && errno == EINTR,
		    "The guest was entered despite a signal");
}

KVM_ONE_VCPU_TEST(gpc_irq, version_odd, gpc_guest)
{
	void *mem = gpc_mmap_anon(NULL);
	struct watch watch = { .clock = mem + (CLOCK - GPC_GPA) };
	pthread_t watcher;
	unsigned int nr_updates = 0, nr_interrupts = 0;
	pthread_attr_t attr;
	uint32_t version;
	cpu_set_t cpus;
	uint64_t end;

	GPC_REQUIRE(gpc_other_cpu() >= 0, "only one CPU");
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	clocks_on(vcpu);
	gpc_assert_served(vcpu, CLOCK);

	CPU_ZERO(&cpus);
	CPU_SET(gpc_other_cpu(), &cpus);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	TEST_ASSERT(!pthread_create(&watcher, &attr, watch_clock, &watch),
		    "Cannot create a thread");

	never_enter_guest(vcpu);
	start_timers(&watch);
	version = watch.clock->version;
	end = gpc_monotonic_ns() + WATCH_NS;
	while (!READ_ONCE(watch.interrupted) && gpc_monotonic_ns() < end) {
		nr_interrupts += restart_timers(&watch);
		nr_updates++;
		update_clocks(vcpu);
	}
	WRITE_ONCE(watch.stop, true);
	pthread_join(watcher, NULL);

	printf("# %u updates, %u interrupts, %u times seen odd\n", nr_updates, nr_interrupts,
	       watch.nr_odd);
	TEST_ASSERT((watch.clock->version - version) / 2 >= nr_updates,
		    "The clock was not rewritten each time");
	TEST_ASSERT(!watch.interrupted, "Interrupted while the version was odd");
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XEN_HVM));

	return test_harness_run(argc, argv);
}
