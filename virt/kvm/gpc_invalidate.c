// SPDX-License-Identifier: GPL-2.0-only
/*
 * Invalidation of guest-page caches: which caches the MMU notifier or a change of
 * memory attributes closes, and which invalidations a refresh waits for.
 *
 * A cache holds no reference on its pages, which are given away once
 * invalidate_range_start() has returned.  Prevent two races: using a cache after
 * invalidate_range_start() has processed it, and publishing a page that was looked up
 * before it was unmapped.
 *
 * Start records its range and closes the caches of that range, which it finds in an
 * interval tree: a cache is in the tree from the moment that its user pages are known.
 * End removes the record.  Start, end, and the refresh's begin and publish are each
 * one section of kvm->mn_invalidate_lock.  So only these orders exist:
 *
 *	invalidation                       refresh of an overlapping page
 *	--------------------------------   ---------------------------------------------
 *   1.	start: record
 *	unmap
 *	end: remove the record
 *	                                   begin: no record overlaps, LOOKUP
 *	                                   look up: sees the new page tables
 *	                                   publish: OPEN
 *
 *   2.	start: record
 *	                                   begin: the record overlaps, wait
 *	unmap
 *	end: remove the record, wake
 *	                                   begin: as 1.
 *
 *   3.	                                   begin: no record overlaps, LOOKUP
 *	                                   look up: may see the old page
 *	start: record, LOOKUP to CLOSED
 *	                                   publish: not LOOKUP, begin again: 2. or 1.
 *
 *   4.	                                   begin, look up, publish: OPEN
 *	start: record, OPEN to CLOSED,
 *	  waits for the uses
 *	unmap
 *
 * Invalidations that do not overlap neither delay a refresh nor make it begin again.
 *
 * With no active cache, start leaves no record.  A first activation can so meet
 * invalidations in progress that have none, as can any refresh when a record could not
 * be allocated.  They are counted by mn_active_invalidate_count: a refresh waits while
 * that differs from the number of records.
 *
 * No wake-up is lost: the waiter is on the wait queue before it looks at the records
 * and marks one.  End removes the record and reads the mark in one section.
 */
#include <linux/error-injection.h>
#include <linux/interval_tree_generic.h>
#include <linux/kvm_host.h>
#include <linux/lockdep.h>
#include <linux/mmu_notifier.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "gpc_lock.h"
#include "kvm_mm.h"

#define CREATE_TRACE_POINTS
#include <trace/events/kvm_gpc.h>

#define GPC_PAGE_START(page)	((page)->uhva)
#define GPC_PAGE_LAST(page)	((page)->uhva + PAGE_SIZE - 1)

INTERVAL_TREE_DEFINE(struct kvm_gpc_page, rb, unsigned long, subtree_last,
		     GPC_PAGE_START, GPC_PAGE_LAST, static, gpc_tree)

/* Add the first @nr_pages pages of a cache to the tree. */
void gpc_link(struct gfn_to_pfn_cache *gpc, unsigned int nr_pages)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	while (gpc->nr_pages < nr_pages)
		gpc_tree_insert(&gpc->pages[gpc->nr_pages++], &gpc->kvm->gpcs.tree);
}

/*
 * Remove all pages of a cache from the tree.  While hardware has the address of a page, the
 * cache is in the tree or the request is pending.
 */
void gpc_unlink(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (gpc->nr_pages && gpc->vcpu)
		kvm_make_request(KVM_REQ_GUEST_PAGES, gpc->vcpu);

	while (gpc->nr_pages)
		gpc_tree_remove(&gpc->pages[--gpc->nr_pages], &gpc->kvm->gpcs.tree);
}

/* Close a cache: its uses have ended, nothing that is being looked up is published. */
void gpc_close(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (gpc->state == KVM_GPC_OPEN)
		gpc_write_lock(&gpc->lock);
	WRITE_ONCE(gpc->state, KVM_GPC_CLOSED);
}

/*
 * Close the caches of a range.  Returns true if hardware uses the page of one of them: wait
 * until its vCPU has left guest mode, with no lock held.
 */
static bool gpc_invalidate(struct kvm *kvm, unsigned long start, unsigned long last)
{
	struct kvm_gpc_page *page;
	unsigned int hits = 0;
	bool guest = false;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	for (page = gpc_tree_iter_first(&kvm->gpcs.tree, start, last); page;
	     page = gpc_tree_iter_next(page, start, last)) {
		gpc_close(page->gpc);
		hits++;
		/* Also if it was closed: the closer may not have kicked the vCPU yet. */
		if (page->gpc->vcpu) {
			kvm_make_request(KVM_REQ_GUEST_PAGES, page->gpc->vcpu);
			guest = true;
		}
	}

	kvm->stat.generic.gpc_invalidations++;
	kvm->stat.generic.gpc_invalidation_hits += hits;
	trace_kvm_gpc_invalidate(start, last, hits);
	return guest;
}

/*
 * Make room for twice as many records.  Must not sleep.  Failure is tolerated: the
 * invalidation goes unrecorded, and all refreshes wait for it.
 *
 * An array of a fixed size would make all refreshes of a large VM wait whenever more
 * invalidations than that are in progress: each of hundreds of vCPU threads may sleep in
 * its own invalidation (NUMA balancing).
 */
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

/*
 * The start of an invalidation, in a VM with an active cache.  Called under
 * kvm->mn_invalidate_lock, in the section that raises mn_active_invalidate_count.  Does
 * not sleep.  Returns as gpc_invalidate().
 */
