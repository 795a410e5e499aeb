// SPDX-License-Identifier: GPL-2.0-only
/*
 * Steal time and the preempted flag: KVM maintains the record that the guest has
 * registered, in whatever memory backs it.  KVM serves requests for a TLB flush that
 * others leave in the record.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "gpc_harness.h"
#include "gpc_rival.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

/* Documentation/virt/kvm/x86/msr.rst: 64 bytes, aligned to 64. */
#define RECORD_SIZE	sizeof(struct kvm_steal_time)
#define RECORD_OFFSET	(PAGE_SIZE + 1024)
#define RECORD		(GPC_GPA + RECORD_OFFSET)

FIXTURE(gpc_steal)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_steal)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_steal)
{
	gpc_free(self->vcpu);
}

#define STEAL_TEST(test) KVM_ONE_VCPU_TEST(gpc_steal, test, gpc_guest)

static void run(struct kvm_vcpu *vcpu)
{
	gpc_run(vcpu, (struct gpc_step) { });
}

static void record_on(struct kvm_vcpu *vcpu)
{
	gpc_wrmsr(vcpu, MSR_KVM_STEAL_TIME, RECORD | KVM_MSR_ENABLED);
}

static struct kvm_steal_time *record_in(void *mem)
{
	return mem + RECORD_OFFSET;
}

/* Add a zeroed slot and let KVM keep the record there. */
static void *record_on_anon(struct kvm_vcpu *vcpu)
{
	void *mem = gpc_mmap_anon(NULL);

	memset(mem, 0, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	record_on(vcpu);
	run(vcpu);
	return mem;
}

/* Assert that KVM writes the record in each run, with the scheduler's time. */
static void assert_served(struct kvm_vcpu *vcpu, struct kvm_steal_time *st)
{
	uint32_t version;
	uint64_t steal;

	run(vcpu);
	version = st->version;
	steal = st->steal;
	run(vcpu);

	/* KVM writes more than once if the thread lost its CPU in between. */
	TEST_ASSERT(!(st->version & 1) && st->version > version,
		    "Version %u after %u", st->version, version);
	TEST_ASSERT(st->steal >= steal && st->steal - steal <= gpc_run_delay(),
		    "Stolen %llu after %lu, in total %lu", (unsigned long long)st->steal, steal,
		    gpc_run_delay());
	TEST_ASSERT_EQ(st->preempted, 0);
	TEST_ASSERT_EQ(st->flags, 0);
}

/* The record advances by the scheduler's time between two updates, to the nanosecond. */
STEAL_TEST(run_delay)
{
	struct kvm_steal_time *st = record_in(record_on_anon(vcpu));
	uint64_t steal, low, high, delay;
	pid_t pid = gpc_rival_start();
	int i;

	for (i = 0; i < 20; i++) {
		low = gpc_run_delay();
		run(vcpu);
		high = gpc_run_delay();
		steal = st->steal;

		gpc_lose_cpu();
		delay = gpc_run_delay();
		run(vcpu);
		steal = st->steal - steal;
		TEST_ASSERT(steal >= delay - high && steal <= gpc_run_delay() - low,
			    "Stolen %lu, scheduler %lu to %lu", steal,
			    delay - high, gpc_run_delay() - low);
	}

	gpc_rival_end(pid);
}

STEAL_TEST(nothing_else_written)
{
	void *mem = record_on_anon(vcpu);
	struct kvm_steal_time *st = record_in(mem);

	memset(mem, GPC_POISON, GPC_SIZE);
	run(vcpu);

	TEST_ASSERT(!(st->version & 1) && st->version != 0xa5a5a5a5, "Version %x", st->version);
	TEST_ASSERT(st->steal - 0xa5a5a5a5a5a5a5a5 <= gpc_run_delay(), "Stolen %llx",
		    (unsigned long long)st->steal);
	TEST_ASSERT_EQ(st->preempted, 0);
	GPC_ASSERT_POISON(mem, RECORD_OFFSET);
	GPC_ASSERT_POISON(&st->flags, sizeof(st->flags));
	GPC_ASSERT_POISON(st->u8_pad, sizeof(st->u8_pad) + sizeof(st->pad));
	GPC_ASSERT_POISON(st + 1, GPC_SIZE - RECORD_OFFSET - RECORD_SIZE);
}

STEAL_TEST(mmap_over)
{
	void *mem = record_on_anon(vcpu), *away;
	struct kvm_steal_time *st = record_in(mem);
	void *page = mem + PAGE_SIZE;

	/* Free the page: the record starts from zero. */
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_DONTNEED), "MADV_DONTNEED");
	assert_served(vcpu, st);

	/* Move the page away, poison it, and map another page in its place. */
	away = mremap(page, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		      gpc_mmap_anon(NULL));
	TEST_ASSERT(away != MAP_FAILED, __KVM_SYSCALL_ERROR("mremap()", -1));
	memset(away, GPC_POISON, PAGE_SIZE);
	memset(gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 0, PAGE_SIZE);
	assert_served(vcpu, st);
	GPC_ASSERT_POISON(away, PAGE_SIZE);

	/* Make the page read-only for a while. */
	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ), "mprotect");
	away = memcpy(gpc_mmap_anon(NULL), page, PAGE_SIZE);
	run(vcpu);
	TEST_ASSERT(!memcmp(away, page, PAGE_SIZE), "Written to a read-only page");
	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	assert_served(vcpu, st);
}

