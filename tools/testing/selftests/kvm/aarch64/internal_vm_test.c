// SPDX-License-Identifier: GPL-2.0-only
/*
 * Internal VMs: start their KUnit suite from a task and report its cases.  First freeze a
 * task that runs a guest for long, and kill another such task; the suite reports what
 * both saw.  A VM of userspace, whose guest uses FP/SIMD, runs at the same time.
 */
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/compiler.h>

#include "gpc_compat.h"
#include "kvm_util.h"
#include "test_util.h"
#include "ucall_common.h"

#define DEBUGFS	"/sys/kernel/debug/"
#define KUNIT	DEBUGFS "kunit/"
#define SUITE	KUNIT "kvm_internal_vm/"
#define SPIN	KUNIT "kvm_internal_vm_spin/"
#define FREEZER	"/tmp/freezer"
#define EXITS	DEBUGFS "kvm/internal-*-spin/exits"
#define SAMPLE	"/sys/module/kvm_internal_vm/parameters/passed"

static void write_file(const char *file, const char *what)
{
	int fd = open(file, O_WRONLY);

	TEST_ASSERT(fd >= 0 && write(fd, what, strlen(what)) == strlen(what),
		    "Cannot write %s to %s", what, file);
	close(fd);
}

/* Has the guest of the spinning suite been entered? */
static bool is_spinning(void)
{
	long exits = 0;
	FILE *file;
	glob_t g;

	if (!glob(EXITS, 0, NULL, &g)) {
		file = fopen(g.gl_pathv[0], "r");
		if (file) {
			if (fscanf(file, "%ld", &exits) != 1)
				exits = 0;
			fclose(file);
		}
		globfree(&g);
	}
	return exits;
}

static pid_t start_spinning(void)
{
	pid_t child = fork();

	TEST_ASSERT(child >= 0, "fork() failed");
	if (!child) {
		write_file(SPIN "run", "1");
		_exit(0);
	}
	while (!is_spinning())
		TEST_ASSERT(!waitpid(child, NULL, WNOHANG), "The guest does not spin");
	return child;
}

static void kill_task(void)
{
	pid_t child = start_spinning();

	kill(child, SIGKILL);
	TEST_ASSERT(waitpid(child, NULL, 0) == child, "waitpid() failed");
}

static bool is_frozen(void)
{
	char state[16] = "";
	int fd = open(FREEZER "/t/freezer.state", O_RDONLY);

	TEST_ASSERT(fd >= 0 && read(fd, state, sizeof(state) - 1) > 0, "Cannot read the state");
	close(fd);
	return !strcmp(state, "FROZEN\n");
}

/* The suite continues when the task is thawed. */
static void freeze_task(void)
{
	pid_t child = start_spinning();
	char pid[16];

	TEST_REQUIRE(!mkdir(FREEZER, 0700) && !mount("freezer", FREEZER, "cgroup", 0, "freezer"));
	TEST_ASSERT(!mkdir(FREEZER "/t", 0700), "mkdir() failed");
	snprintf(pid, sizeof(pid), "%d", child);
	write_file(FREEZER "/t/cgroup.procs", pid);
	write_file(FREEZER "/t/freezer.state", "FROZEN");
	while (!is_frozen())
		usleep(1000);
	write_file(FREEZER "/t/freezer.state", "THAWED");
	TEST_ASSERT(waitpid(child, NULL, 0) == child, "waitpid() failed");
	TEST_ASSERT(!rmdir(FREEZER "/t") && !umount(FREEZER) && !rmdir(FREEZER), "Cannot clean up");
}

/*
 * If the kernel has fault injection, the suite sets its own task's fail-nth.  Let it
 * reach all allocations, and do not log the failures.
 */
static void let_allocations_fail(bool all)
{
	static const struct {
		const char *file, *normal, *all;
	} knobs[] = {
		{ DEBUGFS "failslab/ignore-gfp-wait", "Y", "N" },
		{ DEBUGFS "failslab/verbose", "2", "0" },
		{ DEBUGFS "fail_page_alloc/ignore-gfp-wait", "Y", "N" },
		{ DEBUGFS "fail_page_alloc/min-order", "1", "0" },
		{ DEBUGFS "fail_page_alloc/verbose", "2", "0" },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		if (!access(knobs[i].file, W_OK))
			write_file(knobs[i].file, all ? knobs[i].all : knobs[i].normal);
	}
}

