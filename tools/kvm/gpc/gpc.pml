/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of the guest-page cache, for spin: virt/kvm/pfncache.c, gpc_invalidate.c,
 * gpc_lock.h and gpc_guest.c, which describe why the cache is safe.
 *
 * check-model.sh runs the model.  By hand:
 *
 *	spin -a gpc.pml
 *	gcc -O2 -w -DSAFETY pan.c -o pan
 *	NOTIFIERS=1 UPDATES=1 ./pan -m1000000
 *	NOTIFIERS=1 BREAK=3 ./pan -m1000000; NOTIFIERS=1 BREAK=3 ./pan -r
 *
 * and for progress of a use, or with -DPROGRESS=START of an invalidation:
 *
 *	spin -a -DPROGRESS=USE gpc.pml
 *	gcc -O2 -w -DNP -DNFAIR=3 pan.c -o pan
 *	NOTIFIERS=2 ./pan -l -f -m1000000
 *
 * "pan -r" replays the trail of an error, in the same environment.  The environment
 * selects what runs: see "Settings".
 *
 * There is one cache, and these processes:
 *
 *	vmm()			kvm_gpc_activate*() and kvm_gpc_deactivate(), in any order,
 *				active or not; at the end frees the cache
 *	user_lock()		kvm_gpc_lock() and kvm_gpc_unlock(), repeatedly
 *	user_trylock()		kvm_gpc_trylock() and kvm_gpc_unlock(), repeatedly
 *	vcpu()			vcpu_enter_guest(), with hardware that uses the page in guest
 *				mode; outside it, reads the page and halts
 *	notifier()		kvm_mmu_notifier_invalidate_range_start(), change of the
 *				page tables, kvm_mmu_notifier_invalidate_range_end(), of
 *				any page; two of them overlap in any way
 *	set_mem_attributes()	kvm_vm_set_mem_attributes(): a gfn becomes private, then
 *				shared, then private
 *	memslot_update()	kvm_swap_active_memslots(): the last gfn's memslot changes
 *				flags, moves, goes or comes
 *	mm_release()		kvm_mmu_notifier_release(), or kvm_destroy_vm(); once
 *
 * All but the last run for any number of rounds, and may stop after any of them.  For
 * spin, a process that waits forever is an invalid end state.
 *
 * An inline has the name of the C function that it models, a variable the name of the
 * field.  The abstractions:
 *
 * - A section of mn_invalidate_lock is one atomic step.  Where the section waits for
 *   uses, the step is divided, and other processes see that the lock is held.  A step
 *   that only its own process can see, or that only stops or resumes others, is joined
 *   with the step next to it.
 * - The lock's count is a byte, GPC_WRITER its sign bit.
 * - A use accesses guest memory only at its end: what is wrong before may still be wrong
 *   then.
 * - Page tables change at the last moment, in the step of the invalidation's end, and so
 *   do attributes.  Until then a lookup finds what is about to go.
 * - Memory is sequentially consistent.
 * - The VMM's memory is the pages 0 to @pages, and ELSEWHERE, where no cache ever is.  A
 *   page frame is identified by the page that it was looked up for, and by whether it
 *   still belongs there.  Each invalidation flips that, so the second one brings it back.
 * - gfn 0 is at page 0, gfn 1 at page 1.  The last gfn's memslot may be at the next page
 *   instead, or nowhere.
 * - The generation is compared with the current one only, so three values are enough.
 * - Each notifier has its own record.  Making room for the record may fail.
 * - A refresh that finds several records to wait for marks any of them.
 * - kvm->gpcs.wait has at most one waiter: the holder of refresh_lock.  A signal comes
 *   only when an invalidation of its pages never ends.  Otherwise the signal would hide a
 *   lost wake-up.
 * - hva_to_pfn() and kvm_gpc_map() may fail.  Each mapping has to be undone.
 * - A VMM that answers page faults (userfaultfd) answers none during an activation or a
 *   deactivation.
 * - Hardware accesses the page only at the end of guest mode, as a user does.  A vCPU may
 *   leave guest mode at any time, which answers all IPIs.
 *
 * With PROGRESS, memory that the cache depends on is invalidated a few times, other
 * memory is invalidated without end, memslots change only their flags, and nothing fails.
 * A process must reach its label "progress" again and again in each weakly fair run.  A
 * reader that gives up does so in one step: with two steps, readers that try without end
 * can keep a writer waiting forever.
 */

/* --- Rules, and how each is broken ------------------------------------------- */

/*
 * BREAK=number breaks one rule, and spin must find an error.  check-model.sh quotes the
 * rule from the code.
 */
#define BROKEN(variant)	(broken == variant)
#define when(variant, steps) \
	if :: BROKEN(variant) -> steps :: else fi
#define unless(variant, steps) \
	if :: BROKEN(variant) :: else -> steps fi
#define on(condition, steps) \
	if :: condition -> steps :: else fi

