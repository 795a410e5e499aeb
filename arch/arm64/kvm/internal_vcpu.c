// SPDX-License-Identifier: GPL-2.0-only
/*
 * vCPUs of internal VMs: the caller gets the reason why a run ends, and KVM emulates
 * nothing but system registers.  Stage 1 stays off (HCR_EL2.DC).
 */
#include <linux/acpi.h>
#include <linux/bits.h>
#include <linux/freezer.h>
#include <linux/hrtimer.h>
#include <linux/kvm_host.h>
#include <linux/kvm_internal_vm.h>
#include <linux/sched/signal.h>

#include <asm/acpi.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>

#include "trace.h"

/* EL1 does not trap FP/SIMD, SVE and SME: not its own, not that of EL0. */
#define INTERNAL_CPACR	(CPACR_EL1_FPEN_EL1EN | CPACR_EL1_FPEN_EL0EN |	\
			 CPACR_EL1_ZEN_EL1EN | CPACR_EL1_ZEN_EL0EN |	\
			 CPACR_EL1_SMEN_EL1EN | CPACR_EL1_SMEN_EL0EN)

/* Load/store type, of a data abort: not zero for 64 bytes at once (FEAT_LS64). */
#define INTERNAL_ESR_LST	GENMASK(12, 11)

/**
 * kvm_internal_vcpu_create - create a vCPU
 * @kvm:	internal VM
 * @id:		from zero on
 *
 * The vCPU lives as long as the VM.  It starts at EL1 with all registers zero.
 *
 * Return: the vCPU, or an ERR_PTR()
 * -EINVAL	the id is too large, or the VM has as many vCPUs as it may have
 * -EEXIST	the VM has a vCPU with this id
 * -ENOMEM	no memory
 */
struct kvm_vcpu *kvm_internal_vcpu_create(struct kvm *kvm, unsigned int id)
{
	struct kvm_vcpu_init init = { .target = KVM_ARM_TARGET_GENERIC_V8 };
	struct kvm_vcpu *vcpu;
	int ret;

	if (!kvm_is_internal(kvm))
		return ERR_PTR(-EINVAL);

	ret = kvm_create_vcpu(kvm, id, false);
	if (ret)
		return ERR_PTR(ret);

	vcpu = kvm_get_vcpu_by_id(kvm, id);
	guard(mutex)(&vcpu->mutex);

	ret = kvm_arch_vcpu_ioctl_vcpu_init(vcpu, &init);
	if (ret)
		return ERR_PTR(ret);

	/* Stage 1 stays off; accesses without it are Write-Back. */
	*vcpu_hcr(vcpu) |= HCR_DC;
	/* FP, SVE and SME must trap to EL2, not to EL1. */
	vcpu_write_sys_reg(vcpu, INTERNAL_CPACR, CPACR_EL1);

	return vcpu;
}
EXPORT_SYMBOL_GPL(kvm_internal_vcpu_create);

/**
 * kvm_internal_vcpu_set_regs - set the registers
 * @vcpu:	vCPU of an internal VM
 * @regs:	its registers
 *
 * The next run begins at @regs->pc, at EL1 with interrupts masked.  An access by MMIO
 * that waits to be completed is dropped.
 *
 * Return: 0, or -EBUSY if the vCPU runs.
 */
int kvm_internal_vcpu_set_regs(struct kvm_vcpu *vcpu, const struct kvm_internal_regs *regs)
{
	if (!kvm_is_internal(vcpu->kvm))
		return -EINVAL;
	if (!mutex_trylock(&vcpu->mutex))
		return -EBUSY;

	memcpy(vcpu_gp_regs(vcpu)->regs, regs->x, sizeof(regs->x));
	vcpu_write_sys_reg(vcpu, regs->sp, SP_EL1);
	*vcpu_pc(vcpu) = regs->pc;
	*vcpu_cpsr(vcpu) = PSR_MODE_EL1h | PSR_D_BIT | PSR_A_BIT | PSR_I_BIT | PSR_F_BIT;
	vcpu->mmio_needed = 0;

	mutex_unlock(&vcpu->mutex);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_internal_vcpu_set_regs);

/**
 * kvm_internal_vcpu_get_regs - get the registers
 * @vcpu:	vCPU of an internal VM
 * @regs:	its registers
 *
 * Return: 0, or -EBUSY if the vCPU runs.
 */
