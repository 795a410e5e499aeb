// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_ARM_VCPU_INIT of vCPUs that have run (Documentation/virt/kvm/arm/reinit.rst): the
 * guest, whose MMU is off, sees what the VMM has written. This file tests which vCPUs are
 * initialized, and concurrent changes. reinit_reset_test.c tests complete resets.
 *
 * An emulator's caches are coherent, so checking the values that a guest reads is not
 * enough: cmo_watch.h reports which pages were maintained.
 */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <linux/psci.h>
#include <linux/sizes.h>

#include "bare.h"
#include "cmo_watch.h"
#include "kvm_test_harness.h"

#define SIZE		(8ul * SZ_1M)
#define END		(BARE_GPA + SIZE)
#define page		cmo_page

/*
 * Which vCPUs, and when
 */

FIXTURE(reinit)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
	char *mem, *code;
	struct cmo_watch data;
};

FIXTURE_SETUP(reinit)
{
	if (!cmo_watch_setup())
		SKIP(return, "kernel without kprobe events");
	self->vm = vm_create_barebones();
	self->code = bare_code(self->vm);
	self->mem = bare_mem(SIZE, MADV_NOHUGEPAGE);
	self->data = cmo_watch(BARE_GPA, self->mem, SIZE);
	bare_slot(self->vm, 0, SIZE, self->mem);
	bare_add_vcpus(self->vm, self->vcpus, 2);
}

FIXTURE_TEARDOWN(reinit)
{
	kvm_vm_free(self->vm);
}

/* Each page of [@start, @end) faulted in @times times, and was cleaned each time. */
static void assert_faulted_in(const struct cmo_watch *w, uint64_t start, uint64_t end,
			      uint32_t times)
{
	size_t i;

	for (i = (start - w->gpa) / page; i < (end - w->gpa) / page; i++)
		cmo_assert_seen(w, i, cmo_fwb ? 0 : times, cmo_fwb ? 0 : times);
}

TEST_F(reinit, new_vcpu)
{
	bare_run_on(self->vcpus[0], BARE_MMU_ON, BARE_GPA, END, 1);
	cmo_watch_start();
	bare_init(self->vcpus[1], false);
	bare_init(self->vcpus[1], false);
	bare_run_on(self->vcpus[1], BARE_MMU_OFF, BARE_GPA, END, 0);
	cmo_watch_end(&self->data);
	assert_faulted_in(&self->data, BARE_GPA, END, 0);
}

/* Hotplug: all vCPUs that have run are reset. A vCPU that has not run starts first. */
TEST_F(reinit, image_for_new_vcpu)
{
	uint64_t sum;

	bare_run_on(self->vcpus[0], BARE_MMU_ON, BARE_GPA, END, 1);
	bare_init(self->vcpus[0], false);
	sum = bare_write_words(self->mem, SIZE, 5, END);
	cmo_watch_start();
	bare_assert_report(bare_run_on(self->vcpus[1], BARE_MMU_OFF, BARE_GPA, END, 0), 1, sum);
	cmo_watch_end(&self->data);
	assert_faulted_in(&self->data, BARE_GPA, END, 1);
}

/*
 * The VMM writes a sibling's image after the first vCPU has run, and before the sibling
 * starts on it. The page was mapped before the reset.
 */
#define IMAGE	(END - page)

static void life_and_reset(struct kvm_vcpu **vcpus, char *mem)
{
	/* Map the image for execution, too. */
	bare_load(bare_word(mem, IMAGE), 3);
	bare_run_on(vcpus[0], BARE_MMU_ON, BARE_GPA, IMAGE, 1);
	bare_start(vcpus[1], IMAGE, (struct bare_work) { .mmu = true });
	bare_run(vcpus[1]);

	bare_init(vcpus[0], false);
	bare_init(vcpus[1], true);
	bare_run_on(vcpus[0], BARE_MMU_ON, BARE_GPA, IMAGE, 1);
}

static void assert_sibling_sees(struct kvm_vcpu *vcpu, struct cmo_watch *data, uint64_t name)
{
	TEST_ASSERT_EQ(bare_run(vcpu).name, name);
	cmo_watch_end(data);
	assert_faulted_in(data, IMAGE, END, 1);
	TEST_ASSERT_EQ(data->seen[(IMAGE - BARE_GPA) / page].icache, !cmo_fwb);
}

