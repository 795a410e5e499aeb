/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARCH_ARM64_KVM_REINIT_H
#define __ARCH_ARM64_KVM_REINIT_H

struct kvm;
struct kvm_vcpu;

void kvm_reinit_init_vm(struct kvm *kvm);
void kvm_reinit_vcpu(struct kvm_vcpu *vcpu);
int kvm_reinit_before_run(struct kvm_vcpu *vcpu);

#endif /* __ARCH_ARM64_KVM_REINIT_H */
