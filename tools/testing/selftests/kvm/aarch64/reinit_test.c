// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_ARM_VCPU_INIT of vCPUs that have run (Documentation/virt/kvm/arm/reinit.rst): the
 * guest, whose MMU is off, sees what the VMM has written.
 *
 * The caches of an emulator are coherent, so the values that a guest reads are not
 * enough. Kprobes tell which pages of the guest the kernel maintains, and a tracepoint
 * which pages fault. Nothing here relies on counters of the code under test.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/psci.h>
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

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	TEST_ASSERT(fd >= 0, "Cannot open %s", path);
	TEST_ASSERT(write(fd, text, strlen(text)) == strlen(text), "Cannot write %s", path);
	close(fd);
}

/* The CPU says so, as KVM shows it to a guest. EL0 does not see the field. */
static bool host_has_fwb(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, 0);
	uint64_t mmfr2;

	bare_init(vcpu, false);
	vcpu_get_reg(vcpu, KVM_ARM64_SYS_REG(SYS_ID_AA64MMFR2_EL1), &mmfr2);
	kvm_vm_free(vm);
	return FIELD_GET(ARM64_FEATURE_MASK(ID_AA64MMFR2_EL1_FWB), mmfr2);
}

static bool host_has_dic(void)
{
	uint64_t ctr;

	asm volatile("mrs %0, ctr_el0" : "=r"(ctr));
	return ctr & BIT(29);
}

/*
 * What the kernel does
 */

/* A page: clean and invalidate to PoC, I-cache invalidation, translation faults. */
struct seen {
	uint32_t cleans, icache, faults;
};

/* Memory of the guest that is looked at */
struct watch {
	uint64_t gpa;
	char *hva;
	size_t pages;
	struct seen *seen;
};

/* Of the kernel: virtual minus physical address of RAM */
static uint64_t linear_offset;

static uint64_t physical(const void *hva)
{
	uint64_t entry, offset = (uintptr_t)hva / page * sizeof(entry);
	int fd = open("/proc/self/pagemap", O_RDONLY);

	TEST_ASSERT(fd >= 0 && pread(fd, &entry, sizeof(entry), offset) == sizeof(entry),
		    "Cannot read pagemap");
	close(fd);
	return entry & BIT(63) ? (entry & (BIT_ULL(55) - 1)) * page : 0;
}

static void trace_setup(void)
{
	write_file(TRACE "events/enable", "0");
	write_file(TRACE "kprobe_events",
		   "p:reinit/clean dcache_clean_inval_poc start=%x0:x64 end=%x1:x64\n"
		   "p:reinit/icache icache_inval_pou start=%x0:x64 end=%x1:x64\n");
	write_file(TRACE "buffer_size_kb", "8192");
}

static void trace_enable(const char *on)
{
	write_file(TRACE "events/reinit/enable", on);
	write_file(TRACE "events/kvm/kvm_guest_fault/enable", on);
}

static void watch_start(void)
{
	write_file(TRACE "trace", "");
	trace_enable("1");
}

static void count_range(struct watch *w, uint64_t *pa, uint64_t start, uint64_t end, bool icache)
{
	size_t i;

	for (i = 0; i < w->pages; i++) {
		if (!pa[i] || pa[i] < start || pa[i] >= end)
			continue;
		if (icache)
			w->seen[i].icache++;
		else
			w->seen[i].cleans++;
	}
}

static void count_line(struct watch *w, uint64_t *pa, const char *line)
{
	uint64_t start, end, ipa, hsr;
	const char *args;

	if ((args = strstr(line, "start=0x"))) {
		TEST_ASSERT(sscanf(args, "start=%lx end=%lx", &start, &end) == 2, "%s", line);
		count_range(w, pa, start - linear_offset, end - linear_offset,
			    strstr(line, ": icache: "));
	} else if ((args = strstr(line, "kvm_guest_fault: "))) {
		TEST_ASSERT(sscanf(strstr(args, "ipa"), "ipa %lx, hsr %lx", &ipa, &hsr) == 2,
			    "%s", line);
		/* ISS of a data or instruction abort: FSC */
		if ((hsr & 0x3c) == 0x04 && ipa >= w->gpa && ipa < w->gpa + w->pages * page)
			w->seen[(ipa - w->gpa) / page].faults++;
	}
}

