/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * RAM that "mem=" on the host kernel's command line excludes, and that /dev/mem maps for
 * the VMM: memory without a struct page, or with a meaningless one.
 */
#ifndef SELFTEST_KVM_GPC_RESERVE_H
#define SELFTEST_KVM_GPC_RESERVE_H

#include "gpc.h"

/* Twice the memslot. */
#define GPC_RESERVE_SIZE	(2 * GPC_SIZE)

/* Position in the excluded RAM. */
enum gpc_reserve {
	GPC_FAR,	/* at its end */
	GPC_NEAR,	/* at its start, right after the kernel's RAM */
};

uint64_t gpc_find_reserve(enum gpc_reserve where);
void *gpc_map_reserve(void *at, enum gpc_reserve where, size_t offset, size_t size);

#endif /* SELFTEST_KVM_GPC_RESERVE_H */
