/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Internal VMs: VMs that the kernel makes for itself.
 * See Documentation/virt/kvm/internal-vms.rst.
 */
#ifndef __LINUX_KVM_INTERNAL_VM_H
#define __LINUX_KVM_INTERNAL_VM_H

#include <linux/bits.h>
#include <linux/types.h>

struct kvm;
struct kvm_vcpu;

/* The longest name of an internal VM. */
#define KVM_INTERNAL_NAME_LEN	32

/* The guest's rights to a range, and the kind of the range. */
#define KVM_INTERNAL_READ	BIT(0)
#define KVM_INTERNAL_WRITE	BIT(1)
#define KVM_INTERNAL_EXEC	BIT(2)
#define KVM_INTERNAL_DEVICE	BIT(3)

/**
 * struct kvm_internal_regs - registers of a vCPU
 * @x:  general-purpose registers
 * @sp: stack pointer of EL1
 * @pc: program counter
 */
struct kvm_internal_regs {
	u64 x[31];
	u64 sp;
	u64 pc;
};

/**
 * enum kvm_internal_exit_reason - why the guest has stopped
 * @KVM_INTERNAL_EXIT_HVC: HVC, see &kvm_internal_exit.call; the next run continues behind it
 * @KVM_INTERNAL_EXIT_SMC: SMC, likewise
 * @KVM_INTERNAL_EXIT_MMIO: access outside all ranges, see &kvm_internal_exit.mmio;
 *	the next run completes it
 * @KVM_INTERNAL_EXIT_FAULT: access that stage 2 does not allow, see
 *	&kvm_internal_exit.fault; the next run repeats it
 * @KVM_INTERNAL_EXIT_WFI: WFI or WFIT; the next run continues behind it
 * @KVM_INTERNAL_EXIT_FPSIMD: FP, SIMD, SVE or SME, which internal VMs do not have, see
 *	&kvm_internal_exit.esr; the next run repeats it
 * @KVM_INTERNAL_EXIT_EXCEPTION: any other exception to EL2, see &kvm_internal_exit.esr;
 *	the next run repeats it
 * @KVM_INTERNAL_EXIT_TIMEOUT: the time limit of the run is reached
 * @KVM_INTERNAL_EXIT_INTERRUPTED: a fatal signal, or the task has to freeze
 */
enum kvm_internal_exit_reason {
	KVM_INTERNAL_EXIT_HVC,
	KVM_INTERNAL_EXIT_SMC,
	KVM_INTERNAL_EXIT_MMIO,
	KVM_INTERNAL_EXIT_FAULT,
	KVM_INTERNAL_EXIT_WFI,
	KVM_INTERNAL_EXIT_FPSIMD,
	KVM_INTERNAL_EXIT_EXCEPTION,
	KVM_INTERNAL_EXIT_TIMEOUT,
	KVM_INTERNAL_EXIT_INTERRUPTED,
};

/**
 * enum kvm_internal_fault_cause - why stage 2 does not allow an access
 * @KVM_INTERNAL_FAULT_MISSING: the address is in no range
 * @KVM_INTERNAL_FAULT_PERMISSION: the range does not grant the right
 * @KVM_INTERNAL_FAULT_EXTERNAL: the bus or the memory has reported an error
 */
enum kvm_internal_fault_cause {
	KVM_INTERNAL_FAULT_MISSING,
	KVM_INTERNAL_FAULT_PERMISSION,
	KVM_INTERNAL_FAULT_EXTERNAL,
};

/**
 * struct kvm_internal_exit - why and where the guest has stopped
 * @reason: selects the valid member
 * @call: HVC or SMC
 * @call.imm: immediate of the instruction
 * @call.args: x0 to x7
 * @mmio: access to be emulated
 * @mmio.addr: physical address
 * @mmio.data: value written; for a read, the caller stores the value to be read
 *	here and passes the structure to the next run
 * @mmio.size: 1, 2, 4 or 8 bytes
 * @mmio.write: direction
 * @fault: access that cannot be emulated
 * @fault.ipa: physical address; not reliable if @fault.cause is _EXTERNAL
 * @fault.access: KVM_INTERNAL_READ, _WRITE or _EXEC
 * @fault.cause: why
 * @esr: syndrome, as in ESR_EL2
 */
struct kvm_internal_exit {
	enum kvm_internal_exit_reason reason;
	union {
		struct {
			u64 args[8];
			u16 imm;
		} call;
		struct {
			phys_addr_t addr;
			u64 data;
			u8 size;
			bool write;
		} mmio;
		struct {
			phys_addr_t ipa;
			unsigned int access;
			enum kvm_internal_fault_cause cause;
		} fault;
		u64 esr;
	};
};

struct kvm *kvm_internal_vm_create(const char *name);
void kvm_internal_vm_destroy(struct kvm *kvm);
int kvm_internal_vm_add_range(struct kvm *kvm, phys_addr_t start, u64 size, unsigned int flags);
int kvm_internal_vm_remove_range(struct kvm *kvm, phys_addr_t start, u64 size);

struct kvm_vcpu *kvm_internal_vcpu_create(struct kvm *kvm, unsigned int id);
int kvm_internal_vcpu_set_regs(struct kvm_vcpu *vcpu, const struct kvm_internal_regs *regs);
int kvm_internal_vcpu_get_regs(struct kvm_vcpu *vcpu, struct kvm_internal_regs *regs);
int kvm_internal_vcpu_run(struct kvm_vcpu *vcpu, u64 timeout_ns, struct kvm_internal_exit *exit);

#endif
