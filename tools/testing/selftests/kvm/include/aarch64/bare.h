/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest in its reset state: MMU and caches off, no stack, no libraries. Its program and
 * its translation table are two separate pages. Its data is a memslot of the test.
 */
#ifndef SELFTEST_KVM_BARE_H
#define SELFTEST_KVM_BARE_H

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/sizes.h>

#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define BARE_CODE_SLOT	10
#define BARE_SLOT	11
#define BARE_CODE	0x3fe00000ul
#define BARE_GPA	0x40000000ul	/* 1 GiB: aligned for blocks of any size */
#define BARE_MMIO	0x700000000ul	/* no memory */

#define BARE_MMU_OFF	false
#define BARE_MMU_ON	true

/* The guest's code, which bare_load() copies. */
extern const char bare_program[], bare_program_end[];

struct bare_work {
	uint64_t start, end, stride, value;
	bool mmu;
	uint64_t psci, target, entry;
};

struct bare_report {
	uint64_t name, sum;
};

void bare_load(void *page, uint16_t name);
void *bare_mmap(size_t size);
void *bare_mem(size_t size, int advice);
void *bare_code(struct kvm_vm *vm);
void bare_slot(struct kvm_vm *vm, uint32_t flags, size_t size, void *mem);
void bare_init(struct kvm_vcpu *vcpu, bool power_off);
void bare_add_vcpus(struct kvm_vm *vm, struct kvm_vcpu **vcpus, int n);

#define bare_set_x(vcpu, n, value) \
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.regs[n]), value)

void bare_start(struct kvm_vcpu *vcpu, uint64_t gpa, struct bare_work work);
struct bare_report bare_run(struct kvm_vcpu *vcpu);
struct bare_report bare_run_on(struct kvm_vcpu *vcpu, bool mmu, uint64_t start, uint64_t end,
			       uint64_t value);
void bare_assert_report(struct bare_report r, uint64_t name, uint64_t sum);
uint64_t *bare_word(char *mem, uint64_t gpa);
uint64_t bare_write_words(char *mem, size_t size, uint64_t factor, uint64_t end);

#endif /* SELFTEST_KVM_BARE_H */
