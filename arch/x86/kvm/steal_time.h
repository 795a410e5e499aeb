/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARCH_X86_KVM_STEAL_TIME_H
#define __ARCH_X86_KVM_STEAL_TIME_H

#include <linux/types.h>

struct kvm_vcpu;

void kvm_steal_time_init(struct kvm_vcpu *vcpu);
void kvm_steal_time_reset(struct kvm_vcpu *vcpu);
int kvm_steal_time_set_msr(struct kvm_vcpu *vcpu, u64 data);
bool kvm_steal_time_update(struct kvm_vcpu *vcpu);
void kvm_steal_time_set_preempted(struct kvm_vcpu *vcpu);

#endif /* __ARCH_X86_KVM_STEAL_TIME_H */
