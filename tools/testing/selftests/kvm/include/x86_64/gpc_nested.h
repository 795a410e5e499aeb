/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers for tests of L1's pages that hardware uses while L2 runs (VMX).
 *
 * L1 and L2 are code of one test guest and share its page tables.  L2 loops in a thread
 * of its own while the test takes a page of the slot away.  Both have interrupts enabled:
 * Bochs does not interrupt a guest that has disabled them.
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

/* In guest memory; the test accesses it through nested_state(). */
extern struct nested {
	uint64_t rounds;	/* of L2's loop */
	uint64_t stop;		/* asks L2 to return to L1 */
	uint64_t wrong;		/* wrong value that L2 has read */
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
 * VMM: a slot whose replaced pages stay visible through a second mapping
 */

struct nested_mem {
	void *slot;
	void *view;		/* twice as many pages */
	int fd;
	bool second;		/* replaced pages of the slot are in the second half */
};

struct nested_mem nested_slot_add(struct kvm_vm *vm);
void *nested_replace(struct nested_mem *mem, uint64_t gpa);

#endif /* SELFTEST_KVM_GPC_NESTED_H */
