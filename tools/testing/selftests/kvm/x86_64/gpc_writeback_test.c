// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest memory in a file, on a filesystem where the page fault marks a page dirty after
 * page_mkwrite().  The next msync() must write to the file all that KVM and the VMM have
 * written, whatever refreshes and faults happen at the same time.
 *
 * The file is on a 9p share with the tag "share", which the lab's virtual machines have.
 */
#include <pthread.h>
#include <sys/mount.h>
#include <time.h>

#include "gpc_harness.h"
#include "gpc_xen.h"

#define PAGES		64
#define SIZE		(PAGES * PAGE_SIZE)
#define RECORD_OFFSET	1024

#define STORM_NS	(4ull * NSEC_PER_SEC)
#define REFRESH_NS	30000

FIXTURE(gpc_writeback)
{
	struct kvm_vcpu *vcpu;
	char dir[32];
	char path[64];
	void *mem;
};

FIXTURE_VARIANT(gpc_writeback)
{
	const char *options;
};

FIXTURE_VARIANT_ADD(gpc_writeback, p9_loose)
{
	.options = "trans=virtio,version=9p2000.L,cache=loose",
};

FIXTURE_VARIANT_ADD(gpc_writeback, p9_mmap)
{
	.options = "trans=virtio,version=9p2000.L,cache=mmap",
};

FIXTURE_SETUP(gpc_writeback)
{
	int fd;

	self->vcpu = gpc_xen_create(_metadata);
	vcpu_arch_set_entry_point(self->vcpu, gpc_guest);

	snprintf(self->dir, sizeof(self->dir), "/tmp/gpc.XXXXXX");
	TEST_ASSERT(mkdtemp(self->dir), __KVM_SYSCALL_ERROR("mkdtemp()", -1));
	/* The mount ends with the process, also when the test fails. */
	TEST_ASSERT(!unshare(CLONE_NEWNS) && !mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL),
		    __KVM_SYSCALL_ERROR("unshare()", -1));
	GPC_REQUIRE(!mount("share", self->dir, "9p", 0, variant->options),
		    "no 9p share with the tag \"share\": %s", strerror(errno));

	snprintf(self->path, sizeof(self->path), "%s/memory", self->dir);
	fd = open(self->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("open()", fd));
	TEST_ASSERT(!ftruncate(fd, SIZE), __KVM_SYSCALL_ERROR("ftruncate()", -1));
	self->mem = gpc_mmap(NULL, SIZE, MAP_SHARED, fd, 0);
	close(fd);
	gpc_slot(self->vcpu->vm, 0, GPC_GPA, SIZE, self->mem);
}

FIXTURE_TEARDOWN(gpc_writeback)
{
	gpc_free(self->vcpu);
	munmap(self->mem, SIZE);
	unlink(self->path);
	umount(self->dir);
	rmdir(self->dir);
}

static void sync_to_file(void *mem)
{
	TEST_ASSERT(!msync(mem, SIZE, MS_SYNC), __KVM_SYSCALL_ERROR("msync()", -1));
}

static void assert_file_current(const char *path, void *mem)
{
	/* Bypass the page cache, which has what is in memory. */
	void *copy = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i, fd = open(path, O_RDONLY | O_DIRECT);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("open()", fd));
	TEST_ASSERT(pread(fd, copy, SIZE, 0) == SIZE, __KVM_SYSCALL_ERROR("pread()", -1));
	for (i = 0; i < SIZE; i += PAGE_SIZE)
		TEST_ASSERT(!memcmp(copy + i, mem + i, PAGE_SIZE),
			    "msync() has not written page %d", i / (int)PAGE_SIZE);
	munmap(copy, SIZE);
	close(fd);
}

static void assert_clean(void *mem)
{
	int i;

	for (i = 0; i < SIZE; i += PAGE_SIZE)
		TEST_ASSERT(!(gpc_page_flags(mem + i) & BIT_ULL(KPF_DIRTY)),
			    "msync() has left page %d dirty", i / (int)PAGE_SIZE);
}

/*
 * The storm: one thread writes to each page in turn, and faults where msync() has cleaned
 * the page.  Another thread calls msync().  The third thread makes KVM look up the page
 * that is being written, and write a runstate there.  The third interrupts the first at
 * an arbitrary instruction of the fault: it shares the CPU and has priority.
 */
struct storm {
	struct kvm_vcpu *vcpu;
	uint32_t *mem;
	int page;
	bool stop;
};

static void *write_pages(void *data)
{
	struct storm *storm = data;
	uint32_t n;
	int i;

	for (n = 0; !READ_ONCE(storm->stop); n++) {
		for (i = 0; i < PAGES; i++) {
			WRITE_ONCE(storm->page, i);
			WRITE_ONCE(storm->mem[i * PAGE_SIZE / sizeof(n)], n);
		}
	}
	return NULL;
}

static void *clean_pages(void *data)
{
	struct storm *storm = data;

	while (!READ_ONCE(storm->stop))
		sync_to_file(storm->mem);
	return NULL;
}

static void refresh(struct storm *storm)
{
	uint64_t gpa = GPC_GPA + READ_ONCE(storm->page) * PAGE_SIZE + RECORD_OFFSET;

	TEST_ASSERT_EQ(gpc_set_record(storm->vcpu, gpa), 0);
	TEST_ASSERT_EQ(gpc_set_record(storm->vcpu, KVM_XEN_INVALID_GPA), 0);
}

static void set_priority(int policy, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	TEST_ASSERT(!sched_setscheduler(0, policy, &param),
		    __KVM_SYSCALL_ERROR("sched_setscheduler()", -1));
}

static void run_storm(struct storm *storm)
{
	struct timespec ts = { };
	pthread_t writer, cleaner;
	uint64_t end;
	int i;

	/* Fails on a kernel that is always preemptible, or never. */
	(void)gpc_set("/sys/kernel/debug/sched/preempt", "full");
	TEST_ASSERT(!pthread_create(&writer, NULL, write_pages, storm) &&
		    !pthread_create(&cleaner, NULL, clean_pages, storm), "Cannot create a thread");
	set_priority(SCHED_FIFO, 1);
	end = gpc_monotonic_ns() + STORM_NS;
	for (i = 1; gpc_monotonic_ns() < end; i++) {
		ts.tv_nsec = i * 7919 % REFRESH_NS;
		nanosleep(&ts, NULL);
		refresh(storm);
	}
	set_priority(SCHED_OTHER, 0);
	WRITE_ONCE(storm->stop, true);
	pthread_join(writer, NULL);
	pthread_join(cleaner, NULL);
}

TEST_F(gpc_writeback, msync)
{
	struct storm storm = { .vcpu = self->vcpu, .mem = self->mem };

	gpc_set_abi(self->vcpu->vm, GPC_64);
	run_storm(&storm);
	sync_to_file(self->mem);
	assert_clean(self->mem);
	assert_file_current(self->path, self->mem);

	/* The next writes are noticed, too. */
	memset(self->mem, GPC_POISON, SIZE);
	sync_to_file(self->mem);
	assert_clean(self->mem);
	assert_file_current(self->path, self->mem);
}

int main(int argc, char *argv[])
{
	GPC_REQUIRE_RUNSTATE();

	return test_harness_run(argc, argv);
}
