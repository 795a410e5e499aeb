// SPDX-License-Identifier: GPL-2.0-only
/*
 * The runstate of a Xen vCPU: in either ABI, at any byte and across the end of a page,
 * the guest finds a whole record, and KVM touches nothing around it.  Also the attributes
 * by which the VMM sets the runstate.
 */
#include <pthread.h>
#include <semaphore.h>

#include "gpc_harness.h"
#include "gpc_xen.h"

/* Records begin at each of the 128 bytes around the page end. */
#define FIRST_OFFSET	(-64)
#define LAST_OFFSET	63

#define DAY_NS		(86400ull * NSEC_PER_SEC)

FIXTURE(gpc_runstate)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_runstate)
{
	self->vcpu = gpc_xen_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_runstate)
{
	gpc_free(self->vcpu);
}

#define RUNSTATE_TEST(test) KVM_ONE_VCPU_TEST(gpc_runstate, test, gpc_guest)

static struct gpc_span one_slot(struct kvm_vm *vm)
{
	return gpc_span_one_slot(vm, gpc_mmap_anon(NULL));
}

static struct gpc_span two_slots(struct kvm_vm *vm)
{
	return gpc_span_two_slots(vm, gpc_mmap_anon(NULL), gpc_mmap_anon(NULL));
}

/* Assert that the time from @prev to @next went to the state that the vCPU was in. */
static void assert_accounted(const struct gpc_runstate *prev, const struct gpc_runstate *next)
{
	/* A vCPU that has never run has been offline. */
	enum gpc_state state = prev->entry_time ? prev->state : GPC_OFFLINE;
	uint64_t grown[GPC_NR_STATES], total = next->entry_time - prev->entry_time;
	int i;

	for (i = 0; i < GPC_NR_STATES; i++)
		grown[i] = next->times[i] - prev->times[i];

	/* A running vCPU may have waited for a CPU. */
	if (state == GPC_RUNNING) {
		grown[GPC_RUNNING] += grown[GPC_RUNNABLE];
		grown[GPC_RUNNABLE] = 0;
	}

	TEST_ASSERT(total && total < DAY_NS, "From %lu ns to %lu ns",
		    prev->entry_time, next->entry_time);
	for (i = 0; i < GPC_NR_STATES; i++)
		TEST_ASSERT(grown[i] == (i == state ? total : 0),
			    "%lu ns in state %u made state %u grow by %lu ns",
			    total, state, i, grown[i]);
}

/* Let the vCPU enter @state.  Assert that KVM writes the record and nothing else. */
static struct gpc_runstate enter(struct kvm_vcpu *vcpu, const struct gpc_span *span,
				 uint64_t gpa, enum gpc_abi abi, enum gpc_state state)
{
	uint64_t before = gpc_now(vcpu->vm), after;
	struct gpc_runstate rs;

	TEST_ASSERT_EQ(gpc_set_state(vcpu, state), 0);
	after = gpc_now(vcpu->vm);

	rs = gpc_take_record(span, gpa, abi);
	TEST_ASSERT_EQ(rs.state, state);
	TEST_ASSERT(before <= rs.entry_time && rs.entry_time <= after,
		    "Entered at %lu ns, between %lu ns and %lu ns",
		    rs.entry_time, before, after);
	return rs;
}

static void assert_record_works(struct kvm_vcpu *vcpu, const struct gpc_span *span,
				uint64_t gpa, enum gpc_abi abi)
{
	const enum gpc_state states[] = { GPC_RUNNING, GPC_RUNNABLE, GPC_OFFLINE, GPC_BLOCKED };
	struct gpc_runstate prev, rs;
	int i;

	/* KVM writes the record at once, and with each change. */
	gpc_span_poison(span);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
	prev = gpc_take_record(span, gpa, abi);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		rs = enter(vcpu, span, gpa, abi, states[i]);
		assert_accounted(&prev, &rs);
		prev = rs;
	}

	/* The vCPU may have waited for its CPU before the guest sees the record. */
	rs = gpc_assert_record(vcpu, gpa, abi);
	TEST_ASSERT_EQ(rs.times[GPC_OFFLINE], prev.times[GPC_OFFLINE]);
	TEST_ASSERT(rs.times[GPC_BLOCKED] > prev.times[GPC_BLOCKED], "No time was spent blocked");
	gpc_take_record(span, gpa, abi);
}

