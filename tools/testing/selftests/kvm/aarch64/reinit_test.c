// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_ARM_VCPU_INIT of vCPUs that have run (Documentation/virt/kvm/arm/reinit.rst): the
 * guest, its MMU off, sees what the VMM has written, and KVM does what the architecture
 * asks for, once for a reset, for the pages that are mapped and for no other.
 *
 * An emulator's caches are coherent, so that what the guest sees is not enough: KVM's
 * statistics and tracepoints say which pages were cleaned, and when.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/klog.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/sizes.h>

#include "bare.h"
#include "kvm_test_harness.h"
#include "ucall_common.h"

#define MAX_VCPUS	64
#define SIZE		(8ul * SZ_1M)
#define END		(BARE_GPA + SIZE)
#define TRACE		"/sys/kernel/tracing/"
#define LINE		512

static size_t page;
static bool fwb, dic;

/*
 * The host
 */

/* The kernel shows it to nobody, but says it when it boots. */
static bool host_has_fwb(void)
{
	int size = klogctl(10, NULL, 0);	/* SYSLOG_ACTION_SIZE_BUFFER */
	char *log = calloc(1, size + 1);
	bool has;

	TEST_ASSERT(klogctl(3, log, size) > 0, "Cannot read the kernel's log");
	has = strstr(log, "detected: Stage-2 Force Write-Back");
	free(log);
	return has;
}

static bool host_has_dic(void)
{
	uint64_t ctr;

	asm volatile("mrs %0, ctr_el0" : "=r"(ctr));
	return ctr & BIT(29);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	TEST_ASSERT(fd >= 0, "Cannot open %s", path);
	TEST_ASSERT(write(fd, text, strlen(text)) == strlen(text), "Cannot write %s", path);
	close(fd);
}

/*
 * What KVM did
 */

struct done {
	uint64_t reinits, pages, icache;
};

static bool has_stat(struct kvm_vm *vm, const char *name)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *descs;
	bool has = false;
	int i, fd = vm_get_stats_fd(vm);

	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc && !has; i++)
		has = !strcmp(get_stats_descriptor(descs, i, &header)->name, name);
	free(descs);
	close(fd);
	return has;
}

static struct done done(struct kvm_vm *vm)
{
	return (struct done) {
		.reinits = vm_get_stat(vm, "reinits"),
		.pages = vm_get_stat(vm, "reinit_cleaned_pages"),
		.icache = vm_get_stat(vm, "reinit_icache_invals"),
	};
}

/* Since @before guest memory was made coherent @times times, @pages in all. */
static void __assert_done(struct kvm_vm *vm, struct done before, uint64_t times,
			  uint64_t pages, int line)
{
	struct done now = done(vm);

	TEST_ASSERT(now.reinits - before.reinits == times,
		    "Line %d: %lu times, not %lu", line, now.reinits - before.reinits, times);
	TEST_ASSERT(now.icache - before.icache == (dic ? 0 : times),
		    "Line %d: %lu times the I-cache", line, now.icache - before.icache);
	TEST_ASSERT(now.pages - before.pages == (fwb ? 0 : pages),
		    "Line %d: %lu pages, not %lu", line, now.pages - before.pages,
		    fwb ? 0 : pages);
}

#define assert_done(vm, before, times, pages) __assert_done(vm, before, times, pages, __LINE__)

static void trace_on(void)
{
	write_file(TRACE "trace", "");
	write_file(TRACE "events/kvm/kvm_reinit_clean/enable", "1");
	write_file(TRACE "events/kvm/kvm_guest_fault/enable", "1");
}

static void trace_off(void)
{
	write_file(TRACE "events/kvm/kvm_reinit_clean/enable", "0");
	write_file(TRACE "events/kvm/kvm_guest_fault/enable", "0");
}

