// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/elf.h>

#include "bare.h"
#include "cmo_watch.h"

#define TRACE		"/sys/kernel/tracing/"
#define LINE		512

bool cmo_fwb, cmo_dic;
size_t cmo_page;

/* Virtual minus physical address of RAM in the kernel */
static uint64_t linear_offset;

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	TEST_ASSERT(fd >= 0, "Cannot open %s", path);
	TEST_ASSERT(write(fd, text, strlen(text)) == strlen(text), "Cannot write %s", path);
	close(fd);
}

static FILE *open_text(const char *path)
{
	FILE *f = fopen(path, "r");

	TEST_ASSERT(f, "Cannot open %s", path);
	return f;
}

/*
 * The CPU
 */

/* EL0 cannot see the field; a guest can. */
static bool cpu_has_fwb(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, 0);
	uint64_t mmfr2;

	bare_init(vcpu, false);
	TEST_ASSERT_EQ(__vcpu_get_reg(vcpu, KVM_ARM64_SYS_REG(SYS_ID_AA64MMFR2_EL1), &mmfr2), 0);
	kvm_vm_free(vm);
	return FIELD_GET(ID_AA64MMFR2_EL1_FWB_MASK, mmfr2);
}

static bool cpu_has_dic(void)
{
	uint64_t ctr;

	asm volatile("mrs %0, ctr_el0" : "=r"(ctr));
	return ctr & BIT(29);
}

/*
 * KVM_ARM_VCPU_INIT invalidates all instruction caches with an inlined instruction. Find
 * that instruction in the text of the kernel.
 */
#define IC_IALLUIS	0xd508711f
#define IC_SYMBOL	"kvm_arch_vcpu_ioctl"

static bool read_kernel(uint64_t va, void *buf, size_t size)
{
	int i, fd = open("/proc/kcore", O_RDONLY);
	bool ok = false;
	struct elf64_phdr ph;
	struct elf64_hdr eh;

	TEST_ASSERT(fd >= 0 && pread(fd, &eh, sizeof(eh), 0) == sizeof(eh), "No /proc/kcore");
	for (i = 0; i < eh.e_phnum && !ok; i++) {
		if (pread(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) == sizeof(ph) &&
		    ph.p_type == PT_LOAD && va - ph.p_vaddr < ph.p_filesz)
			ok = pread(fd, buf, size, ph.p_offset + va - ph.p_vaddr) == size;
	}
	close(fd);
	return ok;
}

/* Offset of the instruction between @start and @end, or -1 */
static ssize_t find_ic_ialluis(uint64_t start, uint64_t end)
{
	size_t i, size = min(end - start, 16384ul);
	uint32_t *text = malloc(size);
	ssize_t offset = -1;

	if (read_kernel(start, text, size)) {
		for (i = 0; i < size / sizeof(*text) && offset < 0; i++) {
			if (text[i] == IC_IALLUIS)
				offset = i * sizeof(*text);
		}
	}
	free(text);
	return offset;
}

static void probe_ic_ialluis(char *probe, size_t size)
{
	char line[LINE], names[2][128] = { "", "" };
	FILE *f = open_text("/proc/kallsyms");
	uint64_t start = 0, end;
	ssize_t offset = -1;
	int i;

	for (i = 0; offset < 0 && fgets(line, sizeof(line), f); i ^= 1, start = end) {
		TEST_ASSERT(sscanf(line, "%lx %*c %127s", &end, names[!i]) == 2, "%s", line);
		if (strstr(names[i], IC_SYMBOL) == names[i])
			offset = find_ic_ialluis(start, end);
		if (offset >= 0)
			snprintf(probe, size, "p:cmo/ic_ialluis %s+%zd\n", names[i], offset);
	}
	TEST_ASSERT(offset >= 0, "There is no IC IALLUIS in " IC_SYMBOL "*()");
	fclose(f);
}

/*
 * The trace
 */

static void trace_setup(void)
{
	char probes[LINE];
	int n;

	write_file(TRACE "events/enable", "0");
	n = snprintf(probes, sizeof(probes),
		     "p:cmo/clean dcache_clean_inval_poc start=%%x0:x64 end=%%x1:x64\n"
		     "p:cmo/icache icache_inval_pou start=%%x0:x64 end=%%x1:x64\n");
	if (cmo_fwb)
		probe_ic_ialluis(probes + n, sizeof(probes) - n);
	write_file(TRACE "kprobe_events", probes);
	write_file(TRACE "buffer_size_kb", "8192");
}

static void trace_enable(const char *on)
{
	write_file(TRACE "events/cmo/enable", on);
	write_file(TRACE "events/kvm/kvm_guest_fault/enable", on);
}

/*
 * Physical addresses
 */

struct frame {
	uint64_t pa;
	size_t i;
};

static int compare_frames(const void *a, const void *b)
{
	uint64_t x = ((struct frame *)a)->pa, y = ((struct frame *)b)->pa;

	return (x > y) - (x < y);
}