static void assert_works_at_each_offset(struct kvm_vcpu *vcpu, struct gpc_span span,
					enum gpc_abi abi)
{
	int offset;

	gpc_set_abi(vcpu->vm, abi);
	for (offset = FIRST_OFFSET; offset <= LAST_OFFSET; offset++)
		assert_record_works(vcpu, &span, GPC_SPAN_END + offset, abi);
}

RUNSTATE_TEST(offsets_32bit)
{
	assert_works_at_each_offset(vcpu, one_slot(vcpu->vm), GPC_32);
}

RUNSTATE_TEST(offsets_64bit)
{
	assert_works_at_each_offset(vcpu, one_slot(vcpu->vm), GPC_64);
}

RUNSTATE_TEST(offsets_32bit_two_memslots)
{
	assert_works_at_each_offset(vcpu, two_slots(vcpu->vm), GPC_32);
}

RUNSTATE_TEST(offsets_64bit_two_memslots)
{
	assert_works_at_each_offset(vcpu, two_slots(vcpu->vm), GPC_64);
}

/*
 * A second vCPU that reads the first vCPU's record while that changes
 */

static struct watch {
	uint64_t gva;
	enum gpc_abi abi;
	bool no_flag;		/* the update flag is off: it must never be seen */
	bool stop;
	uint64_t reads;
	uint64_t entry_time;
} watch;

static void watch_flag(struct watch *w)
{
	const uint8_t *last_byte = (void *)w->gva + w->abi + sizeof(uint64_t) - 1;

	GUEST_ASSERT(!(READ_ONCE(*last_byte) & (GPC_RUNSTATE_UPDATE >> 56)));
	w->reads++;
}

static void watch_record(struct watch *w)
{
	struct gpc_runstate rs;

	if (!gpc_guest_try_record((void *)w->gva, w->abi, &rs))
		return;

	__GUEST_ASSERT(gpc_runstate_sum(&rs) == rs.entry_time && rs.state < GPC_NR_STATES,
		       "Torn: at %lu ns, state %u, times add up to %lu ns",
		       rs.entry_time, rs.state, gpc_runstate_sum(&rs));
	__GUEST_ASSERT(rs.entry_time >= w->entry_time, "From %lu ns back to %lu ns",
		       w->entry_time, rs.entry_time);
	w->entry_time = rs.entry_time;
	w->reads++;
}

/* Bochs 2.7 does not interrupt a guest that has disabled interrupts. */
static void guest_watch(void)
{
	struct watch *w = &watch;

	asm volatile("sti");
	for (;;) {
		while (!READ_ONCE(w->stop)) {
			if (w->no_flag)
				watch_flag(w);
			else
				watch_record(w);
		}
		GUEST_SYNC(0);
	}
}

/* The guest's watch, as the VMM sees it, and the thread of its vCPU. */
static struct {
	struct watch *guest;
	struct kvm_vcpu *vcpu;
	pthread_t thread;
	sem_t start;
	sem_t stopped;
	bool end;
} watcher;

static void *watcher_thread(void *unused)
{
	for (;;) {
		sem_wait(&watcher.start);
		if (watcher.end)
			return NULL;
		vcpu_run(watcher.vcpu);
		gpc_assert_synced(watcher.vcpu);
		sem_post(&watcher.stopped);
	}
}

/* Run on any CPU: do not inherit the affinity of this thread. */
static pthread_t create_thread(void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	cpu_set_t cpus;

	gpc_all_cpus(&cpus);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	TEST_ASSERT(!pthread_create(&thread, &attr, fn, arg), "Cannot create a thread");
	return thread;
}

static void watcher_create(struct kvm_vm *vm)
{
	watcher.vcpu = vm_vcpu_add(vm, 1, guest_watch);
	watcher.guest = addr_gva2hva(vm, (uintptr_t)&watch);
	sem_init(&watcher.start, 0, 0);
	sem_init(&watcher.stopped, 0, 0);
	watcher.thread = create_thread(watcher_thread, NULL);
}