/* A change that keeps the memory's contents keeps the time, too. */
STEAL_TEST(never_goes_back)
{
	void *mem = record_on_anon(vcpu);
	struct kvm_steal_time *st = record_in(mem);
	void *page = mem + PAGE_SIZE;
	uint64_t steal = 0;
	pid_t pid;
	int i;

	for (i = 0; i < 50; i++) {
		switch (i % 5) {
		case 0:
			TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ), "mprotect");
			TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
			break;
		case 1:
			pid = fork();
			if (!pid)
				_exit(0);
			waitpid(pid, NULL, 0);
			break;
		case 2:
			(void)madvise(page, PAGE_SIZE, MADV_PAGEOUT);
			break;
		case 3:
			gpc_slot_delete(vcpu->vm);
			gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
			break;
		case 4:
			/* Like a VMM that moves memory: stop, copy, continue. */
			gpc_slot_delete(vcpu->vm);
			mem = memcpy(gpc_mmap_anon(NULL), mem, GPC_SIZE);
			gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
			page = mem + PAGE_SIZE;
			st = record_in(mem);
			break;
		}
		assert_served(vcpu, st);
		TEST_ASSERT(st->steal >= steal, "Stolen %llu after %lu",
			    (unsigned long long)st->steal, steal);
		steal = st->steal;
	}
}

/* Read like the guest's other vCPUs: at any time, by the protocol of the version. */
static struct {
	struct kvm_steal_time *st;
	uint64_t reads;
	uint64_t torn;
	bool stop;
} reader;

static void *read_record(void *data)
{
	struct kvm_steal_time *st = reader.st;
	uint32_t version, last_version = 1;
	uint64_t steal, last_steal = 0;
	cpu_set_t cpus;

	/* Use other CPUs than the vCPU's, if there are any. */
	gpc_all_cpus(&cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);

	while (!READ_ONCE(reader.stop)) {
		version = READ_ONCE(st->version);
		barrier();
		steal = READ_ONCE(st->steal);
		barrier();
		if ((version & 1) || version != READ_ONCE(st->version))
			continue;
		/* One version has one time. */
		reader.reads++;
		reader.torn += version == last_version && steal != last_steal;
		last_version = version;
		last_steal = steal;
	}
	return NULL;
}

