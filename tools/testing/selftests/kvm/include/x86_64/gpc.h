/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Common code of the guest page cache tests.
 *
 * A test plays the VMM: it owns one memslot, GPC_SLOT, and the memory behind it.  It
 * takes that memory away while KVM has a page of it cached.  The page holds a pvclock
 * area, because the VMM can make KVM rewrite that at any time.
 *
 * Proof of a rewrite: each KVM_SET_CLOCK starts an era that no earlier write can hold,
 * and the guest must read a time of that era.  Proof that nothing else was written: all
 * other bytes, and all pages that the VMM took away, are filled with GPC_POISON and must
 * stay so.
 */
#ifndef SELFTEST_KVM_GPC_H
#define SELFTEST_KVM_GPC_H

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/compiler.h>
#include <linux/kernel-page-flags.h>

#include <asm/kvm_para.h>
#include <asm/pvclock.h>
#include <asm/pvclock-abi.h>

#include "gpc_compat.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define GPC_SLOT	10
#define GPC_PTE_USER		BIT_ULL(2)
#define GPC_PTE_ACCESSED	BIT_ULL(5)
#define GPC_GPA		0x40000000ul	/* 2 MiB aligned; the guest maps it 1:1 */
#define GPC_PAGES	4
#define GPC_SIZE	(GPC_PAGES * PAGE_SIZE)

/*
 * Odd, so that a poisoned version is odd.  PVCLOCK_GUEST_STOPPED, which KVM keeps, is
 * clear.
 */
#define GPC_POISON	0xa5

#define GPC_CLOCK_SIZE	sizeof(struct pvclock_vcpu_time_info)
/* Most tests put the clock in this page in the middle of the slot. */
#define GPC_CLOCK	(GPC_GPA + PAGE_SIZE)

#define GPC_ERA_NS	(1000ull * NSEC_PER_SEC)

#define GPC_HUGE_SIZE	(2ul << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* The guest's next step, and its results. */
struct gpc_step {
	uint32_t msr;		/* write val to it, unless 0 */
	uint64_t val;
	uint64_t clock;		/* GVA of a pvclock area to read, unless 0 */
	uint64_t peek;		/* GVA of a word to read, unless 0 */
	void (*call)(void);	/* function to call, unless NULL */
	uint8_t vector;		/* exception that the MSR write raised */
	uint64_t ns;
	uint64_t word;
};

uint64_t gpc_monotonic_ns(void);

extern struct gpc_step gpc_step;
extern uint64_t gpc_era;	/* value that the last KVM_SET_CLOCK set */

struct __test_metadata;

/* The running test, and the function that skips it: see gpc_harness.h. */
extern struct __test_metadata *gpc_metadata;
extern void (*gpc_skip_fn)(struct __test_metadata *metadata, const char *reason);

void __noreturn __printf(1, 2) gpc_skip(const char *fmt, ...);

#define GPC_REQUIRE(cond, fmt, ...)					\
do {									\
	if (!(cond))							\
		gpc_skip(fmt, ##__VA_ARGS__);				\
} while (0)

/*
 * Guest
 */

uint64_t gpc_guest_advancing_time(struct pvclock_vcpu_time_info *clock);
void gpc_guest(void);

/*
 * VMM: host settings that a test changes and restores
 */

bool gpc_write_file(const char *path, const char *val);
void gpc_restore(void);
bool gpc_set(const char *path, const char *val);

/*
 * VMM: memory
 */

void *gpc_mmap(void *at, size_t size, int flags, int fd, off_t off);
void *gpc_mmap_anon(void *at);
void gpc_slot(struct kvm_vm *vm, uint32_t flags, uint64_t gpa, uint64_t size, void *mem);
void gpc_slot_delete(struct kvm_vm *vm);
bool gpc_is_poison(const void *mem, size_t size);
void gpc_drop(void *page);

#define GPC_ASSERT_POISON(mem, size)					\
	TEST_ASSERT(gpc_is_poison(mem, size), "Written to: " #mem)

/*
 * Pages that the VMM fills and keeps.  The kernel reuses the last freed page first, so a
 * page that the slot gave back most likely ends up here, and the slot gets a different
 * page next.
 */
#define GPC_HOARD_SIZE	(256 * PAGE_SIZE)

void *gpc_hoard_reserve(void);
void *gpc_hoard(void);

/* Documentation/admin-guide/mm/pagemap.rst */
#define GPC_PAGEMAP_PFN		(BIT_ULL(55) - 1)
#define GPC_PAGEMAP_SWAPPED	BIT_ULL(62)
#define GPC_PAGEMAP_PRESENT	BIT_ULL(63)

uint64_t gpc_pagemap(void *hva);
uint64_t gpc_pfn(void *hva);
uint64_t gpc_page_flags(void *hva);
bool gpc_is_thp(void *hva);
void *gpc_mmap_aligned(size_t size);
void gpc_make_huge(void *mem);
void gpc_hugetlb_pool(const char *pages);
void *gpc_mmap_hugetlb(size_t size);

/*
 * VMM: the vCPU
 */

struct kvm_vcpu *gpc_create_vm(struct __test_metadata *metadata, unsigned long type,
			       uint32_t entries);
struct kvm_vcpu *gpc_create(struct __test_metadata *metadata);

/* The CPUs that a test's threads may use: those of init. */
void gpc_all_cpus(cpu_set_t *cpus);
/* One of them other than this thread's, or -1 if there is none. */
int gpc_other_cpu(void);
void gpc_free(struct kvm_vcpu *vcpu);
void gpc_assert_synced(struct kvm_vcpu *vcpu);
void gpc_run(struct kvm_vcpu *vcpu, struct gpc_step step);
void gpc_wrmsr(struct kvm_vcpu *vcpu, uint32_t msr, uint64_t val);
void gpc_new_era(struct kvm_vm *vm);
void gpc_update(struct kvm_vcpu *vcpu);
void gpc_assert_served(struct kvm_vcpu *vcpu, uint64_t gva);
void gpc_assert_served_in(struct kvm_vcpu *vcpu, uint64_t gva, void *mem);
void *gpc_clock_on(struct kvm_vcpu *vcpu, void *mem, size_t size);
void gpc_assert_written(const void *mem);
int gpc_ptes(struct kvm_vcpu *vcpu, uint64_t gva, uint64_t *ptes[5]);
uint64_t gpc_stat(struct kvm_vm *vm, const char *name);

/*
 * VMM: Xen, whose ioctls report the result of a refresh
 */

#define GPC_XEN_MSR		0x40000200
#define GPC_XEN_PORT		5

/* Xen's public header xen.h; the same in the 32-bit and the 64-bit ABI. */
#define GPC_XEN_VCPU_INFO_TIME	32
#define GPC_XEN_SHINFO_PENDING	0x800

void gpc_xen_on(struct kvm_vm *vm);
int gpc_xen_set_vcpu_info(struct kvm_vcpu *vcpu, uint64_t gpa);
int gpc_xen_set_shinfo(struct kvm_vm *vm, uint64_t gpa);
int gpc_xen_send_event(struct kvm_vcpu *vcpu);
bool gpc_xen_event_pending(const void *shinfo);

#endif /* SELFTEST_KVM_GPC_H */
