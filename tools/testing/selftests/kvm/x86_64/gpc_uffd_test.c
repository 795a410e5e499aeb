// SPDX-License-Identifier: GPL-2.0-only
/*
 * Caches whose page userfaultfd(2) has not supplied yet, as when a snapshot is restored
 * on demand: KVM waits for the handler.  Meanwhile KVM holds nothing that the handler,
 * the VMM or another vCPU could need.
 */
#include <sys/wait.h>

#include "gpc_harness.h"
#include "gpc_uffd.h"
#include "gpc_xen.h"

#include <linux/falloc.h>

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define WP		UFFDIO_REGISTER_MODE_WP
#define MINOR		UFFDIO_REGISTER_MODE_MINOR

/* A memslot without the clock, and its pages. */
#define OTHER_SLOT	(GPC_SLOT + 1)
#define OTHER_GPA	(GPC_GPA + GPC_SIZE)
#define OTHER_CLOCK	0
#define OTHER_SHINFO	PAGE_SIZE

FIXTURE(gpc_uffd)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_uffd)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_uffd)
{
	gpc_free(self->vcpu);
}

#define UFFD_TEST(test) KVM_ONE_VCPU_TEST(gpc_uffd, test, gpc_guest)

static void write_protect(int uffd, void *page, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)page, PAGE_SIZE },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_WRITEPROTECT)", -1));
}

/* Make the waiting thread check the page again. */
static void wake(int uffd, void *page)
{
	struct uffdio_range range = { (uintptr_t)page, PAGE_SIZE };

	TEST_ASSERT(!ioctl(uffd, UFFDIO_WAKE, &range),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_WAKE)", -1));
}

static void *clock_on_anon(struct kvm_vcpu *vcpu)
{
	return gpc_clock_on(vcpu, gpc_mmap_anon(NULL), GPC_SIZE);
}

/* Assert that KVM has written the clock to the supplied page, and nothing else. */
static void assert_written_in(void *page)
{
	gpc_assert_written(page);
	GPC_ASSERT_POISON(page + GPC_CLOCK_SIZE, PAGE_SIZE - GPC_CLOCK_SIZE);
}

static void assert_follows(struct kvm_vcpu *vcpu, void *page)
{
	gpc_assert_served(vcpu, GPC_CLOCK);
	gpc_assert_served_in(vcpu, GPC_CLOCK, page);
}

UFFD_TEST(missing_page)
{
	void *page = clock_on_anon(vcpu);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);

	/* The guest, which reads the page only now, finds all of it. */
	gpc_run(vcpu, (struct gpc_step) {
		.clock = GPC_CLOCK, .peek = GPC_CLOCK + PAGE_SIZE - sizeof(uint64_t),
	});
	TEST_ASSERT(gpc_step.ns >= gpc_era && gpc_step.ns - gpc_era < GPC_ERA_NS,
		    "Guest reads %lu ns, clock was set to %lu ns", gpc_step.ns, gpc_era);
	GPC_ASSERT_POISON(&gpc_step.word, sizeof(gpc_step.word));
	assert_follows(vcpu, page);
}

/*
 * The VMM restores an MSR before the vCPU runs, and may have to supply the page itself.
 * So the ioctl returns, and the first run waits.
 */
struct msr {
	struct kvm_vcpu *vcpu;
	uint32_t index;
	uint64_t data;
};

static int set_msr(void *arg)
{
	struct msr *msr = arg;

	vcpu_set_msr(msr->vcpu, msr->index, msr->data);
	return 0;
}

/* Returns the page, which was supplied in the vCPU's first run after that. */
static void *restore_msr(struct kvm_vcpu *vcpu, uint32_t index)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (GPC_CLOCK - GPC_GPA);
	struct msr msr = { vcpu, index, GPC_CLOCK | KVM_MSR_ENABLED };
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_task_start(&task, set_msr, &msr);
	TEST_ASSERT(gpc_task_ends_unserved(&task, uffd), "KVM_SET_MSRS waits for the page");
	gpc_task_finish(&task);
	TEST_ASSERT(!gpc_pfn(page), "The page is present before it is supplied");

	gpc_task_update(&task, vcpu, uffd, page);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	return page;
}