bool __kvm_gpc_invalidate_start(struct kvm *kvm, const struct mmu_notifier_range *range)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	if (gpcs->nr_recorded < gpcs->max_recorded || !gpc_records_grow(gpcs)) {
		gpcs->invalidations[gpcs->nr_recorded++] =
			(struct kvm_gpc_invalidation){ .range = range };
	}

	return gpc_invalidate(kvm, range->start, range->end - 1);
}

/*
 * The end of an invalidation, in a VM with an active cache or a record.  Called under
 * kvm->mn_invalidate_lock, in the section that lowers mn_active_invalidate_count.  Does
 * not sleep.
 */
void __kvm_gpc_invalidate_end(struct kvm *kvm, const struct mmu_notifier_range *range)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;
	struct kvm_gpc_invalidation *inv;
	bool wake = true;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	/* The last to start is most likely the first to end. */
	for (inv = gpcs->invalidations + gpcs->nr_recorded; inv-- > gpcs->invalidations;) {
		if (inv->range == range) {
			wake = inv->waiter;
			*inv = gpcs->invalidations[--gpcs->nr_recorded];
			break;
		}
	}

	/* Any refresh may wait for an invalidation without a record. */
	if (wake)
		wake_up_all(&gpcs->wait);
}

/*
 * Is an invalidation in progress that a lookup of the cache's pages must wait for?  If
 * so, its end wakes kvm->gpcs.wait.
 */
bool __gpc_must_wait(struct gfn_to_pfn_cache *gpc)
{
	struct kvm_gpcs *gpcs = &gpc->kvm->gpcs;
	gfn_t gfn = gpa_to_gfn(gpc->gpa);
	struct kvm_gpc_invalidation *inv;
	unsigned int i;

	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (gpc->kvm->mn_active_invalidate_count != gpcs->nr_recorded)
		return true;

	for (inv = gpcs->invalidations; inv < gpcs->invalidations + gpcs->nr_recorded; inv++) {
		for (i = 0; i < gpc->nr_pages; i++) {
			if (inv->range->start <= GPC_PAGE_LAST(&gpc->pages[i]) &&
			    GPC_PAGE_START(&gpc->pages[i]) < inv->range->end) {
				inv->waiter = true;
				return true;
			}
		}
	}

	return gpc->gpa != INVALID_GPA &&
	       gpcs->gfn_start < gfn + gpc->nr_pages && gfn < gpcs->gfn_end;
}

#ifdef CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES
/*
 * Memory attributes of [@start, @end) are about to change, private to shared or back.
 * slots_lock, held until kvm_gpc_invalidate_gfns_end(), allows one change at a time.
 *
 * Caches are found through the memslots of the moment.  A cache that is bound by older
 * ones may be missed.  But an update of memslots, which takes slots_lock, waits for all
 * readers of kvm->srcu: such a cache is bound anew before its next use, and its lookup
 * waits for the change or sees the new attributes.
 *
 * Returns as gpc_invalidate().
 */
bool kvm_gpc_invalidate_gfns_start(struct kvm *kvm, gfn_t start, gfn_t end)
{
	struct kvm_memslot_iter iter;
	struct kvm_memory_slot *slot;
	gfn_t first, last;
	bool active, guest = false;

	lockdep_assert_held(&kvm->slots_lock);

	spin_lock(&kvm->mn_invalidate_lock);
	kvm->gpcs.gfn_start = start;
	kvm->gpcs.gfn_end = end;
	active = kvm->gpcs.nr_active;
	spin_unlock(&kvm->mn_invalidate_lock);

	/* A cache that is activated from here on waits for the change. */
	if (!active)
		return false;

	kvm_for_each_memslot_in_gfn_range(&iter, kvm_memslots(kvm), start, end) {
		slot = iter.slot;
		first = max(start, slot->base_gfn);
		last = min(end, slot->base_gfn + slot->npages) - 1;
		if (first > last)
			continue;

		spin_lock(&kvm->mn_invalidate_lock);
		guest |= gpc_invalidate(kvm, __gfn_to_hva_memslot(slot, first),
					__gfn_to_hva_memslot(slot, last) + PAGE_SIZE - 1);
		spin_unlock(&kvm->mn_invalidate_lock);
	}
	return guest;
}

void kvm_gpc_invalidate_gfns_end(struct kvm *kvm)
{
	spin_lock(&kvm->mn_invalidate_lock);
	kvm->gpcs.gfn_end = 0;
	spin_unlock(&kvm->mn_invalidate_lock);

	wake_up_all(&kvm->gpcs.wait);
}
#endif

void kvm_gpc_init_vm(struct kvm *kvm)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;

	gpcs->tree = RB_ROOT_CACHED;
	gpcs->invalidations = gpcs->first_invalidations;
	gpcs->max_recorded = KVM_GPC_NR_INVALIDATIONS;
	init_waitqueue_head(&gpcs->wait);
}

/*
 * Close all caches of a VM whose mm or MMU notifier is about to go or has gone, and let
 * no lookup begin: without the notifier, nothing would invalidate the pages.  Caches can
 * still be deactivated.  Called when the mm goes, and again when no notifier runs any
 * more, for the records of invalidations that started in between.  No vCPU runs.
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
	spin_unlock(&kvm->mn_invalidate_lock);

	wake_up_all(&gpcs->wait);
}
