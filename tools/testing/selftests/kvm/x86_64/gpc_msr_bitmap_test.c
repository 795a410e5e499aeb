// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1's MSR bitmap, which KVM reads at VM-Enter: L2 reads the TPR of the virtual-APIC page as
 * an MSR of its x2APIC.  If KVM ran L2 without the bitmap, L2 would get the TPR of L1's APIC.
 */
#include "gpc_harness.h"
#include "gpc_nested.h"

#define TPR		0x50

FIXTURE(gpc_msr_bitmap)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_msr_bitmap)
{
	self->vcpu = gpc_create(_metadata);
	nested_create(self->vcpu);
	nested_require(SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE);
}

FIXTURE_TEARDOWN(gpc_msr_bitmap)
{
	gpc_free(self->vcpu);
}

/*
 * Guest
 */

static void l2_reads_tpr(void)
{
	uint32_t tpr;		/* the upper half is arbitrary page content */

	do {
		tpr = x2apic_read_reg(APIC_TASKPRI);
		if (tpr != TPR)
			nested.wrong = tpr + 1ul;
	} while (nested_goes_on());
	vmcall();
}

/* L1 does not preserve L2's registers. */
static void l2_reads_tpr_and_exits(void)
{
	for (;;)
		asm volatile("mov %0, %%ecx; rdmsr; vmcall"
			     : : "i" (APIC_BASE_MSR + (APIC_TASKPRI >> 4)) : "eax", "ecx", "edx");
}

static void prepare(struct vmx_pages *vmx, void (*l2_guest)(void))
{
	x2apic_enable();
	nested_prepare(vmx, l2_guest);
	nested_control(SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE);
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_USE_MSR_BITMAPS);
	vmwrite(MSR_BITMAP, NESTED_MSR_BITMAP);
	WRITE_ONCE(*(uint32_t *)(NESTED_VAPIC + APIC_TASKPRI), TPR);
	GUEST_SYNC(0);
}

static void l1_guest(struct vmx_pages *vmx)
{
	prepare(vmx, l2_reads_tpr);
	nested_launch();
	GUEST_SYNC(0);
}

static void l1_guest_reports_exits(struct vmx_pages *vmx)
{
	prepare(vmx, l2_reads_tpr_and_exits);
	GUEST_ASSERT(!vmlaunch());
	for (;;) {
		nested.exit_reason = vmreadz(VM_EXIT_REASON);
		GUEST_SYNC(0);
		vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + vmreadz(VM_EXIT_INSTRUCTION_LEN));
		GUEST_ASSERT(!vmresume());
	}
}

#define MSR_BITMAP_TEST(test) KVM_ONE_VCPU_TEST(gpc_msr_bitmap, test, l1_guest)

/*
 * VMM
 */

/* Run L1 until it is about to launch L2.  Returns the bitmap, all zeros. */
static void *run_l1(struct kvm_vcpu *vcpu)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_MSR_BITMAP - GPC_GPA);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	vcpu_run(vcpu);
	gpc_assert_synced(vcpu);
	return memset(page, 0, PAGE_SIZE);
}

static void assert_tpr(struct gpc_task *task, struct kvm_vcpu *vcpu)
{
	uint64_t wrong;

	nested_await_rounds(task, vcpu);
	wrong = nested_state(vcpu->vm)->wrong;
	TEST_ASSERT(!wrong, "L2 has read 0x%lx as its TPR instead of 0x%x", wrong - 1, TPR);
}

/* The bitmap is missing (userfaultfd), and is supplied after some kicks. */
static void wait_for_bitmap(struct kvm_vcpu *vcpu, int uffd, void *page)
{
	struct gpc_task task;
	int i;

	for (i = 0; i < 3; i++) {
		nested_start(&task, vcpu);
		gpc_uffd_await(uffd, page, 0);
		gpc_kick_out(vcpu, &task);
	}

	gpc_uffd_supply_zeros(uffd, page);
	nested_start(&task, vcpu);
	assert_tpr(&task, vcpu);
	nested_stop(&task, vcpu);
	close(uffd);
}

MSR_BITMAP_TEST(wait_at_launch)
{
	void *page = run_l1(vcpu);

	gpc_catch_kicks(vcpu);
	wait_for_bitmap(vcpu, gpc_uffd_make_missing(page), page);
}

MSR_BITMAP_TEST(wait_after_set_nested_state)
{
	void *page = run_l1(vcpu);
	struct kvm_nested_state *state;
	struct gpc_task task;
	int uffd;

	gpc_catch_kicks(vcpu);
	nested_start(&task, vcpu);
	assert_tpr(&task, vcpu);
	gpc_kick_out(vcpu, &task);

	state = calloc(1, kvm_check_cap(KVM_CAP_NESTED_STATE));
	state->size = kvm_check_cap(KVM_CAP_NESTED_STATE);
	vcpu_nested_state_get(vcpu, state);
	uffd = gpc_uffd_make_missing(page);
	vcpu_nested_state_set(vcpu, state);
	free(state);
	wait_for_bitmap(vcpu, uffd, page);
}

static void assert_exit(struct kvm_vcpu *vcpu, uint64_t reason)
{
	vcpu_run(vcpu);
	gpc_assert_synced(vcpu);
	TEST_ASSERT_EQ(nested_state(vcpu->vm)->exit_reason, reason);
}

/* Map a page of @fill over the bitmap. */
static void replace(void *page, int fill)
{
	memset(gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), fill, PAGE_SIZE);
}

KVM_ONE_VCPU_TEST(gpc_msr_bitmap, launch_to_launch, l1_guest_reports_exits)
{
	void *page = run_l1(vcpu);
	int i;

	for (i = 0; i < 10; i++) {
		assert_exit(vcpu, EXIT_REASON_VMCALL);
		replace(page, 0xff);
		assert_exit(vcpu, EXIT_REASON_MSR_READ);
		assert_exit(vcpu, EXIT_REASON_VMCALL);
		replace(page, 0);
	}
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));

	return test_harness_run(argc, argv);
}
