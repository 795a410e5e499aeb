// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_rival.h"

/* What the scheduler has counted for this thread, in ns: what KVM goes by. */
uint64_t gpc_run_delay(void)
{
	uint64_t ns;
	FILE *f = fopen("/proc/thread-self/schedstat", "r");

	TEST_ASSERT(f && fscanf(f, "%*u %lu", &ns) == 1, "Cannot read schedstat");
	fclose(f);
	return ns;
}

/* A child that wants the CPU that this task is on, and from here on stays on. */
pid_t gpc_rival_start(void)
{
	cpu_set_t set;
	pid_t pid;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(set), &set), "Cannot pin this task");
	pid = fork();
	if (!pid) {
		/* Also when a test fails, and does not come to its end. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			asm volatile("");
	}
	return pid;
}

void gpc_rival_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Lose the CPU for sure. */
void gpc_lose_cpu(void)
{
	uint64_t delay = gpc_run_delay();

	while (gpc_run_delay() == delay)
		sched_yield();
}