#define KEEPS_LOCK		1	/* gpc_close(): does not take the lock */
#define WRITE_ADDS_LATE		2	/* gpc_write_lock(): waits for readers, then adds */
#define WRITE_NO_WAIT		3	/* gpc_write_lock(): does not wait for readers */
#define WRITE_STORES		4	/* gpc_write_unlock(): stores 0, does not subtract */
#define READ_LOOKS_FIRST	5	/* gpc_read_trylock(): looks, and adds later */
#define READ_NO_UNDO		6	/* gpc_read_trylock(): gives up, does not undo */
#define USE_TAKES_LOCK		7	/* kvm_gpc_unlock(): takes mn_invalidate_lock */
#define NO_GENERATION		8	/* gpc_use_begin(): compares no generation */
#define NO_SRCU_WAIT		9	/* kvm_swap_active_memslots(): does not wait for srcu */
#define TREE_LATE		10	/* gpc_link(): after the lookup */
#define TREE_ONE_PAGE		11	/* gpc_link(): the first page only */
#define SET_IN_TREE		12	/* gpc_set_page(): leaves the cache in the tree */
#define BIND_SAME		13	/* gpc_bind(): keeps @same set */
#define BIND_FAIL_IN_TREE	14	/* gpc_bind(): fails, leaves the cache in the tree */
#define BEGIN_NO_CLOSE		15	/* gpc_begin(): binds while uses go on */
#define BEGIN_OLD		16	/* gpc_begin(): does not compare the generation */
#define BEGIN_UNBOUND		17	/* gpc_begin(): does not look at @nr_pages */
#define BEGIN_OPEN		18	/* gpc_begin(): looks up an open cache */
#define BEGIN_INACTIVE		19	/* gpc_begin(): looks up an inactive cache */
#define BEGIN_TWO_SECTIONS	20	/* gpc_begin(): sets LOOKUP in another section */
#define BEGIN_COPIES_MAP	21	/* gpc_begin(): leaves the map to the cache, too */
#define BEGIN_PRIVATE		22	/* gpc_begin(): does not look at attributes */
#define PRIVATE_FIRST_PAGE	23	/* gpc_is_private(): looks at the first page only */
#define SAME_CLOSED		24	/* gpc_begin(): opens a closed cache with its old map */
#define SAME_PRIVATE		25	/* gpc_begin(): same pages: ignores attributes */
#define WAIT_NOT		26	/* gpc_must_wait(): ignores records */
#define WAIT_ANY		27	/* gpc_must_wait(): for records of other pages, too */
#define WAIT_FIRST_PAGE		28	/* gpc_must_wait(): for records of the first page only */
#define WAIT_NO_COUNT		29	/* gpc_must_wait(): ignores what has no record */
#define WAIT_ANY_GFNS		30	/* gpc_must_wait(): for changes of other gfns, too */
#define MARK_NOT		31	/* gpc_must_wait(): does not mark the record */
#define MARK_LATE		32	/* gpc_must_wait(): marks in another section */
#define QUEUE_LATE		33	/* gpc_wait(): looks at records, then queues */
#define WAIT_UNKILLABLE		34	/* gpc_wait(): ignores signals */
#define MAP_OLD			35	/* gpc_map_pages(): uses the map for other page frames */
#define MAP_TWICE		36	/* gpc_map_pages(): does not undo the old map */
#define PUBLISH_ANYHOW		37	/* gpc_publish(): ignores the state */
#define PUBLISH_TWO_SECTIONS	38	/* gpc_publish(): opens in another section */
#define FAIL_KEEPS_MAP		39	/* gpc_fail(): does not undo the map */
#define NO_REFRESH_LOCK		40	/* gpc_refresh(): two at a time */
#define START_KEEPS_OPEN	41	/* gpc_invalidate(): does not close an open cache */
#define START_KEEPS_LOOKUP	42	/* gpc_invalidate(): does not stop a lookup */
#define START_CLOSES_ANY	43	/* gpc_invalidate(): closes caches of other pages, too */
#define START_NO_RECORD		44	/* __kvm_gpc_invalidate_start(): the record is wrong */
#define START_TWO_SECTIONS	45	/* __kvm_gpc_invalidate_start(): closes, records later */
#define END_TWO_SECTIONS	46	/* __kvm_gpc_invalidate_end(): reads the mark too early */
#define END_NO_WAKE		47	/* __kvm_gpc_invalidate_end(): ignores the mark */
#define END_UNRECORDED_NO_WAKE	48	/* __kvm_gpc_invalidate_end(): no record, no wake-up */
#define END_WAITS		49	/* __kvm_gpc_invalidate_end(): waits for a refresh */
#define END_IF_RECORDED		50	/* kvm_gpc_invalidate_end(): only if there are records */
#define END_IF_ACTIVE		51	/* kvm_gpc_invalidate_end(): only if a cache is active */
#define GFNS_KEEP_OPEN		52	/* kvm_gpc_invalidate_gfns_start(): closes no cache */
#define GFNS_NO_RECORD		53	/* kvm_gpc_invalidate_gfns_start(): sets no range */
#define GFNS_RECORD_LATE	54	/* kvm_gpc_invalidate_gfns_start(): closes, then sets it */
#define GFNS_NO_SLOTS_LOCK	55	/* kvm_vm_set_mem_attributes(): without slots_lock */
#define GFNS_NO_WAKE		56	/* kvm_gpc_invalidate_gfns_end(): wakes nobody */
#define GFNS_EMPTY_RANGE	57	/* kvm_gpc_invalidate_gfns_end(): keeps the start */
#define CLOSE_VM_NOT_SAID	58	/* kvm_gpc_close_vm(): lookups still begin */
#define CLOSE_VM_KEEPS_OPEN	59	/* kvm_gpc_close_vm(): closes no cache */
#define CLOSE_VM_NO_WAKE	60	/* kvm_gpc_close_vm(): wakes nobody */
#define ACTIVATE_NO_CLOSE	61	/* gpc_activate(): while uses go on */
#define ACTIVATE_IN_TREE	62	/* gpc_activate(): leaves the cache in the tree */
#define ACTIVATE_UNCOUNTED	63	/* gpc_activate(): does not raise nr_active */
#define ACTIVATE_WAITS		64	/* gpc_activate(): takes refresh_lock */
#define ACTIVATE_NO_WAKE	65	/* gpc_activate(): wakes nobody */
#define DEACTIVATE_NO_CLOSE	66	/* kvm_gpc_deactivate(): while uses go on */
#define DEACTIVATE_IN_TREE	67	/* kvm_gpc_deactivate(): leaves the cache in the tree */
#define DEACTIVATE_KEEPS_MAP	68	/* kvm_gpc_deactivate(): does not undo the map */
#define DEACTIVATE_WAITS	69	/* kvm_gpc_deactivate(): takes refresh_lock */
#define DEACTIVATE_NO_WAKE	70	/* kvm_gpc_deactivate(): wakes nobody */
#define GUEST_NO_REQUEST	71	/* gpc_invalidate(): makes no request */
#define GUEST_REQUEST_FIRST	72	/* gpc_invalidate(): makes the request, closes later */
#define GUEST_SKIPS_CLOSED	73	/* gpc_invalidate(): a closed cache is no hit */
#define GUEST_NO_WAIT		74	/* kvm_gpc_kick_vcpus(): does not wait */
#define GUEST_NO_RECHECK	75	/* vcpu_enter_guest(): reads no request before entry */
#define GUEST_CLEARS_LATE	76	/* vcpu_enter_guest(): looks up, clears the request */
#define GUEST_LOSES_REQUEST	77	/* kvm_get_guest_pages(): fails without a new request */
#define GUEST_NO_MEMSLOTS	78	/* kvm_gpc_memslots_updated(): makes no request */
#define GUEST_UNLINK_SILENT	79	/* gpc_unlink(): makes no request */
#define GUEST_SLOTS_NO_WAIT	80	/* kvm_gpc_memslots_updated(): does not wait */
#define GUEST_GFNS_NO_WAIT	81	/* kvm_vm_set_mem_attributes(): does not wait */
#define GUEST_SLEEPS_BLIND	82	/* nested_vmx_has_virtual_interrupt(): no KVM_REQ_UNBLOCK */

