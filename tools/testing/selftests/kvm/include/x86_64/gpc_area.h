/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Areas of the VMM's memory that threads invalidate without a gap.  One thread per area
 * does nothing but write-protect and unprotect the area, from the first page to the last.
 * An invalidation of the area is in progress if only one of the first and the last page
 * is protected.
 */
#ifndef SELFTEST_KVM_GPC_AREA_H
#define SELFTEST_KVM_GPC_AREA_H

#include "gpc_uffd.h"

/*
 * @mem, @size: memory registered with @uffd, to be write-protected
 * @last: last present page
 * @nr_done: number of completed invalidations
 */
struct gpc_area {
	pthread_t thread;
	int uffd;
	void *mem;
	size_t size;
	void *last;
	unsigned long nr_done;
};

void gpc_areas_preempt(void);
void gpc_area_start(struct gpc_area *area, int uffd, void *mem, size_t size, void *last);
void gpc_areas_end(struct gpc_area *areas, int nr);
void gpc_areas_run(void);

/* Minimum number of tries, and of invalidations of each area, before giving up. */
#define GPC_NR_TRIES	500

bool gpc_areas_try(struct gpc_area *areas, int nr, int tries);
bool gpc_area_in_progress(struct gpc_area *area);

#endif /* SELFTEST_KVM_GPC_AREA_H */
