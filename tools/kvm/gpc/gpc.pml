/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of the guest-page cache's protocol, for spin: virt/kvm/pfncache.c, where
 * the comment at the top says why it should hold.
 *
 * check-model.sh runs it.  By hand:
 *
 *	spin -a -DNOTIFIERS=1 gpc.pml
 *	gcc -O2 -DSAFETY -DCOLLAPSE pan.c -o pan && ./pan -m1000000
 *
 *	spin -a -DPROGRESS -DNOTIFIERS=2 gpc.pml
 *	gcc -O2 -DNP -DNFAIR=3 -DCOLLAPSE pan.c -o pan && ./pan -l -f -m1000000
 *
 * "spin -t -p -g gpc.pml", with the same -D, then replays the trail of an error.
 * With "-i" instead of a large "-m", pan looks for a short one.
 *
 * There is one cache, and as many of these as the macros below say:
 *
 *	proctype vmm()		kvm_gpc_activate(), kvm_gpc_activate_span(),
 *				kvm_gpc_activate_hva() on an active cache or not, and
 *				kvm_gpc_deactivate(), in any order
 *	proctype user_lock()	kvm_gpc_lock() and kvm_gpc_unlock(), again and again
 *	proctype user_trylock()	kvm_gpc_trylock() and kvm_gpc_unlock(), likewise
 *	proctype notifier()	kvm_mmu_notifier_invalidate_range_start(), change of the
 *				page tables, kvm_mmu_notifier_invalidate_range_end(), of
 *				any page; if there are two, they nest and overlap
 *	proctype set_mem_attributes()
 *				kvm_vm_set_mem_attributes(): a gfn becomes private,
 *				shared, private, ...
 *	proctype gmem_punch_hole()
 *				kvm_gmem_punch_hole(), of all gfns or of the last
 *	proctype memslot_update()
 *				kvm_swap_active_memslots(): the last gfn's memslot changes
 *				its flags, becomes invalid, is there again or elsewhere
 *	proctype mm_release()	kvm_mmu_notifier_release(), or kvm_destroy_vm(); once,
 *				or never
 *
 * All but the last two go on for any number of rounds and may stop after any, so that
 * whoever waits in vain is seen: spin calls that an invalid end state.
 *
 * An inline has the name of the C function that it stands for, and a variable that
 * of the field.  What is abstracted:
 *
 * - A section of mn_invalidate_lock is one atomic step, for nobody looks at what it
 *   protects without it (a variant that does has two steps).  If it must wait inside,
 *   as closing does for uses, the step is divided there and the lock is seen to be
 *   held.  A step that only the process itself can see belongs to the one before or
 *   behind it, and so does one that only lets others go on, or only stops them.
 * - @users is a byte, and its sign bit 128.
 * - The beginning of a use is one step: nobody can see that a use that finds another
 *   generation was counted, but closing, which waits for its end.  A use reads guest
 *   memory at its end; what is wrong before is wrong then.
 * - Memory is sequentially consistent: that opening is a release and closing an
 *   acquire is not seen here, nor that preemption is disabled in a use, nor what only
 *   saves work, as that start does nothing when no cache is active.
 * - The user's address space is the pages 0 to PAGES, and ELSEWHERE, where no cache
 *   ever is.  A page frame is known by the page that it was looked up for and by
 *   whether that still has it, which each invalidation turns: after two a page frame
 *   is where it was.  Length is counted in pages, and offset left out.
 * - gfn 0 is at hva 0, gfn 1 at hva 1; what is invalid, or moved to the next hva, is
 *   the memslot of the last.  A deleted memslot is an invalid one.  The generation
 *   changes once in an update, not twice; the second change would only cause one
 *   refresh more.  kvm_gpc_activate_hva() is to hva 0.
 * - A change of attributes finds no cache by a memslot that an update has made invalid.
 *   In truth it does, but pfncache.c relies on slots_lock, and so it is tried alone.
 *   gmem_punch_hole(), which takes no slots_lock, finds it.  That nobody uses the page
 *   of a gfn that has been punched is more than pfncache.c needs.
 * - mn_memslots_update_rcuwait is a plain wait: it is not the cache's.
 * - The lists of records are arrays with one for each who leaves any; an allocation
 *   fails at will.  Which of several overlapping records a refresh finds is left open.
 * - kvm->gpcs.wait has one waiter at most, the holder of refresh_lock.  Only when an
 *   end never comes is a waiter killed, or it would hide that nobody wakes it.
 * - hva_to_pfn() and kvm_gpc_map() may fail.  All mappings are of the kind that has to
 *   be undone.  Deactivation undoes one in the step in which it takes it.
 * - With USERFAULTS the VMM answers the faults of hva_to_pfn(), but none while it is
 *   in kvm_gpc_deactivate().
 * - The mm is the current one, or with STRANGERS never the last user_lock()'s.
 *
 * With -DPROGRESS memslots change flags only, notifier(1) and set_mem_attributes() never stop to change memory
 * elsewhere, notifier(0) stops after NR_OVERLAPPING rounds, and user_lock() never
 * stops: in any weakly fair run it must reach its label "progress" again and again.
 * With -DPROGRESS_START as well notifier(0) never stops, and it is its own label
 * that must be reached, however many uses begin.  Allocations don't fail there: a
 * refresh waits for all invalidations without a record, and if there never were a
 * record to be had it would do so for ever.
 *
 * Each -DBREAK_... breaks one rule; the comment beside it says in which function of
 * pfncache.c, or around it, and how.  Spin must reject it.  check-model.sh quotes the
 * rule, and sees that the words and the function's name are still there.
 */

/* --- What runs ------------------------------------------------------------- */

