// SPDX-License-Identifier: GPL-2.0-only
/*
 * kvmclock when the memory behind it changes at the VMM's own address: the guest reads
 * the clock in the current page, and KVM does not touch the previous page.
 */
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "gpc_harness.h"

#include <linux/falloc.h>
#include <linux/mempolicy.h>

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif

#define KSM		"/sys/kernel/mm/ksm/"

FIXTURE(gpc_clock)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_clock)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_clock)
{
	gpc_free(self->vcpu);
}

#define CLOCK_TEST(test) KVM_ONE_VCPU_TEST(gpc_clock, test, gpc_guest)

static void *clock_on_anon(struct kvm_vcpu *vcpu)
{
	return gpc_clock_on(vcpu, gpc_mmap_anon(NULL), GPC_SIZE);
}

/* KVM finds the current page by itself, and again after the VMM has touched it. */
static void assert_follows(struct kvm_vcpu *vcpu, void *page)
{
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
}

CLOCK_TEST(madvise_dontneed)
{
	void *page = clock_on_anon(vcpu), *hoard;

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
	hoard = gpc_hoard();

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

CLOCK_TEST(mmap_over)
{
	void *page = clock_on_anon(vcpu), *hoard;

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(mmap(page, PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page,
		    __KVM_SYSCALL_ERROR("mmap()", -1));
	hoard = gpc_hoard();

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

/* The page lives on at another address, which is not guest memory. */
CLOCK_TEST(mremap_away)
{
	void *page = clock_on_anon(vcpu), *moved;

	memset(page, GPC_POISON, PAGE_SIZE);
	moved = mremap(page, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       gpc_mmap_anon(NULL));
	TEST_ASSERT(moved != MAP_FAILED, __KVM_SYSCALL_ERROR("mremap()", -1));
	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(moved, PAGE_SIZE);
}

CLOCK_TEST(mremap_over)
{
	void *page = clock_on_anon(vcpu), *hoard;

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(mremap(gpc_mmap_anon(NULL), PAGE_SIZE, PAGE_SIZE,
			   MREMAP_MAYMOVE | MREMAP_FIXED, page) == page,
		    __KVM_SYSCALL_ERROR("mremap()", -1));
	hoard = gpc_hoard();

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

CLOCK_TEST(mprotect)
{
	const int prots[] = { PROT_NONE, PROT_READ };
	void *page = clock_on_anon(vcpu);
	int i;

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		memset(page, GPC_POISON, PAGE_SIZE);
		TEST_ASSERT(!mprotect(page, PAGE_SIZE, prots[i]),
			    __KVM_SYSCALL_ERROR("mprotect()", -1));
		gpc_update(vcpu);

		TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE),
			    __KVM_SYSCALL_ERROR("mprotect()", -1));
		GPC_ASSERT_POISON(page, PAGE_SIZE);
		assert_follows(vcpu, page);
	}
}

CLOCK_TEST(mprotect_and_back)
{
	void *page = clock_on_anon(vcpu);

	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_NONE) &&
		    !mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE),
		    __KVM_SYSCALL_ERROR("mprotect()", -1));
	assert_follows(vcpu, page);
}

/* The child keeps the old page; the guest gets a copy. */
CLOCK_TEST(copy_on_write)
{
	void *page = clock_on_anon(vcpu);
	int pipefd[2], status;
	char c;
	pid_t pid;

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(!pipe(pipefd), __KVM_SYSCALL_ERROR("pipe()", -1));
	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork()", pid));
	if (!pid) {
		close(pipefd[1]);
		_exit(read(pipefd[0], &c, 1) || !gpc_is_poison(page, PAGE_SIZE));
	}

	gpc_assert_served(vcpu, GPC_CLOCK);
	close(pipefd[1]);
	TEST_ASSERT(waitpid(pid, &status, 0) == pid && WIFEXITED(status),
		    "Lost the child");
	TEST_ASSERT(!WEXITSTATUS(status), "Written to: the child's page");
	assert_follows(vcpu, page);
}

