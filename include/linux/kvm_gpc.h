/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest-page cache, by which KVM itself reads and writes guest memory.  A
 * cache keeps the translation from a guest physical (or a user) address to a
 * kernel address, until memslots, memory attributes or the VMM's page tables
 * change it.
 *
 *	CLASS(kvm_gpc, use)(&vcpu->arch.record_cache, sizeof(*rec));
 *
 *	if (IS_ERR(use.khva))
 *		return;
 *	rec = use.khva;
 *	rec->field = value;
 *
 * virt/kvm/pfncache.c says why this is safe.
 */
#ifndef __LINUX_KVM_GPC_H
#define __LINUX_KVM_GPC_H

#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/compiler.h>
#include <linux/err.h>
#include <linux/kvm_types.h>
#include <linux/lockdep_types.h>
#include <linux/mutex.h>
#include <linux/rbtree_types.h>
#include <linux/wait.h>

struct kvm;
struct kvm_vcpu;
struct mmu_notifier_range;

/* A structure may cross the end of a page, but none is larger than a page. */
#define KVM_GPC_MAX_PAGES	2

/* How page frames got their kernel address; a mapping above DIRECT has to be undone. */
enum kvm_gpc_map_type {
	KVM_GPC_MAP_NONE,
	KVM_GPC_MAP_DIRECT,
	KVM_GPC_MAP_VMAP,
	KVM_GPC_MAP_MEMREMAP,
};

/**
 * struct kvm_gpc_map - page frames at one contiguous kernel address
 * @pfns: page frames, in the order of their addresses; not for the direct map
 * @nr_pages: number of page frames; not for the direct map
 * @type: how they are mapped
 * @base: kernel address of the first page frame
 */
struct kvm_gpc_map {
	kvm_pfn_t pfns[KVM_GPC_MAX_PAGES];
	u8 nr_pages;
	u8 type;
	void *base;
};

/**
 * struct kvm_gpc_page - a user page that a cache depends on
 * @rb: in &kvm_gpcs.tree
 * @uhva: user virtual address
 * @subtree_last: for the tree
 * @gpc: the cache
 * @memslot: memslot of the page, %NULL when the cache is bound to a user address
 */
struct kvm_gpc_page {
	struct rb_node rb;
	unsigned long uhva;
	unsigned long subtree_last;
	struct gfn_to_pfn_cache *gpc;
	struct kvm_memory_slot *memslot;
};

/**
 * struct gpc_lock - reader-writer spinlock, see virt/kvm/gpc_lock.h
 * @count: readers; plus a large negative number while the lock is held for write
 * @dep_map: for lockdep
 */
struct gpc_lock {
	atomic_t count;
	struct lockdep_map dep_map;
};

/**
 * enum kvm_gpc_state - what a cache can be used for
 * @KVM_GPC_INACTIVE: bound to no address
 * @KVM_GPC_CLOSED: bound; the pages have to be looked up
 * @KVM_GPC_LOOKUP: a refresh looks the pages up
 * @KVM_GPC_OPEN: mapped; the only state in which the lock is not held for write
 */
enum kvm_gpc_state {
	KVM_GPC_INACTIVE,
	KVM_GPC_CLOSED,
	KVM_GPC_LOOKUP,
	KVM_GPC_OPEN,
};

/**
 * struct gfn_to_pfn_cache - a cached piece of guest memory
 * @kvm: the VM; set by kvm_gpc_init()
 * @vcpu: hardware uses the page while this vCPU is in guest mode; %NULL for most caches
 * @lock: held for read by each use
 * @state: see &enum kvm_gpc_state
 * @nr_pages: user pages in @pages and in the tree; 0 until @gpa has been translated
 * @dirty_track: a memslot of @pages tracks what is written
 * @gpa: guest physical address, %INVALID_GPA when bound to a user address
 * @uhva: user virtual address of the first byte, %KVM_HVA_ERR_BAD when unknown
 * @len: bytes from that address that a use may touch, fixed by the activation
 * @generation: of the memslots that gave @pages; for a @gpa only
 * @khva: kernel address of the first byte
 * @map: the mapping that @khva points into, unless a refresh works on it
 * @pages: the user pages of the first and of the last byte
 * @refresh_lock: one refresh at a time
 *
 * Everything but @refresh_lock and the readers of @lock changes under
 * &kvm.mn_invalidate_lock, the addresses in @pages with @refresh_lock held as well.  What a
 * use reads (@dirty_track to @khva, and the memslots) changes only while @lock is held for
 * write as well.
 */
struct gfn_to_pfn_cache {
	struct kvm *kvm;
	struct kvm_vcpu *vcpu;
	struct gpc_lock lock;
	enum kvm_gpc_state state;
	u8 nr_pages;
	bool dirty_track;
	gpa_t gpa;
	unsigned long uhva;
	unsigned long len;
	u64 generation;
	void *khva;
	struct kvm_gpc_map map;
	struct kvm_gpc_page pages[KVM_GPC_MAX_PAGES];
	struct mutex refresh_lock;	/* held while pages are looked up and mapped */
};