static void watcher_end(void)
{
	watcher.end = true;
	sem_post(&watcher.start);
	pthread_join(watcher.thread, NULL);
}

/* Change the state at least @updates times, and until the guest has read as often. */
static void update_under_watch(struct kvm_vcpu *vcpu, uint64_t gpa, enum gpc_abi abi,
			       bool no_flag, uint64_t updates)
{
	uint64_t i;

	*watcher.guest = (struct watch){ .gva = gpa, .abi = abi, .no_flag = no_flag };
	sem_post(&watcher.start);
	for (i = 0; i < updates || READ_ONCE(watcher.guest->reads) < updates; i++)
		TEST_ASSERT_EQ(gpc_set_state(vcpu, i % GPC_NR_STATES), 0);
	WRITE_ONCE(watcher.guest->stop, true);
	sem_wait(&watcher.stopped);
}

static void assert_never_torn_at_each_offset(struct kvm_vcpu *vcpu, struct gpc_span span,
					     enum gpc_abi abi)
{
	int offset;

	gpc_set_abi(vcpu->vm, abi);
	watcher_create(vcpu->vm);
	for (offset = FIRST_OFFSET; offset <= LAST_OFFSET; offset++) {
		gpc_span_poison(&span);
		TEST_ASSERT_EQ(gpc_set_record(vcpu, GPC_SPAN_END + offset), 0);
		update_under_watch(vcpu, GPC_SPAN_END + offset, abi, false, 200);
		gpc_take_record(&span, GPC_SPAN_END + offset, abi);
	}
	watcher_end();
}

RUNSTATE_TEST(never_torn_32bit)
{
	assert_never_torn_at_each_offset(vcpu, one_slot(vcpu->vm), GPC_32);
}

RUNSTATE_TEST(never_torn_64bit)
{
	assert_never_torn_at_each_offset(vcpu, one_slot(vcpu->vm), GPC_64);
}

RUNSTATE_TEST(never_torn_32bit_two_memslots)
{
	assert_never_torn_at_each_offset(vcpu, two_slots(vcpu->vm), GPC_32);
}

RUNSTATE_TEST(never_torn_64bit_two_memslots)
{
	assert_never_torn_at_each_offset(vcpu, two_slots(vcpu->vm), GPC_64);
}

RUNSTATE_TEST(no_update_flag)
{
	const int offsets[] = { -GPC_RECORD_MAX, -20, -12, 0 };
	struct gpc_span span = one_slot(vcpu->vm);
	int i;

	gpc_set_abi(vcpu->vm, GPC_64);
	gpc_set_update_flag(vcpu->vm, false);
	watcher_create(vcpu->vm);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		gpc_span_poison(&span);
		TEST_ASSERT_EQ(gpc_set_record(vcpu, GPC_SPAN_END + offsets[i]), 0);
		update_under_watch(vcpu, GPC_SPAN_END + offsets[i], GPC_64, true, 5000);
		gpc_take_record(&span, GPC_SPAN_END + offsets[i], GPC_64);
	}
	watcher_end();
}

/*
 * A vCPU that is ready to run but loses its CPU: KVM records that at sched-out
 */

static struct spin {
	bool started;
	bool stop;
} spin;

static void guest_spin(void)
{
	asm volatile("sti");
	WRITE_ONCE(spin.started, true);
	while (!READ_ONCE(spin.stop))
		cpu_relax();
	asm volatile("cli");
}

static void *spin_thread(void *vcpu)
{
	gpc_run(vcpu, (struct gpc_step) { .call = guest_spin });
	return NULL;
}

static void read_record(const struct gpc_span *span, uint64_t gpa, uint8_t *record)
{
	int i;

	for (i = 0; i < GPC_RECORD_MAX; i++)
		record[i] = READ_ONCE(*gpc_span_byte(span, gpa + i));
}

/*
 * The vCPU shares this thread's CPU, so it waits while this thread runs.  Returns the
 * vCPU's last record.  If the vCPU ran in between, its record has another time: read
 * again.
 */
static struct gpc_runstate last_words(const struct gpc_span *span, uint64_t gpa)
{
	uint8_t record[GPC_RECORD_MAX], again[GPC_RECORD_MAX];

