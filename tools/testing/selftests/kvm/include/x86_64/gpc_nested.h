/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For tests of the pages of L1's that hardware uses while L2 runs (VMX).
 *
 * L1 and L2 are code of one test guest, with the same page tables.  L2 goes round a loop, in
 * a thread of its own, and the test takes a page of the slot away meanwhile.  Both have
 * interrupts on: Bochs does not interrupt a guest that has them off.
 */
#ifndef SELFTEST_KVM_GPC_NESTED_H
#define SELFTEST_KVM_GPC_NESTED_H

#include "apic.h"
#include "gpc_uffd.h"
#include "vmx.h"

#define X86_EFLAGS_IF		BIT(9)

/* Intel SDM volume 3, "Guest Non-Register State" */
#define GUEST_ACTIVITY_HLT	1

/* Pages of the slot */
#define NESTED_VAPIC		(GPC_GPA + PAGE_SIZE)
#define NESTED_APIC_ACCESS	(GPC_GPA + 2 * PAGE_SIZE)
#define NESTED_MSR_BITMAP	(GPC_GPA + 3 * PAGE_SIZE)

/* The guest's; the test reads and writes it through nested_state(). */
extern struct nested {
	uint64_t rounds;	/* of L2's loop */
	uint64_t stop;		/* L2 is to return to L1 */
	uint64_t wrong;		/* what L2 has read instead of the right value */
	uint64_t exit_reason;	/* of L2's last exit to L1 */
} nested;

/*
 * Guest
 */

void nested_prepare(struct vmx_pages *vmx, void (*l2_guest)(void));
void nested_control(uint32_t secondary);
void nested_launch(void);
bool nested_goes_on(void);

/*
 * VMM
 */

struct nested *nested_state(struct kvm_vm *vm);
void nested_create(struct kvm_vcpu *vcpu);
void nested_require(uint32_t secondary);
void nested_start(struct gpc_task *task, struct kvm_vcpu *vcpu);
void nested_await_rounds(struct gpc_task *task, struct kvm_vcpu *vcpu);
void nested_assert_refused(struct gpc_task *task, struct kvm_vcpu *vcpu);
void nested_stop(struct gpc_task *task, struct kvm_vcpu *vcpu);

/*
 * VMM: a slot whose pages are seen through a second mapping when the slot has others
 */

struct nested_mem {
	void *slot;
	void *view;		/* of twice as many pages */
	int fd;
	bool second;		/* the slot shows the second half, as far as replaced */
};

struct nested_mem nested_slot_add(struct kvm_vm *vm);
void *nested_replace(struct nested_mem *mem, uint64_t gpa);

#endif /* SELFTEST_KVM_GPC_NESTED_H */