#ifndef VMMS
#define VMMS		1		/* up to 2 */
#endif
#ifndef DEACTIVATES
#define DEACTIVATES	1		/* may vmm() deactivate? */
#endif
#ifndef LOCKS
#define LOCKS		1		/* user_lock(); up to 2 */
#endif
#ifndef TRYLOCKS
#define TRYLOCKS	0
#endif
#ifndef NOTIFIERS
#define NOTIFIERS	0		/* up to 2 */
#endif
#ifndef CHANGES
#define CHANGES		0		/* set_mem_attributes() */
#endif
#ifndef HOLES
#define HOLES		0		/* gmem_punch_hole(); up to 2 */
#endif
#ifndef RELEASES
#define RELEASES	0
#endif
#ifndef UPDATES
#define UPDATES		0		/* in how many rounds */
#endif
#ifndef PAGES
#define PAGES		1		/* that the cache may span; up to 2 */
#endif
#ifndef HVA
#define HVA		0		/* kvm_gpc_activate_hva() */
#endif
#ifndef USERFAULTS
#define USERFAULTS	0		/* does vmm() answer the faults of lookups? */
#endif
#ifndef STRANGERS
#define STRANGERS	0		/* has user_lock() another mm than the VM? */
#endif

#define KVM_GPC_MAX_PAGES	2
#define ELSEWHERE		(PAGES + 1)
#define NR_OVERLAPPING		2

/* errno, as far as anybody cares which */
#define EAGAIN		1
#define EFAILED		2
#define EINVAL		3
#define GPC_IS_OPEN	4
#define NOT_BOUND	5		/* false of gpc_begin() */

/* --- struct kvm and struct kvm_gpcs ---------------------------------------- */

bool mn_invalidate_lock;
bool slots_lock;
byte mn_active_invalidate_count;
byte memslots_generation;
byte memslots_hva[KVM_GPC_MAX_PAGES];
bool memslot_invalid;			/* of the last gfn */
bool mem_is_private[KVM_GPC_MAX_PAGES];
bit srcu_idx;
byte srcu_readers[2];

typedef gpc_invalidation {
	bool listed;			/* recorded */
	byte hva;			/* start and last */
	bool waiter
};

typedef kvm_gpc_gfn_invalidation {
	byte nr;
	byte start;
	byte end;
	bool waiter
};

typedef kvm_gpcs {
	byte in_tree;			/* nodes that are in the tree */
	gpc_invalidation inv[2];	/* one for each notifier() */
	kvm_gpc_gfn_invalidation gfn_inv[2];	/* attributes, guest_memfd */
	byte nr_recorded;
	byte nr_active;
	bool drain_waiter;
	bool closed;
	bool waiting			/* on the queue, and not woken */
};
kvm_gpcs gpcs;

/* --- struct gfn_to_pfn_cache ----------------------------------------------- */

#define GPC_CLOSED		128
#define KVM_GPC_MAP_NONE	false
#define KVM_GPC_MAP_VMAP	true

typedef kvm_gpc_map {
	bool type;			/* and base */
	byte pfns[KVM_GPC_MAX_PAGES]
};

#define gpc_is_mapped()		(gpc.map.type != KVM_GPC_MAP_NONE)

typedef gfn_to_pfn_cache {
	byte users;
	bool is_active;			/* "active" is a word of Promela's */
	bool missed;
	bool refreshing;
	bool gpa;			/* bound to gfn 0, not to hva 0 */
	byte length;			/* of the activation: "len" is another word */
	byte generation;
	kvm_gpc_map map;		/* and khva */
	byte uhva[KVM_GPC_MAX_PAGES];	/* of pages[] */
	byte nr_pages;
	bool refresh_lock
};
gfn_to_pfn_cache gpc;

/* --- The world around ------------------------------------------------------ */

/* The user page's page frame, while page tables have it.  They turn bit 0. */
#define page_frame(hva)	(2 * (hva) + 2)

/* What refreshes have looked up */
kvm_gpc_map new[VMMS + LOCKS];

bool mapped;				/* kvm_gpc_map(), and not undone */
bool endless;				/* an end may not come */
bool deactivating;			/* the VMM is in kvm_gpc_deactivate() */

/* Who has been told that KVM will not touch a page any more? */
bool gfn_taken[KVM_GPC_MAX_PAGES];	/* for a change of attributes */
bool gfn_punched[KVM_GPC_MAX_PAGES];	/* out of guest_memfd */
byte memslots_freed;			/* up to this generation */
bool deactivated = true;
bool mm_gone;

#define page_is_there(i) \
	(gpc.nr_pages <= (i) || gpc.map.pfns[i] == page_frame(gpc.uhva[i]))
#define gfn_is_shared(i) \
	(!gpc.gpa || gpc.nr_pages <= (i) || \
	 !(gfn_taken[i] || gfn_punched[i] || mem_is_private[i]))
#define is_bound_right(i) \
	(gpc.nr_pages <= (i) || gpc.uhva[i] == (gpc.gpa -> gfn_to_hva_memslot(i) : 0))

/* A user reads or writes the pages. */
inline access()
{
	assert(khva && mapped);
	assert(page_is_there(0) && page_is_there(1));
	assert(gfn_is_shared(0) && gfn_is_shared(1));
	assert(!gpc.gpa || gpc.generation >= memslots_freed);
	assert(!deactivated);
	assert(!mm_gone)
}

/* --- Locks ----------------------------------------------------------------- */

inline spin_lock(lock)
{
	!lock -> lock = true
}

inline spin_unlock(lock)
{
	lock = false
}

inline mutex_lock(lock)
{
#ifdef BREAK_NO_REFRESH_LOCK	/* gpc_refresh(): two at a time */
	skip
#else
	!lock -> lock = true
#endif
}

inline mutex_unlock(lock)
{
	lock = false
}

inline srcu_read_lock(idx)
{
	idx = srcu_idx;
	srcu_readers[idx]++
}

inline srcu_read_unlock(idx)
{
	srcu_readers[idx]--;
	idx = 0
}

inline wake_up_all()
{
	gpcs.waiting = false
}

/* Where a variant leaves a section, and enters it again.  init() goes between. */
bool gone_out;

inline other_section()
{
	spin_unlock(mn_invalidate_lock);
	gone_out = true;
	!gone_out;
	spin_lock(mn_invalidate_lock)
}

/* --- Open and closed ------------------------------------------------------- */

#define gpc_is_open()	(gpc.users < GPC_CLOSED)

#define gpc_is_current()	(!gpc.gpa || gpc.generation == memslots_generation)

inline gpc_open()
{
	assert(!gpc_is_open());
	gpc.users = 0
}

