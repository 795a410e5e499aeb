// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stolen time (Documentation/virt/kvm/arm/pvtime.rst): KVM maintains the record of a vCPU
 * in whatever memory backs its address, and writes nothing else.
 *
 * KVM updates the record whenever the vCPU is loaded, i.e. on each KVM_RUN. Proof of an
 * update: the time advances with the scheduler's.  Proof that nothing else was written:
 * all other bytes, and all pages that the VMM took away, are filled with POISON and must
 * stay so.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "gpc_rival.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

#define SLOT		10
#define GPA		0x40000000ul	/* the guest maps it 1:1 */
#define PAGES		4
#define SIZE		(PAGES * getpagesize())
#define POISON		0xa5

/* Arm DEN0057A; little-endian, like the host that this test is built for */
#define PV_TIME_FEATURES	0xc5000020
#define PV_TIME_ST		0xc5000021
#define NOT_SUPPORTED		-1

struct stolen_time {
	uint32_t revision;
	uint32_t attributes;
	uint64_t stolen_time;
	uint8_t padding[48];
};

#define RECORD_OFFSET	(getpagesize() + 1024)
#define RECORD		(GPA + RECORD_OFFSET)

/*
 * The guest makes @call and reads the word at @peek, each unless 0.  If @wait is set, the
 * guest first waits for @go.
 */
static struct step {
	bool wait, waits, go;
	uint32_t call;
	uint32_t arg;
	int64_t ret;
	uint64_t peek;
	uint64_t word;
} step;

static void guest(void)
{
	struct arm_smccc_res res;

	for (;;) {
		if (READ_ONCE(step.wait)) {
			WRITE_ONCE(step.waits, true);
			while (!READ_ONCE(step.go))
				;
		}
		if (READ_ONCE(step.call)) {
			smccc_hvc(step.call, step.arg, 0, 0, 0, 0, 0, 0, &res);
			step.ret = res.a0;
		}
		if (READ_ONCE(step.peek))
			step.word = READ_ONCE(*(uint64_t *)step.peek);
		GUEST_SYNC(0);
	}
}

FIXTURE(gpc_pvtime)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_pvtime)
{
	struct kvm_vm *vm = vm_create_with_one_vcpu(&self->vcpu, guest);

	virt_map(vm, GPA, GPA, SIZE / vm->page_size);
}

FIXTURE_TEARDOWN(gpc_pvtime)
{
	kvm_vm_free(self->vcpu->vm);
}

#define PVTIME_TEST(test) KVM_ONE_VCPU_TEST(gpc_pvtime, test, guest)

static void run_to_sync(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) != UCALL_SYNC)
		TEST_FAIL("Unexpected ucall %lu", uc.cmd);
}

static void run_step(struct kvm_vcpu *vcpu, struct step s)
{
	step = s;
	sync_global_to_guest(vcpu->vm, step);
	run_to_sync(vcpu);
	sync_global_from_guest(vcpu->vm, step);
}

static void run(struct kvm_vcpu *vcpu)
{
	run_step(vcpu, (struct step) { });
}

static int64_t call(struct kvm_vcpu *vcpu, uint32_t function, uint32_t arg)
{
	run_step(vcpu, (struct step) { .call = function, .arg = arg });
	return step.ret;
}

static int set_ipa(struct kvm_vcpu *vcpu, uint64_t ipa)
{
	return __vcpu_device_attr_set(vcpu, KVM_ARM_VCPU_PVTIME_CTRL,
				      KVM_ARM_VCPU_PVTIME_IPA, &ipa);
}

