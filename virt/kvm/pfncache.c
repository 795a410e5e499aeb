// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest-page cache: guest physical address -> user virtual address -> page frame ->
 * kernel address, kept until memslots, memory attributes or page tables change.
 *
 *	gpc_lock.h		the lock that each use holds for read
 *	gpc_invalidate.c	what invalidates the translation, and why that is safe
 *	gpc_map.c		page frames of any kind at one kernel address
 *	gpc_guest.c		pages that hardware uses while a vCPU is in guest mode
 *	pfncache.c		binding, refresh, use
 *
 * The states of a cache.  Each change is made under kvm->mn_invalidate_lock:
 *
 *	INACTIVE --activate--> CLOSED --begin--> LOOKUP --publish--> OPEN
 *	    ^                     ^                |                  |
 *	    |                     +---invalidate, activate, failure---+
 *	    +-----deactivate, from any state
 *
 * The cache's lock is held for write in every state but OPEN, so that a use is a read
 * trylock.  Only a refresh leads from CLOSED towards OPEN, and there is one refresh at a
 * time: it holds refresh_lock.  Between begin and publish it holds no spinlock; publish
 * finds another state than LOOKUP if an invalidation or an activation has outdated what
 * was looked up.  So activation and deactivation never wait for a refresh, which may
 * sleep for long (userfaultfd).
 *
 * An update of memslots closes no cache.  Instead a use compares the generation of the
 * memslots that the cache was bound by with the present one, under kvm->srcu.  An update
 * publishes new memslots, then waits for all readers of srcu: a use with the old
 * generation is over before the old memslot is freed.  While an update is in progress the
 * generation says so, and is replaced at the end: a cache that was bound in between is
 * bound anew.
 *
 * Lock order: kvm->srcu or kvm->slots_lock, gpc->refresh_lock, mm locks,
 * kvm->mn_invalidate_lock, gpc->lock.
 */
#include <linux/error-injection.h>
#include <linux/highmem.h>
#include <linux/kvm_host.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>
#include <linux/wait.h>

#include "gpc_lock.h"
#include "kvm_mm.h"

#include <trace/events/kvm_gpc.h>

/* --- Binding: from an address to user pages ----------------------------------- */

static unsigned int gpc_nr_pages(unsigned long address, unsigned long len)
{
	return DIV_ROUND_UP(offset_in_page(address) + len, PAGE_SIZE);
}

/*
 * Is the cache bound by the memslots of the moment?  kvm_memslots() would guard the index
 * against speculation, which a constant does not need.
 */
static bool gpc_is_current(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	struct kvm_memslots *slots;

	if (gpc->gpa == INVALID_GPA)
		return true;

	slots = srcu_dereference_check(kvm->memslots[0], &kvm->srcu,
				       lockdep_is_held(&kvm->slots_lock));
	return gpc->generation == READ_ONCE(slots->generation);
}

/* A cache that comes to depend on another page leaves the tree, to enter it anew. */
static void gpc_set_page(struct gfn_to_pfn_cache *gpc, unsigned int i,
			 struct kvm_memory_slot *memslot, unsigned long uhva)
{
	gpc->pages[i].memslot = memslot;
	if (gpc->pages[i].uhva != uhva) {
		gpc_unlink(gpc);
		gpc->pages[i].uhva = uhva;
	}
}

/*
 * Find the user pages of a closed cache.  Returns 0, or -EFAULT where there is no memory
 * that can be written.  Clears @same if the pages are not those that it had.
 */
