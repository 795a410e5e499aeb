// SPDX-License-Identifier: GPL-2.0-only
/*
 * Re-initialization of vCPUs: a guest that starts anew, with its MMU off, is to see what
 * userspace has written to its memory (Documentation/virt/kvm/arm/reinit.rst).
 */
#include <linux/cacheflush.h>
#include <linux/kvm_host.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#include "reinit.h"
#include "trace_arm.h"

/*
 * A reset of the VM is: vCPUs that have run are initialized again, the guest's memory is
 * written, in whatever order, and vCPUs run.  Memory is made coherent once for all of
 * it, and as late as can be: by the first of these vCPUs to run, just before it enters
 * the guest.  So all that was written until then is covered, and an initialization has
 * no more to do than to leave a note:
 *
 *	kvm->arch.reinit.pending	a vCPU that had run has been initialized, and
 *					memory has not been made coherent since
 *	KVM_REQ_REINIT			of a vCPU: it has been initialized, and has not
 *					run since; its MMU will be off
 *
 * A vCPU with the request takes reinit.lock, clears @pending, makes memory coherent if
 * it was set, and enters the guest.  Hence a vCPU that starts with its MMU off
 *
 *	- has set @pending, finds it set and does the work; or
 *	- finds that another one, with a request of its own, has cleared it later, and,
 *	  because the lock is held until the work is done, has done it.  With that one
 *	  the guest runs again, and what is written from there on is the guest's
 *	  business and userspace's; or
 *	- has itself been initialized while another one was at work, or later: @pending
 *	  was cleared before the work began, so it is set again, and finds it so.
 *
 * A sibling that was not initialized, and maybe has run all the while, has no request: it
 * does not do the work, and clear @pending, while userspace still writes the image that
 * another vCPU is to start with.  Nor does a vCPU that is powered off, suspended, or has
 * a signal to handle: it has not run.  A vCPU whose first KVM_RUN is interrupted between
 * here and the guest counts as having run, because userspace cannot know better; to
 * start over each time would let a timer's signals keep a large VM from ever running.
 *
 * The store that sets @pending is a release, the exchange that clears it an acquire:
 * writes before an initialization are seen by the maintenance that is for it.
 *
 * The work is to clean and invalidate, by address to the point of coherency, each page
 * that stage 2 maps, under mmu_lock for writing:
 *
 *	- An MMU notifier takes pages away under mmu_lock.  What is found in the page
 *	  tables is the guest's, and in the kernel's linear map, until the lock is
 *	  dropped; and after that it is not touched.
 *	- The page tables tell what to do, and not memslots or VMAs: an update of
 *	  memslots unmaps what it takes away, under mmu_lock, and what has no VMA is
 *	  not mapped either.  Only what is mapped as cacheable is touched, devices'
 *	  memory is not.
 *	- A sibling that faults a page in does so with mmu_lock held for reading, and
 *	  cleans it before it is mapped.  When the lock is first taken here, no fault
 *	  is between the two.  So a page that was mapped before is found, if the walk
 *	  has not passed it yet; and one that is mapped later has been cleaned since
 *	  the walk began, and need not be found.  The same is true of a block that a
 *	  fault puts in the place of pages.  What splits a block does not clean, nor
 *	  need it, since the walk goes by addresses.
 *	- Cleaning writes to memory what the caches hold.  Nothing that a running
 *	  sibling writes is lost.
 *
 * The lock is dropped every REINIT_BATCH, if somebody wants it or the CPU.
 *
 * What KVM itself writes through guest-page caches needs no care here: that is in the
 * same caches, by another address of the same pages, and is cleaned with them if they are
 * mapped, or when they will be.  What it writes once the guest runs with its caches off
 * is up to the writer (see pvtime.c).
 */

/* Bytes to clean with mmu_lock held: a fraction of a millisecond. */
#define REINIT_BATCH	SZ_1M
/* What it takes to look at an entry of the page tables, in bytes to clean. */
#define REINIT_VISIT	SZ_1K

struct reinit_walk {
	struct kvm_pgtable *pgt;
	u64 next;	/* first IPA that has not been dealt with */
	u64 work;	/* done in this batch */
	u64 cleaned;	/* bytes, in all */
};

/* Returns 1 when the batch is done. */
static int reinit_clean_leaf(const struct kvm_pgtable_visit_ctx *ctx,
			     enum kvm_pgtable_walk_flags visit)
{
	struct reinit_walk *walk = ctx->arg;
	u64 offset = ctx->addr & (kvm_granule_size(ctx->level) - 1);
	u64 size = kvm_granule_size(ctx->level) - offset;

	if (kvm_pgtable_stage2_pte_cacheable(walk->pgt, ctx->old)) {
		size = min_t(u64, size, REINIT_BATCH);
		kvm_flush_dcache_to_poc(__va(kvm_pte_to_phys(ctx->old)) + offset, size);
		trace_kvm_reinit_clean(ctx->addr, size);
		walk->cleaned += size;
		walk->work += size;
	}

	walk->next = ctx->addr + size;
	walk->work += REINIT_VISIT;
	return walk->work >= REINIT_BATCH;
}

