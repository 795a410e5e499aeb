// SPDX-License-Identifier: GPL-2.0-only
/*
 * L2's virtual-APIC page, to which hardware writes L2's TPR: when the VMM takes the page
 * away, hardware continues with L1's new page, and does not touch the old page.
 */
#include <linux/falloc.h>

#include "gpc_harness.h"
#include "gpc_nested.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define ROUNDS		30

/* Priority lower than poison's as the virtual PPR, and higher than zero's. */
#define VECTOR		0x41

FIXTURE(gpc_vapic)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_vapic)
{
	self->vcpu = gpc_create(_metadata);
	nested_create(self->vcpu);
}

FIXTURE_TEARDOWN(gpc_vapic)
{
	gpc_free(self->vcpu);
}

/*
 * Guest
 */

static void l2_writes_tpr(void)
{
	uint64_t tpr = 0;

	do {
		asm volatile("mov %0, %%cr8" : : "r" (tpr++ % 16));
	} while (nested_goes_on());
	vmcall();
}

static void l1_guest(struct vmx_pages *vmx)
{
	nested_prepare(vmx, l2_writes_tpr);
	GUEST_SYNC(0);
	nested_launch();
	GUEST_SYNC(0);
}

/* Map what delivery of the interrupt needs: Bochs loses the vector if delivery faults. */
static void l2_is_interrupted(void)
{
	READ_ONCE(*(uint64_t *)(get_idt().address + VECTOR * sizeof(struct idt_entry)));
	READ_ONCE(*(uint64_t *)(get_gdt().address + get_cs()));
	vmcall();

	while (nested_goes_on())
		;
	vmcall();
}

static void l2_interrupt(struct ex_regs *regs)
{
}

/* L2 is halted, and a virtual interrupt is pending. */
static void l1_guest_halts_l2(struct vmx_pages *vmx)
{
	nested_prepare(vmx, l2_is_interrupted);
	vmwrite(PIN_BASED_VM_EXEC_CONTROL,
		vmreadz(PIN_BASED_VM_EXEC_CONTROL) | PIN_BASED_EXT_INTR_MASK);
	nested_control(SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);
	nested_launch();

	vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + vmreadz(VM_EXIT_INSTRUCTION_LEN));
	vmwrite(GUEST_INTR_STATUS, VECTOR);
	vmwrite(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_HLT);
	GUEST_SYNC(0);
	GUEST_ASSERT(!vmresume());
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	GUEST_SYNC(0);
}

static void l2_goes_round(void)
{
	while (nested_goes_on())
		;
	vmcall();
}

/* L1 handles all accesses to CR8, so hardware does not use the page. */
static void l1_guest_has_cr8_exits(struct vmx_pages *vmx)
{
	nested_prepare(vmx, l2_goes_round);
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING);
	GUEST_SYNC(0);
	nested_launch();
	GUEST_SYNC(0);
}

#define VAPIC_TEST(test) KVM_ONE_VCPU_TEST(gpc_vapic, test, l1_guest)

/*
 * VMM
 */

/* Run L1 until it is about to launch L2. */
static void run_l1(struct kvm_vcpu *vcpu)
{
	vcpu_run(vcpu);
	gpc_assert_synced(vcpu);
}

/* Assert that L2 writes its TPR to the page at @page, and nothing else there. */
static void assert_tpr_in(struct gpc_task *task, struct kvm_vcpu *vcpu, void *page)
{
	memset(page, GPC_POISON, PAGE_SIZE);
	nested_await_rounds(task, vcpu);
	TEST_ASSERT(!(*(uint8_t *)(page + APIC_TASKPRI) & 0xf), "TPR not written");
	GPC_ASSERT_POISON(page, APIC_TASKPRI);
	GPC_ASSERT_POISON(page + APIC_TASKPRI + 4, PAGE_SIZE - APIC_TASKPRI - 4);
}

VAPIC_TEST(mmap_over)
{
	struct nested_mem mem = nested_slot_add(vcpu->vm);
	void *page = mem.slot + (NESTED_VAPIC - GPC_GPA), *was;
	struct gpc_task task;
	int i;

	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);
	for (i = 0; i < ROUNDS; i++) {
		was = nested_replace(&mem, NESTED_VAPIC);
		memset(was, GPC_POISON, PAGE_SIZE);
		assert_tpr_in(&task, vcpu, page);
		GPC_ASSERT_POISON(was, PAGE_SIZE);
	}
	nested_stop(&task, vcpu);
}

