// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stress test of the guest page cache: the guest.  gpc_stress.h describes what the
 * guest may see, and why.
 */
#include "gpc_stress.h"

struct stress stress;

/*
 * Read a record once
 */

enum look {
	WHOLE,
	ABSENT,
	HALF,		/* marked as being written */
	CHANGED,	/* written while it was being read */
	TORN,		/* same version, but changed */
};

static enum look read_clock(uint64_t gva, struct pvclock_vcpu_time_info *copy)
{
	struct pvclock_vcpu_time_info *clock = (void *)gva;
	bool same;

	copy->version = READ_ONCE(clock->version);
	if (copy->version & 1)
		return HALF;

	copy->tsc_timestamp = READ_ONCE(clock->tsc_timestamp);
	copy->system_time = READ_ONCE(clock->system_time);
	copy->tsc_to_system_mul = READ_ONCE(clock->tsc_to_system_mul);
	copy->tsc_shift = READ_ONCE(clock->tsc_shift);
	if (READ_ONCE(clock->version) != copy->version)
		return CHANGED;

	same = READ_ONCE(clock->tsc_timestamp) == copy->tsc_timestamp &&
	       READ_ONCE(clock->system_time) == copy->system_time;
	if (READ_ONCE(clock->version) != copy->version)
		return CHANGED;

	if (!same)
		return TORN;
	return copy->version ? WHOLE : ABSENT;
}

/*
 * The entry time may be unaligned, so a read of it is not atomic.  Its last byte has the
 * bit that marks an update in progress: read that byte after the rest.
 */
static enum look read_runstate(uint64_t gva, struct xen_runstate *copy)
{
	struct xen_runstate *rs = (void *)gva;
	int i;

	copy->entry_time = READ_ONCE(rs->entry_time);
	if (READ_ONCE(((uint8_t *)&rs->times)[-1]) & (RUNSTATE_UPDATE >> 56))
		return HALF;

	copy->state = READ_ONCE(rs->state);
	for (i = 0; i < ARRAY_SIZE(copy->times); i++)
		copy->times[i] = READ_ONCE(rs->times[i]);
	if (READ_ONCE(rs->entry_time) != copy->entry_time)
		return CHANGED;
	return copy->entry_time ? WHOLE : ABSENT;
}

/* The time of day at which the guest's clock was zero, which shows the era. */
static enum look read_wall_clock(uint64_t gva, uint64_t *era)
{
	const uint64_t era_s = GPC_ERA_NS / NSEC_PER_SEC;
	struct xen_shared_info *shinfo = (void *)gva;
	uint32_t version = READ_ONCE(shinfo->wc.version);
	uint64_t sec;

	if (version & 1)
		return HALF;
	sec = READ_ONCE(shinfo->wc.sec) | (uint64_t)READ_ONCE(shinfo->wc.sec_hi) << 32;
	if (READ_ONCE(shinfo->wc.version) != version)
		return CHANGED;
	*era = (stress.wall_base - sec + era_s - 1) / era_s;
	return version ? WHOLE : ABSENT;
}

/*
 * Read a record until it can be judged.  A vCPU's own record changes during the read only
 * if the vCPU leaves the guest meanwhile.  Give up on another vCPU's record that stays
 * half-written: its writer may be preempted.
 */
#define READ_RECORD(own, read)						\
({									\
	const bool _own = (own);					\
	int _tries = _own ? 1000 : 10;					\
	enum look _look;						\
									\
	do {								\
		_look = (read);						\
	} while ((_look == CHANGED || (_look == HALF && !_own)) && --_tries);	\
	_look;								\
})

/*
 * Judge a record
 */

static uint32_t place_seq(int place)
{
	uint32_t seq = READ_ONCE(stress.place[place].seq);

	barrier();
	return seq;
}

static bool place_undisturbed(int place, uint32_t seq)
{
	barrier();
	return !(seq & 1) && READ_ONCE(stress.place[place].seq) == seq;
}

/* Returns whether there is a record.  If there is none, check the reason. */
static bool check_look(struct vcpu_state *me, int place, enum look look, bool own, bool fresh)
{
	struct looks *looks = &me->looks[place];

	__GUEST_ASSERT(look != TORN, "place %d: torn, vCPU %d", place, me->id);

	switch (look) {
	case HALF:
	case CHANGED:
		__GUEST_ASSERT(!own, "place %d: own record not whole (%d), vCPU %d",
			       place, look, me->id);
		looks->busy++;
		return false;
	case ABSENT:
		__GUEST_ASSERT(!fresh, "place %d: no record of era %lu, vCPU %d",
			       place, me->era, me->id);
		looks->absent++;
		return false;
	default:
		looks->seen++;
		looks->fresh += fresh;
		return true;
	}
}

