// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1's pages that KVM reads and writes on behalf of L1: vmcb12, and the operands of VMLOAD
 * and VMSAVE.
 *
 * Each vCPU keeps a few of these pages in guest-page caches.  An L1 whose VMLOAD and VMSAVE
 * are intercepted uses vmcb12 and its save area in turn on each run of L2.  An L1 that runs
 * several L2 vCPUs on this vCPU uses several vmcb12 in turn.
 *
 * Only the thread that has loaded the vCPU looks for a cache and binds it.
 */
#include <linux/kvm_host.h>
#include <linux/slab.h>

#include "svm.h"

#define NR_GPCS	4

struct svm_nested_pages {
	struct gfn_to_pfn_cache gpcs[NR_GPCS];
	unsigned int next;	/* the cache that the next new page takes */
};

struct svm_nested_pages *svm_alloc_nested_pages(struct kvm *kvm)
{
	struct svm_nested_pages *pages = kzalloc(sizeof(*pages), GFP_KERNEL_ACCOUNT);
	int i;

	if (!pages)
		return NULL;

	for (i = 0; i < NR_GPCS; i++)
		kvm_gpc_init(&pages->gpcs[i], kvm);
	return pages;
}

void svm_free_nested_pages(struct svm_nested_pages *pages)
{
	int i;

	for (i = 0; i < NR_GPCS; i++)
		kvm_gpc_deactivate(&pages->gpcs[i]);
	kfree(pages);
}

/* The cache of the page that @gpa is in. */
struct gfn_to_pfn_cache *svm_nested_gpc(struct vcpu_svm *svm, gpa_t gpa)
{
	struct svm_nested_pages *pages = svm->nested.pages;
	struct gfn_to_pfn_cache *gpc;
	int i;

	gpa = PAGE_ALIGN_DOWN(gpa);
	for (i = 0; i < NR_GPCS; i++) {
		if (pages->gpcs[i].gpa == gpa)
			return &pages->gpcs[i];
	}

	gpc = &pages->gpcs[pages->next];
	pages->next = (pages->next + 1) % NR_GPCS;
	kvm_gpc_activate(gpc, gpa, PAGE_SIZE);
	return gpc;
}

/*
 * kvm_gpc_lock() returned @err for the operand of an instruction.  Returns what the handler
 * of the VM-Exit returns.
 */
int svm_nested_gpc_error(struct kvm_vcpu *vcpu, int err)
{
	/* A signal ends KVM_RUN: L1 executes the instruction again. */
	if (err == -EINTR) {
		kvm_handle_signal_exit(vcpu);
		return err;
	}

	return svm_nested_no_page(vcpu);
}