/* Migrate to another node if there is one, else soft-offline the page. */
static void migrate(void *page)
{
	int node, here, i, r, status = -1;

	TEST_ASSERT(!syscall(__NR_move_pages, 0, 1ul, &page, NULL, &here, 0),
		    __KVM_SYSCALL_ERROR("move_pages()", -1));
	for (node = 0; node < 8 && status < 0; node++) {
		if (node == here)
			continue;
		for (i = 0; i < 10 && status != node; i++)
			if (syscall(__NR_move_pages, 0, 1ul, &page, &node, &status, MPOL_MF_MOVE))
				break;
	}
	if (status >= 0)
		return;

	r = madvise(page, PAGE_SIZE, MADV_SOFT_OFFLINE);
	GPC_REQUIRE(!r || (errno != EINVAL && errno != EPERM),
		    "one NUMA node, and no MADV_SOFT_OFFLINE: %s", strerror(errno));
	TEST_ASSERT(!r, __KVM_SYSCALL_ERROR("madvise(MADV_SOFT_OFFLINE)", r));
}

CLOCK_TEST(page_migration)
{
	void *page = clock_on_anon(vcpu), *hoard;
	uint64_t pfn = gpc_pfn(page);

	memset(page, GPC_POISON, PAGE_SIZE);
	migrate(page);
	TEST_ASSERT(gpc_pfn(page) && gpc_pfn(page) != pfn, "Page did not migrate");
	hoard = gpc_hoard();

	GPC_ASSERT_POISON(page, PAGE_SIZE);
	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

/* Have ksmd merge two pages of poison. */
static void *ksm_merge(void *page)
{
	void *twin = gpc_mmap(NULL, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i;

	memset(page, GPC_POISON, PAGE_SIZE);
	GPC_REQUIRE(!madvise(page, PAGE_SIZE, MADV_MERGEABLE) &&
		    !madvise(twin, PAGE_SIZE, MADV_MERGEABLE),
		    "kernel without KSM");
	GPC_REQUIRE(gpc_set(KSM "sleep_millisecs", "1") &&
		    gpc_set(KSM "pages_to_scan", "1000") &&
		    gpc_set(KSM "run", "1"), "cannot start ksmd");

	for (i = 0; i < 5000 && gpc_pfn(page) != gpc_pfn(twin); i++)
		usleep(1000);
	TEST_ASSERT(gpc_pfn(page) && gpc_pfn(page) == gpc_pfn(twin), "Pages were not merged");
	return twin;
}

CLOCK_TEST(ksm_merge)
{
	void *page = clock_on_anon(vcpu), *twin = ksm_merge(page);

	/* Do not merge the pages again before the check. */
	gpc_write_file(KSM "run", "0");
	gpc_assert_served(vcpu, GPC_CLOCK);
	TEST_ASSERT(gpc_pfn(page) != gpc_pfn(twin), "Page is still merged");
	GPC_ASSERT_POISON(twin, PAGE_SIZE);

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(twin, PAGE_SIZE);
}

CLOCK_TEST(ksm_unmerge)
{
	void *page = clock_on_anon(vcpu), *twin = ksm_merge(page);

	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_UNMERGEABLE),
		    __KVM_SYSCALL_ERROR("madvise(MADV_UNMERGEABLE)", -1));
	TEST_ASSERT(gpc_pfn(page) != gpc_pfn(twin), "Page is still merged");

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(twin, PAGE_SIZE);
}

CLOCK_TEST(thp_collapse)
{
	void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE), *page, *hoard;

	page = gpc_clock_on(vcpu, mem, GPC_HUGE_SIZE);
	memset(page, GPC_POISON, PAGE_SIZE);
	gpc_make_huge(mem);
	hoard = gpc_hoard();

	GPC_ASSERT_POISON(page, PAGE_SIZE);
	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

/* A neighbour becomes read-only: the huge mapping is split, the page stays. */
CLOCK_TEST(thp_mapping_split)
{
	void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE), *page;

	gpc_make_huge(mem);
	page = gpc_clock_on(vcpu, mem, GPC_HUGE_SIZE);
	TEST_ASSERT(!mprotect(mem + GPC_HUGE_SIZE / 2, PAGE_SIZE, PROT_READ),
		    __KVM_SYSCALL_ERROR("mprotect()", -1));
	assert_follows(vcpu, page);
}