/* What was done to the pages of @w since watch_start() */
static void watch_end(struct watch *w)
{
	uint64_t *pa = calloc(w->pages, sizeof(*pa));
	unsigned long in_buffer, written;
	char line[LINE];
	size_t i;
	FILE *f;

	trace_enable("0");
	memset(w->seen, 0, w->pages * sizeof(*w->seen));
	for (i = 0; i < w->pages; i++)
		pa[i] = physical(w->hva + i * page);

	f = fopen(TRACE "trace", "r");
	TEST_ASSERT(f, "Cannot open the trace");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "# entries-in-buffer/entries-written: %lu/%lu",
			   &in_buffer, &written) == 2)
			TEST_ASSERT(in_buffer == written, "The trace is not complete");
		count_line(w, pa, line);
	}
	fclose(f);
	free(pa);
}

static struct watch watch(uint64_t gpa, void *hva, size_t size)
{
	return (struct watch) {
		.gpa = gpa, .hva = hva, .pages = size / page,
		.seen = calloc(size / page, sizeof(struct seen)),
	};
}

/* The first page that a VM faults in is that of its program. */
static void find_linear_offset(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, 0);
	void *code = bare_code(vm);
	char line[LINE], *args;
	uint64_t start = 0;
	FILE *f;

	bare_init(vcpu, false);
	bare_start(vcpu, BARE_CODE, (struct bare_work) { });
	watch_start();
	bare_run(vcpu);
	trace_enable("0");

	f = fopen(TRACE "trace", "r");
	while (!start && fgets(line, sizeof(line), f)) {
		args = strstr(line, ": clean: ");
		if (args)
			sscanf(strstr(args, "start="), "start=%lx", &start);
	}
	fclose(f);
	TEST_ASSERT(fwb ? !start : !!start, "The program was %scleaned", fwb ? "" : "not ");
	linear_offset = start - physical(code);
	kvm_vm_free(vm);
}

/*
 * The VM
 */

static void *mmap_pages(size_t size, int advice)
{
	char *mem = bare_mmap(size + SZ_2M);

	mem = (char *)align_up((uintptr_t)mem, SZ_2M);
	(void)madvise(mem, size, advice);
	return memset(mem, 0, size);
}

static void add_vcpus(struct kvm_vm *vm, struct kvm_vcpu **vcpus, int n)
{
	int i;

	for (i = 0; i < n; i++)
		vcpus[i] = __vm_vcpu_add(vm, i);
	for (i = 0; i < n; i++)
		bare_init(vcpus[i], false);
}

/* MMU off; read the words of [@start, @end), a page apart, and write @value unless 0. */
static struct bare_report run_on(struct kvm_vcpu *vcpu, uint64_t start, uint64_t end,
				 uint64_t value)
{
	bare_start(vcpu, BARE_CODE, (struct bare_work) {
		.start = start, .end = end, .stride = page, .value = value,
	});
	return bare_run(vcpu);
}