/* What must progress, or 0 for safety */
#define USE	1
#define START	2
#ifndef PROGRESS
#define PROGRESS	0
#endif

/* --- Settings ---------------------------------------------------------------- */

/* From the environment, named in capitals.  Never part of the state. */
hidden byte broken;		/* BREAK */
hidden byte pages;		/* that the cache may span: 1 or 2 */
hidden byte locks;		/* user_lock(): up to 2 */
hidden byte trylocks;		/* user_trylock(): 1 or none */
hidden byte guest;		/* vcpu(), instead of user_lock() and vmm()'s changes */
hidden byte notifiers;		/* notifier(): up to 2 */
hidden byte endless;		/* may an invalidation never end? */
hidden byte attributes;		/* set_mem_attributes() */
hidden byte updates;		/* memslot_update() */
hidden byte releases;		/* mm_release() */
hidden byte userfaults;		/* does vmm() answer the faults of lookups? */

c_code {
	static int setting(const char *name, int otherwise)
	{
		const char *value = getenv(name);

		return value ? atoi(value) : otherwise;
	}
}

/* --- The VM ------------------------------------------------------------------ */

#define ELSEWHERE	(pages + 1)
#define KVM_HVA_ERR_BAD	255

/* the errnos that matter */
#define EAGAIN	1
#define EFAULT	2			/* or any other failure */

/* The generation that a cache was bound by */
#define OLD		0	/* of other memslots */
#define FLUX		1	/* of these memslots, while their update was in progress */
#define CURRENT		2

bool mn_invalidate_lock;
bool slots_lock;
byte mn_active_invalidate_count;
byte gfn_to_hva[2];			/* a page, or KVM_HVA_ERR_BAD */
bool updating;				/* kvm_swap_active_memslots() waits for srcu */
bool mem_is_private[2];
byte srcu_readers;			/* a bit for each user */
byte srcu_awaited;			/* the readers that an update waits for */

typedef kvm_gpc_invalidation {
	bool listed;
	byte hva;
	bool waiter
};

typedef kvm_gpcs {
	kvm_gpc_invalidation inv[2];	/* by notifier() */
	byte nr_recorded;
	byte gfn_start;
	byte gfn_end;
	bool nr_active;
	bool closed;
	bool waiting			/* there is a waiter that was not woken */
};
kvm_gpcs gpcs;

/* --- The cache --------------------------------------------------------------- */

#define KVM_GPC_INACTIVE	0
#define KVM_GPC_CLOSED		1
#define KVM_GPC_LOOKUP		2
#define KVM_GPC_OPEN		3

#define GPC_WRITER		128

typedef kvm_gpc_map {
	bool type;			/* false: KVM_GPC_MAP_NONE */
	byte pfns[2]			/* unused ones are 0 */
};

typedef gfn_to_pfn_cache {
	byte count;			/* of the lock */
	byte state;
	byte nr_pages;
	bool gpa;			/* bound to gfn 0; otherwise to page 0 */
	byte length;			/* in pages */
	byte generation;
	kvm_gpc_map map;
	byte uhva[2];			/* of pages[] */
	bool refresh_lock
};
gfn_to_pfn_cache gpc;

typedef gpc_lookup {
	byte nr_pages;
	byte uhvas[2];
	byte pfns[2];
	kvm_gpc_map map
};
gpc_lookup lookup[2];			/* by user_lock() */

/* --- The vCPU, with guest use ------------------------------------------------- */

bool request;				/* KVM_REQ_GUEST_PAGES is pending */
bool in_guest_mode;			/* vcpu->mode */
byte vmcs;				/* the page frame that hardware uses, or 0 */
byte awaited;				/* a bit for each waiter */

#define MEMSLOTS	4		/* kvm_gpc_memslots_updated(), in @awaited */
#define ATTRIBUTES	8		/* kvm_vm_set_mem_attributes() */

/* --- What must hold ---------------------------------------------------------- */

bool is_mapped;				/* a mapping exists */
byte users_left;			/* that may still refresh */
bool vmm_is_busy;			/* in an activation or a deactivation */
bool gfn_is_taken[2];			/* kvm_gpc_invalidate_gfns_start() has returned */
bool mm_is_gone;			/* kvm_mmu_notifier_release() has returned */

/* The page frame in the page tables.  Bit 0 is set in previous page frames. */
#define page_frame(hva)	(2 * (hva) + 2)

#define page_is_there(i) \
	(gpc.nr_pages <= (i) || gpc.map.pfns[i] == page_frame(gpc.uhva[i]))
#define page_is_shared(i) \
	(!gpc.gpa || gpc.nr_pages <= (i) || !(gfn_is_taken[i] || mem_is_private[i]))
#define page_is_right(i) \
	(gpc.nr_pages <= (i) || gpc.uhva[i] == (gpc.gpa -> gfn_to_hva[i] : 0))

/* A user reads or writes the pages. */
inline access()
{
	assert(gpc.nr_pages == gpc.length);
	assert(gpc.map.type && is_mapped);
	assert(page_is_there(0) && page_is_there(1));
	assert(page_is_shared(0) && page_is_shared(1));
	assert(!gpc.gpa || gpc.generation != OLD || updating);
	assert(gpc.state != KVM_GPC_INACTIVE);
	assert(!mm_is_gone)
}