STEAL_TEST(never_torn)
{
	void *mem = record_on_anon(vcpu);
	pid_t rival = gpc_rival_start();
	pthread_t thread;
	int i;

	reader.st = record_in(mem);
	TEST_ASSERT(!pthread_create(&thread, NULL, read_record, NULL), "Cannot create a thread");
	for (i = 0; i < 200; i++) {
		/* Force a refresh, with the same page and contents. */
		if (!(i % 3)) {
			TEST_ASSERT(!mprotect(mem + PAGE_SIZE, PAGE_SIZE, PROT_READ), "mprotect");
			TEST_ASSERT(!mprotect(mem + PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE),
				    "mprotect");
		}
		gpc_lose_cpu();
		run(vcpu);
	}
	gpc_rival_end(rival);
	WRITE_ONCE(reader.stop, true);
	pthread_join(thread, NULL);

	TEST_ASSERT(reader.reads, "The reader has seen no whole record");
	TEST_ASSERT(!reader.torn, "Seen half-written %lu times in %lu", reader.torn, reader.reads);
}

/* A VMM may restore MSRs before memory. */
STEAL_TEST(restored_in_any_order)
{
	struct kvm_vcpu *other;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&other, gpc_guest);
	void *mem = record_on_anon(vcpu);
	uint64_t steal = 1000 * NSEC_PER_SEC;

	record_in(mem)->steal = steal;
	assert_served(vcpu, record_in(mem));
	steal = record_in(mem)->steal;

	virt_map(vm, GPC_GPA, GPC_GPA, GPC_PAGES);
	vcpu_set_msr(other, MSR_KVM_STEAL_TIME, vcpu_get_msr(vcpu, MSR_KVM_STEAL_TIME));
	run(other);
	mem = memcpy(gpc_mmap_anon(NULL), mem, GPC_SIZE);
	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	assert_served(other, record_in(mem));
	TEST_ASSERT(record_in(mem)->steal >= steal, "Stolen %llu after %lu",
		    (unsigned long long)record_in(mem)->steal, steal);
	TEST_ASSERT_EQ(vcpu_get_msr(other, MSR_KVM_STEAL_TIME), RECORD | KVM_MSR_ENABLED);
	kvm_vm_free(vm);
}