TEST_F(reinit, image_for_sibling_by_psci)
{
	uint64_t mpidr;

	life_and_reset(self->vcpus, self->mem);
	TEST_ASSERT_EQ(__vcpu_get_reg(self->vcpus[1], KVM_ARM64_SYS_REG(SYS_MPIDR_EL1), &mpidr),
		       0);
	bare_load(bare_word(self->mem, IMAGE), 4);

	cmo_watch_start();
	bare_start(self->vcpus[0], BARE_CODE, (struct bare_work) {
		.psci = PSCI_0_2_FN64_CPU_ON, .target = mpidr & 0xff00ffffff, .entry = IMAGE,
	});
	bare_assert_report(bare_run(self->vcpus[0]), 1, PSCI_RET_SUCCESS);
	assert_sibling_sees(self->vcpus[1], &self->data, 4);
}

TEST_F(reinit, image_for_sibling_by_vmm)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };

	life_and_reset(self->vcpus, self->mem);
	bare_load(bare_word(self->mem, IMAGE), 4);

	cmo_watch_start();
	vcpu_mp_state_set(self->vcpus[1], &runnable);
	bare_start(self->vcpus[1], IMAGE, (struct bare_work) { });
	assert_sibling_sees(self->vcpus[1], &self->data, 4);
}

TEST_F(reinit, icache_with_fwb)
{
	if (!cmo_fwb)
		SKIP(return, "needs a CPU with FEAT_S2FWB");
	cmo_watch_start();
	bare_init(self->vcpus[0], false);
	TEST_ASSERT_EQ(cmo_watch_end(&self->data), 0);

	bare_run_on(self->vcpus[0], BARE_MMU_OFF, BARE_GPA, END, 1);
	cmo_watch_start();
	bare_init(self->vcpus[0], false);
	TEST_ASSERT_EQ(cmo_watch_end(&self->data), cmo_dic ? 0 : 1);
}

/* Each reset unmaps what a sibling has mapped since the previous reset. */
TEST_F(reinit, mapped_since_last_reset)
{
	int i;

	for (i = 1; i < 4; i++) {
		bare_init(self->vcpus[0], false);
		bare_run_on(self->vcpus[1], BARE_MMU_OFF, BARE_GPA, BARE_GPA + i * page, 1);
		cmo_watch_start();
		bare_init(self->vcpus[1], false);
		cmo_watch_end(&self->data);
		if (!cmo_fwb) {
			cmo_assert_seen(&self->data, i - 1, 1, 0);
			cmo_assert_seen(&self->data, i, 0, 0);
		}
	}
}

/*
 * A memslot that takes several steps to walk. The walk may drop the lock between steps.
 * The guest touches SIZE at the start of each step. Memslots are walked in the order of a
 * hash of their numbers: this one last.
 */
#define NR_STEPS	4
#define STEPS_SLOT	(BARE_SLOT + 2)
#define STEP(i)		(((i) + 2) * (uint64_t)SZ_1G)

