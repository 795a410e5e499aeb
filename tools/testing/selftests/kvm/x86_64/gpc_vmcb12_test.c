// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1's pages that KVM reads and writes for nested SVM, while the VMM changes the memory
 * behind them.
 *
 * L2 stops twice in each run: at L2_PORT, when KVM has read vmcb12 and not yet written
 * it; and, by VMMCALL, in L1.  L2 counts its runs in RAX, which is in vmcb12.
 */
#include "gpc_harness.h"
#include "gpc_nested_compat.h"
#include "gpc_uffd.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define SLOT		20
#define GPA		0x50000000ul	/* the guest maps it 1:1 */
#define NR_VMCBS	8
#define NR_PAGES	(NR_VMCBS + 2)
#define SIZE		(NR_PAGES * PAGE_SIZE)

/* Pages of the slot; the first ones are vmcb12. */
#define VMCB		0
#define HSAVE		NR_VMCBS
#define SAVE		(NR_VMCBS + 1)

#define L2_PORT		0x80
#define SMM_PORT	0x81

#define SVM_INSN_SIZE	3

#define KICKS		3

/*
 * Guest
 */

static struct svm_test_data svm_data;
static uint64_t l1_gpa;		/* operand of the next call */
static uint8_t l1_vector;	/* exception that the call raised */
static uint64_t l1_val;
static uint8_t l2_stacks[NR_VMCBS][2048] __aligned(16);

static void __attribute__((naked)) l2_code(void)
{
	asm volatile("1: outb %%al, %0\n\t"
		     "inc %%rax\n\t"
		     "vmmcall\n\t"
		     "jmp 1b"
		     : : "i"(L2_PORT));
}

static void __attribute__((naked)) l2_code_ud(void)
{
	asm volatile("outb %%al, %0\n\t"
		     "ud2"
		     : : "i"(L2_PORT));
}

/* L1 and L2 share one EFER register, unless L1 intercepts it. */
static void __attribute__((naked)) l2_code_clears_svme(void)
{
	asm volatile("mov %0, %%ecx\n\t"
		     "rdmsr\n\t"
		     "and %1, %%eax\n\t"
		     "wrmsr\n\t"
		     "outb %%al, %2"
		     : : "i"(MSR_EFER), "i"(~EFER_SVME), "i"(L2_PORT));
}

static void l1_setup(void)
{
	struct svm_test_data svm = svm_data;
	int i;

	svm.save_area_gpa = GPA + HSAVE * PAGE_SIZE;
	for (i = 0; i < NR_VMCBS; i++) {
		svm.vmcb_gpa = GPA + (VMCB + i) * PAGE_SIZE;
		svm.vmcb = (void *)svm.vmcb_gpa;
		gpc_svm_setup(&svm, l2_code, l2_stacks[i + 1]);
	}
}

#define L1_SAFE(insn)	(l1_vector = kvm_asm_safe(insn, "a"(l1_gpa)))

static void l1_vmrun(void)
{
	L1_SAFE("vmrun");
}

static void l1_vmrun_without_hsave(void)
{
	wrmsr(MSR_VM_HSAVE_PA, 0);
	l1_vmrun();
	wrmsr(MSR_VM_HSAVE_PA, GPA + HSAVE * PAGE_SIZE);
}

static void l1_vmload(void)
{
	wrmsr(MSR_KERNEL_GS_BASE, 0);
	L1_SAFE("vmload");
	l1_val = rdmsr(MSR_KERNEL_GS_BASE);
}

static void l1_vmsave(void)
{
	wrmsr(MSR_KERNEL_GS_BASE, l1_val);
	L1_SAFE("vmsave");
}

/* Like Linux where it does not virtualize VMLOAD and VMSAVE. */
static void l1_vmrun_as_linux(void)
{
	uint64_t gpa = l1_gpa;

	asm volatile("xchg %%rax, %1\n\t"
		     "vmsave\n\t"
		     "xchg %%rax, %1\n\t"
		     "vmload\n\t"
		     "vmrun\n\t"
		     "vmsave\n\t"
		     "mov %1, %%rax\n\t"
		     "vmload"
		     : "+a"(gpa) : "b"(GPA + SAVE * PAGE_SIZE) : "cc", "memory");
}

/*
 * VMM
 */

/* The memslot's memory.  The VM uses it until the test ends. */
static void *pages;

static void *page_at(int i)
{
	return pages + i * PAGE_SIZE;
}

/* Its width depends on the kernel. */
#define EXIT_CODE(code)	((typeof(((struct vmcb *)0)->control.exit_code))(code))

static struct vmcb *vmcb_at(int i)
{
	return page_at(VMCB + i);
}

static uint64_t gpa_of(int i)
{
	return GPA + i * PAGE_SIZE;
}

static void slot_set(struct kvm_vm *vm, uint32_t flags, uint64_t gpa, uint64_t size, void *mem)
{
	vm_set_user_memory_region(vm, SLOT, flags, gpa, size, mem);
}

static void slot_add(struct kvm_vm *vm, uint32_t flags)
{
	slot_set(vm, flags, GPA, SIZE, pages);
}

static void slot_delete(struct kvm_vm *vm)
{
	slot_set(vm, 0, GPA, 0, NULL);
}

static void *mmap_anon(size_t size)
{
	void *mem = gpc_mmap(NULL, size, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)madvise(mem, size, MADV_NOHUGEPAGE);
	return mem;
}