STEAL_TEST(turned_off)
{
	void *mem = record_on_anon(vcpu);

	gpc_wrmsr(vcpu, MSR_KVM_STEAL_TIME, 0);
	memset(mem, GPC_POISON, GPC_SIZE);
	run(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	record_on(vcpu);
	memset(mem, 0, GPC_SIZE);
	assert_served(vcpu, record_in(mem));
}

STEAL_TEST(unmapped_then_mapped)
{
	void *mem = gpc_mmap_anon(NULL);

	record_on(vcpu);
	run(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	gpc_slot(vcpu->vm, KVM_MEM_READONLY, GPC_GPA, GPC_SIZE, mem);
	run(vcpu);
	GPC_ASSERT_POISON(mem, GPC_SIZE);

	gpc_slot_delete(vcpu->vm);
	memset(mem, 0, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	assert_served(vcpu, record_in(mem));
}

STEAL_TEST(refuses_reserved_bits)
{
	gpc_run(vcpu, (struct gpc_step) {
		.msr = MSR_KVM_STEAL_TIME, .val = RECORD | KVM_MSR_ENABLED | 2,
	});
	TEST_ASSERT_EQ(gpc_step.vector, GP_VECTOR);
}

STEAL_TEST(dirty_log)
{
	unsigned long dirty = 0;
	void *mem = record_on_anon(vcpu);

	gpc_slot(vcpu->vm, KVM_MEM_LOG_DIRTY_PAGES, GPC_GPA, GPC_SIZE, mem);
	run(vcpu);
	kvm_vm_get_dirty_log(vcpu->vm, GPC_SLOT, &dirty);
	TEST_ASSERT_EQ(dirty, 1ul << (RECORD_OFFSET / PAGE_SIZE));

	gpc_wrmsr(vcpu, MSR_KVM_STEAL_TIME, 0);
	kvm_vm_get_dirty_log(vcpu->vm, GPC_SLOT, &dirty);
	run(vcpu);
	kvm_vm_get_dirty_log(vcpu->vm, GPC_SLOT, &dirty);
	TEST_ASSERT_EQ(dirty, 0);
}

/*
 * The flag
 */

static uint64_t vcpu_stat(struct kvm_vcpu *vcpu, const char *name)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *descs, *desc;
	uint64_t value = 0;
	bool found = false;
	int fd = vcpu_get_stats_fd(vcpu), i;

	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc && !found; i++) {
		desc = get_stats_descriptor(descs, i, &header);
		found = !strcmp(desc->name, name);
		if (found)
			read_stat_data(fd, &header, desc, &value, 1);
	}
	TEST_ASSERT(found, "No vCPU statistic %s", name);
	free(descs);
	close(fd);
	return value;
}

/* TLB flushes in a run that finds @preempted in the flag. */
static uint64_t flushes(struct kvm_vcpu *vcpu, struct kvm_steal_time *st, uint8_t preempted)
{
	uint64_t before = vcpu_stat(vcpu, "tlb_flush");

	WRITE_ONCE(st->preempted, preempted);
	run(vcpu);
	TEST_ASSERT_EQ(READ_ONCE(st->preempted), 0);
	return vcpu_stat(vcpu, "tlb_flush") - before;
}

/* Like another vCPU that finds this one preempted. */
STEAL_TEST(tlb_flush)
{
	struct kvm_steal_time *st = record_in(record_on_anon(vcpu));
	uint64_t without;

	GPC_REQUIRE(kvm_cpu_has(X86_FEATURE_KVM_PV_TLB_FLUSH), "no PV TLB flush");

	without = flushes(vcpu, st, KVM_VCPU_PREEMPTED);
	TEST_ASSERT_EQ(flushes(vcpu, st, KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB), without + 1);
	TEST_ASSERT_EQ(flushes(vcpu, st, KVM_VCPU_PREEMPTED), without);
}

/* KVM flushes only for guests that have the feature. */
STEAL_TEST(tlb_flush_without_feature)
{
	struct kvm_steal_time *st;
	uint64_t without;

	vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_KVM_PV_TLB_FLUSH);
	vcpu_enable_cap(vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
	st = record_in(record_on_anon(vcpu));

	without = flushes(vcpu, st, KVM_VCPU_PREEMPTED);
	TEST_ASSERT_EQ(flushes(vcpu, st, KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB), without);
}

static void spinning_guest(void)
{
	for (;;)
		asm volatile("sti");
}

static void *spin(void *data)
{
	struct kvm_vcpu *vcpu = data;

	while (!READ_ONCE(vcpu->run->immediate_exit))
		__vcpu_run(vcpu);
	return NULL;
}

/*
 * The spinner's thread shares its CPU with this loop, so it is preempted in the guest
 * sooner or later.  Until then @vcpu reads the spinner's record.
 */
STEAL_TEST(preempted)
{
	struct kvm_vcpu *spinner = vm_vcpu_add(vcpu->vm, 1, spinning_guest);
	void *mem = gpc_mmap_anon(NULL);
	uint8_t preempted = 0;
	pthread_t thread;
	uint64_t runs;

	memset(mem, 0, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	vcpu_set_msr(spinner, MSR_KVM_STEAL_TIME, RECORD | KVM_MSR_ENABLED);

	/* The new thread is pinned to this CPU, too: it waits while this thread runs. */
	pthread_create(&thread, NULL, spin, spinner);
	for (runs = 0; !preempted; runs++) {
		TEST_ASSERT(runs < 1000000, "Never preempted");
		sched_yield();
		gpc_run(vcpu, (struct gpc_step) {
			.peek = RECORD + offsetof(struct kvm_steal_time, preempted) / 8 * 8,
		});
		preempted = gpc_step.word >> 8 * (offsetof(struct kvm_steal_time, preempted) % 8);
	}
	TEST_ASSERT_EQ(preempted, KVM_VCPU_PREEMPTED);

	/* The thread ends when it runs again. */
	WRITE_ONCE(spinner->run->immediate_exit, 1);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
}

/*
 * Memory that returns while the vCPU runs
 */

static uint64_t loops;

static void counting_guest(void)
{
	asm volatile("sti");
	for (;;)
		WRITE_ONCE(loops, loops + 1);
}

static pid_t spinner_tid;

static void *spin_with_tid(void *vcpu)
{
	WRITE_ONCE(spinner_tid, gettid());
	return spin(vcpu);
}

/* How often the spinner's thread has lost its CPU: KVM then loads the vCPU again. */
static uint64_t spinner_switches(void)
{
	static const char *const keys[] = { "voluntary_ctxt_switches: %lu",
					    "nonvoluntary_ctxt_switches: %lu" };
	uint64_t count, sum = 0;
	char path[64], line[128];
	FILE *f;
	int i;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", spinner_tid);
	f = fopen(path, "r");
	TEST_ASSERT(f, "Cannot read %s", path);
	while (fgets(line, sizeof(line), f)) {
		for (i = 0; i < ARRAY_SIZE(keys); i++)
			if (sscanf(line, keys[i], &count) == 1)
				sum += count;
	}
	fclose(f);
	return sum;
}

static void move_spinner(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	TEST_ASSERT(!sched_setaffinity(spinner_tid, sizeof(cpus), &cpus), "Cannot move a thread");
}

/*
 * The spinner is preempted, loses its record's page, and then runs on another CPU. When
 * the page is back, returns 1 if the record shows that the spinner runs, or 0 if it does
 * not; -1 if the spinner lost its CPU in between.
 */
static int says_that_it_runs(struct kvm_steal_time *st, void *page, const uint64_t *loops)
{
	uint64_t switches, since;
	int i;

	move_spinner(sched_getcpu());
	for (;;) {
		while (!READ_ONCE(st->preempted))
			sched_yield();
		TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ), "mprotect");
		if (READ_ONCE(st->preempted))
			break;
		TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	}

	move_spinner(gpc_other_cpu());
	for (since = READ_ONCE(*loops); READ_ONCE(*loops) - since < 1000;)
		cpu_relax();
	TEST_ASSERT_EQ(READ_ONCE(st->preempted), KVM_VCPU_PREEMPTED);

	switches = spinner_switches();
	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	for (i = 0; i < 100 && READ_ONCE(st->preempted); i++)
		usleep(1000);
	if (spinner_switches() != switches)
		return -1;
	return !READ_ONCE(st->preempted);
}