/* Hardware reads or writes the page. */
inline access_by_hardware()
{
	assert(vmcs % 2 == 0);			/* still in the VM */
	assert(!mem_is_private[0] && !gfn_is_taken[0]);
	assert(slots_lock || vmcs == page_frame(gfn_to_hva[0]))
}

/* --- Locks and steps --------------------------------------------------------- */

#define spin_lock(lock)		!lock -> lock = true
#define spin_unlock(lock)	lock = false
#define wake_up_all()		gpcs.waiting = false

/* Divides a step in a variant.  init runs in between. */
bool divided;

inline other_step()
{
	divided = true;			/* BROKEN() */
	!divided			/* BROKEN() */
}

inline other_section()
{
	mn_invalidate_lock = false;	/* BROKEN() */
	other_step();			/* BROKEN() */
	!mn_invalidate_lock ->		/* BROKEN() */
	mn_invalidate_lock = true	/* BROKEN() */
}

/* --- gpc_lock.h -------------------------------------------------------------- */

inline gpc_write_lock()
{
	assert(gpc.count < GPC_WRITER);
	(!BROKEN(WRITE_ADDS_LATE) || gpc.count == 0);
	gpc.count = gpc.count + GPC_WRITER;
	(BROKEN(WRITE_NO_WAIT) || gpc.count == GPC_WRITER)
}

inline gpc_write_unlock()
{
	assert(gpc.count >= GPC_WRITER);
	gpc.count = (BROKEN(WRITE_STORES) -> 0 : gpc.count - GPC_WRITER)
}

/* Sets @khva. */
inline gpc_read_trylock()
{
	when(READ_LOOKS_FIRST, khva = gpc.count < GPC_WRITER; other_step());
	gpc.count++;
	assert(gpc.count % GPC_WRITER <= locks + trylocks + guest);
	khva = khva || (gpc.count > 0 && gpc.count < GPC_WRITER)
}

#define gpc_read_unlock()	gpc.count--; khva = false

/* The end of a gpc_read_trylock() that fails. */
#define read_undo() \
	gpc.count = gpc.count - !(PROGRESS || BROKEN(READ_NO_UNDO))

/* --- gpc_invalidate.c -------------------------------------------------------- */

#define is_in_tree(hva) \
	((!BROKEN(TREE_LATE) || gpc.state == KVM_GPC_OPEN) && \
	 ((gpc.nr_pages > 0 && gpc.uhva[0] == (hva)) || \
	  (gpc.nr_pages > 1 && gpc.uhva[1] == (hva) && !BROKEN(TREE_ONE_PAGE))))

#define gpc_unlink() \
	request = request || (guest && gpc.nr_pages && !BROKEN(GUEST_UNLINK_SILENT)); \
	gpc.nr_pages = 0

inline gpc_close()
{
	on(gpc.state == KVM_GPC_OPEN && !BROKEN(KEEPS_LOCK), gpc_write_lock());
	gpc.state = KVM_GPC_CLOSED
}

/* Sets @hit if there is a vCPU to wait for. */
inline gpc_invalidate(hva)
{
	if
	:: (is_in_tree(hva) || (BROKEN(START_CLOSES_ANY) && gpc.nr_pages != 0)) &&
	   !(BROKEN(START_KEEPS_OPEN) && gpc.state == KVM_GPC_OPEN) &&
	   !(BROKEN(START_KEEPS_LOOKUP) && gpc.state == KVM_GPC_LOOKUP) ->
		hit = guest && !(BROKEN(GUEST_SKIPS_CLOSED) && gpc.state == KVM_GPC_CLOSED);
		when(GUEST_REQUEST_FIRST, request = true; other_section());
		gpc_close();
		request = request || (hit && !(BROKEN(GUEST_NO_REQUEST) || BROKEN(GUEST_REQUEST_FIRST)))
	:: else
	fi
}

/* --- kvm_main.c: kvm_gpc_kick_vcpus() ------------------------------------ */

#define is_requested()	(request || BROKEN(GUEST_NO_REQUEST))

inline kick(who, variant)
{
	awaited = awaited | (is_requested() && in_guest_mode && !BROKEN(variant) -> who : 0);
	hit = false
}

#define kick_is_answered(who)	((awaited & (who)) == 0)

/*
 * Includes the increment of mn_active_invalidate_count.  The C code records first.  In
 * one section the order does not matter.
 */
inline kvm_gpc_invalidate_start(me, start)
{
	spin_lock(mn_invalidate_lock);
	if
	:: gpcs.nr_active ->
		gpc_invalidate(start);
		when(START_TWO_SECTIONS, other_section());
		if
		:: true ->
			gpcs.inv[me].listed = true;
			gpcs.inv[me].hva = (BROKEN(START_NO_RECORD) -> ELSEWHERE : start);
			gpcs.nr_recorded++
		:: !PROGRESS			/* gpc_records_grow() failed */
		fi
	:: else
	fi;
	mn_active_invalidate_count++;
	spin_unlock(mn_invalidate_lock)
}

#define record_put(i) \
	gpcs.inv[i].listed = false; gpcs.inv[i].hva = 0; gpcs.inv[i].waiter = false

#define end_is_due() \
	((gpcs.nr_active && !BROKEN(END_IF_RECORDED)) || \
	 (gpcs.nr_recorded != 0 && !BROKEN(END_IF_ACTIVE)))

/* Includes the decrement of mn_active_invalidate_count. */
inline kvm_gpc_invalidate_end(me)
{
	wake = gpcs.inv[me].waiter && !BROKEN(END_NO_WAKE);
	when(END_TWO_SECTIONS, other_section());
	mn_active_invalidate_count--;
	if
	:: end_is_due() && gpcs.inv[me].listed ->
		record_put(me);
		gpcs.nr_recorded--
	:: end_is_due() && !gpcs.inv[me].listed ->
		wake = !BROKEN(END_UNRECORDED_NO_WAKE)
	:: else
	fi;
	on(wake, wake_up_all());
	wake = false;
	assert(gpcs.nr_recorded <= mn_active_invalidate_count)
}

#define overlaps(i) \
	(gpcs.inv[i].listed && !BROKEN(WAIT_NOT) && \
	 (gpcs.inv[i].hva == gpc.uhva[0] || BROKEN(WAIT_ANY) || \
	  (gpcs.inv[i].hva == gpc.uhva[1] && gpc.nr_pages == 2 && !BROKEN(WAIT_FIRST_PAGE))))