/* The next line of the trace with @event; from the start when @f is NULL. */
static bool next_traced(FILE **f, char *line, const char *event)
{
	if (!*f)
		*f = fopen(TRACE "trace", "r");
	TEST_ASSERT(*f, "Cannot open the trace");
	while (fgets(line, LINE, *f)) {
		if (strstr(line, event))
			return true;
	}
	fclose(*f);
	return false;
}

/* Bytes of [@start, @end) that were cleaned. */
static uint64_t cleaned(uint64_t start, uint64_t end)
{
	uint64_t ipa, size, bytes = 0;
	char line[LINE];
	FILE *f = NULL;

	while (next_traced(&f, line, "kvm_reinit_clean: ")) {
		TEST_ASSERT(sscanf(strstr(line, "IPA"), "IPA %lx size %lx", &ipa, &size) == 2,
			    "Unexpected trace: %s", line);
		if (ipa < end && ipa + size > start)
			bytes += min(ipa + size, end) - max(ipa, start);
	}
	return bytes;
}

/* Faults in [@start, @end). */
static uint64_t faults(uint64_t start, uint64_t end)
{
	char line[LINE];
	uint64_t ipa, n = 0;
	FILE *f = NULL;

	while (next_traced(&f, line, "kvm_guest_fault: ")) {
		TEST_ASSERT(sscanf(strstr(line, "ipa"), "ipa %lx", &ipa) == 1,
			    "Unexpected trace: %s", line);
		n += ipa >= start && ipa < end;
	}
	return n;
}

/*
 * The VM
 */

FIXTURE(reinit)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	char *mem;
};

static void *mmap_pages(size_t size)
{
	char *mem = bare_mmap(size + SZ_2M);

	mem = (char *)align_up((uintptr_t)mem, SZ_2M);
	(void)madvise(mem, size, MADV_NOHUGEPAGE);
	return memset(mem, 0, size);
}

FIXTURE_SETUP(reinit)
{
	page = getpagesize();
	fwb = host_has_fwb();
	dic = host_has_dic();

	self->vm = vm_create_barebones();
	if (!has_stat(self->vm, "reinits"))
		SKIP(return, "KVM does not say what it does for a reset");
	self->mem = mmap_pages(SIZE);
	bare_slot(self->vm, 0, SIZE, self->mem);
	bare_load(self->mem, 1);
}

FIXTURE_TEARDOWN(reinit)
{
	kvm_vm_free(self->vm);
}

static void add_vcpus(struct kvm_vm *vm, struct kvm_vcpu **vcpus, int n)
{
	int i;

	for (i = 0; i < n; i++)
		vcpus[i] = __vm_vcpu_add(vm, i);
	for (i = 0; i < n; i++)
		bare_init(vcpus[i], false);
}

/* Run the program at the start of memory on the words of [@start, @end), a page apart. */
static struct bare_report run_on(struct kvm_vcpu *vcpu, uint64_t start, uint64_t end,
				 uint64_t value)
{
	bare_start(vcpu, BARE_GPA, (struct bare_work) {
		.start = start, .end = end, .stride = page, .value = value,
	});
	return bare_run(vcpu);
}

static void idle(struct kvm_vcpu *vcpu)
{
	run_on(vcpu, 0, 0, 0);
}

static void assert_report(struct bare_report r, uint64_t name, uint64_t sum)
{
	TEST_ASSERT(r.name == name && r.sum == sum, "Program %lu read %lu, not %lu and %lu",
		    r.name, r.sum, name, sum);
}

static uint64_t *word(char *mem, uint64_t gpa)
{
	return (uint64_t *)(mem + (gpa - BARE_GPA));
}

/*
 * What the guest sees
 */

/* With MMU and caches on: write all of the memory. */
static void first_life(void)
{
	uint64_t gva;

	for (gva = BARE_GPA; gva < END; gva += page)
		WRITE_ONCE(*(uint64_t *)gva, ~0ul);
	GUEST_SYNC(0);
	GUEST_FAIL("Ran on");
}