UFFD_TEST(restore_clock_msr)
{
	void *page = restore_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW);

	assert_written_in(page);
	assert_follows(vcpu, page);
}

UFFD_TEST(restore_old_clock_msr)
{
	void *page = restore_msr(vcpu, MSR_KVM_SYSTEM_TIME);

	assert_written_in(page);
	assert_follows(vcpu, page);
}

UFFD_TEST(restore_steal_msr)
{
	struct kvm_steal_time *steal = restore_msr(vcpu, MSR_KVM_STEAL_TIME);
	uint32_t version = steal->version;

	TEST_ASSERT(!(version & 1) && !steal->preempted,
		    "Steal time not written: version 0x%x", version);
	GPC_ASSERT_POISON(steal + 1, PAGE_SIZE - sizeof(*steal));
	gpc_run(vcpu, (struct gpc_step) { });
	TEST_ASSERT_EQ(steal->version, version + 2);
}

UFFD_TEST(woken_for_nothing)
{
	void *page = clock_on_anon(vcpu);
	int i, uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_start(&task, gpc_task_update_fn, vcpu);
	for (i = 0; i < 3; i++) {
		gpc_uffd_await(uffd, page, 0);
		wake(uffd, page);
	}
	gpc_uffd_await(uffd, page, 0);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
}

UFFD_TEST(missing_page_shmem)
{
	int fd = kvm_memfd_alloc(GPC_SIZE, false), uffd = gpc_uffd_open(UFFD_FEATURE_MISSING_SHMEM);
	void *mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *page = gpc_clock_on(vcpu, mem, GPC_SIZE);
	struct gpc_task task;

	gpc_uffd_register(uffd, page, PAGE_SIZE, MISSING);
	TEST_ASSERT(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       page - mem, PAGE_SIZE), __KVM_SYSCALL_ERROR("fallocate()", -1));
	gpc_task_update(&task, vcpu, uffd, page);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
	assert_follows(vcpu, page);
}

/* The page is in the page cache, and the handler may still change it. */
UFFD_TEST(minor_fault)
{
	int fd = kvm_memfd_alloc(GPC_SIZE, false), uffd = gpc_uffd_open(UFFD_FEATURE_MINOR_SHMEM);
	void *alias = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *mem = gpc_mmap(NULL, GPC_SIZE, MAP_SHARED, fd, 0);
	void *page = gpc_clock_on(vcpu, mem, GPC_SIZE);
	struct uffdio_continue cont = { .range = { (uintptr_t)page, PAGE_SIZE } };
	struct gpc_task task;

	gpc_uffd_register(uffd, page, PAGE_SIZE, MINOR);
	gpc_drop(page);
	gpc_task_start(&task, gpc_task_update_fn, vcpu);
	gpc_uffd_await(uffd, page, UFFD_PAGEFAULT_FLAG_MINOR);
	memset(alias, GPC_POISON, GPC_SIZE);
	TEST_ASSERT(!ioctl(uffd, UFFDIO_CONTINUE, &cont),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_CONTINUE)", -1));
	gpc_task_finish(&task);
	assert_written_in(page);
	assert_follows(vcpu, page);
}

/* Like a snapshot of a live guest: the handler saves the page before it changes. */
UFFD_TEST(write_protected)
{
	int uffd = gpc_uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	void *page = clock_on_anon(vcpu);
	struct gpc_task task;
	int i;

	gpc_uffd_register(uffd, page, PAGE_SIZE, WP);
	for (i = 0; i < 3; i++) {
		memset(page, GPC_POISON, PAGE_SIZE);
		write_protect(uffd, page, true);
		gpc_task_start(&task, gpc_task_update_fn, vcpu);
		gpc_uffd_await(uffd, page, UFFD_PAGEFAULT_FLAG_WP);
		GPC_ASSERT_POISON(page, PAGE_SIZE);
		write_protect(uffd, page, false);
		gpc_task_finish(&task);
		assert_written_in(page);
	}
	assert_follows(vcpu, page);
}