/* Prepare L1 to do @call, with @gpa. */
static void l1_prepare(struct kvm_vcpu *vcpu, void (*call)(void), uint64_t gpa)
{
	gpc_step = (struct gpc_step) { .call = call };
	sync_global_to_guest(vcpu->vm, gpc_step);
	l1_gpa = gpa;
	sync_global_to_guest(vcpu->vm, l1_gpa);
	sync_global_to_guest(vcpu->vm, l1_val);
}

/* Assert that L1 has done the call. */
static void l1_assert_done(struct kvm_vcpu *vcpu)
{
	gpc_assert_synced(vcpu);
	sync_global_from_guest(vcpu->vm, l1_vector);
	sync_global_from_guest(vcpu->vm, l1_val);
}

static void l1(struct kvm_vcpu *vcpu, void (*call)(void), uint64_t gpa)
{
	l1_prepare(vcpu, call, gpa);
	vcpu_run(vcpu);
	l1_assert_done(vcpu);
}

static void assert_vector(struct kvm_vcpu *vcpu, void (*call)(void), uint64_t gpa, uint8_t vector)
{
	l1(vcpu, call, gpa);
	TEST_ASSERT_EQ(l1_vector, vector);
}

/* @gpa has no page: the instruction raises #GP in L1, or stops the vCPU. */
static void assert_no_page(struct kvm_vcpu *vcpu, void (*call)(void), uint64_t gpa)
{
	struct kvm_regs regs;
	int i;

	if (GPC_SVM_NO_PAGE_RAISES_GP) {
		assert_vector(vcpu, call, gpa, GP_VECTOR);
		return;
	}

	l1_prepare(vcpu, call, gpa);
	for (i = 0; i < 3; i++) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_INTERNAL_ERROR);
	}

	vcpu_regs_get(vcpu, &regs);
	regs.rip += SVM_INSN_SIZE;
	vcpu_regs_set(vcpu, &regs);
	vcpu_run(vcpu);
	l1_assert_done(vcpu);
	TEST_ASSERT_EQ(l1_vector, 0);
}

/* All three instructions that take a page's address, with page @i. */
static void assert_all_without_page(struct kvm_vcpu *vcpu, int i)
{
	assert_no_page(vcpu, l1_vmrun, gpa_of(i));
	assert_no_page(vcpu, l1_vmload, gpa_of(i));
	assert_no_page(vcpu, l1_vmsave, gpa_of(i));
}

static void assert_port(struct kvm_vcpu *vcpu, uint16_t port)
{
	struct ucall uc;

	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(vcpu->run->io.port, port);
}

static void run_to_port(struct kvm_vcpu *vcpu, uint16_t port)
{
	vcpu_run(vcpu);
	assert_port(vcpu, port);
}

/* Enter L2 from L1, with vmcb12 @i. */
static void enter_by(struct kvm_vcpu *vcpu, int i, void (*call)(void))
{
	l1_prepare(vcpu, call, gpa_of(VMCB + i));
	run_to_port(vcpu, L2_PORT);
}

static void enter(struct kvm_vcpu *vcpu, int i)
{
	enter_by(vcpu, i, l1_vmrun);
}

/* Assert that L2 has returned to L1 by VMMCALL, as vmcb12 at @vmcb shows. */
static void assert_exited_in(struct kvm_vcpu *vcpu, struct vmcb *vmcb, uint64_t runs)
{
	l1_assert_done(vcpu);
	TEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
	TEST_ASSERT_EQ(vmcb->save.rax, runs);
	vmcb->control.exit_code = GPC_POISON;
	vmcb->save.rip += SVM_INSN_SIZE;
}

static void assert_exits(struct kvm_vcpu *vcpu, int i, uint64_t runs)
{
	vcpu_run(vcpu);
	assert_exited_in(vcpu, vmcb_at(i), runs);
}

static void assert_runs(struct kvm_vcpu *vcpu, int i, uint64_t runs)
{
	enter(vcpu, i);
	assert_exits(vcpu, i, runs);
}

/* Prepare to enter L2 with any of the vmcb12. */
static void setup(struct kvm_vcpu *vcpu, void *mem)
{
	pages = mem;
	slot_add(vcpu->vm, 0);
	svm_data = *gpc_alloc_svm(vcpu->vm);
	sync_global_to_guest(vcpu->vm, svm_data);
	l1(vcpu, l1_setup, 0);
}

static void setup_anon(struct kvm_vcpu *vcpu)
{
	setup(vcpu, mmap_anon(SIZE));
}

/* Memory with a second mapping, which outlives the memslot's. */
static void *setup_alias(struct kvm_vcpu *vcpu)
{
	int fd = kvm_memfd_alloc(SIZE, false);
	void *alias = gpc_mmap(NULL, SIZE, MAP_SHARED, fd, 0);

	setup(vcpu, gpc_mmap(NULL, SIZE, MAP_SHARED, fd, 0));
	return alias;
}

