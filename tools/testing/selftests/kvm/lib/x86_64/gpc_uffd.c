// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_uffd.h"

int gpc_uffd_open(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);

	GPC_REQUIRE(uffd >= 0, "no userfaultfd for kernel faults: %s", strerror(errno));
	GPC_REQUIRE(!ioctl(uffd, UFFDIO_API, &api),
		    "userfaultfd without features 0x%lx: %s", features, strerror(errno));
	return uffd;
}

void gpc_uffd_register(int uffd, void *mem, size_t size, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)mem, size },
		.mode = mode,
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_REGISTER, &reg),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_REGISTER)", -1));
}

/* Wait until a thread faults on @page. */
void gpc_uffd_await_fault(int uffd, void *page, uint64_t flags)
{
	struct uffd_msg msg;

	TEST_ASSERT(read(uffd, &msg, sizeof(msg)) == sizeof(msg),
		    __KVM_SYSCALL_ERROR("read()", -1));
	TEST_ASSERT_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	TEST_ASSERT_EQ(msg.arg.pagefault.address, (uintptr_t)page);
	TEST_ASSERT_EQ(msg.arg.pagefault.flags, flags);
}

/* The same, for a write fault. */
void gpc_uffd_await(int uffd, void *page, uint64_t why)
{
	gpc_uffd_await_fault(uffd, page, UFFD_PAGEFAULT_FLAG_WRITE | why);
}

/* Supply a page of poison. */
void gpc_uffd_supply(int uffd, void *page)
{
	static uint8_t src[PAGE_SIZE] __aligned(PAGE_SIZE);
	struct uffdio_copy copy = {
		.dst = (uintptr_t)page,
		.src = (uintptr_t)memset(src, GPC_POISON, PAGE_SIZE),
		.len = PAGE_SIZE,
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_COPY, &copy),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_COPY)", -1));
}

void gpc_uffd_supply_zeros(int uffd, void *page)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)page, PAGE_SIZE } };

	TEST_ASSERT(!ioctl(uffd, UFFDIO_ZEROPAGE, &zero),
		    __KVM_SYSCALL_ERROR("ioctl(UFFDIO_ZEROPAGE)", -1));
}

/* Drop the page, so that the handler has to serve the next fault. */
int gpc_uffd_make_missing(void *page)
{
	int uffd = gpc_uffd_open(0);

	gpc_uffd_register(uffd, page, PAGE_SIZE, UFFDIO_REGISTER_MODE_MISSING);
	gpc_drop(page);
	return uffd;
}

/*
 * A thread that may sleep in KVM
 */

static void *gpc_task_thread(void *data)
{
	struct gpc_task *task = data;

	WRITE_ONCE(task->tid, gettid());
	task->ret = task->fn(task->arg);
	WRITE_ONCE(task->done, true);
	return NULL;
}

void gpc_task_start(struct gpc_task *task, int (*fn)(void *arg), void *arg)
{
	*task = (struct gpc_task) { .fn = fn, .arg = arg };
	TEST_ASSERT(!pthread_create(&task->thread, NULL, gpc_task_thread, task),
		    "Cannot create a thread");
}

int gpc_task_finish(struct gpc_task *task)
{
	TEST_ASSERT(!pthread_join(task->thread, NULL), "Cannot join a thread");
	return task->ret;
}

/* For a task that should end by itself.  Returns false after some seconds. */
bool gpc_task_ends(struct gpc_task *task)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 5;
	return !pthread_timedjoin_np(task->thread, NULL, &limit);
}

/*
 * Wait until the task has ended, or sleeps: 'S' where a signal wakes it, 'D' where an
 * ordinary signal does not.
 */
void gpc_task_await_done_or(struct gpc_task *task, char sleep)
{
	char path[64], state = 0;
	FILE *f;

	while (!READ_ONCE(task->done) && state != sleep) {
		usleep(1000);
		if (!READ_ONCE(task->tid))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", task->tid);
		f = fopen(path, "r");
		if (!f)
			continue;
		/* proc_pid_stat(5): the state follows the name in parentheses. */
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(f);
	}
}

/* Returns false if the task waits for a page of @uffd instead. */
bool gpc_task_ends_unserved(struct gpc_task *task, int uffd)
{
	struct pollfd fault = { .fd = uffd, .events = POLLIN };
	int faults;

	/* poll() requires a non-blocking userfaultfd. */
	TEST_ASSERT(!fcntl(uffd, F_SETFL, O_NONBLOCK), __KVM_SYSCALL_ERROR("fcntl()", -1));
	do {
		faults = poll(&fault, 1, 1);
	} while (!faults && !READ_ONCE(task->done));
	TEST_ASSERT(faults >= 0 && !(fault.revents & POLLERR), "Cannot poll the userfaultfd");
	TEST_ASSERT(!fcntl(uffd, F_SETFL, 0), __KVM_SYSCALL_ERROR("fcntl()", -1));
	return !faults;
}

/* Let KVM update the clock; the guest reads nothing. */
int gpc_task_update_fn(void *vcpu)
{
	gpc_update(vcpu);
	return 0;
}

/* Start an update.  Returns when the update waits for the handler. */
void gpc_task_update(struct gpc_task *task, struct kvm_vcpu *vcpu, int uffd, void *page)
{
	gpc_task_start(task, gpc_task_update_fn, vcpu);
	gpc_uffd_await(uffd, page, 0);
}

/*
 * A kick: the signal by which a VMM gets a vCPU's thread out of KVM_RUN
 */

static struct kvm_vcpu *gpc_kicked;

/* Like a VMM, in case the signal arrives just before KVM_RUN. */
static void gpc_exit_immediately(int signal)
{
	WRITE_ONCE(gpc_kicked->run->immediate_exit, 1);
}

void gpc_catch_kicks(struct kvm_vcpu *vcpu)
{
	struct sigaction action = { .sa_handler = gpc_exit_immediately };

	gpc_kicked = vcpu;
	TEST_ASSERT(!sigaction(SIGUSR1, &action, NULL), __KVM_SYSCALL_ERROR("sigaction()", -1));
}

int gpc_task_run_fn(void *vcpu)
{
	return __vcpu_run(vcpu) ? -errno : 0;
}

void gpc_kick_out(struct kvm_vcpu *vcpu, struct gpc_task *task)
{
	TEST_ASSERT(!pthread_kill(task->thread, SIGUSR1), "Cannot send a signal");
	TEST_ASSERT(gpc_task_ends(task), "A kick does not end KVM_RUN");
	TEST_ASSERT_EQ(task->ret, -EINTR);

	/* With immediate_exit, KVM_RUN touches no page. */
	gpc_task_start(task, gpc_task_run_fn, vcpu);
	TEST_ASSERT(gpc_task_ends(task), "KVM_RUN waits despite immediate_exit");
	TEST_ASSERT_EQ(task->ret, -EINTR);
	vcpu->run->immediate_exit = 0;
}
