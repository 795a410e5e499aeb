// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_figure.h"

/* Printed at the end: a reader during the benchmark would be measured, too. */
static struct gpc_figure {
	char name[32];
	int64_t value;
} gpc_figures[64];
static int gpc_nr_figures;

void __printf(2, 3) gpc_figure(int64_t value, const char *name, ...)
{
	struct gpc_figure *f = &gpc_figures[gpc_nr_figures++];
	va_list args;

	TEST_ASSERT(gpc_nr_figures <= ARRAY_SIZE(gpc_figures), "Too many figures");
	va_start(args, name);
	vsnprintf(f->name, sizeof(f->name), name, args);
	va_end(args);
	f->value = value;
}

void gpc_tell_figures(const char *unit)
{
	int i;

	for (i = 0; i < gpc_nr_figures; i++)
		ksft_print_msg("%s %ld %s\n", gpc_figures[i].name, gpc_figures[i].value, unit);
}

static int gpc_compare(const void *a, const void *b)
{
	int64_t x = *(int64_t *)a, y = *(int64_t *)b;

	return (x > y) - (x < y);
}

int64_t gpc_median(int64_t *samples, int n)
{
	qsort(samples, n, sizeof(*samples), gpc_compare);
	return samples[n / 2];
}
