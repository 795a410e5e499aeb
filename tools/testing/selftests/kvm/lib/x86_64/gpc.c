// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>

#include "gpc.h"
#include "kselftest.h"

struct gpc_step gpc_step;
uint64_t gpc_era;
struct __test_metadata *gpc_metadata;
void (*gpc_skip_fn)(struct __test_metadata *metadata, const char *reason);

uint64_t gpc_monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return timespec_to_ns(ts);
}

/* Skip the running test, with a reason.  Without the harness, skip the whole program. */
void gpc_skip(const char *fmt, ...)
{
	char reason[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);

	gpc_restore();
	if (gpc_skip_fn)
		gpc_skip_fn(gpc_metadata, reason);
	ksft_exit_skip("%s\n", reason);
}

/*
 * Guest
 */

static uint64_t gpc_guest_time(struct pvclock_vcpu_time_info *clock)
{
	uint32_t version;
	uint64_t ns;
	int i;

	for (i = 0; i < 1000; i++) {
		version = READ_ONCE(clock->version);
		barrier();
		ns = __pvclock_read_cycles(clock, rdtsc());
		barrier();
		if (!(version & 1) && version == READ_ONCE(clock->version))
			return ns;
	}

	GUEST_FAIL("the clock is never consistent, version 0x%x", version);
	return 0;
}

/* Read consistent times until the clock advances. */
uint64_t gpc_guest_advancing_time(struct pvclock_vcpu_time_info *clock)
{
	uint64_t first = gpc_guest_time(clock), prev = first, ns;
	int i;

	for (i = 0; i < 1000; i++) {
		ns = gpc_guest_time(clock);
		GUEST_ASSERT(ns >= prev);
		if (ns > first)
			return ns;
		prev = ns;
	}

	GUEST_FAIL("the clock stands still at %lu ns", first);
	return 0;
}

void gpc_guest(void)
{
	struct gpc_step *s = &gpc_step;

	for (;;) {
		if (READ_ONCE(s->msr))
			s->vector = wrmsr_safe(s->msr, s->val);
		if (READ_ONCE(s->clock))
			s->ns = gpc_guest_advancing_time((void *)s->clock);
		if (READ_ONCE(s->peek))
			s->word = *(uint64_t *)s->peek;
		if (READ_ONCE(s->call))
			s->call();
		GUEST_SYNC(0);
	}
}

/*
 * VMM: host settings that a test changes and restores
 */

static struct gpc_setting {
	const char *path;
	char old[32];
} gpc_settings[16];

bool gpc_write_file(const char *path, const char *val)
{
	int fd = open(path, O_WRONLY);
	ssize_t n;

	if (fd < 0)
		return false;
	n = write(fd, val, strlen(val));
	close(fd);
	return n == strlen(val);
}

void gpc_restore(void)
{
	int i;

	for (i = ARRAY_SIZE(gpc_settings) - 1; i >= 0; i--) {
		struct gpc_setting *s = &gpc_settings[i];

		if (s->path)
			gpc_write_file(s->path, s->old);
		s->path = NULL;
	}
}

bool gpc_set(const char *path, const char *val)
{
	struct gpc_setting *s = gpc_settings;
	ssize_t n;
	int fd;

	while (s->path)
		s++;
	TEST_ASSERT(s < gpc_settings + ARRAY_SIZE(gpc_settings), "Too many settings");

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	n = read(fd, s->old, sizeof(s->old) - 1);
	close(fd);
	if (n <= 0)
		return false;
	s->old[n] = '\0';
	s->path = path;
	return gpc_write_file(path, val);
}

/*
 * VMM: memory
 */

/* Map poisoned memory of the VMM, not yet in a memslot. */
void *gpc_mmap(void *at, size_t size, int flags, int fd, off_t off)
{
	void *mem = mmap(at, size, PROT_READ | PROT_WRITE,
			 flags | (at ? MAP_FIXED : 0), fd, off);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	memset(mem, GPC_POISON, size);
	return mem;
}

