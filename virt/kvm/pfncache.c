// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest-page cache: guest physical address -> user virtual address -> page
 * frame -> kernel address, kept until memslots, memory attributes or page tables
 * change.
 */
#include <linux/error-injection.h>
#include <linux/highmem.h>
#include <linux/interval_tree_generic.h>
#include <linux/kvm_host.h>
#include <linux/lockdep.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/wait.h>

#include "kvm_mm.h"

#define CREATE_TRACE_POINTS
#include <trace/events/kvm_gpc.h>

/*
 * Two translations lead to the kernel address, and each can change while KVM
 * uses it.
 *
 * Memslots change rarely: a use compares the cache's generation with that of
 * the memslots, under kvm->srcu.  An update publishes the new memslots and then
 * waits for all readers of srcu, so that a use with the old generation is over
 * before the update returns and the old memslot is freed.
 *
 * What is published does not change, so that what a cache took from its memslot
 * (@dirty_track) stays true.  Only the generation does, in place, when an update is at
 * its end: until then it says that one is in progress, and a cache that was bound in
 * between is bound anew.
 *
 * Page tables change at any time, with the MMU notifier called before and
 * after: invalidate_range_start(), unmap, invalidate_range_end().  A cache holds
 * no reference on its pages, which are given away once start has returned.  So two
 * things must not be: that somebody uses a cache which start has passed, and that
 * a refresh, which looked a page up before the unmapping, publishes it after.
 *
 * For the first, a cache counts its uses, and is open or closed.  A use begins by
 * raising @users, which fails when that is negative, and ends by lowering it, with
 * preemption disabled in between.  Closing makes @users negative and spins until
 * the uses that are left have ended: as a lock for readers and one writer does,
 * but beginning and ending a use never waits, sleeps or wakes anybody.  So both
 * may be done in hard IRQ and under the runqueue lock, on PREEMPT_RT, too, where
 * an rwlock_t could do neither.  What a use reads changes only while the cache is
 * closed.  Opening (a release) pairs with the beginning of a use (an acquire), the
 * end of a use (a release) with closing (an acquire).  Start finds the caches of
 * its range in an interval tree and closes them.
 *
 * For the second, an invalidation leaves a record from start to end.  A refresh
 * closes its cache and puts its pages into the tree; waits until no record overlaps
 * any of them; clears @missed in the same section of mn_invalidate_lock; looks the
 * pages up and maps them, with no spinlock held; and publishes, but only if @missed
 * is still clear.  All of start and end, and all that is said here of a refresh but
 * lookup and mapping, are sections of mn_invalidate_lock.  So for any overlapping
 * invalidation, its
 *
 *	- end came before the refresh's section: the lookup sees the new page
 *	  tables;
 *	- start came before and end did not: the refresh sees the record and
 *	  waits, no lookup is made;
 *	- start came after: it finds the cache in the tree and sets @missed, so
 *	  that nothing is published, and closes the cache in case it was published.
 *
 * There is no fourth case, and invalidations that don't overlap are not in it:
 * they neither delay a refresh nor make it retry, however many there are.
 *
 * The wait ends because an invalidation in progress does not itself wait for
 * refresh_lock, for kvm->srcu or for anything else that is held around a
 * refresh; and if it never ends, because the notifier goes first, because
 * kvm_gpc_close_vm() wakes all.  A user task can be killed in it.  No wake-up is lost:
 * the waiter is on the queue before it looks at the records, marks the one it
 * waits for, and end removes the record and looks for the mark in one section.
 *
 * With no active cache, start leaves no record and does nothing but what
 * kvm_main.c does under the same lock.  A first activation may so meet
 * invalidations that it cannot see.  They are counted all the same, by
 * mn_active_invalidate_count, and a refresh waits until that equals the number
 * of records.  All that start after the activation have records, so it waits
 * for those few that were in progress.  An invalidation whose record cannot be
 * allocated (start can neither sleep nor fail) is waited for in the same way.
 *
 * What is behind a guest physical address changes as well when memory attributes
 * do (private or shared) or a guest_memfd loses pages.  Such a change is an
 * invalidation, too, with start and end around it, but leaves a record of gfns.
 * It finds its caches through the memslots of its time.  One that is bound by other
 * memslots it may not find.  But attributes change under slots_lock, which an update
 * of memslots holds until all readers of srcu are gone, a refresh with the memslots
 * before among them: such a cache has another generation by then, and a refresh that
 * binds it anew looks at the attributes after the change, or sees the record.  (For a
 * guest_memfd it would not matter: what is private is never cached, and the shared
 * page of the same gfn is not the guest_memfd's.)
 *
 * Deactivation does not wait for a refresh, which may sleep for long (in
 * userfaultfd, say).  It sets @missed, so that nothing is published, and clears
 * @active, so that no lookup begins.  While a refresh is under way the mapping is
 * its own, to reuse or undo; otherwise deactivation undoes it.
 *
 * When the VM's mm goes, so does the notifier: its release() closes the VM, and
 * from there on all caches are closed and none can be refreshed.
 *
 * mmu_interval_notifier does as much with one sequence for the whole mm: its
 * wait ends when no invalidation is in progress anywhere, which in a VMM that
 * balloons, migrates or merges memory may be never.  And what changes memslots
 * or memory attributes does not pass through an mm's notifiers.
 *
 * Lock order: kvm->srcu or kvm->slots_lock, gpc->refresh_lock, mm locks,
 * kvm->mn_invalidate_lock, a use of a cache.
 */