UFFD_TEST(handler_poisons)
{
	int uffd = gpc_uffd_open(UFFD_FEATURE_POISON);
	void *page = clock_on_anon(vcpu);
	struct uffdio_poison poison = { .range = { (uintptr_t)page, PAGE_SIZE } };
	struct gpc_task task;

	gpc_uffd_register(uffd, page, PAGE_SIZE, MISSING);
	gpc_drop(page);
	gpc_task_update(&task, vcpu, uffd, page);
	TEST_ASSERT(!ioctl(uffd, UFFDIO_POISON, &poison),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_POISON)", -1));
	gpc_task_finish(&task);

	gpc_drop(page);
	gpc_task_update(&task, vcpu, uffd, page);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
}

/* Without a handler, the page is like any other that was dropped. */
UFFD_TEST(handler_closes)
{
	void *page = clock_on_anon(vcpu);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	close(uffd);
	gpc_task_finish(&task);
	gpc_assert_written(page);
	assert_follows(vcpu, page);
}

/* A record across a page end: the first page goes away while KVM waits for the second. */
static int set_record(void *vcpu)
{
	return gpc_set_record(vcpu, GPC_SPAN_END - GPC_RECORD_MAX / 2);
}

UFFD_TEST(both_pages_missing)
{
	struct gpc_span span = gpc_span_one_slot(vcpu->vm, gpc_mmap_anon(NULL));
	int i, uffd[2] = { gpc_uffd_make_missing(span.page[0]),
			   gpc_uffd_make_missing(span.page[1]) };
	struct gpc_task task;

	GPC_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE,
		    "kernel without runstates: CONFIG_SCHED_INFO?");
	gpc_xen_on(vcpu->vm);
	gpc_set_abi(vcpu->vm, GPC_64);
	gpc_task_start(&task, set_record, vcpu);
	for (i = 0; i < 2; i++) {
		gpc_uffd_await(uffd[0], span.page[0], 0);
		gpc_uffd_supply(uffd[0], span.page[0]);
		if (!i) {
			gpc_uffd_await(uffd[1], span.page[1], 0);
			gpc_drop(span.page[0]);
			gpc_uffd_supply(uffd[1], span.page[1]);
		}
	}
	TEST_ASSERT_EQ(gpc_task_finish(&task), 0);
	gpc_take_record(&span, GPC_SPAN_END - GPC_RECORD_MAX / 2, GPC_64);
}

/*
 * Other actions of the handler on the range
 */

UFFD_TEST(handler_unmaps)
{
	void *page = clock_on_anon(vcpu);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	TEST_ASSERT(!munmap(page, PAGE_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));
	wake(uffd, page);
	gpc_task_finish(&task);

	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_follows(vcpu, page);
}

