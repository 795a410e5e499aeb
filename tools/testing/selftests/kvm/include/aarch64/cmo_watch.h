/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Count the cache maintenance of a guest's memory, as kprobes see it, and the page
 * faults. Does not rely on counters of the code under test.
 */
#ifndef SELFTEST_KVM_CMO_WATCH_H
#define SELFTEST_KVM_CMO_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a page: clean and invalidate to PoC, I-cache invalidations, translation faults. */
struct cmo_seen {
	uint32_t cleans, icache, faults;
};

/* Guest memory to watch */
struct cmo_watch {
	uint64_t gpa;
	char *hva;
	size_t pages;
	struct cmo_seen *seen;
};

/* CPU features and page size. Valid after cmo_watch_setup(). */
extern bool cmo_fwb, cmo_dic;
extern size_t cmo_page;

/* Returns false if the kernel has no kprobe events. */
bool cmo_watch_setup(void);
struct cmo_watch cmo_watch(uint64_t gpa, void *hva, size_t size);
void cmo_watch_start(void);
/*
 * Count the events since cmo_watch_start() for each page of @w. Returns how often
 * KVM_ARM_VCPU_INIT invalidated all instruction caches, on a CPU with FEAT_S2FWB.
 */
int cmo_watch_end(struct cmo_watch *w);
/* Assert that page @i of @w was cleaned @cleans times and faulted @faults times. */
void cmo_assert_seen(const struct cmo_watch *w, size_t i, uint32_t cleans, uint32_t faults);

#endif /* SELFTEST_KVM_CMO_WATCH_H */