#define GPC_CLOSED	INT_MIN	/* @users of a closed cache; uses that still go on add to it */

#define GPC_PAGE_START(page)	((page)->uhva)
#define GPC_PAGE_LAST(page)	((page)->uhva + PAGE_SIZE - 1)

INTERVAL_TREE_DEFINE(struct kvm_gpc_page, rb, unsigned long, subtree_last,
		     GPC_PAGE_START, GPC_PAGE_LAST, static, gpc_tree)

#define GPC_IS_OPEN	1	/* of a refresh: there is nothing to look up */

/* --- Open and closed ------------------------------------------------------ */

static bool gpc_is_open(struct gfn_to_pfn_cache *gpc)
{
	return atomic_read(&gpc->users) >= 0;
}

/* Is it bound by the memslots of the moment? */
static bool gpc_is_current(struct gfn_to_pfn_cache *gpc)
{
	return gpc->gpa == INVALID_GPA ||
	       gpc->generation == READ_ONCE(kvm_memslots(gpc->kvm)->generation);
}

static void gpc_open(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	atomic_set_release(&gpc->users, 0);
}

/* Returns whether it was open. */
static bool gpc_close(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (!gpc_is_open(gpc))
		return false;

	lock_map_acquire(&gpc->dep_map);
	atomic_or(GPC_CLOSED, &gpc->users);
	atomic_cond_read_acquire(&gpc->users, VAL == GPC_CLOSED);
	lock_map_release(&gpc->dep_map);
	return true;
}

/* --- The notifier's side -------------------------------------------------- */

/* Room for twice as many records.  Can neither sleep nor is it a disaster if it fails. */
static noinline int gpc_records_grow(struct kvm_gpcs *gpcs)
{
	struct kvm_gpc_invalidation *new;

	new = kmalloc_array(2 * gpcs->max_recorded, sizeof(*new),
			    GFP_NOWAIT | __GFP_NOMEMALLOC);
	if (!new)
		return -ENOMEM;

	memcpy(new, gpcs->invalidations, gpcs->nr_recorded * sizeof(*new));
	if (gpcs->invalidations != gpcs->first_invalidations)
		kfree(gpcs->invalidations);
	gpcs->invalidations = new;
	gpcs->max_recorded *= 2;
	return 0;
}
ALLOW_ERROR_INJECTION(gpc_records_grow, ERRNO);

/* Close the caches of a user range. */
static void gpc_invalidate(struct kvm *kvm, unsigned long start, unsigned long last)
{
	struct kvm_gpc_page *page;
	unsigned int hits = 0;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	for (page = gpc_tree_iter_first(&kvm->gpcs.tree, start, last); page;
	     page = gpc_tree_iter_next(page, start, last)) {
		page->gpc->missed = true;
		gpc_close(page->gpc);
		hits++;
	}

	kvm->stat.generic.gpc_invalidations++;
	kvm->stat.generic.gpc_invalidation_hits += hits;
	trace_kvm_gpc_invalidate(start, last, hits);
}

/**
 * __kvm_gpc_invalidate_start - take a user range away from the caches
 * @kvm: VM with at least one active cache
 * @range: what is about to be unmapped
 *
 * Context: &kvm.mn_invalidate_lock held, where &kvm.mn_active_invalidate_count
 * was raised.  Does not sleep.
 */
void __kvm_gpc_invalidate_start(struct kvm *kvm, const struct mmu_notifier_range *range)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;
	struct kvm_gpc_invalidation *inv;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	if (likely(gpcs->nr_recorded < gpcs->max_recorded) || !gpc_records_grow(gpcs)) {
		inv = &gpcs->invalidations[gpcs->nr_recorded++];
		inv->range = range;
		inv->waiter = false;
	}

	gpc_invalidate(kvm, range->start, range->end - 1);
}

/**
 * __kvm_gpc_invalidate_end - let refreshes of a user range go on
 * @kvm: VM with an active cache or a record
 * @range: as given to __kvm_gpc_invalidate_start()
 *
 * Context: &kvm.mn_invalidate_lock held, where &kvm.mn_active_invalidate_count
 * was lowered.  Does not sleep.
 */
void __kvm_gpc_invalidate_end(struct kvm *kvm, const struct mmu_notifier_range *range)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;
	struct kvm_gpc_invalidation *inv;
	bool wake = false;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	/* The last to start is most likely the first to end. */
	for (inv = gpcs->invalidations + gpcs->nr_recorded; inv-- > gpcs->invalidations;) {
		if (inv->range == range) {
			wake = inv->waiter;
			*inv = gpcs->invalidations[--gpcs->nr_recorded];
			break;
		}
	}

	if (unlikely(gpcs->drain_waiter) &&
	    kvm->mn_active_invalidate_count == gpcs->nr_recorded) {
		gpcs->drain_waiter = false;
		wake = true;
	}

	if (unlikely(wake))
		wake_up_all(&gpcs->wait);
}

