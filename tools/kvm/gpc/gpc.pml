/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of the guest-page cache's locking, for spin: virt/kvm/pfncache.c, where
 * the comment above struct gpc_invalidation says why it should hold.
 *
 * check-model.sh runs it.  By hand:
 *
 *	spin -a -DONE_NOTIFIER gpc.pml
 *	gcc -O2 -DSAFETY -DCOLLAPSE pan.c -o pan && ./pan -m1000000
 *
 *	spin -a -DPROGRESS gpc.pml
 *	gcc -O2 -DNP -DNFAIR=3 -DCOLLAPSE pan.c -o pan && ./pan -l -f -m1000000
 *
 * "spin -t -p -g gpc.pml", with the same -D, then replays the trail of an error.
 * With "-i" instead of a large "-m", pan looks for a short one.
 *
 * There is one cache, and as many as may run at once of these:
 *
 *	proctype user_lock()	kvm_gpc_lock() and kvm_gpc_unlock(), again and again
 *	proctype user_trylock()	kvm_gpc_trylock() and kvm_gpc_unlock(), likewise
 *	proctype vmm()		kvm_gpc_activate(), kvm_gpc_activate_hva() on an active
 *				cache or not, and kvm_gpc_deactivate(), in any order
 *	proctype notifier()	kvm_mmu_notifier_invalidate_range_start(), change of the
 *				page tables, kvm_mmu_notifier_invalidate_range_end(), of
 *				any page; there are two, so ranges nest and overlap
 *	proctype memslot_update()
 *				kvm_swap_active_memslots() and its callers; once
 *	proctype mm_release()	kvm_mmu_notifier_release(), or kvm_destroy_vm(); once,
 *				or never
 *
 * ONE_NOTIFIER, NO_MEMSLOT_UPDATE and NO_RELEASE leave one out, to save states.
 *
 * An inline has the name of the C function that it stands for, and a variable that
 * of the field.  The first four go on for any number of rounds and may stop after
 * any, so that whoever waits in vain is seen: spin calls that an invalid end state.
 *
 * What is abstracted:
 *
 * - A section of a spinlock is one atomic step, for nobody looks at what a lock
 *   protects without it (a variant that does has two steps).  If it must wait
 *   inside, as start does for readers, the step is divided there and the outer lock
 *   is seen to be held.  A section with gpc->lock held for write never waits.
 * - The user's address space is two pages and ELSEWHERE, where no cache ever is.
 *   A page frame is known by its hva, and is gone when an invalidation has given it
 *   away; what is mapped after that is another.  A cache covers one page; offset
 *   and length are left out.
 * - The GPA is at hva 0 before the memslot update and at hva 1 after, and
 *   kvm_gpc_activate_hva() is to hva 1.  The generation changes once in an update,
 *   not twice; the second change would only cause one refresh more.
 * - mn_memslots_update_rcuwait is a plain wait: it is not the cache's.
 * - The list of records is an array with one for each notifier; an allocation fails
 *   at will.  Which of several overlapping records a refresh finds is left open.
 * - kvm->gpcs.wait has one waiter at most, the holder of refresh_lock.  A signal
 *   comes before it sleeps or not at all, or it would hide that nobody wakes it.
 * - hva_to_pfn() may fail; mapping and unmapping touch nothing that is shared.  The
 *   mm is the current one.
 * - Memory is sequentially consistent: all is read under a lock but gpcs->closed,
 *   which is for the errno only; and kvm->memslots, which is srcu's.
 *
 * With -DPROGRESS the second notifier never stops to invalidate memory elsewhere,
 * the first stops after NR_OVERLAPPING rounds, and user_lock() never stops: in any
 * weakly fair run it must reach its label "progress" again and again.  Allocations
 * don't fail there: a refresh waits for all invalidations without a record, and
 * if there never were a record to be had it would do so for ever.
 *
 * Each -DBREAK_... breaks one rule, which the comment beside it says how; spin must
 * reject it.
 */

#define ELSEWHERE	2

/* Page frames */
#define NONE		0
#define PAGE(hva)	((hva) + 1)

#define NR_OVERLAPPING	3

/* errno, as far as anybody cares which */
#define EAGAIN		1
#define EFAILED		2

/* --- struct kvm and struct kvm_gpcs --------------------------------------- */

bool mn_invalidate_lock;
byte mn_active_invalidate_count;
bit memslots_generation;
bit srcu_idx;
byte srcu_readers[2];