static void check_era(struct vcpu_state *me, int place, uint64_t era, uint64_t least)
{
	__GUEST_ASSERT(era >= me->last_era[place], "place %d: era %lu after %lu, vCPU %d",
		       place, era, me->last_era[place], me->id);
	__GUEST_ASSERT(era >= least, "place %d: era %lu, not %lu, vCPU %d",
		       place, era, least, me->id);
	me->last_era[place] = era;
}

static void check_clock(struct vcpu_state *me, int vcpu, enum kind kind)
{
	const size_t offset = kind == VCPU_INFO ? offsetof(struct xen_vcpu_info, time) : 0;
	const int place = PLACE(vcpu, kind);
	const bool own = vcpu == me->id;
	struct pvclock_vcpu_time_info clock = {};
	uint32_t seq = place_seq(place);
	enum look look;
	bool fresh;

	look = READ_RECORD(own, read_clock(stress.place[place].gva + offset, &clock));
	if (!place_undisturbed(place, seq)) {
		me->looks[place].disturbed++;
		return;
	}

	fresh = own && seq == me->seq[place];
	if (check_look(me, place, look, own, fresh))
		check_era(me, place, clock.system_time / GPC_ERA_NS, fresh ? me->era : 0);
}

static void check_times(struct vcpu_state *me, int vcpu, const struct xen_runstate *rs)
{
	struct xen_runstate *last = &me->last_runstate[vcpu];
	uint64_t sum = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(rs->times); i++) {
		sum += rs->times[i];
		__GUEST_ASSERT(rs->times[i] >= last->times[i] || stress.lax_times,
			       "vCPU %d: time in state %d is %lu after %lu, vCPU %d",
			       vcpu, i, rs->times[i], last->times[i], me->id);
	}
	__GUEST_ASSERT(sum == rs->entry_time, "vCPU %d: times add up to %lu, not %lu, vCPU %d",
		       vcpu, sum, rs->entry_time, me->id);
	__GUEST_ASSERT(rs->entry_time >= last->entry_time,
		       "vCPU %d: entry time %lu after %lu, vCPU %d",
		       vcpu, rs->entry_time, last->entry_time, me->id);
	*last = *rs;
}

static void check_runstate(struct vcpu_state *me, int vcpu)
{
	const int place = PLACE(vcpu, RUNSTATE);
	const bool own = vcpu == me->id;
	uint32_t fresh_seq = own ? me->seq[place] : READ_ONCE(stress.vcpu[vcpu].runstate_seq);
	uint32_t seq = place_seq(place);
	struct xen_runstate rs = {};
	enum look look;

	look = READ_RECORD(own, read_runstate(stress.place[place].gva, &rs));
	if (!place_undisturbed(place, seq) || seq != fresh_seq) {
		me->looks[place].disturbed++;
		return;
	}

	if (!check_look(me, place, look, own, true))
		return;
	check_times(me, vcpu, &rs);
	check_era(me, place, rs.entry_time / GPC_ERA_NS, own ? me->era : 0);
	if (own) {
		__GUEST_ASSERT(rs.state == RUNSTATE_RUNNING, "running vCPU %d is in state %u",
			       vcpu, rs.state);
		WRITE_ONCE(me->runstate_seq, seq);
	}
}

static void check_wall_clock(struct vcpu_state *me)
{
	uint32_t fresh_seq = READ_ONCE(stress.wall_seq);
	uint64_t fresh_era = READ_ONCE(stress.wall_era), era = 0;
	const int place = SHINFO_PLACE;
	uint32_t seq = place_seq(place);
	enum look look;
	bool fresh;

	look = READ_RECORD(false, read_wall_clock(stress.place[place].gva, &era));
	if (!place_undisturbed(place, seq)) {
		me->looks[place].disturbed++;
		return;
	}

	fresh = seq == fresh_seq;
	if (check_look(me, place, look, false, fresh))
		check_era(me, place, era, fresh ? fresh_era : 0);
}

/*
 * Events
 */

static uint64_t take(uint64_t *word)
{
	uint64_t val = 0;

	asm volatile("xchgq %0, %1" : "+r"(val), "+m"(*word) : : "memory");
	return val;
}