static int gpc_bind(struct gfn_to_pfn_cache *gpc, bool *same)
{
	unsigned int i, nr_pages = gpc_nr_pages(gpc->gpa == INVALID_GPA ? gpc->uhva : gpc->gpa,
						gpc->len);
	struct kvm_memory_slot *memslot;
	struct kvm_memslots *slots;
	unsigned long uhva;
	gfn_t gfn;

	lockdep_assert_held(&gpc->refresh_lock);
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	gpc->dirty_track = false;

	if (gpc->gpa == INVALID_GPA) {
		for (i = 0; i < nr_pages; i++)
			gpc_set_page(gpc, i, NULL, PAGE_ALIGN_DOWN(gpc->uhva) + i * PAGE_SIZE);
	} else {
		slots = kvm_memslots(gpc->kvm);
		gpc->generation = READ_ONCE(slots->generation);

		for (i = 0; i < nr_pages; i++) {
			gfn = gpa_to_gfn(gpc->gpa) + i;
			memslot = __gfn_to_memslot(slots, gfn);
			uhva = gfn_to_hva_memslot(memslot, gfn);
			if (kvm_is_error_hva(uhva)) {
				gpc_unlink(gpc);
				gpc->uhva = KVM_HVA_ERR_BAD;
				return -EFAULT;
			}
			gpc->dirty_track |= kvm_slot_dirty_track_enabled(memslot);
			gpc_set_page(gpc, i, memslot, uhva);
		}
		gpc->uhva = gpc->pages[0].uhva + offset_in_page(gpc->gpa);
	}

	if (!gpc->nr_pages) {
		gpc_link(gpc, nr_pages);
		*same = false;
	}
	return 0;
}

static bool gpc_is_private(struct gfn_to_pfn_cache *gpc)
{
	unsigned int i;

	if (!kvm_arch_has_private_mem(gpc->kvm) || gpc->gpa == INVALID_GPA)
		return false;

	for (i = 0; i < gpc->nr_pages; i++) {
		if (kvm_mem_is_private(gpc->kvm, gpa_to_gfn(gpc->gpa) + i))
			return true;
	}
	return false;
}

/* --- Refresh ------------------------------------------------------------------- */

/* What a refresh works on with no spinlock held. */
struct gpc_lookup {
	unsigned int nr_pages;		/* 0: there is nothing to look up */
	kvm_pfn_t pfns[KVM_GPC_MAX_PAGES];
	struct page *pages[KVM_GPC_MAX_PAGES];
	struct kvm_gpc_map map;		/* the cache's, while it is here */
};

static void gpc_open(struct gfn_to_pfn_cache *gpc)
{
	lockdep_assert_held(&gpc->kvm->mn_invalidate_lock);

	gpc->kvm->stat.generic.gpc_refreshes++;
	WRITE_ONCE(gpc->state, KVM_GPC_OPEN);
	gpc_write_unlock(&gpc->lock);
}

/*
 * Begin a refresh.  Returns 0, with nothing to look up if the cache is open; -EAGAIN if
 * an invalidation of its pages is in progress; or an error as of kvm_gpc_lock().
 */
static int gpc_begin(struct gfn_to_pfn_cache *gpc, unsigned long len, struct gpc_lookup *lookup)
{
	struct kvm *kvm = gpc->kvm;
	bool mapped;
	int ret;

	lockdep_assert_held(&kvm->mn_invalidate_lock);

	lookup->nr_pages = 0;
	if (kvm->gpcs.closed)
		return -EIO;
	if (gpc->state == KVM_GPC_INACTIVE || len > gpc->len)
		return -EINVAL;

	mapped = gpc->state == KVM_GPC_OPEN;
	if (!gpc->nr_pages || !gpc_is_current(gpc)) {
		gpc_close(gpc);
		ret = gpc_bind(gpc, &mapped);
		if (ret)
			return ret;
	} else if (mapped) {
		return 0;	/* another task refreshed it */
	}

	if (gpc_must_wait(gpc))
		return -EAGAIN;
	if (gpc_is_private(gpc))
		return -EFAULT;

	/* Only the memslots have changed, and lead to the same pages. */
	if (mapped) {
		gpc_open(gpc);
		return 0;
	}

	WRITE_ONCE(gpc->state, KVM_GPC_LOOKUP);
	lookup->nr_pages = gpc->nr_pages;
	if (gpc->map.type > KVM_GPC_MAP_DIRECT) {
		lookup->map = gpc->map;
		gpc->map.type = KVM_GPC_MAP_NONE;
	}
	return 0;
}

static bool gpc_may_begin(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	bool may_begin;

	spin_lock(&kvm->mn_invalidate_lock);
	may_begin = kvm->gpcs.closed || !kvm_gpc_is_active(gpc) || !gpc_must_wait(gpc);
	spin_unlock(&kvm->mn_invalidate_lock);
	return may_begin;
}

