// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest memory that is not the host kernel's: RAM that "mem=" on its command
 * line left out, which /dev/mem maps for the VMM.
 *
 * Far from the kernel's RAM there is no struct page.  Right behind it there may
 * be one, where the RAM ends within a section of SPARSEMEM, but pfn_valid() is
 * all that is true of it: the page is not in the kernel's direct map.  So it is
 * with device memory that begins where RAM ends.
 */
#include "gpc.h"

#define FIRMWARE_MEMMAP	"/sys/firmware/memmap"

/* Twice the memslot. */
#define RESERVE_SIZE	(2 * GPC_SIZE)

/* Where in the RAM that was left out. */
enum reserve {
	FAR,	/* at its end */
	NEAR,	/* at its start, right behind the kernel's */
};

FIXTURE(gpc_pfnmap)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_pfnmap)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_pfnmap)
{
	gpc_free(self->vcpu);
}

#define PFNMAP_TEST(test) KVM_ONE_VCPU_TEST(gpc_pfnmap, test, gpc_guest)

static bool read_entry(int nr, const char *name, const char *fmt, void *val)
{
	char path[64];
	FILE *f;
	int r;

	snprintf(path, sizeof(path), FIRMWARE_MEMMAP "/%d/%s", nr, name);
	f = fopen(path, "r");
	if (!f)
		return false;
	r = fscanf(f, fmt, val);
	fclose(f);
	return r == 1;
}

/*
 * Of the range from @start to @end, the part behind the last thing in it that
 * the kernel knows of; returns where it starts.
 */
static uint64_t skip_claimed(uint64_t start, uint64_t end)
{
	char line[128];
	uint64_t s, e;
	FILE *f;

	f = fopen("/proc/iomem", "r");
	if (!f)
		return end;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %lx-%lx :", &s, &e) == 2 && s < end && e >= start)
			start = e + 1;
	}
	fclose(f);
	return start;
}

/* 0 if there is none. */
static uint64_t find_reserve(enum reserve where)
{
	uint64_t start, end;
	char type[16];
	int i;

	for (i = 0; read_entry(i, "type", "%15s", type); i++) {
		if (strcmp(type, "System") || !read_entry(i, "start", "%lx", &start) ||
		    !read_entry(i, "end", "%lx", &end))
			continue;

		end = align_down(end + 1, PAGE_SIZE);
		start = align_up(skip_claimed(start, end), PAGE_SIZE);
		if (end >= start + RESERVE_SIZE)
			return where == NEAR ? start : end - RESERVE_SIZE;
	}
	return 0;
}

static void *map_reserve(void *at, enum reserve where, size_t offset, size_t size)
{
	uint64_t reserve = find_reserve(where);
	void *mem;
	int fd;

	GPC_REQUIRE(reserve, "no RAM outside the kernel's; boot with mem=");
	fd = open("/dev/mem", O_RDWR);
	GPC_REQUIRE(fd >= 0, "no /dev/mem: %s", strerror(errno));
	mem = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0),
		   fd, reserve + offset);
	GPC_REQUIRE(mem != MAP_FAILED, "/dev/mem does not map 0x%lx: %s",
		    reserve + offset, strerror(errno));
	close(fd);
	return mem;
}

static void *clock_on(struct kvm_vcpu *vcpu, void *mem)
{
	void *page = mem + (GPC_CLOCK - GPC_GPA);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
	return page;
}

static void assert_each_page_served(struct kvm_vcpu *vcpu, void *mem)
{
	int i;

	clock_on(vcpu, mem);
	for (i = 0; i < GPC_PAGES; i++) {
		uint64_t gpa = GPC_GPA + i * PAGE_SIZE + 64 * i;

		gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, gpa | KVM_MSR_ENABLED);
		gpc_assert_served(vcpu, gpa);
		gpc_assert_served_in(vcpu, gpa, mem + i * PAGE_SIZE);
	}
}

PFNMAP_TEST(is_served)
{
	assert_each_page_served(vcpu, map_reserve(NULL, FAR, 0, GPC_SIZE));
}

PFNMAP_TEST(follows_mmap_over_it)
{
	void *alias = map_reserve(NULL, FAR, 0, RESERVE_SIZE);
	void *mem = map_reserve(NULL, FAR, 0, GPC_SIZE), *page;

	memset(alias, GPC_POISON, RESERVE_SIZE);
	page = clock_on(vcpu, mem);
	TEST_ASSERT(!memcmp(mem, alias, GPC_SIZE), "Two views of the memory differ");

	memset(alias, GPC_POISON, RESERVE_SIZE);
	map_reserve(mem, FAR, GPC_SIZE, GPC_SIZE);
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
	GPC_ASSERT_POISON(alias, GPC_SIZE);
	TEST_ASSERT(!memcmp(mem, alias + GPC_SIZE, GPC_SIZE), "Two views of the memory differ");
}

/* To a page that has a struct page, and back. */
PFNMAP_TEST(changes_places_with_ordinary_memory)
{
	void *alias = map_reserve(NULL, FAR, 0, GPC_SIZE);
	void *mem = map_reserve(NULL, FAR, 0, GPC_SIZE), *page;
	int i;

	page = clock_on(vcpu, mem);
	for (i = 0; i < 2; i++) {
		memset(alias, GPC_POISON, GPC_SIZE);
		gpc_mmap_anon(mem);
		gpc_assert_served(vcpu, GPC_CLOCK);
		gpc_assert_served_in(vcpu, GPC_CLOCK, page);
		GPC_ASSERT_POISON(alias, GPC_SIZE);

		map_reserve(mem, FAR, 0, GPC_SIZE);
		gpc_assert_served(vcpu, GPC_CLOCK);
		gpc_assert_served_in(vcpu, GPC_CLOCK, page);
		TEST_ASSERT(!memcmp(mem, alias, GPC_SIZE), "Two views of the memory differ");
	}
}

PFNMAP_TEST(returns_when_mapped_again)
{
	void *alias = map_reserve(NULL, FAR, 0, GPC_SIZE);
	void *mem = map_reserve(NULL, FAR, 0, GPC_SIZE), *page;

	page = clock_on(vcpu, mem);
	memset(alias, GPC_POISON, GPC_SIZE);
	TEST_ASSERT(!munmap(mem, GPC_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	gpc_update(vcpu);
	GPC_ASSERT_POISON(alias, GPC_SIZE);

	map_reserve(mem, FAR, 0, GPC_SIZE);
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
}

PFNMAP_TEST(is_served_right_behind_the_kernels_ram)
{
	assert_each_page_served(vcpu, map_reserve(NULL, NEAR, 0, GPC_SIZE));
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));

	return test_harness_run(argc, argv);
}
