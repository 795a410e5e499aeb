/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The harness, for a test that uses gpc.h.  A library cannot include the harness, which
 * defines functions and variables.  So the test passes its way to skip to the library.
 */
#ifndef SELFTEST_KVM_GPC_HARNESS_H
#define SELFTEST_KVM_GPC_HARNESS_H

#include "gpc.h"
#include "kvm_test_harness.h"

static void gpc_harness_skip(struct __test_metadata *_metadata, const char *reason)
{
	SKIP(_exit(KSFT_SKIP), "%s", reason);
}

static void __attribute__((constructor)) gpc_harness_init(void)
{
	gpc_skip_fn = gpc_harness_skip;
}

#endif /* SELFTEST_KVM_GPC_HARNESS_H */