#define ASSERT_REFUSED(call, err)					\
do {									\
	int __r = (call);						\
									\
	TEST_ASSERT(__r == -1 && errno == (err),			\
		    #call " returned %d, errno %d, not " #err, __r, errno); \
} while (0)

static void *mmap_anon(void *at, size_t size)
{
	void *mem = mmap(at, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	return memset(mem, POISON, size);
}

static bool is_poison(const void *mem, size_t size)
{
	const uint8_t *p = mem;

	while (size && *p == POISON) {
		p++;
		size--;
	}
	return !size;
}

#define ASSERT_POISON(mem, size) TEST_ASSERT(is_poison(mem, size), "Written to: " #mem)

static void slot(struct kvm_vm *vm, uint32_t flags, void *mem)
{
	vm_set_user_memory_region(vm, SLOT, flags, GPA, SIZE, mem);
}

static void slot_delete(struct kvm_vm *vm)
{
	vm_set_user_memory_region(vm, SLOT, 0, 0, 0, NULL);
}

static struct stolen_time *record_in(void *mem)
{
	return mem + RECORD_OFFSET;
}

/* Add a zeroed slot and let KVM keep the record there. */
static void *record_on(struct kvm_vcpu *vcpu)
{
	void *mem = memset(mmap_anon(NULL, SIZE), 0, SIZE);

	slot(vcpu->vm, 0, mem);
	TEST_ASSERT(!set_ipa(vcpu, RECORD), __KVM_IOCTL_ERROR("KVM_SET_DEVICE_ATTR", -1));
	return mem;
}

/* The record advances by the scheduler's time between two updates, to the nanosecond. */
static void assert_served(struct kvm_vcpu *vcpu, struct stolen_time *st)
{
	uint64_t stolen, low, high, delay;
	pid_t rival = gpc_rival_start();
	int i;

	for (i = 0; i < 5; i++) {
		low = gpc_run_delay();
		run(vcpu);
		high = gpc_run_delay();
		stolen = READ_ONCE(st->stolen_time);
		gpc_lose_cpu();
		delay = gpc_run_delay();
		run(vcpu);
		stolen = READ_ONCE(st->stolen_time) - stolen;
		TEST_ASSERT(stolen >= delay - high && stolen <= gpc_run_delay() - low,
			    "Stolen %lu, scheduler %lu to %lu", stolen,
			    delay - high, gpc_run_delay() - low);
	}

	gpc_rival_end(rival);
}

PVTIME_TEST(run_delay)
{
	assert_served(vcpu, record_in(record_on(vcpu)));
}

PVTIME_TEST(nothing_else_written)
{
	void *mem = record_on(vcpu);
	struct stolen_time *st = record_in(mem);

	run(vcpu);
	memset(mem, POISON, SIZE);
	run(vcpu);

	/* KVM adds to the time that it finds, because a VMM may have restored it. */
	TEST_ASSERT(st->stolen_time - 0xa5a5a5a5a5a5a5a5 <= gpc_run_delay(), "Stolen %lx",
		    st->stolen_time);
	ASSERT_POISON(mem, RECORD_OFFSET + 8);
	ASSERT_POISON(st->padding, SIZE - RECORD_OFFSET - 16);
}

PVTIME_TEST(counts_from_call)
{
	void *mem = record_on(vcpu);
	struct stolen_time *st = record_in(mem);
	uint64_t before;

	memset(mem, POISON, SIZE);
	before = gpc_run_delay();
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), RECORD);
	TEST_ASSERT_EQ(st->revision, 0);
	TEST_ASSERT_EQ(st->attributes, 0);
	TEST_ASSERT(st->stolen_time <= gpc_run_delay() - before, "Stolen %lu, scheduler %lu",
		    st->stolen_time, gpc_run_delay() - before);
	ASSERT_POISON(mem, RECORD_OFFSET);
	ASSERT_POISON(st + 1, SIZE - RECORD_OFFSET - sizeof(*st));
	memset(mem, 0, sizeof(*st));
	TEST_ASSERT(!memcmp(st->padding, mem, sizeof(st->padding)), "The padding is not zero");

	/* The guest sees what the VMM sees. */
	run_step(vcpu, (struct step) { .peek = RECORD + 8 });
	TEST_ASSERT_EQ(step.word, st->stolen_time);
	assert_served(vcpu, st);
}

PVTIME_TEST(discovery)
{
	run(vcpu);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_FEATURES, PV_TIME_FEATURES), NOT_SUPPORTED);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_FEATURES, PV_TIME_ST), NOT_SUPPORTED);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), NOT_SUPPORTED);

	record_on(vcpu);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_FEATURES, PV_TIME_FEATURES), 0);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_FEATURES, PV_TIME_ST), 0);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_FEATURES, PV_TIME_ST + 1), NOT_SUPPORTED);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), RECORD);
}

