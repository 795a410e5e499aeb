/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stress test of the guest page cache: what the guest and the VMM share, and
 * what the guest checks.
 *
 * KVM writes five kinds of records, each in a place of its own: two pages of guest
 * memory of which the record takes a few bytes.  VMM threads do to the places
 * whatever a VMM can do.  What the guest may see depends on that:
 *
 * - The VMM only changes what backs a place, and nothing of it can be seen
 *   (migration, copy on write, swap, ...).  Then the place counts as undisturbed.
 * - The VMM disturbs it: a record goes with its page, KVM cannot write for a while,
 *   or the address is without memory.  The place's @seq is odd from before the first
 *   system call that does so until after the last.  In that time the guest may see
 *   anything, half a record and half nothing (an exit for MMIO that the VMM answers
 *   with zeros) included.  Afterwards the record is there, or is absent, which is
 *   all zeros, until KVM next writes it.
 *
 * So the guest reads @seq before and after a record and judges only if it was even
 * and stayed so.  Then, by the protocol of the record:
 *
 * - It is whole.  A vCPU's own record is never even seen half-written by that vCPU,
 *   since KVM writes it while the vCPU does not run.
 * - It is not older than what this vCPU saw of it before, whatever happened to the
 *   place in between: pages come into a place with nothing of a record in them.
 * - It is fresh, if the place was undisturbed from before KVM was obliged to write
 *   it.  The obligation is KVM_SET_CLOCK: every time before a vCPU runs, the VMM
 *   notes the @seq of all places, then sets the clock to the beginning of a new
 *   era (see gpc.h), then runs it.  All clocks and the run state must tell of that
 *   era, or of a later one, which another vCPU's thread may have begun by then.
 *
 * An event must arrive if the places of both the bitmap and the vCPU's info were
 * undisturbed from before it was sent until the guest has taken it, exactly once,
 * and is never taken more often than it was sent.
 *
 * The guest writes, too: it takes events off with XCHG.  If the memory went just
 * then, KVM would emulate that: a read that the VMM answers, then a write, perhaps
 * to memory that is back and holds a new event.  That is the VMM's doing, and must
 * not be blamed on the cache.  So the guest says when it takes events, @taking, and
 * keeps away from a place whose @seq is odd; and the VMM, having made it odd, waits
 * for the guest to be done.
 */
#ifndef SELFTEST_KVM_GPC_STRESS_H
#define SELFTEST_KVM_GPC_STRESS_H

#include "gpc.h"

#define NR_VCPUS	2

/* What a place holds; all but the shared info once for each vCPU. */
enum kind {
	KVMCLOCK,	/* struct pvclock_vcpu_time_info, by MSR */
	TIME_INFO,	/* the same, Xen's */
	VCPU_INFO,	/* struct vcpu_info */
	RUNSTATE,	/* struct vcpu_runstate_info */
	NR_VCPU_KINDS,
	SHARED_INFO = NR_VCPU_KINDS,
};

#define PLACE(vcpu, kind)	((vcpu) * NR_VCPU_KINDS + (kind))
#define SHINFO_PLACE		PLACE(NR_VCPUS, 0)
#define NR_PLACES		(SHINFO_PLACE + 1)

/* Xen's records, 64-bit ABI: public/xen.h, public/vcpu.h, public/arch-x86/xen.h. */
struct xen_vcpu_info {
	uint8_t upcall_pending;
	uint8_t upcall_mask;
	uint64_t pending_sel;
	uint64_t arch[2];
	struct pvclock_vcpu_time_info time;
};

struct xen_runstate {
	uint32_t state;
	uint64_t entry_time;
	uint64_t times[4];
};

#define RUNSTATE_RUNNING	0
#define RUNSTATE_UPDATE		BIT_ULL(63)

struct xen_shared_info {
	struct xen_vcpu_info vcpu_info[32];
	uint64_t pending[64];
	uint64_t mask[64];
	struct {
		uint32_t version;
		uint32_t sec;
		uint32_t nsec;
		uint32_t sec_hi;
	} wc;
};

#define HYPERVISOR_SET_TIMER_OP	15
#define HYPERVISOR_SCHED_OP	29
#define SCHEDOP_POLL		3

#define UPCALL_VECTOR		0x20
#define RFLAGS_IF		BIT_ULL(9)

/*
 * Ports: each vCPU has three words of the bitmap.  In the first two are those that
 * the VMM sends, in the third its timer's, and one that the VMM raises when it does
 * not care.  All bits, and those that stand for the words, are clear in poison: in a
 * page that is poisoned, an event shows.
 */