/* Replace page @i by a copy, and fill the old page with poison. */
static void replace(void *alias, int i)
{
	void *old = alias + i * PAGE_SIZE;
	int fd = kvm_memfd_alloc(PAGE_SIZE, false);
	void *new = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	TEST_ASSERT(new != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	memcpy(new, old, PAGE_SIZE);
	TEST_ASSERT(mmap(page_at(i), PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 fd, 0) == page_at(i), __KVM_SYSCALL_ERROR("mmap()", -1));
	memset(old, GPC_POISON, PAGE_SIZE);
	munmap(new, PAGE_SIZE);
	close(fd);
}

#define ASSERT_UNTOUCHED(alias, i)	GPC_ASSERT_POISON((alias) + (i) * PAGE_SIZE, PAGE_SIZE)

static void unmap(int i)
{
	TEST_ASSERT(!munmap(page_at(i), PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
}

/* map_again() brings the page back with its @saved contents. */
static void *save_page(int i)
{
	return memcpy(mmap_anon(PAGE_SIZE), page_at(i), PAGE_SIZE);
}

static void map_again(int i, void *saved)
{
	memcpy(gpc_mmap(page_at(i), PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), saved,
	       PAGE_SIZE);
}

FIXTURE(gpc_vmcb12)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_vmcb12)
{
	self->vcpu = gpc_create(_metadata);
	virt_map(self->vcpu->vm, GPA, GPA, NR_PAGES);
}

FIXTURE_TEARDOWN(gpc_vmcb12)
{
	gpc_free(self->vcpu);
}

#define VMCB12_TEST(test) KVM_ONE_VCPU_TEST(gpc_vmcb12, test, gpc_guest)

/*
 * Replaced pages
 */

VMCB12_TEST(vmrun_mmap_over)
{
	void *alias = setup_alias(vcpu);
	int i;

	for (i = 0; i < 3; i++) {
		assert_runs(vcpu, 0, 2 * i + 1);
		memcpy(alias, page_at(VMCB), PAGE_SIZE);
		replace(alias, VMCB);
		assert_runs(vcpu, 0, 2 * i + 2);
		ASSERT_UNTOUCHED(alias, VMCB);
	}
}

VMCB12_TEST(vmexit_mmap_over)
{
	void *alias = setup_alias(vcpu);
	int i;

	for (i = 0; i < 3; i++) {
		enter(vcpu, 0);
		memcpy(alias, page_at(VMCB), PAGE_SIZE);
		replace(alias, VMCB);
		assert_exits(vcpu, 0, i + 1);
		ASSERT_UNTOUCHED(alias, VMCB);
	}
}

VMCB12_TEST(vmload_vmsave_mmap_over)
{
	void *alias = setup_alias(vcpu);
	struct vmcb *vmcb = page_at(SAVE);
	int i;

	for (i = 0; i < 3; i++) {
		l1_val = 0x1000 + i;
		assert_vector(vcpu, l1_vmsave, gpa_of(SAVE), 0);
		TEST_ASSERT_EQ(vmcb->save.kernel_gs_base, 0x1000 + i);
		memcpy(alias + SAVE * PAGE_SIZE, vmcb, PAGE_SIZE);

		replace(alias, SAVE);
		l1_val = 0x2000 + i;
		assert_vector(vcpu, l1_vmsave, gpa_of(SAVE), 0);
		TEST_ASSERT_EQ(vmcb->save.kernel_gs_base, 0x2000 + i);
		ASSERT_UNTOUCHED(alias, SAVE);

		memcpy(alias + SAVE * PAGE_SIZE, vmcb, PAGE_SIZE);
		replace(alias, SAVE);
		vmcb->save.kernel_gs_base = 0x3000 + i;
		assert_vector(vcpu, l1_vmload, gpa_of(SAVE), 0);
		TEST_ASSERT_EQ(l1_val, 0x3000 + i);
	}
}

VMCB12_TEST(vmexit_soft_offline)
{
	void *hoard;
	int r;

	setup_anon(vcpu);
	enter(vcpu, 0);
	/* Empties the LRU's batches: a page in another CPU's is busy. */
	TEST_ASSERT(gpc_write_file("/proc/sys/vm/drop_caches", "1"), "Cannot drop caches");
	r = madvise(page_at(VMCB), PAGE_SIZE, MADV_SOFT_OFFLINE);
	GPC_REQUIRE(!r || (errno != EINVAL && errno != EPERM && errno != EOPNOTSUPP),
		    "no MADV_SOFT_OFFLINE: %s", strerror(errno));
	TEST_ASSERT(!r, __KVM_SYSCALL_ERROR("madvise(MADV_SOFT_OFFLINE)", r));
	hoard = gpc_hoard();
	assert_exits(vcpu, 0, 1);
	assert_runs(vcpu, 0, 2);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

/*
 * Several vmcb12 in turn, in some cases more than there are caches; each has its own count
 */

static void run_in_turn(struct kvm_vcpu *vcpu, int nr)
{
	void *alias = setup_alias(vcpu);
	int i, round;

	for (round = 1; round <= 12; round++) {
		for (i = 0; i < nr; i++) {
			enter_by(vcpu, i, round <= 6 ? l1_vmrun : l1_vmrun_as_linux);
			if (round % 3 == 0) {
				memcpy(alias + i * PAGE_SIZE, page_at(i), PAGE_SIZE);
				replace(alias, i);
			}
			assert_exits(vcpu, i, round);
			if (round % 3 == 0)
				ASSERT_UNTOUCHED(alias, i);
		}
	}
}

VMCB12_TEST(one_again)
{
	run_in_turn(vcpu, 1);
}

VMCB12_TEST(two_in_turn)
{
	run_in_turn(vcpu, 2);
}

VMCB12_TEST(four_in_turn)
{
	run_in_turn(vcpu, 4);
}

VMCB12_TEST(eight_in_turn)
{
	run_in_turn(vcpu, 8);
}

/*
 * Inaccessible pages: L1's instruction raises #GP or stops the vCPU, and works again when
 * the page is back.  A #VMEXIT stops the vCPU, or is a triple fault of L1.
 */

VMCB12_TEST(instructions_without_page)
{
	void *saved;

	setup_anon(vcpu);
	assert_runs(vcpu, 0, 1);
	saved = save_page(VMCB);
	unmap(VMCB);
	assert_all_without_page(vcpu, VMCB);
	map_again(VMCB, saved);
	assert_runs(vcpu, 0, 2);
}

VMCB12_TEST(instructions_without_memslot)
{
	setup_anon(vcpu);
	assert_runs(vcpu, 0, 1);
	slot_delete(vcpu->vm);
	assert_all_without_page(vcpu, VMCB);
	slot_add(vcpu->vm, 0);
	assert_runs(vcpu, 0, 2);
}

VMCB12_TEST(instructions_beyond_memory)
{
	const uint64_t gpas[] = { 1ul << 45, -1ul & PAGE_MASK, -1ul };
	int i;

	setup_anon(vcpu);
	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		assert_vector(vcpu, l1_vmrun, gpas[i], GP_VECTOR);
		assert_vector(vcpu, l1_vmload, gpas[i], GP_VECTOR);
		assert_vector(vcpu, l1_vmsave, gpas[i], GP_VECTOR);
	}
	assert_all_without_page(vcpu, NR_PAGES);
	assert_runs(vcpu, 0, 1);
}

VMCB12_TEST(instructions_read_only_memslot)
{
	void *saved;

	setup_anon(vcpu);
	assert_runs(vcpu, 0, 1);
	saved = memcpy(mmap_anon(SIZE), pages, SIZE);
	slot_delete(vcpu->vm);
	slot_add(vcpu->vm, KVM_MEM_READONLY);
	assert_all_without_page(vcpu, VMCB);
	TEST_ASSERT(!memcmp(pages, saved, SIZE), "A read-only memslot was written");
	slot_delete(vcpu->vm);
	slot_add(vcpu->vm, 0);
	assert_runs(vcpu, 0, 2);
}

static void assert_stopped(struct kvm_vcpu *vcpu)
{
	int i;

	for (i = 0; i < 3; i++) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_INTERNAL_ERROR);
	}
}

