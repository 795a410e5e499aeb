// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mount.h>

#include "gpc_fault.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define FAILSLAB	DEBUGFS "failslab/"
#define FAIL_PAGE_ALLOC	DEBUGFS "fail_page_alloc/"
#define FAIL_FUNCTION	DEBUGFS "fail_function/"
#define FAIL_NTH	"/proc/thread-self/fail-nth"

const char * const gpc_fault_names[] = {
	[GPC_FAIL_ALLOC]  = "allocation",
	[GPC_FAIL_LOOKUP] = "gpc_lookup_pfn",
	[GPC_FAIL_MAP]    = "kvm_gpc_map",
	[GPC_FAIL_RECORD] = "gpc_records_grow",
};

struct gpc_fault_point gpc_fault;

static bool gpc_fault_listed(const char *path, const char *function, const char *how)
{
	bool found = false;
	char line[256];
	FILE *f;

	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, function) && strstr(line, how);
	if (f)
		fclose(f);
	return found;
}

/* Does this kernel have fault injection? */
bool gpc_fault_possible(void)
{
	if (access(FAIL_FUNCTION, F_OK))
		mount("debug", DEBUGFS, "debugfs", 0, NULL);

	return !access(FAIL_FUNCTION "inject", W_OK) && !access(FAILSLAB, F_OK) &&
	       !access(FAIL_PAGE_ALLOC, F_OK) && !access(FAIL_NTH, W_OK);
}

/* Can @kind fail in this KVM? */
bool gpc_fault_has(enum gpc_fault kind)
{
	return gpc_fault_listed(DEBUGFS "error_injection/list", gpc_fault_names[kind], "ERRNO");
}

static void gpc_fault_write(const char *path, const char *fmt, long val)
{
	char buf[32];

	snprintf(buf, sizeof(buf), fmt, val);
	TEST_ASSERT(gpc_write_file(path, buf), "Cannot write %s to %s: %s", buf, path,
		    strerror(errno));
}

/* Let nothing fail yet, and do not log failures. */
void gpc_fault_init(void)
{
	const struct {
		const char *path, *val;
	} settings[] = {
		{ FAILSLAB "verbose", "0" },
		{ FAILSLAB "ignore-gfp-wait", "N" },
		{ FAILSLAB "cache-filter", "N" },
		{ FAIL_PAGE_ALLOC "verbose", "0" },
		{ FAIL_PAGE_ALLOC "ignore-gfp-wait", "N" },
		{ FAIL_PAGE_ALLOC "ignore-gfp-highmem", "N" },
		{ FAIL_PAGE_ALLOC "min-order", "0" },
		{ FAIL_FUNCTION "verbose", "0" },
		{ FAIL_FUNCTION "probability", "0" },
		{ FAIL_FUNCTION "times", "0" },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		TEST_ASSERT(gpc_set(settings[i].path, settings[i].val), "Cannot set %s",
			    settings[i].path);

	gpc_fault.fd = open_path_or_exit(FAIL_NTH, O_RDWR);
}

/* Select what fails once armed.  Nothing else fails. */
void gpc_fault_select(enum gpc_fault kind)
{
	const char *function = gpc_fault_names[kind];
	const bool alloc = kind == GPC_FAIL_ALLOC;
	char path[64];

	gpc_fault.kind = kind;
	/* For a function: no slab cache is marked to fail, and no page is of order 64. */
	gpc_fault_write(FAILSLAB "cache-filter", alloc ? "N" : "Y", 0);
	gpc_fault_write(FAIL_PAGE_ALLOC "min-order", "%ld", alloc ? 0 : 64);
	gpc_fault_write(FAIL_FUNCTION "inject", "\n", 0);
	if (alloc)
		return;

	TEST_ASSERT(gpc_write_file(FAIL_FUNCTION "inject", function),
		    "KVM has no %s that can fail: %s", function, strerror(errno));
	GPC_REQUIRE(gpc_fault_listed(DEBUGFS "kprobes/list", function, "[FTRACE]"),
		    "kernel without CONFIG_FUNCTION_TRACER");
	snprintf(path, sizeof(path), FAIL_FUNCTION "%s/retval", function);
	gpc_fault_write(path, "0x%lx", -GPC_FAULT_ERRNO);
}

/* The n-th call from now fails, once, in this thread. */
void gpc_fault_arm(unsigned int nth)
{
	char buf[16];

	gpc_fault.nth = nth;
	snprintf(buf, sizeof(buf), "%u", nth);
	TEST_ASSERT(pwrite(gpc_fault.fd, buf, strlen(buf), 0) > 0, "Cannot write to " FAIL_NTH);
}

/* Returns whether the call has failed. */
bool gpc_fault_disarm(void)
{
	char buf[16] = {};

	/* The remaining count. */
	TEST_ASSERT(pread(gpc_fault.fd, buf, sizeof(buf) - 1, 0) > 0 &&
		    pwrite(gpc_fault.fd, "0", 1, 0) == 1, "Cannot disarm " FAIL_NTH);
	return !atoi(buf);
}

/* Make each call of the selected function fail, in all threads. */
void gpc_fault_arm_all(void)
{
	gpc_fault_write(FAIL_FUNCTION "times", "%ld", -1);
	gpc_fault_write(FAIL_FUNCTION "probability", "%ld", 100);
}

/* Number of mappings of pages by the cache, or by other callers of memremap(). */
unsigned int gpc_nr_mapped(void)
{
	unsigned int nr = 0;
	char line[512];
	FILE *f;

	f = fopen("/proc/vmallocinfo", "r");
	TEST_ASSERT(f, "Cannot read /proc/vmallocinfo");
	while (fgets(line, sizeof(line), f))
		nr += strstr(line, "gpc_map") || strstr(line, " memremap+");
	fclose(f);
	return nr;
}

/*
 * Is an unmapped page still allocated?  If freed, it would no longer be anonymous memory.
 * If another user had it by now, that user would map it.
 */
bool gpc_is_held(uint64_t pfn)
{
	uint64_t flags;
	int fd;

	fd = open_path_or_exit("/proc/kpageflags", O_RDONLY);
	TEST_ASSERT(pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) == sizeof(flags),
		    "Cannot read the page flags");
	close(fd);
	return (flags & BIT_ULL(KPF_ANON)) && !(flags & BIT_ULL(KPF_MMAP));
}

/* Free a page.  Returns its page frame if the kernel still holds it, else 0. */
uint64_t gpc_give_back(void *page)
{
	uint64_t pfn = gpc_pfn(page);

	TEST_ASSERT(pfn, "There is no page to give back");
	gpc_drop(page);
	return gpc_is_held(pfn) ? pfn : 0;
}