#define PORT_WORDS		3
#define PORTS_PER_WORD		4
#define NR_PORTS		(2 * PORTS_PER_WORD)

#define CLEAR_IN_POISON(i)	(8 * (i) + 1)
#define PORT_WORD(vcpu, word)	CLEAR_IN_POISON((vcpu) * PORT_WORDS + (word))
#define PORT_BIT(i)		BIT_ULL(CLEAR_IN_POISON(i))
#define PORT(vcpu, word, i)	(PORT_WORD(vcpu, word) * 64 + CLEAR_IN_POISON(i))

#define SENT_PORT(vcpu, i)	PORT(vcpu, (i) / PORTS_PER_WORD, (i) % PORTS_PER_WORD)
#define TIMER			NR_PORTS	/* in &vcpu_state.taken */
#define TIMER_PORT(vcpu)	PORT(vcpu, 2, 0)
#define NOISE_PORT(vcpu)	PORT(vcpu, 2, 1)

/* How a look at a record ended. */
struct looks {
	uint64_t fresh;		/* had to be up to date, and was */
	uint64_t seen;
	uint64_t absent;
	uint64_t busy;		/* another vCPU's, being written each time */
	uint64_t disturbed;
};

struct vcpu_state {
	int id;

	/* Written by the VMM before it runs the vCPU. */
	uint64_t era;
	uint32_t seq[NR_PLACES];	/* from before that era */

	/* Written by the guest. */
	uint32_t taking;
	uint32_t runstate_seq;		/* with which it saw its run state up to date */
	uint64_t last_era[NR_PLACES];
	uint64_t last_times[NR_PLACES][4];
	uint64_t last_entry[NR_PLACES];
	struct looks looks[NR_PLACES];
	uint32_t taken[PORT_WORDS * PORTS_PER_WORD];
	uint32_t timers_armed;
	uint32_t armed_seq[2];		/* of both places when it was armed last */
	uint64_t armed_round;
	uint32_t armed_taken;
};

static struct stress {
	struct {
		uint32_t seq;
		uint64_t gva;	/* of the record; stays while @seq is even */
	} place[NR_PLACES];

	/* The wall clock is of this era, if its place is undisturbed since @wall_seq. */
	uint64_t wall_era;
	uint32_t wall_seq;
	uint64_t wall_base;	/* the time of day, in s, just before the test */

	bool lax_times;		/* the times of a run state may go back */

	struct vcpu_state vcpu[NR_VCPUS];
} stress;

/*
 * Guest: records
 */

enum look { WHOLE, ABSENT, BUSY };

static enum look read_clock(uint64_t gva, struct pvclock_vcpu_time_info *copy)
{
	volatile struct pvclock_vcpu_time_info *clock = (void *)gva;
	uint32_t version = clock->version;

	if (version & 1)
		return BUSY;
	copy->version = version;
	copy->tsc_timestamp = clock->tsc_timestamp;
	copy->system_time = clock->system_time;
	copy->tsc_to_system_mul = clock->tsc_to_system_mul;
	copy->tsc_shift = clock->tsc_shift;
	if (clock->version != version)
		return BUSY;
	return version ? WHOLE : ABSENT;
}

/*
 * The entry time lies at any address, so it isn't read at once.  Its last byte has
 * the bit that says that the record is being written: read that after the rest.
 */
static enum look read_runstate(uint64_t gva, struct xen_runstate *copy)
{
	volatile struct xen_runstate *rs = (void *)gva;
	uint64_t entry_time = rs->entry_time;
	int i;

	if (((volatile uint8_t *)&rs->entry_time)[7] & (RUNSTATE_UPDATE >> 56))
		return BUSY;
	copy->entry_time = entry_time;
	copy->state = rs->state;
	for (i = 0; i < ARRAY_SIZE(copy->times); i++)
		copy->times[i] = rs->times[i];
	if (rs->entry_time != entry_time)
		return BUSY;
	return entry_time ? WHOLE : ABSENT;
}

/* The era is that of the time of day at which the guest's clock was zero. */
static enum look read_wall_clock(uint64_t gva, uint64_t *era)
{
	volatile struct xen_shared_info *shinfo = (void *)gva;
	uint32_t version = shinfo->wc.version;
	uint64_t sec;

	if (version & 1)
		return BUSY;
	sec = shinfo->wc.sec | (uint64_t)shinfo->wc.sec_hi << 32;
	if (shinfo->wc.version != version)
		return BUSY;
	*era = (stress.wall_base - sec + GPC_ERA_NS / NSEC_PER_SEC - 1) /
	       (GPC_ERA_NS / NSEC_PER_SEC);
	return version ? WHOLE : ABSENT;
}