/* --- Changes of what is behind guest physical addresses -------------------- */

/**
 * kvm_gpc_invalidate_gfns_start - take guest memory away from the caches
 * @kvm: VM
 * @inv: record of the change, zeroed before its first use.  Changes may overlap in
 *	 time: refreshes then wait for the end of the last, anywhere from the first
 *	 gfn of all to the last
 * @start: first gfn
 * @end: first gfn behind; not above @start when there is none
 *
 * Context: process; takes &kvm.srcu and &kvm.mn_invalidate_lock.
 */
void kvm_gpc_invalidate_gfns_start(struct kvm *kvm, struct kvm_gpc_gfn_invalidation *inv,
				   gfn_t start, gfn_t end)
{
	struct kvm_memslot_iter iter;
	struct kvm_memory_slot *slot;
	gfn_t first, last;
	bool active;
	int idx;

	spin_lock(&kvm->mn_invalidate_lock);
	if (!inv->nr++) {
		inv->start = start;
		inv->end = end;
		inv->waiter = false;
		list_add(&inv->link, &kvm->gpcs.gfn_invalidations);
	} else {
		inv->start = min(inv->start, start);
		inv->end = max(inv->end, end);
	}
	active = kvm->gpcs.nr_active;
	spin_unlock(&kvm->mn_invalidate_lock);

	/* A cache that is activated from here on sees the record. */
	if (!active || start >= end)
		return;

	idx = srcu_read_lock(&kvm->srcu);
	kvm_for_each_memslot_in_gfn_range(&iter, kvm_memslots(kvm), start, end) {
		slot = iter.slot;
		first = max(start, slot->base_gfn);
		last = min(end, slot->base_gfn + slot->npages) - 1;
		if (first > last)
			continue;

		spin_lock(&kvm->mn_invalidate_lock);
		gpc_invalidate(kvm, __gfn_to_hva_memslot(slot, first),
			       __gfn_to_hva_memslot(slot, last) + PAGE_SIZE - 1);
		spin_unlock(&kvm->mn_invalidate_lock);
	}
	srcu_read_unlock(&kvm->srcu, idx);
}

/**
 * kvm_gpc_invalidate_gfns_end - let refreshes of guest memory go on
 * @kvm: VM
 * @inv: as given to kvm_gpc_invalidate_gfns_start()
 *
 * Context: process; takes &kvm.mn_invalidate_lock.
 */
void kvm_gpc_invalidate_gfns_end(struct kvm *kvm, struct kvm_gpc_gfn_invalidation *inv)
{
	spin_lock(&kvm->mn_invalidate_lock);
	if (!--inv->nr) {
		list_del(&inv->link);
		if (inv->waiter)
			wake_up_all(&kvm->gpcs.wait);
	}
	spin_unlock(&kvm->mn_invalidate_lock);
}

/* --- A VM's caches -------------------------------------------------------- */

/**
 * kvm_gpc_init_vm - prepare a VM for caches
 * @kvm: VM under construction
 */
void kvm_gpc_init_vm(struct kvm *kvm)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;

	gpcs->tree = RB_ROOT_CACHED;
	gpcs->invalidations = gpcs->first_invalidations;
	gpcs->max_recorded = KVM_GPC_NR_INVALIDATIONS;
	INIT_LIST_HEAD(&gpcs->gfn_invalidations);
	init_waitqueue_head(&gpcs->wait);
}

/**
 * kvm_gpc_close_vm - no cache of this VM can be had from here on
 * @kvm: VM whose mm or MMU notifier is about to go, or has gone
 *
 * Takes all caches away and lets no lookup begin: without the notifier nobody
 * would take the pages back.  Caches can still be deactivated.  May be called more
 * than once: the last time, when no notifier runs any more, frees what
 * invalidations left behind that were begun meanwhile.
 */
void kvm_gpc_close_vm(struct kvm *kvm)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;

	spin_lock(&kvm->mn_invalidate_lock);
	gpcs->closed = true;
	gpc_invalidate(kvm, 0, ULONG_MAX);
	gpcs->nr_recorded = 0;
	if (gpcs->invalidations != gpcs->first_invalidations)
		kfree(gpcs->invalidations);
	gpcs->invalidations = gpcs->first_invalidations;
	gpcs->max_recorded = KVM_GPC_NR_INVALIDATIONS;
	wake_up_all(&gpcs->wait);
	spin_unlock(&kvm->mn_invalidate_lock);
}

/* --- Refresh: binding ------------------------------------------------------ */

static unsigned int gpc_nr_pages(unsigned long address, unsigned long len)
{
	return DIV_ROUND_UP(offset_in_page(address) + len, PAGE_SIZE);
}

static bool gpc_in_tree(struct gfn_to_pfn_cache *gpc)
{
	return !RB_EMPTY_NODE(&gpc->pages[0].rb);
}

