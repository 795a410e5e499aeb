// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest-page cache: guest physical address -> user virtual address -> page
 * frame -> kernel address, kept until memslots or page tables change.
 */
#include <linux/highmem.h>
#include <linux/interval_tree.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kvm_host.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "kvm_mm.h"

/*
 * Two translations lead to the kernel address, and each can change while KVM
 * uses it.
 *
 * Memslots change rarely: a use compares the cache's generation with that of
 * the memslots, under kvm->srcu.  An update publishes the new memslots and then
 * waits for all readers of srcu, so that a use with the old generation is over
 * before the update returns and the old memslot is freed.
 *
 * Page tables change at any time, with the MMU notifier called before and
 * after: invalidate_range_start(), unmap, invalidate_range_end().  A cache holds
 * no reference on its page, which is given away once start has returned.  So two
 * things must not be: that a reader uses a cache which start has passed, and that
 * a refresh, which looked the page up before the unmapping, publishes it after.
 *
 * For the first, start finds the caches of its range in an interval tree and
 * clears @valid with the cache's lock held for write.  Readers hold it for read
 * from their check to their last access.
 *
 * For the second, an invalidation leaves a record from start to end.  A refresh
 * puts its cache into the tree; waits until no record overlaps its page; clears
 * @missed in the same section of mn_invalidate_lock; looks the page up and maps
 * it, with no spinlock held; and publishes with the cache's lock held for write,
 * but only if @missed is still clear.  All of start and end, and all that is
 * said here of a refresh but lookup, mapping and publishing, are sections of
 * mn_invalidate_lock.  So for any overlapping invalidation, its
 *
 *	- end came before the refresh's section: the lookup sees the new page
 *	  tables;
 *	- start came before and end did not: the refresh sees the record and
 *	  waits, no lookup is made;
 *	- start came after: it finds the cache in the tree and sets @missed, so
 *	  that nothing is published, and clears @valid in case it already was.
 *
 * There is no fourth case, and invalidations that don't overlap are not in it:
 * they neither delay a refresh nor make it retry, however many there are.
 *
 * The wait ends because an invalidation in progress does not itself wait for
 * refresh_lock, for kvm->srcu or for anything else that is held around a
 * refresh; and if it never ends, because the notifier goes first, because
 * kvm_gpc_close_vm() wakes all.  A task can be killed in it.  No wake-up is lost:
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
 * When the VM's mm goes, so does the notifier: its release() closes the VM, and
 * from there on all caches are invalid and none can be refreshed.
 *
 * mmu_interval_notifier does as much with one sequence for the whole mm: its
 * wait ends when no invalidation is in progress anywhere, which in a VMM that
 * balloons, migrates or merges memory may be never.  And what changes memslots
 * or memory attributes does not pass through an mm's notifiers.
 *
 * Lock order: kvm->srcu or kvm->slots_lock, gpc->refresh_lock, mm locks,
 * kvm->mn_invalidate_lock, gpc->lock.
 */
struct gpc_invalidation {
	struct list_head link;
	const struct mmu_notifier_range *range;	/* start and end get the same one */
	unsigned long start;
	unsigned long last;
	bool waiter;
};

/* --- The notifier's side -------------------------------------------------- */

static struct gpc_invalidation *gpc_record_get(struct kvm_gpcs *gpcs)
{
	struct gpc_invalidation *inv;

	inv = list_first_entry_or_null(&gpcs->spare, typeof(*inv), link);
	if (likely(inv)) {
		list_del(&inv->link);
		return inv;
	}
	return kmalloc(sizeof(*inv), GFP_NOWAIT | __GFP_NOMEMALLOC);
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
	unsigned long start = range->start, last = range->end - 1;
	struct kvm_gpcs *gpcs = &kvm->gpcs;
	struct interval_tree_node *node;
	struct gpc_invalidation *inv;
	struct gfn_to_pfn_cache *gpc;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	inv = gpc_record_get(gpcs);
	if (likely(inv)) {
		inv->range = range;
		inv->start = start;
		inv->last = last;
		inv->waiter = false;
		list_add(&inv->link, &gpcs->invalidations);
		gpcs->nr_recorded++;
	}