TEST_F(reinit, sees_what_was_written_after_a_life_with_the_mmu_on)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&vcpu, first_life);
	struct done before;
	struct ucall uc;
	uint64_t gpa, sum = 0;

	bare_slot(vm, 0, SIZE, self->mem);
	virt_map(vm, BARE_GPA, BARE_GPA, SIZE / vm->page_size);
	sync_global_to_guest(vm, page);
	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, &uc), UCALL_SYNC);
	vcpu_run_complete_io(vcpu);
	TEST_ASSERT_EQ(*word(self->mem, END - page), ~0ul);

	trace_on();
	before = done(vm);
	/* Some before the ioctl, some after it. */
	for (gpa = BARE_GPA + page; gpa < END - 4 * page; gpa += page) {
		*word(self->mem, gpa) = gpa;
		sum += gpa;
	}
	bare_init(vcpu, false);
	for (; gpa < END; gpa += page) {
		*word(self->mem, gpa) = gpa;
		sum += gpa;
	}
	bare_load(self->mem, 7);
	assert_done(vm, before, 0, 0);

	assert_report(run_on(vcpu, BARE_GPA + page, END, 0), 7, sum);
	trace_off();
	TEST_ASSERT_EQ(done(vm).reinits - before.reinits, 1);
	TEST_ASSERT_EQ(cleaned(BARE_GPA, END), fwb ? 0 : SIZE);
	kvm_vm_free(vm);
}

TEST_F(reinit, sees_code_and_data_of_each_of_many_resets)
{
	struct kvm_vcpu **vcpus = self->vcpus;
	struct done before;
	uint64_t gpa, sum;
	int i, j;

	add_vcpus(self->vm, vcpus, 3);
	for (j = 0; j < 3; j++)
		run_on(vcpus[j], BARE_GPA + page, END, ~0ul);

	for (i = 1; i <= 20; i++) {
		before = done(self->vm);
		for (j = 0; j < 3; j++)
			bare_init(vcpus[j], false);
		bare_load(self->mem, i);
		for (sum = 0, gpa = BARE_GPA + page; gpa < END; gpa += page) {
			*word(self->mem, gpa) = gpa * i;
			sum += gpa * i;
		}
		assert_done(self->vm, before, 0, 0);
		assert_report(run_on(vcpus[i % 3], BARE_GPA + page, END, 0), i, sum);
		for (j = 0; j < 3; j++)
			assert_report(run_on(vcpus[j], BARE_GPA + page, END, i), i,
				      j ? i * (SIZE / page - 1) : sum);
		assert_done(self->vm, before, 1, SIZE / page);
	}
}

/*
 * What is done, and when
 */

TEST_F(reinit, cleans_what_is_mapped_and_nothing_else)
{
	struct kvm_vcpu *vcpu;
	struct done before;
	uint64_t gpa;

	add_vcpus(self->vm, &vcpu, 1);
	/* One that is only read, and every third of the rest but the last. */
	run_on(vcpu, BARE_GPA + page, BARE_GPA + 2 * page, 0);
	for (gpa = BARE_GPA + 3 * page; gpa < END - 4 * page; gpa += 3 * page)
		run_on(vcpu, gpa, gpa + page, 1);
	/* And one that has gone. */
	run_on(vcpu, END - 2 * page, END - page, 1);
	TEST_ASSERT(!madvise(word(self->mem, END - 2 * page), page, MADV_DONTNEED),
		    __KVM_SYSCALL_ERROR("madvise()", -1));

	trace_on();
	before = done(self->vm);
	bare_init(vcpu, false);
	idle(vcpu);
	trace_off();

	for (gpa = BARE_GPA; gpa < END; gpa += page) {
		uint64_t i = (gpa - BARE_GPA) / page;
		bool mapped = i < 2 || (i % 3 == 0 && gpa < END - 4 * page);

		TEST_ASSERT(cleaned(gpa, gpa + page) == (mapped && !fwb ? page : 0),
			    "Page %lu: %lu bytes cleaned", i, cleaned(gpa, gpa + page));
		if (gpa > BARE_GPA + 40 * page && gpa < END - 16 * page)
			gpa = END - 16 * page;
	}
	TEST_ASSERT_EQ(cleaned(0, -1), fwb ? 0 : page *
		       (done(self->vm).pages - before.pages));
	assert_done(self->vm, before, 1, 2 + ((END - 4 * page) - (BARE_GPA + 3 * page) +
					      3 * page - 1) / (3 * page));
}