UFFD_TEST(handler_maps_over)
{
	void *page = clock_on_anon(vcpu);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	wake(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
	assert_follows(vcpu, page);
}

UFFD_TEST(handler_moves_over)
{
	void *page = clock_on_anon(vcpu);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	TEST_ASSERT(mremap(gpc_mmap_anon(NULL), PAGE_SIZE, PAGE_SIZE,
			   MREMAP_MAYMOVE | MREMAP_FIXED, page) == page,
		    __KVM_SYSCALL_ERROR("mremap()", -1));
	wake(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
	assert_follows(vcpu, page);
}

UFFD_TEST(handler_moves_away)
{
	void *page = clock_on_anon(vcpu), *moved = gpc_mmap_anon(NULL);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	TEST_ASSERT(mremap(page, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
			   moved) == moved, __KVM_SYSCALL_ERROR("mremap()", -1));
	memset(moved, GPC_POISON, PAGE_SIZE);
	wake(uffd, page);
	gpc_task_finish(&task);
	GPC_ASSERT_POISON(moved, PAGE_SIZE);

	gpc_mmap(page, PAGE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_follows(vcpu, page);
	GPC_ASSERT_POISON(moved, PAGE_SIZE);
}

/*
 * Other activity in the VM
 */

struct others {
	struct kvm_vcpu *vcpu;
	void *mem;
};

static void other_guest(void)
{
	for (;;)
		GUEST_SYNC(0);
}

static int send_event(void *vcpu)
{
	return gpc_xen_send_event(vcpu);
}

/* Another vCPU with a clock, and Xen's shared info, all in another memslot. */
static struct others others_on(struct kvm_vm *vm)
{
	struct others others = {
		.vcpu = vm_vcpu_add(vm, 1, other_guest),
		.mem = gpc_mmap_anon(NULL),
	};

	vm_set_user_memory_region(vm, OTHER_SLOT, 0, OTHER_GPA, GPC_SIZE, others.mem);
	vcpu_set_msr(others.vcpu, MSR_KVM_SYSTEM_TIME_NEW,
		     (OTHER_GPA + OTHER_CLOCK) | KVM_MSR_ENABLED);
	gpc_xen_on(vm);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vm, OTHER_GPA + OTHER_SHINFO), 0);
	return others;
}

/* The VMM changes other memory.  KVM looks the caches there up again and writes them. */
static void assert_others_go_on(struct others *others)
{
	struct kvm_vcpu *vcpu = others->vcpu;
	void *mem = others->mem, *page = gpc_mmap_anon(NULL);

	TEST_ASSERT(!mprotect(page, GPC_SIZE, PROT_READ), __KVM_SYSCALL_ERROR("mprotect()", -1));
	TEST_ASSERT(!munmap(page, GPC_SIZE), __KVM_SYSCALL_ERROR("munmap()", -1));

	gpc_drop(mem + OTHER_CLOCK);
	gpc_drop(mem + OTHER_SHINFO);

	gpc_new_era(vcpu->vm);
	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, NULL), UCALL_SYNC);
	gpc_assert_written(mem + OTHER_CLOCK);

	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), 0);
	TEST_ASSERT(gpc_xen_event_pending(mem + OTHER_SHINFO), "Event not delivered");
}

UFFD_TEST(nothing_else_waits)
{
	void *page = clock_on_anon(vcpu);
	struct others others = others_on(vcpu->vm);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	assert_others_go_on(&others);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
}

UFFD_TEST(page_invalidated)
{
	void *page = clock_on_anon(vcpu);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_task_update(&task, vcpu, uffd, page);
	gpc_drop(page);
	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ) &&
		    !mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE),
		    __KVM_SYSCALL_ERROR("mprotect()", -1));
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&task);
	assert_written_in(page);
	assert_follows(vcpu, page);
}

struct slot {
	struct kvm_vm *vm;
	uint32_t id;
	uint64_t gpa;
	uint64_t size;
	void *mem;
};

static int set_slot(void *arg)
{
	struct slot *slot = arg;

	vm_set_user_memory_region(slot->vm, slot->id, 0, slot->gpa, slot->size, slot->mem);
	return 0;
}

/*
 * A change of memslots returns when nobody uses the old ones any more.  KVM has used them
 * since before it fell asleep, so the change has to wait for the handler.  Neither the
 * handler nor the others may have to wait for the change.
 */
static void change_memslots_while_it_waits(struct kvm_vcpu *vcpu, void *page,
					   struct slot *slot)
{
	struct others others = others_on(vcpu->vm);
	int uffd = gpc_uffd_make_missing(page);
	struct gpc_task task, change;

	gpc_task_update(&task, vcpu, uffd, page);
	gpc_task_start(&change, set_slot, slot);
	gpc_task_await_done_or(&change, 'D');
	assert_others_go_on(&others);
	gpc_drop(page);
	gpc_uffd_supply(uffd, page);
	gpc_task_finish(&change);
	gpc_task_finish(&task);
}

UFFD_TEST(memslot_deleted)
{
	void *page = clock_on_anon(vcpu), *mem = page - (GPC_CLOCK - GPC_GPA);
	struct slot slot = { vcpu->vm, GPC_SLOT };

	change_memslots_while_it_waits(vcpu, page, &slot);
	memset(page, GPC_POISON, PAGE_SIZE);
	gpc_update(vcpu);
	GPC_ASSERT_POISON(page, PAGE_SIZE);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	assert_follows(vcpu, page);
}

