/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARCH_X86_KVM_STEAL_TIME_H
#define __ARCH_X86_KVM_STEAL_TIME_H

#include <linux/kvm_host.h>

#include <asm/kvm_para.h>

static inline bool kvm_steal_time_enabled(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.st.msr_val & KVM_MSR_ENABLED;
}

void kvm_steal_time_init(struct kvm_vcpu *vcpu);
void kvm_steal_time_reset(struct kvm_vcpu *vcpu);
int kvm_steal_time_set_msr(struct kvm_vcpu *vcpu, u64 data);
bool kvm_steal_time_update(struct kvm_vcpu *vcpu);
void kvm_steal_time_set_preempted(struct kvm_vcpu *vcpu);

#endif /* __ARCH_X86_KVM_STEAL_TIME_H */
