/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fault injection (Documentation/fault-injection/fault-injection.rst), and what a failure
 * leaves behind.
 *
 * A thread can make its n-th call from now fail: of allocations of all kinds, or of one
 * function of the cache.  A function fails through a kprobe, which has to know the task.
 * Only kprobes based on ftrace know it: others run like NMIs.
 */
#ifndef SELFTEST_KVM_GPC_FAULT_H
#define SELFTEST_KVM_GPC_FAULT_H

#include "gpc.h"

enum gpc_fault {
	GPC_FAIL_ALLOC,
	GPC_FAIL_LOOKUP,
	GPC_FAIL_MAP,
	GPC_FAIL_RECORD,
	GPC_NR_FAULTS
};

/* Only injected failures return this errno. */
#define GPC_FAULT_ERRNO	EHWPOISON

extern const char * const gpc_fault_names[GPC_NR_FAULTS];

/* The current fault, also for messages. */
extern struct gpc_fault_point {
	enum gpc_fault kind;
	unsigned int nth;
	int fd;
} gpc_fault;

#define FAULT_ASSERT(cond, fmt, ...)					\
	TEST_ASSERT(cond, "%s %u: " fmt, gpc_fault_names[gpc_fault.kind],	\
		    gpc_fault.nth, ##__VA_ARGS__)

bool gpc_fault_possible(void);
bool gpc_fault_has(enum gpc_fault kind);
void gpc_fault_init(void);
void gpc_fault_select(enum gpc_fault kind);
void gpc_fault_arm(unsigned int nth);
bool gpc_fault_disarm(void);
void gpc_fault_arm_all(void);
unsigned int gpc_nr_mapped(void);
bool gpc_is_held(uint64_t pfn);
uint64_t gpc_give_back(void *page);

#endif /* SELFTEST_KVM_GPC_FAULT_H */
