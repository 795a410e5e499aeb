// SPDX-License-Identifier: GPL-2.0-only
/*
 * A Xen guest's upcall, which KVM reads from a byte in guest memory. That byte changes
 * while KVM is about to inject the interrupt: the guest gets the upcall or nothing.
 */
#include <pthread.h>

#include "gpc_harness.h"

#define UPCALL_VECTOR	0x20
#define ROUNDS		3000

FIXTURE(gpc_upcall)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_upcall)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_upcall)
{
	gpc_free(self->vcpu);
}

static void upcall_guest(void)
{
	int i;

	for (;;) {
		for (i = 0; i < 50; i++)
			asm volatile("sti; nop; cli" : : : "memory");
		GUEST_SYNC(0);
	}
}

static uint64_t upcalls;

static void upcall_handler(struct ex_regs *regs)
{
	upcalls++;
}

static void other_handler(struct ex_regs *regs)
{
	GUEST_FAIL("Interrupted by vector %lu", regs->vector);
}

static bool stop;

/*
 * Keep each value for a while. An emulator takes interrupts between blocks of code, and
 * two stores of one block are adjacent in time: other CPUs rarely see the first value,
 * and another thread on this CPU never sees it.
 */
static void *change_its_mind(void *upcall_pending)
{
	unsigned int i, j;
	cpu_set_t cpus;

	/* Use other CPUs than the vCPU's, if there are any. */
	gpc_all_cpus(&cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);

	for (i = 0; !READ_ONCE(stop); i++) {
		WRITE_ONCE(*(uint8_t *)upcall_pending, i & 1);
		for (j = i / 2 % 64; j; j--)
			barrier();
	}
	return NULL;
}

KVM_ONE_VCPU_TEST(gpc_upcall, gone_before_injection, upcall_guest)
{
	struct kvm_xen_hvm_attr vector = {
		.type = KVM_XEN_ATTR_TYPE_UPCALL_VECTOR,
		.u.vector = UPCALL_VECTOR,
	};
	void *mem = gpc_mmap_anon(NULL);
	pthread_t thread;
	int i;

	memset(mem, 0, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_xen_on(vcpu->vm);
	vm_ioctl(vcpu->vm, KVM_XEN_HVM_SET_ATTR, &vector);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_GPA), 0);
	for (i = 0; i < 256; i++)
		vm_install_exception_handler(vcpu->vm, i, i == UPCALL_VECTOR ? upcall_handler :
									       other_handler);

	TEST_ASSERT(!pthread_create(&thread, NULL, change_its_mind, mem),
		    "Cannot create a thread");
	for (i = 0; i < ROUNDS; i++)
		gpc_run(vcpu, (struct gpc_step) { });
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);

	sync_global_from_guest(vcpu->vm, upcalls);
	TEST_ASSERT(upcalls, "No upcall in %d rounds", ROUNDS);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO);

	return test_harness_run(argc, argv);
}