TEST_F(reinit, is_done_once_for_a_reset)
{
	static const int counts[] = { 1, 8, 64 };
	struct done before;
	int i, j, n;

	add_vcpus(self->vm, self->vcpus, MAX_VCPUS);
	for (i = 0; i < MAX_VCPUS; i++)
		run_on(self->vcpus[i], BARE_GPA, END, 0);

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		n = counts[i];
		before = done(self->vm);
		for (j = 0; j < n; j++)
			bare_init(self->vcpus[j], false);
		/* Again, the other way round, as if the VMM were in doubt. */
		for (j = n - 1; j >= 0; j--)
			bare_init(self->vcpus[j], false);
		assert_done(self->vm, before, 0, 0);
		for (j = 0; j < n; j++)
			idle(self->vcpus[j]);
		assert_done(self->vm, before, 1, SIZE / page);
	}
}

struct runner {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	pthread_barrier_t *barrier;
	struct bare_report report;
};

static void *run_at_once(void *arg)
{
	struct runner *r = arg;

	pthread_barrier_wait(r->barrier);
	r->report = bare_run(r->vcpu);
	return NULL;
}

TEST_F(reinit, is_done_once_by_vcpus_that_start_at_once)
{
	struct runner runners[8];
	pthread_barrier_t barrier;
	struct done before;
	int i, j;

	pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(runners));
	add_vcpus(self->vm, self->vcpus, ARRAY_SIZE(runners));
	for (i = 0; i < ARRAY_SIZE(runners); i++)
		run_on(self->vcpus[i], BARE_GPA, END, 0);

	for (j = 1; j <= 10; j++) {
		before = done(self->vm);
		for (i = 0; i < ARRAY_SIZE(runners); i++) {
			bare_init(self->vcpus[i], false);
			bare_start(self->vcpus[i], BARE_GPA, (struct bare_work) {
				.start = BARE_GPA + page, .end = END, .stride = page,
			});
		}
		bare_load(self->mem, j);
		*word(self->mem, END - page) = j;
		for (i = 0; i < ARRAY_SIZE(runners); i++) {
			runners[i] = (struct runner) {
				.vcpu = self->vcpus[i], .barrier = &barrier,
			};
			pthread_create(&runners[i].thread, NULL, run_at_once, &runners[i]);
		}
		for (i = 0; i < ARRAY_SIZE(runners); i++) {
			pthread_join(runners[i].thread, NULL);
			assert_report(runners[i].report, j, j);
		}
		assert_done(self->vm, before, 1, SIZE / page);
	}
}

TEST_F(reinit, is_not_done_for_a_first_init)
{
	struct done before = done(self->vm);

	add_vcpus(self->vm, self->vcpus, 2);
	idle(self->vcpus[0]);
	/* Hotplugged, and initialized twice, but it has never run. */
	bare_init(self->vcpus[1], false);
	idle(self->vcpus[1]);
	assert_done(self->vm, before, 0, 0);
}