static void take_words(struct vcpu_state *me, struct xen_shared_info *shinfo, uint64_t sel)
{
	uint64_t bits;
	int word, i;

	for (word = 0; word < PORT_WORDS; word++) {
		int nr = PORT_WORD(me->id, word);

		if (!(sel & BIT_ULL(nr)))
			continue;
		bits = take(&shinfo->pending[nr]);
		for (i = 0; i < PORTS_PER_WORD; i++) {
			uint32_t *taken = &me->taken[word * PORTS_PER_WORD + i];

			if (bits & PORT_BIT(i))
				WRITE_ONCE(*taken, *taken + 1);
			bits &= ~PORT_BIT(i);
		}
		__GUEST_ASSERT(!bits, "word %d has 0x%lx, which nobody sent", nr, bits);
	}
}

/* Take the pending events, unless the VMM disturbs their places. */
static void take_events(struct vcpu_state *me)
{
	int vinfo_place = PLACE(me->id, VCPU_INFO);
	struct xen_vcpu_info *vinfo;
	uint32_t taking = 1;
	uint8_t upcall = 0;

	/* Also orders the accesses below after @taking. */
	asm volatile("xchgl %0, %1" : "+r"(taking), "+m"(me->taking) : : "memory");

	if (!(place_seq(vinfo_place) & 1) && !(place_seq(SHINFO_PLACE) & 1)) {
		vinfo = (void *)stress.place[vinfo_place].gva;

		/* Reverse of KVM's order, so that no event is left behind. */
		asm volatile("xchgb %0, %1"
			     : "+q"(upcall), "+m"(vinfo->upcall_pending) : : "memory");
		if (upcall)
			take_words(me, (void *)stress.place[SHINFO_PLACE].gva,
				   take(&vinfo->pending_sel));
	}

	barrier();
	WRITE_ONCE(me->taking, 0);
}

/*
 * Leave the upcall to take_events().  A pending upcall would be raised again at once, so
 * interrupts stay off until take_events() has run.
 */
void stress_upcall_handler(struct ex_regs *regs)
{
	regs->rflags &= ~RFLAGS_IF;
}

/*
 * One timer at a time, due at once or a little later by the guest's own clock.  KVM
 * raises its event in hard IRQ if possible.
 */
#define TIMER_LATE_ROUNDS	10000

static void check_timer(struct vcpu_state *me, uint64_t round)
{
	const int clock_place = PLACE(me->id, KVMCLOCK);
	uint32_t seq[] = { place_seq(PLACE(me->id, VCPU_INFO)), place_seq(SHINFO_PLACE) };
	uint32_t clock_seq = place_seq(clock_place);
	struct pvclock_vcpu_time_info clock;
	uint64_t now;

	if (me->taken[TIMER_PORT] == me->armed_taken &&
	    !(seq[0] & 1) && seq[0] == me->armed_seq[0] &&
	    !(seq[1] & 1) && seq[1] == me->armed_seq[1]) {
		__GUEST_ASSERT(round - me->armed_round < TIMER_LATE_ROUNDS,
			       "timer lost, vCPU %d", me->id);
		return;
	}

	if (read_clock(stress.place[clock_place].gva, &clock) != WHOLE)
		return;
	now = __pvclock_read_cycles(&clock, rdtsc());
	if (!place_undisturbed(clock_place, clock_seq))
		return;

	me->armed_seq[0] = seq[0];
	me->armed_seq[1] = seq[1];
	me->armed_taken = me->taken[TIMER_PORT];
	me->armed_round = round;
	me->timers++;
	xen_hypercall(HYPERVISOR_SET_TIMER_OP, now + round % 8 * 20000, NULL);
}

/* Make KVM check the bitmap, and perhaps wait for the timer's event. */
static void poll_timer(struct vcpu_state *me)
{
	uint32_t port = port_of(me->id, TIMER_PORT);
	struct {
		uint32_t *ports;
		uint32_t nr_ports;
		uint64_t ns;
	} poll = { &port, 1, 4000000 };

	xen_hypercall(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &poll);
}

void stress_guest(struct vcpu_state *me)
{
	uint64_t round;
	int i, vcpu;

	for (round = 0;; round++) {
		for (i = 0; i < NR_VCPUS; i++) {
			vcpu = (me->id + i) % NR_VCPUS;
			check_clock(me, vcpu, KVMCLOCK);
			check_clock(me, vcpu, TIME_INFO);
			check_clock(me, vcpu, VCPU_INFO);
			check_runstate(me, vcpu);
			take_events(me);
		}
		check_wall_clock(me);
		check_timer(me, round);
		if (round % 16 == 15)
			poll_timer(me);
		take_events(me);
		asm volatile("sti" : : : "memory");
		GUEST_SYNC(0);
	}
}