PVTIME_TEST(bad_addresses)
{
	uint64_t ipa;
	void *mem = mmap_anon(NULL, SIZE);

	ASSERT_REFUSED(set_ipa(vcpu, RECORD), EINVAL);		/* no memslot */
	slot(vcpu->vm, KVM_MEM_READONLY, mem);
	ASSERT_REFUSED(set_ipa(vcpu, RECORD), EINVAL);		/* read-only memslot */
	slot_delete(vcpu->vm);
	slot(vcpu->vm, 0, mem);

	ASSERT_REFUSED(set_ipa(vcpu, RECORD | 1), EINVAL);
	ASSERT_REFUSED(set_ipa(vcpu, RECORD | 32), EINVAL);
	ASSERT_REFUSED(set_ipa(vcpu, -1), EINVAL);
	ASSERT_REFUSED(__vcpu_device_attr_set(vcpu, KVM_ARM_VCPU_PVTIME_CTRL,
					      KVM_ARM_VCPU_PVTIME_IPA, NULL), EFAULT);
	ASSERT_REFUSED(__vcpu_device_attr_set(vcpu, KVM_ARM_VCPU_PVTIME_CTRL,
					      KVM_ARM_VCPU_PVTIME_IPA + 1, &ipa), ENXIO);
	vcpu_device_attr_get(vcpu, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, &ipa);
	TEST_ASSERT_EQ(ipa, -1);
	run(vcpu);
	ASSERT_POISON(mem, SIZE);

	TEST_ASSERT(!set_ipa(vcpu, RECORD), __KVM_IOCTL_ERROR("KVM_SET_DEVICE_ATTR", -1));
	ASSERT_REFUSED(set_ipa(vcpu, RECORD), EEXIST);
	ASSERT_REFUSED(set_ipa(vcpu, RECORD + 64), EEXIST);
	vcpu_device_attr_get(vcpu, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, &ipa);
	TEST_ASSERT_EQ(ipa, RECORD);
	vcpu_has_device_attr(vcpu, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA);
}

PVTIME_TEST(mmap_over)
{
	void *mem = record_on(vcpu), *page = mem + getpagesize(), *away;
	struct stolen_time *st = record_in(mem);

	run(vcpu);

	/* Free the page: the record starts from zero. */
	TEST_ASSERT(!madvise(page, getpagesize(), MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise()", -1));
	assert_served(vcpu, st);

	/* Move the page away, poison it, and map another page in its place. */
	away = mremap(page, getpagesize(), getpagesize(), MREMAP_MAYMOVE | MREMAP_FIXED,
		      mmap_anon(NULL, getpagesize()));
	TEST_ASSERT(away != MAP_FAILED, __KVM_SYSCALL_ERROR("mremap()", -1));
	memset(away, POISON, getpagesize());
	mmap_anon(page, getpagesize());
	assert_served(vcpu, st);
	ASSERT_POISON(away, getpagesize());

	/* Make the page read-only for a while. */
	TEST_ASSERT(!mprotect(page, getpagesize(), PROT_READ), "mprotect");
	away = memcpy(mmap_anon(NULL, getpagesize()), page, getpagesize());
	run(vcpu);
	TEST_ASSERT(!memcmp(away, page, getpagesize()), "Written to a read-only page");
	TEST_ASSERT(!mprotect(page, getpagesize(), PROT_READ | PROT_WRITE), "mprotect");
	assert_served(vcpu, st);

	/* Unmap the page for a while. */
	TEST_ASSERT(!munmap(page, getpagesize()), "munmap");
	run(vcpu);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), RECORD);
	mmap_anon(page, getpagesize());
	assert_served(vcpu, st);
}

PVTIME_TEST(follows_its_memslot)
{
	void *mem = record_on(vcpu), *old = mem;

	run(vcpu);
	slot_delete(vcpu->vm);
	memset(old, POISON, SIZE);
	run(vcpu);
	ASSERT_POISON(old, SIZE);

	/* Replace the memory, like a VMM that moves it. */
	mem = mmap_anon(NULL, SIZE);
	slot(vcpu->vm, 0, mem);
	assert_served(vcpu, record_in(mem));
	ASSERT_POISON(old, SIZE);

	/* Move the slot by a page: another page of its memory now backs the record. */
	memset(mem, POISON, SIZE);
	vm_set_user_memory_region(vcpu->vm, SLOT, 0, GPA + getpagesize(), SIZE, mem);
	assert_served(vcpu, record_in(mem - getpagesize()));
	ASSERT_POISON(record_in(mem), sizeof(struct stolen_time));
}