/* The same, and first turn the MMU and the caches on, as a guest that boots does. */
static struct bare_report boot_on(struct kvm_vcpu *vcpu, uint64_t start, uint64_t end,
				  uint64_t value)
{
	bare_start(vcpu, BARE_CODE, (struct bare_work) {
		.start = start, .end = end, .stride = page, .value = value, .mmu = true,
	});
	return bare_run(vcpu);
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

/* Write other words than before. Returns the sum of those up to @end. */
static uint64_t write_words(char *mem, uint64_t factor, uint64_t end)
{
	uint64_t gpa, sum = 0;

	for (gpa = BARE_GPA; gpa < END; gpa += page) {
		*word(mem, gpa) = gpa * factor;
		sum += gpa < end ? gpa * factor : 0;
	}
	return sum;
}

static void prepare(void)
{
	page = getpagesize();
	fwb = host_has_fwb();
	dic = host_has_dic();
	trace_setup();
	find_linear_offset();
}

#define REQUIRE_KPROBES()						\
do {									\
	if (access(TRACE "kprobe_events", F_OK))			\
		SKIP(return, "kernel without kprobe events");		\
} while (0)

/*
 * A reset, whole: all vCPUs are initialized again, a new image is written, each vCPU
 * turns its MMU and its caches on, and the first one touches some of the memory that
 * was mapped in the life before.
 */

FIXTURE(reset)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	char *mem, *code;
};

FIXTURE_VARIANT(reset)
{
	int vcpus;
	bool blocks;
};