#define is_unrecorded() \
	(mn_active_invalidate_count != gpcs.nr_recorded && !BROKEN(WAIT_NO_COUNT))

#define overlaps_gfns() \
	(gpc.gpa && (BROKEN(WAIT_ANY_GFNS) -> gpcs.gfn_start != gpcs.gfn_end : \
		     gpcs.gfn_start < gpc.nr_pages && 0 < gpcs.gfn_end))

inline mark(record)
{
	when(MARK_LATE, other_section());
	record.waiter = !BROKEN(MARK_NOT)
}

/* Sets @ret. */
inline gpc_must_wait()
{
	if
	:: is_unrecorded() ->
		ret = EAGAIN
	:: !is_unrecorded() && overlaps(0) ->
		mark(gpcs.inv[0]);
		ret = EAGAIN
	:: !is_unrecorded() && overlaps(1) ->
		mark(gpcs.inv[1]);
		ret = EAGAIN
	:: !is_unrecorded() && !overlaps(0) && !overlaps(1) && overlaps_gfns() ->
		ret = EAGAIN
	:: else
	fi
}

/* --- Changes of memory attributes -------------------------------------------- */

proctype set_mem_attributes()
{
	byte gfn;
	bool found;
	bool hit;

	do
	::	atomic {
			!slots_lock || BROKEN(GFNS_NO_SLOTS_LOCK) ->
			slots_lock = !BROKEN(GFNS_NO_SLOTS_LOCK);
			if
			:: PROGRESS -> gfn = ELSEWHERE
			:: !PROGRESS
			:: !PROGRESS && pages == 2 -> gfn = 1
			fi;
			/* kvm_gpc_invalidate_gfns_start() */
			spin_lock(mn_invalidate_lock);
			gpcs.gfn_start = gfn;
			gpcs.gfn_end = gfn + !(BROKEN(GFNS_NO_RECORD) || BROKEN(GFNS_RECORD_LATE));
			spin_unlock(mn_invalidate_lock);
			found = gpcs.nr_active && gfn < pages && gfn_to_hva[gfn] != KVM_HVA_ERR_BAD
		}
		atomic {
			if
			:: found && !BROKEN(GFNS_KEEP_OPEN) ->
				spin_lock(mn_invalidate_lock);
				gpc_invalidate(gfn_to_hva[gfn]);
				spin_unlock(mn_invalidate_lock)
			:: else
			fi;
			when(GFNS_RECORD_LATE, other_step(); gpcs.gfn_end = gfn + 1);
			found = false;
			on(gfn < pages && !hit, gfn_is_taken[gfn] = true)
		}
		do
		::	atomic { hit -> kick(ATTRIBUTES, GUEST_GFNS_NO_WAIT) }
			atomic { kick_is_answered(ATTRIBUTES) -> gfn_is_taken[gfn] = true }
		::	atomic {
				!hit ->
				/* kvm_gpc_invalidate_gfns_end() */
				spin_lock(mn_invalidate_lock);
				if
				:: gfn < pages ->
					mem_is_private[gfn] = !mem_is_private[gfn];
					gfn_is_taken[gfn] = false
				:: else
				fi;
				gfn = 0;
				gpcs.gfn_start = (BROKEN(GFNS_EMPTY_RANGE) -> gpcs.gfn_start : 0);
				gpcs.gfn_end = gpcs.gfn_start;
				spin_unlock(mn_invalidate_lock);
				unless(GFNS_NO_WAKE, wake_up_all());
				slots_lock = false;
				break
			}
		od
	:: !PROGRESS -> break
	od
}

/* --- The MMU notifier -------------------------------------------------------- */

#define turn(pfn)	pfn = ((pfn) >> 1 == hva + 1 -> (pfn) ^ 1 : pfn)

/* From now on the page has another page frame, or a previous one again. */
inline change_page_tables()
{
	d_step {
		turn(gpc.map.pfns[0]);
		turn(gpc.map.pfns[1]);
		turn(lookup[0].pfns[0]);
		turn(lookup[0].pfns[1]);
		turn(lookup[0].map.pfns[0]);
		turn(lookup[0].map.pfns[1]);
		turn(lookup[1].pfns[0]);
		turn(lookup[1].pfns[1]);
		turn(lookup[1].map.pfns[0]);
		turn(lookup[1].map.pfns[1]);
		turn(vmcs);
		hva = 0
	}
}

bool never_ends;			/* an invalidation never ends */

proctype notifier(byte me)
{
	byte hva;
	bool wake;
	bool hit;
	byte rounds;

	do
	::	atomic {
			if
			:: PROGRESS != USE		/* page 0 */
			:: !PROGRESS -> hva = 1
			:: !PROGRESS && pages == 2 -> hva = 2
			:: !PROGRESS -> break
			:: PROGRESS == USE && me == 0 && rounds < 2 -> rounds++
			:: PROGRESS == USE && me == 0 && rounds == 2 -> break
			:: PROGRESS == USE && me == 1 -> hva = ELSEWHERE
			fi;
			kvm_gpc_invalidate_start(me, hva)
		}
#if PROGRESS == START
progress:
#endif
		do
		::	atomic { hit -> kick(1 << me, GUEST_NO_WAIT) }
			atomic { kick_is_answered(1 << me) }
		::	atomic {
				!hit && !(BROKEN(END_WAITS) && gpc.refresh_lock) ->
				spin_lock(mn_invalidate_lock);
				change_page_tables();
				kvm_gpc_invalidate_end(me);
				spin_unlock(mn_invalidate_lock);
				break
			}
		::	atomic {
				!hit && endless -> never_ends = true;
				hva = 0;
				goto ended
			}
		od
	od;
ended:	skip
}

/* kvm_gpc_close_vm() */
proctype mm_release()
{
	if
	::	atomic {
			spin_lock(mn_invalidate_lock);
			gpcs.closed = !BROKEN(CLOSE_VM_NOT_SAID);
			on(gpc.nr_pages != 0 && !BROKEN(CLOSE_VM_KEEPS_OPEN), gpc_close());
			record_put(0);
			record_put(1);
			gpcs.nr_recorded = 0;
			mm_is_gone = true;
			spin_unlock(mn_invalidate_lock);
			unless(CLOSE_VM_NO_WAKE, wake_up_all())
		}
	::	skip
	fi
}

