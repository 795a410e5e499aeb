// SPDX-License-Identifier: GPL-2.0-only
/*
 * In the demo's guest: does the clock stay monotonic?
 *
 * A thread on each of two CPUs reads CLOCK_MONOTONIC, a burst each 10 ms, until
 * SIGTERM.  No read may be behind one that any thread made before it, and a burst may
 * not stand still.  The last line says what was seen:
 *
 *	clock: READS reads, BACK back, STILL still, gap GAP ms
 *
 * STILL is the most reads in a row that gave the same time, GAP the longest time between
 * two reads of a thread, whatever the reason.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CPUS	2
#define BURST	200

struct reader {
	pthread_t thread;
	int cpu;
	uint64_t reads, back, still, gap;
};

static _Atomic uint64_t latest;
static atomic_bool ended;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void read_once(struct reader *r, uint64_t *mine, uint64_t *same)
{
	uint64_t before = atomic_load(&latest);
	uint64_t t = now();

	r->reads++;
	r->back += t < before;

	while (t > before && !atomic_compare_exchange_weak(&latest, &before, t))
		;

	*same = t == *mine ? *same + 1 : 0;
	if (*same > r->still)
		r->still = *same;
	if (*mine && t > *mine && t - *mine > r->gap)
		r->gap = t - *mine;
	*mine = t;
}

static void *reader(void *arg)
{
	struct reader *r = arg;
	uint64_t mine = 0, same = 0;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(r->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus)) {
		perror("clock: sched_setaffinity");
		exit(1);
	}
	while (!atomic_load(&ended)) {
		for (int i = 0; i < BURST; i++)
			read_once(r, &mine, &same);
		usleep(10000);
	}
	return NULL;
}

int main(void)
{
	static struct reader readers[CPUS];
	struct reader all = {};
	sigset_t term;
	int sig;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, NULL);

	for (int i = 0; i < CPUS; i++) {
		readers[i].cpu = i;
		if (pthread_create(&readers[i].thread, NULL, reader, &readers[i])) {
			perror("clock: pthread_create");
			return 1;
		}
	}
	sigwait(&term, &sig);
	atomic_store(&ended, true);

	for (int i = 0; i < CPUS; i++) {
		struct reader *r = &readers[i];

		pthread_join(r->thread, NULL);
		all.reads += r->reads;
		all.back += r->back;
		all.still = r->still > all.still ? r->still : all.still;
		all.gap = r->gap > all.gap ? r->gap : all.gap;
	}
	printf("clock: %llu reads, %llu back, %llu still, gap %llu ms\n",
	       (unsigned long long)all.reads, (unsigned long long)all.back,
	       (unsigned long long)all.still, (unsigned long long)all.gap / 1000000);
	return 0;
}