#define RESET_VARIANT(kind, n, b) \
	FIXTURE_VARIANT_ADD(reset, kind##_##n) { .vcpus = n, .blocks = b }

RESET_VARIANT(pages, 1, false);
RESET_VARIANT(pages, 2, false);
RESET_VARIANT(pages, 8, false);
RESET_VARIANT(pages, 64, false);
RESET_VARIANT(blocks, 1, true);
RESET_VARIANT(blocks, 2, true);
RESET_VARIANT(blocks, 8, true);
RESET_VARIANT(blocks, 64, true);

FIXTURE_SETUP(reset)
{
	REQUIRE_KPROBES();
	prepare();
	if (variant->blocks && page != SZ_4K)
		SKIP(return, "for pages of 4K, whose blocks are of 2M");
	if (variant->blocks && access("/sys/kernel/mm/transparent_hugepage", F_OK))
		SKIP(return, "kernel without transparent huge pages");
	self->vm = vm_create_barebones();
	self->code = bare_code(self->vm);
	self->mem = mmap_pages(SIZE, variant->blocks ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	bare_slot(self->vm, 0, SIZE, self->mem);
	add_vcpus(self->vm, self->vcpus, variant->vcpus);
}

FIXTURE_TEARDOWN(reset)
{
	kvm_vm_free(self->vm);
}

static void assert_seen(const struct watch *w, size_t i, uint32_t cleans, uint32_t faults)
{
	TEST_ASSERT(w->seen[i].cleans == cleans && w->seen[i].faults == faults,
		    "Page %zu: %u times cleaned, %u faults, not %u and %u", i,
		    w->seen[i].cleans, w->seen[i].faults, cleans, faults);
}

static void reset(struct kvm_vm *vm, struct kvm_vcpu **vcpus, int n, bool blocks,
		  char *mem, char *code, uint64_t end)
{
	struct watch data = watch(BARE_GPA, mem, SIZE), text = watch(BARE_CODE, code, page);
	uint64_t step = blocks ? SZ_2M / page : 1, sum, i, j;

	/* The life before */
	boot_on(vcpus[0], BARE_GPA, END, ~0ul);
	for (i = 1; i < n; i++)
		boot_on(vcpus[i], 0, 0, 0);

	for (j = 2; j < 4; j++) {
		watch_start();
		for (i = 0; i < n; i++)
			bare_init(vcpus[i], false);
		watch_end(&data);
		/* What was mapped is unmapped and cleaned, once. */
		for (i = 0; i < data.pages; i++) {
			bool mapped = j == 2 || i * page < end - BARE_GPA;

			assert_seen(&data, i, !fwb && mapped, 0);
		}

		sum = write_words(mem, j, end);
		bare_load(code, j);

		watch_start();
		assert_report(boot_on(vcpus[0], BARE_GPA, end, ~0ul), j, sum);
		for (i = 1; i < n; i++)
			assert_report(boot_on(vcpus[i], 0, 0, 0), j, 0);
		watch_end(&data);
		watch_end(&text);

		/*
		 * What is touched faults and is cleaned for it, and again when a sibling
		 * turns its caches on. What is not touched costs nothing.
		 */
		for (i = 0; i < data.pages; i++) {
			bool touched = !fwb && i * page < end - BARE_GPA;

			assert_seen(&data, i, touched ? n : 0, touched && i % step == 0);
		}
		assert_seen(&text, 0, fwb ? 0 : 1 + n, !fwb);
		TEST_ASSERT_EQ(text.seen[0].icache, !fwb);
	}
}

#define RESET(end) \
	reset(self->vm, self->vcpus, variant->vcpus, variant->blocks, self->mem, self->code, end)

TEST_F(reset, touches_nothing_again)
{
	RESET(BARE_GPA);
}

TEST_F(reset, touches_half_again)
{
	RESET(BARE_GPA + SIZE / 2);
}

TEST_F(reset, touches_all_again)
{
	RESET(END);
}

/*
 * Which vCPUs, and when
 */

FIXTURE(reinit)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
	char *mem, *code;
	struct watch data;
};

FIXTURE_SETUP(reinit)
{
	REQUIRE_KPROBES();
	prepare();
	self->vm = vm_create_barebones();
	self->code = bare_code(self->vm);
	self->mem = mmap_pages(SIZE, MADV_NOHUGEPAGE);
	self->data = watch(BARE_GPA, self->mem, SIZE);
	bare_slot(self->vm, 0, SIZE, self->mem);
	add_vcpus(self->vm, self->vcpus, 2);
}

FIXTURE_TEARDOWN(reinit)
{
	kvm_vm_free(self->vm);
}

/* Pages of [@start, @end) faulted in, and were cleaned for it, @times times. */
static void assert_faulted_in(const struct watch *w, uint64_t start, uint64_t end,
			      uint32_t times)
{
	size_t i;

	for (i = (start - w->gpa) / page; i < (end - w->gpa) / page; i++)
		assert_seen(w, i, fwb ? 0 : times, fwb ? 0 : times);
}

TEST_F(reinit, unmaps_nothing_for_a_vcpu_that_has_never_run)
{
	boot_on(self->vcpus[0], BARE_GPA, END, 1);
	watch_start();
	bare_init(self->vcpus[1], false);
	bare_init(self->vcpus[1], false);
	run_on(self->vcpus[1], BARE_GPA, END, 0);
	watch_end(&self->data);
	assert_faulted_in(&self->data, BARE_GPA, END, 0);
}

/* Hotplug: all vCPUs that have run are reset, and one that has not starts first. */
TEST_F(reinit, shows_the_image_to_a_vcpu_that_has_never_run)
{
	uint64_t sum;

	boot_on(self->vcpus[0], BARE_GPA, END, 1);
	bare_init(self->vcpus[0], false);
	sum = write_words(self->mem, 5, END);
	watch_start();
	assert_report(run_on(self->vcpus[1], BARE_GPA, END, 0), 1, sum);
	watch_end(&self->data);
	assert_faulted_in(&self->data, BARE_GPA, END, 1);
}

/*
 * The image of a sibling is written after the first vCPU ran, and before the sibling
 * starts on it. The page is mapped in the life before.
 */
#define IMAGE	(END - page)

static void life_and_reset(struct kvm_vcpu **vcpus, char *mem)
{
	/* It is mapped for execution, too. */
	bare_load(word(mem, IMAGE), 3);
	boot_on(vcpus[0], BARE_GPA, IMAGE, 1);
	bare_start(vcpus[1], IMAGE, (struct bare_work) { .mmu = true });
	bare_run(vcpus[1]);

	bare_init(vcpus[0], false);
	bare_init(vcpus[1], true);
	boot_on(vcpus[0], BARE_GPA, IMAGE, 1);
}

static void assert_sibling_sees(struct kvm_vcpu *vcpu, struct watch *data, uint64_t name)
{
	TEST_ASSERT_EQ(bare_run(vcpu).name, name);
	watch_end(data);
	assert_faulted_in(data, IMAGE, END, 1);
	TEST_ASSERT_EQ(data->seen[(IMAGE - BARE_GPA) / page].icache, !fwb);
}

TEST_F(reinit, shows_a_sibling_that_the_guest_starts_a_later_image)
{
	uint64_t mpidr;

	life_and_reset(self->vcpus, self->mem);
	vcpu_get_reg(self->vcpus[1], KVM_ARM64_SYS_REG(SYS_MPIDR_EL1), &mpidr);
	bare_load(word(self->mem, IMAGE), 4);

	watch_start();
	bare_start(self->vcpus[0], BARE_CODE, (struct bare_work) {
		.psci = PSCI_0_2_FN64_CPU_ON, .target = mpidr & 0xff00ffffff, .entry = IMAGE,
	});
	assert_report(bare_run(self->vcpus[0]), 1, PSCI_RET_SUCCESS);
	assert_sibling_sees(self->vcpus[1], &self->data, 4);
}

TEST_F(reinit, shows_a_sibling_that_the_vmm_starts_a_later_image)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };

	life_and_reset(self->vcpus, self->mem);
	bare_load(word(self->mem, IMAGE), 4);

	watch_start();
	vcpu_mp_state_set(self->vcpus[1], &runnable);
	bare_start(self->vcpus[1], IMAGE, (struct bare_work) { });
	assert_sibling_sees(self->vcpus[1], &self->data, 4);
}