static void gpc_leave_tree(struct gfn_to_pfn_cache *gpc)
{
	unsigned int i;

	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (!gpc_in_tree(gpc))
		return;
	for (i = 0; i < gpc->nr_pages; i++) {
		gpc_tree_remove(&gpc->pages[i], &gpc->kvm->gpcs.tree);
		RB_CLEAR_NODE(&gpc->pages[i].rb);
	}
}

static void gpc_enter_tree(struct gfn_to_pfn_cache *gpc)
{
	unsigned int i;

	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	for (i = 0; i < gpc->nr_pages; i++)
		gpc_tree_insert(&gpc->pages[i], &gpc->kvm->gpcs.tree);
}

/* The user page that the cache depends on: if another one, it is in the tree no more. */
static void gpc_set_page(struct gfn_to_pfn_cache *gpc, unsigned int i,
			 struct kvm_memory_slot *memslot, unsigned long uhva)
{
	struct kvm_gpc_page *page = &gpc->pages[i];

	page->memslot = memslot;
	if (page->uhva == uhva)
		return;

	gpc_leave_tree(gpc);
	page->uhva = uhva;
}

/*
 * Where does the address lead, by the memslots of the moment?  False when there is no
 * memory that can be written.
 */
static bool gpc_translate(struct gfn_to_pfn_cache *gpc)
{
	struct kvm_memory_slot *memslot;
	struct kvm_memslots *slots;
	unsigned long uhva;
	unsigned int i;
	gfn_t gfn;

	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	gpc->dirty_track = false;

	if (gpc->gpa == INVALID_GPA) {
		for (i = 0; i < gpc->nr_pages; i++)
			gpc_set_page(gpc, i, NULL, PAGE_ALIGN_DOWN(gpc->uhva) + i * PAGE_SIZE);
		return true;
	}

	slots = kvm_memslots(gpc->kvm);
	gpc->generation = READ_ONCE(slots->generation);

	for (i = 0; i < gpc->nr_pages; i++) {
		gfn = gpa_to_gfn(gpc->gpa) + i;
		memslot = __gfn_to_memslot(slots, gfn);
		uhva = gfn_to_hva_memslot(memslot, gfn);
		if (unlikely(kvm_is_error_hva(uhva))) {
			gpc->uhva = KVM_HVA_ERR_BAD;
			return false;
		}
		gpc->dirty_track |= kvm_slot_dirty_track_enabled(memslot);
		gpc_set_page(gpc, i, memslot, uhva);
	}

	gpc->uhva = gpc->pages[0].uhva + offset_in_page(gpc->gpa);
	return true;
}

/*
 * Is an invalidation in progress that a lookup of these pages must wait for?  If so
 * it will wake &kvm_gpcs.wait at its end.
 */
static noinline bool gpc_invalidation_overlaps(struct gfn_to_pfn_cache *gpc)
{
	struct kvm_gpcs *gpcs = &gpc->kvm->gpcs;
	gfn_t gfn = gpa_to_gfn(gpc->gpa);
	struct kvm_gpc_gfn_invalidation *change;
	struct kvm_gpc_invalidation *inv;
	struct kvm_gpc_page *page;

	if (unlikely(gpc->kvm->mn_active_invalidate_count != gpcs->nr_recorded)) {
		gpcs->drain_waiter = true;
		return true;
	}

	for (inv = gpcs->invalidations; inv < gpcs->invalidations + gpcs->nr_recorded; inv++) {
		for (page = gpc->pages; page < gpc->pages + gpc->nr_pages; page++) {
			if (inv->range->start <= GPC_PAGE_LAST(page) &&
			    GPC_PAGE_START(page) < inv->range->end) {
				inv->waiter = true;
				return true;
			}
		}
	}

	if (gpc->gpa == INVALID_GPA)
		return false;

	list_for_each_entry(change, &gpcs->gfn_invalidations, link) {
		if (change->start < gfn + gpc->nr_pages && gfn < change->end) {
			change->waiter = true;
			return true;
		}
	}
	return false;
}

static __always_inline bool gpc_invalidation_in_progress(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	/* Mostly there is none at all. */
	return unlikely(gpc->kvm->mn_active_invalidate_count ||
			!list_empty(&gpc->kvm->gpcs.gfn_invalidations)) &&
	       gpc_invalidation_overlaps(gpc);
}

static bool gpc_has_private_page(struct gfn_to_pfn_cache *gpc)
{
	unsigned int i;

	if (gpc->gpa == INVALID_GPA)
		return false;

	for (i = 0; i < gpc->nr_pages; i++) {
		if (kvm_mem_is_private(gpc->kvm, gpa_to_gfn(gpc->gpa) + i))
			return true;
	}
	return false;
}

static __always_inline bool gpc_is_private(struct gfn_to_pfn_cache *gpc)
{
	return unlikely(kvm_arch_has_private_mem(gpc->kvm)) && gpc_has_private_page(gpc);
}

