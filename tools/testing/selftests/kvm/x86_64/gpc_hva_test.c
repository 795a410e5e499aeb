// SPDX-License-Identifier: GPL-2.0-only
/*
 * Caches bound to a user address instead of a guest address, as Xen's shared info and
 * vCPU info can be: KVM writes to the memory that is currently at that address, whatever
 * page that is and whatever the memslots are.
 */
#include <pthread.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "gpc_harness.h"

/* Layout of the 64-bit ABI in Xen's public headers, xen.h and arch-x86/xen.h. */
#define VCPU_INFO_SIZE	64
#define VCPU_INFO_TIME	32
#define SHINFO_WC	0xc00

struct xen_wall_clock {
	uint32_t version;
	uint32_t sec;
	uint32_t nsec;
	uint32_t sec_hi;
};

#define XEN_MSR		0x40000200

/* Page aligned: a non-canonical address, and one in the kernel's half. */
#define NON_CANONICAL	((void *)BIT_ULL(62))
#define KERNEL_ADDRESS	((void *)-PAGE_SIZE)

FIXTURE(gpc_hva)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_hva)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_hva)
{
	gpc_free(self->vcpu);
}

#define HVA_TEST(test) KVM_ONE_VCPU_TEST(gpc_hva, test, gpc_guest)

static void *slot_add(struct kvm_vm *vm)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = XEN_MSR,
	};
	void *mem = gpc_mmap_anon(NULL);

	vm_ioctl(vm, KVM_XEN_HVM_CONFIG, &config);
	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	return mem;
}

static int set_vcpu_info(struct kvm_vcpu *vcpu, void *hva)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA,
		.u.hva = (uintptr_t)hva,
	};

	return __vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr) ? -errno : 0;
}

static int set_shared_info(struct kvm_vm *vm, void *hva)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA,
		.u.shared_info.hva = (uintptr_t)hva,
	};

	return __vm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &attr) ? -errno : 0;
}

/* Makes KVM rewrite the wall clock through its current cache. */
static int set_long_mode(struct kvm_vm *vm)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_LONG_MODE,
		.u.long_mode = 1,
	};

	return __vm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &attr) ? -errno : 0;
}

static void vcpu_info_on(struct kvm_vcpu *vcpu, void *info)
{
	TEST_ASSERT_EQ(set_vcpu_info(vcpu, info), 0);
}

/* Assert that KVM has just written the time in the vCPU info at @gpa. */
static void assert_vcpu_info(struct kvm_vcpu *vcpu, uint64_t gpa, void *page)
{
	gpc_assert_served(vcpu, gpa + VCPU_INFO_TIME);
	gpc_assert_served_in(vcpu, gpa + VCPU_INFO_TIME, page);
}

static void shared_info_on(struct kvm_vm *vm, void *page)
{
	TEST_ASSERT_EQ(set_long_mode(vm), 0);
	TEST_ASSERT_EQ(set_shared_info(vm, page), 0);
}

static uint64_t peek(struct kvm_vcpu *vcpu, uint64_t gva)
{
	gpc_run(vcpu, (struct gpc_step) { .peek = gva });
	return gpc_step.word;
}

/* The time of day at which the guest's clock was zero, which shows the era. */
static void assert_wall_clock(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	struct xen_wall_clock wc;
	uint64_t words[2];
	int64_t sec;

	words[0] = peek(vcpu, gpa + SHINFO_WC);
	words[1] = peek(vcpu, gpa + SHINFO_WC + sizeof(words[0]));
	memcpy(&wc, words, sizeof(wc));

	TEST_ASSERT(!(wc.version & 1), "Version is odd: 0x%x", wc.version);
	TEST_ASSERT(wc.nsec < NSEC_PER_SEC, "Nanoseconds: %u", wc.nsec);
	sec = time(NULL) - gpc_era / NSEC_PER_SEC - ((uint64_t)wc.sec_hi << 32 | wc.sec);
	TEST_ASSERT(sec >= -1 && sec < 100, "Wall clock is off by %ld s", sec);
}

static void assert_shared_info(struct kvm_vcpu *vcpu, uint64_t gpa, void *page)
{
	const size_t end = SHINFO_WC + sizeof(struct xen_wall_clock);

	gpc_new_era(vcpu->vm);
	TEST_ASSERT_EQ(set_long_mode(vcpu->vm), 0);
	assert_wall_clock(vcpu, gpa);

	memset(page, GPC_POISON, PAGE_SIZE);
	gpc_new_era(vcpu->vm);
	TEST_ASSERT_EQ(set_long_mode(vcpu->vm), 0);
	assert_wall_clock(vcpu, gpa);
	GPC_ASSERT_POISON(page, SHINFO_WC);
	GPC_ASSERT_POISON(page + end, PAGE_SIZE - end);
}