/* Frames of the pages from @hva on, in ascending order; 0 for an absent page */
static struct frame *frames_of(const void *hva, size_t pages)
{
	struct frame *frames = calloc(pages, sizeof(*frames));
	uint64_t *entries = calloc(pages, sizeof(*entries));
	size_t i, size = pages * sizeof(*entries);
	int fd = open("/proc/self/pagemap", O_RDONLY);

	TEST_ASSERT(fd >= 0 && pread(fd, entries, size, (uintptr_t)hva / cmo_page *
				     sizeof(*entries)) == size, "Cannot read pagemap");
	for (i = 0; i < pages; i++) {
		frames[i].i = i;
		if (entries[i] & BIT_ULL(63))
			frames[i].pa = (entries[i] & (BIT_ULL(55) - 1)) * cmo_page;
	}
	qsort(frames, pages, sizeof(*frames), compare_frames);
	free(entries);
	close(fd);
	return frames;
}

/*
 * Watches
 */

struct cmo_watch cmo_watch(uint64_t gpa, void *hva, size_t size)
{
	return (struct cmo_watch) {
		.gpa = gpa, .hva = hva, .pages = size / cmo_page,
		.seen = calloc(size / cmo_page, sizeof(struct cmo_seen)),
	};
}

void cmo_watch_start(void)
{
	write_file(TRACE "trace", "");
	trace_enable("1");
}

static void count_range(struct cmo_watch *w, struct frame *frames, uint64_t start, uint64_t end,
			bool icache)
{
	size_t low = 0, high = w->pages, mid;

	while (low < high) {
		mid = (low + high) / 2;
		if (frames[mid].pa < start)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < w->pages && frames[low].pa < end; low++) {
		if (icache)
			w->seen[frames[low].i].icache++;
		else
			w->seen[frames[low].i].cleans++;
	}
}

static void count_fault(struct cmo_watch *w, uint64_t ipa, uint64_t hsr)
{
	/* FSC in the ISS of a data or instruction abort: translation fault */
	if ((hsr & 0x3c) == 0x04 && ipa >= w->gpa && ipa < w->gpa + w->pages * cmo_page)
		w->seen[(ipa - w->gpa) / cmo_page].faults++;
}

int cmo_watch_end(struct cmo_watch *w)
{
	struct frame *frames = frames_of(w->hva, w->pages);
	uint64_t start, end, ipa, hsr;
	unsigned long there, written;
	const char *args, *fault;
	char line[LINE];
	int all = 0;
	FILE *f;

	trace_enable("0");
	memset(w->seen, 0, w->pages * sizeof(*w->seen));
	f = open_text(TRACE "trace");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "# entries-in-buffer/entries-written: %lu/%lu", &there,
			   &written) == 2)
			TEST_ASSERT(there == written, "The trace is not complete");
		args = strstr(line, "start=0x");
		if (args && sscanf(args, "start=%lx end=%lx", &start, &end) == 2)
			count_range(w, frames, start - linear_offset, end - linear_offset,
				    strstr(line, ": icache: "));
		fault = strstr(line, "kvm_guest_fault: ipa ");
		if (fault && sscanf(fault, "kvm_guest_fault: ipa %lx, hsr %lx", &ipa, &hsr) == 2)
			count_fault(w, ipa, hsr);
		all += !!strstr(line, ": ic_ialluis: ");
	}
	fclose(f);
	free(frames);
	return all;
}

void cmo_assert_seen(const struct cmo_watch *w, size_t i, uint32_t cleans, uint32_t faults)
{
	TEST_ASSERT(w->seen[i].cleans == cleans && w->seen[i].faults == faults,
		    "Page %zu: cleaned %u times, %u faults, not %u and %u", i,
		    w->seen[i].cleans, w->seen[i].faults, cleans, faults);
}

/* A VM first faults in the page of its program. */
static void find_linear_offset(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, 0);
	void *code = bare_code(vm);
	char line[LINE], *args;
	struct frame *frame;
	uint64_t start = 0;
	FILE *f;

	bare_init(vcpu, false);
	bare_start(vcpu, BARE_CODE, (struct bare_work) { });
	cmo_watch_start();
	bare_run(vcpu);
	trace_enable("0");

	f = open_text(TRACE "trace");
	while (!start && fgets(line, sizeof(line), f)) {
		args = strstr(line, ": clean: ");
		if (args)
			sscanf(strstr(args, "start="), "start=%lx", &start);
	}
	fclose(f);
	TEST_ASSERT(cmo_fwb == !start, "The program was %scleaned", start ? "" : "not ");
	frame = frames_of(code, 1);
	linear_offset = start - frame->pa;
	free(frame);
	kvm_vm_free(vm);
}

bool cmo_watch_setup(void)
{
	if (access(TRACE "kprobe_events", F_OK))
		return false;
	cmo_page = getpagesize();
	cmo_fwb = cpu_has_fwb();
	cmo_dic = cpu_has_dic();
	trace_setup();
	find_linear_offset();
	return true;
}
