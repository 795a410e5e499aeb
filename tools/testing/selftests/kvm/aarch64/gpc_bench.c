// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cost of arm64's stolen time, and of the reset of a VM. Prints a line "name value unit"
 * for each figure, like x86_64/gpc_bench.c. The figures repeat on an emulator that counts
 * instructions with the virtual counter.
 *
 * use_stolen	KVM_RUN, minus the same without stolen time
 * reinit_again	the second KVM_ARM_VCPU_INIT in a row of a vCPU that has run, minus
 *		KVM_ARM_VCPU_INIT of a vCPU that has never run
 * reinit_slots	the same with 500 memslots
 *
 * Then reset a VM that has touched SIZE MiB, in pages (4k) or blocks (2m) of stage 2.
 * Initialize N vCPUs again. One after the other, each vCPU starts with its MMU off, turns
 * its MMU and its caches on, and reports.
 *
 * reset_SIZE_KIND_N	from the first initialization to the last report
 * ready_SIZE_KIND_N	the same, and then vCPU 0 touches all of the memory again
 */
#include <sys/mman.h>

#include <linux/sizes.h>

#include "bare.h"
#include "gpc_figure.h"
#include "kselftest.h"
#include "ucall_common.h"

#define NR_VCPUS	64
#define ROUNDS		101
#define BATCH		16
#define NR_SLOTS	500
#define ST_GPA		0x80000000ul

static const size_t sizes[] = { 16, 128, 512 };
static const int resets[] = { 1, 2, 8, NR_VCPUS };

static int64_t now(void)
{
	uint64_t count, freq;

	asm volatile("isb; mrs %0, cntvct_el0; mrs %1, cntfrq_el0" : "=r"(count), "=r"(freq));
	return count * (NSEC_PER_SEC / freq);
}

/* Duration of @op. The counter is coarse, so measure batches. */
#define MEDIAN(op)							\
({									\
	int64_t __samples[ROUNDS], __start;				\
	int __i, __j;							\
									\
	for (__i = 0; __i < ROUNDS; __i++) {				\
		__start = now();					\
		for (__j = 0; __j < BATCH; __j++)			\
			op;						\
		__samples[__i] = now() - __start;			\
	}								\
	gpc_median(__samples, ROUNDS) / BATCH;				\
})

static bool is_tick_an_instruction(void)
{
	int64_t few = MEDIAN(asm volatile(".rept 100; nop; .endr"));
	int64_t many = MEDIAN(asm volatile(".rept 1100; nop; .endr"));

	return labs(many - few - 1000) <= 1;
}

static void guest(void)
{
	for (;;)
		GUEST_SYNC(0);
}

static void bench_stolen(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&vcpu, guest);
	uint64_t ipa = ST_GPA;
	int64_t plain;

	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, ST_GPA, 1, 1, 0);
	vcpu_run(vcpu);
	plain = MEDIAN(vcpu_run(vcpu));
	vcpu_device_attr_set(vcpu, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, &ipa);
	vcpu_run(vcpu);
	gpc_figure(MEDIAN(vcpu_run(vcpu)) - plain, "use_stolen");
	kvm_vm_free(vm);
}

static void bench_again(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_vcpu *ran = __vm_vcpu_add(vm, 0), *never = __vm_vcpu_add(vm, 1);
	size_t page = getpagesize();
	void *mem = bare_mmap(NR_SLOTS * page);
	int64_t plain;
	int i;

	bare_code(vm);
	bare_init(ran, false);
	bare_init(never, false);
	plain = MEDIAN(bare_init(never, false));
	bare_run_on(ran, BARE_MMU_OFF, 0, 0, 1);
	bare_init(ran, false);
	gpc_figure(MEDIAN(bare_init(ran, false)) - plain, "reinit_again");

	for (i = 0; i < NR_SLOTS; i++)
		vm_set_user_memory_region(vm, BARE_SLOT + i, 0, BARE_GPA + 2 * i * page, page,
					  mem + i * page);
	bare_run_on(ran, BARE_MMU_OFF, 0, 0, 1);
	bare_init(ran, false);
	gpc_figure(MEDIAN(bare_init(ran, false)) - plain, "reinit_slots");
	kvm_vm_free(vm);
}

static void bench_reset(size_t size, const char *kind, int advice)
{
	struct kvm_vm *vm = vm_create_barebones();
	uint64_t start = BARE_GPA, end = start + size * SZ_1M;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	int64_t before, reset;
	void *mem;
	int i, j;

	mem = bare_mem(size * SZ_1M, advice);
	bare_code(vm);
	bare_slot(vm, 0, size * SZ_1M, mem);

	for (i = 0; i < NR_VCPUS; i++)
		vcpus[i] = __vm_vcpu_add(vm, i);
	for (i = 0; i < NR_VCPUS; i++) {
		bare_init(vcpus[i], false);
		bare_run_on(vcpus[i], BARE_MMU_OFF, start, i ? start : end, 1);
	}

	for (j = 0; j < ARRAY_SIZE(resets); j++) {
		before = now();
		for (i = 0; i < resets[j]; i++)
			bare_init(vcpus[i], false);
		for (i = 0; i < resets[j]; i++)
			bare_run_on(vcpus[i], BARE_MMU_ON, 0, 0, 1);
		reset = now();
		gpc_figure(reset - before, "reset_%zu_%s_%d", size, kind, resets[j]);
		bare_run_on(vcpus[0], BARE_MMU_OFF, start, end, 1);
		gpc_figure(now() - before, "ready_%zu_%s_%d", size, kind, resets[j]);
	}

	kvm_vm_free(vm);
	TEST_ASSERT(!munmap(mem, size * SZ_1M), __KVM_SYSCALL_ERROR("munmap()", -1));
}

int main(void)
{
	const char *unit;
	int i;

	ksft_print_header();
	ksft_set_plan(1);

	unit = is_tick_an_instruction() ? "instructions" : "ticks";
	bench_stolen();
	bench_again();
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		bench_reset(sizes[i], "4k", MADV_NOHUGEPAGE);
		bench_reset(sizes[i], "2m", MADV_HUGEPAGE);
	}

	gpc_tell_figures(unit);
	ksft_test_result_pass("gpc_bench\n");
	ksft_finished();
}
