// SPDX-License-Identifier: GPL-2.0-only
/*
 * Xen's event channels: an event sets the bits that the ABI defines, wherever the guest
 * has put its vcpu_info.  A VM that is saved before the vCPU has run does not lose the
 * event.
 */
#include <sys/time.h>

#include "gpc_harness.h"
#include "gpc_xen.h"

/* Each in a page and a memslot of its own. */
#define SHINFO_GPA	GPC_GPA
#define VCPU_INFO_GPA	(GPC_GPA + PAGE_SIZE)
#define VCPU_INFO_SLOT	(GPC_SLOT + 1)

/* Xen's public header xen.h: a vcpu_info has 64 bytes and is aligned to 4 bytes. */
#define VCPU_INFO_SIZE	64
#define VCPU_INFO_ALIGN	4

/* In vcpu_info: evtchn_pending_sel, and the time, which is not checked. */
#define PENDING_SEL_64	8
#define PENDING_SEL_32	4
#define VCPU_INFO_TIME	32

/* In shared_info. */
#define PENDING		0x800
#define MASK_64		0xa00

struct guest_memory {
	void *shinfo;
	void *vcpu_info;	/* the page */
};

FIXTURE(gpc_evtchn)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_evtchn)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_evtchn)
{
	gpc_free(self->vcpu);
}

#define EVTCHN_TEST(test) KVM_ONE_VCPU_TEST(gpc_evtchn, test, gpc_guest)

static struct guest_memory memory_on(struct kvm_vm *vm)
{
	struct guest_memory m = { gpc_mmap_anon(NULL), gpc_mmap_anon(NULL) };

	memset(m.shinfo, 0, PAGE_SIZE);
	memset(m.vcpu_info, 0, PAGE_SIZE);
	vm_set_user_memory_region(vm, GPC_SLOT, 0, SHINFO_GPA, PAGE_SIZE, m.shinfo);
	vm_set_user_memory_region(vm, VCPU_INFO_SLOT, 0, VCPU_INFO_GPA, PAGE_SIZE, m.vcpu_info);
	gpc_xen_on(vm);
	return m;
}

static int send(struct kvm_vcpu *vcpu, uint32_t port)
{
	struct kvm_irq_routing_xen_evtchn event = {
		.port = port,
		.vcpu = vcpu->id,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	return __vm_ioctl(vcpu->vm, KVM_XEN_HVM_EVTCHN_SEND, &event) ? -errno : 0;
}

static void run(struct kvm_vcpu *vcpu)
{
	gpc_run(vcpu, (struct gpc_step) { });
}

/*
 * The vcpu_info
 */

static uint64_t pending_sel(const void *info, enum gpc_abi abi)
{
	return abi == GPC_64 ? __get_unaligned_t(uint64_t, info + PENDING_SEL_64) :
			       __get_unaligned_t(uint32_t, info + PENDING_SEL_32);
}

/* Assert that exactly @words are pending, and that nothing else differs from zero. */
static void assert_pending(const void *page, size_t offset, enum gpc_abi abi, uint64_t words)
{
	const uint8_t *info = page + offset;
	size_t sel = abi == GPC_64 ? PENDING_SEL_64 : PENDING_SEL_32;
	size_t end = sel + (abi == GPC_64 ? 8 : 4), i;

	TEST_ASSERT(info[0] == !!words && pending_sel(info, abi) == words,
		    "Offset %lu: upcall %u, words 0x%lx, not 0x%lx",
		    offset, info[0], pending_sel(info, abi), words);
	for (i = 1; i < VCPU_INFO_TIME; i++)
		TEST_ASSERT((i >= sel && i < end) || !info[i], "Offset %lu: byte %lu is 0x%x",
			    offset, i, info[i]);
}

/* The first word, the last one, and the two in the middle. */
static const int words_64[] = { 0, 31, 32, 63 }, words_32[] = { 0, 15, 16, 31 };

/* The event of each word arrives once.  With @away, it first waits in the kernel. */
static void assert_arrives(struct kvm_vcpu *vcpu, const struct guest_memory *m, size_t offset,
			   enum gpc_abi abi, bool away)
{
	const int *words = abi == GPC_64 ? words_64 : words_32;
	uint64_t expected = 0;
	int i;

	memset(m->shinfo, 0, PAGE_SIZE);
	memset(m->vcpu_info, 0, PAGE_SIZE);
	for (i = 0; i < 4; i++) {
		if (away)
			TEST_ASSERT(!mprotect(m->vcpu_info, PAGE_SIZE, PROT_READ) &&
				    !mprotect(m->vcpu_info, PAGE_SIZE, PROT_READ | PROT_WRITE),
				    "mprotect");
		TEST_ASSERT_EQ(send(vcpu, words[i] * abi * 8 + 5), 0);
		if (away) {
			assert_pending(m->vcpu_info, offset, abi, expected);
			run(vcpu);
		}
		expected |= 1ull << words[i];
		assert_pending(m->vcpu_info, offset, abi, expected);
	}
}

static void assert_arrives_at_each_alignment(struct kvm_vcpu *vcpu, enum gpc_abi abi)
{
	struct guest_memory m = memory_on(vcpu->vm);
	size_t offset;

	gpc_set_abi(vcpu->vm, abi);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, SHINFO_GPA), 0);
	/* One cache line, and the end of the page. */
	for (offset = 0; offset <= PAGE_SIZE - VCPU_INFO_SIZE; offset += VCPU_INFO_ALIGN) {
		if (offset > 64 && offset < PAGE_SIZE - 128)
			continue;
		TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, VCPU_INFO_GPA + offset), 0);
		assert_arrives(vcpu, &m, offset, abi, false);
		assert_arrives(vcpu, &m, offset, abi, true);
	}
}

