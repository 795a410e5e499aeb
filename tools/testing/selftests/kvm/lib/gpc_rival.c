// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_rival.h"

/* Time that this thread has waited for a CPU, in ns.  KVM uses the same counter. */
uint64_t gpc_run_delay(void)
{
	uint64_t ns;
	FILE *f = fopen("/proc/thread-self/schedstat", "r");

	TEST_ASSERT(f && fscanf(f, "%*u %lu", &ns) == 1, "Cannot read schedstat");
	fclose(f);
	return ns;
}

/* Pin this task to its CPU and start a child that competes for it. */
pid_t gpc_rival_start(void)
{
	cpu_set_t set;
	pid_t pid;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(set), &set), "Cannot pin this task");
	pid = fork();
	if (!pid) {
		/* Also end when a test fails early. */
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

/* Return once this thread has lost its CPU. */
void gpc_lose_cpu(void)
{
	uint64_t delay = gpc_run_delay();

	while (gpc_run_delay() == delay)
		sched_yield();
}