inline gpc_close()
{
	if
	:: gpc_is_open() ->
#ifdef BREAK_CLOSE_LATE		/* gpc_close(): waits for uses that begin meanwhile, too */
		gpc.users == 0;
#endif
		gpc.users = gpc.users | GPC_CLOSED;
#ifndef BREAK_CLOSE_NO_WAIT	/* gpc_close(): does not wait for uses that are left */
		gpc.users == GPC_CLOSED;
#endif
	:: else
	fi
}

/* --- The notifier's side --------------------------------------------------- */

#define is_in_tree(hva) \
	((gpcs.in_tree > 0 && gpc.uhva[0] == (hva)) || \
	 (gpcs.in_tree > 1 && gpc.uhva[1] == (hva)))

/* What gpc_invalidate() does to a cache that it finds. */
inline take_away()
{
#ifndef BREAK_START_NOT_MISSED	/* gpc_invalidate(): a lookup is published all the same */
	gpc.missed = true;
#endif
#ifndef BREAK_START_KEEPS_OPEN	/* gpc_invalidate(): what is open stays so */
	gpc_close();
#endif
}

inline gpc_invalidate(hva)
{
	if
	:: is_in_tree(hva) ->
		take_away()
#ifdef BREAK_MISS_ANY		/* gpc_invalidate(): makes refreshes of other pages retry */
	:: gpcs.in_tree != 0 && !is_in_tree(hva) ->
		gpc.missed = true
#endif
	:: else
	fi
}

inline __kvm_gpc_invalidate_start(me, start)
{
	if
	:: true ->
		gpcs.inv[me].listed = true;
#ifdef BREAK_NO_RECORD		/* __kvm_gpc_invalidate_start(): leaves no record */
		gpcs.inv[me].hva = ELSEWHERE;
#else
		gpcs.inv[me].hva = start;
#endif
		gpcs.inv[me].waiter = false;
		gpcs.nr_recorded++
#ifndef PROGRESS
	:: true				/* gpc_records_grow() failed */
#endif
	fi;
#ifndef BREAK_START_TWO_SECTIONS
	gpc_invalidate(start)
#endif
}

inline kvm_mmu_notifier_invalidate_range_start(me, start)
{
	atomic {
		spin_lock(mn_invalidate_lock);
#ifdef BREAK_START_TWO_SECTIONS	/* __kvm_gpc_invalidate_start(): closes caches, then records */
		gpc_invalidate(start);
		other_section();
#endif
		mn_active_invalidate_count++;
		if
		:: gpcs.nr_active != 0 -> __kvm_gpc_invalidate_start(me, start)
		:: else
		fi;
		spin_unlock(mn_invalidate_lock)
	}
}

inline record_put(i)
{
	gpcs.inv[i].listed = false;
	gpcs.inv[i].hva = 0;
	gpcs.inv[i].waiter = false
}

inline __kvm_gpc_invalidate_end(me)
{
	if
	:: gpcs.inv[me].listed ->
		record_put(me);
		gpcs.nr_recorded--
	:: else
	fi;
#ifdef BREAK_END_NO_WAKE	/* __kvm_gpc_invalidate_end(): wakes nobody */
	wake = false;
#endif
	if
	:: gpcs.drain_waiter && mn_active_invalidate_count == gpcs.nr_recorded ->
		gpcs.drain_waiter = false;
#ifndef BREAK_DRAIN_NO_WAKE	/* __kvm_gpc_invalidate_end(): wakes who waits for a mark only */
		wake = true
#endif
	:: else
	fi;
	if
	:: wake -> wake_up_all()
	:: else
	fi;
	wake = false
}

inline kvm_mmu_notifier_invalidate_range_end(me)
{
	atomic {
		spin_lock(mn_invalidate_lock);
		wake = gpcs.inv[me].waiter;
#ifdef BREAK_END_TWO_SECTIONS	/* __kvm_gpc_invalidate_end(): looks for the mark too early */
		other_section();
#endif
		mn_active_invalidate_count--;
		__kvm_gpc_invalidate_end(me);
		assert(gpcs.nr_recorded <= mn_active_invalidate_count);
		spin_unlock(mn_invalidate_lock)
	}
}

#define turn(pfn)	pfn = (pfn >> 1 == hva + 1 -> pfn ^ 1 : pfn)

/* The page is another's from here on; or what was another's is here again. */
inline change_page_tables()
{
	d_step {
		turn(gpc.map.pfns[0]);
		turn(gpc.map.pfns[1]);
		for (i : 0 .. VMMS + LOCKS - 1) {
			turn(new[i].pfns[0]);
			turn(new[i].pfns[1])
		}
		i = 0;
		hva = 0
	}
}

proctype notifier(byte me)
{
	byte hva;
	byte i;
	bool wake;
#ifdef PROGRESS
	byte rounds;
#endif

	do
	::	atomic {
			if
#ifdef PROGRESS
			:: me == 0 && rounds < NR_OVERLAPPING ->
#ifndef PROGRESS_START
				rounds++;
#endif
				hva = 0
			:: me == 0 && rounds < NR_OVERLAPPING ->
#ifndef PROGRESS_START
				rounds++;
#endif
				hva = PAGES - 1
			:: me == 0 && rounds == NR_OVERLAPPING ->
				break
			:: me == 1 ->
				hva = ELSEWHERE
#else
			:: hva = 0
			:: hva = 1
			:: hva = PAGES
			:: break
#endif
			fi
		}
		kvm_mmu_notifier_invalidate_range_start(me, hva);
#ifdef PROGRESS_START
progress:
#endif
		change_page_tables();
#ifdef BREAK_END_WAITS		/* __kvm_gpc_invalidate_end(): waits for a refresh before */
		!gpc.refresh_lock;
#endif
		if
		:: kvm_mmu_notifier_invalidate_range_end(me)
#ifndef PROGRESS
		:: endless = true ->
			break
#endif
		fi
	od
}

/* --- Changes of what is behind guest physical addresses -------------------- */

/*
 * Is it found by the memslots of the moment?  An invalid one is, for i = 1; for attributes
 * it is taken to be as good as deleted, for their argument does not need it.
 */