typedef gpc_invalidation {
	bool recorded;			/* on the list of kvm->gpcs */
	byte hva;			/* start and last */
	bool waiter;
};
gpc_invalidation inv[2];		/* one for each notifier */
byte nr_recorded;
byte nr_active;
bool drain_waiter;
bool closed;
bool waiting;				/* on the queue kvm->gpcs.wait, and not woken */

/* --- struct gfn_to_pfn_cache ---------------------------------------------- */

bool refresh_lock;
byte lock_readers;			/* of gpc->lock */
bool gpa;				/* bound to the GPA, not to a user address */
bit uhva;
bit generation;
byte khva;				/* of which page frame */
bool is_active;				/* "active" is a word of Promela's */
bool valid;
bool missed = true;
bool in_tree;
bit node;				/* user page in the interval tree */

/* --- The world around ----------------------------------------------------- */

byte pfn[2];				/* looked up by each refresh and not published */

/* Is the page frame another's by now? */
bool khva_gone;
bool pfn_gone[2];

#define memslots_hva()		memslots_generation

/* Who has been told that KVM will not touch a page any more? */
bool deactivated = true;		/* kvm_gpc_deactivate() has returned */
bool memslot_freed;			/* the memslot update has returned */
bool mm_gone;				/* kvm_gpc_close_vm() has returned */

/* A user reads or writes the page. */
inline access()
{
	assert(khva == PAGE(uhva) && !khva_gone);
	assert(!(gpa && uhva == 0 && memslot_freed));
	assert(!deactivated);
	assert(!mm_gone);
}

/* --- Locks ---------------------------------------------------------------- */

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
#ifdef BREAK_NO_REFRESH_LOCK		/* two refreshes at a time */
	skip
#else
	!lock -> lock = true
#endif
}

inline mutex_unlock(lock)
{
	lock = false
}

/* Held to the end of the atomic step, where write_unlock_irq() would be. */
inline write_lock_irq()
{
	lock_readers == 0
}

inline srcu_read_lock(idx)
{
	atomic {
		idx = srcu_idx;
		srcu_readers[idx]++
	}
}

inline srcu_read_unlock(idx)
{
	atomic {
		srcu_readers[idx]--;
		idx = 0
	}
}

inline wake_up_all()
{
	waiting = false
}

/* --- The notifier's side -------------------------------------------------- */

/* What __kvm_gpc_invalidate_start() does to a cache that it finds. */
inline gpc_take_away()
{
#ifndef BREAK_START_NO_WAIT		/* start does not wait for readers */
	write_lock_irq();
#endif
#ifndef BREAK_START_KEEPS_VALID		/* start lets a cache that is valid be so */
	valid = false;
#endif
	missed = true
}

inline kvm_mmu_notifier_invalidate_range_start(me, start)
{
	atomic {
		spin_lock(mn_invalidate_lock);
		mn_active_invalidate_count++;
		if
		:: nr_active == 0 ->
			skip
		:: nr_active != 0 ->
			inv[me].recorded = true;
			inv[me].hva = start;
			nr_recorded++
#ifndef PROGRESS
		:: nr_active != 0 ->
			skip				/* kmalloc(GFP_NOWAIT) failed */
#endif
		fi;
		if
#ifdef BREAK_MISS_ANY			/* an invalidation elsewhere makes a refresh retry */
		:: in_tree && node != start ->
			missed = true
#endif
		:: in_tree && node == start ->
			gpc_take_away()
		:: else
		fi;
#ifdef BREAK_RECORD_DROPPED		/* no record from start's return to end */
		inv[me].hva = ELSEWHERE;
#endif
		spin_unlock(mn_invalidate_lock)
	}
}

inline kvm_mmu_notifier_invalidate_range_end(me)
{
#ifdef BREAK_END_TWO_SECTIONS		/* the mark is looked at before the record goes */
	atomic {
		spin_lock(mn_invalidate_lock);
		wake = inv[me].waiter;
		spin_unlock(mn_invalidate_lock)
	}
#endif
	atomic {
		spin_lock(mn_invalidate_lock);
		mn_active_invalidate_count--;
		if
		:: inv[me].recorded ->
#ifndef BREAK_END_TWO_SECTIONS
			wake = inv[me].waiter;
#endif
			inv[me].recorded = false;
			inv[me].hva = 0;
			inv[me].waiter = false;
			nr_recorded--
		:: else
		fi;
		if
		:: drain_waiter && mn_active_invalidate_count == nr_recorded ->
			drain_waiter = false;
#ifndef BREAK_DRAIN_NO_WAKE		/* nobody tells who waits for the unrecorded */
			wake = true
#endif
		:: else
		fi;
		if
		:: wake ->
			wake_up_all()
		:: else
		fi;
		wake = false;
		assert(nr_recorded <= mn_active_invalidate_count);
		spin_unlock(mn_invalidate_lock)
	}
}

