// SPDX-License-Identifier: GPL-2.0-only
/*
 * Caches whose page has a memory error: KVM has no such page any more, returns an errno
 * where it can, and raises no signal of its own.  KVM uses the page that the VMM puts in
 * its place.
 *
 * Each case costs the machine a page until the next boot.
 */
#include <signal.h>

#include "gpc_harness.h"

#include <linux/falloc.h>

FIXTURE(gpc_poison)
{
	struct kvm_vcpu *vcpu;
};

/* The VMM gets a signal for an error in memory that it maps, and continues. */
static sig_atomic_t nr_errors;
static void *error_hva;

static void memory_error(int sig, siginfo_t *info, void *context)
{
	if (info->si_code != BUS_MCEERR_AR && info->si_code != BUS_MCEERR_AO)
		_exit(KSFT_FAIL);
	nr_errors++;
	error_hva = info->si_addr;
}

FIXTURE_SETUP(gpc_poison)
{
	struct sigaction action = { .sa_sigaction = memory_error, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &action, NULL);
	self->vcpu = gpc_create(_metadata);
}

/* KVM raises no signal for what it finds itself. */
FIXTURE_TEARDOWN(gpc_poison)
{
	TEST_ASSERT_EQ(nr_errors, 1);
	gpc_free(self->vcpu);
}

#define POISON_TEST(test) KVM_ONE_VCPU_TEST(gpc_poison, test, gpc_guest)

static void *slot_add(struct kvm_vm *vm, void *mem)
{
	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	return mem + (GPC_CLOCK - GPC_GPA);
}

static void clock_on(struct kvm_vcpu *vcpu)
{
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
}

/* Inject an error into the page frame, like hardware.  It affects all users. */
static void strike(void *page)
{
	int r;

	r = madvise(page, PAGE_SIZE, MADV_HWPOISON);
	GPC_REQUIRE(!r || (errno != EINVAL && errno != EPERM),
		    "no MADV_HWPOISON, or not allowed: %s; CONFIG_MEMORY_FAILURE?",
		    strerror(errno));
	TEST_ASSERT(!r, __KVM_SYSCALL_ERROR("madvise(MADV_HWPOISON)", r));
	TEST_ASSERT(nr_errors == 1 && error_hva == page, "%d errors, the last one at %p, not %p",
		    nr_errors, error_hva, page);
}

static void assert_clock(struct kvm_vcpu *vcpu, uint64_t gpa, void *page)
{
	gpc_assert_served(vcpu, gpa);
	gpc_assert_served_in(vcpu, gpa, page);
}

/* Lose the clock's page to an error at @hit, and let KVM handle the loss. */
static void lose_clock(struct kvm_vcpu *vcpu, void *page, void *hit)
{
	clock_on(vcpu);
	assert_clock(vcpu, GPC_CLOCK, page);
	strike(hit);
	gpc_update(vcpu);
}

POISON_TEST(mmap_over)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	lose_clock(vcpu, page, page);

	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	GPC_ASSERT_POISON(page, PAGE_SIZE);
	assert_clock(vcpu, GPC_CLOCK, page);
}

POISON_TEST(madvise_dontneed)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	lose_clock(vcpu, page, page);

	gpc_drop(page);
	assert_clock(vcpu, GPC_CLOCK, page);
}

/* Shared memory keeps the bad page, and fails, until a hole is punched. */
POISON_TEST(punch_hole)
{
	int fd = kvm_memfd_alloc(GPC_SIZE, false);
	void *mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *page = slot_add(vcpu->vm, mem);

	lose_clock(vcpu, page, page);

	gpc_drop(page);
	gpc_update(vcpu);

	TEST_ASSERT(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       page - mem, PAGE_SIZE), __KVM_SYSCALL_ERROR("fallocate()", -1));
	assert_clock(vcpu, GPC_CLOCK, page);
}

/* A huge page loses one small page, and is split. */
POISON_TEST(within_thp)
{
	void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE), *page = mem + (GPC_CLOCK - GPC_GPA);

	gpc_make_huge(mem);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_HUGE_SIZE, mem);
	lose_clock(vcpu, page, page);

	gpc_drop(page);
	assert_clock(vcpu, GPC_CLOCK, page);
	GPC_ASSERT_POISON(mem, page - mem);
	GPC_ASSERT_POISON(page + PAGE_SIZE, mem + GPC_HUGE_SIZE - page - PAGE_SIZE);
}

/*
 * A hugetlb page is lost as a whole, whichever small page has the error.  Here it is the
 * first one.  For the others, a kernel without THP signals nobody, because its
 * page_to_pgoff() does not recognize a tail page.
 */
POISON_TEST(hugetlb_replaced)
{
	void *mem, *page;

	gpc_hugetlb_pool("2");
	mem = gpc_mmap_hugetlb(GPC_HUGE_SIZE);
	page = mem + (GPC_CLOCK - GPC_GPA);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_HUGE_SIZE, mem);
	lose_clock(vcpu, page, mem);

	TEST_ASSERT(!madvise(mem, GPC_HUGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
	assert_clock(vcpu, GPC_CLOCK, page);
}

POISON_TEST(clock_moved)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	lose_clock(vcpu, page, page);

	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, (GPC_CLOCK + PAGE_SIZE) | KVM_MSR_ENABLED);
	assert_clock(vcpu, GPC_CLOCK + PAGE_SIZE, page + PAGE_SIZE);
}

/* An MSR write succeeds at any address of the clock. */
POISON_TEST(clock_on)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	strike(page);
	clock_on(vcpu);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW), GPC_CLOCK | KVM_MSR_ENABLED);
	gpc_update(vcpu);

	gpc_drop(page);
	assert_clock(vcpu, GPC_CLOCK, page);
}

POISON_TEST(vcpu_info)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	gpc_xen_on(vcpu->vm);
	strike(page);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), -EFAULT);
	gpc_update(vcpu);

	gpc_drop(page);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), 0);
	assert_clock(vcpu, GPC_CLOCK + GPC_XEN_VCPU_INFO_TIME, page);
}

POISON_TEST(vcpu_info_madvise_dontneed)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	gpc_xen_on(vcpu->vm);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), 0);
	assert_clock(vcpu, GPC_CLOCK + GPC_XEN_VCPU_INFO_TIME, page);
	strike(page);
	gpc_update(vcpu);

	gpc_drop(page);
	assert_clock(vcpu, GPC_CLOCK + GPC_XEN_VCPU_INFO_TIME, page);
}

POISON_TEST(event)
{
	void *page = slot_add(vcpu->vm, gpc_mmap_anon(NULL));

	gpc_xen_on(vcpu->vm);
	memset(page, 0, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, GPC_CLOCK), 0);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), 0);
	TEST_ASSERT(gpc_xen_event_pending(page), "Event not delivered");

	strike(page);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), -EFAULT);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, GPC_CLOCK), -EFAULT);

	gpc_drop(page);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), 0);
	TEST_ASSERT(gpc_xen_event_pending(page), "Event not delivered");
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XEN_HVM));

	return test_harness_run(argc, argv);
}