int kvm_internal_vcpu_get_regs(struct kvm_vcpu *vcpu, struct kvm_internal_regs *regs)
{
	if (!kvm_is_internal(vcpu->kvm))
		return -EINVAL;
	if (!mutex_trylock(&vcpu->mutex))
		return -EBUSY;

	memcpy(regs->x, vcpu_gp_regs(vcpu)->regs, sizeof(regs->x));
	regs->sp = vcpu_read_sys_reg(vcpu, SP_EL1);
	regs->pc = *vcpu_pc(vcpu);

	mutex_unlock(&vcpu->mutex);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_internal_vcpu_get_regs);

/* --- exits: 1 to enter the guest again, 0 with @exit filled, or an error ---- */

static int internal_call(struct kvm_vcpu *vcpu, struct kvm_internal_exit *exit,
			 enum kvm_internal_exit_reason reason)
{
	exit->reason = reason;
	exit->call.imm = kvm_vcpu_hvc_get_imm(vcpu);
	memcpy(exit->call.args, vcpu_gp_regs(vcpu)->regs, sizeof(exit->call.args));
	return 0;
}

static int internal_mmio(struct kvm_vcpu *vcpu, phys_addr_t ipa, struct kvm_internal_exit *exit)
{
	struct kvm_run *run = vcpu->run;
	int idx, ret;

	idx = srcu_read_lock(&vcpu->kvm->srcu);
	ret = io_mem_abort(vcpu, ipa);
	srcu_read_unlock(&vcpu->kvm->srcu, idx);
	if (ret)
		return ret;

	exit->reason = KVM_INTERNAL_EXIT_MMIO;
	exit->mmio.addr = ipa;
	exit->mmio.size = run->mmio.len;
	exit->mmio.write = run->mmio.is_write;
	exit->mmio.data = run->mmio.is_write ? kvm_mmio_read_buf(run->mmio.data, run->mmio.len) : 0;
	return 0;
}

static int internal_exception(struct kvm_vcpu *vcpu, struct kvm_internal_exit *exit,
			      enum kvm_internal_exit_reason reason)
{
	exit->reason = reason;
	exit->esr = kvm_vcpu_get_esr(vcpu);
	return 0;
}

static int internal_abort(struct kvm_vcpu *vcpu, struct kvm_internal_exit *exit)
{
	phys_addr_t ipa = kvm_vcpu_get_fault_ipa(vcpu);
	u64 esr = kvm_vcpu_get_esr(vcpu);
	bool iabt = kvm_vcpu_trap_is_iabt(vcpu);

	ipa |= kvm_vcpu_get_hfar(vcpu) & GENMASK(11, 0);

	if (kvm_vcpu_abt_issea(vcpu)) {
		apei_claim_sea(NULL);
		exit->fault.cause = KVM_INTERNAL_FAULT_EXTERNAL;
	} else if (esr_fsc_is_permission_fault(esr)) {
		exit->fault.cause = KVM_INTERNAL_FAULT_PERMISSION;
	} else if (esr_fsc_is_translation_fault(esr)) {
		/* 64 bytes do not fit into the exit. */
		if (!iabt && kvm_vcpu_dabt_isvalid(vcpu) && !(esr & INTERNAL_ESR_LST))
			return internal_mmio(vcpu, ipa, exit);
		exit->fault.cause = KVM_INTERNAL_FAULT_MISSING;
	} else {
		return internal_exception(vcpu, exit, KVM_INTERNAL_EXIT_EXCEPTION);
	}

	exit->reason = KVM_INTERNAL_EXIT_FAULT;
	exit->fault.ipa = ipa;
	exit->fault.access = iabt ? KVM_INTERNAL_EXEC :
			     kvm_is_write_fault(vcpu) ? KVM_INTERNAL_WRITE : KVM_INTERNAL_READ;
	return 0;
}

/*
 * KVM_RUN's handlers do not fit: SMCCC and PSCI calls go to the caller, WFI must not sleep
 * in a kthread, which no signal would wake, and there is no userspace to ask.
 */
static int internal_trap(struct kvm_vcpu *vcpu, struct kvm_internal_exit *exit)
{
	switch (kvm_vcpu_trap_get_class(vcpu)) {
	case ESR_ELx_EC_HVC64:
		return internal_call(vcpu, exit, KVM_INTERNAL_EXIT_HVC);
	case ESR_ELx_EC_SMC64:
		kvm_incr_pc(vcpu);
		return internal_call(vcpu, exit, KVM_INTERNAL_EXIT_SMC);
	case ESR_ELx_EC_WFx:
		kvm_incr_pc(vcpu);
		if (kvm_vcpu_get_esr(vcpu) & ESR_ELx_WFx_ISS_WFE) {
			cond_resched();
			return 1;
		}
		exit->reason = KVM_INTERNAL_EXIT_WFI;
		return 0;
	case ESR_ELx_EC_SYS64:
		return kvm_handle_sys_reg(vcpu);
	case ESR_ELx_EC_IABT_LOW:
	case ESR_ELx_EC_DABT_LOW:
		return internal_abort(vcpu, exit);
	case ESR_ELx_EC_FP_ASIMD:
	case ESR_ELx_EC_SVE:
	case ESR_ELx_EC_SME:
		return internal_exception(vcpu, exit, KVM_INTERNAL_EXIT_FPSIMD);
	default:
		return internal_exception(vcpu, exit, KVM_INTERNAL_EXIT_EXCEPTION);
	}
}