	for (node = interval_tree_iter_first(&gpcs->tree, start, last); node;
	     node = interval_tree_iter_next(node, start, last)) {
		gpc = container_of(node, struct gfn_to_pfn_cache, node);

		write_lock_irq(&gpc->lock);
		gpc->valid = false;
		gpc->missed = true;
		write_unlock_irq(&gpc->lock);
	}
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
	struct gpc_invalidation *inv;
	bool wake = false;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	list_for_each_entry(inv, &gpcs->invalidations, link) {
		if (inv->range == range) {
			list_move(&inv->link, &gpcs->spare);
			gpcs->nr_recorded--;
			wake = inv->waiter;
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

/* --- A VM's caches -------------------------------------------------------- */

/**
 * kvm_gpc_init_vm - prepare a VM for caches
 * @kvm: VM under construction
 */
void kvm_gpc_init_vm(struct kvm *kvm)
{
	struct kvm_gpcs *gpcs = &kvm->gpcs;

	gpcs->tree = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&gpcs->invalidations);
	INIT_LIST_HEAD(&gpcs->spare);
	init_waitqueue_head(&gpcs->wait);
}

/**
 * kvm_gpc_close_vm - no cache of this VM can be had from here on
 * @kvm: VM whose mm or MMU notifier is about to go, or has gone
 *
 * Takes all caches away and lets no lookup begin: without the notifier nobody
 * would take the page back.  Caches can still be deactivated.  May be called more
 * than once: the last time, when no notifier runs any more, frees what
 * invalidations left behind that were begun meanwhile.
 */
void kvm_gpc_close_vm(struct kvm *kvm)
{
	const struct mmu_notifier_range everything = { .start = 0, .end = ULONG_MAX };
	struct kvm_gpcs *gpcs = &kvm->gpcs;
	struct gpc_invalidation *inv, *next;
	LIST_HEAD(records);

	spin_lock(&kvm->mn_invalidate_lock);
	WRITE_ONCE(gpcs->closed, true);
	__kvm_gpc_invalidate_start(kvm, &everything);
	list_splice_init(&gpcs->invalidations, &records);
	list_splice_init(&gpcs->spare, &records);
	gpcs->nr_recorded = 0;
	wake_up_all(&gpcs->wait);
	spin_unlock(&kvm->mn_invalidate_lock);

	list_for_each_entry_safe(inv, next, &records, link)
		kfree(inv);
}

/* --- Lookup and mapping --------------------------------------------------- */

/*
 * Is there an invalidation in progress that a lookup of this page must wait
 * for?  If so it will wake &kvm_gpcs.wait at its end.
 */
static bool gpc_invalidation_in_progress(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	struct gpc_invalidation *inv;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	if (unlikely(kvm->mn_active_invalidate_count != kvm->gpcs.nr_recorded)) {
		kvm->gpcs.drain_waiter = true;
		return true;
	}

	list_for_each_entry(inv, &kvm->gpcs.invalidations, link) {
		if (inv->start <= gpc->node.last && gpc->node.start <= inv->last) {
			inv->waiter = true;
			return true;
		}
	}
	return false;
}

/* May a lookup begin?  If so, invalidations from here on set @missed. */
static bool gpc_lookup_begin(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	bool may;

	spin_lock(&kvm->mn_invalidate_lock);
	may = kvm->gpcs.closed || !gpc_invalidation_in_progress(gpc);
	/* Set when closed, to stay so: nothing is published any more. */
	if (may)
		gpc->missed = kvm->gpcs.closed;
	spin_unlock(&kvm->mn_invalidate_lock);

	return may;
}

/* May the page be highmem, the one kind of RAM that has no address of its own? */
static bool gpc_pfn_is_highmem(kvm_pfn_t pfn)
{
	return pfn_valid(pfn) && PageHighMem(pfn_to_page(pfn));
}

/*
 * Is the page in the direct map?  Not if it has no struct page, nor, perhaps, if
 * it is reserved: it may then lie in a hole of the memory map.
 */
static bool gpc_pfn_is_lowmem(kvm_pfn_t pfn)
{
	return pfn_valid(pfn) && (!PageReserved(pfn_to_page(pfn)) ||
				  is_zone_device_page(pfn_to_page(pfn)));
}

/* The kernel address of the page's first byte, or NULL.  May sleep. */
static void *gpc_map(kvm_pfn_t pfn)
{
	if (gpc_pfn_is_highmem(pfn)) {
		struct page *page = pfn_to_page(pfn);

		return vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	}

	if (gpc_pfn_is_lowmem(pfn))
		return page_address(pfn_to_page(pfn));

#ifdef CONFIG_HAS_IOMEM
	/* memremap() would warn of a page that is RAM only in part. */
	if (region_intersects(pfn_to_hpa(pfn), PAGE_SIZE, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_MIXED)
		return memremap(pfn_to_hpa(pfn), PAGE_SIZE, MEMREMAP_WB);
#endif
	return NULL;
}

/*
 * Undo gpc_map().  The address says what was done, not the page: nobody has a
 * reference on it, and by now it may be another's.
 */
static void gpc_unmap(kvm_pfn_t pfn, void *khva)
{
	khva = PTR_ALIGN_DOWN(khva, PAGE_SIZE);
	if (!is_vmalloc_addr(khva))
		return;

	if (gpc_pfn_is_highmem(pfn))
		vunmap(khva);
#ifdef CONFIG_HAS_IOMEM
	else
		memunmap(khva);
#endif
}

/* --- Refresh -------------------------------------------------------------- */

static void gpc_tree_remove(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	if (RB_EMPTY_NODE(&gpc->node.rb))
		return;
	interval_tree_remove(&gpc->node, &gpc->kvm->gpcs.tree);
	RB_CLEAR_NODE(&gpc->node.rb);
}

/* Let invalidations of the page of @uhva, and no other, find the cache. */
static void gpc_tree_move(struct gfn_to_pfn_cache *gpc, unsigned long uhva)
{
	struct kvm_gpcs *gpcs = &gpc->kvm->gpcs;
	unsigned long start = PAGE_ALIGN_DOWN(uhva);

	spin_lock(&gpc->kvm->mn_invalidate_lock);
	if (RB_EMPTY_NODE(&gpc->node.rb) || gpc->node.start != start) {
		gpc_tree_remove(gpc);
		gpc->node.start = start;
		gpc->node.last = start + PAGE_SIZE - 1;
		interval_tree_insert(&gpc->node, &gpcs->tree);
	}
	spin_unlock(&gpc->kvm->mn_invalidate_lock);
}

/* Take the mapping away from the cache; the caller unmaps it, without the lock. */
static void *gpc_take_mapping(struct gfn_to_pfn_cache *gpc, kvm_pfn_t *pfn)
{
	void *khva = gpc->khva;

	lockdep_assert_held_write(&gpc->lock);

	*pfn = gpc->pfn;
	gpc->valid = false;
	gpc->pfn = KVM_PFN_ERR_FAULT;
	gpc->khva = NULL;
	return khva;
}

static void gpc_drop_mapping(struct gfn_to_pfn_cache *gpc)
{
	kvm_pfn_t pfn;
	void *khva;

	write_lock_irq(&gpc->lock);
	khva = gpc_take_mapping(gpc, &pfn);
	write_unlock_irq(&gpc->lock);

	gpc_unmap(pfn, khva);
}

/*
 * Bind the cache to an address: memslots to user address.  Returns 1 when the
 * page is still the one that is mapped, and only its generation or the offset in
 * it were other; 0 when it is to be looked up; -EFAULT when there is none that
 * can be written.
 */
static int gpc_bind(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long uhva,
		    unsigned long len)
{
	struct kvm_memory_slot *memslot = NULL;
	u64 generation = 0;
	bool same;

	if (gpa != INVALID_GPA) {
		struct kvm_memslots *slots = kvm_memslots(gpc->kvm);
		gfn_t gfn = gpa_to_gfn(gpa);

		memslot = __gfn_to_memslot(slots, gfn);
		generation = slots->generation;
		uhva = gfn_to_hva_memslot(memslot, gfn);
		if (!kvm_is_error_hva(uhva))
			uhva += offset_in_page(gpa);
	}

	write_lock_irq(&gpc->lock);
	same = gpc->valid && !kvm_is_error_hva(uhva) &&
	       PAGE_ALIGN_DOWN(uhva) == PAGE_ALIGN_DOWN(gpc->uhva);
	gpc->gpa = gpa;
	gpc->uhva = uhva;
	gpc->len = len;
	gpc->memslot = memslot;
	gpc->generation = generation;
	gpc->valid = same;
	if (same)
		gpc->khva = PTR_ALIGN_DOWN(gpc->khva, PAGE_SIZE) + offset_in_page(uhva);
	write_unlock_irq(&gpc->lock);

	return kvm_is_error_hva(uhva) ? -EFAULT : same;
}

/*
 * Look the page up, map it and publish it, unless an invalidation came between.
 * Returns 0 for done, -EAGAIN for once more, or what failed.
 */
static int gpc_lookup(struct gfn_to_pfn_cache *gpc)
{
	kvm_pfn_t pfn, old_pfn = gpc->pfn;
	void *khva, *old_khva = gpc->khva;
	bool published;

	pfn = hva_to_pfn(gpc->uhva, false, false, NULL, true, NULL);
	if (is_error_noslot_pfn(pfn))
		return -EFAULT;

	/* The old mapping serves again when only the page tables had changed. */
	if (pfn == old_pfn)
		khva = PTR_ALIGN_DOWN(old_khva, PAGE_SIZE);
	else
		khva = gpc_map(pfn);
	if (!khva) {
		kvm_release_pfn_clean(pfn);
		return -EFAULT;
	}

	write_lock_irq(&gpc->lock);
	published = !gpc->missed;
	if (published) {
		gpc->pfn = pfn;
		gpc->khva = khva + offset_in_page(gpc->uhva);
		gpc->valid = true;
	}
	write_unlock_irq(&gpc->lock);

	if (pfn != old_pfn) {
		if (published)
			gpc_unmap(old_pfn, old_khva);
		else
			gpc_unmap(pfn, khva);
	}

	/*
	 * From here on invalidation alone keeps the page.  It will be written
	 * behind the back of the page tables, whose entry may be writable and yet
	 * clean: say now that the page is dirty, or reclaim drops what is written.
	 */
	kvm_release_pfn_dirty(pfn);
	return published ? 0 : -EAGAIN;
}

static int __gpc_refresh(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long uhva,
			 unsigned long len)
{
	int ret;

	lockdep_assert_held(&gpc->refresh_lock);

	if (!gpc->active)
		return -EINVAL;

	ret = gpc_bind(gpc, gpa, uhva, len);
	if (ret > 0)
		return 0;
	if (ret < 0)
		goto fail;

	/* Page tables are looked up in current->mm: a vCPU's, or borrowed by irqfd. */
	ret = -EFAULT;
	if (current->mm != gpc->kvm->mm)
		goto fail;

	gpc_tree_move(gpc, gpc->uhva);

	do {
		ret = wait_event_killable(gpc->kvm->gpcs.wait, gpc_lookup_begin(gpc));
		if (ret || fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		ret = READ_ONCE(gpc->kvm->gpcs.closed) ? -EIO : gpc_lookup(gpc);
		cond_resched();
	} while (ret == -EAGAIN);

	if (!ret)
		return 0;
fail:
	gpc_drop_mapping(gpc);
	return ret;
}

/* Do @len bytes from the address fit into what the cache can map? */
static bool gpc_fits(gpa_t gpa, unsigned long uhva, unsigned long len)
{
	unsigned long offset = gpa != INVALID_GPA ? offset_in_page(gpa) :
						    offset_in_page(uhva);

	return len <= PAGE_SIZE - offset;
}

/**
 * kvm_gpc_refresh - look the page of a cache up again
 * @gpc: cache
 * @len: bytes that will be used
 *
 * Waits, asleep, for invalidations in progress that overlap the page.  That it
 * succeeded does not mean that the cache is still valid when it returns.
 *
 * Context: may sleep; &kvm.srcu held; takes &gfn_to_pfn_cache.refresh_lock.
 *
 * Return: 0, or
 * * -EINVAL: the cache is not active, or @len bytes don't fit into the page
 * * -EFAULT: the address has no memslot, or no page that can be written
 * * -EINTR: killed
 * * -EIO: the VM is being destroyed
 */
int kvm_gpc_refresh(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	int ret;

	if (mutex_lock_killable(&gpc->refresh_lock))
		return -EINTR;

	if (gpc_fits(gpc->gpa, gpc->uhva, len))
		ret = __gpc_refresh(gpc, gpc->gpa, gpc->uhva, gpc->len);
	else
		ret = -EINVAL;

	mutex_unlock(&gpc->refresh_lock);
	return ret;
}

/**
 * kvm_gpc_check - is a cache valid?
 * @gpc: cache
 * @len: bytes that will be used
 *
 * Context: any; &kvm.srcu and &gfn_to_pfn_cache.lock held, and the latter is held
 * on to for as long as the address is used.
 *
 * Return: %true if @gpc->khva may be used for @len bytes.
 */
bool kvm_gpc_check(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	lockdep_assert_held(&gpc->lock);

	if (!gpc->valid)
		return false;

	if (gpc->gpa != INVALID_GPA &&
	    gpc->generation != kvm_memslots(gpc->kvm)->generation)
		return false;

	return gpc_fits(gpc->gpa, gpc->uhva, len);
}

/* --- Use ------------------------------------------------------------------ */

/**
 * kvm_gpc_lock - begin to use a cached page
 * @gpc: cache
 * @len: bytes from the cache's address that will be used; at most the length
 *	 given at activation
 *
 * Refreshes the cache if it must.  The page stays where it is until
 * kvm_gpc_unlock(); an invalidation of it waits that long, so be short.
 *
 * Context: may sleep; &kvm.srcu held.  On success &gfn_to_pfn_cache.lock is held
 * for read, which on !PREEMPT_RT disables preemption.  Interrupts stay on: a hard
 * IRQ, too, only reads that lock, and a reader in an interrupt does not queue
 * behind a writer that waits.
 *
 * Return: the kernel address, or an error as of kvm_gpc_refresh(); then nothing is
 * held.
 */
void *kvm_gpc_lock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	int ret;

	might_sleep();

	for (;;) {
		read_lock(&gpc->lock);
		if (likely(len <= gpc->len && kvm_gpc_check(gpc, len))) {
			__release(&gpc->lock);	/* sparse knows no conditional locks */
			return gpc->khva;
		}
		ret = len > gpc->len ? -EINVAL : 0;
		read_unlock(&gpc->lock);

		if (!ret)
			ret = kvm_gpc_refresh(gpc, len);
		if (ret)
			return ERR_PTR(ret);
	}
}

/**
 * kvm_gpc_trylock - begin to use a cached page where one cannot sleep
 * @gpc: cache
 * @len: bytes from the cache's address that will be used
 *
 * Context: any; &kvm.srcu held.  On success &gfn_to_pfn_cache.lock is held for read.
 * With interrupts off, PREEMPT_RT always fails: there an unlock may have to wake a
 * writer, which the scheduler and a hard IRQ must not.
 *
 * Return: the kernel address, or ERR_PTR(-EAGAIN) if the cache is being changed or
 * has to be refreshed; then nothing is held.
 */
void *kvm_gpc_trylock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT) && irqs_disabled())
		return ERR_PTR(-EAGAIN);

