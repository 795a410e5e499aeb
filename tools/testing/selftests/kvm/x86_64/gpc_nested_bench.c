// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cost of nested SVM.  Prints a line "name value unit" for each figure, like gpc_bench.
 *
 * Costs are differences of the TSC, read in L1.  A figure is a median.
 *
 * nested_N	from L1's VMRUN until L2's VMMCALL returns to L1, with N vmcb12 in turn
 * nested_linux	the same with one vmcb12, and VMSAVE and VMLOAD of it and of L1's own save
 *		area, as Linux does where it does not virtualize these instructions
 * vmload_vmsave  VMLOAD and VMSAVE, of one page
 * nested_pfnmap  as nested_1, with vmcb12 in RAM that has no struct page; no figure where
 *		VMRUN fails (unpatched 7.3)
 */
#include "gpc_count.h"
#include "gpc_nested_compat.h"
#include "gpc_reserve.h"

#define SLOT		20
#define PFNMAP_SLOT	21
#define MEM_GPA		0x50000000ul	/* the guest maps it 1:1 */
#define PFNMAP_GPA	0x60000000ul

#define NR_VMCBS	8
#define SAVE_GPA	(MEM_GPA + NR_VMCBS * PAGE_SIZE)
#define HSAVE_GPA	(SAVE_GPA + PAGE_SIZE)
#define NR_PAGES	(NR_VMCBS + 2)

#define VMMCALL_SIZE	3

/*
 * Guest
 */

enum what { VMRUN, LINUX, LOAD_SAVE };

static struct svm_test_data svm_data;
static enum what what;
static uint64_t vmcb_gpa;
static int nr_vmcbs;
static int64_t samples[NR_VMCBS * GPC_ROUNDS];

static void __attribute__((naked)) l2_code(void)
{
	asm volatile("1: vmmcall\n\t"
		     "jmp 1b");
}

static void do_vmrun(uint64_t gpa)
{
	asm volatile("vmrun" : : "a"(gpa) : "cc", "memory");
}

static void do_vmload(uint64_t gpa)
{
	asm volatile("vmload" : : "a"(gpa) : "memory");
}

static void do_vmsave(uint64_t gpa)
{
	asm volatile("vmsave" : : "a"(gpa) : "memory");
}

static int64_t cost(uint64_t gpa)
{
	uint64_t start = rdtsc();

	if (what == LOAD_SAVE) {
		do_vmload(gpa);
		do_vmsave(gpa);
	} else if (what == LINUX) {
		do_vmsave(SAVE_GPA);
		do_vmload(gpa);
		do_vmrun(gpa);
		do_vmsave(gpa);
		do_vmload(SAVE_GPA);
	} else {
		do_vmrun(gpa);
	}
	return rdtsc() - start;
}

static void setup_l2(uint64_t gpa)
{
	struct svm_test_data svm = svm_data;

	svm.save_area_gpa = HSAVE_GPA;
	svm.vmcb_gpa = gpa;
	svm.vmcb = (void *)gpa;
	gpc_svm_setup(&svm, l2_code, NULL);
}

/* Each KVM_RUN requests one figure. */
static void l1_code(void)
{
	int i, round;

	for (;;) {
		for (i = 0; i < nr_vmcbs; i++)
			setup_l2(vmcb_gpa + i * PAGE_SIZE);
		do_vmsave(SAVE_GPA);

		for (round = 0; round < GPC_ROUNDS; round++) {
			for (i = 0; i < nr_vmcbs; i++) {
				struct vmcb *vmcb = (void *)vmcb_gpa + i * PAGE_SIZE;

				samples[round * nr_vmcbs + i] = cost((uint64_t)vmcb);
				if (what == LOAD_SAVE)
					continue;
				GUEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
				vmcb->save.rip += VMMCALL_SIZE;
			}
		}
		GUEST_SYNC(0);
	}
}

/*
 * VMM
 */

/* Returns false if L1 does not get to its end. */
static bool run_l1(struct kvm_vcpu *vcpu, enum what which, uint64_t gpa, int nr)
{
	struct ucall uc;

	what = which;
	vmcb_gpa = gpa;
	nr_vmcbs = nr;
	sync_global_to_guest(vcpu->vm, what);
	sync_global_to_guest(vcpu->vm, vmcb_gpa);
	sync_global_to_guest(vcpu->vm, nr_vmcbs);
	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	if (uc.cmd != UCALL_SYNC)
		return false;
	sync_global_from_guest(vcpu->vm, samples);
	return true;
}

static int64_t measure(struct kvm_vcpu *vcpu, enum what which, uint64_t gpa, int nr)
{
	TEST_ASSERT(run_l1(vcpu, which, gpa, nr), "Exit %s",
		    exit_reason_str(vcpu->run->exit_reason));
	return gpc_median(samples, nr * GPC_ROUNDS);
}

static void *mmap_small(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	(void)madvise(mem, size, MADV_NOHUGEPAGE);
	return mem;
}

static void *mmap_reserve(void)
{
	uint64_t reserve = gpc_find_reserve(GPC_FAR);
	int fd = open_path_or_exit("/dev/mem", O_RDWR);
	void *mem;

	__TEST_REQUIRE(reserve, "no RAM outside the kernel's; boot with mem=");
	mem = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, reserve);
	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	close(fd);
	return mem;
}

int main(int argc, char *argv[])
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int i;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SVM));

	ksft_print_header();
	ksft_set_plan(1);

	vm = vm_create_with_one_vcpu(&vcpu, l1_code);
	svm_data = *gpc_alloc_svm(vm);
	sync_global_to_guest(vm, svm_data);
	vm_set_user_memory_region(vm, SLOT, 0, MEM_GPA, NR_PAGES * PAGE_SIZE,
				  mmap_small(NR_PAGES * PAGE_SIZE));
	virt_map(vm, MEM_GPA, MEM_GPA, NR_PAGES);
	vm_set_user_memory_region(vm, PFNMAP_SLOT, 0, PFNMAP_GPA, PAGE_SIZE, mmap_reserve());
	virt_map(vm, PFNMAP_GPA, PFNMAP_GPA, 1);

	for (i = 1; i <= NR_VMCBS; i *= 2)
		gpc_figure(measure(vcpu, VMRUN, MEM_GPA, i), "nested_%d", i);
	gpc_figure(measure(vcpu, LINUX, MEM_GPA, 1), "nested_linux");
	gpc_figure(measure(vcpu, LOAD_SAVE, MEM_GPA, 1), "vmload_vmsave");
	if (run_l1(vcpu, VMRUN, PFNMAP_GPA, 1))
		gpc_figure(gpc_median(samples, GPC_ROUNDS), "nested_pfnmap");
	kvm_vm_free(vm);

	gpc_tell_figures(gpc_tick_unit());
	ksft_test_result_pass("gpc_nested_bench\n");
	ksft_finished();
}
