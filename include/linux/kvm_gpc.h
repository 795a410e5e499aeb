/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest-page cache: KVM's way to a guest page that it reads or writes on
 * its own behalf.  A cache keeps the translation from a guest physical (or a
 * user) address to a kernel address, for as long as neither memslots nor the
 * VMM's page tables change it.
 *
 *	CLASS(kvm_gpc, record)(&vcpu->arch.record_cache, sizeof(*rec));
 *
 *	if (IS_ERR(record.khva))
 *		return;
 *	rec = record.khva;
 *	rec->field = value;
 *
 * virt/kvm/pfncache.c says why this is safe.
 */
#ifndef __LINUX_KVM_GPC_H
#define __LINUX_KVM_GPC_H

#include <linux/cleanup.h>
#include <linux/err.h>
#include <linux/interval_tree.h>
#include <linux/kvm_types.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock_types.h>
#include <linux/wait.h>

struct kvm;

/**
 * struct gfn_to_pfn_cache - one cached guest page
 * @kvm: the VM; set by kvm_gpc_init()
 * @gpa: guest physical address, %INVALID_GPA when bound to a user address
 * @uhva: user virtual address of the first byte, %KVM_HVA_ERR_BAD when unknown
 * @len: bytes from there that a use may touch, fixed by the activation
 * @generation: of the memslots that gave @uhva; for a @gpa only
 * @memslot: that the page lies in; for a @gpa only
 * @pfn: page frame, %KVM_PFN_ERR_FAULT when there is none
 * @khva: kernel address of the first byte, %NULL when not mapped
 * @active: between activation and deactivation
 * @valid: @khva may be used, given that @generation is the current one
 * @missed: an invalidation hit the page after the lookup under way began
 * @node: the page of @uhva in &kvm_gpcs.tree
 * @lock: readers use @khva; the writer changes any of the above
 * @refresh_lock: one activation, deactivation or refresh at a time
 *
 * Fields above @missed change with both @refresh_lock and @lock held, so that
 * either suffices to read them; but an invalidation clears @valid with @lock
 * alone.  @node and @missed change under &kvm.mn_invalidate_lock; to set @missed
 * takes @lock as well, so that a refresh can read it when it publishes.
 */
struct gfn_to_pfn_cache {
	struct kvm *kvm;
	gpa_t gpa;
	unsigned long uhva;
	unsigned long len;
	u64 generation;
	struct kvm_memory_slot *memslot;
	kvm_pfn_t pfn;
	void *khva;
	bool active;
	bool valid;
	bool missed;
	struct interval_tree_node node;
	rwlock_t lock;
	struct mutex refresh_lock;	/* held while looking up and mapping */
};

/**
 * struct kvm_gpcs - what a VM keeps for its caches
 * @tree: interval tree of the user pages of active caches
 * @invalidations: records of the invalidations in progress
 * @spare: records that are not in use
 * @nr_recorded: length of @invalidations
 * @nr_active: active caches
 * @drain_waiter: somebody waits for the invalidations without a record
 * @closed: the MMU notifier goes or has gone, no lookup may begin; never cleared
 * @wait: refreshes that wait for an invalidation to end
 *
 * All but @wait change under &kvm.mn_invalidate_lock.
 */
struct kvm_gpcs {
	struct rb_root_cached tree;
	struct list_head invalidations;
	struct list_head spare;
	unsigned long nr_recorded;
	unsigned long nr_active;
	bool drain_waiter;
	bool closed;
	wait_queue_head_t wait;
};

void kvm_gpc_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm);
int kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len);
int kvm_gpc_activate_hva(struct gfn_to_pfn_cache *gpc, unsigned long uhva,
			 unsigned long len);
void kvm_gpc_deactivate(struct gfn_to_pfn_cache *gpc);

void *kvm_gpc_lock(struct gfn_to_pfn_cache *gpc, unsigned long len);
void *kvm_gpc_trylock(struct gfn_to_pfn_cache *gpc, unsigned long len);
void kvm_gpc_unlock(struct gfn_to_pfn_cache *gpc);
void kvm_gpc_unlock_clean(struct gfn_to_pfn_cache *gpc);

/* For loops that consumers still open-code; new code uses kvm_gpc_lock(). */
bool kvm_gpc_check(struct gfn_to_pfn_cache *gpc, unsigned long len);
int kvm_gpc_refresh(struct gfn_to_pfn_cache *gpc, unsigned long len);

/* A use of a cache that ends with the scope. */
struct kvm_gpc_use {
	struct gfn_to_pfn_cache *gpc;
	void *khva;
};

static inline void kvm_gpc_use_end(struct kvm_gpc_use *use)
{
	if (!IS_ERR(use->khva))
		kvm_gpc_unlock(use->gpc);
}

DEFINE_CLASS(kvm_gpc, struct kvm_gpc_use, kvm_gpc_use_end(&_T),
	     ((struct kvm_gpc_use){ gpc, kvm_gpc_lock(gpc, len) }),
	     struct gfn_to_pfn_cache *gpc, unsigned long len)

DEFINE_CLASS(kvm_gpc_try, struct kvm_gpc_use, kvm_gpc_use_end(&_T),
	     ((struct kvm_gpc_use){ gpc, kvm_gpc_trylock(gpc, len) }),
	     struct gfn_to_pfn_cache *gpc, unsigned long len)

static inline bool kvm_gpc_is_gpa_active(struct gfn_to_pfn_cache *gpc)
{
	return gpc->active && gpc->gpa != INVALID_GPA;
}

static inline bool kvm_gpc_is_hva_active(struct gfn_to_pfn_cache *gpc)
{
	return gpc->active && gpc->gpa == INVALID_GPA;
}

#endif /* __LINUX_KVM_GPC_H */