proctype notifier(byte me)
{
	byte hva;
	bool wake;
#ifdef PROGRESS
	byte rounds;
#endif

	do
	::	atomic {
#ifdef PROGRESS
			if
			:: me == 0 && rounds < NR_OVERLAPPING ->
				rounds++;
				if
				:: hva = 0
				:: hva = 1
				fi
			:: me == 0 && rounds == NR_OVERLAPPING ->
				break
			:: me == 1 ->
				hva = ELSEWHERE
			fi
#else
			if
			:: hva = 0
			:: hva = 1
			:: hva = 0; break
			fi
#endif
		}
		kvm_mmu_notifier_invalidate_range_start(me, hva);

		/* The old page is another's from here on. */
		atomic {
			khva_gone = (khva_gone || khva == PAGE(hva));
			pfn_gone[0] = (pfn_gone[0] || pfn[0] == PAGE(hva));
			pfn_gone[1] = (pfn_gone[1] || pfn[1] == PAGE(hva));
			hva = 0
		}

		if
		:: kvm_mmu_notifier_invalidate_range_end(me)
#ifndef PROGRESS
		:: mm_gone ->			/* the notifier is unregistered */
			break
#endif
		fi
	od
}

inline kvm_gpc_close_vm()
{
	atomic {
		spin_lock(mn_invalidate_lock);
		closed = true;
#ifndef BREAK_CLOSE_KEEPS_CACHES	/* what is valid stays so */
		if
		:: in_tree ->
			gpc_take_away()
		:: else
		fi;
#endif
		inv[0].recorded = false;
		inv[0].hva = 0;
		inv[0].waiter = false;
		inv[1].recorded = false;
		inv[1].hva = 0;
		inv[1].waiter = false;
		nr_recorded = 0;
#ifndef BREAK_CLOSE_NO_WAKE		/* who waits for an end that never comes sleeps on */
		wake_up_all();
#endif
		spin_unlock(mn_invalidate_lock)
	}
}

proctype mm_release()
{
	if
	:: kvm_gpc_close_vm();
	   mm_gone = true			/* exit_mmap() */
	:: skip
	fi
}

/* --- Memslots ------------------------------------------------------------- */

proctype memslot_update()
{
	/* kvm_swap_active_memslots(); no ioctl() is left when the mm goes. */
	atomic {
		!mn_invalidate_lock && (mn_active_invalidate_count == 0 || mm_gone) ->
		memslots_generation = 1
	}
	/* synchronize_srcu() */
#ifndef BREAK_NO_SRCU_WAIT		/* the update returns while uses go on */
	srcu_idx = 1;
	srcu_readers[0] == 0;
#endif
	memslot_freed = true
}

/* --- Refresh -------------------------------------------------------------- */

/* With locals of the process: me, ret, may, hva. */

#ifdef BREAK_WAIT_ANY			/* a refresh waits for invalidations elsewhere */
#define overlaps(i)	(inv[i].recorded)
#else
#define overlaps(i)	(inv[i].recorded && inv[i].hva == node)
#endif

#ifdef BREAK_NO_DRAIN			/* nobody waits for the unrecorded */
#define unrecorded()	false
#else
#define unrecorded()	(mn_active_invalidate_count != nr_recorded)
#endif

#ifdef BREAK_CLOSED_UNSEEN		/* a closed VM's cache is refreshed as any */
#define is_closed()	false
#else
#define is_closed()	closed
#endif

#ifdef BREAK_MARK_LATE			/* the mark is set after the records were looked at */
#define mark(i)		late = (i) + 1
#else
#define mark(i)		inv[i].waiter = true
#endif

inline gpc_invalidation_in_progress()
{
	if
	:: unrecorded() ->
		drain_waiter = true
	:: !unrecorded() && overlaps(0) ->
		mark(0)
	:: !unrecorded() && overlaps(1) ->
		mark(1)
	:: else ->
		may = true
	fi
}

inline gpc_lookup_begin()
{
	spin_lock(mn_invalidate_lock);
	may = false;
	if
	:: is_closed() ->
		may = true
	:: else ->
		gpc_invalidation_in_progress()
	fi;
#ifndef BREAK_CLEAR_OUTSIDE		/* start may come between the look and the clear */
	missed = (may -> is_closed() : missed);
#endif
	spin_unlock(mn_invalidate_lock)
}