#ifdef BREAK_GFNS_NOT_INVALID	/* kvm_gpc_invalidate_gfns_start(): passes over invalid memslots */
#define memslot_is_found(i)	(!memslot_invalid)
#else
#define memslot_is_found(i)	((i) == 1 || !memslot_invalid)
#endif

#define is_first(i)	(gpcs.gfn_inv[i].nr == 1)

inline record_gfns(i, first, behind)
{
	spin_lock(mn_invalidate_lock);
	gpcs.gfn_inv[i].nr++;
#ifdef BREAK_GFNS_FIRST_START	/* kvm_gpc_invalidate_gfns_start(): keeps the first start */
	gpcs.gfn_inv[i].start = (is_first(i) -> first : gpcs.gfn_inv[i].start);
#else
	gpcs.gfn_inv[i].start =
		(is_first(i) || first < gpcs.gfn_inv[i].start ->
		 first : gpcs.gfn_inv[i].start);
#endif
	gpcs.gfn_inv[i].end =
		(is_first(i) || behind > gpcs.gfn_inv[i].end ->
		 behind : gpcs.gfn_inv[i].end);
	gpcs.gfn_inv[i].waiter = (is_first(i) -> false : gpcs.gfn_inv[i].waiter);
#ifdef BREAK_GFNS_NO_RECORD	/* kvm_gpc_invalidate_gfns_start(): leaves no record */
	gpcs.gfn_inv[i].end = 0;
#endif
	any = gpcs.nr_active != 0;
	spin_unlock(mn_invalidate_lock)
}

/* What a process needs to change gfns: memslots of the moment, for one. */
#define GFNS_LOCALS	byte gfn; byte behind; bool any; bit idx; byte hva; bool found

/* For gfns from @gfn, which is @behind when it returns. */
inline kvm_gpc_invalidate_gfns_start(i)
{
#ifdef BREAK_GFNS_RECORD_LATE	/* kvm_gpc_invalidate_gfns_start(): closes caches, then records */
	any = gpcs.nr_active != 0;
#else
	atomic {
		record_gfns(i, gfn, behind)
	}
#endif
	if
	:: any ->
		atomic {
			any = false;
			srcu_read_lock(idx);
			hva = memslots_hva[PAGES - 1];
			found = memslot_is_found(i)
		}
		do
		:: gfn < behind ->
			atomic {
				spin_lock(mn_invalidate_lock);
				if
#ifndef BREAK_GFNS_KEEP_OPEN	/* kvm_gpc_invalidate_gfns_start(): closes no cache */
				:: gfn < PAGES - 1 ->
					gpc_invalidate(memslots_hva[gfn])
				:: gfn == PAGES - 1 && found ->
					gpc_invalidate(hva)
#endif
				:: else
				fi;
				gfn++;
				spin_unlock(mn_invalidate_lock)
			}
		:: else -> break
		od;
		atomic {
			hva = 0;
			found = false;
			srcu_read_unlock(idx)
		}
	:: else ->
		gfn = behind
	fi;
#ifdef BREAK_GFNS_RECORD_LATE
	atomic {
		record_gfns(i, 0, behind);
		any = false
	}
#endif
}

/* A section that is its caller's step. */
inline kvm_gpc_invalidate_gfns_end(i)
{
	spin_lock(mn_invalidate_lock);
	gpcs.gfn_inv[i].nr--;
	if
#ifdef BREAK_GFNS_FIRST_END	/* kvm_gpc_invalidate_gfns_end(): any change's ends the record */
	:: true ->
#else
	:: gpcs.gfn_inv[i].nr == 0 ->
#endif
		gpcs.gfn_inv[i].start = 0;
		gpcs.gfn_inv[i].end = 0;
		if
#ifdef BREAK_GFNS_NO_WAKE	/* kvm_gpc_invalidate_gfns_end(): wakes nobody */
		:: false ->
#else
		:: gpcs.gfn_inv[i].waiter ->
#endif
			wake_up_all()
		:: else
		fi;
		gpcs.gfn_inv[i].waiter = false
	:: else
	fi;
	spin_unlock(mn_invalidate_lock)
}

proctype set_mem_attributes()
{
	GFNS_LOCALS;

	do
	::	atomic {
#ifndef BREAK_GFNS_NO_SLOTS_LOCK	/* kvm_vm_set_mem_attributes(): without slots_lock */
			mutex_lock(slots_lock);
#endif
			if
#ifdef PROGRESS
			:: gfn = ELSEWHERE
#else
			:: gfn = 0
			:: gfn = PAGES - 1
#endif
			fi;
			behind = gfn + 1
		}
		kvm_gpc_invalidate_gfns_start(0);
		atomic {
			if
			:: behind <= PAGES ->
				gfn_taken[behind - 1] = true;
				mem_is_private[behind - 1] = !mem_is_private[behind - 1]
			:: else
			fi
		}
		atomic {
			kvm_gpc_invalidate_gfns_end(0);
			gfn_taken[0] = false;
			gfn_taken[1] = false;
			gfn = 0;
			behind = 0;
#ifndef BREAK_GFNS_NO_SLOTS_LOCK
			mutex_unlock(slots_lock)
#endif
		}
#ifndef PROGRESS
	::	break
#endif
	od
}

proctype gmem_punch_hole()
{
	GFNS_LOCALS;
	byte first;

	do
	::	atomic {
			if
			:: first = 0
			:: first = PAGES - 1
			fi;
			gfn = first;
			behind = PAGES
		}
		kvm_gpc_invalidate_gfns_start(1);
		atomic {
			gfn_punched[first] = true;
			gfn_punched[behind - 1] = true;
			first = 0
		}
		atomic {
			kvm_gpc_invalidate_gfns_end(1);
			if
			:: gpcs.gfn_inv[1].nr == 0 ->
				gfn_punched[0] = false;
				gfn_punched[1] = false
			:: else
			fi;
			gfn = 0;
			behind = 0
		}
	::	break
	od
}

/* --- A VM's caches --------------------------------------------------------- */