/* L2 exits, and vmcb12 is gone.  May the VMM mend that, and run the vCPU again? */
static bool vmexit_is_mendable(struct kvm_vcpu *vcpu)
{
	if (GPC_SVM_VMEXIT_MENDABLE) {
		assert_stopped(vcpu);
		return true;
	}

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_SHUTDOWN);
	return false;
}

VMCB12_TEST(vmexit_without_page)
{
	void *saved;

	setup_anon(vcpu);
	enter(vcpu, 0);
	saved = save_page(VMCB);
	unmap(VMCB);
	if (!vmexit_is_mendable(vcpu))
		return;
	map_again(VMCB, saved);
	assert_exits(vcpu, 0, 1);
	assert_runs(vcpu, 0, 2);
}

VMCB12_TEST(vmexit_without_memslot)
{
	setup_anon(vcpu);
	enter(vcpu, 0);
	slot_delete(vcpu->vm);
	if (!vmexit_is_mendable(vcpu))
		return;
	slot_add(vcpu->vm, 0);
	assert_exits(vcpu, 0, 1);
	assert_runs(vcpu, 0, 2);
}

VMCB12_TEST(vmexit_memslot_moved_away)
{
	setup_anon(vcpu);
	enter(vcpu, 0);
	slot_set(vcpu->vm, 0, GPA + SIZE, SIZE, pages);
	if (!vmexit_is_mendable(vcpu))
		return;
	slot_set(vcpu->vm, 0, GPA, SIZE, pages);
	assert_exits(vcpu, 0, 1);
	assert_runs(vcpu, 0, 2);
}

/* An exception in L2 that L1 intercepts: KVM leaves L2 while it injects events. */
VMCB12_TEST(vmexit_exception_without_page)
{
	struct vmcb *vmcb;
	void *saved;

	setup_anon(vcpu);
	vmcb = vmcb_at(0);
	vmcb->control.intercept_exceptions = BIT(UD_VECTOR);
	vmcb->save.rip = (uintptr_t)l2_code_ud;
	enter(vcpu, 0);
	saved = save_page(VMCB);
	unmap(VMCB);
	if (!vmexit_is_mendable(vcpu))
		return;
	map_again(VMCB, saved);
	vcpu_run(vcpu);
	l1_assert_done(vcpu);
	TEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_EXCP_BASE + UD_VECTOR);
}

/* The address of vmcb12 leads to other memory. */
VMCB12_TEST(vmexit_memslot_moved)
{
	void *old;

	setup_anon(vcpu);
	memcpy(page_at(VMCB + 1), page_at(VMCB), PAGE_SIZE);
	enter(vcpu, 1);
	memset(page_at(VMCB + 1), GPC_POISON, PAGE_SIZE);
	slot_set(vcpu->vm, 0, GPA + PAGE_SIZE, SIZE, pages);
	vcpu_run(vcpu);
	assert_exited_in(vcpu, vmcb_at(0), 1);
	GPC_ASSERT_POISON(page_at(VMCB + 1), PAGE_SIZE);

	slot_delete(vcpu->vm);
	old = pages;
	pages = memcpy(mmap_anon(SIZE), old, SIZE);
	memset(old, GPC_POISON, SIZE);
	slot_add(vcpu->vm, 0);
	assert_runs(vcpu, 0, 2);
	GPC_ASSERT_POISON(old, SIZE);
}

/*
 * The dirty log
 */

static uint64_t dirty_pages(struct kvm_vm *vm)
{
	uint64_t bitmap = 0;
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = &bitmap };

	vm_ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	return bitmap;
}