PVTIME_TEST(dirty_log)
{
	unsigned long dirty = 0;
	void *mem = record_on(vcpu);

	run(vcpu);
	slot(vcpu->vm, KVM_MEM_LOG_DIRTY_PAGES, mem);
	run(vcpu);
	kvm_vm_get_dirty_log(vcpu->vm, SLOT, &dirty);
	TEST_ASSERT_EQ(dirty, 1ul << (RECORD_OFFSET / getpagesize()));

	kvm_vm_get_dirty_log(vcpu->vm, SLOT, &dirty);
	TEST_ASSERT_EQ(dirty, 0);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), RECORD);
	kvm_vm_get_dirty_log(vcpu->vm, SLOT, &dirty);
	TEST_ASSERT_EQ(dirty, 1ul << (RECORD_OFFSET / getpagesize()));
}

/* The record's address survives a reset of the vCPU by the VMM. */
PVTIME_TEST(outlives_a_reset)
{
	void *mem = record_on(vcpu);
	uint64_t sp;

	run(vcpu);
	TEST_ASSERT_EQ(__vcpu_get_reg(vcpu, ARM64_CORE_REG(sp_el1), &sp), 0);
	aarch64_vcpu_setup(vcpu, NULL);
	vcpu_set_reg(vcpu, ARM64_CORE_REG(sp_el1), sp);
	vcpu_arch_set_entry_point(vcpu, guest);
	memset(mem, 0, SIZE);
	assert_served(vcpu, record_in(mem));
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), RECORD);
}

/*
 * The flash of QEMU's virt machine, two 16-bit chips side by side: hw/arm/virt.c.  After
 * FLASH_READ_STATUS, reads return the status until the next command: Intel's basic
 * command set.
 */
#define FLASH_PA		0x04000000ul
#define FLASH_READ_STATUS	0x00700070
#define FLASH_READ_ARRAY	0x00ff00ff
#define FLASH_STATUS_READY	0x00800080

PVTIME_TEST(device)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC);
	uint32_t *flash;
	void *mem;

	TEST_REQUIRE(!access("/sys/firmware/devicetree/base/flash@0", F_OK));
	TEST_ASSERT(fd >= 0, "Cannot open /dev/mem");
	flash = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, FLASH_PA);
	TEST_ASSERT(flash != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap() of /dev/mem", -1));

	WRITE_ONCE(*flash, FLASH_READ_STATUS);
	slot(vcpu->vm, 0, flash);
	TEST_ASSERT(!set_ipa(vcpu, RECORD), __KVM_IOCTL_ERROR("KVM_SET_DEVICE_ATTR", -1));
	run(vcpu);
	TEST_ASSERT_EQ(READ_ONCE(*flash), FLASH_STATUS_READY);
	TEST_ASSERT_EQ(call(vcpu, PV_TIME_ST, 0), RECORD);
	TEST_ASSERT_EQ(READ_ONCE(*flash), FLASH_STATUS_READY);
	WRITE_ONCE(*flash, FLASH_READ_ARRAY);

	/* KVM maintains the record once the slot has memory. */
	slot_delete(vcpu->vm);
	mem = mmap_anon(NULL, SIZE);
	slot(vcpu->vm, 0, mem);
	assert_served(vcpu, record_in(mem));
}

/*
 * A page of the record that userfaultfd has not supplied yet
 */

static void on_signal(int sig)
{
}

static int page_missing(void *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)page, getpagesize() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct sigaction action = { .sa_handler = on_signal };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);

	TEST_ASSERT(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api) &&
		    !ioctl(uffd, UFFDIO_REGISTER, &reg), "Cannot use userfaultfd");
	sigaction(SIGUSR1, &action, NULL);
	return uffd;
}

static void page_drop(void *page)
{
	TEST_ASSERT(!madvise(page, getpagesize(), MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise()", -1));
}

static void page_await_fault(int uffd)
{
	struct uffd_msg msg;

	TEST_ASSERT(read(uffd, &msg, sizeof(msg)) == sizeof(msg) &&
		    msg.event == UFFD_EVENT_PAGEFAULT, "No fault");
}

static void page_supply(int uffd, void *page)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)page,
		.src = (uintptr_t)mmap_anon(NULL, getpagesize()),
		.len = getpagesize(),
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_COPY, &copy), "Cannot supply the page");
	close(uffd);
}

static void *run_until_signal(void *vcpu)
{
	if (__vcpu_run(vcpu) != -1 || errno != EINTR)
		TEST_FAIL("Not interrupted");
	return NULL;
}

