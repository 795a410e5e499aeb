/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel does to the caches for the memory of a guest, as kprobes see it, and
 * which pages fault. Nothing here relies on counters of the code under test.
 */
#ifndef SELFTEST_KVM_CMO_WATCH_H
#define SELFTEST_KVM_CMO_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A page: clean and invalidate to PoC, I-cache invalidations, translation faults. */
struct cmo_seen {
	uint32_t cleans, icache, faults;
};

/* Memory of a guest that is watched */
struct cmo_watch {
	uint64_t gpa;
	char *hva;
	size_t pages;
	struct cmo_seen *seen;
};

/* The CPU's features, and the size of a page. Valid after cmo_watch_setup(). */
extern bool cmo_fwb, cmo_dic;
extern size_t cmo_page;

/* Returns false if the kernel has no kprobe events. */
bool cmo_watch_setup(void);
struct cmo_watch cmo_watch(uint64_t gpa, void *hva, size_t size);
void cmo_watch_start(void);
/*
 * What was done to the pages of @w since cmo_watch_start(). Returns how often
 * KVM_ARM_VCPU_INIT invalidated all instruction caches, on a CPU with FEAT_S2FWB.
 */
int cmo_watch_end(struct cmo_watch *w);
/* Page @i of @w was cleaned and has faulted as often as that. */
void cmo_assert_seen(const struct cmo_watch *w, size_t i, uint32_t cleans, uint32_t faults);

#endif /* SELFTEST_KVM_CMO_WATCH_H */