VMCB12_TEST(dirty_log)
{
	struct kvm_vm *vm = vcpu->vm;

	setup_anon(vcpu);
	slot_add(vm, KVM_MEM_LOG_DIRTY_PAGES);
	dirty_pages(vm);

	enter(vcpu, 3);
	TEST_ASSERT_EQ(dirty_pages(vm), 0);
	assert_exits(vcpu, 3, 1);
	TEST_ASSERT_EQ(dirty_pages(vm), BIT(VMCB + 3));

	assert_vector(vcpu, l1_vmsave, gpa_of(SAVE), 0);
	TEST_ASSERT_EQ(dirty_pages(vm), BIT(SAVE));
	assert_vector(vcpu, l1_vmload, gpa_of(SAVE), 0);
	TEST_ASSERT_EQ(dirty_pages(vm), 0);

	/* An ASID of 0 is invalid. */
	vmcb_at(3)->control.asid = 0;
	assert_vector(vcpu, l1_vmrun, gpa_of(VMCB + 3), 0);
	TEST_ASSERT_EQ(vmcb_at(3)->control.exit_code, EXIT_CODE(SVM_EXIT_ERR));
	TEST_ASSERT_EQ(dirty_pages(vm), BIT(VMCB + 3));
}

/*
 * Nested state, saved and restored into another VM while L2 runs
 */

static struct kvm_vcpu *move_to_another_vm(struct kvm_vcpu *vcpu)
{
	struct kvm_x86_state *state = vcpu_save_state(vcpu);
	struct kvm_vm *vm = vcpu->vm;

	kvm_vm_release(vm);
	vcpu = vm_recreate_with_one_vcpu(vm);
	slot_add(vm, 0);
	vcpu_load_state(vcpu, state);
	kvm_x86_state_cleanup(state);
	return vcpu;
}

TEST_F(gpc_vmcb12, vmexit_in_other_vm)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	void *alias;
	int i;

	vcpu_arch_set_entry_point(vcpu, gpc_guest);
	alias = setup_alias(vcpu);
	for (i = 0; i < 3; i++) {
		assert_runs(vcpu, 1, i + 1);
		enter(vcpu, 0);
		vcpu = move_to_another_vm(vcpu);
		self->vcpu = vcpu;
		memcpy(alias, page_at(VMCB), PAGE_SIZE);
		replace(alias, VMCB);
		assert_exits(vcpu, 0, i + 1);
		ASSERT_UNTOUCHED(alias, VMCB);
	}
}

/*
 * System management mode, which L2 enters and leaves through vmcb12 and the host save area
 */

/* The second address space is that of SMM. */
#define SMRAM_SLOT	((1 << 16) | 21)
#define SMRAM_GPA	0x1000000
#define SMRAM_SIZE	0x10000

static void setup_smm(struct kvm_vcpu *vcpu)
{
	const uint8_t handler[] = {
		0xe6, SMM_PORT,		/* out %al, $SMM_PORT */
		0x0f, 0xaa,		/* rsm */
	};

	GPC_REQUIRE(kvm_has_cap(KVM_CAP_X86_SMM), "kernel without SMM");
	vm_userspace_mem_region_add(vcpu->vm, VM_MEM_SRC_ANONYMOUS, SMRAM_GPA, SMRAM_SLOT,
				    SMRAM_SIZE / PAGE_SIZE, 0);
	memcpy(addr_gpa2hva(vcpu->vm, SMRAM_GPA) + 0x8000, handler, sizeof(handler));
	vcpu_set_msr(vcpu, MSR_IA32_SMBASE, SMRAM_GPA);
}

static void inject_smi(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;

	vcpu_events_get(vcpu, &events);
	events.smi.pending = 1;
	events.flags |= KVM_VCPUEVENT_VALID_SMM;
	vcpu_events_set(vcpu, &events);
}

static void assert_smi_saved(void)
{
	struct vmcb *hsave = page_at(HSAVE);

	TEST_ASSERT_EQ(vmcb_at(0)->control.exit_code, EXIT_CODE(SVM_EXIT_SW));
	TEST_ASSERT(hsave->save.efer & EFER_SVME && hsave->save.cr0 & X86_CR0_PG,
		    "The host save area has no state of L1");
	/* An SMI does not change the state of VMLOAD and VMSAVE, or anything else. */
	GPC_ASSERT_POISON(hsave, offsetof(struct vmcb, save));
	GPC_ASSERT_POISON(&hsave->save.fs, 2 * sizeof(hsave->save.fs));
	GPC_ASSERT_POISON(&hsave->save.star, 8 * sizeof(hsave->save.star));
	GPC_ASSERT_POISON(&hsave->save + 1, PAGE_SIZE - sizeof(*hsave));
}

/* L2 runs, with an SMI pending. */
static void setup_smi_in_l2(struct kvm_vcpu *vcpu)
{
	setup_anon(vcpu);
	setup_smm(vcpu);
	enter(vcpu, 0);
	memset(page_at(HSAVE), GPC_POISON, PAGE_SIZE);
	inject_smi(vcpu);
}

static void assert_smi_taken(struct kvm_vcpu *vcpu)
{
	run_to_port(vcpu, SMM_PORT);
	assert_smi_saved();
}