/* Move the page to another address of the VMM.  Returns that address. */
static void *take_away(void *page)
{
	void *moved;

	memset(page, GPC_POISON, PAGE_SIZE);
	moved = mremap(page, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       gpc_mmap_anon(NULL));
	TEST_ASSERT(moved != MAP_FAILED, __KVM_SYSCALL_ERROR("mremap()", -1));
	return moved;
}

static void give_back(void *page)
{
	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Give the page to the kernel, and from there to the hoard.  Returns the hoard. */
static void *drop(void *page)
{
	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
	return gpc_hoard();
}

HVA_TEST(vcpu_info_madvise_dontneed)
{
	void *page = slot_add(vcpu->vm), *hoard;

	vcpu_info_on(vcpu, page);
	assert_vcpu_info(vcpu, GPC_GPA, page);
	hoard = drop(page);
	assert_vcpu_info(vcpu, GPC_GPA, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

HVA_TEST(vcpu_info_mremap_away)
{
	void *page = slot_add(vcpu->vm), *moved;

	vcpu_info_on(vcpu, page);
	assert_vcpu_info(vcpu, GPC_GPA, page);
	moved = take_away(page);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(moved, PAGE_SIZE);

	give_back(page);
	assert_vcpu_info(vcpu, GPC_GPA, page);
	GPC_ASSERT_POISON(moved, PAGE_SIZE);
}

HVA_TEST(vcpu_info_attribute)
{
	const uint64_t offsets[] = {
		0, 64, 4, PAGE_SIZE - VCPU_INFO_SIZE, PAGE_SIZE, 3 * PAGE_SIZE + 64,
		GPC_SIZE - VCPU_INFO_SIZE, 0,
	};
	void *mem = slot_add(vcpu->vm);
	size_t start, end;
	int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		start = offsets[i] + VCPU_INFO_TIME;
		end = start + GPC_CLOCK_SIZE;

		vcpu_info_on(vcpu, mem + offsets[i]);
		memset(mem, GPC_POISON, GPC_SIZE);
		gpc_assert_served(vcpu, GPC_GPA + start);
		GPC_ASSERT_POISON(mem, start);
		GPC_ASSERT_POISON(mem + end, GPC_SIZE - end);
	}

	vcpu_info_on(vcpu, NULL);
	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);
}

/* Change from a guest address to a user address, and back. */
HVA_TEST(vcpu_info_gpa_and_hva)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		.u.gpa = GPC_GPA + PAGE_SIZE,
	};
	void *mem = slot_add(vcpu->vm);
	int i;

	for (i = 0; i < 2; i++) {
		memset(mem, GPC_POISON, GPC_SIZE);
		vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
		assert_vcpu_info(vcpu, GPC_GPA + PAGE_SIZE, mem + PAGE_SIZE);
		GPC_ASSERT_POISON(mem, PAGE_SIZE);

		memset(mem, GPC_POISON, GPC_SIZE);
		vcpu_info_on(vcpu, mem);
		assert_vcpu_info(vcpu, GPC_GPA, mem);
		GPC_ASSERT_POISON(mem + PAGE_SIZE, PAGE_SIZE);
	}
}

/* kvmclock is bound to a guest address, so it stops with the memslot. */
HVA_TEST(vcpu_info_memslot_deleted)
{
	struct pvclock_vcpu_time_info *time;
	void *mem = slot_add(vcpu->vm);

	vcpu_info_on(vcpu, mem);
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	gpc_slot_delete(vcpu->vm);

	memset(mem, GPC_POISON, GPC_SIZE);
	gpc_update(vcpu);
	time = mem + VCPU_INFO_TIME;
	TEST_ASSERT(!(time->version & 1) && time->system_time >= gpc_era &&
		    time->system_time - gpc_era < GPC_ERA_NS,
		    "Time not written: version 0x%x, %llu ns",
		    time->version, (unsigned long long)time->system_time);
	GPC_ASSERT_POISON(mem + VCPU_INFO_SIZE, GPC_SIZE - VCPU_INFO_SIZE);
}

