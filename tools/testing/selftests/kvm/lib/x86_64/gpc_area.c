// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_area.h"

static bool gpc_areas_stop;

static void *gpc_area_thread(void *data)
{
	struct gpc_area *area = data;
	struct uffdio_writeprotect wp = { .range = { (uintptr_t)area->mem, area->size } };

	while (!READ_ONCE(gpc_areas_stop)) {
		wp.mode ^= UFFDIO_WRITEPROTECT_MODE_WP;
		TEST_ASSERT(!ioctl(area->uffd, UFFDIO_WRITEPROTECT, &wp),
			    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_WRITEPROTECT)", -1));
		WRITE_ONCE(area->nr_done, area->nr_done + 1);
	}
	return NULL;
}

/* From now on this thread preempts the threads that it starts. */
void gpc_areas_preempt(void)
{
	const struct sched_param param = { .sched_priority = 1 };

	GPC_REQUIRE(!sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param),
		    "no SCHED_FIFO: %s", strerror(errno));
}

void gpc_area_start(struct gpc_area *area, int uffd, void *mem, size_t size, void *last)
{
	area->uffd = uffd;
	area->mem = mem;
	area->size = size;
	area->last = last;
	TEST_ASSERT(!pthread_create(&area->thread, NULL, gpc_area_thread, area),
		    "Cannot create a thread");
}

void gpc_areas_end(struct gpc_area *areas, int nr)
{
	WRITE_ONCE(gpc_areas_stop, true);
	while (nr--)
		TEST_ASSERT(!pthread_join(areas[nr].thread, NULL), "Cannot join a thread");
}

/* Let the other threads run, then preempt the one that has the CPU. */
void gpc_areas_run(void)
{
	const struct timespec ms = { .tv_nsec = NSEC_PER_SEC / 1000 };

	TEST_ASSERT(!nanosleep(&ms, NULL), __KVM_SYSCALL_ERROR("nanosleep()", -1));
}

/* Returns whether to try again.  On a slow machine one invalidation spans many tries. */
bool gpc_areas_try(struct gpc_area *areas, int nr, int tries)
{
	unsigned long done = 0;
	int i;

	for (i = 0; i < nr; i++)
		done += READ_ONCE(areas[i].nr_done);
	return tries < GPC_NR_TRIES || done < (unsigned long)nr * GPC_NR_TRIES;
}

/* Documentation/admin-guide/mm/pagemap.rst */
static bool gpc_is_protected(void *page)
{
	return gpc_pagemap(page) & BIT_ULL(57);
}

bool gpc_area_in_progress(struct gpc_area *area)
{
	return gpc_is_protected(area->mem) != gpc_is_protected(area->last);
}
