// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of L1's that KVM reads and writes for it: vmcb12, and what VMLOAD and VMSAVE name.
 *
 * A vCPU keeps a few of them in guest-page caches.  An L1 whose VMLOAD and VMSAVE are
 * intercepted alternates between vmcb12 and its own save area on each run of L2, and one
 * that runs several vCPUs of L2's on this vCPU between several vmcb12.
 *
 * Only the thread that has loaded the vCPU looks for a cache and binds it.
 */
#include <linux/kvm_host.h>
#include <linux/slab.h>

#include "svm.h"

#define NR_PAGES	4

struct svm_nested_pages {
	struct gfn_to_pfn_cache gpcs[NR_PAGES];
	unsigned int next;	/* to be bound anew */
};

struct svm_nested_pages *svm_alloc_nested_pages(struct kvm *kvm)
{
	struct svm_nested_pages *pages = kzalloc(sizeof(*pages), GFP_KERNEL_ACCOUNT);
	int i;

	if (!pages)
		return NULL;

	for (i = 0; i < NR_PAGES; i++)
		kvm_gpc_init(&pages->gpcs[i], kvm);
	return pages;
}

void svm_free_nested_pages(struct svm_nested_pages *pages)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		kvm_gpc_deactivate(&pages->gpcs[i]);
	kfree(pages);
}

/* The cache of the page at @gpa, whose offset in the page is ignored. */
struct gfn_to_pfn_cache *svm_nested_page(struct vcpu_svm *svm, gpa_t gpa)
{
	struct svm_nested_pages *pages = svm->nested.pages;
	struct gfn_to_pfn_cache *gpc;
	int i;

	gpa = PAGE_ALIGN_DOWN(gpa);
	for (i = 0; i < NR_PAGES; i++) {
		if (pages->gpcs[i].gpa == gpa)
			return &pages->gpcs[i];
	}

	gpc = &pages->gpcs[pages->next];
	pages->next = (pages->next + 1) % NR_PAGES;
	kvm_gpc_activate(gpc, gpa, PAGE_SIZE);
	return gpc;
}

/*
 * kvm_gpc_lock() gave @err for the page that an instruction of L1's names.  Returns what
 * the handler of the VM-Exit has to return.
 */
int svm_nested_page_error(struct kvm_vcpu *vcpu, int err)
{
	/* A signal ends KVM_RUN: L1 executes the instruction again. */
	if (err == -EINTR) {
		kvm_handle_signal_exit(vcpu);
		return err;
	}

	kvm_inject_gp(vcpu, 0);
	return 1;
}