/* Clean what a stage 2 maps.  The MMU may go, or be another's, while the lock is dropped. */
static int reinit_clean_mmu(struct kvm *kvm, struct kvm_s2_mmu *mmu, u64 *cleaned)
{
	struct reinit_walk walk = {};
	struct kvm_pgtable_walker walker = {
		.cb	= reinit_clean_leaf,
		.flags	= KVM_PGTABLE_WALK_LEAF,
		.arg	= &walk,
	};

	while (mmu->pgt && walk.next < BIT(mmu->pgt->ia_bits)) {
		walk.pgt = mmu->pgt;
		walk.work = 0;
		if (kvm_pgtable_walk(mmu->pgt, walk.next,
				     BIT(mmu->pgt->ia_bits) - walk.next, &walker) <= 0)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched_rwlock_write(&kvm->mmu_lock);
	}

	*cleaned += walk.cleaned;
	return 0;
}

/*
 * The decision: what is mapped is cleaned where it is, and nothing is unmapped.
 *
 * What the guest wrote past the caches must not be shadowed by what is in them once it
 * is unmapped.  So unmapping has to clean as well, and what the guest touches again is
 * cleaned once more when it is faulted in.  Instructions for 128 MiB, from the first
 * KVM_ARM_VCPU_INIT until the vCPU has run ("reset"), and until it has touched all of it
 * ("ready"), by the selftests' gpc_bench (reinit.rst has more of them):
 *
 *		  unmapped: reset        ready  in place: reset       ready
 *	4K pages       19,962,672  182,524,256       12,703,024  12,990,544
 *	2M blocks       8,730,720   17,696,208        8,724,336   9,011,856
 *
 * To clean in place is at no size dearer by more than 0.2 %, however little the guest
 * touches, so that there is nothing to choose between at run time.
 */
static int reinit_clean_vm(struct kvm *kvm, u64 *cleaned)
{
	int i, ret;

	write_lock(&kvm->mmu_lock);
	ret = reinit_clean_mmu(kvm, &kvm->arch.mmu, cleaned);
	for (i = 0; !ret && i < kvm->arch.nested_mmus_size; i++) {
		if (kvm_s2_mmu_valid(kvm->arch.nested_mmus[i]))
			ret = reinit_clean_mmu(kvm, kvm->arch.nested_mmus[i], cleaned);
	}
	write_unlock(&kvm->mmu_lock);

	return ret;
}

static int reinit_make_coherent(struct kvm *kvm)
{
	bool icache = !cpus_have_final_cap(ARM64_HAS_CACHE_DIC);
	u64 cleaned = 0;
	int ret;

	/* With FEAT_S2FWB the guest uses the caches, whether its MMU is on or off. */
	if (!cpus_have_final_cap(ARM64_HAS_STAGE2_FWB)) {
		ret = reinit_clean_vm(kvm, &cleaned);
		if (ret)
			return ret;
	}

	/* After the data: instructions are fetched anew from what has been cleaned. */
	if (icache)
		icache_inval_all_pou();

	kvm->stat.reinits++;
	kvm->stat.reinit_cleaned_pages += cleaned >> PAGE_SHIFT;
	kvm->stat.reinit_icache_invals += icache;
	trace_kvm_reinit(cleaned, icache);
	return 0;
}

/**
 * kvm_reinit_init_vm - prepare a VM
 * @kvm: VM under construction
 */
void kvm_reinit_init_vm(struct kvm *kvm)
{
	mutex_init(&kvm->arch.reinit.lock);
}

/**
 * kvm_reinit_vcpu - note that a vCPU starts anew
 * @vcpu: vCPU that is initialized, for the first time or again
 *
 * Context: &kvm_vcpu.mutex held.
 */
void kvm_reinit_vcpu(struct kvm_vcpu *vcpu)
{
	if (vcpu_has_run_once(vcpu)) {
		/* Pairs with the exchange in kvm_reinit_before_run(). */
		smp_store_release(&vcpu->kvm->arch.reinit.pending, true);
	}
	kvm_make_request(KVM_REQ_REINIT, vcpu);
}

/**
 * kvm_reinit_before_run - have the guest see what userspace has written
 * @vcpu: loaded vCPU with KVM_REQ_REINIT that is about to enter the guest
 *
 * Context: may sleep; takes &kvm_arch.reinit.lock and &kvm.mmu_lock.
 *
 * Return: 1 to enter the guest, or -EINTR: killed.
 */
int kvm_reinit_before_run(struct kvm_vcpu *vcpu)
{
	struct kvm *kvm = vcpu->kvm;
	int ret = 0;

	if (mutex_lock_killable(&kvm->arch.reinit.lock))
		return -EINTR;

	if (xchg(&kvm->arch.reinit.pending, false)) {
		ret = reinit_make_coherent(kvm);
		if (ret)
			WRITE_ONCE(kvm->arch.reinit.pending, true);
	}
	if (!ret)
		kvm_clear_request(KVM_REQ_REINIT, vcpu);

	mutex_unlock(&kvm->arch.reinit.lock);
	return ret ?: 1;
}
