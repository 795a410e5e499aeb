// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cost of internal VMs, as their KUnit suite reports it, and of a VM of userspace. Prints
 * a line "name value unit" for each figure, like gpc_bench.c.
 *
 * run_trip		KVM_RUN: from userspace to the guest, which exits by MMIO, and back
 * internal_trip	from the kernel to the guest of an internal VM, which does HVC, and back
 * internal_life_256	create an internal VM, add 256 MiB, destroy it
 * internal_map_SIZE	add a GiB in blocks of SIZE
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "gpc_figure.h"
#include "kselftest.h"
#include "kvm_util.h"
#include "ucall_common.h"

#define SUITE	"/sys/kernel/debug/kunit/kvm_internal_bench/"
#define ROUNDS	101
#define BATCH	16

static int64_t now(void)
{
	uint64_t count, freq;

	asm volatile("isb; mrs %0, cntvct_el0; mrs %1, cntfrq_el0" : "=r"(count), "=r"(freq));
	return count * (NSEC_PER_SEC / freq);
}

static void guest(void)
{
	for (;;)
		GUEST_SYNC(0);
}

static void bench_run(void)
{
	int64_t samples[ROUNDS];
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&vcpu, guest);
	int i, j;

	vcpu_run(vcpu);
	for (i = 0; i < ROUNDS; i++) {
		samples[i] = -now();
		for (j = 0; j < BATCH; j++)
			vcpu_run(vcpu);
		samples[i] += now();
	}
	gpc_figure(gpc_median(samples, ROUNDS) / BATCH, "run_trip");
	kvm_vm_free(vm);
}

/* Unpatched kernels have no such suite. */
static void bench_internal(void)
{
	char line[256], name[32];
	FILE *results;
	long value;
	int fd;

	fd = open(SUITE "run", O_WRONLY);
	if (fd < 0)
		return;
	TEST_ASSERT(write(fd, "1", 1) == 1, "Cannot start " SUITE);
	close(fd);

	results = fopen(SUITE "results", "r");
	TEST_ASSERT(results, "Cannot open " SUITE "results");
	while (fgets(line, sizeof(line), results)) {
		TEST_ASSERT(!strstr(line, "not ok"), "KUnit reports %s", line);
		if (sscanf(line, " # %*[^:]: figure %31s %ld", name, &value) == 2)
			gpc_figure(value, "%s", name);
	}
	fclose(results);
}

int main(void)
{
	ksft_print_header();
	ksft_set_plan(1);

	bench_run();
	bench_internal();

	gpc_tell_figures("instructions");
	ksft_test_result_pass("internal_vm_bench\n");
	ksft_finished();
}