/**
 * struct kvm_gpc_invalidation - an invalidation in progress, by user address
 * @range: given to the notifier's start and to its end, alive in between
 * @waiter: a refresh waits for the end
 */
struct kvm_gpc_invalidation {
	const struct mmu_notifier_range *range;
	bool waiter;
};

/* Concurrent invalidations that need no allocation. */
#define KVM_GPC_NR_INVALIDATIONS	4

/**
 * struct kvm_gpcs - what a VM keeps for its caches
 * @tree: interval tree of the user pages of bound caches
 * @invalidations: records of the invalidations in progress, by user address
 * @nr_recorded: number of records
 * @max_recorded: size of @invalidations, in records
 * @first_invalidations: room for the first records
 * @gfn_start: first gfn whose memory attributes are being changed
 * @gfn_end: first gfn behind the range; 0 when no change is in progress
 * @nr_active: active caches
 * @nr_guest: active caches whose page hardware uses
 * @closed: the MMU notifier goes or has gone, no lookup may begin; never cleared
 * @wait: refreshes that wait for an invalidation to end
 *
 * All but @wait change under &kvm.mn_invalidate_lock.
 */
struct kvm_gpcs {
	struct rb_root_cached tree;
	struct kvm_gpc_invalidation *invalidations;
	unsigned long nr_recorded;
	unsigned long max_recorded;
	struct kvm_gpc_invalidation first_invalidations[KVM_GPC_NR_INVALIDATIONS];
	gfn_t gfn_start;
	gfn_t gfn_end;
	unsigned long nr_active;
	unsigned long nr_guest;
	bool closed;
	wait_queue_head_t wait;
};

/**
 * kvm_gpc_init - prepare a cache
 * @gpc: zeroed memory
 * @kvm: VM that it belongs to
 */
void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm);

/**
 * kvm_gpc_activate - bind a cache to a guest physical address
 * @gpc: cache, active or not
 * @gpa: guest physical address
 * @len: bytes from there that uses will touch; must not cross the page's end
 *
 * Does not look the address up: each use does, until there is a page.  So an ioctl that
 * stores an address does not wait for its page, which the VMM may have to supply.
 *
 * Context: process; takes &kvm.mn_invalidate_lock.
 *
 * Return: 0, or -EINVAL because of @gpa or @len; the cache is then as it was before.
 */
int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);

/**
 * kvm_gpc_activate_span - bind a cache to memory that may cross the end of a page
 * @gpc: cache, active or not
 * @gpa: guest physical address
 * @len: bytes from there that uses will touch, at most PAGE_SIZE
 *
 * As kvm_gpc_activate(), for an ABI that lets a guest put its structure anywhere.  The
 * pages may lie in two memslots; uses need both.
 *
 * Context: process; takes &kvm.mn_invalidate_lock.
 *
 * Return: as kvm_gpc_activate().
 */
int kvm_gpc_activate_span(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);

/**
 * kvm_gpc_activate_hva - bind a cache to a user virtual address
 * @gpc: cache, active or not
 * @uhva: address in the VMM
 * @len: bytes from there that uses will touch; must not cross the page's end
 *
 * As kvm_gpc_activate(), but independent of memslots.
 *
 * Context: process; takes &kvm.mn_invalidate_lock.
 *
 * Return: as kvm_gpc_activate().
 */
int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len);

/**
 * kvm_gpc_deactivate - unbind a cache
 * @gpc: cache, active or not
 *
 * Spins until uses have ended.  Does not wait for a refresh, which then fails with
 * -EINVAL.  Before the memory of the cache is freed, its owner ensures that no refresh is
 * under way and none begins.
 *
 * Context: may sleep; takes &kvm.mn_invalidate_lock.
 */
void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc);

/**
 * kvm_gpc_refresh - look the pages of a cache up now
 * @gpc: cache
 *
 * For an ioctl whose ABI reports a bad address.  Otherwise the first kvm_gpc_lock() looks
 * the pages up.
 *
 * Context: as kvm_gpc_lock().
 *
 * Return: 0, or an error as of kvm_gpc_lock(); the cache stays active.
 */
int kvm_gpc_refresh(struct gfn_to_pfn_cache *gpc);

/**
 * kvm_gpc_lock - begin to use cached guest memory
 * @gpc: cache
 * @len: bytes from the cache's address that will be used; at most the length
 *	 given at activation
 *
 * Refreshes the cache if needed.  A refresh sleeps until invalidations in progress of
 * the cache's pages have ended.  The pages cannot go away until kvm_gpc_unlock(): an
 * invalidation of the pages spins that long, so be short.
 *
 * Context: may sleep; &kvm.srcu held; takes &gfn_to_pfn_cache.refresh_lock.  On
 * success preemption is disabled until kvm_gpc_unlock(), on PREEMPT_RT too: only raw
 * spinlocks may be taken in between.
 *
 * Return:
 * * the kernel address, or an ERR_PTR() with nothing held:
 * * -EINVAL: the cache is not active, or @len is more than the length given at activation
 * * -EFAULT: no page that can be written and mapped, a private page, or current->mm is not
 *   the VM's
 * * -EINTR: killed; within KVM_RUN, which is about to return, any signal: the next KVM_RUN
 *   has to try again before it enters the guest
 * * -EIO: the VM is being destroyed
 */
