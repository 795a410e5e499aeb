// SPDX-License-Identifier: GPL-2.0-only
/*
 * Xen hypercalls that KVM handles itself: only for the guest's kernel, and only with
 * ports that the shared info has bits for.
 */
#include "gpc_harness.h"
#include "gpc_xen.h"

/* Xen's public headers xen.h, version.h and sched.h. */
#define XEN_VERSION	17
#define SCHED_OP	29
#define SCHEDOP_POLL	3

#define VERSION		0x4000f

#define TRACING		"/sys/kernel/tracing/"

FIXTURE(gpc_hypercall)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_hypercall)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_hypercall)
{
	gpc_free(self->vcpu);
}

#define HYPERCALL_TEST(test) KVM_ONE_VCPU_TEST(gpc_hypercall, test, gpc_guest)

static void answer_hypercalls(struct kvm_vm *vm)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
		.msr = GPC_XEN_MSR,
	};
	struct kvm_xen_hvm_attr version = {
		.type = KVM_XEN_ATTR_TYPE_XEN_VERSION,
		.u.xen_version = VERSION,
	};

	vm_ioctl(vm, KVM_XEN_HVM_CONFIG, &config);
	TEST_ASSERT_EQ(gpc_xen_vm_attr(vm, version), 0);
}

/*
 * Privilege
 */

static void guest_version(void)
{
	gpc_step.word = __xen_hypercall(XEN_VERSION, 0, NULL);
}

HYPERCALL_TEST(from_kernel)
{
	answer_hypercalls(vcpu->vm);
	gpc_run(vcpu, (struct gpc_step) { .call = guest_version });
	TEST_ASSERT_EQ(gpc_step.word, VERSION);
}

/* Without stack and data: the VMM sets the registers. */
extern char vmcall_insn[], vmmcall_insn[];
asm(".pushsection .text;"
	"vmcall_insn: vmcall; hlt;"
	"vmmcall_insn: vmmcall; hlt;"
	".popsection");

static void let_users_in(struct kvm_vcpu *vcpu, uint64_t gva)
{
	uint64_t *ptes[5];
	int levels = gpc_ptes(vcpu, gva, ptes);

	while (levels--)
		*ptes[levels] |= GPC_PTE_USER;
}

/* Let the vCPU make the hypercall as a process of the guest. */
static void run_user_version(struct kvm_vcpu *vcpu)
{
	uint64_t insn = (uint64_t)(host_cpu_is_amd ? vmmcall_insn : vmcall_insn);
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	let_users_in(vcpu, insn);

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cs.selector |= 3;
	sregs.cs.dpl = 3;
	sregs.ss = sregs.ds;
	sregs.ss.selector |= 3;
	sregs.ss.dpl = 3;
	vcpu_sregs_set(vcpu, &sregs);

	vcpu_regs_get(vcpu, &regs);
	regs.rip = insn;
	regs.rax = XEN_VERSION;
	regs.rdi = 0;
	regs.rsi = 0xabc;
	vcpu_regs_set(vcpu, &regs);

	vcpu_run(vcpu);
}

HYPERCALL_TEST(from_process)
{
	struct kvm_xen_exit *xen = &vcpu->run->xen;

	answer_hypercalls(vcpu->vm);
	run_user_version(vcpu);

	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_XEN);
	TEST_ASSERT_EQ(xen->type, KVM_EXIT_XEN_HCALL);
	TEST_ASSERT_EQ(xen->u.hcall.cpl, 3);
	TEST_ASSERT_EQ(xen->u.hcall.longmode, 1);
	TEST_ASSERT_EQ(xen->u.hcall.input, XEN_VERSION);
	TEST_ASSERT_EQ(xen->u.hcall.params[1], 0xabc);
}

static bool was_traced(const char *what)
{
	char *line = NULL;
	size_t size = 0;
	bool found = false;
	FILE *f = fopen(TRACING "trace", "r");

	TEST_ASSERT(f, "Cannot read the trace");
	while (!found && getline(&line, &size, f) > 0)
		found = strstr(line, what);
	free(line);
	fclose(f);
	return found;
}

HYPERCALL_TEST(traced_cpl)
{
	GPC_REQUIRE(!access(TRACING "events/kvm/kvm_xen_hypercall", F_OK),
		    "no tracepoint: tracefs is not mounted at " TRACING ", or CONFIG_FTRACE");
	gpc_write_file(TRACING "trace", "");
	TEST_ASSERT(gpc_set(TRACING "events/kvm/kvm_xen_hypercall/enable", "1"),
		    "Cannot trace hypercalls");

	answer_hypercalls(vcpu->vm);
	gpc_run(vcpu, (struct gpc_step) { .call = guest_version });
	TEST_ASSERT(was_traced("cpl 0 nr 0x11 a0 0x0 a1 0x0 "), "Kernel's hypercall not traced");
	TEST_ASSERT(!was_traced("cpl 3"), "Hypercall of a process traced too early");
	run_user_version(vcpu);
	TEST_ASSERT(was_traced("cpl 3 nr 0x11 a0 0x0 a1 0xabc "), "Process' hypercall not traced");
}

