// SPDX-License-Identifier: GPL-2.0-only
/*
 * Steal time: how long a vCPU has waited for a CPU, and whether it waits now.  KVM
 * writes both to memory that the guest has registered with MSR_KVM_STEAL_TIME
 * (Documentation/virt/kvm/x86/msr.rst).
 */
#include <linux/kvm_host.h>
#include <linux/sched/stat.h>

#include <asm/kvm_para.h>

#include "cpuid.h"
#include "run_delay.h"
#include "steal_time.h"
#include "trace.h"

/* The address is aligned to the record's size, so that it never crosses a page. */
static_assert(!((sizeof(struct kvm_steal_time) - 1) & KVM_STEAL_VALID_BITS));

/**
 * kvm_steal_time_init - prepare a vCPU
 * @vcpu: vCPU under construction
 */
void kvm_steal_time_init(struct kvm_vcpu *vcpu)
{
	kvm_gpc_init(&vcpu->arch.st.cache, vcpu->kvm);
}

/**
 * kvm_steal_time_reset - drop the record that the guest has registered
 * @vcpu: vCPU that is reset or destroyed
 *
 * Context: may sleep.
 */
void kvm_steal_time_reset(struct kvm_vcpu *vcpu)
{
	vcpu->arch.st.msr_val = 0;
	vcpu->arch.st.retry = false;
	kvm_gpc_deactivate(&vcpu->arch.st.cache);
}

/**
 * kvm_steal_time_set_msr - write MSR_KVM_STEAL_TIME
 * @vcpu: loaded vCPU that has KVM_FEATURE_STEAL_TIME
 * @data: guest physical address of the record, and KVM_MSR_ENABLED
 *
 * The memory may still be absent: a VMM may restore MSRs before memslots.
 *
 * Context: may sleep; &kvm.srcu held.
 *
 * Return: 0, or 1 for #GP.
 */
int kvm_steal_time_set_msr(struct kvm_vcpu *vcpu, u64 data)
{
	if (unlikely(!sched_info_on()) || (data & KVM_STEAL_RESERVED_MASK))
		return 1;

	vcpu->arch.st.msr_val = data;
	vcpu->arch.st.retry = false;

	if (!(data & KVM_MSR_ENABLED)) {
		kvm_gpc_deactivate(&vcpu->arch.st.cache);
		return 0;
	}

	/* A restored record may have the flag set, until KVM writes the record. */
	vcpu->arch.st.preempted = KVM_VCPU_PREEMPTED;

	kvm_gpc_activate(&vcpu->arch.st.cache, data & KVM_STEAL_VALID_BITS,
			 sizeof(struct kvm_steal_time));
	kvm_make_request(KVM_REQ_STEAL_UPDATE, vcpu);
	return 0;
}

/*
 * The record is inaccessible, and other vCPUs may see KVM_VCPU_PREEMPTED in it, though this
 * vCPU is about to run.  They then set KVM_VCPU_FLUSH_TLB instead of sending an IPI, and
 * nobody serves that request:
 *
 *   this vCPU, in the guest			another
 *
 *						sets FLUSH_TLB, sends no IPI
 *   uses a stale TLB entry
 *
 * That needs memory that is accessible to the guest and not to KVM.  So flush the TLB now,
 * for requests already made.  Try again after each VM-Exit, at the latest with the next
 * tick of the host, but not earlier: the vCPU must run even if the memory never returns.
 * If a signal interrupted the lookup, the vCPU leaves KVM_RUN; try again at the start of
 * the next KVM_RUN.
 */
static bool steal_time_missed(struct kvm_vcpu *vcpu, long err)
{
	if (err == -EINTR)
		kvm_make_request(KVM_REQ_STEAL_UPDATE, vcpu);
	else
		vcpu->arch.st.retry = true;

	return vcpu->arch.st.preempted && guest_pv_has(vcpu, KVM_FEATURE_PV_TLB_FLUSH);
}

/**
 * kvm_steal_time_update - report the stolen time to a vCPU that is about to run
 * @vcpu: loaded vCPU that has steal time enabled
 *
 * From here on the vCPU does not count as preempted.  Before, other vCPUs may have
 * requested a flush of its TLB instead of sending an IPI: they set
 * KVM_VCPU_FLUSH_TLB in the flag with a compare-and-exchange.  The exchange here
 * clears the flag, so a request is either seen here or not made.
 *
 * Context: may sleep; &kvm.srcu held.
 *
 * Return: %true if a flush of the guest's TLB is needed before the vCPU runs.
 */
bool kvm_steal_time_update(struct kvm_vcpu *vcpu)
{
	struct gfn_to_pfn_cache *gpc = &vcpu->arch.st.cache;
	struct kvm_steal_time *st;
	bool flush_tlb = false;
	u32 version;

	vcpu->arch.st.retry = false;
	st = kvm_gpc_lock(gpc, sizeof(*st));
	if (IS_ERR(st))
		return steal_time_missed(vcpu, PTR_ERR(st));

	if (guest_pv_has(vcpu, KVM_FEATURE_PV_TLB_FLUSH)) {
		flush_tlb = xchg(&st->preempted, 0) & KVM_VCPU_FLUSH_TLB;
		trace_kvm_pv_tlb_flush(vcpu->vcpu_id, flush_tlb);
	} else {
		WRITE_ONCE(st->preempted, 0);
	}
	vcpu->arch.st.preempted = 0;

	/* Odd while the record is being written, whatever the old version was. */
	version = (st->version + 1) | 1;
	WRITE_ONCE(st->version, version);
	smp_wmb();	/* the guest sees the odd version before what follows */

	WRITE_ONCE(st->steal, st->steal + kvm_run_delay(&vcpu->arch.st.run_delay));

	smp_wmb();	/* ... and an even one after all of it */
	WRITE_ONCE(st->version, version + 1);

	kvm_gpc_unlock(gpc, sizeof(*st));

	return flush_tlb;
}

/**
 * kvm_steal_time_set_preempted - report to the guest that a vCPU has lost its CPU
 * @vcpu: vCPU that is being scheduled out
 *
 * Other vCPUs may then skip waiting for the vCPU, or sending IPIs to it.  So report it
 * as preempted only if it left the guest on an instruction boundary, and KVM will not
 * emulate anything for it.  Vendor code sets at_instruction_boundary for that.
 *
 * Context: the scheduler's; &kvm.srcu held.  If the record is not accessible at once,
 * nothing is reported.
 */
void kvm_steal_time_set_preempted(struct kvm_vcpu *vcpu)
{
	struct kvm_steal_time *st;

	if (!vcpu->arch.at_instruction_boundary) {
		vcpu->stat.preemption_other++;
		return;
	}

	vcpu->stat.preemption_reported++;
	if (!kvm_steal_time_enabled(vcpu) || vcpu->arch.st.preempted)
		return;

	CLASS(kvm_gpc_try, use)(&vcpu->arch.st.cache, sizeof(*st));
	if (IS_ERR(use.khva))
		return;

	st = use.khva;
	WRITE_ONCE(st->preempted, KVM_VCPU_PREEMPTED);
	vcpu->arch.st.preempted = KVM_VCPU_PREEMPTED;
}