STEAL_TEST(preempted_while_unmapped)
{
	struct kvm_vcpu *spinner = vm_vcpu_add(vcpu->vm, 1, counting_guest);
	void *mem = gpc_mmap_anon(NULL);
	pthread_t thread;
	int i, says = -1;

	GPC_REQUIRE(gpc_other_cpu() >= 0, "only one CPU");
	memset(mem, 0, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	vcpu_set_msr(spinner, MSR_KVM_STEAL_TIME, RECORD | KVM_MSR_ENABLED);

	pthread_create(&thread, NULL, spin_with_tid, spinner);
	while (!READ_ONCE(spinner_tid))
		sched_yield();
	for (i = 0; i < 50 && says < 0; i++)
		says = says_that_it_runs(record_in(mem), mem + PAGE_SIZE,
					 addr_gva2hva(vcpu->vm, (uintptr_t)&loops));
	TEST_ASSERT(says >= 0, "The vCPU's thread lost its CPU each time");
	TEST_ASSERT(says, "Still preempted, 100 ms after its memory returned");

	WRITE_ONCE(spinner->run->immediate_exit, 1);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
}

static void ignore(int sig)
{
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_KVM_STEAL_TIME));

	signal(SIGUSR1, ignore);
	return test_harness_run(argc, argv);
}