VMCB12_TEST(smm_mmap_over)
{
	void *alias = setup_alias(vcpu);
	int i;

	setup_smm(vcpu);
	for (i = 0; i < 3; i++) {
		enter(vcpu, 0);
		memset(page_at(HSAVE), GPC_POISON, PAGE_SIZE);
		memcpy(alias + VMCB * PAGE_SIZE, page_at(VMCB), PAGE_SIZE);
		memcpy(alias + HSAVE * PAGE_SIZE, page_at(HSAVE), PAGE_SIZE);
		replace(alias, VMCB);
		replace(alias, HSAVE);
		inject_smi(vcpu);
		assert_smi_taken(vcpu);
		ASSERT_UNTOUCHED(alias, VMCB);
		ASSERT_UNTOUCHED(alias, HSAVE);

		memcpy(alias + VMCB * PAGE_SIZE, page_at(VMCB), PAGE_SIZE);
		memcpy(alias + HSAVE * PAGE_SIZE, page_at(HSAVE), PAGE_SIZE);
		replace(alias, VMCB);
		replace(alias, HSAVE);
		assert_exits(vcpu, 0, i + 1);
		ASSERT_UNTOUCHED(alias, VMCB);
		ASSERT_UNTOUCHED(alias, HSAVE);
	}
}

VMCB12_TEST(smi_without_page)
{
	void *saved;

	setup_smi_in_l2(vcpu);
	saved = save_page(VMCB);
	unmap(VMCB);
	if (!vmexit_is_mendable(vcpu))
		return;
	map_again(VMCB, saved);
	assert_smi_taken(vcpu);
	assert_exits(vcpu, 0, 1);
}

/*
 * Pages that userfaultfd has not supplied yet, and a kick out of KVM_RUN
 */

/* A missing page, and its previous content. */
struct missing {
	int uffd;
	void *page;
	void *content;
};

static struct missing make_missing(int i)
{
	struct missing missing = { .page = page_at(i), .content = save_page(i) };

	missing.uffd = gpc_uffd_make_missing(missing.page);
	return missing;
}

static void supply(struct missing *missing)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)missing->page,
		.src = (uintptr_t)missing->content,
		.len = PAGE_SIZE,
	};

	TEST_ASSERT(!gpc_pfn(missing->page), "The page is present before it is supplied");
	TEST_ASSERT(!ioctl(missing->uffd, UFFDIO_COPY, &copy),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_COPY)", -1));
	close(missing->uffd);
}

/* The vCPU waits for the page in KVM_RUN, and is kicked out several times. */
static void wait_and_kick(struct kvm_vcpu *vcpu, struct missing *missing)
{
	struct gpc_task task;
	int i;

	gpc_catch_kicks(vcpu);
	for (i = 0; i < KICKS; i++) {
		gpc_task_start(&task, gpc_task_run_fn, vcpu);
		gpc_uffd_await(missing->uffd, missing->page, 0);
		gpc_kick_out(vcpu, &task);
	}
}

static void assert_kick_ends(struct kvm_vcpu *vcpu, void (*call)(void), int page)
{
	struct missing missing = make_missing(page);

	l1_prepare(vcpu, call, gpa_of(page));
	wait_and_kick(vcpu, &missing);
	supply(&missing);
	vcpu_run(vcpu);
}

VMCB12_TEST(kick_vmrun)
{
	setup_anon(vcpu);
	assert_runs(vcpu, 0, 1);
	assert_kick_ends(vcpu, l1_vmrun, VMCB);
	assert_port(vcpu, L2_PORT);
	assert_exits(vcpu, 0, 2);
}

VMCB12_TEST(kick_vmload)
{
	struct vmcb *vmcb;

	setup_anon(vcpu);
	vmcb = page_at(SAVE);
	l1_val = 0x1000;
	assert_vector(vcpu, l1_vmsave, gpa_of(SAVE), 0);
	vmcb->save.kernel_gs_base = 0x2000;
	assert_kick_ends(vcpu, l1_vmload, SAVE);
	l1_assert_done(vcpu);
	TEST_ASSERT_EQ(l1_vector, 0);
	TEST_ASSERT_EQ(l1_val, 0x2000);
}

VMCB12_TEST(kick_vmsave)
{
	struct vmcb *vmcb;

	setup_anon(vcpu);
	vmcb = page_at(SAVE);
	l1_val = 0x1000;
	assert_kick_ends(vcpu, l1_vmsave, SAVE);
	l1_assert_done(vcpu);
	TEST_ASSERT_EQ(l1_vector, 0);
	TEST_ASSERT_EQ(vmcb->save.kernel_gs_base, 0x1000);
}

VMCB12_TEST(kick_vmexit)
{
	struct missing missing;
	int i;

	setup_anon(vcpu);
	for (i = 0; i < 2; i++) {
		enter(vcpu, 0);
		missing = make_missing(VMCB);
		wait_and_kick(vcpu, &missing);
		supply(&missing);
		assert_exits(vcpu, 0, i + 1);
	}
}

/* If the VMM has no page to supply, the vCPU stops until there is one. */
VMCB12_TEST(vmexit_page_back)
{
	struct missing missing;

	setup_anon(vcpu);
	enter(vcpu, 0);
	missing = make_missing(VMCB);
	wait_and_kick(vcpu, &missing);
	unmap(VMCB);
	assert_stopped(vcpu);
	map_again(VMCB, missing.content);
	assert_exits(vcpu, 0, 1);
	assert_runs(vcpu, 0, 2);
}

/* A VMM that stops the VM to save it gets a vmcb12 with the #VMEXIT. */
static int get_nested_state(void *vcpu)
{
	struct {
		struct kvm_nested_state header;
		uint8_t data[KVM_STATE_NESTED_SVM_VMCB_SIZE];
	} state = { .header.size = sizeof(state) };

	vcpu_nested_state_get(vcpu, &state.header);
	return state.header.flags;
}