/* The VMM resets all vCPUs that have run, and starts with one that has not. */
TEST_F(reinit, is_done_by_a_vcpu_that_has_never_run)
{
	struct done before;

	add_vcpus(self->vm, self->vcpus, 2);
	run_on(self->vcpus[0], BARE_GPA, END, 0);
	before = done(self->vm);
	bare_init(self->vcpus[0], false);
	bare_load(self->mem, 2);
	assert_report(run_on(self->vcpus[1], BARE_GPA + page, END, 0), 2, 0);
	assert_done(self->vm, before, 1, SIZE / page);
	idle(self->vcpus[0]);
	assert_done(self->vm, before, 1, SIZE / page);
}

TEST_F(reinit, waits_for_a_run_that_enters_the_guest)
{
	struct kvm_vcpu *vcpu;
	struct done before;

	add_vcpus(self->vm, &vcpu, 1);
	run_on(vcpu, BARE_GPA, END, 0);

	before = done(self->vm);
	bare_init(vcpu, false);
	bare_start(vcpu, BARE_GPA, (struct bare_work) { });
	vcpu->run->immediate_exit = 1;
	TEST_ASSERT(__vcpu_run(vcpu) == -1 && errno == EINTR, "Not interrupted");
	vcpu->run->immediate_exit = 0;
	assert_done(self->vm, before, 0, 0);
	bare_load(self->mem, 3);
	assert_report(bare_run(vcpu), 3, 0);
	assert_done(self->vm, before, 1, SIZE / page);
}

static void *run_asleep(void *arg)
{
	struct runner *r = arg;

	WRITE_ONCE(r->report.name, syscall(SYS_gettid));
	if (__vcpu_run(r->vcpu) != -1 || errno != EINTR)
		TEST_FAIL("A vCPU that is powered off has run");
	return NULL;
}

static void on_signal(int sig)
{
}

/* It has nothing to do but KVM_RUN, and nothing else to sleep in. */
static void wait_until_asleep(struct runner *r)
{
	char path[64], text[64];
	FILE *f;

	while (!READ_ONCE(r->report.name))
		sched_yield();
	snprintf(path, sizeof(path), "/proc/self/task/%lu/stat", r->report.name);
	do {
		sched_yield();
		f = fopen(path, "r");
		TEST_ASSERT(f && fgets(text, sizeof(text), f), "Cannot read %s", path);
		fclose(f);
	} while (!strstr(text, ") S "));
}

static void sleep_in_run(struct runner *r, struct kvm_vcpu *vcpu)
{
	*r = (struct runner) { .vcpu = vcpu };
	pthread_create(&r->thread, NULL, run_asleep, r);
	wait_until_asleep(r);
}

static void wake(struct runner *r)
{
	pthread_kill(r->thread, SIGUSR1);
	pthread_join(r->thread, NULL);
}

TEST_F(reinit, is_not_done_by_a_vcpu_that_is_powered_off)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct done before;
	struct runner r;

	add_vcpus(self->vm, self->vcpus, 2);
	run_on(self->vcpus[0], BARE_GPA, END, 0);
	idle(self->vcpus[1]);
	sigaction(SIGUSR1, &action, NULL);

	before = done(self->vm);
	bare_init(self->vcpus[1], true);
	bare_init(self->vcpus[0], false);
	sleep_in_run(&r, self->vcpus[1]);
	wake(&r);
	assert_done(self->vm, before, 0, 0);

	sleep_in_run(&r, self->vcpus[1]);
	assert_done(self->vm, before, 0, 0);
	bare_load(self->mem, 4);
	assert_report(run_on(self->vcpus[0], BARE_GPA + page, END, 0), 4, 0);
	assert_done(self->vm, before, 1, SIZE / page);
	wake(&r);
	assert_done(self->vm, before, 1, SIZE / page);
}

/*
 * While other things happen
 */

static bool stop;

/* Exits of a vCPU that runs on, and what it wrote the last time. */
struct sibling {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	uint64_t *word;
	uint64_t runs;
};

