/* SPDX-License-Identifier: GPL-2.0-only */
/* Cost of an operation in ticks of the TSC, for benchmarks. */
#ifndef SELFTEST_KVM_GPC_COUNT_H
#define SELFTEST_KVM_GPC_COUNT_H

#include "gpc_figure.h"
#include "processor.h"

#define GPC_ROUNDS	31

#define GPC_COUNT(op)							\
({									\
	uint64_t __start = rdtsc();					\
									\
	op;								\
	(int64_t)(rdtsc() - __start);					\
})

/* Median cost of @op, each time after @prepare. */
#define GPC_MEDIAN(prepare, op)						\
({									\
	int64_t __samples[GPC_ROUNDS];					\
	int __i;							\
									\
	for (__i = 0; __i < GPC_ROUNDS; __i++) {			\
		prepare;						\
		__samples[__i] = GPC_COUNT(op);				\
	}								\
	gpc_median(__samples, GPC_ROUNDS);				\
})

/* On an emulator the TSC may count instructions. */
static inline const char *gpc_tick_unit(void)
{
	int64_t few = GPC_MEDIAN(, asm volatile(".rept 100; nop; .endr"));
	int64_t many = GPC_MEDIAN(, asm volatile(".rept 1100; nop; .endr"));

	return many - few == 1000 ? "instructions" : "ticks";
}

#endif /* SELFTEST_KVM_GPC_COUNT_H */