TEST_F(gpc_vmcb12, get_nested_state_at_vmexit)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	struct missing missing;
	struct gpc_task task;

	vcpu_arch_set_entry_point(vcpu, gpc_guest);
	setup_anon(vcpu);
	enter(vcpu, 0);
	missing = make_missing(VMCB);
	wait_and_kick(vcpu, &missing);
	gpc_task_start(&task, get_nested_state, vcpu);
	gpc_uffd_await(missing.uffd, missing.page, 0);
	supply(&missing);
	TEST_ASSERT_EQ(gpc_task_finish(&task), 0);
	TEST_ASSERT_EQ(vmcb_at(0)->control.exit_code, SVM_EXIT_VMMCALL);

	vcpu = move_to_another_vm(vcpu);
	self->vcpu = vcpu;
	assert_exits(vcpu, 0, 1);
	assert_runs(vcpu, 0, 2);
}

/* Nested state that the VMM sets has no pending #VMEXIT. */
VMCB12_TEST(set_nested_state_ends_vmexit)
{
	struct kvm_nested_state state = {
		.format = KVM_STATE_NESTED_FORMAT_SVM,
		.flags = KVM_STATE_NESTED_GIF_SET,
		.size = sizeof(state),
	};
	struct missing missing;

	setup_anon(vcpu);
	enter(vcpu, 0);
	missing = make_missing(VMCB);
	wait_and_kick(vcpu, &missing);
	vcpu_nested_state_set(vcpu, &state);
	supply(&missing);
	vcpu_run(vcpu);
	l1_assert_done(vcpu);
	TEST_ASSERT(!memcmp(page_at(VMCB), missing.content, PAGE_SIZE), "vmcb12 was written");
	assert_runs(vcpu, 0, 1);
}

VMCB12_TEST(kick_smi)
{
	struct missing missing;

	setup_smi_in_l2(vcpu);
	missing = make_missing(VMCB);
	wait_and_kick(vcpu, &missing);
	supply(&missing);
	assert_smi_taken(vcpu);
	assert_exits(vcpu, 0, 1);
}

/*
 * A failing VMRUN
 */

VMCB12_TEST(vmrun_without_hsave)
{
	void *saved;

	setup_anon(vcpu);
	assert_runs(vcpu, 0, 1);
	saved = save_page(VMCB);
	assert_vector(vcpu, l1_vmrun_without_hsave, gpa_of(VMCB), GP_VECTOR);
	TEST_ASSERT(!memcmp(page_at(VMCB), saved, PAGE_SIZE), "vmcb12 was written");
	assert_runs(vcpu, 0, 2);
}

/* KVM loads L2's PDPTRs after it has checked vmcb12, and may wait for their page. */
VMCB12_TEST(vmrun_late_failure_mmap_over)
{
	void *alias = setup_alias(vcpu);
	struct vmcb *vmcb = vmcb_at(0);
	struct gpc_task task;
	struct vmcb valid;
	int uffd, i;

	for (i = 0; i < 3; i++) {
		assert_runs(vcpu, 0, i + 1);

		valid = *vmcb;
		vmcb->save.efer = EFER_SVME;
		vmcb->save.cr3 = gpa_of(SAVE);
		memcpy(alias, vmcb, PAGE_SIZE);
		gpc_mmap(page_at(SAVE), PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uffd = gpc_uffd_make_missing(page_at(SAVE));

		l1_prepare(vcpu, l1_vmrun, gpa_of(VMCB));
		gpc_task_start(&task, gpc_task_run_fn, vcpu);
		gpc_uffd_await_fault(uffd, page_at(SAVE), 0);
		replace(alias, VMCB);
		/* PDPTEs of poison have reserved bits. */
		gpc_uffd_supply(uffd, page_at(SAVE));
		TEST_ASSERT_EQ(gpc_task_finish(&task), 0);
		close(uffd);

		l1_assert_done(vcpu);
		TEST_ASSERT_EQ(l1_vector, 0);
		TEST_ASSERT_EQ(vmcb->control.exit_code, EXIT_CODE(SVM_EXIT_ERR));
		ASSERT_UNTOUCHED(alias, VMCB);
		*vmcb = valid;
	}
	assert_runs(vcpu, 0, i + 1);
}

/*
 * L2 ends without an intercept
 */

/* State of L1 between two calls. */
struct l1_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
};

static struct l1_state l1_save(struct kvm_vcpu *vcpu)
{
	struct l1_state state;

	vcpu_run_complete_io(vcpu);
	vcpu_regs_get(vcpu, &state.regs);
	vcpu_sregs_get(vcpu, &state.sregs);
	return state;
}

/* Restart L1 below its current stack. */
static void l1_restart(struct kvm_vcpu *vcpu, struct l1_state *state)
{
	struct kvm_regs regs = state->regs;

	regs.rip = (uintptr_t)gpc_guest;
	regs.rsp = align_down(regs.rsp, 16) - 8;
	vcpu_run_complete_io(vcpu);
	vcpu_sregs_set(vcpu, &state->sregs);
	vcpu_regs_set(vcpu, &regs);
}

static void assert_not_in_l2(struct kvm_vcpu *vcpu)
{
	TEST_ASSERT(!(get_nested_state(vcpu) & KVM_STATE_NESTED_GUEST_MODE), "Still in L2");
}