/* Sleep until invalidations of the cache's pages have ended.  Add the time, in ns, to @waited. */
static noinline int gpc_wait(struct gfn_to_pfn_cache *gpc, unsigned int task_state, u64 *waited)
{
	struct kvm *kvm = gpc->kvm;
	u64 since = ktime_get_ns();
	int ret;

	ret = wait_event_state(kvm->gpcs.wait, gpc_may_begin(gpc), task_state);
	since = ktime_get_ns() - since;
	*waited += since;

	spin_lock(&kvm->mn_invalidate_lock);
	kvm->stat.generic.gpc_refresh_waits++;
	KVM_STATS_LOG_HIST_UPDATE(kvm->stat.generic.gpc_refresh_wait_hist, since);
	spin_unlock(&kvm->mn_invalidate_lock);
	return ret ? -EINTR : 0;
}

/* Look up the page frame of a user page, and get a reference if it has one. */
static noinline int gpc_lookup_pfn(unsigned long uhva, bool interruptible, kvm_pfn_t *pfn,
				   struct page **page)
{
	*pfn = gpc_hva_to_pfn(uhva, interruptible, page);
	if (is_error_noslot_pfn(*pfn))
		return is_sigpending_pfn(*pfn) ? -EINTR : -EFAULT;
	return 0;
}
ALLOW_ERROR_INJECTION(gpc_lookup_pfn, ERRNO);

/*
 * Get the page frames of a cache.  Returns 0, or an error; the first @nr pages then have a
 * reference.  Their user addresses change with refresh_lock held only.
 */
static int gpc_get_pages(struct gfn_to_pfn_cache *gpc, struct gpc_lookup *lookup,
			 bool interruptible, unsigned int *nr)
{
	int ret;

	for (*nr = 0; *nr < lookup->nr_pages; (*nr)++) {
		ret = gpc_lookup_pfn(gpc->pages[*nr].uhva, interruptible, &lookup->pfns[*nr],
				     &lookup->pages[*nr]);
		if (ret)
			return ret;
	}
	return 0;
}

/* Map the pages.  A vmap or memremap of before is used again if the pages are the same. */
static int gpc_map_pages(struct gpc_lookup *lookup)
{
	struct kvm_gpc_map *map = &lookup->map;

	if (map->type > KVM_GPC_MAP_DIRECT) {
		if (map->nr_pages == lookup->nr_pages &&
		    !memcmp(map->pfns, lookup->pfns, map->nr_pages * sizeof(map->pfns[0])))
			return 0;
		kvm_gpc_unmap(map);
	}
	return kvm_gpc_map(map, lookup->pfns, lookup->pages, lookup->nr_pages);
}

/*
 * KVM writes to the pages by the kernel address, while the entries of the page tables may
 * be writable and clean.  Mark the pages dirty, or reclaim drops what KVM writes.
 *
 * No folio lock is needed, as under the lock of a page table: no invalidation has started
 * since the lookup, so the user page tables still map the pages, and their file cannot
 * go away.  Unmapping or cleaning them begins with an invalidation, which waits for
 * mn_invalidate_lock and then closes the cache.
 */
static void gpc_dirty_pages(struct gpc_lookup *lookup)
{
	struct folio *folio;
	unsigned int i;

	for (i = 0; i < lookup->nr_pages; i++) {
		if (!lookup->pages[i] || PageReserved(lookup->pages[i]))
			continue;
		folio = page_folio(lookup->pages[i]);
		if (folio_test_anon(folio))
			folio_set_dirty(folio);	/* folio_mark_dirty() would do no more */
		else if (!folio_test_dirty(folio))
			folio_mark_dirty(folio);
	}
}

/* Open the cache, unless the lookup is outdated. */
static bool gpc_publish(struct gfn_to_pfn_cache *gpc, struct gpc_lookup *lookup)
{
	struct kvm *kvm = gpc->kvm;
	bool valid;

	spin_lock(&kvm->mn_invalidate_lock);
	valid = gpc->state == KVM_GPC_LOOKUP;
	if (valid) {
		gpc_dirty_pages(lookup);
		gpc->map = lookup->map;
		lookup->map.type = KVM_GPC_MAP_NONE;
		gpc->khva = gpc->map.base + offset_in_page(gpc->uhva);
		gpc_open(gpc);
	} else {
		kvm->stat.generic.gpc_refresh_retries++;
	}
	spin_unlock(&kvm->mn_invalidate_lock);
	return valid;
}

