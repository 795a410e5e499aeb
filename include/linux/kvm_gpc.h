/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest-page cache: how KVM reads and writes guest memory on its own behalf.
 * A cache keeps the translation from a guest physical (or a user) address to a
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
struct mmu_notifier_range;

/* A structure may cross the end of a page, but none is larger than a page. */
#define KVM_GPC_MAX_PAGES	2

/* How page frames got their kernel address. */
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
 * struct kvm_gpc_lock - reader-writer spinlock, see virt/kvm/gpc_lock.h
 * @count: readers; plus a large negative number while the lock is held for write
 * @dep_map: for lockdep
 */
struct kvm_gpc_lock {
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
 * @lock: held for read by each use
 * @state: see &enum kvm_gpc_state
 * @nr_pages: user pages in @pages and in the tree; 0 until @gpa has been translated
 * @dirty_track: a memslot of @pages tracks what is written
 * @gpa: guest physical address, %INVALID_GPA when bound to a user address
 * @uhva: user virtual address of the first byte, %KVM_HVA_ERR_BAD when unknown
 * @len: bytes from there that a use may touch, fixed by the activation
 * @generation: of the memslots that gave @pages; for a @gpa only
 * @khva: kernel address of the first byte
 * @map: the mapping that @khva points into, unless a refresh works on it
 * @pages: the user pages of the first and of the last byte
 * @refresh_lock: one refresh at a time
 *
 * Everything but @refresh_lock and the readers of @lock changes under
 * &kvm.mn_invalidate_lock.  What a use reads (@dirty_track to @khva, and the memslots)
 * changes only while @lock is held for write as well.
 */
struct gfn_to_pfn_cache {
	struct kvm *kvm;
	struct kvm_gpc_lock lock;
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
	struct mutex refresh_lock;
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
 * @max_recorded: number of records there is room for
 * @first_invalidations: room for the first records
 * @gfn_start: first gfn whose memory attributes are being changed
 * @gfn_end: first gfn behind; @gfn_start when there is no change in progress
 * @nr_active: active caches
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
	bool closed;
	wait_queue_head_t wait;
};

void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm);
int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);
int kvm_gpc_activate_span(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);
int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len);
void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc);

int kvm_gpc_refresh(struct gfn_to_pfn_cache *gpc);
void *kvm_gpc_lock(struct gfn_to_pfn_cache *gpc, unsigned long len);
void *kvm_gpc_trylock(struct gfn_to_pfn_cache *gpc, unsigned long len);
void kvm_gpc_unlock(struct gfn_to_pfn_cache *gpc, unsigned long len);
void kvm_gpc_unlock_clean(struct gfn_to_pfn_cache *gpc);

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

static inline bool kvm_gpc_is_hva_active(struct gfn_to_pfn_cache *gpc)
{
	return kvm_gpc_is_active(gpc) && gpc->gpa == INVALID_GPA;
}

#endif /* __LINUX_KVM_GPC_H */