/* wait_event_killable(kvm->gpcs.wait, gpc_lookup_begin(gpc)) */
inline wait_event_killable()
{
	do
	::	atomic {
#ifndef BREAK_QUEUE_LATE		/* not on the queue when it looks at the records */
			waiting = true;
#endif
			gpc_lookup_begin();
			if
			:: may -> break
			:: else
			fi
		}
#ifdef BREAK_QUEUE_LATE
		waiting = true;
#endif
#ifdef BREAK_MARK_LATE
		atomic {
			if
			:: late != 0 -> inv[late - 1].waiter = true; late = 0
			:: else
			fi
		}
#endif
		if
		:: true -> !waiting			/* schedule() */
#ifndef PROGRESS
		:: break				/* a signal */
#endif
		fi
	od;
#ifdef BREAK_CLEAR_OUTSIDE
	missed = (may -> is_closed() : missed);
#endif
}

inline gpc_tree_move()
{
	atomic {
		spin_lock(mn_invalidate_lock);
#ifdef BREAK_TREE_STAYS			/* invalidations find the cache at its old address */
		if
		:: !in_tree -> node = uhva
		:: else
		fi;
#else
		node = uhva;
#endif
		in_tree = true;
		spin_unlock(mn_invalidate_lock)
	}
}

/* And gpc_unmap(): who uses the address after that uses NONE. */
inline gpc_take_mapping()
{
	valid = false;
	khva = NONE;
	khva_gone = false
}

/* Leaves in @may whether the page is the same. */
inline gpc_bind(gpa_arg)
{
	write_lock_irq();
	may = (valid && hva == uhva);
	gpa = gpa_arg;
	uhva = hva;
	generation = (gpa_arg -> hva : 0);
	valid = may;
	hva = 0
}

inline gpc_publish()
{
	write_lock_irq();
	if
#ifdef BREAK_PUBLISH_UNCHECKED		/* whatever came between lookup and publishing */
	:: false ->
#else
	:: missed ->
#endif
		ret = EAGAIN
	:: else ->
		assert(!mm_gone);
		khva = pfn[me];
		khva_gone = pfn_gone[me];
		valid = true;
		ret = 0
	fi;
	pfn[me] = NONE;
	pfn_gone[me] = false
}

/*
 * In: @gpa_arg and @hva, for which gpc_bind() asked the memslots, if it did; that
 * they change before gpc_bind() goes on is possible.  Ends with the mutex_unlock()
 * of its callers.
 */
inline __gpc_refresh(gpa_arg)
{
	atomic {
		gpc_bind(gpa_arg);
		if
		:: may -> may = false; ret = 0; goto same
		:: else
		fi
	}
#ifndef BREAK_NO_TREE_INSERT		/* start cannot find the cache during the lookup */
	gpc_tree_move();
#endif
	do
	::	wait_event_killable();

		/* hva_to_pfn() and gpc_map(), if it comes to that */
		atomic {
			waiting = false;		/* finish_wait() */
			if
			:: !may || is_closed() ->	/* -EINTR, -EIO */
				ret = EFAILED
			:: may && !is_closed() ->
				pfn[me] = PAGE(uhva)
#ifndef PROGRESS
			:: may && !is_closed() ->	/* -EFAULT */
				ret = EFAILED
#endif
			fi;
			may = false;
			if
			:: ret == EFAILED -> break
			:: else
			fi
		}
		atomic {
			gpc_publish();
			if
			:: ret == 0 -> break
			:: else -> ret = 0		/* -EAGAIN */
			fi
		}
	od;
#ifdef BREAK_NO_TREE_INSERT
	gpc_tree_move();
#endif
	atomic {
		if
		:: ret != 0 ->				/* gpc_drop_mapping() */
			write_lock_irq();
			gpc_take_mapping()
		:: else
		fi;
		missed = true		/* nobody looks at it now: let it be the same always */
	}
same:	mutex_unlock(refresh_lock)
}

/* --- Use ------------------------------------------------------------------ */

#ifdef BREAK_NO_GENERATION		/* a use goes on with an old memslot's page */
#define kvm_gpc_check()	(valid)
#else
#define kvm_gpc_check()	(valid && (!gpa || generation == memslots_generation))
#endif

/*
 * read_lock() and check; only when that says yes the lock is kept, for nobody sees
 * that it was held when it says no.
 */
inline read_lock_check(yes)
{
	yes = kvm_gpc_check();
#ifdef BREAK_CHECK_UNLOCKED		/* start may come between the check and the lock */
}
inline read_lock_late(yes)
{
#endif
	lock_readers = (yes -> lock_readers + 1 : lock_readers)
}