inline kvm_gpc_close_vm()
{
	atomic {
		spin_lock(mn_invalidate_lock);
#ifndef BREAK_CLOSE_VM_NOT_SAID	/* kvm_gpc_close_vm(): caches are refreshed as ever */
		gpcs.closed = true;
#endif
#ifndef BREAK_CLOSE_VM_KEEPS_CACHES	/* kvm_gpc_close_vm(): what is open stays so */
		if
		:: gpcs.in_tree != 0 -> take_away()
		:: else
		fi;
#endif
		record_put(0);
		record_put(1);
		gpcs.nr_recorded = 0;
#ifndef BREAK_CLOSE_VM_NO_WAKE	/* kvm_gpc_close_vm(): who waits sleeps on */
		wake_up_all();
#endif
		mm_gone = true;			/* exit_mmap() */
		spin_unlock(mn_invalidate_lock)
	}
}

proctype mm_release()
{
	if
	:: kvm_gpc_close_vm()
	:: skip
	fi
}

/* --- Memslots -------------------------------------------------------------- */

proctype memslot_update()
{
	do
	:: memslots_generation < UPDATES ->
		/* kvm_swap_active_memslots() */
		if
		::	atomic {
				!slots_lock && !mn_invalidate_lock &&
				mn_active_invalidate_count == 0 ->
				slots_lock = true;
				memslots_generation++;
				if
				:: !memslot_invalid		/* only flags change */
#ifndef PROGRESS
				:: !memslot_invalid ->
					memslot_invalid = true
#endif
				:: memslot_invalid ->
					memslot_invalid = false
				:: memslot_invalid ->
					memslot_invalid = false;
					memslots_hva[PAGES - 1] =
						2 * PAGES - 1 - memslots_hva[PAGES - 1]
				fi;
				srcu_idx = 1 - srcu_idx		/* synchronize_srcu() */
			}
		::	endless ->
			break
		fi;
		atomic {
#ifndef BREAK_NO_SRCU_WAIT	/* kvm_swap_active_memslots(): returns while uses go on */
			srcu_readers[1 - srcu_idx] == 0;
#endif
			memslots_freed = memslots_generation;
			mutex_unlock(slots_lock)
		}
	:: break
	od
}

/* Is it the last one, and has another mm? */
#define stranger	(STRANGERS && me == VMMS + LOCKS - 1)

/* --- Refresh: binding ------------------------------------------------------ */

#define KVM_HVA_ERR_BAD		255

/* What a process needs for a refresh. */
#define REFRESH_LOCALS \
	byte ret; bool wait; bool was_open

#define gfn_to_hva_memslot(gfn) \
	(memslot_invalid && (gfn) == PAGES - 1 -> KVM_HVA_ERR_BAD : memslots_hva[gfn])

#define gpc_in_tree()	(gpcs.in_tree != 0)

inline gpc_leave_tree()
{
	gpcs.in_tree = 0
}

inline gpc_enter_tree()
{
#if defined(BREAK_TREE_LATE)	/* gpc_enter_tree(): after the lookup */
	gpcs.in_tree = 0
#elif defined(BREAK_TREE_ONE_PAGE)	/* gpc_enter_tree(): the first page only */
	gpcs.in_tree = 1
#else
	gpcs.in_tree = gpc.nr_pages
#endif
}

inline gpc_set_page(nr, to)
{
	if
	:: gpc.uhva[nr] != to ->
#ifndef BREAK_SET_IN_TREE	/* gpc_set_page(): leaves it in the tree */
		gpc_leave_tree();
#endif
		gpc.uhva[nr] = to
	:: else
	fi
}

/* For false, -EFAULT in @ret. */
inline gpc_translate()
{
	if
	:: gpc.gpa ->
		gpc.generation = memslots_generation;
		if
		:: gfn_to_hva_memslot(0) == KVM_HVA_ERR_BAD ->
			ret = EFAILED
		:: else ->
			gpc_set_page(0, memslots_hva[0])
		fi;
		if
		:: gpc.nr_pages == 2 && gfn_to_hva_memslot(1) == KVM_HVA_ERR_BAD ->
			ret = EFAILED
		:: gpc.nr_pages == 2 && gfn_to_hva_memslot(1) != KVM_HVA_ERR_BAD ->
			gpc_set_page(1, memslots_hva[1])
		:: else
		fi
	:: else ->
		gpc.generation = 0;
		gpc_set_page(0, 0)
	fi
}

#if defined(BREAK_WAIT_ANY)	/* gpc_invalidation_in_progress(): also for other pages */
#define overlaps(i)	(gpcs.inv[i].listed)
#elif defined(BREAK_WAIT_FIRST_PAGE)	/* gpc_invalidation_in_progress(): for the first page */
#define overlaps(i)	(gpcs.inv[i].listed && gpcs.inv[i].hva == gpc.uhva[0])
#elif defined(BREAK_WAIT_NOT)	/* gpc_invalidation_in_progress(): looks at no record */
#define overlaps(i)	false
#else
#define overlaps(i) \
	(gpcs.inv[i].listed && \
	 (gpcs.inv[i].hva == gpc.uhva[0] || \
	  (gpc.nr_pages == 2 && gpcs.inv[i].hva == gpc.uhva[1])))
#endif

#ifdef BREAK_WAIT_ANY_GFNS	/* gpc_invalidation_in_progress(): also for other gfns */
#define overlaps_gfns(i)	(gpc.gpa && gpcs.gfn_inv[i].nr != 0)
#else
#define overlaps_gfns(i) \
	(gpc.gpa && gpcs.gfn_inv[i].start < gpc.nr_pages && 0 < gpcs.gfn_inv[i].end)
#endif

#ifdef BREAK_WAIT_NO_DRAIN	/* gpc_invalidation_in_progress(): looks at records only */
#define unrecorded()	false
#else
#define unrecorded()	(mn_active_invalidate_count != gpcs.nr_recorded)
#endif

inline mark(record)
{
#ifdef BREAK_MARK_LATE		/* gpc_invalidation_in_progress(): marks in another section */
	other_section();
#endif
#ifdef BREAK_MARK_NOT		/* gpc_invalidation_in_progress(): marks nothing */
	skip
#else
	record.waiter = true
#endif
}