	do {
		read_record(span, gpa, record);
		read_record(span, gpa, again);
	} while (memcmp(record, again, sizeof(record)));
	return gpc_record_at(record, GPC_64);
}

static void assert_runnable(const struct gpc_span *span, uint64_t gpa, uint64_t since)
{
	struct gpc_runstate rs = last_words(span, gpa);

	gpc_assert_whole(&rs);
	TEST_ASSERT_EQ(rs.state, GPC_RUNNABLE);
	TEST_ASSERT(rs.entry_time >= since, "Runnable since %lu ns, but ran at %lu ns",
		    rs.entry_time, since);
}

static void assert_runnable_while_preempted(struct kvm_vcpu *vcpu, const struct gpc_span *span,
					    uint64_t gpa)
{
	struct spin *s = addr_gva2hva(vcpu->vm, (uintptr_t)&spin);
	pthread_t thread;
	uint64_t since;
	int i;

	gpc_span_poison(span);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);

	*s = (struct spin) { };
	TEST_ASSERT(!pthread_create(&thread, NULL, spin_thread, vcpu), "Cannot create a thread");
	while (!READ_ONCE(s->started))
		sched_yield();
	assert_runnable(span, gpa, 0);

	/* The same after another run, with memory that was dropped in the meantime. */
	for (i = 0; i < 2; i++) {
		TEST_ASSERT(!madvise(span->page[i], PAGE_SIZE, MADV_DONTNEED),
			    __KVM_SYSCALL_ERROR("madvise(MADV_DONTNEED)", -1));
		since = gpc_now(vcpu->vm);
		while (last_words(span, gpa).entry_time < since)
			sched_yield();
		assert_runnable(span, gpa, since);
	}

	WRITE_ONCE(s->stop, true);
	pthread_join(thread, NULL);
}

RUNSTATE_TEST(runnable_while_preempted)
{
	const int offsets[] = { -GPC_RECORD_MAX, -GPC_RECORD_MAX + 1, -20, -12, -1, 0 };
	struct gpc_span span = two_slots(vcpu->vm);
	int i;

	gpc_set_abi(vcpu->vm, GPC_64);
	for (i = 0; i < ARRAY_SIZE(offsets); i++)
		assert_runnable_while_preempted(vcpu, &span, GPC_SPAN_END + offsets[i]);
}

/*
 * From 32 to 64 bits and back: the record changes its size
 */

static void assert_follows_abi(struct kvm_vcpu *vcpu, const struct gpc_span *span,
			       uint64_t gpa, enum gpc_abi abi)
{
	gpc_span_poison(span);
	gpc_set_abi(vcpu->vm, abi);
	enter(vcpu, span, gpa, abi, GPC_BLOCKED);
	gpc_assert_record(vcpu, gpa, abi);
	gpc_take_record(span, gpa, abi);
}

static void assert_follows_abi_at_each_offset(struct kvm_vcpu *vcpu, struct gpc_span span)
{
	uint64_t gpa;

	for (gpa = GPC_SPAN_END - GPC_RECORD_MAX; gpa <= GPC_SPAN_END; gpa++) {
		gpc_set_abi(vcpu->vm, GPC_32);
		TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
		assert_follows_abi(vcpu, &span, gpa, GPC_64);
		assert_follows_abi(vcpu, &span, gpa, GPC_32);
		assert_follows_abi(vcpu, &span, gpa, GPC_64);
	}
}

RUNSTATE_TEST(follows_mode_switch)
{
	assert_follows_abi_at_each_offset(vcpu, one_slot(vcpu->vm));
}

RUNSTATE_TEST(mode_switch_two_memslots)
{
	assert_follows_abi_at_each_offset(vcpu, two_slots(vcpu->vm));
}