void *gpc_mmap_anon(void *at)
{
	return gpc_mmap(at, GPC_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void gpc_slot(struct kvm_vm *vm, uint32_t flags, uint64_t gpa, uint64_t size, void *mem)
{
	vm_set_user_memory_region(vm, GPC_SLOT, flags, gpa, size, mem);
}

void gpc_slot_delete(struct kvm_vm *vm)
{
	vm_set_user_memory_region(vm, GPC_SLOT, 0, 0, 0, NULL);
}

bool gpc_is_poison(const void *mem, size_t size)
{
	const uint8_t *p = mem;

	while (size && *p == GPC_POISON) {
		p++;
		size--;
	}
	return !size;
}

/* Free the page.  The next access gets another page. */
void gpc_drop(void *page)
{
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
}

void *gpc_hoard_reserve(void)
{
	void *mem = mmap(NULL, GPC_HOARD_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	(void)madvise(mem, GPC_HOARD_SIZE, MADV_NOHUGEPAGE);
	return mem;
}

void *gpc_hoard(void)
{
	return memset(gpc_hoard_reserve(), GPC_POISON, GPC_HOARD_SIZE);
}

uint64_t gpc_pagemap(void *hva)
{
	uint64_t entry;
	int fd;

	fd = open_path_or_exit("/proc/self/pagemap", O_RDONLY);
	TEST_ASSERT(pread(fd, &entry, sizeof(entry), (uintptr_t)hva / PAGE_SIZE * sizeof(entry)) ==
		    sizeof(entry), "Cannot read the pagemap");
	close(fd);
	return entry;
}

/* Returns 0 if nothing is mapped. */
uint64_t gpc_pfn(void *hva)
{
	uint64_t entry = gpc_pagemap(hva);

	return entry & GPC_PAGEMAP_PRESENT ? entry & GPC_PAGEMAP_PFN : 0;
}

/* KPF_ flags of the mapped page. */
uint64_t gpc_page_flags(void *hva)
{
	uint64_t flags;
	int fd;

	fd = open_path_or_exit("/proc/kpageflags", O_RDONLY);
	TEST_ASSERT(pread(fd, &flags, sizeof(flags), gpc_pfn(hva) * sizeof(flags)) ==
		    sizeof(flags), "Cannot read the page flags");
	close(fd);
	return flags;
}

bool gpc_is_thp(void *hva)
{
	return gpc_page_flags(hva) & BIT_ULL(KPF_THP);
}

/* Map small, poisoned pages that gpc_make_huge() can make huge. */
void *gpc_mmap_aligned(size_t size)
{
	void *mem = mmap(NULL, size + GPC_HUGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	mem = (void *)align_up((uintptr_t)mem, GPC_HUGE_SIZE);
	GPC_REQUIRE(!madvise(mem, size, MADV_NOHUGEPAGE),
		    "kernel without transparent huge pages");
	return memset(mem, GPC_POISON, size);
}

void gpc_make_huge(void *mem)
{
	int i, r;

	TEST_ASSERT(!madvise(mem, GPC_HUGE_SIZE, MADV_HUGEPAGE),
		    __KVM_SYSCALL_ERROR("madvise(MADV_HUGEPAGE)", -1));
	for (i = 0; i < 100; i++) {
		r = madvise(mem, GPC_HUGE_SIZE, MADV_COLLAPSE);
		if (!r || errno != EAGAIN)
			break;
	}
	GPC_REQUIRE(!r || errno != ENOMEM, "no huge page to collapse into");
	TEST_ASSERT(!r, __KVM_SYSCALL_ERROR("madvise(MADV_COLLAPSE)", r));
	TEST_ASSERT(gpc_is_thp(mem), "Collapsed, but not into a huge page");
}

/* Reserve @pages hugetlb pages until the test ends. */
void gpc_hugetlb_pool(const char *pages)
{
	GPC_REQUIRE(gpc_set("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", pages),
		    "kernel without 2 MiB hugetlb pages");
}

void *gpc_mmap_hugetlb(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE |
			 (21 << MAP_HUGE_SHIFT), -1, 0);

	GPC_REQUIRE(mem != MAP_FAILED && !madvise(mem, size, MADV_POPULATE_WRITE),
		    "not enough 2 MiB hugetlb pages");
	return memset(mem, GPC_POISON, size);
}

/*
 * VMM: the vCPU
 */

/* With a dirty ring of @entries entries, unless 0. */
struct kvm_vcpu *gpc_create_vm(struct __test_metadata *metadata, unsigned long type,
			       uint32_t entries)
{
	struct vm_shape shape = { .mode = VM_MODE_DEFAULT, .type = type };
	struct kvm_vm *vm = __vm_create(shape, 1, 0);
	struct kvm_vcpu *vcpu;

	if (entries)
		vm_enable_dirty_ring(vm, entries * sizeof(struct kvm_dirty_gfn));
	vcpu = vm_vcpu_add(vm, 0, NULL);

	gpc_metadata = metadata;
	/* The kernel keeps freed pages per CPU; see gpc_hoard(). */
	gpc_pin_to_cpu(sched_getcpu());
	atexit(gpc_restore);
	virt_map(vm, GPC_GPA, GPC_GPA, GPC_PAGES);
	return vcpu;
}

void gpc_all_cpus(cpu_set_t *cpus)
{
	TEST_ASSERT(!sched_getaffinity(1, sizeof(*cpus), cpus), "Cannot get the CPUs");
}

int gpc_other_cpu(void)
{
	cpu_set_t cpus;
	int cpu;

	gpc_all_cpus(&cpus);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &cpus) && cpu != sched_getcpu())
			return cpu;
	}
	return -1;
}