EVTCHN_TEST(alignments_32bit)
{
	assert_arrives_at_each_alignment(vcpu, GPC_32);
}

EVTCHN_TEST(alignments_64bit)
{
	assert_arrives_at_each_alignment(vcpu, GPC_64);
}

/*
 * A change of mode
 */

static void guest_halts(void)
{
	asm volatile("sti; hlt; cli");
}

static void ignore(int sig)
{
}

/*
 * A word that only a 64-bit guest has is pending in the kernel when the guest switches to
 * 32 bits.  KVM drops the word, and the vCPU can sleep.
 */
EVTCHN_TEST(mode_switch_none_pending)
{
	struct guest_memory m = memory_on(vcpu->vm);
	struct itimerval timer = { .it_value.tv_usec = 200000 };

	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, SHINFO_GPA), 0);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, VCPU_INFO_GPA), 0);
	TEST_ASSERT(!mprotect(m.vcpu_info, PAGE_SIZE, PROT_READ) &&
		    !mprotect(m.vcpu_info, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	TEST_ASSERT_EQ(send(vcpu, 63 * 64), 0);
	gpc_set_abi(vcpu->vm, GPC_32);
	run(vcpu);

	/* Nothing wakes the guest, so only the signal ends KVM_RUN. */
	signal(SIGALRM, ignore);
	gpc_step = (struct gpc_step) { .call = guest_halts };
	sync_global_to_guest(vcpu->vm, gpc_step);
	setitimer(ITIMER_REAL, &timer, NULL);
	TEST_ASSERT(__vcpu_run(vcpu) == -1 && errno == EINTR,
		    "The guest continues after HLT, exit %u", vcpu->run->exit_reason);
}

/* After a switch to 32 bits, KVM finds events in the 32-bit layout only. */
EVTCHN_TEST(mode_switch_pending)
{
	struct guest_memory m = memory_on(vcpu->vm);

	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, SHINFO_GPA), 0);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, VCPU_INFO_GPA), 0);
	*(uint32_t *)(m.shinfo + PENDING + 7 * 4) = 1;
	gpc_set_abi(vcpu->vm, GPC_32);
	run(vcpu);
	assert_pending(m.vcpu_info, 0, GPC_32, 1 << 7);
}

/*
 * Migration
 */

enum attr { LONG_MODE, SHARED_INFO, VCPU_INFO, NR_ATTRS };

static void set_attr(struct kvm_vcpu *vcpu, const struct guest_memory *m, enum attr attr,
		     bool by_hva)
{
	struct kvm_xen_hvm_attr shinfo_hva = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA,
		.u.shared_info.hva = (uintptr_t)m->shinfo,
	};
	struct kvm_xen_vcpu_attr info_hva = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA,
		.u.hva = (uintptr_t)m->vcpu_info,
	};

	switch (attr) {
	case LONG_MODE:
		gpc_set_abi(vcpu->vm, GPC_64);
		break;
	case SHARED_INFO:
		TEST_ASSERT_EQ(by_hva ? gpc_xen_vm_attr(vcpu->vm, shinfo_hva) :
					gpc_xen_set_shinfo(vcpu->vm, SHINFO_GPA), 0);
		break;
	case VCPU_INFO:
		TEST_ASSERT_EQ(by_hva ? gpc_xen_vcpu_attr(vcpu, info_hva) :
					gpc_xen_set_vcpu_info(vcpu, VCPU_INFO_GPA), 0);
		break;
	default:
		break;
	}
}