/* In 64-bit mode the record's end has no memory, so KVM does not write the record. */
RUNSTATE_TEST(unmapped_at_mode_switch)
{
	const uint64_t gpa = GPC_SPAN_END - GPC_RECORD_SIZE(GPC_32);
	struct gpc_span span = two_slots(vcpu->vm);
	struct gpc_runstate prev, rs;

	gpc_set_abi(vcpu->vm, GPC_32);
	vm_set_user_memory_region(vcpu->vm, GPC_SPAN_SLOT2, 0, 0, 0, NULL);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
	gpc_take_record(&span, gpa, GPC_32);
	prev = enter(vcpu, &span, gpa, GPC_32, GPC_BLOCKED);

	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	gpc_span_assert_poison(&span);

	/* The accounting continues. */
	gpc_set_abi(vcpu->vm, GPC_32);
	rs = enter(vcpu, &span, gpa, GPC_32, GPC_BLOCKED);
	assert_accounted(&prev, &rs);

	gpc_set_abi(vcpu->vm, GPC_64);
	gpc_run(vcpu, (struct gpc_step) { });
	gpc_span_assert_poison(&span);

	vm_set_user_memory_region(vcpu->vm, GPC_SPAN_SLOT2, 0, GPC_SPAN_END, PAGE_SIZE,
				  span.page[1]);
	gpc_assert_record_in(vcpu, &span, gpa, GPC_64);
}

static bool toggle_end;

static void *toggle_thread(void *arg)
{
	struct kvm_vm *vm = arg;
	int i;

	for (i = 0; !READ_ONCE(toggle_end); i++)
		gpc_set_abi(vm, i % 2 ? GPC_64 : GPC_32);
	return NULL;
}

/*
 * The mode changes while KVM writes the record.  A 32-bit record ends where the page and
 * the memslot end.  A 64-bit record would extend into the next page, which is also
 * adjacent in the host's memory.
 */
RUNSTATE_TEST(mode_switch_no_overrun)
{
	const uint64_t gpa = GPC_SPAN_END - GPC_RECORD_SIZE(GPC_32);
	struct gpc_span span;
	pthread_t thread;
	int i;

	span.page[0] = gpc_mmap_adjacent();
	span.page[1] = span.page[0] + PAGE_SIZE;
	vm_set_user_memory_region(vcpu->vm, GPC_SLOT, 0, GPC_SPAN_GPA, PAGE_SIZE, span.page[0]);

	gpc_set_abi(vcpu->vm, GPC_32);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
	thread = create_thread(toggle_thread, vcpu->vm);
	for (i = 0; i < 1000; i++) {
		/* The lookup gives the mode time to change. */
		TEST_ASSERT(!mprotect(span.page[0], PAGE_SIZE, PROT_NONE) &&
			    !mprotect(span.page[0], PAGE_SIZE, PROT_READ | PROT_WRITE),
			    __KVM_SYSCALL_ERROR("mprotect()", -1));
		gpc_run(vcpu, (struct gpc_step) { });
		GPC_ASSERT_POISON(span.page[1], 8);
	}
	WRITE_ONCE(toggle_end, true);
	pthread_join(thread, NULL);
}

/*
 * Attributes
 */

static struct kvm_xen_vcpu_attr get_data(struct kvm_vcpu *vcpu)
{
	struct kvm_xen_vcpu_attr attr = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };

	vcpu_ioctl(vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
	return attr;
}

static int get_attr(struct kvm_vcpu *vcpu, uint16_t type, uint64_t *val)
{
	struct kvm_xen_vcpu_attr attr = { .type = type };
	int r = __vcpu_ioctl(vcpu, KVM_XEN_VCPU_GET_ATTR, &attr) ? -errno : 0;

	*val = type == KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR ? attr.u.gpa : attr.u.runstate.state;
	return r;
}

static void assert_current(struct kvm_vcpu *vcpu, enum gpc_state state)
{
	uint64_t val;

	TEST_ASSERT_EQ(get_attr(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, &val), 0);
	TEST_ASSERT_EQ(val, state);
}

static void assert_no_record(struct kvm_vcpu *vcpu)
{
	uint64_t gpa;

	TEST_ASSERT_EQ(get_attr(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, &gpa), -ENOENT);
}

static void assert_record_is_at(struct kvm_vcpu *vcpu, uint64_t expected)
{
	uint64_t gpa;

	TEST_ASSERT_EQ(get_attr(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, &gpa), 0);
	TEST_ASSERT_EQ(gpa, expected);
}