/*
 * Guest: checks
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

/* Is there more to say about a record than that it could not be judged? */
static bool check_look(struct vcpu_state *me, int place, enum look look, bool fresh)
{
	if (look == BUSY) {
		me->looks[place].busy++;
		return false;
	}
	if (look == ABSENT) {
		__GUEST_ASSERT(!fresh, "place %d: no record of era %lu, vCPU %d",
			       place, me->era, me->id);
		me->looks[place].absent++;
		return false;
	}
	me->looks[place].seen++;
	me->looks[place].fresh += fresh;
	return true;
}

static void check_era(struct vcpu_state *me, int place, uint64_t era, uint64_t atleast)
{
	__GUEST_ASSERT(era >= me->last_era[place], "place %d: era %lu after %lu, vCPU %d",
		       place, era, me->last_era[place], me->id);
	__GUEST_ASSERT(era >= atleast, "place %d: era %lu, not %lu, vCPU %d",
		       place, era, atleast, me->id);
	me->last_era[place] = era;
}

/*
 * How often a vCPU looks at a record that is being written.  Its own is so when the
 * vCPU has left the guest in between; of another's, the writer may be preempted.
 */
#define TRIES(own)	((own) ? 1000 : 10)

static void check_clock(struct vcpu_state *me, int place, size_t offset, bool own)
{
	struct pvclock_vcpu_time_info a = {}, b = {};
	uint32_t seq = place_seq(place);
	uint64_t gva = stress.place[place].gva + offset;
	bool fresh, odd = false;
	enum look look = BUSY;
	int i;

	for (i = 0; i < TRIES(own); i++) {
		odd |= READ_ONCE(*(uint32_t *)gva) & 1;
		look = read_clock(gva, &a);
		if (look == BUSY)
			continue;
		look = read_clock(gva, &b);
		if (look != BUSY)
			break;
	}

	fresh = own && seq == me->seq[place];
	if (!place_undisturbed(place, seq)) {
		me->looks[place].disturbed++;
		return;
	}

	__GUEST_ASSERT(!own || !odd, "place %d: own clock half-written, vCPU %d",
		       place, me->id);
	__GUEST_ASSERT(!own || look != BUSY, "place %d: own clock never whole, vCPU %d",
		       place, me->id);
	if (!check_look(me, place, look, fresh))
		return;

	__GUEST_ASSERT(a.version != b.version ||
		       (a.tsc_timestamp == b.tsc_timestamp && a.system_time == b.system_time &&
			a.tsc_to_system_mul == b.tsc_to_system_mul && a.tsc_shift == b.tsc_shift),
		       "place %d: two clocks of version %u: %lu, %lu", place, a.version,
		       (uint64_t)a.system_time, (uint64_t)b.system_time);
	check_era(me, place, b.system_time / GPC_ERA_NS, fresh ? me->era : 0);
}

/*
 * It may lie across two pages.  When one has been replaced, half a record is there
 * until KVM writes it anew: only after that there is anything to judge.
 */
static void check_runstate(struct vcpu_state *me, int vcpu)
{
	const int place = PLACE(vcpu, RUNSTATE);
	const bool own = vcpu == me->id;
	struct vcpu_state *owner = &stress.vcpu[vcpu];
	uint32_t written_seq = own ? me->seq[place] : READ_ONCE(owner->runstate_seq);
	uint32_t seq = place_seq(place);
	uint64_t gva = stress.place[place].gva, sum = 0;
	uint64_t *last = me->last_times[place];
	struct xen_runstate rs = {};
	enum look look = BUSY;
	bool odd = false;
	int i;

	for (i = 0; i < TRIES(own); i++) {
		odd |= READ_ONCE(*(uint8_t *)(gva + offsetof(struct xen_runstate, times) - 1)) >> 7;
		look = read_runstate(gva, &rs);
		if (look != BUSY)
			break;
	}

	if (!place_undisturbed(place, seq) || seq != written_seq) {
		me->looks[place].disturbed++;
		return;
	}

	__GUEST_ASSERT(!own || !odd, "place %d: own run state half-written, vCPU %d",
		       place, me->id);
	__GUEST_ASSERT(!own || look != BUSY, "place %d: own run state never whole, vCPU %d",
		       place, me->id);
	if (!check_look(me, place, look, true))
		return;

	for (i = 0; i < ARRAY_SIZE(rs.times); i++)
		sum += rs.times[i];
	__GUEST_ASSERT(sum == rs.entry_time, "place %d: times add up to %lu, not %lu, vCPU %d",
		       place, sum, rs.entry_time, me->id);
	__GUEST_ASSERT(rs.entry_time >= me->last_entry[place],
		       "place %d: entry time %lu after %lu, vCPU %d",
		       place, rs.entry_time, me->last_entry[place], me->id);
	me->last_entry[place] = rs.entry_time;
	for (i = 0; i < ARRAY_SIZE(rs.times); i++) {
		__GUEST_ASSERT(rs.times[i] >= last[i] || stress.lax_times,
			       "place %d: time in state %d is %lu after %lu, vCPU %d",
			       place, i, rs.times[i], last[i], me->id);
		last[i] = rs.times[i];
	}
	check_era(me, place, rs.entry_time / GPC_ERA_NS, own ? me->era : 0);
	if (own) {
		__GUEST_ASSERT(rs.state == RUNSTATE_RUNNING,
			       "place %d: running vCPU %d is in state %u", place, vcpu, rs.state);
		WRITE_ONCE(me->runstate_seq, seq);
	}
}

