// SPDX-License-Identifier: GPL-2.0-only
#include "bare.h"

/*
 * Turn MMU and caches on if x9 is set. Read a word every x2 bytes from x0 to x1, and
 * write x5 to it unless x5 is 0. Make the PSCI call in x14 to x16 unless x14 is 0. Report
 * the name of the program, and the sum of all words plus the result of the call. Start
 * over.
 */
asm(".pushsection .rodata\n"
	"bare_program:\n"
	"	movz	x4, #0\n"		/* the name */
	"	movz	x3, #7, lsl #32\n"	/* BARE_MMIO */
	"	cbz	x9, 1f\n"
	"	msr	mair_el1, x10\n"
	"	msr	tcr_el1, x11\n"
	"	msr	ttbr0_el1, x9\n"
	"	mov	x9, xzr\n"
	"	tlbi	vmalle1\n"
	"	dsb	nsh\n"
	"	isb\n"
	"	mrs	x12, sctlr_el1\n"
	"	orr	x12, x12, x13\n"
	"	msr	sctlr_el1, x12\n"
	"	isb\n"
	"1:	mov	x6, xzr\n"
	"	mov	x7, x0\n"
	"2:	cmp	x7, x1\n"
	"	b.hs	4f\n"
	"	ldr	x8, [x7]\n"
	"	add	x6, x6, x8\n"
	"	cbz	x5, 3f\n"
	"	str	x5, [x7]\n"
	"3:	add	x7, x7, x2\n"
	"	b	2b\n"
	"4:	cbz	x14, 5f\n"
	"	mov	x0, x14\n"
	"	mov	x1, x15\n"
	"	mov	x2, x16\n"
	"	mov	x14, xzr\n"
	"	hvc	#0\n"
	"	add	x6, x6, x0\n"
	"	movz	x3, #7, lsl #32\n"
	"5:	str	x4, [x3]\n"
	"	str	x6, [x3]\n"
	"	b	bare_program\n"
	"bare_program_end:\n"
	".popsection\n");

/* Write the program, with the name @name, to @page. */
void bare_load(void *page, uint16_t name)
{
	uint32_t insn;

	memcpy(page, bare_program, bare_program_end - bare_program);
	memcpy(&insn, page, sizeof(insn));
	insn |= name << 5;	/* Arm ARM, MOVZ: imm16 */
	memcpy(page, &insn, sizeof(insn));
}

void *bare_mmap(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	return mem;
}

/* Zeroed memory, aligned for blocks of 2 MiB */
void *bare_mem(size_t size, int advice)
{
	char *mem = bare_mmap(size + SZ_2M);

	mem = (char *)align_up((uintptr_t)mem, SZ_2M);
	(void)madvise(mem, size, advice);
	return memset(mem, 0, size);
}

/*
 * The pages of program and table: 4K granule, blocks of 1 GiB, the last of them for
 * BARE_MMIO. Arm ARM, VMSAv8-64 Block descriptor.
 */
void *bare_code(struct kvm_vm *vm)
{
	size_t page = getpagesize();
	void *code = bare_mmap(2 * page);
	uint64_t *table = code + page, i;

	for (i = 0; i <= BARE_MMIO >> 30; i++)
		table[i] = i << 30 | 1 << 10 /* AF */ | 3 << 8 /* SH */ | 1;
	table[BARE_MMIO >> 30] |= 1 << 2;	/* attribute 1 */
	bare_load(code, 1);
	vm_set_user_memory_region(vm, BARE_CODE_SLOT, 0, BARE_CODE, 2 * page, code);
	return code;
}

void bare_slot(struct kvm_vm *vm, uint32_t flags, size_t size, void *mem)
{
	vm_set_user_memory_region(vm, BARE_SLOT, flags, BARE_GPA, size, mem);
}

void bare_init(struct kvm_vcpu *vcpu, bool power_off)
{
	struct kvm_vcpu_init init;

	vm_ioctl(vcpu->vm, KVM_ARM_PREFERRED_TARGET, &init);
	init.features[0] |= BIT(KVM_ARM_VCPU_PSCI_0_2);
	if (power_off)
		init.features[0] |= BIT(KVM_ARM_VCPU_POWER_OFF);
	vcpu_ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
}

void bare_add_vcpus(struct kvm_vm *vm, struct kvm_vcpu **vcpus, int n)
{
	int i;

	for (i = 0; i < n; i++)
		vcpus[i] = __vm_vcpu_add(vm, i);
	for (i = 0; i < n; i++)
		bare_init(vcpus[i], false);
}

/* Make a vCPU start with the program at @gpa. */
void bare_start(struct kvm_vcpu *vcpu, uint64_t gpa, struct bare_work work)
{
	vcpu_set_reg(vcpu, ARM64_CORE_REG(regs.pc), gpa);
	bare_set_x(vcpu, 0, work.start);
	bare_set_x(vcpu, 1, work.end);
	bare_set_x(vcpu, 2, work.stride);
	bare_set_x(vcpu, 5, work.value);
	bare_set_x(vcpu, 9, work.mmu ? BARE_CODE + getpagesize() : 0);
	bare_set_x(vcpu, 10, 0xff);	/* MAIR: 0 is Normal, write-back; 1 Device */
	/* TCR: T0SZ 25, IRGN0 and ORGN0 write-back, SH0 inner, EPD1, IPS 36 bits */
	bare_set_x(vcpu, 11, 25ul | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 1ul << 32);
	bare_set_x(vcpu, 13, 1 << 12 | 1 << 2 | 1);	/* SCTLR: I, C, M */
	bare_set_x(vcpu, 14, work.psci);
	bare_set_x(vcpu, 15, work.target);
	bare_set_x(vcpu, 16, work.entry);
}

static uint64_t bare_run_to_store(struct kvm_vcpu *vcpu)
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

/* Let the guest do its work once. */
struct bare_report bare_run(struct kvm_vcpu *vcpu)
{
	struct bare_report report;

	report.name = bare_run_to_store(vcpu);
	report.sum = bare_run_to_store(vcpu);
	/* Complete the store before the vCPU may be initialized. */
	vcpu_run_complete_io(vcpu);
	return report;
}

/*
 * Read a word of each page of [@start, @end), and write @value to it unless @value is 0.
 * With @mmu, first turn the MMU and the caches on, like a guest that boots.
 */
struct bare_report bare_run_on(struct kvm_vcpu *vcpu, bool mmu, uint64_t start, uint64_t end,
			       uint64_t value)
{
	bare_start(vcpu, BARE_CODE, (struct bare_work) {
		.start = start, .end = end, .stride = getpagesize(), .value = value, .mmu = mmu,
	});
	return bare_run(vcpu);
}

void bare_assert_report(struct bare_report r, uint64_t name, uint64_t sum)
{
	TEST_ASSERT(r.name == name && r.sum == sum, "Program %lu read %lu, not %lu and %lu",
		    r.name, r.sum, name, sum);
}

uint64_t *bare_word(char *mem, uint64_t gpa)
{
	return (uint64_t *)(mem + (gpa - BARE_GPA));
}

/* Write words that depend on @factor. Returns the sum of those up to @end. */
uint64_t bare_write_words(char *mem, size_t size, uint64_t factor, uint64_t end)
{
	uint64_t gpa, sum = 0;

	for (gpa = BARE_GPA; gpa < BARE_GPA + size; gpa += getpagesize()) {
		*bare_word(mem, gpa) = gpa * factor;
		sum += gpa < end ? gpa * factor : 0;
	}
	return sum;
}
