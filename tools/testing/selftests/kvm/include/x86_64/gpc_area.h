/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Areas of the VMM's memory that threads invalidate without a gap: one for each does
 * nothing but write-protect the area, and unprotect it, from the first page to the last.
 * That the first page is protected and the last one is not, or the other way round,
 * proves that an invalidation of the area is in progress.
 */
#ifndef SELFTEST_KVM_GPC_AREA_H
#define SELFTEST_KVM_GPC_AREA_H

#include "gpc_uffd.h"

/*
 * @mem and @size: registered with @uffd, to be write-protected
 * @last: its last page that is present
 * @nr_done: tells one invalidation from the next
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

/* So many times, and so many invalidations of each area, are tried to meet some. */
#define GPC_NR_TRIES	500

bool gpc_areas_try(struct gpc_area *areas, int nr, int tries);
bool gpc_area_in_progress(struct gpc_area *area);

#endif /* SELFTEST_KVM_GPC_AREA_H */