/*
 * The page of hypercalls
 */

static bool is_hypercall_page(const void *page)
{
	const uint8_t *code = page;
	int i;

	for (i = 0; i < PAGE_SIZE / 32; i++, code += 32) {
		/* mov $i, %eax; vmcall or vmmcall; ret */
		if (code[0] != 0xb8 || *(uint32_t *)(code + 1) != i || code[5] != 0x0f ||
		    code[6] != 0x01 || code[8] != 0xc3)
			return false;
	}
	return true;
}

HYPERCALL_TEST(page_by_guest)
{
	void *mem = gpc_mmap_anon(NULL);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	answer_hypercalls(vcpu->vm);
	gpc_wrmsr(vcpu, GPC_XEN_MSR, GPC_CLOCK);
	GPC_ASSERT_POISON(mem, PAGE_SIZE);
	TEST_ASSERT(is_hypercall_page(mem + PAGE_SIZE), "The page was not filled");
	GPC_ASSERT_POISON(mem + 2 * PAGE_SIZE, PAGE_SIZE);
}

HYPERCALL_TEST(page_by_vmm)
{
	void *mem = gpc_mmap_anon(NULL);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	answer_hypercalls(vcpu->vm);
	TEST_ASSERT_EQ(_vcpu_set_msr(vcpu, GPC_XEN_MSR, GPC_CLOCK), 0);
	GPC_ASSERT_POISON(mem, GPC_SIZE);
}

/* KVM resets XSS when it creates a vCPU, and must not write to memory then. */
HYPERCALL_TEST(page_at_reset)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = MSR_IA32_XSS,
	};
	void *first_page = addr_gpa2hva(vcpu->vm, 0);
	uint8_t old[PAGE_SIZE];

	memcpy(old, first_page, PAGE_SIZE);
	/* Later kernels refuse an MSR that is not for hypervisors. */
	if (__vm_ioctl(vcpu->vm, KVM_XEN_HVM_CONFIG, &config)) {
		TEST_ASSERT_EQ(errno, EINVAL);
		return;
	}
	vm_vcpu_add(vcpu->vm, 1, gpc_guest);
	TEST_ASSERT(!memcmp(old, first_page, PAGE_SIZE), "GPA 0 was written");
}

/*
 * Ports
 */

static uint32_t polled_ports[3];

static void guest_poll(void)
{
	struct {
		uint32_t *ports;
		uint32_t nr_ports;
		uint64_t timeout;
	} poll = { polled_ports, gpc_step.val };

	gpc_step.word = __xen_hypercall(SCHED_OP, SCHEDOP_POLL, &poll);
}

/* Returns the result of a poll of these ports.  0 stands for no port. */
static int64_t poll_ports(struct kvm_vcpu *vcpu, uint32_t a, uint32_t b, uint32_t c)
{
	polled_ports[0] = a;
	polled_ports[1] = b;
	polled_ports[2] = c;
	sync_global_to_guest(vcpu->vm, polled_ports);
	gpc_run(vcpu, (struct gpc_step) { .call = guest_poll, .val = !!a + !!b + !!c });
	return gpc_step.word;
}

static void assert_limit(struct kvm_vcpu *vcpu, unsigned long *pending, enum gpc_abi abi,
			 uint32_t limit)
{
	gpc_set_abi(vcpu->vm, abi);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, GPC_CLOCK), 0);

	/* The last port's event is pending, else the poll would not return. */
	memset(pending, 0, PAGE_SIZE - GPC_XEN_SHINFO_PENDING);
	pending[(limit - 1) / 64] = 1ul << (limit - 1) % 64;
	TEST_ASSERT_EQ(poll_ports(vcpu, limit - 1, 0, 0), 0);
	TEST_ASSERT_EQ(poll_ports(vcpu, 1, 2, limit - 1), 0);

	memset(pending, 0xff, PAGE_SIZE - GPC_XEN_SHINFO_PENDING);
	TEST_ASSERT_EQ(poll_ports(vcpu, limit, 0, 0), -EINVAL);
	TEST_ASSERT_EQ(poll_ports(vcpu, 1, 2, limit), -EINVAL);
	TEST_ASSERT_EQ(poll_ports(vcpu, 1, ~0, 2), -EINVAL);
}

HYPERCALL_TEST(poll_last_port)
{
	void *mem = gpc_mmap_anon(NULL);
	unsigned long *pending = mem + (GPC_CLOCK - GPC_GPA) + GPC_XEN_SHINFO_PENDING;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	answer_hypercalls(vcpu->vm);
	assert_limit(vcpu, pending, GPC_64, 64 * 64);
	assert_limit(vcpu, pending, GPC_32, 32 * 32);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_EVTCHN_SEND);

	return test_harness_run(argc, argv);
}