/* --- Memslots ---------------------------------------------------------------- */

proctype memslot_update()
{
	byte rounds;

	do
	::	atomic {
			!slots_lock && !mn_invalidate_lock &&
			mn_active_invalidate_count == 0 && rounds < 2 ->
			slots_lock = true;
			updating = true;
			if
			:: rounds = rounds + PROGRESS	/* its flags change */
			:: !PROGRESS -> gfn_to_hva[pages - 1] = pages - 1
			:: !PROGRESS -> gfn_to_hva[pages - 1] = pages
			:: !PROGRESS -> gfn_to_hva[pages - 1] = KVM_HVA_ERR_BAD
			fi;
			gpc.generation = OLD;
			srcu_awaited = srcu_readers
		}
		atomic {
			srcu_awaited == 0 || BROKEN(NO_SRCU_WAIT) ->
			srcu_awaited = 0;
			gpc.generation = (gpc.generation == CURRENT -> FLUX : gpc.generation);
			updating = false;
			slots_lock = guest;
			/* kvm_gpc_memslots_updated() */
			request = request || (guest && !BROKEN(GUEST_NO_MEMSLOTS));
			if
			:: guest && in_guest_mode && !BROKEN(GUEST_SLOTS_NO_WAIT) ->
				awaited = awaited | MEMSLOTS
			:: else
			fi
		}
		if
		:: guest -> atomic { kick_is_answered(MEMSLOTS) -> slots_lock = false }
		:: !guest
		fi
	:: !PROGRESS || rounds == 2 -> break
	od
}

#define srcu_read_lock() \
	srcu_readers = srcu_readers | (1 << me)
#define srcu_read_unlock() \
	srcu_readers = srcu_readers & ~(1 << me); srcu_awaited = srcu_awaited & ~(1 << me)

/* --- pfncache.c: binding ----------------------------------------------------- */

#define gpc_is_current() (!gpc.gpa || gpc.generation == CURRENT)

inline gpc_set_page(i, hva)
{
	if
	:: gpc.uhva[i] != hva ->
		unless(SET_IN_TREE, gpc_unlink());
		gpc.uhva[i] = hva
	:: else
	fi
}

/* Clears @mapped, which the caller uses for @same. */
inline gpc_bind()
{
	if
	:: gpc.gpa ->
		gpc.generation = CURRENT;
		if
		:: gfn_to_hva[gpc.length - 1] == KVM_HVA_ERR_BAD ->
			unless(BIND_FAIL_IN_TREE, gpc_unlink());
			ret = EFAULT
		:: else ->
			gpc_set_page(0, gfn_to_hva[0]);
			on(gpc.length == 2, gpc_set_page(1, gfn_to_hva[1]))
		fi
	:: else ->
		gpc_set_page(0, 0)
	fi;
	if
	:: ret == 0 && gpc.nr_pages == 0 ->
		gpc.nr_pages = gpc.length;
		mapped = mapped && BROKEN(BIND_SAME)
	:: else
	fi
}

#define gpc_is_private() \
	(gpc.gpa && \
	 (mem_is_private[0] || \
	  (gpc.nr_pages == 2 && mem_is_private[1] && !BROKEN(PRIVATE_FIRST_PAGE))))

/* --- pfncache.c: refresh ----------------------------------------------------- */

#define map_forget(m) \
	m.type = false; m.pfns[0] = 0; m.pfns[1] = 0
#define map_move(to, from) \
	to.type = from.type; to.pfns[0] = from.pfns[0]; to.pfns[1] = from.pfns[1]
#define kvm_gpc_unmap(m) \
	assert(!m.type || is_mapped); is_mapped = is_mapped && !m.type; map_forget(m)

#define gpc_open()	gpc.state = KVM_GPC_OPEN; gpc_write_unlock()

#define needs_binding() \
	((gpc.nr_pages == 0 && !BROKEN(BEGIN_UNBOUND)) || \
	 (!gpc_is_current() && !BROKEN(BEGIN_OLD)))

inline begin_closed()
{
	gpc_must_wait();
	if
	:: ret == 0 && gpc_is_private() && !BROKEN(BEGIN_PRIVATE) &&
	   !(mapped && BROKEN(SAME_PRIVATE)) ->
		ret = EFAULT
	:: else
	fi;
	if
	:: ret == 0 && mapped && !BROKEN(BEGIN_OPEN) ->
		gpc_open()
	:: ret == 0 && (!mapped || BROKEN(BEGIN_OPEN)) ->
		when(BEGIN_TWO_SECTIONS, other_section());
		gpc.state = KVM_GPC_LOOKUP;
		lookup[me].nr_pages = gpc.nr_pages;
		lookup[me].uhvas[0] = gpc.uhva[0];
		lookup[me].uhvas[1] = (gpc.nr_pages == 2 -> gpc.uhva[1] : 0);
		if
		:: gpc.map.type ->
			map_move(lookup[me].map, gpc.map);
			unless(BEGIN_COPIES_MAP, map_forget(gpc.map))
		:: else
		fi
	:: else
	fi
}

inline gpc_begin()
{
	spin_lock(mn_invalidate_lock);
	ret = 0;
	mapped = (BROKEN(SAME_CLOSED) -> gpc.map.type : gpc.state == KVM_GPC_OPEN);
	if
	:: gpcs.closed || (gpc.state == KVM_GPC_INACTIVE && !BROKEN(BEGIN_INACTIVE)) ->
		ret = EFAULT			/* -EIO, -EINVAL */
	:: else ->
		if
		:: needs_binding() ->
			unless(BEGIN_NO_CLOSE, gpc_close());
			gpc_bind()
		:: else
		fi;
		on(ret == 0 && (gpc.state != KVM_GPC_OPEN || BROKEN(BEGIN_OPEN)), begin_closed())
	fi;
	mapped = false;
	spin_unlock(mn_invalidate_lock)
}

