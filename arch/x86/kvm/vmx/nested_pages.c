// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1's pages that hardware uses by their host physical address while L2 runs: vmcs12's
 * APIC-access page, virtual-APIC page and posted-interrupt descriptor.
 *
 * Each has a cache for guest use, see virt/kvm/gpc_guest.c.  Nested VM-Enter looks the
 * pages up and writes their addresses into vmcs02.  When the host takes a page away,
 * KVM_REQ_GUEST_PAGES makes vmx_get_guest_pages() repeat that before L2 continues.  Caches
 * stay bound when L2 exits to L1: the next nested VM-Enter usually finds them open.
 *
 * A page that is inaccessible leads to
 *
 *			at nested VM-Enter		while L2 runs
 *   APIC-access	KVM_EXIT_INTERNAL_ERROR		KVM_EXIT_INTERNAL_ERROR
 *   virtual-APIC	a VM-Entry that fails, or	KVM_EXIT_INTERNAL_ERROR, or
 *			nothing if it is not used	nothing if it is not used
 *   PI descriptor	the same, once KVM reads it	KVM_EXIT_INTERNAL_ERROR
 *
 * The enlightened VMCS is not among them, see nested_vmx_handle_enlightened_vmptrld().
 */
#include <linux/kvm_host.h>

#include "lapic.h"
#include "nested.h"
#include "posted_intr.h"

void nested_vmx_init_pages(struct kvm_vcpu *vcpu)
{
	struct nested_vmx *nested = &to_vmx(vcpu)->nested;

	kvm_gpc_init_guest(&nested->apic_access_cache, vcpu);
	kvm_gpc_init_guest(&nested->virtual_apic_cache, vcpu);
	kvm_gpc_init_guest(&nested->pi_desc_cache, vcpu);
}

void nested_vmx_free_pages(struct kvm_vcpu *vcpu)
{
	struct nested_vmx *nested = &to_vmx(vcpu)->nested;

	kvm_gpc_deactivate(&nested->apic_access_cache);
	kvm_gpc_deactivate(&nested->virtual_apic_cache);
	kvm_gpc_deactivate(&nested->pi_desc_cache);
}

static int load_apic_access_page(struct kvm_vcpu *vcpu, struct vmcs12 *vmcs12)
{
	hpa_t hpa;
	int ret;

	if (!nested_cpu_has2(vmcs12, SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES))
		return 0;

	ret = kvm_gpc_guest_address(&to_vmx(vcpu)->nested.apic_access_cache,
				    vmcs12->apic_access_addr, PAGE_SIZE, &hpa);
	if (!ret)
		vmcs_write64(APIC_ACCESS_ADDR, hpa);
	else if (ret != -EINTR)
		pr_debug_ratelimited("%s: no backing for APIC-access address in vmcs12\n",
				     __func__);
	return ret;
}

/* May hardware use the virtual-APIC page?  A TPR shadow alone does not imply that. */
static bool uses_virtual_apic_page(struct vmcs12 *vmcs12)
{
	return !nested_cpu_has(vmcs12, CPU_BASED_CR8_LOAD_EXITING) ||
	       !nested_cpu_has(vmcs12, CPU_BASED_CR8_STORE_EXITING) ||
	       nested_cpu_has2(vmcs12, SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) ||
	       nested_cpu_has2(vmcs12, SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE) ||
	       nested_cpu_has2(vmcs12, SECONDARY_EXEC_APIC_REGISTER_VIRT) ||
	       nested_cpu_has_vid(vmcs12);
}