/*
 * May a lookup begin?  0 if so, and invalidations from here on set @missed; -EAGAIN when
 * it has to wait; or why there can be none.
 */
static __always_inline int gpc_lookup_may_begin(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (unlikely(gpc->kvm->gpcs.closed))
		return -EIO;
	if (unlikely(!gpc->active))
		return -EINVAL;
	if (gpc_invalidation_in_progress(gpc))
		return -EAGAIN;

	gpc->missed = false;
	return 0;
}

static void gpc_make_active(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	WRITE_ONCE(gpc->active, true);
	gpc->kvm->gpcs.nr_active++;
}

/*
 * A refresh that needs no new binding: the memslots are the same.  Returns %true if it is
 * at its end or @ret says that it may begin, has to wait, or cannot be; and %false if the
 * cache is to be bound anew.
 */
static bool gpc_begin(struct gfn_to_pfn_cache *gpc, unsigned long len, int *ret)
{
	bool bound = true;

	spin_lock(&gpc->kvm->mn_invalidate_lock);
	if (unlikely(!gpc->active || len > gpc->len)) {
		*ret = -EINVAL;
	} else if (unlikely(!gpc_in_tree(gpc) || !gpc_is_current(gpc))) {
		bound = false;
	} else if (unlikely(gpc_is_open(gpc))) {
		/* Somebody else has done it, while this one waited for refresh_lock. */
		*ret = GPC_IS_OPEN;
	} else {
		gpc->refreshing = true;
		*ret = gpc_lookup_may_begin(gpc);
	}
	spin_unlock(&gpc->kvm->mn_invalidate_lock);

	return bound;
}

/*
 * Bind the cache to an address, and to where that leads now.  Returns GPC_IS_OPEN if it
 * is: the pages are still those that are mapped, and only the generation or the offset
 * in them were other, if anything.  If not, whether a lookup may begin, as
 * gpc_lookup_may_begin() says.
 */
static int gpc_bind(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long uhva,
		    unsigned long len, bool activate)
{
	unsigned int nr_pages = gpc_nr_pages(gpa == INVALID_GPA ? uhva : gpa, len);
	struct kvm *kvm = gpc->kvm;
	bool was_open;
	int ret;

	spin_lock(&kvm->mn_invalidate_lock);

	if (activate && !gpc->active)
		gpc_make_active(gpc);

	was_open = gpc_close(gpc);

	/* Also when a deactivation came first: it holds until the next activation. */
	gpc->gpa = gpa;
	gpc->uhva = uhva;
	gpc->len = len;
	if (gpc->nr_pages != nr_pages) {
		gpc_leave_tree(gpc);
		gpc->nr_pages = nr_pages;
	}

	if (unlikely(!gpc_translate(gpc))) {
		ret = -EFAULT;
	} else {
		if (!gpc_in_tree(gpc)) {
			was_open = false;
			if (gpc->active)
				gpc_enter_tree(gpc);
		}
		ret = gpc_lookup_may_begin(gpc);
	}

	if (was_open && !ret && !gpc_is_private(gpc)) {
		gpc->khva = gpc->map.base + offset_in_page(gpc->uhva);
		kvm->stat.generic.gpc_refreshes++;
		gpc_open(gpc);
		ret = GPC_IS_OPEN;
	} else {
		gpc->refreshing = gpc->active;
	}
	spin_unlock(&kvm->mn_invalidate_lock);

	return ret;
}

/* --- Refresh: lookup ------------------------------------------------------- */

/* Must a lookup wait?  If not, @ret is what gpc_lookup_may_begin() says. */
static bool gpc_must_wait(struct gfn_to_pfn_cache *gpc, int *ret)
{
	spin_lock(&gpc->kvm->mn_invalidate_lock);
	*ret = gpc_lookup_may_begin(gpc);
	spin_unlock(&gpc->kvm->mn_invalidate_lock);

	return *ret == -EAGAIN;
}

/* Sleep until a lookup may begin.  Adds to @waited, in ns. */
static int gpc_lookup_wait(struct gfn_to_pfn_cache *gpc, u64 *waited)
{
	struct kvm *kvm = gpc->kvm;
	u64 since;
	int ret;

	if (!gpc_must_wait(gpc, &ret))
		return ret;

	since = ktime_get_ns();
	if (wait_event_killable(kvm->gpcs.wait, !gpc_must_wait(gpc, &ret)))
		ret = -EINTR;
	since = ktime_get_ns() - since;
	*waited += since;

	spin_lock(&kvm->mn_invalidate_lock);
	kvm->stat.generic.gpc_refresh_waits++;
	KVM_STATS_LOG_HIST_UPDATE(kvm->stat.generic.gpc_refresh_wait_hist, since);
	spin_unlock(&kvm->mn_invalidate_lock);
	return ret;
}

/* Look up the page frame of a user page, and get a reference if it has one. */
static noinline int gpc_lookup_pfn(unsigned long uhva, kvm_pfn_t *pfn)
{
	*pfn = hva_to_pfn(uhva, false, false, NULL, true, NULL);
	if (unlikely(is_error_noslot_pfn(*pfn)))
		return is_sigpending_pfn(*pfn) ? -EINTR : -EFAULT;
	return 0;
}
ALLOW_ERROR_INJECTION(gpc_lookup_pfn, ERRNO);