/* What a sibling maps between two resets is unmapped by the second one. */
TEST_F(reinit, unmaps_what_was_mapped_since_the_last_time)
{
	int i;

	for (i = 1; i < 4; i++) {
		bare_init(self->vcpus[0], false);
		run_on(self->vcpus[1], BARE_GPA, BARE_GPA + i * page, 1);
		watch_start();
		bare_init(self->vcpus[1], false);
		watch_end(&self->data);
		if (!fwb) {
			assert_seen(&self->data, i - 1, 1, 0);
			assert_seen(&self->data, i, 0, 0);
		}
	}
}

/*
 * vCPUs that are initialized at once, with memory in each of several steps of the walk:
 * whoever returns finds nothing mapped.
 */
#define NR_PARTS	4
#define PART(i)		(BARE_GPA + (i) * SZ_1G)

struct starter {
	pthread_t thread;
	pthread_barrier_t *barrier;
	struct kvm_vcpu *vcpu;
	uint64_t start;
};

static void *init_and_touch(void *arg)
{
	struct starter *s = arg;

	pthread_barrier_wait(s->barrier);
	bare_init(s->vcpu, false);
	run_on(s->vcpu, s->start, s->start + 16 * page, 0);
	return NULL;
}

TEST_F(reinit, unmaps_all_before_any_of_many_returns)
{
	struct starter starters[2];
	pthread_barrier_t barrier;
	struct watch low = watch(PART(0), self->mem, 32 * page);
	int i, j;

	for (i = 1; i < NR_PARTS; i++)
		vm_set_user_memory_region(self->vm, BARE_SLOT + i, 0, PART(i), SIZE,
					  mmap_pages(SIZE, MADV_NOHUGEPAGE));
	pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(starters));

	for (j = 0; j < 20; j++) {
		for (i = 0; i < NR_PARTS; i++)
			run_on(self->vcpus[0], PART(i), PART(i) + SIZE, 0);
		run_on(self->vcpus[1], 0, 0, 0);

		watch_start();
		for (i = 0; i < ARRAY_SIZE(starters); i++) {
			starters[i] = (struct starter) {
				.vcpu = self->vcpus[i], .barrier = &barrier,
				.start = PART(0) + i * 16 * page,
			};
			pthread_create(&starters[i].thread, NULL, init_and_touch, &starters[i]);
		}
		for (i = 0; i < ARRAY_SIZE(starters); i++)
			pthread_join(starters[i].thread, NULL);
		watch_end(&low);
		for (i = 0; i < low.pages; i++)
			TEST_ASSERT(fwb || (low.seen[i].cleans >= 2 && low.seen[i].faults >= 1),
				    "Page %d: %u times cleaned, %u faults", i,
				    low.seen[i].cleans, low.seen[i].faults);
	}
}