/* An attribute for DATA or ADJUST. */
static struct kvm_xen_vcpu_attr attr_of(uint16_t type, uint64_t state, uint64_t running,
					uint64_t runnable, uint64_t blocked,
					uint64_t offline)
{
	return (struct kvm_xen_vcpu_attr){
		.type = type,
		.u.runstate = {
			.state = state,
			.state_entry_time = running + runnable + blocked + offline,
			.time_running = running,
			.time_runnable = runnable,
			.time_blocked = blocked,
			.time_offline = offline,
		},
	};
}

#define DATA(...)	attr_of(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA, __VA_ARGS__)
#define ADJUST(...)	attr_of(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST, __VA_ARGS__)
#define KEEP_STATE	((uint64_t)-1)

static void assert_times(const struct gpc_runstate *rs, uint64_t running, uint64_t runnable,
			 uint64_t blocked, uint64_t offline)
{
	TEST_ASSERT_EQ(rs->times[GPC_RUNNING], running);
	TEST_ASSERT_EQ(rs->times[GPC_RUNNABLE], runnable);
	TEST_ASSERT_EQ(rs->times[GPC_BLOCKED], blocked);
	TEST_ASSERT_EQ(rs->times[GPC_OFFLINE], offline);
}

/* Set a record across the page end.  The span is left poisoned. */
#define ATTR_GPA	(GPC_SPAN_END - 20)

static struct gpc_span record_on(struct kvm_vcpu *vcpu)
{
	struct gpc_span span = one_slot(vcpu->vm);

	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, ATTR_GPA), 0);
	gpc_take_record(&span, ATTR_GPA, GPC_64);
	return span;
}

RUNSTATE_TEST(current_set_get)
{
	struct gpc_span span = record_on(vcpu);
	enum gpc_state state;

	for (state = 0; state < GPC_NR_STATES; state++) {
		enter(vcpu, &span, ATTR_GPA, GPC_64, state);
		assert_current(vcpu, state);
	}
}

RUNSTATE_TEST(current_bad)
{
	const uint64_t bad[] = { GPC_NR_STATES, BIT_ULL(32), BIT_ULL(63), -1ull };
	struct gpc_span span = record_on(vcpu);
	int i;

	enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_BLOCKED);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		TEST_ASSERT_EQ(gpc_set_state(vcpu, bad[i]), -EINVAL);
		assert_current(vcpu, GPC_BLOCKED);
		gpc_span_assert_poison(&span);
	}
}

/* Like a restore of a VM: the state continues from there. */
RUNSTATE_TEST(data_set_get)
{
	struct gpc_span span = record_on(vcpu);
	struct kvm_xen_vcpu_attr got;
	struct gpc_runstate rs;
	enum gpc_state state;

	for (state = 0; state < GPC_NR_STATES; state++) {
		TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, DATA(state, 1, 20, 300, 4000)), 0);
		got = get_data(vcpu);
		TEST_ASSERT_EQ(got.u.runstate.state, state);
		TEST_ASSERT_EQ(got.u.runstate.state_entry_time, 4321);
		TEST_ASSERT_EQ(got.u.runstate.time_running, 1);
		TEST_ASSERT_EQ(got.u.runstate.time_runnable, 20);
		TEST_ASSERT_EQ(got.u.runstate.time_blocked, 300);
		TEST_ASSERT_EQ(got.u.runstate.time_offline, 4000);
		assert_current(vcpu, state);
	}

	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, DATA(GPC_BLOCKED, 1, 20, 300, 4000)), 0);
	gpc_span_poison(&span);
	rs = enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_OFFLINE);
	assert_times(&rs, 1, 20, 300 + rs.entry_time - 4321, 4000);
}

/* A vCPU that has never run has been offline. */
RUNSTATE_TEST(data_zero)
{
	struct gpc_span span = record_on(vcpu);
	struct gpc_runstate rs;

	enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_BLOCKED);
	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, DATA(GPC_RUNNING, 0, 0, 0, 0)), 0);
	gpc_span_poison(&span);
	rs = enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_RUNNABLE);
	assert_times(&rs, 0, 0, 0, rs.entry_time);
}