VAPIC_TEST(punch_hole)
{
	struct nested_mem mem = nested_slot_add(vcpu->vm);
	size_t offset = NESTED_VAPIC - GPC_GPA;
	struct gpc_task task;
	void *hoard;
	int i;

	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);
	for (i = 0; i < ROUNDS; i++) {
		TEST_ASSERT(!fallocate(mem.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       offset, PAGE_SIZE), __KVM_SYSCALL_ERROR("fallocate()", -1));
		hoard = gpc_hoard();
		assert_tpr_in(&task, vcpu, mem.slot + offset);
		munmap(hoard, GPC_HOARD_SIZE);
	}
	nested_stop(&task, vcpu);
}

VAPIC_TEST(soft_offline)
{
	void *page = gpc_mmap_anon(NULL) + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;
	uint64_t pfn;
	int r;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, page - (NESTED_VAPIC - GPC_GPA));
	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);

	pfn = gpc_pfn(page);
	r = madvise(page, PAGE_SIZE, MADV_SOFT_OFFLINE);
	TEST_ASSERT(!r || errno == EINVAL, __KVM_SYSCALL_ERROR("madvise(MADV_SOFT_OFFLINE)", r));
	if (!r)
		TEST_ASSERT(gpc_pfn(page) != pfn, "The page was not migrated");
	assert_tpr_in(&task, vcpu, page);
	nested_stop(&task, vcpu);
	GPC_REQUIRE(!r, "kernel without MADV_SOFT_OFFLINE");
}

VAPIC_TEST(unmapped_then_mapped)
{
	void *page = gpc_mmap_anon(NULL) + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, page - (NESTED_VAPIC - GPC_GPA));
	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);

	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	nested_assert_refused(&task, vcpu);
	nested_start(&task, vcpu);
	nested_assert_refused(&task, vcpu);

	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	nested_start(&task, vcpu);
	assert_tpr_in(&task, vcpu, page);
	nested_stop(&task, vcpu);
}

KVM_ONE_VCPU_TEST(gpc_vapic, absent_and_unused, l1_guest_has_cr8_exits)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);
	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	nested_await_rounds(&task, vcpu);
	nested_stop(&task, vcpu);
}

VAPIC_TEST(memslot_moved_or_deleted)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;
	int i;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);

	for (i = 0; i < 2; i++) {
		if (i)
			gpc_slot_delete(vcpu->vm);
		else
			gpc_slot(vcpu->vm, 0, GPC_GPA + GPC_SIZE, GPC_SIZE, mem);
		nested_assert_refused(&task, vcpu);
		memset(page, GPC_POISON, PAGE_SIZE);

		gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
		GPC_ASSERT_POISON(page, PAGE_SIZE);
		nested_start(&task, vcpu);
		assert_tpr_in(&task, vcpu, page);
	}
	nested_stop(&task, vcpu);
}

/*
 * The host's page tables do not change: only KVM itself gets the vCPU out of guest mode
 * before the page is written.  Only a vCPU with its own CPU shows that.
 */
TEST_F(gpc_vapic, private_then_shared)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	struct kvm_vcpu *vcpu;
	struct gpc_task task;
	int i;

	GPC_REQUIRE(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM),
		    "KVM without software-protected VMs");
	vcpu = gpc_create_vm(_metadata, KVM_X86_SW_PROTECTED_VM, 0);
	vcpu_arch_set_entry_point(vcpu, l1_guest);
	nested_create(vcpu);
	vm_set_user_memory_region2(vcpu->vm, GPC_SLOT, KVM_MEM_GUEST_MEMFD, GPC_GPA, GPC_SIZE, mem,
				   vm_create_guest_memfd(vcpu->vm, GPC_SIZE, 0), 0);
	run_l1(vcpu);
	nested_start(&task, vcpu);
	nested_await_rounds(&task, vcpu);

	for (i = 0; i < ROUNDS; i++) {
		vm_mem_set_private(vcpu->vm, NESTED_VAPIC, PAGE_SIZE);
		memset(page, GPC_POISON, PAGE_SIZE);
		nested_assert_refused(&task, vcpu);
		GPC_ASSERT_POISON(page, PAGE_SIZE);

		vm_mem_set_shared(vcpu->vm, NESTED_VAPIC, PAGE_SIZE);
		nested_start(&task, vcpu);
		assert_tpr_in(&task, vcpu, page);
	}
	nested_stop(&task, vcpu);
	gpc_free(vcpu);
}