	if (read_trylock(&gpc->lock)) {
		if (likely(len <= gpc->len && kvm_gpc_check(gpc, len))) {
			__release(&gpc->lock);
			return gpc->khva;
		}
		read_unlock(&gpc->lock);
	}
	return ERR_PTR(-EAGAIN);
}

/**
 * kvm_gpc_unlock - end the use of a page that was, or may have been, written
 * @gpc: cache that kvm_gpc_lock() or kvm_gpc_trylock() locked
 *
 * Marks the page dirty in its memslot.
 *
 * Context: that of the lock; with a dirty ring, a vCPU's.
 */
void kvm_gpc_unlock(struct gfn_to_pfn_cache *gpc)
{
	kvm_gpc_mark_dirty_in_slot(gpc);
	kvm_gpc_unlock_clean(gpc);
}

/**
 * kvm_gpc_unlock_clean - end the use of a page that was only read
 * @gpc: cache that kvm_gpc_lock() or kvm_gpc_trylock() locked
 *
 * Context: that of the lock.
 */
void kvm_gpc_unlock_clean(struct gfn_to_pfn_cache *gpc)
{
	__acquire(&gpc->lock);
	read_unlock(&gpc->lock);
}

/* --- Life ----------------------------------------------------------------- */

/**
 * kvm_gpc_init - prepare a cache
 * @gpc: zeroed memory
 * @kvm: VM that it belongs to
 */
