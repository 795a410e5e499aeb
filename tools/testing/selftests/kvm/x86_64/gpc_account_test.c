// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accounting of a vCPU's time when another thread runs the vCPU, and when the VM's clock
 * is set back.  Only a thread's wait while it runs the vCPU is stolen.  No time goes back
 * or jumps.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "gpc_harness.h"
#include "gpc_rival.h"
#include "gpc_xen.h"

#define RECORD_GPA	GPC_SPAN_GPA

#define MSEC_NS		(NSEC_PER_SEC / 1000)

/* Time that a thread waits before or after another thread runs the vCPU. */
#define WAIT_NS		(50 * MSEC_NS)
#define RUN_NS		(20 * MSEC_NS)

/* The time from sched-out until the next run is a little longer than the wait. */
#define SWITCH_NS	MSEC_NS

#define BACK_NS		(100ull * NSEC_PER_SEC)

static void run(struct kvm_vcpu *vcpu)
{
	gpc_run(vcpu, (struct gpc_step) { });
}

static void *zeroed_slot(struct kvm_vm *vm)
{
	void *mem = gpc_mmap_anon(NULL);

	memset(mem, 0, GPC_SIZE);
	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	return mem;
}

static uint64_t switches(void)
{
	struct rusage usage;

	TEST_ASSERT(!getrusage(RUSAGE_THREAD, &usage), "getrusage");
	return usage.ru_nvcsw + usage.ru_nivcsw;
}

/*
 * Threads: each runs the vCPU for a while, and reports how long it has waited
 */

struct runner {
	struct kvm_vcpu *vcpu;
	uint64_t wait_first;	/* ns to wait for a CPU before the first run */
	uint64_t delay;		/* waited between the first run and the last */
	uint64_t switches;
};

/* Give the CPU to a child of the same affinity until this thread has waited @ns. */
static void wait_for_cpu(uint64_t ns)
{
	uint64_t until = gpc_run_delay() + ns;
	pid_t rival = gpc_rival_start();

	while (gpc_run_delay() < until)
		sched_yield();
	gpc_rival_end(rival);
}

static void *runner_thread(void *arg)
{
	struct runner *r = arg;
	uint64_t delay, count, end;

	if (r->wait_first)
		wait_for_cpu(r->wait_first);

	delay = gpc_run_delay();
	count = switches();
	end = gpc_monotonic_ns() + RUN_NS;
	do {
		run(r->vcpu);
	} while (gpc_monotonic_ns() < end);
	r->delay = gpc_run_delay() - delay;
	r->switches = switches() - count;
	return NULL;
}

static struct runner run_in_new_thread(struct kvm_vcpu *vcpu, uint64_t wait_first)
{
	struct runner r = { .vcpu = vcpu, .wait_first = wait_first };
	pthread_t thread;

	TEST_ASSERT(!pthread_create(&thread, NULL, runner_thread, &r), "Cannot create a thread");
	pthread_join(thread, NULL);
	return r;
}

/*
 * Xen's runstate
 */

FIXTURE(gpc_account_runstate)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_account_runstate)
{
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG);
	self->vcpu = gpc_xen_create(_metadata);
	gpc_set_abi(self->vcpu->vm, GPC_64);
}

FIXTURE_TEARDOWN(gpc_account_runstate)
{
	gpc_free(self->vcpu);
}

#define RUNSTATE_TEST(test) KVM_ONE_VCPU_TEST(gpc_account_runstate, test, gpc_guest)

static void *record_on(struct kvm_vcpu *vcpu)
{
	void *mem = zeroed_slot(vcpu->vm);

	TEST_ASSERT_EQ(gpc_set_record(vcpu, RECORD_GPA), 0);
	return mem;
}

static struct gpc_runstate record_in(void *mem)
{
	struct gpc_runstate rs = gpc_record_at(mem, GPC_64);

	gpc_assert_whole(&rs);
	return rs;
}

static void assert_grown(const struct gpc_runstate *prev, const struct gpc_runstate *rs)
{
	int i;

	TEST_ASSERT(rs->entry_time >= prev->entry_time, "From %lu ns back to %lu ns",
		    prev->entry_time, rs->entry_time);
	for (i = 0; i < GPC_NR_STATES; i++)
		TEST_ASSERT(rs->times[i] >= prev->times[i], "State %d: from %lu ns back to %lu ns",
			    i, prev->times[i], rs->times[i]);
}