inline gpc_invalidation_in_progress(yes)
{
	yes = true;
	if
	:: unrecorded() ->
		gpcs.drain_waiter = true
	:: !unrecorded() && overlaps(0) ->
		mark(gpcs.inv[0])
	:: !unrecorded() && overlaps(1) ->
		mark(gpcs.inv[1])
	:: !unrecorded() && overlaps_gfns(0) ->
		mark(gpcs.gfn_inv[0])
	:: !unrecorded() && overlaps_gfns(1) ->
		mark(gpcs.gfn_inv[1])
	:: else ->
		yes = false
	fi
}

#ifdef BREAK_PRIVATE_FIRST_PAGE	/* gpc_has_private_page(): looks at the first only */
#define gpc_is_private()	(gpc.gpa && mem_is_private[0])
#else
#define gpc_is_private() \
	(gpc.gpa && (mem_is_private[0] || (gpc.nr_pages == 2 && mem_is_private[1])))
#endif

#ifdef BREAK_INACTIVE_UNSEEN	/* gpc_lookup_may_begin(): also without @active */
#define is_inactive()	false
#else
#define is_inactive()	(!gpc.is_active)
#endif

/* Leaves it in @ret. */
inline gpc_lookup_may_begin()
{
	if
	:: gpcs.closed || is_inactive() ->
		ret = EFAILED					/* -EIO, -EINVAL */
	:: else ->
		gpc_invalidation_in_progress(wait);
#ifdef BREAK_CLEAR_LATE		/* gpc_lookup_may_begin(): clears @missed in another section */
		other_section();
#endif
		gpc.missed = (wait -> gpc.missed : false);
		ret = (wait -> EAGAIN : 0);
		wait = false
	fi
}

inline gpc_make_active(activate)
{
	gpcs.nr_active = gpcs.nr_active + (activate && !gpc.is_active);
	gpc.is_active = gpc.is_active || activate;
	deactivated = deactivated && !activate
}

#ifdef BREAK_FAIL_OPEN		/* gpc_bind(): failed, leaves it open */
#define must_close(gpa, nr)	(!(gpa) || !memslot_invalid || (nr) < PAGES)
#else
#define must_close(gpa, nr)	true
#endif

inline gpc_bind(gpa_arg, nr_pages_arg, activate)
{
	atomic {
		spin_lock(mn_invalidate_lock);
		gpc_make_active(activate);
#ifdef BREAK_SHORTCUT_CLOSED	/* gpc_bind(): opens what was closed */
		was_open = gpc_is_mapped();
#else
		was_open = gpc_is_open();
#endif
		if
#ifndef BREAK_BIND_NO_CLOSE	/* gpc_bind(): while uses go on */
		:: must_close(gpa_arg, nr_pages_arg) -> gpc_close()
#endif
		:: else
		fi;
		gpc.gpa = gpa_arg;
		gpc.length = nr_pages_arg;
		if
		:: gpc.nr_pages != nr_pages_arg ->
			gpc_leave_tree();
			gpc.uhva[1] = ELSEWHERE;
			gpc.nr_pages = nr_pages_arg
		:: else
		fi;

		ret = 0;
		gpc_translate();
		if
		:: ret == 0 ->
#ifndef BREAK_SHORTCUT_OTHER	/* gpc_bind(): opens other pages' mapping */
			was_open = was_open && gpc_in_tree();
#endif
			if
			:: !gpc_in_tree() && gpc.is_active -> gpc_enter_tree()
			:: else
			fi;
			gpc_lookup_may_begin()
		:: else
		fi;

		if
#if defined(BREAK_SHORTCUT_RECORD)	/* gpc_bind(): opens against a record */
		:: was_open && ret != EFAILED && !gpc_is_private() ->
#elif defined(BREAK_SHORTCUT_PRIVATE)	/* gpc_bind(): opens private memory */
		:: was_open && ret == 0 ->
#else
		:: was_open && ret == 0 && !gpc_is_private() ->
#endif
			gpc_open();
			ret = GPC_IS_OPEN
		:: else ->
			gpc.refreshing = gpc.is_active
		fi;
		was_open = false;
		spin_unlock(mn_invalidate_lock)
	}
}

/* --- Refresh: lookup ------------------------------------------------------- */

inline gpc_must_wait()
{
	spin_lock(mn_invalidate_lock);
	gpc_lookup_may_begin();
	spin_unlock(mn_invalidate_lock)
}

inline gpc_lookup_wait()
{
	do
	::	atomic {
#ifdef BREAK_QUEUE_LATE		/* gpc_lookup_wait(): looks at the records, then queues */
			gpc_must_wait();
			gone_out = true;
			!gone_out;
			gpcs.waiting = true;
#else
			gpcs.waiting = true;
			gpc_must_wait();
#endif
			if
			:: ret != EAGAIN -> break
			:: else
			fi
		}
		atomic {
			if
			:: !gpcs.waiting		/* schedule() */
#ifndef PROGRESS
#ifndef BREAK_WAIT_UNKILLABLE	/* gpc_lookup_wait(): whatever signal is pending */
			:: gpcs.waiting && endless && gpc.is_active && !gpcs.closed ->
				ret = EFAILED;		/* -EINTR */
				break
#endif
#endif
			fi
		}
	od;
	gpcs.waiting = false					/* finish_wait() */
}

#ifdef BREAK_LOOKUP_PRIVATE	/* gpc_lookup_pfns(): private or not */
#define lookup_may_begin()	true
#else
#define lookup_may_begin()	(!gpc_is_private())
#endif

inline gpc_lookup_pfns()
{
	atomic {
		!USERFAULTS || !deactivating;		/* hva_to_pfn() */
		if
		:: lookup_may_begin() ->
			new[me].pfns[0] = page_frame(gpc.uhva[0])
#ifdef PROGRESS
		:: else ->
#else
		:: true ->
#endif
			ret = EFAILED				/* -EFAULT */
		fi
	}
	if
	:: ret == 0 && gpc.nr_pages == 2 ->
		new[me].pfns[1] = page_frame(gpc.uhva[1])
	:: else
	fi
}

#ifdef BREAK_MAP_OLD		/* gpc_map_serves(): also for other page frames */
#define gpc_map_serves()	true
#else
#define gpc_map_serves() \
	(new[me].pfns[0] == gpc.map.pfns[0] && new[me].pfns[1] == gpc.map.pfns[1])