static int internal_exit(struct kvm_vcpu *vcpu, int exception, struct kvm_internal_exit *exit)
{
	/* handle_exit_early() has injected the SError into the guest. */
	if (ARM_SERROR_PENDING(exception))
		return 1;

	switch (ARM_EXCEPTION_CODE(exception)) {
	case ARM_EXCEPTION_IRQ:
	case ARM_EXCEPTION_EL1_SERROR:
		return 1;
	case ARM_EXCEPTION_TRAP:
		return internal_trap(vcpu, exit);
	default:
		return -EIO;
	}
}

/* --- run ---------------------------------------------------------------- */

/*
 * Events that end a run besides the guest's.  Each is checked with interrupts off, in
 * IN_GUEST_MODE, and each sends an IPI if it comes later:
 *
 *	run				timer, or sender of a signal
 *	---				----------------------------
 *	local_irq_disable
 *	mode = IN_GUEST_MODE
 *	internal_work_pending? no
 *					set request or TIF_SIGPENDING
 *					IPI, as the task runs
 *	enter the guest
 *	the IPI ends the guest
 *	internal_work: yes
 *
 * - The timer fires on this CPU: the timer's interrupt ends the guest.
 * - The timer fires before the check: the check sees the request.
 * - The timer fires after the guest has ended for another reason: hrtimer_cancel() waits
 *   for the timer, and the request is cleared for the next run.
 * - A signal that is not fatal is left to the task.  xfer_to_guest_mode_work_pending()
 *   would report it forever, and task work would run in the middle of the caller.
 * - The CPU goes offline: need_resched() lets the stopper preempt the task, and the
 *   preempt notifier loads the vCPU on another CPU.  The timer migrates, too.
 * - Suspend: tasks freeze first.  A kthread that cannot freeze no longer runs when
 *   kvm_suspend() turns EL2 off.
 */
static bool internal_work_pending(void)
{
	return need_resched() || fatal_signal_pending(current) || freezing(current);
}

static int internal_work(struct kvm_vcpu *vcpu, struct kvm_internal_exit *exit)
{
	if (fatal_signal_pending(current) || freezing(current)) {
		exit->reason = KVM_INTERNAL_EXIT_INTERRUPTED;
		return 0;
	}
	if (kvm_check_request(KVM_REQ_INTERNAL_TIMEOUT, vcpu)) {
		exit->reason = KVM_INTERNAL_EXIT_TIMEOUT;
		return 0;
	}
	if (need_resched())
		schedule();

	return check_vcpu_requests(vcpu) > 0 ? 1 : -EIO;
}

/*
 * Enter the guest once, as KVM_RUN does, without interrupt controller and PMU.  Returns
 * false if internal_work() has to run first.
 */
static bool internal_enter(struct kvm_vcpu *vcpu, int *exception)
{
	preempt_disable();
	local_irq_disable();
	kvm_pmu_update_vcpu_events(vcpu);

	/* Before the requests are read, see vcpu-requests.rst. */
	smp_store_mb(vcpu->mode, IN_GUEST_MODE);

	if (kvm_timer_should_notify_user(vcpu) || kvm_request_pending(vcpu) ||
	    internal_work_pending()) {
		kvm_timer_sync_user(vcpu);
		/* No IPI is needed any more. */
		smp_store_release(&vcpu->mode, OUTSIDE_GUEST_MODE);
		local_irq_enable();
		preempt_enable();
		return false;
	}

	kvm_arch_vcpu_ctxflush_fp(vcpu);

	trace_kvm_entry(*vcpu_pc(vcpu));
	guest_timing_enter_irqoff();
	*exception = kvm_arm_vcpu_enter_exit(vcpu);
	vcpu->stat.exits++;

	/* With interrupts still off: the guest's timer must not race with this. */
	kvm_timer_sync_user(vcpu);
	kvm_arch_vcpu_ctxsync_fp(vcpu);
	/* What the guest did comes first, see vcpu-requests.rst. */
	smp_store_release(&vcpu->mode, OUTSIDE_GUEST_MODE);

	/* The interrupt that has ended the guest belongs to the guest's time. */
	if (ARM_EXCEPTION_CODE(*exception) == ARM_EXCEPTION_IRQ) {
		local_irq_enable();
		isb();
		local_irq_disable();
	}

	guest_timing_exit_irqoff();
	local_irq_enable();
	trace_kvm_exit(*exception, kvm_vcpu_trap_get_class(vcpu), *vcpu_pc(vcpu));
	handle_exit_early(vcpu, *exception);
	preempt_enable();

	/* If CPUs differ in AArch32 support, the guest may have entered AArch32. */
	if (unlikely(vcpu_mode_is_32bit(vcpu)) && !kvm_supports_32bit_el0()) {
		vcpu_clear_flag(vcpu, VCPU_INITIALIZED);
		*exception = ARM_EXCEPTION_IL;
	}
	return true;
}