/*
 * While other things happen
 */

static bool stop;

struct sibling {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	uint64_t runs;
};

static void *run_on_and_on(void *arg)
{
	struct sibling *s = arg;
	uint64_t value, sum;

	/* Each time it finds what it wrote, and nobody else does. */
	for (value = 1; !READ_ONCE(stop); value++) {
		bare_set_x(s->vcpu, 5, value);
		sum = bare_run(s->vcpu).sum;
		TEST_ASSERT(sum == value - 1, "Lost a write: %lu, not %lu", sum, value - 1);
		WRITE_ONCE(s->runs, value);
	}
	return NULL;
}

static void sibling_start(struct sibling *s, struct kvm_vcpu *vcpu, char *mem, uint64_t gpa)
{
	*s = (struct sibling) { .vcpu = vcpu };
	*word(mem, gpa) = 0;
	bare_load(word(mem, gpa + page), 100);
	bare_start(vcpu, gpa + page, (struct bare_work) {
		.start = gpa, .end = gpa + 1, .stride = page, .mmu = true,
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

/* A thread of the VMM changes @arg, while vCPU 0 is reset and vCPU 1 runs on. */
static void reset_meanwhile(struct kvm_vcpu **vcpus, char *mem, struct watch *data,
			    void *(*change)(void *), void *arg, int times)
{
	uint64_t end = BARE_GPA + 64 * page, sum;
	pthread_t thread;
	struct sibling s;
	int i;

	run_on(vcpus[0], BARE_GPA, END, 0);
	sibling_start(&s, vcpus[1], mem, END - 2 * page);
	if (change)
		pthread_create(&thread, NULL, change, arg);

	for (i = 1; i <= times; i++) {
		bare_init(vcpus[0], false);
		sibling_has_run(&s);
		for (sum = 0; sum < 64; sum++)
			*word(mem, BARE_GPA + sum * page) = i;
		watch_start();
		assert_report(run_on(vcpus[0], BARE_GPA, end, 0), 1, 64ul * i);
		watch_end(data);
		assert_faulted_in(data, BARE_GPA, end, 1);
	}
	sibling_end(&s);
	if (change)
		pthread_join(thread, NULL);
}

TEST_F(reinit, goes_with_a_sibling_that_runs_on)
{
	reset_meanwhile(self->vcpus, self->mem, &self->data, NULL, NULL, 20);
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
	reset_meanwhile(self->vcpus, self->mem, &self->data, drop_and_touch, self->mem, 50);
}

static void *change_memslots(void *arg)
{
	void *mem = mmap_pages(SZ_2M, MADV_NOHUGEPAGE);
	uint64_t gpa = END + SZ_2M;
	struct kvm_vm *vm = arg;

	while (!READ_ONCE(stop)) {
		vm_set_user_memory_region(vm, BARE_SLOT + 1, 0, gpa, SZ_2M, mem);
		vm_set_user_memory_region(vm, BARE_SLOT + 1, 0, gpa + SZ_2M, SZ_2M, mem);
		vm_set_user_memory_region(vm, BARE_SLOT + 1, KVM_MEM_LOG_DIRTY_PAGES,
					  gpa + SZ_2M, SZ_2M, mem);
		vm_set_user_memory_region(vm, BARE_SLOT + 1, 0, 0, 0, NULL);
	}
	return NULL;
}

TEST_F(reinit, goes_with_memslots_that_change)
{
	reset_meanwhile(self->vcpus, self->mem, &self->data, change_memslots, self->vm, 50);
}

TEST_F(reinit, leaves_the_dirty_log_alone)
{
	unsigned long *log = calloc(SIZE / page / 8 + 8, 1);
	struct kvm_vcpu *vcpu = self->vcpus[0];
	int i;

	run_on(vcpu, BARE_GPA, END, 5);
	bare_slot(self->vm, KVM_MEM_LOG_DIRTY_PAGES, SIZE, self->mem);
	kvm_vm_get_dirty_log(self->vm, BARE_SLOT, log);

	bare_init(vcpu, false);
	watch_start();
	assert_report(run_on(vcpu, BARE_GPA, END, 0), 1, 5 * SIZE / page);
	watch_end(&self->data);
	assert_faulted_in(&self->data, BARE_GPA, END, 1);
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
 * Device memory
 */

/* The flash of QEMU's virt machine, all zeros: hw/arm/virt.c */
#define FLASH_PA	0x04000000ul
#define FLASH_GPA	(END + SZ_2M)

TEST_F(reinit, leaves_a_device_mapped)
{
	struct kvm_vcpu *vcpu = self->vcpus[0];
	struct watch device;
	int i, fd = open("/dev/mem", O_RDWR | O_SYNC);
	void *flash;

	if (access("/sys/firmware/devicetree/base/flash@0", F_OK))
		SKIP(return, "machine without the flash of QEMU's virt machine");
	TEST_ASSERT(fd >= 0, "Cannot open /dev/mem");
	flash = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, FLASH_PA);
	TEST_ASSERT(flash != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap() of /dev/mem", -1));
	vm_set_user_memory_region(self->vm, BARE_SLOT + 1, 0, FLASH_GPA, 4 * page, flash);
	device = watch(FLASH_GPA, flash, 4 * page);

	watch_start();
	run_on(vcpu, FLASH_GPA, FLASH_GPA + 4 * page, 0);
	watch_end(&device);
	for (i = 0; i < 4; i++)
		assert_seen(&device, i, 0, 1);

	watch_start();
	bare_init(vcpu, false);
	run_on(vcpu, FLASH_GPA, FLASH_GPA + 4 * page, 0);
	watch_end(&device);
	for (i = 0; i < 4; i++)
		assert_seen(&device, i, 0, 0);
}

/* GICV has no memslot to be faulted in from. */
#define VGIC_DIST	0x08000000ul
#define VGIC_CPU	0x08010000ul
#define GICC_IIDR	0xfc

TEST_F(reinit, leaves_the_virtual_cpu_interface_of_a_gicv2_mapped)
{
	uint64_t dist = VGIC_DIST, cpu = VGIC_CPU, iidr;
	struct kvm_vcpu *vcpu = self->vcpus[0];
	int fd;

	fd = __kvm_create_device(self->vm, KVM_DEV_TYPE_ARM_VGIC_V2);
	if (fd < 0)
		SKIP(return, "host without a GICv2");
	kvm_device_attr_set(fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_DIST, &dist);
	kvm_device_attr_set(fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_CPU, &cpu);
	kvm_device_attr_set(fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);

	run_on(vcpu, BARE_GPA, END, 1);
	iidr = run_on(vcpu, VGIC_CPU + GICC_IIDR - 4, VGIC_CPU + GICC_IIDR, 0).sum;
	TEST_ASSERT(iidr, "No GICV");
	bare_init(vcpu, false);
	TEST_ASSERT_EQ(run_on(vcpu, VGIC_CPU + GICC_IIDR - 4, VGIC_CPU + GICC_IIDR, 0).sum, iidr);
}

int main(int argc, char **argv)
{
	return test_harness_run(argc, argv);
}