/* Does a register keep its value while others run? */
static void fp_guest(void)
{
	uint64_t value, i;

	for (i = 1;; i++) {
		asm volatile("fmov d8, %0" : : "r"(i) : "v8");
		GUEST_SYNC(i);
		asm volatile("fmov %0, d8" : "=r"(value));
		GUEST_ASSERT_EQ(value, i);
	}
}

/* Run fp_guest() in a child, which counts the rounds in *ROUNDS. */
static pid_t start_beside(unsigned long *rounds)
{
	struct kvm_vcpu *vcpu;
	struct ucall uc;
	pid_t child = fork();

	TEST_ASSERT(child >= 0, "fork() failed");
	if (!child) {
		gpc_pin_to_cpu(0);
		vm_create_with_one_vcpu(&vcpu, fp_guest);
		for (;;) {
			vcpu_run(vcpu);
			if (get_ucall(vcpu, &uc) == UCALL_ABORT)
				REPORT_GUEST_ASSERT(uc);
			WRITE_ONCE(*rounds, *rounds + 1);
			usleep(100);
		}
	}
	while (!READ_ONCE(*rounds))
		TEST_ASSERT(!waitpid(child, NULL, WNOHANG), "The VM of userspace does not run");
	return child;
}

static void stop_beside(pid_t child, unsigned long *rounds)
{
	unsigned long before = READ_ONCE(*rounds);

	while (READ_ONCE(*rounds) == before)
		TEST_ASSERT(!waitpid(child, NULL, WNOHANG), "The VM of userspace has failed");
	kill(child, SIGKILL);
	TEST_ASSERT(waitpid(child, NULL, 0) == child, "waitpid() failed");
}

/* Print the cases as kselftest does, and KUnit's messages for those that failed. */
static bool report(FILE *results)
{
	char line[512], said[4096] = "";
	bool passed = true, ran = false;

	puts("TAP version 13");
	while (fgets(line, sizeof(line), results)) {
		if (!strncmp(line, "    1..", 7)) {
			fputs(line + 4, stdout);
		} else if (!strncmp(line, "    ok ", 7)) {
			fputs(line + 4, stdout);
			ran = true;
			said[0] = '\0';
		} else if (!strncmp(line, "    not ok ", 11)) {
			fputs(said, stdout);
			fputs(line + 4, stdout);
			passed = false;
			said[0] = '\0';
		} else if (strlen(said) + strlen(line) + 3 < sizeof(said)) {
			strcat(strcat(said, "  "), line + strspn(line, " "));
		}
	}
	return passed && ran;
}

/* A kernel with the sample built in ran the sample at boot. */
static bool sample_passed(void)
{
	char passed = 'Y';
	int fd = open(SAMPLE, O_RDONLY);

	if (fd >= 0) {
		TEST_ASSERT(read(fd, &passed, 1) == 1, "Cannot read " SAMPLE);
		close(fd);
	}
	if (passed != 'Y')
		puts("# samples/kvm/kvm_internal_vm.c has failed");
	return passed == 'Y';
}

int main(void)
{
	unsigned long *rounds;
	FILE *results;
	pid_t child;

	TEST_REQUIRE(!access(SUITE "run", W_OK));

	rounds = mmap(NULL, sizeof(*rounds), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(rounds != MAP_FAILED, "mmap() failed");

	child = start_beside(rounds);
	freeze_task();
	kill_task();
	let_allocations_fail(true);
	/* Share the CPU with the VM of userspace. */
	gpc_pin_to_cpu(0);
	write_file(SUITE "run", "1");
	let_allocations_fail(false);
	stop_beside(child, rounds);
	results = fopen(SUITE "results", "r");
	TEST_ASSERT(results, "Cannot open " SUITE "results");
	return report(results) && sample_passed() ? 0 : 1;
}