struct kvm_vcpu *gpc_create(struct __test_metadata *metadata)
{
	return gpc_create_vm(metadata, VM_TYPE_DEFAULT, 0);
}

void gpc_free(struct kvm_vcpu *vcpu)
{
	kvm_vm_free(vcpu->vm);
	gpc_restore();
}

/* Assert that the guest has completed its step and has not failed. */
void gpc_assert_synced(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		break;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("Unexpected ucall %lu", uc.cmd);
	}
}

void gpc_run(struct kvm_vcpu *vcpu, struct gpc_step step)
{
	gpc_step = step;
	sync_global_to_guest(vcpu->vm, gpc_step);
	vcpu_run(vcpu);
	gpc_assert_synced(vcpu);
	sync_global_from_guest(vcpu->vm, gpc_step);
}

void gpc_wrmsr(struct kvm_vcpu *vcpu, uint32_t msr, uint64_t val)
{
	gpc_run(vcpu, (struct gpc_step) { .msr = msr, .val = val });
	TEST_ASSERT(!gpc_step.vector, "WRMSR 0x%x of 0x%lx raised vector %u",
		    msr, val, gpc_step.vector);
}

/* Oblige KVM to rewrite every clock before the next guest entry. */
void gpc_new_era(struct kvm_vm *vm)
{
	struct kvm_clock_data data = { .clock = gpc_era += GPC_ERA_NS };

	vm_ioctl(vm, KVM_SET_CLOCK, &data);
}

/* Start a new era and let KVM rewrite the clocks; the guest reads none. */
void gpc_update(struct kvm_vcpu *vcpu)
{
	gpc_new_era(vcpu->vm);
	gpc_run(vcpu, (struct gpc_step) { });
}

/* Assert that the guest reads a clock at @gva that KVM has just written. */
void gpc_assert_served(struct kvm_vcpu *vcpu, uint64_t gva)
{
	gpc_new_era(vcpu->vm);
	gpc_run(vcpu, (struct gpc_step) { .clock = gva });
	TEST_ASSERT(gpc_step.ns >= gpc_era && gpc_step.ns - gpc_era < GPC_ERA_NS,
		    "Guest reads %lu ns, clock was set to %lu ns", gpc_step.ns, gpc_era);
}