/*
 * Look the pages up, map them and open the cache.  Returns 0, -EAGAIN if an invalidation,
 * an activation or a deactivation came between, or another error.
 */
static int gpc_look_up(struct gfn_to_pfn_cache *gpc, struct gpc_lookup *lookup,
		       bool interruptible)
{
	unsigned int nr;
	int ret;

	/* Page tables are those of current->mm: a vCPU's, or borrowed by irqfd. */
	if (current->mm != gpc->kvm->mm)
		return -EFAULT;

	ret = gpc_get_pages(gpc, lookup, interruptible, &nr);
	if (!ret)
		ret = gpc_map_pages(lookup);
	if (!ret && !gpc_publish(gpc, lookup))
		ret = -EAGAIN;

	/* From here on invalidation alone keeps the pages. */
	while (nr--) {
		if (lookup->pages[nr])
			put_page(lookup->pages[nr]);
	}
	return ret;
}

static noinline void gpc_fail(struct gfn_to_pfn_cache *gpc, struct gpc_lookup *lookup)
{
	kvm_gpc_unmap(&lookup->map);

	spin_lock(&gpc->kvm->mn_invalidate_lock);
	if (gpc->state == KVM_GPC_LOOKUP)
		WRITE_ONCE(gpc->state, KVM_GPC_CLOSED);
	gpc->kvm->stat.generic.gpc_refresh_failures++;
	spin_unlock(&gpc->kvm->mn_invalidate_lock);
}

/* A signal must end KVM_RUN even while KVM waits for a page that never comes. */
static bool gpc_is_interruptible(void)
{
	struct kvm_vcpu *vcpu = kvm_get_running_vcpu();

	return vcpu && vcpu->wants_to_run;
}

/*
 * Refresh a cache for a use of @len bytes.  Success does not mean that the cache is still
 * open when this returns.  Errors are those of kvm_gpc_lock().
 */
static int gpc_refresh(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	bool interruptible = gpc_is_interruptible();
	unsigned int task_state = interruptible ? TASK_INTERRUPTIBLE : TASK_KILLABLE;
	struct gpc_lookup lookup __uninitialized;
	struct kvm *kvm = gpc->kvm;
	unsigned int retries = 0;
	u64 waited = 0;
	int ret;

	lookup.map.type = KVM_GPC_MAP_NONE;
	ret = interruptible ? mutex_lock_interruptible(&gpc->refresh_lock) :
			      mutex_lock_killable(&gpc->refresh_lock);
	if (ret)
		return ret;

	for (;;) {
		spin_lock(&kvm->mn_invalidate_lock);
		ret = gpc_begin(gpc, len, &lookup);
		spin_unlock(&kvm->mn_invalidate_lock);

		if (ret == -EAGAIN) {
			ret = gpc_wait(gpc, task_state, &waited);
			if (ret)
				break;
			continue;
		}
		if (ret || !lookup.nr_pages)
			break;

		ret = gpc_look_up(gpc, &lookup, interruptible);
		if (ret != -EAGAIN)
			break;

		retries++;
		if (signal_pending_state(task_state, current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	if (ret)
		gpc_fail(gpc, &lookup);

	trace_kvm_gpc_refresh(gpc, READ_ONCE(gpc->gpa), READ_ONCE(gpc->uhva), retries, waited, ret);
	mutex_unlock(&gpc->refresh_lock);
	return ret;
}

/* --- Use ----------------------------------------------------------------------- */

/* Begin a use, if the cache is open and bound by the memslots of the moment. */
static __always_inline bool gpc_use_begin(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	if (!gpc_read_trylock(&gpc->lock))
		return false;
	if (likely(len <= gpc->len && gpc_is_current(gpc)))
		return true;
	gpc_read_unlock(&gpc->lock);
	return false;
}

/* Out of line: that saves 10 instructions in a use that needs no refresh. */
static noinline void *gpc_refresh_and_use(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	int ret;

	for (;;) {
		ret = gpc_refresh(gpc, len);
		if (ret)
			return ERR_PTR(ret);
		if (gpc_use_begin(gpc, len))
			return gpc->khva;
		if (fatal_signal_pending(current))
			return ERR_PTR(-EINTR);
	}
}

void *kvm_gpc_lock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	might_lock(&gpc->refresh_lock);

	return likely(gpc_use_begin(gpc, len)) ? gpc->khva : gpc_refresh_and_use(gpc, len);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_lock);

void *kvm_gpc_trylock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	return gpc_use_begin(gpc, len) ? gpc->khva : ERR_PTR(-EAGAIN);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_trylock);

/* Mark the first @len bytes dirty, each page in its memslot. */
static noinline void gpc_mark_dirty(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	unsigned int i, nr_pages = min(gpc_nr_pages(gpc->gpa, len), gpc->nr_pages);

	for (i = 0; i < nr_pages; i++)
		mark_page_dirty_in_slot(gpc->kvm, gpc->pages[i].memslot, gpa_to_gfn(gpc->gpa) + i);
}

void kvm_gpc_unlock(struct gfn_to_pfn_cache *gpc, unsigned long len)
{
	lockdep_assert(kvm_get_running_vcpu());

	if (unlikely(gpc->dirty_track))
		gpc_mark_dirty(gpc, len);
	gpc_read_unlock(&gpc->lock);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_unlock);

void kvm_gpc_unlock_clean(struct gfn_to_pfn_cache *gpc)
{
	gpc_read_unlock(&gpc->lock);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_unlock_clean);

int kvm_gpc_refresh(struct gfn_to_pfn_cache *gpc)
{
	return gpc_refresh(gpc, 0);
}

/* --- Life ---------------------------------------------------------------------- */

void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm)
{
	unsigned int i;

	gpc_lock_init(&gpc->lock);
	mutex_init(&gpc->refresh_lock);

	gpc->kvm = kvm;
	gpc->gpa = INVALID_GPA;
	gpc->uhva = KVM_HVA_ERR_BAD;
	for (i = 0; i < KVM_GPC_MAX_PAGES; i++)
		gpc->pages[i].gpc = gpc;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_init);