static void assert_stolen_from(const struct runner *r, const struct gpc_runstate *prev,
			       const struct gpc_runstate *rs)
{
	uint64_t stolen = rs->times[GPC_RUNNABLE] - prev->times[GPC_RUNNABLE];

	assert_grown(prev, rs);
	TEST_ASSERT(stolen <= r->delay + (r->switches + 1) * SWITCH_NS,
		    "%lu ns of %lu ns stolen from a thread that waited %lu ns, with %lu switches",
		    stolen, rs->entry_time - prev->entry_time, r->delay, r->switches);
}

RUNSTATE_TEST(thread_waited_less)
{
	void *mem = record_on(vcpu);
	struct gpc_runstate prev, rs;
	struct runner r;

	wait_for_cpu(WAIT_NS);
	run(vcpu);
	prev = record_in(mem);
	r = run_in_new_thread(vcpu, 0);
	rs = record_in(mem);
	assert_stolen_from(&r, &prev, &rs);
}

RUNSTATE_TEST(thread_waited_more)
{
	void *mem = record_on(vcpu);
	struct gpc_runstate prev, rs;
	struct runner r;

	run(vcpu);
	prev = record_in(mem);
	r = run_in_new_thread(vcpu, gpc_run_delay() + WAIT_NS);
	rs = record_in(mem);
	assert_stolen_from(&r, &prev, &rs);
}

static struct kvm_xen_vcpu_attr as_running(struct kvm_vcpu *vcpu, uint16_t type)
{
	struct kvm_xen_vcpu_attr attr = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };

	if (type == KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA)
		vcpu_ioctl(vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
	attr.type = type;
	attr.u.runstate.state = GPC_RUNNING;
	return attr;
}

/* The main thread sets the state, another thread runs the vCPU. */
RUNSTATE_TEST(restored_by_other_thread)
{
	const uint16_t types[] = {
		KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA,
		KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT,
		KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST,
	};
	void *mem = record_on(vcpu);
	struct gpc_runstate prev, rs;
	struct runner r;
	int i;

	wait_for_cpu(WAIT_NS);
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		run(vcpu);
		prev = record_in(mem);
		TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, as_running(vcpu, types[i])), 0);
		r = run_in_new_thread(vcpu, 0);
		rs = record_in(mem);
		assert_stolen_from(&r, &prev, &rs);
	}
}

/* Time that the vCPU's thread waits is stolen. */
RUNSTATE_TEST(thread_waits)
{
	void *mem = record_on(vcpu);
	uint64_t delay, stolen;

	run(vcpu);
	stolen = record_in(mem).times[GPC_RUNNABLE];
	delay = gpc_run_delay();
	wait_for_cpu(WAIT_NS);
	delay = gpc_run_delay() - delay;
	run(vcpu);
	stolen = record_in(mem).times[GPC_RUNNABLE] - stolen;
	TEST_ASSERT(stolen >= delay, "%lu ns stolen, %lu ns waited", stolen, delay);
}

/*
 * The clock is set back
 */

static void set_clock(struct kvm_vm *vm, uint64_t ns)
{
	struct kvm_clock_data data = { .clock = ns };

	vm_ioctl(vm, KVM_SET_CLOCK, &data);
}

/* Returns the record that the vCPU writes as it enters @state.  No time may go back. */
static struct gpc_runstate enter(struct kvm_vcpu *vcpu, void *mem, enum gpc_state state,
				 const struct gpc_runstate *prev)
{
	struct gpc_runstate rs;

	TEST_ASSERT_EQ(gpc_set_state(vcpu, state), 0);
	rs = record_in(mem);
	TEST_ASSERT_EQ(rs.state, state);
	assert_grown(prev, &rs);
	return rs;
}

static void assert_stands_still(const struct gpc_runstate *prev, const struct gpc_runstate *rs)
{
	TEST_ASSERT_EQ(rs->entry_time, prev->entry_time);
	TEST_ASSERT(!memcmp(rs->times, prev->times, sizeof(rs->times)),
		    "A time has changed while the clock was behind");
}

static void assert_survives_clock_set_back(struct kvm_vcpu *vcpu, void *mem,
					   enum gpc_state state)
{
	struct gpc_runstate prev, behind, rs;
	uint64_t total, grown;
	int i;

	set_clock(vcpu->vm, 10 * BACK_NS);
	rs = record_in(mem);
	prev = enter(vcpu, mem, state, &rs);