/*
 * Like gpc_assert_served().  Also assert that KVM writes only the clock to the page at
 * @mem, which backs @gva.
 */
void gpc_assert_served_in(struct kvm_vcpu *vcpu, uint64_t gva, void *mem)
{
	size_t start = gva % PAGE_SIZE, end = start + GPC_CLOCK_SIZE;

	memset(mem, GPC_POISON, PAGE_SIZE);
	gpc_assert_served(vcpu, gva);
	GPC_ASSERT_POISON(mem, start);
	GPC_ASSERT_POISON(mem + end, PAGE_SIZE - end);
}

/* Make @mem the slot and enable the guest's clock in it.  Returns the clock's page. */
void *gpc_clock_on(struct kvm_vcpu *vcpu, void *mem, size_t size)
{
	void *page = mem + (GPC_CLOCK - GPC_GPA);

	gpc_slot(vcpu->vm, 0, GPC_GPA, size, mem);
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
	return page;
}

/* Assert that KVM has written the clock at @mem in this era; the guest does not read. */
void gpc_assert_written(const void *mem)
{
	const struct pvclock_vcpu_time_info *clock = mem;

	TEST_ASSERT(!(clock->version & 1) && clock->system_time >= gpc_era &&
		    clock->system_time - gpc_era < GPC_ERA_NS,
		    "Clock not written: version 0x%x, %llu ns, was set to %lu ns",
		    clock->version, (unsigned long long)clock->system_time, gpc_era);
}

/*
 * The guest's page table entries for @gva, from that of a 4-KiB page upwards.  Returns
 * how many there are.
 */
int gpc_ptes(struct kvm_vcpu *vcpu, uint64_t gva, uint64_t *ptes[5])
{
	struct kvm_sregs sregs;
	uint64_t table;
	int levels, i;

	vcpu_sregs_get(vcpu, &sregs);
	table = sregs.cr3;
	levels = sregs.cr4 & X86_CR4_LA57 ? 5 : 4;
	for (i = levels - 1; i >= 0; i--) {
		ptes[i] = addr_gpa2hva(vcpu->vm, table & GENMASK_ULL(51, 12));
		ptes[i] += (gva >> (12 + 9 * i)) % 512;
		table = *ptes[i];
	}
	return levels;
}

/* Read a counter of KVM_GET_STATS_FD.  Fail if it does not exist. */
uint64_t gpc_stat(struct kvm_vm *vm, const char *name)
{
	uint64_t val = -1ull;

	gpc_get_stat(vm, name, &val, 1);
	TEST_ASSERT(val != -1ull, "KVM has no statistic %s", name);
	return val;
}

/*
 * VMM: Xen, whose ioctls report the result of a refresh
 */

void gpc_xen_on(struct kvm_vm *vm)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = GPC_XEN_MSR,
	};

	vm_ioctl(vm, KVM_XEN_HVM_CONFIG, &config);
}

int gpc_xen_set_vcpu_info(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		.u.gpa = gpa,
	};

	return __vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr) ? -errno : 0;
}

/* @gpa: address of a page, or -1 for none. */
int gpc_xen_set_shinfo(struct kvm_vm *vm, uint64_t gpa)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO,
		.u.shared_info.gfn = gpa == -1ul ? KVM_XEN_INVALID_GFN : gpa / PAGE_SIZE,
	};

	return __vm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &attr) ? -errno : 0;
}

/* Send an event through the shared info's cache.  Any thread may do so. */
int gpc_xen_send_event(struct kvm_vcpu *vcpu)
{
	struct kvm_irq_routing_xen_evtchn event = {
		.port = GPC_XEN_PORT,
		.vcpu = vcpu->id,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	return __vm_ioctl(vcpu->vm, KVM_XEN_HVM_EVTCHN_SEND, &event) ? -errno : 0;
}

bool gpc_xen_event_pending(const void *shinfo)
{
	return *(const uint32_t *)(shinfo + GPC_XEN_SHINFO_PENDING) == BIT(GPC_XEN_PORT);
}