struct internal_timer {
	struct hrtimer timer;
	struct kvm_vcpu *vcpu;
};

static enum hrtimer_restart internal_timeout(struct hrtimer *timer)
{
	struct kvm_vcpu *vcpu = container_of(timer, struct internal_timer, timer)->vcpu;

	kvm_make_request(KVM_REQ_INTERNAL_TIMEOUT, vcpu);
	kvm_vcpu_kick(vcpu);
	return HRTIMER_NORESTART;
}

static int internal_run(struct kvm_vcpu *vcpu, struct kvm_internal_exit *exit)
{
	int ret;

	do {
		ret = internal_work(vcpu, exit);
		if (ret <= 0)
			break;

		if (internal_enter(vcpu, &ret)) {
			ret = internal_exit(vcpu, ret, exit);
		} else {
			/* The guest's timer interrupts nobody: acknowledge its level. */
			kvm_timer_update_run(vcpu);
			ret = 1;
		}
	} while (ret > 0);

	return ret;
}

/**
 * kvm_internal_vcpu_run - run the guest until it exits
 * @vcpu:	vCPU of an internal VM
 * @timeout_ns:	the longest time to run, not zero
 * @exit:	why the run has ended; in: exit of the last run, with the data of a read
 *
 * Called from a task or a kthread that may sleep.
 *
 * Return: 0 with @exit filled, or
 * -EINVAL	no timeout
 * -EBUSY	the vCPU already runs, or a vCPU is loaded in the calling task
 * -EIO		the vCPU cannot run any more
 */
int kvm_internal_vcpu_run(struct kvm_vcpu *vcpu, u64 timeout_ns, struct kvm_internal_exit *exit)
{
	struct internal_timer timer = { .vcpu = vcpu };
	int ret;

	might_sleep();

	if (!kvm_is_internal(vcpu->kvm) || !timeout_ns)
		return -EINVAL;
	/* One vCPU is loaded at a time. */
	if (kvm_get_running_vcpu() || !mutex_trylock(&vcpu->mutex))
		return -EBUSY;

	ret = -EIO;
	if (!kvm_vcpu_initialized(vcpu))
		goto unlock;
	/*
	 * Note the first thread only.  Other threads would wait for a grace period here, only
	 * to enable a directed yield, which no vCPU of an internal VM does.
	 */
	ret = vcpu_has_run_once(vcpu) ? 0 : kvm_vcpu_change_thread(vcpu);
	if (ret)
		goto unlock;

	if (vcpu->mmio_needed) {
		if (!vcpu->run->mmio.is_write)
			kvm_mmio_write_buf(vcpu->run->mmio.data, vcpu->run->mmio.len,
					   exit->mmio.data);
		kvm_handle_mmio_return(vcpu);
	}

	hrtimer_setup_on_stack(&timer.timer, internal_timeout, CLOCK_MONOTONIC,
			       HRTIMER_MODE_REL_HARD);

	vcpu_load(vcpu);
	hrtimer_start(&timer.timer, ns_to_ktime(min(timeout_ns, KTIME_MAX)),
		      HRTIMER_MODE_REL_HARD);

	ret = internal_run(vcpu, exit);

	hrtimer_cancel(&timer.timer);
	/* The caller may read the registers now. */
	if (vcpu_get_flag(vcpu, PENDING_EXCEPTION) || vcpu_get_flag(vcpu, INCREMENT_PC))
		kvm_call_hyp(__kvm_adjust_pc, vcpu);
	vcpu_put(vcpu);

	destroy_hrtimer_on_stack(&timer.timer);
	kvm_clear_request(KVM_REQ_INTERNAL_TIMEOUT, vcpu);
unlock:
	mutex_unlock(&vcpu->mutex);
	return ret;
}
EXPORT_SYMBOL_GPL(kvm_internal_vcpu_run);
