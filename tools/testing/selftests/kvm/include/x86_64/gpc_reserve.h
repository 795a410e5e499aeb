/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * RAM that "mem=" on the host kernel's command line left out, which /dev/mem maps for
 * the VMM: memory with no struct page, or with one that says nothing.
 */
#ifndef SELFTEST_KVM_GPC_RESERVE_H
#define SELFTEST_KVM_GPC_RESERVE_H

#include "gpc.h"

/* Twice the memslot. */
#define GPC_RESERVE_SIZE	(2 * GPC_SIZE)

/* Where in the RAM that was left out. */
enum gpc_reserve {
	GPC_FAR,	/* at its end */
	GPC_NEAR,	/* at its start, right behind the kernel's */
};

uint64_t gpc_find_reserve(enum gpc_reserve where);
void *gpc_map_reserve(void *at, enum gpc_reserve where, size_t offset, size_t size);

#endif /* SELFTEST_KVM_GPC_RESERVE_H */