HVA_TEST(vcpu_info_unmapped_then_mapped)
{
	void *page = slot_add(vcpu->vm), *hoard = gpc_hoard_reserve();

	vcpu_info_on(vcpu, page);
	assert_vcpu_info(vcpu, GPC_GPA, page);

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	memset(hoard, GPC_POISON, GPC_HOARD_SIZE);
	gpc_update(vcpu);

	give_back(page);
	GPC_ASSERT_POISON(page, PAGE_SIZE);
	assert_vcpu_info(vcpu, GPC_GPA, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

HVA_TEST(vcpu_info_bad_addresses)
{
	void *mem = slot_add(vcpu->vm);

	TEST_ASSERT_EQ(set_vcpu_info(vcpu, mem + 2), -ENXIO);
	TEST_ASSERT_EQ(set_vcpu_info(vcpu, mem + PAGE_SIZE - VCPU_INFO_SIZE + 4), -EINVAL);
	TEST_ASSERT_EQ(set_vcpu_info(vcpu, NON_CANONICAL), -EINVAL);
	TEST_ASSERT_EQ(set_vcpu_info(vcpu, KERNEL_ADDRESS), -EINVAL);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	TEST_ASSERT(!munmap(mem + PAGE_SIZE, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	TEST_ASSERT_EQ(set_vcpu_info(vcpu, mem + PAGE_SIZE), -EFAULT);
	gpc_update(vcpu);

	give_back(mem + PAGE_SIZE);
	vcpu_info_on(vcpu, mem + PAGE_SIZE);
	assert_vcpu_info(vcpu, GPC_GPA + PAGE_SIZE, mem + PAGE_SIZE);
}

HVA_TEST(shared_info_madvise_dontneed)
{
	void *page = slot_add(vcpu->vm), *hoard;

	shared_info_on(vcpu->vm, page);
	assert_shared_info(vcpu, GPC_GPA, page);
	hoard = drop(page);
	assert_shared_info(vcpu, GPC_GPA, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

HVA_TEST(shared_info_mremap_away)
{
	void *page = slot_add(vcpu->vm), *moved;

	shared_info_on(vcpu->vm, page);
	assert_shared_info(vcpu, GPC_GPA, page);
	moved = take_away(page);
	give_back(page);
	assert_shared_info(vcpu, GPC_GPA, page);
	GPC_ASSERT_POISON(moved, PAGE_SIZE);
}

HVA_TEST(shared_info_unmapped_then_mapped)
{
	void *page = slot_add(vcpu->vm), *hoard = gpc_hoard_reserve();

	shared_info_on(vcpu->vm, page);
	assert_shared_info(vcpu, GPC_GPA, page);

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	memset(hoard, GPC_POISON, GPC_HOARD_SIZE);
	TEST_ASSERT_EQ(set_long_mode(vcpu->vm), -EFAULT);

	give_back(page);
	assert_shared_info(vcpu, GPC_GPA, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

HVA_TEST(shared_info_attribute)
{
	void *mem = slot_add(vcpu->vm);
	int i;

	shared_info_on(vcpu->vm, mem);
	for (i = 1; i <= 2 * GPC_PAGES; i++) {
		uint64_t offset = i % GPC_PAGES * PAGE_SIZE;

		memset(mem, GPC_POISON, GPC_SIZE);
		TEST_ASSERT_EQ(set_shared_info(vcpu->vm, mem + offset), 0);
		assert_wall_clock(vcpu, GPC_GPA + offset);
		assert_shared_info(vcpu, GPC_GPA + offset, mem + offset);
		GPC_ASSERT_POISON(mem, offset);
		GPC_ASSERT_POISON(mem + offset + PAGE_SIZE, GPC_SIZE - offset - PAGE_SIZE);
	}

	TEST_ASSERT_EQ(set_shared_info(vcpu->vm, NULL), 0);
	memset(mem, GPC_POISON, GPC_SIZE);
	TEST_ASSERT_EQ(set_long_mode(vcpu->vm), 0);
	GPC_ASSERT_POISON(mem, GPC_SIZE);
}

HVA_TEST(shared_info_bad_addresses)
{
	void *mem = slot_add(vcpu->vm);

	TEST_ASSERT_EQ(set_shared_info(vcpu->vm, mem + 64), -EINVAL);
	TEST_ASSERT_EQ(set_shared_info(vcpu->vm, NON_CANONICAL), -EINVAL);
	TEST_ASSERT_EQ(set_shared_info(vcpu->vm, KERNEL_ADDRESS), -EINVAL);
	TEST_ASSERT(!munmap(mem, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	TEST_ASSERT_EQ(set_shared_info(vcpu->vm, mem), -EFAULT);
	GPC_ASSERT_POISON(mem + PAGE_SIZE, GPC_SIZE - PAGE_SIZE);

	give_back(mem);
	shared_info_on(vcpu->vm, mem);
	assert_shared_info(vcpu, GPC_GPA, mem);
}

/*
 * Outside of all memslots, the page is taken away while KVM looks it up.  A thread sends
 * events, which KVM writes to the shared info.  This thread interrupts the sender at an
 * arbitrary instruction: it shares the sender's CPU and has priority.
 */
#define RACES		2000
#define RACES_NS	(15ull * NSEC_PER_SEC)	/* a debug kernel has time for fewer */
#define RACE_US		20
#define RACE_PAGES	64

struct sender {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	uint64_t until;
	bool stop;
	unsigned int nr_sent;
	int ret;
};

static void *send_events(void *data)
{
	struct sender *sender = data;

	while (!READ_ONCE(sender->stop)) {
		WRITE_ONCE(sender->ret, gpc_xen_send_event(sender->vcpu));
		WRITE_ONCE(sender->nr_sent, sender->nr_sent + 1);
	}
	return NULL;
}

static void sleep_us(unsigned int us)
{
	struct timespec ts = { .tv_nsec = us * 1000 };

	nanosleep(&ts, NULL);
}

/* Returns the result of an event whose sending began after this call. */
static int await_event(struct sender *sender)
{
	unsigned int nr_sent = READ_ONCE(sender->nr_sent);

	while (READ_ONCE(sender->nr_sent) - nr_sent < 2)
		sleep_us(RACE_US);
	return READ_ONCE(sender->ret);
}

static void set_priority(int policy, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	TEST_ASSERT(!sched_setscheduler(0, policy, &param),
		    __KVM_SYSCALL_ERROR("sched_setscheduler()", -1));
}

static void race_begin(struct sender *sender, struct kvm_vcpu *vcpu, void *hva)
{
	(void)slot_add(vcpu->vm);
	shared_info_on(vcpu->vm, hva);
	/* Fails on a kernel that is always preemptible, or never. */
	(void)gpc_set("/sys/kernel/debug/sched/preempt", "full");

	*sender = (struct sender) { .vcpu = vcpu, .until = gpc_monotonic_ns() + RACES_NS };
	TEST_ASSERT(!pthread_create(&sender->thread, NULL, send_events, sender),
		    "Cannot create a thread");
	set_priority(SCHED_FIFO, 1);
	TEST_ASSERT_EQ(await_event(sender), 0);
}

static void race_end(struct sender *sender)
{
	set_priority(SCHED_OTHER, 0);
	WRITE_ONCE(sender->stop, true);
	TEST_ASSERT(!pthread_join(sender->thread, NULL), "Cannot join a thread");
}

static void map(void *hva, int flags, int fd, off_t offset)
{
	TEST_ASSERT(mmap(hva, PAGE_SIZE, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_POPULATE,
			 fd, offset) == hva, __KVM_SYSCALL_ERROR("mmap()", -1));
}

HVA_TEST(shared_info_no_memslot_mmap_over)
{
	const size_t size = RACE_PAGES * PAGE_SIZE;
	int fd = kvm_memfd_alloc(size, false), i;
	void *alias = gpc_mmap(NULL, size, MAP_SHARED, fd, 0);
	void *hva = gpc_mmap(NULL, PAGE_SIZE, MAP_SHARED, fd, 0);
	struct sender sender;
	size_t old, new;

	GPC_REQUIRE(get_nprocs() > 1, "only one CPU");
	race_begin(&sender, vcpu, hva);
	for (i = 0; i < RACES && gpc_monotonic_ns() < sender.until; i++) {
		old = 2 * i % RACE_PAGES * PAGE_SIZE;
		new = old + PAGE_SIZE;

		/* KVM looks the old page up, perhaps until the new page comes. */
		map(hva, MAP_SHARED, fd, old);
		sleep_us(i % RACE_US);
		map(hva, MAP_SHARED, fd, new);
		memset(alias + old, 0, PAGE_SIZE);
		memset(alias + new, 0, PAGE_SIZE);
		TEST_ASSERT_EQ(await_event(&sender), 0);
		TEST_ASSERT(!gpc_xen_event_pending(alias + old),
			    "Event written to a page that is no longer mapped, race %d", i);
		TEST_ASSERT(gpc_xen_event_pending(alias + new), "Event not delivered");
	}
	race_end(&sender);
}

/* A debug kernel detects that the freed page is written. */
HVA_TEST(shared_info_no_memslot_unmapped)
{
	void *hva = gpc_mmap_anon(NULL);
	struct sender sender;
	int i;

	GPC_REQUIRE(get_nprocs() > 1, "only one CPU");
	race_begin(&sender, vcpu, hva);
	for (i = 0; i < RACES && gpc_monotonic_ns() < sender.until; i++) {
		map(hva, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		sleep_us(i % RACE_US);
		TEST_ASSERT(!munmap(hva, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
		TEST_ASSERT(await_event(&sender) == -EFAULT,
			    "Event written though nothing is mapped, race %d", i);
	}
	race_end(&sender);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);

	return test_harness_run(argc, argv);
}