PVTIME_TEST(signal_while_waiting)
{
	void *mem = record_on(vcpu), *page = mem + getpagesize();
	int i, uffd = page_missing(page);
	pthread_t thread;

	run(vcpu);
	page_drop(page);
	for (i = 0; i < 3; i++) {
		pthread_create(&thread, NULL, run_until_signal, vcpu);
		page_await_fault(uffd);
		pthread_kill(thread, SIGUSR1);
		pthread_join(thread, NULL);
	}
	page_supply(uffd, page);
	assert_served(vcpu, record_in(mem));
}

struct interrupt {
	pthread_t runner;
	int uffd;
};

static void *interrupt_fault(void *arg)
{
	struct interrupt *interrupt = arg;

	page_await_fault(interrupt->uffd);
	pthread_kill(interrupt->runner, SIGUSR1);
	return NULL;
}

/* If a signal ends KVM_RUN, the next KVM_RUN records the time that was stolen before. */
PVTIME_TEST(signal)
{
	void *mem = record_on(vcpu), *page = mem + getpagesize();
	struct interrupt interrupt = { pthread_self(), page_missing(page) };
	uint64_t low, high, before, stolen;
	pid_t rival = gpc_rival_start();
	pthread_t thread;

	low = gpc_run_delay();
	run(vcpu);
	high = gpc_run_delay();
	gpc_lose_cpu();

	page_drop(page);
	pthread_create(&thread, NULL, interrupt_fault, &interrupt);
	run_until_signal(vcpu);
	pthread_join(thread, NULL);
	gpc_rival_end(rival);

	page_supply(interrupt.uffd, page);
	before = gpc_run_delay();
	run(vcpu);
	stolen = record_in(mem)->stolen_time - 0xa5a5a5a5a5a5a5a5;
	TEST_ASSERT(stolen >= before - high && stolen <= gpc_run_delay() - low,
		    "Stolen %lu, scheduler %lu to %lu", stolen, before - high,
		    gpc_run_delay() - low);
}

PVTIME_TEST(signal_in_call)
{
	struct step *shared = addr_gva2hva(vcpu->vm, (uintptr_t)&step);
	void *mem = record_on(vcpu), *page = mem + getpagesize();
	struct stolen_time *st = record_in(mem);
	int uffd = page_missing(page);
	pthread_t thread;

	run(vcpu);
	step = (struct step) { .call = PV_TIME_ST, .wait = true };
	sync_global_to_guest(vcpu->vm, step);
	pthread_create(&thread, NULL, run_until_signal, vcpu);
	while (!READ_ONCE(shared->waits))
		;
	page_drop(page);
	WRITE_ONCE(shared->go, true);
	page_await_fault(uffd);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);

	page_supply(uffd, page);
	run_to_sync(vcpu);
	TEST_ASSERT_EQ(shared->ret, RECORD);
	TEST_ASSERT_EQ(st->revision, 0);
	TEST_ASSERT_EQ(st->attributes, 0);
	assert_served(vcpu, st);
}

struct setting {
	struct kvm_vcpu *vcpu;
	int ret;
	bool done;
};

static void *set_record(void *arg)
{
	struct setting *setting = arg;

	setting->ret = set_ipa(setting->vcpu, RECORD);
	WRITE_ONCE(setting->done, true);
	return NULL;
}

/* A VMM may supply the page only after it has set the attribute, which must not wait. */
PVTIME_TEST(restore_address)
{
	void *mem = mmap_anon(NULL, SIZE), *page = mem + getpagesize();
	struct setting setting = { .vcpu = vcpu };
	struct pollfd fault = { .fd = page_missing(page), .events = POLLIN };
	pthread_t thread;
	int faults;

	slot(vcpu->vm, 0, mem);
	page_drop(page);
	/* poll() requires a non-blocking userfaultfd. */
	TEST_ASSERT(!fcntl(fault.fd, F_SETFL, O_NONBLOCK), __KVM_SYSCALL_ERROR("fcntl()", -1));
	pthread_create(&thread, NULL, set_record, &setting);
	do {
		faults = poll(&fault, 1, 1);
		TEST_ASSERT(!faults, "KVM_SET_DEVICE_ATTR waits for the page");
	} while (!READ_ONCE(setting.done));
	pthread_join(thread, NULL);
	TEST_ASSERT_EQ(setting.ret, 0);

	page_supply(fault.fd, page);
	assert_served(vcpu, record_in(mem));
}

int main(int argc, char **argv)
{
	return test_harness_run(argc, argv);
}