/* Restore the saved memory in a new VM, and set its attributes in @order. */
static void assert_restored(const struct guest_memory *saved, const enum attr *order,
			    bool by_hva, uint64_t words)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&vcpu, gpc_guest);
	struct guest_memory m = memory_on(vm);
	int i;

	memcpy(m.shinfo, saved->shinfo, PAGE_SIZE);
	memcpy(m.vcpu_info, saved->vcpu_info, PAGE_SIZE);
	for (i = 0; i < NR_ATTRS; i++)
		set_attr(vcpu, &m, order[i], by_hva);

	run(vcpu);
	TEST_ASSERT((pending_sel(m.vcpu_info, GPC_64) & words) == words,
		    "Order %d %d %d: words 0x%lx, lost 0x%lx", order[0], order[1], order[2],
		    pending_sel(m.vcpu_info, GPC_64), words);
	TEST_ASSERT_EQ(*(uint8_t *)m.vcpu_info, !!words);
	/* Before LONG_MODE is set, KVM may find spurious words in the 32-bit layout. */
	if (order[0] == LONG_MODE)
		TEST_ASSERT_EQ(pending_sel(m.vcpu_info, GPC_64), words);
	kvm_vm_free(vm);
}

static const enum attr orders[][NR_ATTRS] = {
	{ LONG_MODE, SHARED_INFO, VCPU_INFO },
	{ LONG_MODE, VCPU_INFO, SHARED_INFO },
	{ SHARED_INFO, LONG_MODE, VCPU_INFO },
	{ SHARED_INFO, VCPU_INFO, LONG_MODE },
	{ VCPU_INFO, LONG_MODE, SHARED_INFO },
	{ VCPU_INFO, SHARED_INFO, LONG_MODE },
};

EVTCHN_TEST(migration)
{
	struct guest_memory m = memory_on(vcpu->vm);
	int i;

	for (i = LONG_MODE; i < NR_ATTRS; i++)
		set_attr(vcpu, &m, i, false);
	run(vcpu);

	/* The vcpu_info is absent when the events arrive, and the vCPU runs no more. */
	vm_set_user_memory_region(vcpu->vm, VCPU_INFO_SLOT, 0, 0, 0, NULL);
	TEST_ASSERT_EQ(send(vcpu, 5), 0);
	TEST_ASSERT_EQ(send(vcpu, 40 * 64), 0);
	assert_pending(m.vcpu_info, 0, GPC_64, 0);

	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		assert_restored(&m, orders[i], false, BIT_ULL(0) | BIT_ULL(40));
		assert_restored(&m, orders[i], true, BIT_ULL(0) | BIT_ULL(40));
	}
}

/* Events that are masked or not pending are not raised. */
EVTCHN_TEST(migration_pending_only)
{
	struct guest_memory m = memory_on(vcpu->vm);
	uint64_t *mask = m.shinfo + MASK_64;
	int i;

	for (i = LONG_MODE; i < NR_ATTRS; i++)
		set_attr(vcpu, &m, i, false);
	run(vcpu);
	assert_restored(&m, orders[0], false, 0);

	mask[3] = BIT_ULL(2);
	TEST_ASSERT_EQ(send(vcpu, 3 * 64 + 2), 0);
	assert_restored(&m, orders[0], false, 0);
	assert_restored(&m, orders[1], true, 0);
}

/* A guest may set its pages again at any time, which raises nothing. */
EVTCHN_TEST(page_moved)
{
	struct guest_memory m = memory_on(vcpu->vm);
	int i;

	for (i = LONG_MODE; i < NR_ATTRS; i++)
		set_attr(vcpu, &m, i, false);
	TEST_ASSERT_EQ(send(vcpu, 5), 0);
	assert_pending(m.vcpu_info, 0, GPC_64, 1);
	memset(m.vcpu_info, 0, PAGE_SIZE);

	set_attr(vcpu, &m, VCPU_INFO, false);
	set_attr(vcpu, &m, VCPU_INFO, true);
	set_attr(vcpu, &m, SHARED_INFO, true);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, -1ul), 0);
	set_attr(vcpu, &m, SHARED_INFO, false);
	set_attr(vcpu, &m, LONG_MODE, false);
	run(vcpu);
	assert_pending(m.vcpu_info, 0, GPC_64, 0);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_EVTCHN_SEND);

	return test_harness_run(argc, argv);
}
