// SPDX-License-Identifier: GPL-2.0-only
/*
 * L2's APIC-access page, whose address the hardware uses: L2's accesses are virtualized,
 * whatever page the VMM puts there.
 */
#include "gpc_harness.h"
#include "gpc_nested.h"

#define ROUNDS		30
#define TPR		0x50

FIXTURE(gpc_apic_access)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_apic_access)
{
	self->vcpu = gpc_create(_metadata);
	nested_create(self->vcpu);
}

FIXTURE_TEARDOWN(gpc_apic_access)
{
	gpc_free(self->vcpu);
}

/*
 * Guest
 */

/* Reads the virtual TPR.  A read of the page itself returns poison. */
static void l2_reads_tpr(void)
{
	uint32_t tpr;

	do {
		tpr = READ_ONCE(*(uint32_t *)(NESTED_APIC_ACCESS + APIC_TASKPRI));
		if (tpr != TPR)
			nested.wrong = tpr;
	} while (nested_goes_on());
	vmcall();
}

static void l1_guest(struct vmx_pages *vmx)
{
	nested_prepare(vmx, l2_reads_tpr);
	nested_control(SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES);
	vmwrite(APIC_ACCESS_ADDR, NESTED_APIC_ACCESS);
	WRITE_ONCE(*(uint32_t *)(NESTED_VAPIC + APIC_TASKPRI), TPR);
	nested_launch();
	GUEST_SYNC(0);
}

#define APIC_ACCESS_TEST(test) KVM_ONE_VCPU_TEST(gpc_apic_access, test, l1_guest)

/*
 * VMM
 */

static void assert_virtualized(struct gpc_task *task, struct kvm_vcpu *vcpu)
{
	uint64_t wrong;

	nested_await_rounds(task, vcpu);
	wrong = nested_state(vcpu->vm)->wrong;
	TEST_ASSERT(!wrong, "L2 has read 0x%lx from its APIC instead of 0x%x", wrong, TPR);
}

APIC_ACCESS_TEST(mmap_over)
{
	struct nested_mem mem = nested_slot_add(vcpu->vm);
	struct gpc_task task;
	int i;

	nested_start(&task, vcpu);
	assert_virtualized(&task, vcpu);
	for (i = 0; i < ROUNDS; i++) {
		nested_replace(&mem, NESTED_APIC_ACCESS);
		assert_virtualized(&task, vcpu);
	}
	nested_stop(&task, vcpu);
}

APIC_ACCESS_TEST(unmapped_then_mapped)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (NESTED_APIC_ACCESS - GPC_GPA);
	struct gpc_task task;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	nested_start(&task, vcpu);
	assert_virtualized(&task, vcpu);

	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	nested_assert_refused(&task, vcpu);

	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	nested_start(&task, vcpu);
	assert_virtualized(&task, vcpu);
	nested_stop(&task, vcpu);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));

	return test_harness_run(argc, argv);
}
