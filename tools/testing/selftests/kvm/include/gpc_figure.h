/* SPDX-License-Identifier: GPL-2.0-only */
/* Figures of a benchmark: one line "name value unit" each, which the lab parses. */
#ifndef SELFTEST_KVM_GPC_FIGURE_H
#define SELFTEST_KVM_GPC_FIGURE_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "kselftest.h"
#include "test_util.h"

void __printf(2, 3) gpc_figure(int64_t value, const char *name, ...);
void gpc_tell_figures(const char *unit);
int64_t gpc_median(int64_t *samples, int n);

#endif /* SELFTEST_KVM_GPC_FIGURE_H */