/* Is anything in progress that a refresh has to wait for? */
#define must_wait() \
	(gpc.nr_pages != 0 && !gpcs.closed && \
	 (is_unrecorded() || overlaps(0) || overlaps(1) || overlaps_gfns()))

/* Begins a refresh, or keeps waiting. */
inline begin_or_queue()
{
	gpcs.waiting = !BROKEN(QUEUE_LATE);
	gpc_begin();
	on(BROKEN(QUEUE_LATE) && ret == EAGAIN, other_step(); gpcs.waiting = true);
	gpcs.waiting = gpcs.waiting && ret == EAGAIN
}

#define lookup_map_serves() \
	(lookup[me].map.type && \
	 ((lookup[me].map.pfns[0] == lookup[me].pfns[0] && \
	   lookup[me].map.pfns[1] == lookup[me].pfns[1]) || BROKEN(MAP_OLD)))

/* Undoes a mapping of other page frames, and maps. */
inline gpc_map_pages()
{
	if
	:: ret == 0 && !lookup_map_serves() ->
		unless(MAP_TWICE, kvm_gpc_unmap(lookup[me].map));
		assert(!is_mapped);
		is_mapped = true;
		lookup[me].map.type = true;
		lookup[me].map.pfns[0] = lookup[me].pfns[0];
		lookup[me].map.pfns[1] = lookup[me].pfns[1]
	:: else
	fi;
	lookup[me].pfns[0] = 0;
	lookup[me].pfns[1] = 0
}

inline gpc_publish()
{
	spin_lock(mn_invalidate_lock);
	if
	:: gpc.state == KVM_GPC_LOOKUP || BROKEN(PUBLISH_ANYHOW) ->
		when(PUBLISH_TWO_SECTIONS, other_section());
		assert(!mm_is_gone);
		map_move(gpc.map, lookup[me].map);
		map_forget(lookup[me].map);
		gpc_open()
	:: else ->
		ret = EAGAIN
	fi;
	spin_unlock(mn_invalidate_lock)
}

inline lookup_page(i)
{
	!(userfaults && vmm_is_busy);
	if
	:: lookup[me].pfns[i] = page_frame(lookup[me].uhvas[i])
	:: !PROGRESS -> ret = EFAULT
	fi
}

/* The map belongs to the refresh, so mapping is part of the step of the last lookup. */
inline gpc_look_up()
{
	if
	:: lookup[me].nr_pages == 2 ->
		atomic { lookup_page(0) }
		atomic {
			on(ret == 0, lookup_page(1));
			gpc_map_pages()
		}
	:: else ->
		atomic {
			lookup_page(0);
			gpc_map_pages()
		}
	fi;
	on(ret == 0, atomic { gpc_publish() })
}

inline gpc_fail()
{
	unless(FAIL_KEEPS_MAP, kvm_gpc_unmap(lookup[me].map));
	!mn_invalidate_lock ->
	gpc.state = (gpc.state == KVM_GPC_LOOKUP -> KVM_GPC_CLOSED : gpc.state)
}

inline gpc_refresh()
{
	atomic {
		read_undo();
		!gpc.refresh_lock || BROKEN(NO_REFRESH_LOCK);
		gpc.refresh_lock = true;
		ret = EAGAIN
	}
	do
	:: ret == EAGAIN ->			/* begins, or begins again */
		atomic {
			if
			:: !gpcs.waiting -> begin_or_queue()
			:: gpcs.waiting && never_ends && must_wait() && !BROKEN(WAIT_UNKILLABLE) ->
				gpcs.waiting = false;
				ret = EFAULT		/* -EINTR */
			fi
		}
	:: ret == 0 && lookup[me].nr_pages != 0 ->
		gpc_look_up();
		lookup[me].nr_pages = 0
	:: else -> break
	od;
	atomic {
		on(ret != 0, gpc_fail());
		lookup[me].uhvas[0] = 0;
		lookup[me].uhvas[1] = 0;
		assert(gpc.state != KVM_GPC_LOOKUP);
		assert(!lookup[me].map.type);
		gpc.refresh_lock = false
	}
}

/* --- pfncache.c: use --------------------------------------------------------- */

/* Sets @khva.  Nobody can see a use that ends at once. */
inline gpc_use_begin()
{
	gpc_read_trylock();
	khva = khva && (gpc_is_current() || BROKEN(NO_GENERATION));
	assert(!khva || !gpc_is_current() || (page_is_right(0) && page_is_right(1)));
	gpc.count = gpc.count - (PROGRESS && !khva)
}

/* The last access of a use, and its end. */
inline kvm_gpc_unlock()
{
	access();
	when(USE_TAKES_LOCK, !mn_invalidate_lock);
	gpc_read_unlock()
}

proctype user_lock(byte me)
{
	byte ret;
	bool khva;
	bool mapped;

	!PROGRESS || gpc.state != KVM_GPC_INACTIVE;
	do
	::	atomic {
			srcu_read_lock();
			gpc_use_begin()
		}
		do
		:: khva || ret != 0 -> break
		:: else ->
			gpc_refresh();
			atomic { on(ret == 0, gpc_use_begin()) }
		od;
#if PROGRESS == USE
		if
		:: khva ->
progress:		skip
		:: else
		fi;
#endif
		atomic {
			on(khva, kvm_gpc_unlock());
			ret = 0;
			srcu_read_unlock()
		}
	:: !PROGRESS -> break
	od;
	users_left--
}

proctype user_trylock(byte me)
{
	bool khva;

	do
	::	atomic {
			srcu_read_lock();
			gpc_use_begin()
		}
		atomic {
			if
			:: khva -> kvm_gpc_unlock()
			:: else -> read_undo()	/* -EAGAIN */
			fi;
			srcu_read_unlock()
		}
	:: !PROGRESS -> break
	od;
	users_left--
}

/* --- gpc_guest.c ------------------------------------------------------------------ */

/* kvm_gpc_guest_address().  A failed lookup makes the request again. */
inline hand_over()
{
	if
	:: khva ->
		access();
		vmcs = gpc.map.pfns[0];
		gpc_read_unlock()
	:: else ->
		request = request || !BROKEN(GUEST_LOSES_REQUEST)
	fi;
	request = request && !BROKEN(GUEST_CLEARS_LATE);
	ret = 0
}