static void gpc_put_pages(struct page **pages, unsigned int nr_pages)
{
	unsigned int i;

	for (i = 0; i < nr_pages; i++) {
		if (pages[i])
			put_page(pages[i]);
	}
}

static int gpc_lookup_pfns(struct gfn_to_pfn_cache *gpc, kvm_pfn_t *pfns, struct page **pages)
{
	unsigned int i;
	int ret;

	if (gpc_is_private(gpc))
		return -EFAULT;

	for (i = 0; i < gpc->nr_pages; i++) {
		ret = gpc_lookup_pfn(gpc->pages[i].uhva, &pfns[i]);
		if (unlikely(ret)) {
			gpc_put_pages(pages, i);
			return ret;
		}
		pages[i] = kvm_pfn_to_refcounted_page(pfns[i]);
	}
	return 0;
}

/*
 * Does the old mapping serve again?  It does when only the page tables had changed; but
 * an address in the direct map is asked for anew, it costs nothing.
 */
static bool gpc_map_serves(struct kvm_gpc_map *map, kvm_pfn_t *pfns, unsigned int nr_pages)
{
	return map->nr_pages == nr_pages &&
	       !memcmp(map->pfns, pfns, nr_pages * sizeof(pfns[0]));
}

/* Is there something to be undone, that may as well be used again? */
static bool gpc_is_mapped(struct kvm_gpc_map *map)
{
	return map->type == KVM_GPC_MAP_VMAP || map->type == KVM_GPC_MAP_MEMREMAP;
}

/*
 * Pages will be written behind the back of the page tables, whose entries may be
 * writable and yet clean: say that the pages are dirty, or reclaim drops what is
 * written.  When the cache is published, because nobody has cleaned them since the
 * lookup: that takes an invalidation.
 */
static void gpc_dirty_pages(struct page **pages, unsigned int nr_pages)
{
	unsigned int i;

	for (i = 0; i < nr_pages; i++) {
		if (pages[i] && !PageReserved(pages[i]))
			SetPageDirty(pages[i]);
	}
}

static int gpc_publish(struct gfn_to_pfn_cache *gpc, struct page **pages)
{
	struct kvm *kvm = gpc->kvm;
	int ret = 0;

	spin_lock(&kvm->mn_invalidate_lock);
	if (likely(!gpc->missed)) {
		gpc_dirty_pages(pages, gpc->nr_pages);
		gpc->khva = gpc->map.base + offset_in_page(gpc->uhva);
		gpc->refreshing = false;
		kvm->stat.generic.gpc_refreshes++;
		gpc_open(gpc);
	} else {
		kvm->stat.generic.gpc_refresh_retries++;
		ret = -EAGAIN;
	}
	spin_unlock(&kvm->mn_invalidate_lock);

	return ret;
}

/*
 * Look the pages up, map them and publish, unless an invalidation came between.
 * Returns 0 for done, -EAGAIN for once more, or what failed.
 */
static int gpc_lookup(struct gfn_to_pfn_cache *gpc)
{
	unsigned int nr_pages = gpc->nr_pages;
	struct page *pages[KVM_GPC_MAX_PAGES];
	kvm_pfn_t pfns[KVM_GPC_MAX_PAGES];
	int ret;

	ret = gpc_lookup_pfns(gpc, pfns, pages);
	if (unlikely(ret))
		return ret;

	if (unlikely(gpc_is_mapped(&gpc->map)) && !gpc_map_serves(&gpc->map, pfns, nr_pages))
		kvm_gpc_unmap(&gpc->map);
	if (likely(!gpc_is_mapped(&gpc->map)))
		ret = kvm_gpc_map(&gpc->map, pfns, pages, nr_pages);
	if (likely(!ret))
		ret = gpc_publish(gpc, pages);

	/* From here on invalidation alone keeps the pages. */
	gpc_put_pages(pages, nr_pages);
	return ret;
}

/* --- Refresh --------------------------------------------------------------- */

/*
 * Look the pages up, as often as it takes.  @ret says whether a lookup may begin.  On
 * failure the cache is left closed, unmapped and out of the tree.
 */
static int gpc_finish(struct gfn_to_pfn_cache *gpc, int ret)
{
	unsigned int retries = 0;
	u64 waited = 0;

	lockdep_assert_held(&gpc->refresh_lock);

	/* Page tables are looked up in current->mm: a vCPU's, or borrowed by irqfd. */
	if (unlikely(ret <= 0 && current->mm != gpc->kvm->mm))
		ret = -EFAULT;

	while (ret <= 0) {
		if (unlikely(ret == -EAGAIN))
			ret = gpc_lookup_wait(gpc, &waited);
		if (likely(!ret))
			ret = gpc_lookup(gpc);
		if (likely(ret != -EAGAIN))
			break;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		retries++;
		cond_resched();
	}

	if (unlikely(ret < 0)) {
		kvm_gpc_unmap(&gpc->map);
		spin_lock(&gpc->kvm->mn_invalidate_lock);
		gpc->refreshing = false;
		gpc_leave_tree(gpc);
		gpc->kvm->stat.generic.gpc_refresh_failures++;
		spin_unlock(&gpc->kvm->mn_invalidate_lock);
	}
	if (ret == GPC_IS_OPEN)
		ret = 0;

	trace_kvm_gpc_refresh(gpc, gpc->gpa, gpc->uhva, retries, waited, ret);
	return ret;
}