static int gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long uhva,
			unsigned long len)
{
	struct kvm *kvm = gpc->kvm;

	spin_lock(&kvm->mn_invalidate_lock);
	if (gpc->state == KVM_GPC_INACTIVE) {
		kvm->gpcs.nr_active++;
		kvm->gpcs.nr_guest += !!gpc->vcpu;
	}
	gpc_close(gpc);
	gpc_unlink(gpc);
	gpc->gpa = gpa;
	gpc->uhva = uhva;
	gpc->len = len;
	spin_unlock(&kvm->mn_invalidate_lock);

	/* A refresh may wait for an invalidation of the previous pages. */
	wake_up_all(&kvm->gpcs.wait);
	trace_kvm_gpc_activate(gpc, gpa, uhva, len);
	return 0;
}

int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len)
{
	if (gpa == INVALID_GPA || gpc_nr_pages(gpa, len) != 1)
		return -EINVAL;

	return gpc_activate(gpc, gpa, KVM_HVA_ERR_BAD, len);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_activate);

int kvm_gpc_activate_span(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len)
{
	if (gpa == INVALID_GPA || !len || len > PAGE_SIZE)
		return -EINVAL;

	return gpc_activate(gpc, gpa, KVM_HVA_ERR_BAD, len);
}

int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len)
{
	if (gpc_nr_pages(uhva, len) != 1 || !access_ok((void __user *)uhva, len))
		return -EINVAL;

	return gpc_activate(gpc, INVALID_GPA, uhva, len);
}

void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc)
{
	struct kvm *kvm = gpc->kvm;
	struct kvm_gpc_map map = {};

	spin_lock(&kvm->mn_invalidate_lock);
	if (gpc->state != KVM_GPC_INACTIVE) {
		gpc_close(gpc);
		gpc_unlink(gpc);
		WRITE_ONCE(gpc->state, KVM_GPC_INACTIVE);
		kvm->gpcs.nr_active--;
		kvm->gpcs.nr_guest -= !!gpc->vcpu;
		swap(map, gpc->map);
	}
	spin_unlock(&kvm->mn_invalidate_lock);

	/* A refresh that waits for an invalidation has nothing to wait for any more. */
	wake_up_all(&kvm->gpcs.wait);
	kvm_gpc_unmap(&map);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_deactivate);