static void check_wall_clock(struct vcpu_state *me)
{
	const int place = SHINFO_PLACE;
	uint32_t wall_seq = READ_ONCE(stress.wall_seq);
	uint64_t wall_era = READ_ONCE(stress.wall_era), era = 0;
	uint32_t seq = place_seq(place);
	uint64_t gva = stress.place[place].gva;
	enum look look = BUSY;
	bool fresh;
	int i;

	for (i = 0; i < TRIES(false); i++) {
		look = read_wall_clock(gva, &era);
		if (look != BUSY)
			break;
	}

	if (!place_undisturbed(place, seq)) {
		me->looks[place].disturbed++;
		return;
	}
	fresh = seq == wall_seq;
	if (check_look(me, place, look, fresh))
		check_era(me, place, era, fresh ? wall_era : 0);
}

/*
 * Guest: events
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

/* What is pending, unless the VMM has its hands on it. */
static void take_events(struct vcpu_state *me)
{
	int vinfo_place = PLACE(me->id, VCPU_INFO);
	struct xen_vcpu_info *vinfo;
	uint32_t taking = 1;
	uint8_t upcall = 0;

	/* Also keeps what follows behind it. */
	asm volatile("xchgl %0, %1" : "+r"(taking), "+m"(me->taking) : : "memory");

	if (!(place_seq(vinfo_place) & 1) && !(place_seq(SHINFO_PLACE) & 1)) {
		vinfo = (void *)stress.place[vinfo_place].gva;

		/* In the opposite order of KVM's, so that none is left behind. */
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
 * The upcall is left for take_events().  It would be raised again at once, as long
 * as it is pending, so interrupts stay off until that has been called.
 */
static void upcall_handler(struct ex_regs *regs)
{
	regs->rflags &= ~RFLAGS_IF;
}

/*
 * One timer at a time, due at once or a little later, by the guest's own clock.
 * KVM raises its event in hard IRQ if it can.
 */
#define TIMER_LATE_ROUNDS	10000

static void check_timer(struct vcpu_state *me, uint64_t round)
{
	const int clock_place = PLACE(me->id, KVMCLOCK);
	uint32_t seq[] = { place_seq(PLACE(me->id, VCPU_INFO)), place_seq(SHINFO_PLACE) };
	uint32_t clock_seq = place_seq(clock_place);
	struct pvclock_vcpu_time_info clock;
	uint64_t now;

	if (me->taken[TIMER] == me->armed_taken &&
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
	me->armed_taken = me->taken[TIMER];
	me->armed_round = round;
	me->timers_armed++;
	xen_hypercall(HYPERVISOR_SET_TIMER_OP, now + round % 8 * 20000, NULL);
}

/* Have KVM look at the bitmap, and perhaps wait for the timer's event. */
static void poll_timer(struct vcpu_state *me)
{
	uint32_t port = TIMER_PORT(me->id);
	struct {
		uint32_t *ports;
		uint32_t nr_ports;
		uint64_t ns;
	} poll = { &port, 1, 4000000 };

	xen_hypercall(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &poll);
}

static void stress_guest(struct vcpu_state *me)
{
	uint64_t round;
	int i, v;

	for (round = 0;; round++) {
		for (i = 0; i < NR_VCPUS; i++) {
			v = (me->id + i) % NR_VCPUS;
			check_clock(me, PLACE(v, KVMCLOCK), 0, !i);
			check_clock(me, PLACE(v, TIME_INFO), 0, !i);
			check_clock(me, PLACE(v, VCPU_INFO),
				    offsetof(struct xen_vcpu_info, time), !i);
			check_runstate(me, v);
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

#endif /* SELFTEST_KVM_GPC_STRESS_H */
