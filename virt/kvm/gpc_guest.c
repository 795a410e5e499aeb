// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest use: a page that hardware uses by its physical address while a vCPU is in guest
 * mode, such as the virtual-APIC page of a nested guest.  No lock can be held meanwhile.
 * Instead an invalidation waits until the vCPU has left guest mode, and the request
 * KVM_REQ_GUEST_PAGES keeps the vCPU out until it has looked the page up again.
 *
 * The invalidation closes the cache and then makes the request, in one section of
 * kvm->mn_invalidate_lock.  Without the lock it reads the vCPU's mode, and if that is
 * IN_GUEST_MODE sends an IPI and waits for the answer.  The vCPU looks up the address and
 * hands it to hardware; then it sets its mode, and then reads its requests.  With a full
 * barrier in each of the two, only these orders exist:
 *
 *	invalidation                       vCPU
 *	--------------------------------   ---------------------------------------------
 *   1.	                                   look up, hand over
 *	                                   IN_GUEST_MODE, no request: enter
 *	close, request
 *	IN_GUEST_MODE: IPI, wait
 *	                                   exit, OUTSIDE_GUEST_MODE, answer
 *	unmap
 *	end
 *	                                   request: look up the new page
 *
 *   2.	                                   look up, hand over
 *	close, request
 *	OUTSIDE_GUEST_MODE: go on
 *	                                   IN_GUEST_MODE, request: do not enter
 *	unmap                              look up: wait for the end
 *	end
 *
 *   3.	                                   clear the request of an invalidation before
 *	close, request
 *	OUTSIDE_GUEST_MODE: go on          look up: wait for the end
 *	unmap, end
 *	                                   hand over, IN_GUEST_MODE, request: do not enter
 *	                                   look up once more: the cache is open
 *
 *   4.	                                   IN_GUEST_MODE, no request: enter
 *	first: close, request
 *	second: closed, request
 *	second: IN_GUEST_MODE: IPI, wait
 *	                                   exit, OUTSIDE_GUEST_MODE, answer
 *	second: unmap
 *	first: OUTSIDE_GUEST_MODE: go on
 *
 * If the request came before the close, the vCPU could serve the request with the cache
 * still open, and enter.  If the second of 4. made no request, it would not wait.
 *
 * Only the vCPU clears the request, and then looks the page up before it enters guest mode
 * again.  So an invalidation that finds the request clear need not wait: the
 * vCPU has left guest mode since the close.  An exit from guest mode orders what hardware
 * did to the page before the clear, and the invalidation has a read barrier.
 *
 * While hardware has the address, the cache is in the tree or the request is pending: a
 * lookup that takes the cache out of the tree makes the request, too.
 *
 * A vCPU that is about to sleep, and would wake by what is in the page, reads it under a
 * trylock.  If that fails, the vCPU makes the request and KVM_REQ_UNBLOCK, and neither sleeps
 * nor wakes the guest: vcpu_block() looks the page up, and the vCPU reads it again.
 *
 * No deadlock: in guest mode the vCPU waits for nobody, and nobody waits for a vCPU that is
 * outside guest mode, e.g. asleep in a lookup.
 *
 * An update of memslots closes no cache.  It ends with a request to all vCPUs, and waits
 * until they have left guest mode.
 */
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mutex.h>

#include "kvm_mm.h"

void kvm_gpc_init_guest(struct gfn_to_pfn_cache *gpc, struct kvm_vcpu *vcpu)
{
	kvm_gpc_init(gpc, vcpu->kvm);
	gpc->vcpu = vcpu;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_init_guest);

/*
 * The end of an update of memslots.  If an activation is not seen here, it began after
 * synchronize_srcu(), and its lookup reads the new memslots.
 */
void kvm_gpc_memslots_updated(struct kvm *kvm)
{
	if (READ_ONCE(kvm->gpcs.nr_guest))
		kvm_make_all_cpus_request(kvm, KVM_REQ_GUEST_PAGES);
}

/*
 * A memslot that is deleted or moved has no pages until the update ends.  If that is why a
 * lookup failed, wait for the end.  Returns 0 to look up again, or an error.
 */
static int gpc_wait_for_memslots(struct gfn_to_pfn_cache *gpc)
	__must_hold(&gpc->kvm->srcu)
{
	struct kvm_memslots *slots = kvm_memslots(gpc->kvm);
	struct kvm_memory_slot *memslot = __gfn_to_memslot(slots, gpa_to_gfn(gpc->gpa));
	int ret;

	if (gpc->generation != READ_ONCE(slots->generation))
		return 0;	/* an update has ended */
	if (!memslot || !(memslot->flags & KVM_MEMSLOT_INVALID))
		return -EFAULT;

	/* The update waits for the readers of srcu. */
	kvm_vcpu_srcu_read_unlock(gpc->vcpu);
	ret = mutex_lock_interruptible(&gpc->kvm->slots_lock);
	if (!ret)
		mutex_unlock(&gpc->kvm->slots_lock);
	kvm_vcpu_srcu_read_lock(gpc->vcpu);
	return ret;
}

static hpa_t gpc_hpa(struct gfn_to_pfn_cache *gpc)
{
	if (gpc->map.type == KVM_GPC_MAP_DIRECT)
		return __pa(gpc->khva);
	return pfn_to_hpa(gpc->map.pfns[0]) + offset_in_page(gpc->khva);
}

int kvm_gpc_guest_address(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len,
			  hpa_t *hpa)
{
	void *khva;
	int ret;

	if (!kvm_gpc_is_bound(gpc, gpa)) {
		ret = kvm_gpc_activate(gpc, gpa, len);
		if (ret)
			return ret;
	}

	for (;;) {
		khva = kvm_gpc_lock(gpc, len);
		if (!IS_ERR(khva))
			break;
		ret = PTR_ERR(khva);
		if (ret == -EFAULT)
			ret = gpc_wait_for_memslots(gpc);
		if (ret)
			return ret;
	}

	*hpa = gpc_hpa(gpc);
	kvm_gpc_unlock_clean(gpc);
	return 0;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_gpc_guest_address);