/* The memslots change, but not their memory. */
VAPIC_TEST(dirty_logging_on_off)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	unsigned long dirty;
	struct gpc_task task;
	int i;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	run_l1(vcpu);
	nested_start(&task, vcpu);
	for (i = 0; i < ROUNDS; i++) {
		gpc_slot(vcpu->vm, KVM_MEM_LOG_DIRTY_PAGES, GPC_GPA, GPC_SIZE, mem);
		assert_tpr_in(&task, vcpu, page);
		do {
			nested_await_rounds(&task, vcpu);
			kvm_vm_get_dirty_log(vcpu->vm, GPC_SLOT, &dirty);
		} while (!dirty);
		TEST_ASSERT_EQ(dirty, BIT((NESTED_VAPIC - GPC_GPA) / PAGE_SIZE));
		gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	}
	nested_stop(&task, vcpu);
}

/* The page is missing (userfaultfd) before L2 is launched, or while L2 runs. */
static void wait_for_page(struct kvm_vcpu *vcpu, bool l2_runs)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;
	int i, uffd;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_catch_kicks(vcpu);
	run_l1(vcpu);
	if (l2_runs) {
		nested_start(&task, vcpu);
		nested_await_rounds(&task, vcpu);
	}

	uffd = gpc_uffd_make_missing(page);
	for (i = 0; i < 3; i++) {
		if (i || !l2_runs)
			nested_start(&task, vcpu);
		gpc_uffd_await(uffd, page, 0);
		gpc_kick_out(vcpu, &task);
	}
	TEST_ASSERT(!gpc_pfn(page), "The page is present before it is supplied");

	gpc_uffd_supply(uffd, page);
	nested_start(&task, vcpu);
	assert_tpr_in(&task, vcpu, page);
	nested_stop(&task, vcpu);
	close(uffd);
}

VAPIC_TEST(wait_while_l2_runs)
{
	wait_for_page(vcpu, true);
}

VAPIC_TEST(wait_at_launch)
{
	wait_for_page(vcpu, false);
}

static void assert_halted(struct kvm_vcpu *vcpu)
{
	struct kvm_mp_state state;

	vcpu_mp_state_get(vcpu, &state);
	TEST_ASSERT_EQ(state.mp_state, KVM_MP_STATE_HALTED);
	TEST_ASSERT(!nested_state(vcpu->vm)->rounds, "L2 has run");
}

/*
 * L2 is halted.  The priority of its pending virtual interrupt is lower than that of
 * poison as the virtual PPR.  A page of zeros lets the interrupt wake L2.
 */
KVM_ONE_VCPU_TEST(gpc_vapic, wakes_halted_l2, l1_guest_halts_l2)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;
	int i, uffd;

	nested_require(SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);
	vm_install_exception_handler(vcpu->vm, VECTOR, l2_interrupt);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_catch_kicks(vcpu);
	run_l1(vcpu);

	/* With poison, L2 sleeps. */
	for (i = 0; i < 3; i++) {
		nested_start(&task, vcpu);
		gpc_task_await_done_or(&task, 'S');
		gpc_kick_out(vcpu, &task);
		assert_halted(vcpu);

		/* L2 neither sleeps nor wakes: KVM waits for the page. */
		uffd = gpc_uffd_make_missing(page);
		nested_start(&task, vcpu);
		gpc_uffd_await(uffd, page, 0);
		gpc_kick_out(vcpu, &task);
		assert_halted(vcpu);
		gpc_uffd_supply(uffd, page);
		close(uffd);
	}

	uffd = gpc_uffd_make_missing(page);
	nested_start(&task, vcpu);
	gpc_uffd_await(uffd, page, 0);
	gpc_uffd_supply_zeros(uffd, page);
	nested_await_rounds(&task, vcpu);
	nested_stop(&task, vcpu);
	close(uffd);
}

/* L2 sleeps.  A VM-Entry would fail. */
KVM_ONE_VCPU_TEST(gpc_vapic, halted_l2_launched_without, l1_guest_halts_l2)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_VAPIC - GPC_GPA);
	struct gpc_task task;
	int i;

	nested_require(SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_catch_kicks(vcpu);
	run_l1(vcpu);

	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	for (i = 0; i < 3; i++) {
		nested_start(&task, vcpu);
		gpc_task_await_done_or(&task, 'S');
		gpc_kick_out(vcpu, &task);
		assert_halted(vcpu);
	}
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));

	return test_harness_run(argc, argv);
}