static void assert_refused(struct kvm_vcpu *vcpu, struct kvm_xen_vcpu_attr attr)
{
	struct kvm_xen_vcpu_attr before = get_data(vcpu), after;

	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, attr), -EINVAL);
	after = get_data(vcpu);
	TEST_ASSERT(!memcmp(&before, &after, sizeof(before)), "Refused, but the data has changed");
}

static void assert_bad_times_refused(struct kvm_vcpu *vcpu, uint16_t type)
{
	struct kvm_xen_vcpu_attr attr;

	assert_refused(vcpu, attr_of(type, GPC_NR_STATES, 0, 0, 0, 0));
	assert_refused(vcpu, attr_of(type, BIT_ULL(32), 0, 0, 0, 0));
	assert_refused(vcpu, attr_of(type, -2ull, 0, 0, 0, 0));

	attr = attr_of(type, GPC_BLOCKED, 1, 1, 1, 1);
	attr.u.runstate.state_entry_time++;
	assert_refused(vcpu, attr);
	attr.u.runstate.state_entry_time -= 2;
	assert_refused(vcpu, attr);

	/* In the future, by one of the times. */
	assert_refused(vcpu, attr_of(type, GPC_BLOCKED, gpc_now(vcpu->vm) + DAY_NS, 0, 0, 0));
	assert_refused(vcpu, attr_of(type, GPC_BLOCKED, 0, gpc_now(vcpu->vm) + DAY_NS, 0, 0));
	assert_refused(vcpu, attr_of(type, GPC_BLOCKED, 0, 0, gpc_now(vcpu->vm) + DAY_NS, 0));
	assert_refused(vcpu, attr_of(type, GPC_BLOCKED, 0, 0, 0, gpc_now(vcpu->vm) + DAY_NS));
}

RUNSTATE_TEST(data_bad)
{
	struct gpc_span span = record_on(vcpu);

	enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_BLOCKED);
	assert_bad_times_refused(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA);
	assert_refused(vcpu, DATA(KEEP_STATE, 0, 0, 0, 0));
	gpc_span_assert_poison(&span);
}

RUNSTATE_TEST(adjust_times)
{
	struct gpc_span span = record_on(vcpu);
	struct gpc_runstate rs;

	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, DATA(GPC_BLOCKED, 1, 20, 300, 4000)), 0);
	gpc_span_poison(&span);

	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, ADJUST(KEEP_STATE, 50, 60, 70, 80)), 0);
	rs = gpc_take_record(&span, ATTR_GPA, GPC_64);
	TEST_ASSERT_EQ(rs.state, GPC_BLOCKED);
	assert_times(&rs, 51, 80, 370, 4080);

	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, ADJUST(GPC_RUNNABLE, 1, 1, 1, 1)), 0);
	rs = gpc_take_record(&span, ATTR_GPA, GPC_64);
	TEST_ASSERT_EQ(rs.state, GPC_RUNNABLE);
	assert_times(&rs, 52, 81, 371 + rs.entry_time - (51 + 80 + 370 + 4080 + 4), 4081);
}

RUNSTATE_TEST(adjust_bad)
{
	struct gpc_span span = record_on(vcpu);
	struct kvm_xen_vcpu_attr attr = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST };

	enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_BLOCKED);
	assert_bad_times_refused(vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST);
	/* Before now, but in the future when added to the time that has passed. */
	assert_refused(vcpu, ADJUST(KEEP_STATE, gpc_now(vcpu->vm), 0, 0, 0));
	gpc_span_assert_poison(&span);

	TEST_ASSERT(__vcpu_ioctl(vcpu, KVM_XEN_VCPU_GET_ATTR, &attr) && errno == EINVAL,
		    "ADJUST can be read: errno %d", errno);
}

RUNSTATE_TEST(address_set_get)
{
	const int offsets[] = { -GPC_RECORD_MAX, -1, 0, -20 };
	struct gpc_span span = one_slot(vcpu->vm);
	int i;

	gpc_set_abi(vcpu->vm, GPC_64);
	assert_no_record(vcpu);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		TEST_ASSERT_EQ(gpc_set_record(vcpu, GPC_SPAN_END + offsets[i]), 0);
		assert_record_is_at(vcpu, GPC_SPAN_END + offsets[i]);
		gpc_take_record(&span, GPC_SPAN_END + offsets[i], GPC_64);
	}
}

