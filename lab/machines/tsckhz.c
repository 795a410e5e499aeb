// SPDX-License-Identifier: GPL-2.0-only
/*
 * The frequency of this machine's TSC in kHz, to a few ppm. QEMU's TCG hands the
 * host's TSC to its guest. The guest's kernel measures it at boot, and where the
 * emulator is disturbed at that, it is wrong by 1000 ppm until a second later. On a
 * CPU without a constant TSC, as this one is, KVM believes what it found first:
 * its clocks are then wrong for the base and for us.
 */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

/* The TSC at *ns: of some readings, the one that took the shortest time. */
static unsigned long long tsc_at(double *ns)
{
	unsigned long long tsc = 0;
	double shortest = 1e9;

	for (int i = 0; i < 100; i++) {
		double before = now();
		unsigned long long t = __rdtsc();
		double took = now() - before;

		if (took < shortest) {
			shortest = took;
			*ns = before + took / 2;
			tsc = t;
		}
	}
	return tsc;
}

int main(void)
{
	struct timespec pause = { .tv_nsec = 50000000 };
	double ns0, ns1;
	unsigned long long t0 = tsc_at(&ns0), t1;

	nanosleep(&pause, NULL);
	t1 = tsc_at(&ns1);
	printf("%.0f\n", (t1 - t0) * 1e6 / (ns1 - ns0));
	return 0;
}