#endif

inline map_forget()
{
	gpc.map.type = KVM_GPC_MAP_NONE;
	gpc.map.pfns[0] = 0;
	gpc.map.pfns[1] = 0
}

/* In two steps, so that it is seen when somebody else does it, too. */
inline kvm_gpc_unmap()
{
	if
	:: gpc_is_mapped() ->
		atomic {
			assert(mapped);
			mapped = false
		}
		map_forget()
	:: else
	fi
}

/* kvm_gpc_map(): a typedef has the name. */
inline map_pfns()
{
	assert(!mapped);
	mapped = true;
	gpc.map.type = KVM_GPC_MAP_VMAP;
	gpc.map.pfns[0] = new[me].pfns[0];
	gpc.map.pfns[1] = new[me].pfns[1]
}

inline gpc_publish()
{
	spin_lock(mn_invalidate_lock);
#ifdef BREAK_TREE_LATE
	gpcs.in_tree = gpc.nr_pages;
#endif
	if
#ifndef BREAK_PUBLISH_MISSED	/* gpc_publish(): whatever came between */
	:: gpc.missed ->
		ret = EAGAIN
#endif
	:: else ->
#ifdef BREAK_PUBLISH_TWO_SECTIONS	/* gpc_publish(): opens in another section */
		other_section();
#endif
		assert(!mm_gone);
		gpc.refreshing = false;
		gpc_open();
		ret = 0
	fi;
	spin_unlock(mn_invalidate_lock)
}

inline gpc_lookup()
{
	gpc_lookup_pfns();
	if
	:: ret == 0 && !gpc_map_serves() ->
		kvm_gpc_unmap()
	:: else
	fi;
	atomic {
		if
		:: ret == 0 && !gpc_is_mapped() ->
			map_pfns()
#ifndef PROGRESS
		:: ret == 0 && !gpc_is_mapped() ->
			ret = EFAILED				/* -EFAULT */
#endif
		:: else
		fi;
		new[me].pfns[0] = 0;
		new[me].pfns[1] = 0
	}
	atomic {
		if
		:: ret == 0 -> gpc_publish()
		:: else
		fi
	}
}

/* --- Refresh --------------------------------------------------------------- */

/* What nobody looks at any more be always the same, to save states. */
inline forget()
{
	if
	:: !gpc.refresh_lock ->
		gpc.missed = true;
		if
		:: !gpc_in_tree() ->
			gpc.generation = 0;
			gpc.uhva[0] = ELSEWHERE;
			gpc.uhva[1] = ELSEWHERE;
			gpc.nr_pages = 1
		:: else
		fi;
		if
		:: !gpc.is_active ->
			gpc.gpa = false;
			gpc.length = 0
		:: else
		fi
	:: else
	fi
}

#ifdef BREAK_STRANGER_OPEN	/* gpc_finish(): undoes what is open, with another mm */
#define lookup_is_due()	true
#else
#define lookup_is_due()	(ret != GPC_IS_OPEN)
#endif

/* With the mutex_unlock() of its callers. */
inline gpc_finish()
{
	if
	:: stranger && lookup_is_due() -> ret = EFAILED		/* -EFAULT */
	:: else
	fi;
	do
	:: ret == 0 || ret == EAGAIN ->
		if
		:: ret == EAGAIN -> gpc_lookup_wait()
		:: else
		fi;
		if
		:: ret == 0 -> gpc_lookup()
		:: else
		fi;
		if
		:: ret != EAGAIN -> break
		:: else
		fi
	:: else -> break
	od;
	if
#ifndef BREAK_MAP_LEAKED	/* gpc_finish(): failed, forgets what is mapped */
	:: ret == EFAILED ->
		kvm_gpc_unmap()
#endif
	:: else
	fi;
	atomic {
		if
		:: ret == EFAILED ->
			spin_lock(mn_invalidate_lock);
			gpc.refreshing = false;
#ifndef BREAK_FAIL_IN_TREE	/* gpc_finish(): failed, leaves it in the tree */
			gpc_leave_tree();
#endif
			spin_unlock(mn_invalidate_lock)
		:: ret == GPC_IS_OPEN ->
			ret = 0
		:: else
		fi;
		assert(!gpc.refreshing);
		assert(gpc.is_active || !(mapped || gpc_in_tree()) || mn_invalidate_lock);
		mutex_unlock(gpc.refresh_lock);
		forget()
	}
}

#ifdef BREAK_BEGIN_OLD		/* gpc_begin(): also with other memslots */
#define needs_binding()	(!gpc_in_tree())
#elif defined(BREAK_BEGIN_OUTSIDE)	/* gpc_begin(): also out of the tree */
#define needs_binding()	(!gpc_is_current())
#else
#define needs_binding()	(!gpc_in_tree() || !gpc_is_current())
#endif

inline gpc_begin()
{
	spin_lock(mn_invalidate_lock);
	if
	:: !gpc.is_active ->
		ret = EINVAL
	:: gpc.is_active && needs_binding() ->
		ret = NOT_BOUND
	:: gpc.is_active && !needs_binding() && gpc_is_open() ->
		ret = GPC_IS_OPEN
	:: else ->
#ifndef BREAK_REFRESHING_UNSAID	/* gpc_begin(): does not say so */
		gpc.refreshing = true;
#endif
		gpc_lookup_may_begin()
	fi;
	spin_unlock(mn_invalidate_lock)
}

inline gpc_refresh()
{
	atomic {
		mutex_lock(gpc.refresh_lock);
		gpc_begin();
		if
		:: ret == EINVAL -> mutex_unlock(gpc.refresh_lock)
		:: else
		fi
	}
	if
	:: ret == EINVAL
	:: else ->
		if
		:: ret == NOT_BOUND -> gpc_bind(gpc.gpa, gpc.length, false)
		:: else
		fi;
		gpc_finish()
	fi
}

/* --- Use ------------------------------------------------------------------- */

#ifdef BREAK_NO_GENERATION	/* gpc_use_begin(): whatever the generation */
#define is_bound_now()	true
#else
#define is_bound_now()	gpc_is_current()
#endif