/* KVM stops writing the record; the accounting continues. */
RUNSTATE_TEST(invalid_address)
{
	struct gpc_span span = record_on(vcpu);
	struct gpc_runstate prev = enter(vcpu, &span, ATTR_GPA, GPC_64, GPC_BLOCKED), rs;
	int i;

	for (i = 0; i < 2; i++) {
		TEST_ASSERT_EQ(gpc_set_record(vcpu, KVM_XEN_INVALID_GPA), 0);
		assert_no_record(vcpu);
		TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
		TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, ADJUST(GPC_BLOCKED, 0, 0, 0, 0)), 0);
		gpc_span_assert_poison(&span);
	}

	TEST_ASSERT_EQ(gpc_set_record(vcpu, ATTR_GPA), 0);
	rs = gpc_take_record(&span, ATTR_GPA, GPC_64);
	assert_accounted(&prev, &rs);

	TEST_ASSERT_EQ(gpc_set_record(vcpu, KVM_XEN_INVALID_GPA), 0);
	gpc_run(vcpu, (struct gpc_step) { });
	gpc_span_assert_poison(&span);
}

/* Assert that KVM refuses the address, and drops the previous record. */
static void assert_address_refused(struct kvm_vcpu *vcpu, const struct gpc_span *span,
				   uint64_t gpa)
{
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), -EFAULT);
	assert_no_record(vcpu);
	TEST_ASSERT_EQ(gpc_set_state(vcpu, GPC_BLOCKED), 0);
	gpc_run(vcpu, (struct gpc_step) { });
	gpc_span_assert_poison(span);
}

RUNSTATE_TEST(no_memory)
{
	struct gpc_span span = record_on(vcpu);

	/* Beyond all memory, and at the end of the address space. */
	assert_address_refused(vcpu, &span, BIT_ULL(50) - 20);
	assert_address_refused(vcpu, &span, -PAGE_SIZE - 20);
	assert_address_refused(vcpu, &span, KVM_XEN_INVALID_GPA - 20);
	/* Beginning before the memslot, and ending behind it. */
	assert_address_refused(vcpu, &span, GPC_SPAN_GPA - 20);
	assert_address_refused(vcpu, &span, GPC_SPAN_GPA + GPC_SPAN_SIZE - GPC_RECORD_MAX + 1);
	assert_address_refused(vcpu, &span, GPC_SPAN_GPA + GPC_SPAN_SIZE - 1);
	assert_address_refused(vcpu, &span, GPC_SPAN_GPA + GPC_SPAN_SIZE);

	assert_record_works(vcpu, &span, GPC_SPAN_GPA + GPC_SPAN_SIZE - GPC_RECORD_MAX, GPC_64);
	assert_record_works(vcpu, &span, ATTR_GPA, GPC_64);
}

RUNSTATE_TEST(half_read_only)
{
	void *mem[] = { gpc_mmap_anon(NULL), gpc_mmap_anon(NULL) };
	int ro;

	gpc_set_abi(vcpu->vm, GPC_64);
	for (ro = 0; ro < 2; ro++) {
		struct gpc_span span = gpc_span_two_slots(vcpu->vm, mem[0], mem[1]);
		const uint32_t slot = ro ? GPC_SPAN_SLOT2 : GPC_SLOT;
		const uint64_t gpa = GPC_SPAN_GPA + ro * PAGE_SIZE;

		vm_set_user_memory_region(vcpu->vm, slot, 0, 0, 0, NULL);
		vm_set_user_memory_region(vcpu->vm, slot, KVM_MEM_READONLY, gpa, PAGE_SIZE,
					  mem[ro]);
		gpc_span_poison(&span);
		assert_address_refused(vcpu, &span, ATTR_GPA);

		vm_set_user_memory_region(vcpu->vm, slot, 0, 0, 0, NULL);
		vm_set_user_memory_region(vcpu->vm, slot, 0, gpa, PAGE_SIZE, mem[ro]);
		assert_record_works(vcpu, &span, ATTR_GPA, GPC_64);
	}
}

int main(int argc, char *argv[])
{
	GPC_REQUIRE_RUNSTATE();

	return test_harness_run(argc, argv);
}
