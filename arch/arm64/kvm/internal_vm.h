/* SPDX-License-Identifier: GPL-2.0-only */
/* Functions of internal_vm.c that the KUnit suite of internal VMs uses. */
#ifndef __ARM64_KVM_INTERNAL_VM_H
#define __ARM64_KVM_INTERNAL_VM_H

#include <kunit/visibility.h>
#include <linux/kvm_types.h>

#if IS_ENABLED(CONFIG_KUNIT)
int internal_topup(struct kvm_mmu_memory_cache *cache, int nr);
#endif

#endif