inline gpc_use_begin()
{
	if
	:: gpc_is_open() && is_bound_now() ->
#ifdef BREAK_COUNT_LATE		/* gpc_use_begin(): looks at @users, then raises it */
		gone_out = true;
		!gone_out;
#endif
		gpc.users++;
		khva = gpc_is_mapped();
		assert(khva);
		assert(!gpc_is_current() || (is_bound_right(0) && is_bound_right(1)))
	:: else
	fi
}

/* The last access of a use, and its end. */
inline kvm_gpc_unlock()
{
	access();
#ifdef BREAK_USE_TAKES_LOCK	/* kvm_gpc_unlock(): takes mn_invalidate_lock in a use */
	spin_lock(mn_invalidate_lock);
	spin_unlock(mn_invalidate_lock);
#endif
	gpc.users--;
	khva = false
}

proctype user_lock(byte me)
{
	REFRESH_LOCALS;
	bool khva;
	bit idx;

#ifdef PROGRESS
	gpc.is_active;				/* the activation has the refresh_lock */
#endif
	do
	::	atomic {
			srcu_read_lock(idx);
			gpc_use_begin()
		}
		do
		:: khva || ret != 0 -> break
		:: else ->
			gpc_refresh();
			atomic {
				if
				:: ret == 0 -> gpc_use_begin()
				:: else
				fi
			}
		od;
#if defined(PROGRESS) && !defined(PROGRESS_START)
		if
		:: khva ->
progress:		skip
		:: else
		fi;
#endif
		atomic {
			if
			:: khva -> kvm_gpc_unlock()
			:: else
			fi;
			ret = 0;
			srcu_read_unlock(idx)
		}
#ifndef PROGRESS
	::	break
#endif
	od
}

proctype user_trylock()
{
	bool khva;
	bit idx;

	do
	::	atomic {
			srcu_read_lock(idx);
			gpc_use_begin()
		}
		atomic {
			if
			:: khva -> kvm_gpc_unlock()
			:: else				/* -EAGAIN */
			fi;
			srcu_read_unlock(idx)
		}
#ifndef PROGRESS
	::	break
#endif
	od
}

/* --- Life ------------------------------------------------------------------ */

inline gpc_activate(gpa_arg, nr_pages_arg)
{
	atomic {
		mutex_lock(gpc.refresh_lock);
		gpc_bind(gpa_arg, nr_pages_arg, true)
	}
	gpc_finish()
}

#ifdef BREAK_DEACTIVATE_TAKES_MAP	/* kvm_gpc_deactivate(): also while it is a refresh's */
#define map_is_caches()	true
#else
#define map_is_caches()	(!gpc.refreshing)
#endif

inline kvm_gpc_deactivate()
{
	atomic {
		deactivating = true;
#ifdef BREAK_DEACTIVATE_WAITS	/* kvm_gpc_deactivate(): waits for a refresh */
		mutex_lock(gpc.refresh_lock);
#endif
		spin_lock(mn_invalidate_lock);
		if
		:: gpc.is_active ->
			gpc.is_active = false;
#ifndef BREAK_DEACTIVATE_NOT_MISSED	/* kvm_gpc_deactivate(): a lookup is published */
			gpc.missed = true;
#endif
			gpcs.nr_active--;
#ifndef BREAK_DEACTIVATE_NO_CLOSE	/* kvm_gpc_deactivate(): does not wait for uses */
			gpc_close();
#endif
#ifndef BREAK_DEACTIVATE_IN_TREE	/* kvm_gpc_deactivate(): leaves it in the tree */
			gpc_leave_tree();
#endif
			if
#ifndef BREAK_DEACTIVATE_KEEPS_MAP	/* kvm_gpc_deactivate(): leaves it mapped */
			:: map_is_caches() && gpc_is_mapped() ->
				assert(mapped);
				mapped = false;
				map_forget()
#endif
			:: else
			fi;
#ifndef BREAK_DEACTIVATE_NO_WAKE	/* kvm_gpc_deactivate(): who waits sleeps on */
			wake_up_all();
#endif
			deactivated = true;
			assert(gpc.refreshing || !mapped);
			assert(gpc.refresh_lock || !gpc_in_tree())
		:: else
		fi;
		spin_unlock(mn_invalidate_lock);
#ifdef BREAK_DEACTIVATE_WAITS
		mutex_unlock(gpc.refresh_lock);
#endif
		deactivating = false;
		forget()
	}
}

proctype vmm(byte me)
{
	REFRESH_LOCALS;
	bool gpa;
	byte nr_pages;
	bit idx;

	do
	::	atomic {
			if
			:: gpa = true; nr_pages = PAGES
			:: gpa = true; nr_pages = 1
			:: HVA -> nr_pages = 1
			fi;
			srcu_read_lock(idx)
		}
		gpc_activate(gpa, nr_pages);
		atomic {
			gpa = false;
			nr_pages = 0;
			ret = 0;
			srcu_read_unlock(idx)
		};
#ifdef PROGRESS
		break
#else
	:: DEACTIVATES ->
		kvm_gpc_deactivate()
	::	break
#endif
	od
}

init
{
	atomic {
		gpc.users = GPC_CLOSED;
		gpc.missed = true;
		memslots_hva[PAGES - 1] = PAGES - 1;
		if :: NOTIFIERS > 0 -> run notifier(0) :: else fi;
		if :: NOTIFIERS > 1 -> run notifier(1) :: else fi;
		if :: CHANGES -> run set_mem_attributes() :: else fi;
		if :: HOLES > 0 -> run gmem_punch_hole() :: else fi;
		if :: HOLES > 1 -> run gmem_punch_hole() :: else fi;
		if :: UPDATES -> run memslot_update() :: else fi;
		if :: RELEASES -> run mm_release() :: else fi;
		if :: LOCKS > 0 -> run user_lock(VMMS) :: else fi;
		if :: LOCKS > 1 -> run user_lock(VMMS + 1) :: else fi;
		if :: TRYLOCKS -> run user_trylock() :: else fi;
		if :: VMMS > 0 -> run vmm(0) :: else fi;
		if :: VMMS > 1 -> run vmm(1) :: else fi
	}
end:	do
	:: atomic { gone_out -> gone_out = false }
	od
}