static struct cmo_watch add_steps(struct kvm_vm *vm)
{
	void *mem = mmap(NULL, NR_STEPS * (uint64_t)SZ_1G, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	(void)madvise(mem, NR_STEPS * (uint64_t)SZ_1G, MADV_NOHUGEPAGE);
	vm_set_user_memory_region(vm, STEPS_SLOT, 0, STEP(0), NR_STEPS * (uint64_t)SZ_1G, mem);
	return cmo_watch(STEP(NR_STEPS - 1), mem + STEP(NR_STEPS - 1) - STEP(0), 32 * page);
}

static void touch_steps(struct kvm_vcpu *vcpu)
{
	int i;

	for (i = 0; i < NR_STEPS; i++)
		bare_run_on(vcpu, BARE_MMU_OFF, STEP(i), STEP(i) + SIZE, 1);
}

struct starter {
	pthread_t thread;
	pthread_barrier_t *barrier;
	struct kvm_vcpu *vcpu;
	uint64_t start, end;
	bool init;
};

static void *init_and_touch(void *arg)
{
	struct starter *s = arg;

	pthread_barrier_wait(s->barrier);
	if (s->init)
		bare_init(s->vcpu, false);
	if (s->end)
		bare_run_on(s->vcpu, BARE_MMU_OFF, s->start, s->end, 0);
	return NULL;
}

static void start_both(struct starter *starters)
{
	pthread_barrier_t barrier;
	int i;

	pthread_barrier_init(&barrier, NULL, 2);
	for (i = 0; i < 2; i++) {
		starters[i].barrier = &barrier;
		pthread_create(&starters[i].thread, NULL, init_and_touch, &starters[i]);
	}
	for (i = 0; i < 2; i++)
		pthread_join(starters[i].thread, NULL);
	pthread_barrier_destroy(&barrier);
}

/* Two vCPUs are initialized at once. Each one finds nothing mapped when it returns. */
TEST_F_TIMEOUT(reinit, many_vcpus_at_once, 120)
{
	struct cmo_watch last = add_steps(self->vm);
	int i, j;

	for (j = 0; j < 20; j++) {
		touch_steps(self->vcpus[0]);
		bare_run_on(self->vcpus[1], BARE_MMU_OFF, 0, 0, 0);

		cmo_watch_start();
		start_both((struct starter[]) {
			{ .vcpu = self->vcpus[0], .init = true, .start = last.gpa,
			  .end = last.gpa + 16 * page },
			{ .vcpu = self->vcpus[1], .init = true, .start = last.gpa + 16 * page,
			  .end = last.gpa + 32 * page },
		});
		cmo_watch_end(&last);
		for (i = 0; i < last.pages; i++)
			TEST_ASSERT(cmo_fwb || (last.seen[i].cleans >= 2 && last.seen[i].faults),
				    "Page %d: cleaned %u times, %u faults", i,
				    last.seen[i].cleans, last.seen[i].faults);
	}
}

/* A sibling maps a page while a re-init has dropped the lock. The next one unmaps it. */
TEST_F_TIMEOUT(reinit, mapped_meanwhile, 120)
{
	struct cmo_watch last = add_steps(self->vm);
	struct cmo_watch first = cmo_watch(STEP(0), last.hva - (last.gpa - STEP(0)), page);
	int j;

	for (j = 0; j < 20; j++) {
		touch_steps(self->vcpus[0]);
		start_both((struct starter[]) {
			{ .vcpu = self->vcpus[0], .init = true },
			{ .vcpu = self->vcpus[1], .start = STEP(0), .end = STEP(0) + 1 },
		});

		bare_init(self->vcpus[0], false);
		cmo_watch_start();
		bare_run_on(self->vcpus[1], BARE_MMU_OFF, STEP(0), STEP(0) + 1, 0);
		cmo_watch_end(&first);
		cmo_assert_seen(&first, 0, !cmo_fwb, !cmo_fwb);
	}
}

/*
 * Concurrent changes
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

	/* Each run finds what the previous run wrote. Nothing else writes there. */
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
	*bare_word(mem, gpa) = 0;
	bare_load(bare_word(mem, gpa + page), 100);
	bare_start(vcpu, gpa + page, (struct bare_work) {
		.start = gpa, .end = gpa + 1, .stride = page, .mmu = true,
	});
	WRITE_ONCE(stop, false);
	pthread_create(&s->thread, NULL, run_on_and_on, s);
}

/* Wait for a run that started after this call to end. */
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

#define MEANWHILE_NS	(15 * NSEC_PER_SEC)	/* a debug kernel has time for fewer resets */

/* A VMM thread changes @arg while vCPU 0 is reset and vCPU 1 runs. */
static void reset_meanwhile(struct kvm_vcpu **vcpus, char *mem, struct cmo_watch *data,
			    void *(*change)(void *), void *arg, int times)
{
	uint64_t end = BARE_GPA + 64 * page, sum;
	struct timespec start;
	pthread_t thread;
	struct sibling s;
	int i, j;

	clock_gettime(CLOCK_MONOTONIC, &start);
	bare_run_on(vcpus[0], BARE_MMU_OFF, BARE_GPA, END, 0);
	sibling_start(&s, vcpus[1], mem, END - 2 * page);
	if (change)
		pthread_create(&thread, NULL, change, arg);

	for (i = 1; i <= times && timespec_to_ns(timespec_elapsed(start)) < MEANWHILE_NS; i++) {
		bare_init(vcpus[0], false);
		sibling_has_run(&s);
		for (sum = 0; sum < 64; sum++)
			*bare_word(mem, BARE_GPA + sum * page) = i;
		cmo_watch_start();
		bare_assert_report(bare_run_on(vcpus[0], BARE_MMU_OFF, BARE_GPA, end, 0), 1,
				   64ul * i);
		cmo_watch_end(data);
		/* KVM retries a fault that races with an invalidation. */
		for (j = 0; j < 64; j++)
			TEST_ASSERT(cmo_fwb || (data->seen[j].cleans && data->seen[j].faults),
				    "Page %d: cleaned %u times, %u faults", j,
				    data->seen[j].cleans, data->seen[j].faults);
	}
	sibling_end(&s);
	if (change)
		pthread_join(thread, NULL);
}

