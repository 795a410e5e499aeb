/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest as it comes out of reset: MMU and caches off, no stack, no libraries.  Its
 * program is a page that the VMM writes, and its memory a memslot of the VMM's.
 */
#ifndef SELFTEST_KVM_BARE_H
#define SELFTEST_KVM_BARE_H

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define BARE_SLOT	10
#define BARE_GPA	0x40000000ul	/* 1 GiB: aligned to whatever a block can be */
#define BARE_MMIO	0x700000000ul	/* no memory */

/*
 * Reads a word every x2 bytes from x0 to x1, writes x5 to it unless that is 0, and reports
 * what the program is called and the sum of all that was read.  Then once more.
 */
asm(".pushsection .rodata\n"
	"bare_program:\n"
	"	movz	x4, #0\n"		/* the name */
	"	mov	x6, xzr\n"
	"	mov	x7, x0\n"
	"1:	cmp	x7, x1\n"
	"	b.hs	3f\n"
	"	ldr	x8, [x7]\n"
	"	add	x6, x6, x8\n"
	"	cbz	x5, 2f\n"
	"	str	x5, [x7]\n"
	"2:	add	x7, x7, x2\n"
	"	b	1b\n"
	"3:	str	x4, [x3]\n"
	"	str	x6, [x3]\n"
	"	b	bare_program\n"
	"bare_program_end:\n"
	".popsection\n");

extern const char bare_program[], bare_program_end[];

struct bare_work {
	uint64_t start, end, stride, value;
};

struct bare_report {
	uint64_t name, sum;
};

/* Write the program, called @name, to where the guest has @page. */
static inline void bare_load(void *page, uint16_t name)
{
	uint32_t insn;

	memcpy(page, bare_program, bare_program_end - bare_program);
	memcpy(&insn, page, sizeof(insn));
	insn |= name << 5;	/* Arm ARM, MOVZ: imm16 */
	memcpy(page, &insn, sizeof(insn));
}

static inline void bare_slot(struct kvm_vm *vm, uint32_t flags, size_t size, void *mem)
{
	vm_set_user_memory_region(vm, BARE_SLOT, flags, BARE_GPA, size, mem);
}

static inline void *bare_mmap(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	return mem;
}

static inline void bare_init(struct kvm_vcpu *vcpu, bool power_off)
{
	struct kvm_vcpu_init init;

	vm_ioctl(vcpu->vm, KVM_ARM_PREFERRED_TARGET, &init);
	if (power_off)
		init.features[0] |= BIT(KVM_ARM_VCPU_POWER_OFF);
	vcpu_ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
}

/* Have a vCPU start with the program at @gpa. */
static inline void bare_start(struct kvm_vcpu *vcpu, uint64_t gpa, struct bare_work work)
{
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.pc), gpa);
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.regs[0]), work.start);
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.regs[1]), work.end);
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.regs[2]), work.stride);
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.regs[3]), BARE_MMIO);
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.regs[5]), work.value);
}

static inline uint64_t bare_run_to_store(struct kvm_vcpu *vcpu)
{
	uint64_t value;

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_MMIO);
	TEST_ASSERT(vcpu->run->mmio.is_write && vcpu->run->mmio.phys_addr == BARE_MMIO &&
		    vcpu->run->mmio.len == sizeof(value), "Unexpected access to 0x%llx",
		    vcpu->run->mmio.phys_addr);
	memcpy(&value, vcpu->run->mmio.data, sizeof(value));
	return value;
}

/* Let it do its work once. */
static inline struct bare_report bare_run(struct kvm_vcpu *vcpu)
{
	struct bare_report report;

	report.name = bare_run_to_store(vcpu);
	report.sum = bare_run_to_store(vcpu);
	/* The store is done with, before the vCPU may be initialized. */
	vcpu_run_complete_io(vcpu);
	return report;
}

#endif /* SELFTEST_KVM_BARE_H */