/*
 * Refresh a cache for a use of @len bytes.  That it succeeded does not mean that the
 * cache is still open when it returns.
 */
static int gpc_refresh(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	int ret;

	if (mutex_lock_killable(&gpc->refresh_lock))
		return -EINTR;

	if (fatal_signal_pending(current))
		ret = -EINTR;
	else if (!gpc_begin(gpc, len, &ret))
		ret = gpc_finish(gpc, gpc_bind(gpc, gpc->gpa, gpc->uhva, gpc->len, false));
	else if (ret != -EINVAL)
		ret = gpc_finish(gpc, ret);

	mutex_unlock(&gpc->refresh_lock);
	return ret;
}

/* --- Use ------------------------------------------------------------------ */

static __always_inline void gpc_use_end(struct gfn_to_pfn_cache *gpc)
{
	rwlock_release(&gpc->dep_map, _RET_IP_);
	(void)atomic_dec_return_release(&gpc->users);
	preempt_enable();
}

/* Begin a use, if the cache is open and bound by the memslots of the moment. */
static __always_inline bool gpc_use_begin(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	preempt_disable();
	if (likely(atomic_inc_unless_negative(&gpc->users))) {
		rwlock_acquire_read(&gpc->dep_map, 0, 1, _RET_IP_);
		if (likely(len <= gpc->len && gpc_is_current(gpc)))
			return true;
		gpc_use_end(gpc);
	} else {
		preempt_enable();
	}
	return false;
}

/* Out of line, for the sake of the use that needs no refresh. */
static noinline void *gpc_refresh_and_use(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	int ret;

	do {
		ret = gpc_refresh(gpc, len);
		if (ret)
			return ERR_PTR(ret);
	} while (!gpc_use_begin(gpc, len));

	return gpc->khva;
}

/* Mark those of the first @len bytes dirty, each page in its memslot. */
static noinline void gpc_mark_dirty(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	unsigned int i, nr_pages = min(gpc_nr_pages(gpc->gpa, len), gpc->nr_pages);

	for (i = 0; i < nr_pages; i++)
		mark_page_dirty_in_slot(gpc->kvm, gpc->pages[i].memslot, gpa_to_gfn(gpc->gpa) + i);
}

/**
 * kvm_gpc_lock - begin to use cached guest memory
 * @gpc: cache
 * @len: bytes from the cache's address that will be used; at most the length
 *	 given at activation
 *
 * Refreshes the cache if it must; for that it waits, asleep, for invalidations in
 * progress of the cache's pages.  The pages stay where they are until
 * kvm_gpc_unlock(); an invalidation of them spins that long, so be short.
 *
 * Context: may sleep; &kvm.srcu held; takes &gfn_to_pfn_cache.refresh_lock.  On
 * success preemption is disabled until kvm_gpc_unlock(), on PREEMPT_RT, too: only raw
 * spinlocks may be taken in between.
 *
 * Return:
 * * the kernel address, or an ERR_PTR(), then nothing is held:
 * * -EINVAL: the cache is not active, or @len is more than was said at activation
 * * -EFAULT: a page has no memslot, is private, or there is none that can be written
 * * -EINTR: killed
 * * -EIO: the VM is being destroyed
 */
void *kvm_gpc_lock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	might_lock(&gpc->refresh_lock);

	if (likely(gpc_use_begin(gpc, len)))
		return gpc->khva;
	return gpc_refresh_and_use(gpc, len);
}

/**
 * kvm_gpc_trylock - begin to use cached guest memory where one cannot sleep
 * @gpc: cache
 * @len: bytes from the cache's address that will be used
 *
 * Context: any, hard IRQ and the scheduler included; &kvm.srcu held.  On success
 * preemption is disabled until kvm_gpc_unlock().
 *
 * Return: the kernel address, or ERR_PTR(-EAGAIN) if the cache is not active, is
 * being changed or has to be refreshed, or if @len is too much; then nothing is held.
 */
void *kvm_gpc_trylock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	return gpc_use_begin(gpc, len) ? gpc->khva : ERR_PTR(-EAGAIN);
}

/**
 * kvm_gpc_unlock - end the use of memory that was, or may have been, written
 * @gpc: cache that kvm_gpc_lock() or kvm_gpc_trylock() locked
 * @len: bytes from the cache's address that may have been written
 *
 * Marks the pages of these bytes dirty, each in its memslot.
 *
 * Context: that of the lock; with a dirty ring, a vCPU's.
 */