static int load_virtual_apic_page(struct kvm_vcpu *vcpu, struct vmcs12 *vmcs12)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	hpa_t hpa;
	int ret;

	if (!nested_cpu_has(vmcs12, CPU_BASED_TPR_SHADOW) || vmx->nested.no_virtual_apic_page)
		return 0;

	ret = kvm_gpc_guest_address(&vmx->nested.virtual_apic_cache,
				    vmcs12->virtual_apic_page_addr, PAGE_SIZE, &hpa);
	if (!ret) {
		vmcs_write64(VIRTUAL_APIC_PAGE_ADDR, hpa);
		return 0;
	}
	if (ret == -EINTR)
		return ret;

	if (!uses_virtual_apic_page(vmcs12)) {
		/*
		 * The processor will never use the TPR shadow, simply clear
		 * the bit from the execution control.  Such a configuration is
		 * useless, but it happens in tests.
		 */
		exec_controls_clearbit(vmx, CPU_BASED_TPR_SHADOW);
	} else if (nested_vmx_run_pending(vcpu)) {
		/*
		 * Failing the VM-Enter is _not_ what the processor does but
		 * it's basically the only possibility.  Write an illegal value
		 * to force it.
		 */
		vmcs_write64(VIRTUAL_APIC_PAGE_ADDR, INVALID_GPA);
	} else {
		return ret;	/* L2 has run with a page, and continues when the page is back. */
	}
	vmx->nested.no_virtual_apic_page = true;
	return 0;
}

static int load_pi_desc(struct kvm_vcpu *vcpu, struct vmcs12 *vmcs12)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	hpa_t hpa;
	int ret;

	if (!nested_cpu_has_posted_intr(vmcs12))
		return 0;

	ret = kvm_gpc_guest_address(&vmx->nested.pi_desc_cache, vmcs12->posted_intr_desc_addr,
				    sizeof(struct pi_desc), &hpa);
	if (ret == -EINTR)
		return ret;
	if (ret && !nested_vmx_run_pending(vcpu) &&
	    pin_controls_get(vmx) & PIN_BASED_POSTED_INTR)
		return ret;

	/*
	 * If there is no descriptor at VM-Enter, defer the
	 * KVM_EXIT_INTERNAL_ERROR until KVM tries to access the descriptor.
	 * (Note that KVM may do this when it should not, per the architectural
	 * specification.)
	 */
	if (ret) {
		pin_controls_clearbit(vmx, PIN_BASED_POSTED_INTR);
	} else {
		vmcs_write64(POSTED_INTR_DESC_ADDR, hpa);
		pin_controls_setbit(vmx, PIN_BASED_POSTED_INTR);
	}
	return 0;
}

/*
 * Write the addresses of the pages into vmcs02, which is loaded.  Returns 0, -EINTR if a
 * signal has ended a lookup, or another error if there is no page.
 */
int nested_vmx_load_pages(struct kvm_vcpu *vcpu)
{
	struct vmcs12 *vmcs12 = get_vmcs12(vcpu);

	return load_apic_access_page(vcpu, vmcs12) ?:
	       load_virtual_apic_page(vcpu, vmcs12) ?:
	       load_pi_desc(vcpu, vmcs12);
}

/* Serve KVM_REQ_GUEST_PAGES.  While L1 runs, there is nothing to do. */
int vmx_get_guest_pages(struct kvm_vcpu *vcpu)
{
	return is_guest_mode(vcpu) ? nested_vmx_load_pages(vcpu) : 0;
}

/*
 * Begin to read a page for a vCPU that may be about to sleep, where a lookup must not sleep.
 * If that fails, vcpu_block() looks the page up, and L2's events are evaluated again.
 */
static void *peek_page(struct kvm_vcpu *vcpu, struct gfn_to_pfn_cache *gpc, gpa_t gpa,
		       unsigned long len)
{
	void *khva = ERR_PTR(-EAGAIN);

	if (kvm_gpc_is_bound(gpc, gpa))
		khva = kvm_gpc_trylock(gpc, len);
	if (IS_ERR(khva)) {
		kvm_make_request(KVM_REQ_GUEST_PAGES, vcpu);
		kvm_make_request(KVM_REQ_UNBLOCK, vcpu);
	}
	return khva;
}