void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm)
{
	rwlock_init(&gpc->lock);
	mutex_init(&gpc->refresh_lock);
	RB_CLEAR_NODE(&gpc->node.rb);

	gpc->kvm = kvm;
	gpc->gpa = INVALID_GPA;
	gpc->uhva = KVM_HVA_ERR_BAD;
	gpc->pfn = KVM_PFN_ERR_FAULT;
}

static int gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long uhva,
			unsigned long len)
{
	struct kvm *kvm = gpc->kvm;

	if (!gpc_fits(gpa, uhva, len))
		return -EINVAL;

	guard(mutex)(&gpc->refresh_lock);

	if (!gpc->active) {
		spin_lock(&kvm->mn_invalidate_lock);
		kvm->gpcs.nr_active++;
		spin_unlock(&kvm->mn_invalidate_lock);
	}

	write_lock_irq(&gpc->lock);
	gpc->active = true;
	write_unlock_irq(&gpc->lock);

	return __gpc_refresh(gpc, gpa, uhva, len);
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
 * Return: 0, or an error as of kvm_gpc_refresh().  With -EINVAL the cache is as it
 * was before.
 */
int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len)
{
	if (gpa == INVALID_GPA)
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
 * Return: 0, or an error as of kvm_gpc_refresh().  With -EINVAL the cache is as it
 * was before.
 */
int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len)
{
	if (!access_ok((void __user *)uhva, len))
		return -EINVAL;

	return gpc_activate(gpc, INVALID_GPA, uhva, len);
}

/**
 * kvm_gpc_deactivate - give a cache's page back
 * @gpc: cache, active or not
 *
 * Waits for uses to end.
 *
 * Context: may sleep; takes &gfn_to_pfn_cache.refresh_lock.
 */
void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	kvm_pfn_t pfn;
	void *khva;

	guard(mutex)(&gpc->refresh_lock);

	if (!gpc->active)
		return;

	write_lock_irq(&gpc->lock);
	gpc->active = false;
	khva = gpc_take_mapping(gpc, &pfn);
	write_unlock_irq(&gpc->lock);

	spin_lock(&kvm->mn_invalidate_lock);
	gpc_tree_remove(gpc);
	kvm->gpcs.nr_active--;
	spin_unlock(&kvm->mn_invalidate_lock);

	gpc_unmap(pfn, khva);
}