static void *run_on_and_on(void *arg)
{
	struct sibling *s = arg;
	uint64_t value, sum;

	/* Each time it finds what it wrote, and nobody else does. */
	for (value = 1; !READ_ONCE(stop); value++) {
		vcpu_set_reg(s->vcpu, ARM64_CORE_REG(regs.regs[5]), value);
		sum = bare_run(s->vcpu).sum;
		TEST_ASSERT(sum == value - 1, "Lost a write: %lu, not %lu", sum, value - 1);
		WRITE_ONCE(s->runs, value);
	}
	return NULL;
}

static void sibling_start(struct sibling *s, struct kvm_vcpu *vcpu, char *mem, uint64_t gpa)
{
	*s = (struct sibling) { .vcpu = vcpu, .word = word(mem, gpa) };
	bare_load((void *)s->word + page, 100);
	bare_start(vcpu, gpa + page, (struct bare_work) {
		.start = gpa, .end = gpa + 1, .stride = page,
	});
	WRITE_ONCE(stop, false);
	pthread_create(&s->thread, NULL, run_on_and_on, s);
}

/* It has run, from start to end, since. */
static void sibling_has_run(struct sibling *s)
{
	uint64_t runs = READ_ONCE(s->runs);

	while (READ_ONCE(s->runs) < runs + 2)
		sched_yield();
}

static void sibling_end(struct sibling *s)
{
	WRITE_ONCE(stop, true);
	pthread_join(s->thread, NULL);
}

TEST_F(reinit, is_not_done_by_a_sibling_that_runs_on)
{
	struct kvm_vcpu **vcpus = self->vcpus;
	struct done before;
	struct sibling s;
	int i;

	add_vcpus(self->vm, vcpus, 2);
	run_on(vcpus[0], BARE_GPA, END, 0);
	sibling_start(&s, vcpus[1], self->mem, END - 2 * page);
	sibling_has_run(&s);

	for (i = 1; i <= 20; i++) {
		before = done(self->vm);
		bare_init(vcpus[0], false);
		sibling_has_run(&s);
		assert_done(self->vm, before, 0, 0);
		bare_load(self->mem, i);
		*word(self->mem, END - 3 * page) = i;
		assert_report(run_on(vcpus[0], BARE_GPA + page, END - 2 * page, 0), i, i);
		assert_done(self->vm, before, 1, SIZE / page);
	}
	sibling_end(&s);
}

/* A thread of the VMM that changes memory, while vCPU 0 is reset and vCPU 1 runs on. */
static void reset_meanwhile(struct kvm_vm *vm, struct kvm_vcpu **vcpus, char *mem,
			    void *(*change)(void *), int times)
{
	pthread_t thread;
	struct done before;
	struct sibling s;
	int i;

	add_vcpus(vm, vcpus, 2);
	run_on(vcpus[0], BARE_GPA, END, 0);
	sibling_start(&s, vcpus[1], mem, END - 2 * page);
	pthread_create(&thread, NULL, change, mem);

	for (i = 1; i <= times; i++) {
		before = done(vm);
		bare_init(vcpus[0], false);
		bare_load(mem, i);
		*word(mem, BARE_GPA + page) = i;
		assert_report(run_on(vcpus[0], BARE_GPA + page, BARE_GPA + SIZE / 2, 0), i, i);
		TEST_ASSERT_EQ(done(vm).reinits - before.reinits, 1);
	}
	sibling_end(&s);
	pthread_join(thread, NULL);
}

#define CHANGED	(SIZE / 2)	/* from there to the sibling's pages */