/* Only the clock's page is dropped from the huge page. */
CLOCK_TEST(madvise_dontneed_thp)
{
	void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE), *page;
	uint64_t pfn;

	gpc_make_huge(mem);
	page = gpc_clock_on(vcpu, mem, GPC_HUGE_SIZE);
	pfn = gpc_pfn(page);
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));

	assert_follows(vcpu, page);
	TEST_ASSERT(gpc_pfn(page) != pfn, "Page was not cut out");
	GPC_ASSERT_POISON(page + PAGE_SIZE, GPC_HUGE_SIZE - (page + PAGE_SIZE - mem));
}

CLOCK_TEST(thp_split)
{
	char dir[] = "/tmp/gpc.XXXXXX", range[64], path[64];
	void *mem = gpc_mmap_aligned(GPC_HUGE_SIZE), *page;
	bool split;

	gpc_make_huge(mem);
	page = gpc_clock_on(vcpu, mem, GPC_HUGE_SIZE);

	/* Documentation/admin-guide/mm/transhuge.rst names only this way. */
	GPC_REQUIRE(mkdtemp(dir), "no folder under /tmp for debugfs");
	snprintf(path, sizeof(path), "%s/split_huge_pages", dir);
	snprintf(range, sizeof(range), "%d,0x%lx,0x%lx", getpid(), (uintptr_t)mem,
		 (uintptr_t)mem + GPC_HUGE_SIZE);
	split = !mount("none", dir, "debugfs", 0, NULL) && gpc_write_file(path, range);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	GPC_REQUIRE(split, "no split_huge_pages in debugfs");
	TEST_ASSERT(!gpc_is_thp(page), "Huge page was not split");

	assert_follows(vcpu, page);
}

/*
 * One huge page goes back to the pool and from there to another mapping.  The slot gets
 * the second huge page.
 */
CLOCK_TEST(hugetlb_replaced)
{
	void *mem, *other, *page;
	uint64_t pfn;

	gpc_hugetlb_pool("2");
	mem = gpc_mmap_hugetlb(GPC_HUGE_SIZE);
	other = gpc_mmap_hugetlb(GPC_HUGE_SIZE);
	TEST_ASSERT(!madvise(other, GPC_HUGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));

	page = gpc_clock_on(vcpu, mem, GPC_HUGE_SIZE);
	pfn = gpc_pfn(mem);

	TEST_ASSERT(!madvise(mem, GPC_HUGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
	memset(other, GPC_POISON, GPC_HUGE_SIZE);
	TEST_ASSERT(gpc_pfn(other) == pfn, "The pool did not hand out the last page freed");

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(other, GPC_HUGE_SIZE);

	/* Free both pages, so that the pool can shrink again. */
	gpc_slot_delete(vcpu->vm);
	munmap(mem, GPC_HUGE_SIZE);
	munmap(other, GPC_HUGE_SIZE);
}

CLOCK_TEST(punch_hole)
{
	int fd = kvm_memfd_alloc(GPC_SIZE, false);
	void *alias = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *page = gpc_clock_on(vcpu, mem, GPC_SIZE), *hoard;

	memset(page, GPC_POISON, PAGE_SIZE);
	TEST_ASSERT(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       page - mem, PAGE_SIZE),
		    __KVM_SYSCALL_ERROR("fallocate()", -1));
	hoard = gpc_hoard();

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
	TEST_ASSERT(!memcmp(mem, alias, GPC_SIZE), "The file differs from the guest's memory");
}

/* The file keeps the old page. */
CLOCK_TEST(memfd_other_offset)
{
	int fd = kvm_memfd_alloc(2 * GPC_SIZE, false);
	void *alias = gpc_mmap(NULL, 2 * GPC_SIZE, MAP_SHARED, fd, 0);
	void *mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *page = gpc_clock_on(vcpu, mem, GPC_SIZE);

	memset(page, GPC_POISON, PAGE_SIZE);
	gpc_mmap(mem, GPC_SIZE, MAP_SHARED, fd, GPC_SIZE);

	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(alias, GPC_SIZE);
	TEST_ASSERT(!memcmp(mem, alias + GPC_SIZE, GPC_SIZE),
		    "The file differs from the guest's memory");
}

static bool have_swap(void)
{
	char buf[512] = {};
	char *eol;
	int fd;

	fd = open("/proc/swaps", O_RDONLY);
	if (fd < 0)
		return false;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = '\0';
	close(fd);
	eol = strchr(buf, '\n');
	return eol && eol[1];
}

static void swap_out(void *page)
{
	int i;

	GPC_REQUIRE(have_swap(), "no swap in use");
	for (i = 0; i < 1000 && !(gpc_pagemap(page) & GPC_PAGEMAP_SWAPPED); i++) {
		TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_PAGEOUT),
			    __KVM_SYSCALL_ERROR("madvise(MADV_PAGEOUT)", -1));
		usleep(1000);
	}
	TEST_ASSERT(gpc_pagemap(page) & GPC_PAGEMAP_SWAPPED, "Page was not swapped out");
}