static void set_latched_init(struct kvm_vcpu *vcpu, bool latched)
{
	struct kvm_vcpu_events events;

	vcpu_events_get(vcpu, &events);
	events.smi.latched_init = latched;
	events.flags |= KVM_VCPUEVENT_VALID_SMM;
	vcpu_events_set(vcpu, &events);
}

VMCB12_TEST(svme_cleared_by_l2)
{
	struct l1_state l1_state;
	void *saved;

	setup_anon(vcpu);
	assert_runs(vcpu, 1, 1);
	vmcb_at(0)->save.rip = (uintptr_t)l2_code_clears_svme;
	saved = save_page(VMCB);
	l1_state = l1_save(vcpu);
	l1_prepare(vcpu, l1_vmrun, gpa_of(VMCB));
	vcpu_run(vcpu);
	if (GPC_SVM_SVME_CLEARED_SHUTS_DOWN)
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_SHUTDOWN);
	else
		assert_port(vcpu, L2_PORT);
	assert_not_in_l2(vcpu);
	TEST_ASSERT(!memcmp(page_at(VMCB), saved, PAGE_SIZE), "vmcb12 was written");

	l1_restart(vcpu, &l1_state);
	assert_runs(vcpu, 1, 2);
}

/* The VMM resets the vCPU while a #VMEXIT waits for the page of vmcb12. */
VMCB12_TEST(svme_cleared_at_vmexit)
{
	struct kvm_sregs sregs;
	struct l1_state l1_state;
	struct missing missing;

	setup_anon(vcpu);
	assert_runs(vcpu, 1, 1);
	l1_state = l1_save(vcpu);
	enter(vcpu, 0);
	missing = make_missing(VMCB);
	wait_and_kick(vcpu, &missing);
	sregs = l1_state.sregs;
	sregs.efer &= ~EFER_SVME;
	vcpu_sregs_set(vcpu, &sregs);
	assert_not_in_l2(vcpu);
	supply(&missing);

	l1_restart(vcpu, &l1_state);
	assert_runs(vcpu, 1, 2);
	TEST_ASSERT(!memcmp(page_at(VMCB), missing.content, PAGE_SIZE), "vmcb12 was written");
	assert_runs(vcpu, 0, 1);
}

VMCB12_TEST(init_intercepted_mmap_over)
{
	void *alias = setup_alias(vcpu);
	struct vmcb *vmcb = vmcb_at(0);
	int i;

	vmcb->control.intercept |= BIT_ULL(INTERCEPT_INIT);
	for (i = 0; i < 3; i++) {
		enter(vcpu, 0);
		memcpy(alias, vmcb, PAGE_SIZE);
		replace(alias, VMCB);
		set_latched_init(vcpu, true);
		vcpu_run(vcpu);
		l1_assert_done(vcpu);
		TEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_INIT);
		ASSERT_UNTOUCHED(alias, VMCB);

		/* The INIT is pending in L1, which has GIF clear. */
		set_latched_init(vcpu, false);
		vmcb->save.rip = (uintptr_t)l2_code;
	}
	assert_runs(vcpu, 0, 1);
}

VMCB12_TEST(init_not_intercepted)
{
	struct l1_state l1_state;
	void *saved;

	setup_anon(vcpu);
	assert_runs(vcpu, 1, 1);
	l1_state = l1_save(vcpu);
	enter(vcpu, 0);
	saved = save_page(VMCB);
	set_latched_init(vcpu, true);
	/* The reset vector has no memory. */
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_INTERNAL_ERROR);
	assert_not_in_l2(vcpu);
	TEST_ASSERT(!memcmp(page_at(VMCB), saved, PAGE_SIZE), "vmcb12 was written");

	l1_restart(vcpu, &l1_state);
	assert_runs(vcpu, 1, 2);
}

/*
 * Private memory
 */

FIXTURE(gpc_vmcb12_private)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_vmcb12_private)
{
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM));
	self->vcpu = gpc_create_vm(_metadata, KVM_X86_SW_PROTECTED_VM, 0);
	virt_map(self->vcpu->vm, GPA, GPA, NR_PAGES);
}

FIXTURE_TEARDOWN(gpc_vmcb12_private)
{
	gpc_free(self->vcpu);
}

KVM_ONE_VCPU_TEST(gpc_vmcb12_private, refused_until_shared, gpc_guest)
{
	int gmem = vm_create_guest_memfd(vcpu->vm, SIZE, 0);
	bool mendable;
	void *saved;

	setup_anon(vcpu);
	slot_delete(vcpu->vm);
	vm_set_user_memory_region2(vcpu->vm, SLOT, KVM_MEM_GUEST_MEMFD, GPA, SIZE, pages, gmem, 0);
	assert_runs(vcpu, 0, 1);

	vm_mem_set_private(vcpu->vm, GPA, SIZE);
	saved = save_page(VMCB);
	assert_all_without_page(vcpu, VMCB);
	TEST_ASSERT(!memcmp(page_at(VMCB), saved, PAGE_SIZE), "Written while private");
	vm_mem_set_shared(vcpu->vm, GPA, SIZE);
	assert_runs(vcpu, 0, 2);

	enter(vcpu, 0);
	vm_mem_set_private(vcpu->vm, GPA, SIZE);
	saved = save_page(VMCB);
	mendable = vmexit_is_mendable(vcpu);
	TEST_ASSERT(!memcmp(page_at(VMCB), saved, PAGE_SIZE), "Written while private");
	if (!mendable)
		return;
	vm_mem_set_shared(vcpu->vm, GPA, SIZE);
	assert_exits(vcpu, 0, 3);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SVM));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_NESTED_STATE));

	return test_harness_run(argc, argv);
}