static void *drop_and_touch(void *arg)
{
	char *mem = arg;

	while (!READ_ONCE(stop)) {
		TEST_ASSERT(!madvise(mem + CHANGED, SIZE / 4, MADV_DONTNEED),
			    __KVM_SYSCALL_ERROR("madvise()", -1));
		memset(mem + CHANGED, 0, SIZE / 4);
		TEST_ASSERT(!munmap(mem + CHANGED, SIZE / 4), __KVM_SYSCALL_ERROR("munmap()", -1));
		TEST_ASSERT(mmap(mem + CHANGED, SIZE / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE |
				 MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
			    __KVM_SYSCALL_ERROR("mmap()", -1));
	}
	return NULL;
}

TEST_F(reinit, goes_with_memory_that_is_unmapped)
{
	reset_meanwhile(self->vm, self->vcpus, self->mem, drop_and_touch, 200);
}

static struct kvm_vm *slots_vm;
static char *slots_mem;

static void *change_memslots(void *arg)
{
	uint64_t gpa = END + SZ_2M;

	while (!READ_ONCE(stop)) {
		vm_set_user_memory_region(slots_vm, BARE_SLOT + 1, 0, gpa, SZ_2M, slots_mem);
		vm_set_user_memory_region(slots_vm, BARE_SLOT + 1, 0, gpa + SZ_2M, SZ_2M,
					  slots_mem);
		vm_set_user_memory_region(slots_vm, BARE_SLOT + 1, KVM_MEM_LOG_DIRTY_PAGES,
					  gpa + SZ_2M, SZ_2M, slots_mem);
		vm_set_user_memory_region(slots_vm, BARE_SLOT + 1, 0, 0, 0, NULL);
	}
	return NULL;
}

TEST_F(reinit, goes_with_memslots_that_change)
{
	slots_vm = self->vm;
	slots_mem = mmap_pages(SZ_2M);
	reset_meanwhile(self->vm, self->vcpus, self->mem, change_memslots, 200);
}

TEST_F(reinit, leaves_the_dirty_log_alone)
{
	unsigned long *log = calloc(SIZE / page / 8 + 8, 1);
	struct kvm_vcpu *vcpu;
	struct done before;
	int i;

	add_vcpus(self->vm, &vcpu, 1);
	run_on(vcpu, BARE_GPA + page, END, 5);
	bare_slot(self->vm, KVM_MEM_LOG_DIRTY_PAGES, SIZE, self->mem);
	kvm_vm_get_dirty_log(self->vm, BARE_SLOT, log);

	before = done(self->vm);
	bare_init(vcpu, false);
	assert_report(run_on(vcpu, BARE_GPA + page, END, 0), 1, 5 * (SIZE / page - 1));
	assert_done(self->vm, before, 1, SIZE / page);
	kvm_vm_get_dirty_log(self->vm, BARE_SLOT, log);
	for (i = 0; i < SIZE / page / 64; i++)
		TEST_ASSERT_EQ(log[i], 0);

	/* It is still kept. */
	bare_init(vcpu, false);
	run_on(vcpu, BARE_GPA + 70 * page, BARE_GPA + 71 * page, 1);
	kvm_vm_get_dirty_log(self->vm, BARE_SLOT, log);
	TEST_ASSERT_EQ(log[1], BIT(6));
	free(log);
}

/*
 * Memory of other kinds
 */

/* All of the memory in blocks of stage 2, as many faults as that are. */
static void assert_blocks_are_cleaned(struct kvm_vm *vm, struct kvm_vcpu **vcpus, char *mem)
{
	uint64_t gpa, sum = 0;
	struct done before;

	bare_load(mem, 1);
	add_vcpus(vm, vcpus, 1);
	trace_on();
	run_on(vcpus[0], BARE_GPA + page, END, 1);
	TEST_ASSERT_EQ(faults(BARE_GPA + SZ_2M, END), SIZE / SZ_2M - 1);

	before = done(vm);
	bare_init(vcpus[0], false);
	bare_load(mem, 9);
	for (gpa = BARE_GPA + page; gpa < END; gpa += page) {
		*word(mem, gpa) = gpa;
		sum += gpa;
	}
	write_file(TRACE "trace", "");
	assert_report(run_on(vcpus[0], BARE_GPA + page, END, 0), 9, sum);
	trace_off();
	assert_done(vm, before, 1, SIZE / page);
	TEST_ASSERT_EQ(cleaned(BARE_GPA, END), fwb ? 0 : SIZE);
	for (gpa = BARE_GPA; gpa < END; gpa += SZ_2M)
		TEST_ASSERT_EQ(cleaned(gpa, gpa + SZ_2M), fwb ? 0 : SZ_2M);
	/* In place: nothing is to be faulted in again. */
	TEST_ASSERT_EQ(faults(BARE_GPA, END), 0);
}

TEST_F(reinit, cleans_transparent_huge_pages)
{
	char *mem = bare_mmap(SIZE + SZ_2M);

	if (page != SZ_4K)
		SKIP(return, "for pages of 4K, whose blocks are of 2M");
	if (access("/sys/kernel/mm/transparent_hugepage", F_OK))
		SKIP(return, "kernel without transparent huge pages");
	mem = (char *)align_up((uintptr_t)mem, SZ_2M);
	TEST_ASSERT(!madvise(mem, SIZE, MADV_HUGEPAGE), __KVM_SYSCALL_ERROR("madvise()", -1));
	memset(mem, 0, SIZE);
	vm_set_user_memory_region(self->vm, BARE_SLOT, 0, 0, 0, NULL);
	bare_slot(self->vm, 0, SIZE, mem);
	assert_blocks_are_cleaned(self->vm, self->vcpus, mem);
}

#define NR_HUGEPAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

TEST_F(reinit, cleans_hugetlb_pages)
{
	char *mem;

	if (page != SZ_4K)
		SKIP(return, "for pages of 4K, whose blocks are of 2M");
	write_file(NR_HUGEPAGES, "4");
	mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	memset(mem, 0, SIZE);
	vm_set_user_memory_region(self->vm, BARE_SLOT, 0, 0, 0, NULL);
	bare_slot(self->vm, 0, SIZE, mem);
	assert_blocks_are_cleaned(self->vm, self->vcpus, mem);
	vm_set_user_memory_region(self->vm, BARE_SLOT, 0, 0, 0, NULL);
	munmap(mem, SIZE);
	write_file(NR_HUGEPAGES, "0");
}

/* The flash of QEMU's virt machine, all zeros: hw/arm/virt.c */
#define FLASH_PA	0x04000000ul
#define FLASH_GPA	(END + SZ_2M)

TEST_F(reinit, does_not_touch_a_device)
{
	struct kvm_vcpu *vcpu;
	struct done before;
	int i, fd = open("/dev/mem", O_RDWR | O_SYNC);
	void *flash;

	TEST_ASSERT(fd >= 0, "Cannot open /dev/mem");
	flash = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, FLASH_PA);
	TEST_ASSERT(flash != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap() of /dev/mem", -1));
	vm_set_user_memory_region(self->vm, BARE_SLOT + 1, 0, FLASH_GPA, 4 * page, flash);

	add_vcpus(self->vm, &vcpu, 1);
	trace_on();
	run_on(vcpu, BARE_GPA, END, 0);
	run_on(vcpu, FLASH_GPA, FLASH_GPA + 4 * page, 0);
	TEST_ASSERT_EQ(faults(FLASH_GPA, FLASH_GPA + 4 * page), 4);

	for (i = 0; i < 3; i++) {
		write_file(TRACE "trace", "");
		before = done(self->vm);
		bare_init(vcpu, false);
		run_on(vcpu, FLASH_GPA, FLASH_GPA + 4 * page, 0);
		assert_done(self->vm, before, 1, SIZE / page);
		TEST_ASSERT_EQ(cleaned(FLASH_GPA, FLASH_GPA + 4 * page), 0);
		/* It stays mapped, too. */
		TEST_ASSERT_EQ(faults(FLASH_GPA, FLASH_GPA + 4 * page), 0);
	}
	trace_off();
}

int main(int argc, char **argv)
{
	return test_harness_run(argc, argv);
}
