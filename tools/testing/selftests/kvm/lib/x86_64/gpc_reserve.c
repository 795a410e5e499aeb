// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_reserve.h"

#define GPC_FIRMWARE_MEMMAP	"/sys/firmware/memmap"

static bool gpc_read_entry(int nr, const char *name, const char *fmt, void *val)
{
	char path[64];
	FILE *f;
	int r;

	snprintf(path, sizeof(path), GPC_FIRMWARE_MEMMAP "/%d/%s", nr, name);
	f = fopen(path, "r");
	if (!f)
		return false;
	r = fscanf(f, fmt, val);
	fclose(f);
	return r == 1;
}

/* Skip what the kernel knows of from @start to @end.  Returns where that ends. */
static uint64_t gpc_skip_claimed(uint64_t start, uint64_t end)
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

/* Returns 0 if there is none. */
uint64_t gpc_find_reserve(enum gpc_reserve where)
{
	uint64_t start, end;
	char type[16];
	int i;

	for (i = 0; gpc_read_entry(i, "type", "%15s", type); i++) {
		if (strcmp(type, "System") || !gpc_read_entry(i, "start", "%lx", &start) ||
		    !gpc_read_entry(i, "end", "%lx", &end))
			continue;

		end = align_down(end + 1, PAGE_SIZE);
		start = align_up(gpc_skip_claimed(start, end), PAGE_SIZE);
		if (end >= start + GPC_RESERVE_SIZE)
			return where == GPC_NEAR ? start : end - GPC_RESERVE_SIZE;
	}
	return 0;
}

void *gpc_map_reserve(void *at, enum gpc_reserve where, size_t offset, size_t size)
{
	uint64_t reserve = gpc_find_reserve(where);
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