/* nested_vmx_take_posted_interrupts(): hardware keeps its page.  May fail. */
inline read_only()
{
	on(khva, access(); gpc_read_unlock());
	reads = false;
	ret = 0
}

/*
 * nested_vmx_has_virtual_interrupt(): about to sleep.  A vCPU that has not read the page
 * does not know what it waits for, so nothing wakes it.
 */
inline evaluate_events()
{
	if
	:: khva ->
		access();
		gpc_read_unlock()
	:: else ->
		read_undo();
		request = true;
		!BROKEN(GUEST_SLEEPS_BLIND)
	fi
}

#define leave_guest_mode()	in_guest_mode = false; awaited = 0

proctype vcpu(byte me)
{
	byte ret;
	bool khva;
	bool mapped;
	bool reads;

	do
	::	atomic {
			if
			:: request || vmcs == 0 -> request = request && BROKEN(GUEST_CLEARS_LATE)
			:: vmcs != 0 -> reads = true
			fi;
			srcu_read_lock();
			gpc_use_begin()
		}
		do
		:: khva || ret != 0 -> break
		:: else ->
			gpc_refresh();
			atomic { on(ret == 0, gpc_use_begin()) }
		od;
		atomic {
			if
			:: reads -> read_only()
			:: else -> hand_over()
			fi;
			srcu_read_unlock()
		}
	::	atomic {
			vmcs != 0 ->
			srcu_read_lock();
			gpc_use_begin();
			evaluate_events();
			srcu_read_unlock()
		}
	:: !request && vmcs != 0 ->
		in_guest_mode = true;
		if
		:: request && !BROKEN(GUEST_NO_RECHECK) ->
			atomic { leave_guest_mode() }
		:: !request || BROKEN(GUEST_NO_RECHECK) ->
			atomic {
				access_by_hardware();
				leave_guest_mode()
			}
		fi
	:: break
	od;
	atomic {
		vmcs = 0;
		users_left--
	}
}

/* --- pfncache.c: life -------------------------------------------------------- */

/* State that no process reads any more gets one value, to save states. */
#define forget() \
	gpc.generation = OLD; gpc.uhva[0] = ELSEWHERE; gpc.uhva[1] = ELSEWHERE

inline gpc_activate(gpa_arg, length_arg)
{
	atomic {
		vmm_is_busy = true;
		!(BROKEN(ACTIVATE_WAITS) && gpc.refresh_lock);
		spin_lock(mn_invalidate_lock);
		gpcs.nr_active = !BROKEN(ACTIVATE_UNCOUNTED);
		on(!BROKEN(ACTIVATE_NO_CLOSE) || gpc.state == KVM_GPC_INACTIVE, gpc_close());
		unless(ACTIVATE_IN_TREE, gpc_unlink(); forget());
		gpc.gpa = gpa_arg;
		gpc.length = length_arg;
		spin_unlock(mn_invalidate_lock);
		unless(ACTIVATE_NO_WAKE, wake_up_all());
		vmm_is_busy = false
	}
}

inline kvm_gpc_deactivate()
{
	vmm_is_busy = true;
	!(BROKEN(DEACTIVATE_WAITS) && gpc.refresh_lock);
	spin_lock(mn_invalidate_lock);
	if
	:: gpc.state != KVM_GPC_INACTIVE ->
		unless(DEACTIVATE_NO_CLOSE, gpc_close());
		unless(DEACTIVATE_IN_TREE, gpc_unlink(); forget());
		gpc.state = KVM_GPC_INACTIVE;
		gpcs.nr_active = false;
		gpc.gpa = false;
		gpc.length = 0
	:: else
	fi;
	spin_unlock(mn_invalidate_lock);
	unless(DEACTIVATE_NO_WAKE, wake_up_all());
	unless(DEACTIVATE_KEEPS_MAP, kvm_gpc_unmap(gpc.map));
	vmm_is_busy = false;
	assert(gpc.nr_pages == 0 && (!is_mapped || gpc.refresh_lock))
}

proctype vmm()
{
	do
	:: gpc.state == KVM_GPC_INACTIVE || !(PROGRESS || guest) -> gpc_activate(true, pages)
	:: pages == 2 && !(PROGRESS || guest) -> gpc_activate(true, 1)
	:: !(PROGRESS || guest) -> gpc_activate(false, 1)
	:: atomic { !(PROGRESS || guest) -> kvm_gpc_deactivate() }
	:: gpc.state != KVM_GPC_INACTIVE || !(PROGRESS || guest) -> break
	od;
	/* The owner ensures that no refresh is in progress and none begins. */
	atomic {
		users_left == 0;
		kvm_gpc_deactivate();
		assert(gpc.count == GPC_WRITER && !gpc.refresh_lock);
		assert(!is_mapped && gpc.nr_pages == 0 && !gpcs.waiting)
	}
}

init
{
	atomic {
		c_code {
			broken = setting("BREAK", 0);
			pages = setting("PAGES", 1);
			locks = setting("LOCKS", 1);
			trylocks = setting("TRYLOCKS", 0);
			guest = setting("GUEST", 0);
			notifiers = setting("NOTIFIERS", 0);
			endless = setting("ENDLESS", 0);
			attributes = setting("ATTRIBUTES", 0);
			updates = setting("UPDATES", 0);
			releases = setting("RELEASES", 0);
			userfaults = setting("USERFAULTS", 0);
		};
		gpc.count = GPC_WRITER;
		gfn_to_hva[pages - 1] = pages - 1;
		users_left = locks + trylocks + guest;
		forget();
		if :: notifiers > 0 -> run notifier(0) :: else fi;
		if :: notifiers > 1 -> run notifier(1) :: else fi;
		if :: attributes -> run set_mem_attributes() :: else fi;
		if :: updates -> run memslot_update() :: else fi;
		if :: releases -> run mm_release() :: else fi;
		if :: locks > 0 -> run user_lock(0) :: else fi;
		if :: locks > 1 -> run user_lock(1) :: else fi;
		if :: trylocks -> run user_trylock(2) :: else fi;
		if :: guest -> run vcpu(0) :: else fi;
		run vmm()
	}
end:	do
	:: atomic { divided -> divided = false }
	od
}