/* Does a virtual interrupt wake L2?  May be called in TASK_INTERRUPTIBLE. */
bool nested_vmx_has_virtual_interrupt(struct kvm_vcpu *vcpu)
{
	struct vmcs12 *vmcs12 = get_vmcs12(vcpu);
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	struct pi_desc *pi_desc;
	int max_irr, vppr;
	void *vapic;

	/* See load_virtual_apic_page(). */
	if (vmx->nested.no_virtual_apic_page)
		return false;

	vapic = peek_page(vcpu, &vmx->nested.virtual_apic_cache,
			  vmcs12->virtual_apic_page_addr, PAGE_SIZE);
	if (IS_ERR(vapic))
		return false;
	vppr = *((u32 *)(vapic + APIC_PROCPRI));
	kvm_gpc_unlock_clean(&vmx->nested.virtual_apic_cache);

	max_irr = vmx_get_rvi();
	if ((max_irr & 0xf0) > (vppr & 0xf0))
		return true;

	/* See load_pi_desc(). */
	if (!vmx->nested.pi_pending || !(pin_controls_get(vmx) & PIN_BASED_POSTED_INTR))
		return false;

	pi_desc = peek_page(vcpu, &vmx->nested.pi_desc_cache,
			    vmcs12->posted_intr_desc_addr, sizeof(*pi_desc));
	if (IS_ERR(pi_desc))
		return false;
	max_irr = pi_test_on(pi_desc) ? pi_find_highest_vector(pi_desc) : 0;
	kvm_gpc_unlock_clean(&vmx->nested.pi_desc_cache);

	return max_irr > 0 && (max_irr & 0xf0) > (vppr & 0xf0);
}

/*
 * Move posted interrupts from L1's descriptor into the virtual-APIC page.  Returns as
 * nested_vmx_load_pages().
 */
int nested_vmx_take_posted_interrupts(struct kvm_vcpu *vcpu)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	struct gfn_to_pfn_cache *vapic_gpc = &vmx->nested.virtual_apic_cache;
	struct gfn_to_pfn_cache *pi_gpc = &vmx->nested.pi_desc_cache;
	struct vmcs12 *vmcs12 = get_vmcs12(vcpu);
	struct pi_desc *pi_desc;
	int max_irr, ret;
	void *vapic;
	u16 status;
	hpa_t hpa;

	/* A lookup may sleep, and so neither page may be locked meanwhile. */
	for (;;) {
		ret = kvm_gpc_guest_address(pi_gpc, vmcs12->posted_intr_desc_addr,
					    sizeof(*pi_desc), &hpa);
		if (!ret)
			ret = kvm_gpc_guest_address(vapic_gpc, vmcs12->virtual_apic_page_addr,
						    PAGE_SIZE, &hpa);
		if (ret)
			return ret;

		pi_desc = kvm_gpc_trylock(pi_gpc, sizeof(*pi_desc));
		if (IS_ERR(pi_desc))
			continue;
		vapic = kvm_gpc_trylock(vapic_gpc, PAGE_SIZE);
		if (!IS_ERR(vapic))
			break;
		kvm_gpc_unlock_clean(pi_gpc);
	}

	/* In this order: an interrupt posted from here on sets pi_pending again. */
	vmx->nested.pi_pending = false;
	if (pi_test_and_clear_on(pi_desc)) {
		max_irr = pi_find_highest_vector(pi_desc);
		if (max_irr > 0) {
			__kvm_apic_update_irr(pi_desc->pir, vapic, &max_irr);
			status = vmcs_read16(GUEST_INTR_STATUS);
			if ((u8)max_irr > ((u8)status & 0xff)) {
				status &= ~0xff;
				status |= (u8)max_irr;
				vmcs_write16(GUEST_INTR_STATUS, status);
			}
		}
	}

	kvm_gpc_unlock(vapic_gpc, PAGE_SIZE);
	kvm_gpc_unlock(pi_gpc, sizeof(*pi_desc));
	return 0;
}