UFFD_TEST(memslot_moved)
{
	void *page = clock_on_anon(vcpu), *mem = page - (GPC_CLOCK - GPC_GPA);
	struct slot slot = { vcpu->vm, GPC_SLOT, GPC_GPA - PAGE_SIZE, GPC_SIZE, mem };

	change_memslots_while_it_waits(vcpu, page, &slot);
	memset(page, GPC_POISON, PAGE_SIZE);
	assert_follows(vcpu, page + PAGE_SIZE);
	GPC_ASSERT_POISON(page, PAGE_SIZE);
}

UFFD_TEST(memslot_added)
{
	void *page = clock_on_anon(vcpu);
	struct slot slot = {
		vcpu->vm, OTHER_SLOT + 1, OTHER_GPA + GPC_SIZE, GPC_SIZE, gpc_mmap_anon(NULL),
	};

	change_memslots_while_it_waits(vcpu, page, &slot);
	assert_follows(vcpu, page);
}

/*
 * The end of a cache, or of the process
 */

/* The only cache that one thread can deactivate while another thread uses it. */
UFFD_TEST(deactivate_while_waiting)
{
	void *mem = gpc_mmap_anon(NULL), *page = mem + (GPC_CLOCK - GPC_GPA);
	struct kvm_vm *vm = vcpu->vm;
	struct gpc_task task;
	int uffd, ret;

	gpc_slot(vm, 0, GPC_GPA, GPC_SIZE, mem);
	gpc_xen_on(vm);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vm, GPC_CLOCK), 0);

	uffd = gpc_uffd_make_missing(page);
	gpc_task_start(&task, send_event, vcpu);
	gpc_uffd_await(uffd, page, 0);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vm, -1), 0);
	gpc_uffd_supply(uffd, page);
	ret = gpc_task_finish(&task);
	TEST_ASSERT(ret < 0, "Event delivered after deactivation");
	GPC_ASSERT_POISON(page, PAGE_SIZE);

	memset(page, 0, PAGE_SIZE);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vm, GPC_CLOCK), 0);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), 0);
	TEST_ASSERT(gpc_xen_event_pending(page), "Event not delivered");
}

/* A VM belongs to the process that created it, so the child creates one. */
static void wait_to_be_killed(int fd, bool change_memslots)
{
	struct kvm_vcpu *vcpu = gpc_create(gpc_metadata);
	struct slot slot = { vcpu->vm, GPC_SLOT };
	struct gpc_task task, change;
	void *page;

	vcpu_arch_set_entry_point(vcpu, gpc_guest);
	page = clock_on_anon(vcpu);
	gpc_task_update(&task, vcpu, gpc_uffd_make_missing(page), page);
	if (change_memslots) {
		gpc_task_start(&change, set_slot, &slot);
		gpc_task_await_done_or(&change, 'D');
	}
	TEST_ASSERT(write(fd, "", 1) == 1, __KVM_SYSCALL_ERROR("write()", -1));
	for (;;)
		pause();
}

static void assert_killable(bool change_memslots)
{
	int fds[2], status;
	pid_t pid;
	char c;

	close(gpc_uffd_open(0));
	TEST_ASSERT(!pipe(fds), __KVM_SYSCALL_ERROR("pipe()", -1));
	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork()", pid));
	if (!pid) {
		close(fds[0]);
		wait_to_be_killed(fds[1], change_memslots);
	}
	close(fds[1]);
	TEST_ASSERT(read(fds[0], &c, 1) == 1, "The child ended by itself");
	TEST_ASSERT(!kill(pid, SIGKILL), __KVM_SYSCALL_ERROR("kill()", -1));
	TEST_ASSERT(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
		    WTERMSIG(status) == SIGKILL, "The child was not killed");
}

UFFD_TEST(kill_while_waiting)
{
	assert_killable(false);
}

UFFD_TEST(kill_before_memslot_change)
{
	assert_killable(true);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XEN_HVM));

	return test_harness_run(argc, argv);
}