void *kvm_gpc_lock(struct gfn_to_pfn_cache *gpc, unsigned long len);

/**
 * kvm_gpc_trylock - begin to use cached guest memory where sleeping is not allowed
 * @gpc: cache
 * @len: bytes from the cache's address that will be used
 *
 * Context: any, hard IRQ and the scheduler included; &kvm.srcu held.  On success
 * preemption is disabled until kvm_gpc_unlock().
 *
 * Return: the kernel address, or ERR_PTR(-EAGAIN) with nothing held if the cache is not
 * active, is being changed or has to be refreshed, or if @len is too much.
 */
void *kvm_gpc_trylock(struct gfn_to_pfn_cache *gpc, unsigned long len);

/**
 * kvm_gpc_unlock - end the use of memory that was, or may have been, written
 * @gpc: cache that kvm_gpc_lock() or kvm_gpc_trylock() locked
 * @len: bytes from the cache's address that may have been written
 *
 * Marks the pages of these bytes dirty, each in its memslot.
 *
 * Context: that of the lock, with a vCPU loaded: a dirty ring belongs to a vCPU.
 */
void kvm_gpc_unlock(struct gfn_to_pfn_cache *gpc, unsigned long len);

/**
 * kvm_gpc_unlock_clean - end a use that makes no page dirty
 * @gpc: cache that kvm_gpc_lock() or kvm_gpc_trylock() locked
 *
 * For memory that was only read, or that its ABI does not track.
 *
 * Context: that of the lock.
 */
void kvm_gpc_unlock_clean(struct gfn_to_pfn_cache *gpc);

/**
 * kvm_gpc_init_guest - prepare a cache for a page that hardware uses in guest mode
 * @gpc: zeroed memory
 * @vcpu: vCPU for which hardware uses the page
 *
 * Such a cache is activated by kvm_gpc_guest_address().  An invalidation makes
 * KVM_REQ_GUEST_PAGES, and waits until the vCPU has left guest mode.
 */
void kvm_gpc_init_guest(struct gfn_to_pfn_cache *gpc, struct kvm_vcpu *vcpu);

/**
 * kvm_gpc_guest_address - look up a page for hardware to use in guest mode
 * @gpc: cache that kvm_gpc_init_guest() prepared
 * @gpa: guest physical address; the cache is bound to it unless it is already
 * @len: bytes from there; must not cross the page's end
 * @hpa: host physical address of @gpa
 *
 * The address is valid until KVM_REQ_GUEST_PAGES is pending.  The vCPU serves that request
 * with this function before it enters guest mode.
 *
 * Context: the vCPU outside guest mode, its &kvm.srcu held and possibly dropped meanwhile;
 * otherwise as kvm_gpc_lock().
 *
 * Return: 0, or an error as of kvm_gpc_lock(); @hpa is then untouched.
 */
int kvm_gpc_guest_address(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len,
			  hpa_t *hpa);

/* A use of a cache that ends with the scope. */
struct kvm_gpc_use {
	struct gfn_to_pfn_cache *gpc;
	unsigned long len;
	void *khva;
};

static inline void kvm_gpc_use_end(struct kvm_gpc_use *use)
{
	if (!IS_ERR(use->khva))
		kvm_gpc_unlock(use->gpc, use->len);
}

DEFINE_CLASS(kvm_gpc, struct kvm_gpc_use, kvm_gpc_use_end(&_T),
	     ((struct kvm_gpc_use){ gpc, len, kvm_gpc_lock(gpc, len) }),
	     struct gfn_to_pfn_cache *gpc, unsigned long len)

DEFINE_CLASS(kvm_gpc_try, struct kvm_gpc_use, kvm_gpc_use_end(&_T),
	     ((struct kvm_gpc_use){ gpc, len, kvm_gpc_trylock(gpc, len) }),
	     struct gfn_to_pfn_cache *gpc, unsigned long len)

static inline bool kvm_gpc_is_active(struct gfn_to_pfn_cache *gpc)
{
	return READ_ONCE(gpc->state) != KVM_GPC_INACTIVE;
}

static inline bool kvm_gpc_is_gpa_active(struct gfn_to_pfn_cache *gpc)
{
	return kvm_gpc_is_active(gpc) && gpc->gpa != INVALID_GPA;
}

static inline bool kvm_gpc_is_bound(struct gfn_to_pfn_cache *gpc, gpa_t gpa)
{
	return kvm_gpc_is_active(gpc) && gpc->gpa == gpa;
}

static inline bool kvm_gpc_is_hva_active(struct gfn_to_pfn_cache *gpc)
{
	return kvm_gpc_is_active(gpc) && gpc->gpa == INVALID_GPA;
}

#endif /* __LINUX_KVM_GPC_H */