	set_clock(vcpu->vm, prev.entry_time - BACK_NS);
	for (i = 0; i < GPC_NR_STATES; i++) {
		behind = enter(vcpu, mem, i, &prev);
		assert_stands_still(&prev, &behind);
	}
	/* Time that is waited now is not stolen from later time. */
	wait_for_cpu(WAIT_NS);
	run(vcpu);
	behind = record_in(mem);
	assert_stands_still(&prev, &behind);
	behind = enter(vcpu, mem, state, &prev);
	assert_stands_still(&prev, &behind);

	/* The state gets the time since the clock caught up. */
	set_clock(vcpu->vm, prev.entry_time + RUN_NS);
	rs = enter(vcpu, mem, GPC_OFFLINE, &prev);
	total = rs.entry_time - prev.entry_time;
	grown = rs.times[state] - prev.times[state];
	if (state == GPC_RUNNING)
		grown += rs.times[GPC_RUNNABLE] - prev.times[GPC_RUNNABLE];
	TEST_ASSERT(total >= RUN_NS && total < BACK_NS, "%lu ns have passed", total);
	TEST_ASSERT_EQ(grown, total);

	/* Jump by 100 s, like a clock that catches up by itself. */
	prev = rs;
	set_clock(vcpu->vm, prev.entry_time - BACK_NS);
	rs = enter(vcpu, mem, state, &prev);
	set_clock(vcpu->vm, prev.entry_time + MSEC_NS);
	rs = enter(vcpu, mem, state, &rs);
	TEST_ASSERT(rs.times[state] - prev.times[state] < NSEC_PER_SEC,
		    "State %d has grown by %lu ns", state, rs.times[state] - prev.times[state]);
}

RUNSTATE_TEST(clock_set_back_running)
{
	assert_survives_clock_set_back(vcpu, record_on(vcpu), GPC_RUNNING);
}

RUNSTATE_TEST(clock_set_back_runnable)
{
	assert_survives_clock_set_back(vcpu, record_on(vcpu), GPC_RUNNABLE);
}

RUNSTATE_TEST(clock_set_back_blocked)
{
	assert_survives_clock_set_back(vcpu, record_on(vcpu), GPC_BLOCKED);
}

RUNSTATE_TEST(clock_set_back_offline)
{
	assert_survives_clock_set_back(vcpu, record_on(vcpu), GPC_OFFLINE);
}

/*
 * Steal time
 */

FIXTURE(gpc_account_steal)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_account_steal)
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_KVM_STEAL_TIME));
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_account_steal)
{
	gpc_free(self->vcpu);
}

#define STEAL_TEST(test) KVM_ONE_VCPU_TEST(gpc_account_steal, test, gpc_guest)

static struct kvm_steal_time *steal_on(struct kvm_vcpu *vcpu)
{
	struct kvm_steal_time *st = zeroed_slot(vcpu->vm);

	gpc_wrmsr(vcpu, MSR_KVM_STEAL_TIME, GPC_GPA | KVM_MSR_ENABLED);
	run(vcpu);
	return st;
}

static void assert_stolen_at_most(uint64_t prev, uint64_t steal, uint64_t most)
{
	TEST_ASSERT(steal >= prev && steal - prev <= most, "%ld ns stolen, %lu ns waited",
		    (int64_t)(steal - prev), most);
}

STEAL_TEST(waited_less)
{
	struct kvm_steal_time *st = steal_on(vcpu);
	uint64_t steal, delay;
	struct runner r;

	wait_for_cpu(WAIT_NS);
	run(vcpu);
	steal = st->steal;
	r = run_in_new_thread(vcpu, 0);
	assert_stolen_at_most(steal, st->steal, r.delay);

	/* Back to the first thread: its wait in the meantime is not the vCPU's. */
	steal = st->steal;
	delay = gpc_run_delay();
	run(vcpu);
	assert_stolen_at_most(steal, st->steal, gpc_run_delay() - delay);
}

STEAL_TEST(waited_more)
{
	struct kvm_steal_time *st = steal_on(vcpu);
	uint64_t steal = st->steal;
	struct runner r;

	r = run_in_new_thread(vcpu, gpc_run_delay() + WAIT_NS);
	assert_stolen_at_most(steal, st->steal, r.delay);
}

int main(int argc, char *argv[])
{
	return test_harness_run(argc, argv);
}
