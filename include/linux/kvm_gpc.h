/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest-page cache: KVM's way to guest memory that it reads or writes on
 * its own behalf.  A cache keeps the translation from a guest physical (or a
 * user) address to a kernel address, for as long as neither memslots, memory
 * attributes nor the VMM's page tables change it.
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
#include <linux/list.h>
#include <linux/lockdep_types.h>
#include <linux/mutex.h>
#include <linux/rbtree_types.h>
#include <linux/wait.h>

struct kvm;
struct mmu_notifier_range;

/* A structure may cross the end of a page, but none is larger than one. */
#define KVM_GPC_MAX_PAGES	2

/* How a mapping's pages got their kernel address. */
enum kvm_gpc_map_type {
	KVM_GPC_MAP_NONE,
	KVM_GPC_MAP_DIRECT,
	KVM_GPC_MAP_VMAP,
	KVM_GPC_MAP_MEMREMAP,
};

/**
 * struct kvm_gpc_map - page frames at one contiguous kernel address
 * @pfns: page frames, in the order of their addresses; not for the direct map
 * @nr_pages: how many; not for the direct map
 * @type: how they are mapped
 * @base: kernel address of the first one
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
 * @memslot: that the page lies in, %NULL when the cache is bound to a user address
 */
struct kvm_gpc_page {
	struct rb_node rb;
	unsigned long uhva;
	unsigned long subtree_last;
	struct gfn_to_pfn_cache *gpc;
	struct kvm_memory_slot *memslot;
};

/**
 * struct gfn_to_pfn_cache - a cached piece of guest memory
 * @kvm: the VM; set by kvm_gpc_init()
 * @users: uses in progress; negative while the cache is closed
 * @active: between activation and deactivation
 * @missed: what a lookup finds is not to be published: it has been overtaken by an
 *	    invalidation or a deactivation
 * @gpa: guest physical address, %INVALID_GPA when bound to a user address
 * @uhva: user virtual address of the first byte, %KVM_HVA_ERR_BAD when unknown
 * @len: bytes from there that a use may touch, fixed by the activation
 * @generation: of the memslots that gave @pages; for a @gpa only
 * @khva: kernel address of the first byte
 * @refreshing: @map is the refresh's that is under way, to reuse or undo
 * @map: what @khva points into
 * @pages: the user pages of @uhva and of the last byte
 * @nr_pages: 1, or 2 when these are two
 * @dirty_track: a memslot of @pages tracks what is written
 * @refresh_lock: one activation or refresh at a time
 * @dep_map: a use for lockdep: a read lock, that closing takes for write
 *
 * All of it (but the number of uses) changes under &kvm.mn_invalidate_lock, and what a
 * use reads (@gpa to @dirty_track) only while the cache is closed.  @gpa to @generation
 * and @pages to @dirty_track change with @refresh_lock held as well, so that either lock
 * suffices to read them.  (A page's links in the tree are the tree's.)
 */
struct gfn_to_pfn_cache {
	struct kvm *kvm;
	atomic_t users;
	bool active;
	bool missed;
	bool refreshing;
	u8 nr_pages;
	bool dirty_track;
	gpa_t gpa;
	unsigned long uhva;
	unsigned long len;
	u64 generation;
	void *khva;
	struct kvm_gpc_map map;
	struct kvm_gpc_page pages[KVM_GPC_MAX_PAGES];
	struct mutex refresh_lock;	/* held while looking up and mapping */
	struct lockdep_map dep_map;
};

/**
 * struct kvm_gpc_gfn_invalidation - what is behind some gfns is being changed
 * @link: in &kvm_gpcs.gfn_invalidations
 * @start: first gfn
 * @end: first gfn behind
 * @nr: how many changes are in progress; @start and @end span all of them
 * @waiter: somebody waits for the end
 *
 * Under &kvm.mn_invalidate_lock; zeroed by the owner.
 */
struct kvm_gpc_gfn_invalidation {
	struct list_head link;
	gfn_t start;
	gfn_t end;
	unsigned int nr;
	bool waiter;
};

/**
 * struct kvm_gpc_invalidation - an invalidation in progress, by user address
 * @range: that start was called with and end will be, alive in between
 * @waiter: somebody waits for the end
 */
struct kvm_gpc_invalidation {
	const struct mmu_notifier_range *range;
	bool waiter;
};

/* Invalidations at a time for which a record is there without an allocation. */
#define KVM_GPC_NR_INVALIDATIONS	4

/**
 * struct kvm_gpcs - what a VM keeps for its caches
 * @tree: interval tree of the user pages of active caches
 * @invalidations: records of the invalidations in progress, by user address
 * @nr_recorded: how many
 * @max_recorded: how many there is room for
 * @first_invalidations: where they are as long as it suffices
 * @gfn_invalidations: the same by gfn, owned by whoever makes the change
 * @nr_active: active caches
 * @drain_waiter: somebody waits for the invalidations without a record
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
	struct list_head gfn_invalidations;
	unsigned long nr_active;
	bool drain_waiter;
	bool closed;
	wait_queue_head_t wait;
};

void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm);
int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);
int kvm_gpc_activate_span(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);
int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len);
void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc);

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

static inline bool kvm_gpc_is_gpa_active(struct gfn_to_pfn_cache *gpc)
{
	return READ_ONCE(gpc->active) && gpc->gpa != INVALID_GPA;
}

static inline bool kvm_gpc_is_hva_active(struct gfn_to_pfn_cache *gpc)
{
	return READ_ONCE(gpc->active) && gpc->gpa == INVALID_GPA;
}

#endif /* __LINUX_KVM_GPC_H */
