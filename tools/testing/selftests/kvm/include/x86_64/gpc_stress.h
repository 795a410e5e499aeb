/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stress test of the guest page cache: what the guest may see, and what it shares
 * with the VMM.
 *
 * KVM writes five kinds of records.  Each record has a place of its own: two pages of
 * guest memory, of which the record takes a few bytes.  VMM threads change the places in
 * every way that a VMM can.  What the guest may see depends on the change:
 *
 * - The VMM only changes what backs a place, which the guest cannot see (migration, copy
 *   on write, swap, ...).  The place counts as undisturbed.
 * - The VMM disturbs the place: a record goes away with its page, KVM cannot write for a
 *   while, or the address has no memory.  The place's @seq is odd from before the first
 *   such system call until after the last.  Meanwhile the guest may see anything,
 *   including half a record and half nothing (an exit for MMIO that the VMM answers with
 *   zeros).  Afterwards the record is present, or is absent, i.e. all zeros, until KVM
 *   next writes it.
 *
 * The guest reads @seq before and after a record.  It judges the record only if @seq was
 * even and did not change.  Then, by the protocol of the record:
 *
 * - The record is whole.  A vCPU never sees its own record half-written, because KVM
 *   writes the record while the vCPU does not run.
 * - The record is not older than what this vCPU saw before, whatever happened to the
 *   place in between: a page that comes into a place holds no part of a record.
 * - The record is fresh if the place was undisturbed since before KVM was obliged to
 *   write it.  The obligation is KVM_SET_CLOCK: before each run of a vCPU, the VMM notes
 *   the @seq of all places, sets the clock to the beginning of a new era (see gpc.h), and
 *   runs the vCPU.  All clocks and the run state must be of that era, or of a later one,
 *   which another vCPU's thread may have begun by then.
 *
 * A run state may lie across two pages.  When one of them has been replaced, half a
 * record is present until KVM writes all of it.  The guest judges the record only when
 * the vCPU that owns it must have seen it fresh.
 *
 * An event must arrive if the places of both the bitmap and the vCPU's info were
 * undisturbed from before it was sent until the guest has taken it.  It must arrive at
 * the latest in the first round of the guest that begins after it was sent.  Otherwise
 * the VMM sends it again.  No event is taken more often than it was sent.
 *
 * The guest writes, too: it takes events with XCHG.  If the memory went away at that
 * moment, KVM would emulate the XCHG: a read that the VMM answers, then a write, perhaps
 * to memory that is back and holds a new event.  Such a loss is the VMM's fault, not the
 * cache's.  So the guest sets @taking while it takes events, and avoids a place whose
 * @seq is odd.  The VMM makes @seq odd and then waits until the guest is done.
 */
#ifndef SELFTEST_KVM_GPC_STRESS_H
#define SELFTEST_KVM_GPC_STRESS_H

#include "gpc.h"

#define NR_VCPUS	2

/* Content of a place.  All but the shared info exist once for each vCPU. */
enum kind {
	KVMCLOCK,	/* struct pvclock_vcpu_time_info, by MSR */
	TIME_INFO,	/* the same, for Xen */
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
	uint32_t pad;
	uint64_t entry_time;
	uint64_t times[4];
} __packed;	/* may be unaligned */

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
 * Ports: each vCPU has three words of the bitmap.  The first two hold the ports that the
 * VMM sends.  The third holds the timer's port, and a port that the VMM raises but does
 * not check.  All these bits, and those that stand for the words, are clear in poison, so
 * an event shows in a poisoned page.
 */
#define PORT_WORDS		3
#define PORTS_PER_WORD		4
#define NR_PORTS		(2 * PORTS_PER_WORD)

#define CLEAR_IN_POISON(i)	(8 * (i) + 1)
#define PORT_WORD(vcpu, word)	CLEAR_IN_POISON((vcpu) * PORT_WORDS + (word))
#define PORT_BIT(i)		BIT_ULL(CLEAR_IN_POISON(i))

/* The ports after those that the VMM sends. */
#define TIMER_PORT		NR_PORTS
#define NOISE_PORT		(NR_PORTS + 1)

static inline uint32_t port_of(int vcpu, int i)
{
	return PORT_WORD(vcpu, i / PORTS_PER_WORD) * 64 + CLEAR_IN_POISON(i % PORTS_PER_WORD);
}

/* Results of reading a record. */
struct looks {
	uint64_t seen;
	uint64_t fresh;		/* of these: had to be fresh, and was */
	uint64_t absent;
	uint64_t busy;		/* another vCPU's, mid-write on each read */
	uint64_t disturbed;
};

struct vcpu_state {
	int id;

	/* Written by the VMM before it runs the vCPU. */
	uint64_t era;
	uint32_t seq[NR_PLACES];	/* from before that era */

	/* Written by the guest. */
	uint32_t taking;
	uint32_t runstate_seq;		/* @seq when it saw its run state fresh */
	uint32_t taken[PORT_WORDS * PORTS_PER_WORD];
	struct looks looks[NR_PLACES];

	/* What it last saw of each record. */
	uint64_t last_era[NR_PLACES];
	struct xen_runstate last_runstate[NR_VCPUS];

	/* The timer that was last armed. */
	uint32_t armed_seq[2];		/* of both places that its event needs */
	uint32_t armed_taken;
	uint64_t armed_round;
	uint32_t timers;
};

extern struct stress {
	struct {
		uint32_t seq;
		uint64_t gva;	/* of the record; stable while @seq is even */
	} place[NR_PLACES];

	/* The wall clock is of this era if its place is undisturbed since @wall_seq. */
	uint64_t wall_era;
	uint32_t wall_seq;
	uint64_t wall_base;	/* time of day in s, just before the test */

	bool lax_times;		/* times of a run state may go backwards */

	struct vcpu_state vcpu[NR_VCPUS];
} stress;

/* A vCPU's code, and its handler of UPCALL_VECTOR. */
void stress_guest(struct vcpu_state *me);
void stress_upcall_handler(struct ex_regs *regs);

#endif /* SELFTEST_KVM_GPC_STRESS_H */