void kvm_gpc_unlock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	if (unlikely(gpc->dirty_track))
		gpc_mark_dirty(gpc, len);
	gpc_use_end(gpc);
}

/**
 * kvm_gpc_unlock_clean - end a use that makes no page dirty
 * @gpc: cache that kvm_gpc_lock() or kvm_gpc_trylock() locked
 *
 * For memory that was only read, or that by its ABI is not tracked.
 *
 * Context: that of the lock.
 */
void kvm_gpc_unlock_clean(struct gfn_to_pfn_cache *gpc)
{
	gpc_use_end(gpc);
}

/* --- Life ----------------------------------------------------------------- */

/**
 * kvm_gpc_init - prepare a cache
 * @gpc: zeroed memory
 * @kvm: VM that it belongs to
 */
void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm)
{
	static struct lock_class_key use_key;
	unsigned int i;

	atomic_set(&gpc->users, GPC_CLOSED);
	mutex_init(&gpc->refresh_lock);
	lockdep_init_map_wait(&gpc->dep_map, "kvm_gpc_use", &use_key, 0, LD_WAIT_SPIN);

	gpc->kvm = kvm;
	gpc->gpa = INVALID_GPA;
	gpc->uhva = KVM_HVA_ERR_BAD;
	for (i = 0; i < KVM_GPC_MAX_PAGES; i++) {
		gpc->pages[i].gpc = gpc;
		RB_CLEAR_NODE(&gpc->pages[i].rb);
	}
}

static int gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long uhva,
			unsigned long len)
{
	int ret;

	if (mutex_lock_killable(&gpc->refresh_lock))
		return -EINTR;

	ret = gpc_finish(gpc, gpc_bind(gpc, gpa, uhva, len, true));
	trace_kvm_gpc_activate(gpc, gpa, gpc->uhva, len, ret);

	mutex_unlock(&gpc->refresh_lock);
	return ret;
}

/**
 * kvm_gpc_activate - bind a cache to a guest physical address
 * @gpc: cache, active or not
 * @gpa: guest physical address
 * @len: bytes from there that uses will touch; must not cross the page's end
 *
 * Also looks the page up.  When there is none now the cache is active all the same,
 * and each use tries again.
 *
 * Context: may sleep; &kvm.srcu held; takes &gfn_to_pfn_cache.refresh_lock.
 *
 * Return: 0, or an error as of kvm_gpc_lock().  With -EINVAL because of @gpa or @len the
 * cache is as it was before.
 */
int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len)
{
	if (gpc_nr_pages(gpa, len) != 1)
		return -EINVAL;

	if (gpa == INVALID_GPA)
		return -EINVAL;

	return gpc_activate(gpc, gpa, KVM_HVA_ERR_BAD, len);
}

/**
 * kvm_gpc_activate_span - bind a cache to memory that may cross the end of a page
 * @gpc: cache, active or not
 * @gpa: guest physical address
 * @len: bytes from there that uses will touch, at most PAGE_SIZE
 *
 * As kvm_gpc_activate(), for an ABI that has a guest put its structure where it
 * likes.  The pages may lie in two memslots; both must be there.
 *
 * Context: may sleep; &kvm.srcu held; takes &gfn_to_pfn_cache.refresh_lock.
 *
 * Return: as kvm_gpc_activate().
 */
int kvm_gpc_activate_span(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len)
{
	if (gpa == INVALID_GPA || !len || len > PAGE_SIZE)
		return -EINVAL;

	return gpc_activate(gpc, gpa, KVM_HVA_ERR_BAD, len);
}

/**
 * kvm_gpc_activate_hva - bind a cache to a user virtual address
 * @gpc: cache, active or not
 * @uhva: address in the VMM
 * @len: bytes from there that uses will touch; must not cross the page's end
 *
 * As kvm_gpc_activate(), but whatever memslots are there.
 *
 * Context: may sleep; takes &gfn_to_pfn_cache.refresh_lock.
 *
 * Return: as kvm_gpc_activate().
 */
int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len)
{
	if (gpc_nr_pages(uhva, len) != 1 || !access_ok((void __user *)uhva, len))
		return -EINVAL;

	return gpc_activate(gpc, INVALID_GPA, uhva, len);
}

/**
 * kvm_gpc_deactivate - give a cache's pages back
 * @gpc: cache, active or not
 *
 * Spins until uses have ended, but does not wait for a refresh: that fails with
 * -EINVAL when it comes to it.  Before the cache is freed its user has to see to it that
 * none is under way, nor begins.
 *
 * Context: may sleep.
 */
void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	struct kvm_gpc_map map = {};

	spin_lock(&kvm->mn_invalidate_lock);
	if (gpc->active) {
		WRITE_ONCE(gpc->active, false);
		gpc->missed = true;
		kvm->gpcs.nr_active--;
		gpc_close(gpc);
		gpc_leave_tree(gpc);
		if (!gpc->refreshing)
			swap(map, gpc->map);
		wake_up_all(&kvm->gpcs.wait);
	}
	spin_unlock(&kvm->mn_invalidate_lock);

	kvm_gpc_unmap(&map);
}
