// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_nested.h"
#include "gpc_nested_compat.h"

struct nested nested;

/*
 * Guest
 */

/* Only the virtual-APIC page is in use. */
void nested_prepare(struct vmx_pages *vmx, void (*l2_guest)(void))
{
	static uint64_t stack[512];

	asm volatile("sti");
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	gpc_prepare_vmcs(vmx, l2_guest, &stack[ARRAY_SIZE(stack)]);
	vmwrite(GUEST_RFLAGS, X86_EFLAGS_FIXED | X86_EFLAGS_IF);
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_TPR_SHADOW | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS);
	vmwrite(VIRTUAL_APIC_PAGE_ADDR, NESTED_VAPIC);
}

void nested_control(uint32_t secondary)
{
	vmwrite(SECONDARY_VM_EXEC_CONTROL, vmreadz(SECONDARY_VM_EXEC_CONTROL) | secondary);
}

/* Run L2 until it returns. */
void nested_launch(void)
{
	GUEST_ASSERT(!vmlaunch());
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
}

/* End a round.  Returns whether to continue. */
bool nested_goes_on(void)
{
	WRITE_ONCE(nested.rounds, nested.rounds + 1);
	return !READ_ONCE(nested.stop);
}

/*
 * VMM
 */

struct nested *nested_state(struct kvm_vm *vm)
{
	return addr_gva2hva(vm, (uintptr_t)&nested);
}

void nested_create(struct kvm_vcpu *vcpu)
{
	vcpu_args_set(vcpu, 1, gpc_alloc_vmx(vcpu->vm));
}

/* Require secondary controls that L1 sets.  The MSR's upper half has those allowed. */
void nested_require(uint32_t secondary)
{
	GPC_REQUIRE(!(secondary & ~(kvm_get_feature_msr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32)),
		    "KVM or the CPU without secondary controls 0x%x", secondary);
}

/* Run on another CPU than the test, to which this thread is pinned, if there is one. */
static int nested_run_fn(void *vcpu)
{
	cpu_set_t cpus;

	gpc_all_cpus(&cpus);
	CPU_CLR(sched_getcpu(), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	return gpc_task_run_fn(vcpu);
}

void nested_start(struct gpc_task *task, struct kvm_vcpu *vcpu)
{
	gpc_task_start(task, nested_run_fn, vcpu);
}

/* Wait until L2 has completed whole rounds of its loop. */
void nested_await_rounds(struct gpc_task *task, struct kvm_vcpu *vcpu)
{
	struct nested *state = nested_state(vcpu->vm);
	uint64_t until = READ_ONCE(state->rounds) + 100;

	while (READ_ONCE(state->rounds) < until) {
		TEST_ASSERT(!READ_ONCE(task->done), "L2 has stopped: exit reason %u, error %d",
			    vcpu->run->exit_reason, task->ret);
		usleep(100);
	}
}

/* Assert that KVM_RUN fails because a page is inaccessible.  The VMM may repair that. */
void nested_assert_refused(struct gpc_task *task, struct kvm_vcpu *vcpu)
{
	TEST_ASSERT(gpc_task_ends(task), "L2 continues without its page");
	TEST_ASSERT_EQ(task->ret, 0);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_INTERNAL_ERROR);
	TEST_ASSERT_EQ(vcpu->run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
}

/* L2 returns to L1, which reports success. */
void nested_stop(struct gpc_task *task, struct kvm_vcpu *vcpu)
{
	WRITE_ONCE(nested_state(vcpu->vm)->stop, 1);
	TEST_ASSERT_EQ(gpc_task_finish(task), 0);
	gpc_assert_synced(vcpu);
}

/*
 * VMM: a slot whose replaced pages stay visible through a second mapping
 */

struct nested_mem nested_slot_add(struct kvm_vm *vm)
{
	struct nested_mem mem = { .fd = memfd_create("nested", MFD_CLOEXEC) };

	TEST_ASSERT(mem.fd >= 0 && !ftruncate(mem.fd, 2 * GPC_SIZE), "Cannot create a memfd");
	mem.view = gpc_mmap(NULL, 2 * GPC_SIZE, MAP_SHARED, mem.fd, 0);
	mem.slot = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, mem.fd, 0);
	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem.slot);
	return mem;
}

/* Replace the page at @gpa.  Returns the view of the old page. */
void *nested_replace(struct nested_mem *mem, uint64_t gpa)
{
	size_t offset = gpa - GPC_GPA;
	void *was = mem->view + offset + mem->second * GPC_SIZE;

	mem->second = !mem->second;
	TEST_ASSERT(mmap(mem->slot + offset, PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, mem->fd,
			 offset + mem->second * GPC_SIZE) != MAP_FAILED,
		    __KVM_SYSCALL_ERROR("mmap()", -1));
	return was;
}