TEST_F(reinit, sibling_runs)
{
	reset_meanwhile(self->vcpus, self->mem, &self->data, NULL, NULL, 20);
}

#define CHANGED	(SIZE / 2)	/* below the sibling's pages */

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

TEST_F(reinit, memory_unmapped)
{
	reset_meanwhile(self->vcpus, self->mem, &self->data, drop_and_touch, self->mem, 50);
}

static void *change_memslots(void *arg)
{
	void *mem = bare_mem(SZ_2M, MADV_NOHUGEPAGE);
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

TEST_F(reinit, memslots_change)
{
	reset_meanwhile(self->vcpus, self->mem, &self->data, change_memslots, self->vm, 50);
}

TEST_F(reinit, dirty_log)
{
	unsigned long *log = calloc(SIZE / page / 8 + 8, 1);
	struct kvm_vcpu *vcpu = self->vcpus[0];
	int i;

	bare_run_on(vcpu, BARE_MMU_OFF, BARE_GPA, END, 5);
	bare_slot(self->vm, KVM_MEM_LOG_DIRTY_PAGES, SIZE, self->mem);
	kvm_vm_get_dirty_log(self->vm, BARE_SLOT, log);

	bare_init(vcpu, false);
	cmo_watch_start();
	bare_assert_report(bare_run_on(vcpu, BARE_MMU_OFF, BARE_GPA, END, 0), 1, 5 * SIZE / page);
	cmo_watch_end(&self->data);
	assert_faulted_in(&self->data, BARE_GPA, END, 1);
	kvm_vm_get_dirty_log(self->vm, BARE_SLOT, log);
	for (i = 0; i < SIZE / page / 64; i++)
		TEST_ASSERT_EQ(log[i], 0);

	/* KVM still logs dirty pages. */
	bare_init(vcpu, false);
	bare_run_on(vcpu, BARE_MMU_OFF, BARE_GPA + 70 * page, BARE_GPA + 71 * page, 1);
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

TEST_F(reinit, device_not_cleaned)
{
	struct kvm_vcpu *vcpu = self->vcpus[0];
	struct cmo_watch device;
	int i, j, fd = open("/dev/mem", O_RDWR | O_SYNC);
	void *flash;

	if (access("/sys/firmware/devicetree/base/flash@0", F_OK))
		SKIP(return, "machine without the flash of QEMU's virt machine");
	TEST_ASSERT(fd >= 0, "Cannot open /dev/mem");
	flash = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, FLASH_PA);
	TEST_ASSERT(flash != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap() of /dev/mem", -1));
	vm_set_user_memory_region(self->vm, BARE_SLOT + 1, 0, FLASH_GPA, 4 * page, flash);
	device = cmo_watch(FLASH_GPA, flash, 4 * page);

	for (j = 0; j < 2; j++) {
		cmo_watch_start();
		bare_init(vcpu, false);
		bare_run_on(vcpu, BARE_MMU_OFF, FLASH_GPA, FLASH_GPA + 4 * page, 0);
		cmo_watch_end(&device);
		for (i = 0; i < 4; i++)
			cmo_assert_seen(&device, i, 0, !j || !cmo_fwb);
	}
}

/* GICV has no memslot, so a fault cannot map it again. */
#define VGIC_DIST	0x08000000ul
#define VGIC_CPU	0x08010000ul
#define GICC_IIDR	0xfc

static uint64_t read_iidr(struct kvm_vcpu *vcpu)
{
	uint64_t gpa = VGIC_CPU + GICC_IIDR - 4;	/* the guest reads eight bytes */

	return bare_run_on(vcpu, BARE_MMU_OFF, gpa, gpa + 1, 0).sum;
}

TEST_F(reinit, gicv_stays_mapped)
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

	bare_run_on(vcpu, BARE_MMU_OFF, BARE_GPA, END, 1);
	iidr = read_iidr(vcpu);
	TEST_ASSERT(iidr, "No GICV");
	bare_init(vcpu, false);
	TEST_ASSERT_EQ(read_iidr(vcpu), iidr);
}

int main(int argc, char **argv)
{
	return test_harness_run(argc, argv);
}