CLOCK_TEST(swap_out)
{
	void *page = clock_on_anon(vcpu), *hoard;

	memset(page, GPC_POISON, PAGE_SIZE);
	swap_out(page);
	hoard = gpc_hoard();

	gpc_assert_served(vcpu, GPC_CLOCK);
	GPC_ASSERT_POISON(page + GPC_CLOCK_SIZE, PAGE_SIZE - GPC_CLOCK_SIZE);
	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(hoard, GPC_HOARD_SIZE);
}

/*
 * A read brings the page in clean, with its copy in swap still valid, and mapped
 * writable.  KVM gets the page without a fault, and what KVM writes must not be lost.
 */
CLOCK_TEST(swap_out_read_in)
{
	void *page = clock_on_anon(vcpu);

	memset(page, GPC_POISON, PAGE_SIZE);
	swap_out(page);
	GPC_ASSERT_POISON(page, PAGE_SIZE);

	gpc_update(vcpu);
	swap_out(page);
	TEST_ASSERT(!gpc_is_poison(page, GPC_CLOCK_SIZE),
		    "The clock that KVM wrote was lost with the page");
	GPC_ASSERT_POISON(page + GPC_CLOCK_SIZE, PAGE_SIZE - GPC_CLOCK_SIZE);
}

/*
 * Flags
 */

CLOCK_TEST(guest_stopped)
{
	struct pvclock_vcpu_time_info *clock = clock_on_anon(vcpu);

	TEST_ASSERT(!(clock->flags & PVCLOCK_GUEST_STOPPED), "Stopped without KVM_KVMCLOCK_CTRL");

	/* The flag also appears in a new page. */
	vcpu_ioctl(vcpu, KVM_KVMCLOCK_CTRL, NULL);
	gpc_drop(clock);
	gpc_update(vcpu);
	TEST_ASSERT(clock->flags & PVCLOCK_GUEST_STOPPED, "KVM did not set the flag");
	gpc_update(vcpu);
	TEST_ASSERT(clock->flags & PVCLOCK_GUEST_STOPPED, "KVM cleared the flag");

	clock->flags &= ~PVCLOCK_GUEST_STOPPED;
	gpc_update(vcpu);
	TEST_ASSERT(!(clock->flags & PVCLOCK_GUEST_STOPPED), "KVM set the flag again");
}

/* Returns the flags of a Xen guest's clock with these flags of the VM. */
static uint8_t xen_flags(struct kvm_vcpu *vcpu, struct pvclock_vcpu_time_info *clock,
			 uint32_t vm_flags)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | vm_flags,
		.msr = GPC_XEN_MSR,
	};

	vm_ioctl(vcpu->vm, KVM_XEN_HVM_CONFIG, &config);
	gpc_update(vcpu);
	return clock->flags;
}

CLOCK_TEST(xen_tsc_unstable)
{
	struct pvclock_vcpu_time_info *clock = clock_on_anon(vcpu);
	struct pvclock_vcpu_time_info *xen = (void *)clock - PAGE_SIZE + GPC_XEN_VCPU_INFO_TIME;

	GPC_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE,
		    "kernel without KVM_XEN");
	GPC_REQUIRE(clock->flags & PVCLOCK_TSC_STABLE_BIT, "KVM has no stable TSC");
	memset(xen, 0, sizeof(*xen));
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_GPA), 0);

	TEST_ASSERT_EQ(xen_flags(vcpu, xen, 0), PVCLOCK_TSC_STABLE_BIT);
	TEST_ASSERT_EQ(xen_flags(vcpu, xen, KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE), 0);
	TEST_ASSERT_EQ(clock->flags, PVCLOCK_TSC_STABLE_BIT);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));

	return test_harness_run(argc, argv);
}