/* The last access, and read_unlock(). */
inline kvm_gpc_unlock()
{
	access();
	lock_readers--
}

inline kvm_gpc_refresh()
{
	atomic {
		mutex_lock(refresh_lock);
		if
		:: is_active ->
			hva = (gpa -> memslots_hva() : uhva)
		:: else ->
			ret = EFAILED			/* -EINVAL */
		fi
	}
	if
	:: ret == 0 -> __gpc_refresh(gpa)
	:: else -> mutex_unlock(refresh_lock)
	fi
}

inline kvm_gpc_lock()
{
	do
	::	atomic {
			read_lock_check(may);
			if
			:: may -> break
			:: else
			fi
		}
		kvm_gpc_refresh();
		if
		:: ret != 0 -> break
		:: else
		fi
	od;
#ifdef BREAK_CHECK_UNLOCKED
	read_lock_late(may)
#endif
}

#ifdef BREAK_MARK_LATE
#define REFRESH_LOCALS	byte ret; bool may; bit hva; byte late
#else
#define REFRESH_LOCALS	byte ret; bool may; bit hva
#endif

proctype user_lock(bit me)
{
	REFRESH_LOCALS;
	bit idx;

#ifdef PROGRESS
	is_active;				/* the activation has the refresh_lock */
#endif
	do
	::	srcu_read_lock(idx);
		kvm_gpc_lock();
#ifdef PROGRESS
		if
		:: may ->
progress:		skip
		:: else
		fi;
#endif
		atomic {
			if
			:: may -> kvm_gpc_unlock()
			:: else
			fi;
			ret = 0;
			may = false;
			srcu_read_unlock(idx)
		}
#ifndef PROGRESS
	::	break
#endif
	od
}

proctype user_trylock()
{
	bool yes;
	bit idx;

	do
	::	atomic {
			srcu_read_lock(idx);
			read_lock_check(yes)
		}
#ifdef BREAK_CHECK_UNLOCKED
		read_lock_late(yes);
#endif
		atomic {
			if
			:: yes -> kvm_gpc_unlock()
			:: else				/* -EAGAIN */
			fi;
			yes = false;
			srcu_read_unlock(idx)
		}
#ifndef PROGRESS
	::	break
#endif
	od
}

/* --- Life ----------------------------------------------------------------- */

inline gpc_activate(gpa_arg)
{
	atomic {
		mutex_lock(refresh_lock);
		if
		:: gpa_arg -> hva = memslots_hva()
		:: else -> hva = 1
		fi;
		if
		:: !is_active ->
			spin_lock(mn_invalidate_lock);
			nr_active++;
			spin_unlock(mn_invalidate_lock)
		:: else
		fi
	}
	atomic {
		write_lock_irq();
		is_active = true;
		deactivated = false
	}
	__gpc_refresh(gpa_arg)
}

inline kvm_gpc_deactivate()
{
	atomic {
		mutex_lock(refresh_lock);
		if
		:: is_active ->
#ifndef BREAK_DEACTIVATE_NO_WAIT	/* readers are not waited for */
			write_lock_irq();
#endif
			is_active = false;
			gpc_take_mapping()
		:: else -> goto inactive
		fi
	}
	atomic {
		spin_lock(mn_invalidate_lock);
		in_tree = false;
		nr_active--;
		spin_unlock(mn_invalidate_lock)
	}
inactive:
	atomic {
		mutex_unlock(refresh_lock);
		deactivated = true
	}
}

proctype vmm(bit me)
{
	REFRESH_LOCALS;
	bool gpa_arg;
	bit idx;

	do
	::	atomic {
			if
			:: gpa_arg = true
#ifndef PROGRESS
			:: gpa_arg = false
#endif
			fi;
			srcu_read_lock(idx)
		}
		gpc_activate(gpa_arg);
		atomic {
			gpa_arg = false;
			ret = 0;
			srcu_read_unlock(idx)
		};
#ifdef PROGRESS
		break
#else
	::	kvm_gpc_deactivate()
	::	break
#endif
	od
}

init
{
	atomic {
		run notifier(0);
#ifndef ONE_NOTIFIER
		run notifier(1);
#endif
		run vmm(0);
		run user_lock(1);
#ifndef NO_MEMSLOT_UPDATE
		run memslot_update();
#endif
#ifndef PROGRESS
		run user_trylock();
#ifndef NO_RELEASE
		run mm_release();
#endif
#endif
	}
}
