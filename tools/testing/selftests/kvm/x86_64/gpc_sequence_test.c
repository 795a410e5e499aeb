// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random sequences of what a VMM does about the records that KVM keeps for a vCPU: set
 * and get attributes and MSRs, run the vCPU in one thread or another, remove memory and
 * add it again, set the clock forward and back, change the guest's mode, send events, and
 * restore everything in another VM.  After each sequence the guest finds every record
 * consistent, and no time of any state has gone back.
 *
 * -s sets the seed of a run, -n the number of sequences.
 */
#include <pthread.h>

#include "gpc_harness.h"
#include "gpc_xen.h"

/* The runstate is anywhere in two pages, the others are in the third page. */
#define MISC_PAGE	2
#define SHINFO_PAGE	3
#define PAGE_GPA(page)	(GPC_GPA + (page) * PAGE_SIZE)

#define MAX_OPS		8
#define TIMEOUT_S	300
#define CLOCK_NS	(1000ull * NSEC_PER_SEC)

/* Xen's public header xen.h. */
#define PENDING		0x800
#define WALL_CLOCK_64	0xc00
#define WALL_CLOCK_32	0x900

static unsigned int seed = 1, nr_sequences = 1000;

enum place { KVMCLOCK, TIME_INFO, VCPU_INFO, STEAL, RUNSTATE, NR_PLACES };

/* Possible addresses of each record. */
static const struct {
	uint64_t first;
	uint32_t size;
	uint32_t align;
} places[] = {
	[KVMCLOCK]	= { PAGE_GPA(MISC_PAGE),		0x200, 4 },
	[TIME_INFO]	= { PAGE_GPA(MISC_PAGE) + 0x200,	0x200, 4 },
	[VCPU_INFO]	= { PAGE_GPA(MISC_PAGE) + 0x400,	0x400, 4 },
	[STEAL]		= { PAGE_GPA(MISC_PAGE) + 0x800,	0x400, 64 },
	[RUNSTATE]	= { GPC_GPA,				2 * PAGE_SIZE, 1 },
};

static const uint32_t sizes[] = {
	[KVMCLOCK] = GPC_CLOCK_SIZE, [TIME_INFO] = GPC_CLOCK_SIZE, [VCPU_INFO] = 64,
	[STEAL] = sizeof(struct kvm_steal_time), [RUNSTATE] = GPC_RECORD_MAX,
};

static struct state {
	struct kvm_vcpu *vcpu;
	bool xen;
	bool modes;
	void *mem;
	bool present;
	enum gpc_abi abi;
	uint64_t gpa[NR_PLACES];
	bool shinfo;
	uint64_t words;			/* of the events that were sent */
	struct gpc_runstate last;	/* the last that the guest has seen */
	uint64_t steal;
	unsigned int sequence;
	char log[256];			/* the operations of this sequence */
} s;

#define ASSERT(cond, fmt, ...)							\
	TEST_ASSERT(cond, "Seed %u, sequence %u,%s: " fmt, seed, s.sequence, s.log, ##__VA_ARGS__)

static uint32_t any(uint32_t nr)
{
	return random() % nr;
}

/*
 * Guest: read everything that is set
 */

static struct seen {
	uint64_t clock[VCPU_INFO + 1];	/* GVA, or 0 */
	uint64_t ns[VCPU_INFO + 1];
} seen;

static void guest_looks(void)
{
	int i;

	for (i = 0; i <= VCPU_INFO; i++) {
		if (seen.clock[i])
			seen.ns[i] = gpc_guest_advancing_time((void *)seen.clock[i]);
	}
	if (gpc_record.gva)
		gpc_guest_read_record();
}

/*
 * VMM
 */

static void *hva(uint64_t gpa)
{
	return s.mem + (gpa - GPC_GPA);
}

static int vcpu_attr(uint16_t type, uint64_t gpa)
{
	struct kvm_xen_vcpu_attr attr = { .type = type, .u.gpa = gpa };

	return gpc_xen_vcpu_attr(s.vcpu, attr);
}

static const uint16_t attr_types[] = {
	[TIME_INFO] = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
	[VCPU_INFO] = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
	[RUNSTATE] = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR,
};

static void set_clock(uint64_t ns)
{
	struct kvm_clock_data data = { .clock = ns };

	vm_ioctl(s.vcpu->vm, KVM_SET_CLOCK, &data);
}

/* Set the address of @place.  KVM may refuse it while there is no memory. */
static void set_place(enum place place, uint64_t gpa)
{
	int r = 0;

	switch (place) {
	case KVMCLOCK:
		vcpu_set_msr(s.vcpu, MSR_KVM_SYSTEM_TIME_NEW, gpa ? gpa | KVM_MSR_ENABLED : 0);
		break;
	case STEAL:
		vcpu_set_msr(s.vcpu, MSR_KVM_STEAL_TIME, gpa ? gpa | KVM_MSR_ENABLED : 0);
		s.steal = 0;
		break;
	default:
		r = vcpu_attr(attr_types[place], gpa ?: KVM_XEN_INVALID_GPA);
		break;
	}
	ASSERT(!r || (gpa && !s.present && r == -EFAULT), "Place %d: error %d", place, r);
	s.gpa[place] = r ? 0 : gpa;
}

static void set_shinfo(bool on, bool by_hva)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA,
		.u.shared_info.hva = (uintptr_t)hva(PAGE_GPA(SHINFO_PAGE)),
	};
	int r;

	if (on && by_hva)
		r = gpc_xen_vm_attr(s.vcpu->vm, attr);
	else
		r = gpc_xen_set_shinfo(s.vcpu->vm, on ? PAGE_GPA(SHINFO_PAGE) : -1ul);
	ASSERT(!r || (on && !s.present), "shared_info: error %d", r);
	s.shinfo = on && !r;
}

static void set_mem(bool present)
{
	if (present)
		gpc_slot(s.vcpu->vm, 0, GPC_GPA, GPC_SIZE, s.mem);
	else
		gpc_slot_delete(s.vcpu->vm);
	s.present = present;
}

static void *run_thread(void *unused)
{
	gpc_run(s.vcpu, (struct gpc_step) { });
	return NULL;
}

/* Read all other attributes. */
static void get_all(void)
{
	static const uint16_t types[] = {
		KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA,
		KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, KVM_XEN_VCPU_ATTR_TYPE_TIMER,
		KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		struct kvm_xen_vcpu_attr attr = { .type = types[i] };

		vcpu_ioctl(s.vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
	}
}

static struct kvm_xen_vcpu_attr runstate_data(void)
{
	struct kvm_xen_vcpu_attr attr = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };

	vcpu_ioctl(s.vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
	return attr;
}

static void send_event(void)
{
	uint32_t word = any(s.abi * 8);
	struct kvm_irq_routing_xen_evtchn event = {
		.port = word * s.abi * 8 + 1 + any(31),
		.vcpu = s.vcpu->id,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	/* Without a shared_info and a vcpu_info, KVM cannot deliver an event. */
	if (!s.shinfo || !s.present || !s.gpa[VCPU_INFO])
		return;
	vm_ioctl(s.vcpu->vm, KVM_XEN_HVM_EVTCHN_SEND, &event);
	s.words |= 1ull << word;
}

/* The guest takes its events: clear pending bits and masks, up to the wall clock. */
static void take_events(void)
{
	size_t end = s.abi == GPC_64 ? WALL_CLOCK_64 : WALL_CLOCK_32;

	memset(hva(PAGE_GPA(SHINFO_PAGE)) + PENDING, 0, end - PENDING);
	memset(hva(places[VCPU_INFO].first), 0, places[VCPU_INFO].size);
	s.words = 0;
}

/* Like a guest that boots another kernel: it has no events then. */
static void set_abi(enum gpc_abi abi)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_LONG_MODE,
		.u.long_mode = abi == GPC_64,
	};
	int r;

	take_events();
	memset(hva(PAGE_GPA(SHINFO_PAGE)) + PENDING, 0, PAGE_SIZE - PENDING);
	r = gpc_xen_vm_attr(s.vcpu->vm, attr);
	ASSERT(!r || !s.present, "Mode: error %d", r);
	s.abi = abi;
	/* The new place has no wall clock. */
	if (r)
		set_shinfo(false, false);
}

static struct kvm_vcpu *create(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_one_vcpu(&vcpu, gpc_guest);

	virt_map(vm, GPC_GPA, GPC_GPA, GPC_PAGES);
	if (s.xen) {
		gpc_xen_on(vm);
		gpc_set_update_flag(vm, true);
	}
	return vcpu;
}

/* Save all, and continue in a new VM, where the attributes are set in any order. */
static void restore(void)
{
	struct state old = s;
	struct kvm_xen_vcpu_attr data;
	uint64_t clock = gpc_now(s.vcpu->vm);
	int i, first = any(NR_PLACES);

	if (s.xen)
		data = runstate_data();
	s.mem = memcpy(gpc_mmap_anon(NULL), old.mem, GPC_SIZE);
	s.vcpu = create();
	set_mem(true);
	set_clock(clock);

	if (s.xen) {
		/* DATA must not be in the future of a clock that was set back. */
		if (data.u.runstate.state_entry_time > clock)
			set_clock(data.u.runstate.state_entry_time + NSEC_PER_SEC);
		if (any(2))
			gpc_set_abi(s.vcpu->vm, s.abi);
		ASSERT(!gpc_xen_vcpu_attr(s.vcpu, data), "DATA was refused");
		set_clock(clock);
	}
	for (i = 0; i < NR_PLACES; i++) {
		enum place place = (first + i) % NR_PLACES;

		if (s.gpa[place])
			set_place(place, s.gpa[place]);
	}
	if (s.xen) {
		gpc_set_abi(s.vcpu->vm, s.abi);
		set_shinfo(s.shinfo, any(2));
	}
	s.steal = old.steal;
	kvm_vm_free(old.vcpu->vm);
	munmap(old.mem, GPC_SIZE);
}

static uint64_t any_address(enum place place)
{
	uint32_t room = places[place].size - sizes[place];

	return places[place].first + any(room / places[place].align + 1) * places[place].align;
}

static void do_any(void)
{
	static const enum place areas[] = { TIME_INFO, VCPU_INFO, RUNSTATE };
	struct kvm_xen_vcpu_attr attr;
	pthread_t thread;
	uint32_t op = any(s.xen ? 15 : 8);
	size_t len = strlen(s.log);
	uint64_t now;
	int i;

	snprintf(s.log + len, sizeof(s.log) - len, " %u", op);
	switch (op) {
	case 0:
		set_clock(any(2 * CLOCK_NS / NSEC_PER_SEC) * NSEC_PER_SEC);
		break;
	case 1:
		gpc_run(s.vcpu, (struct gpc_step) { });
		break;
	case 2:
		TEST_ASSERT(!pthread_create(&thread, NULL, run_thread, NULL), "pthread_create");
		pthread_join(thread, NULL);
		break;
	case 3:
		set_mem(!s.present);
		break;
	case 4:
		i = any(2) ? PROT_READ : PROT_READ | PROT_WRITE;
		TEST_ASSERT(!mprotect(s.mem + any(2) * PAGE_SIZE, PAGE_SIZE, i), "mprotect");
		/* KVM's lookup may fail during this run. */
		if (any(2))
			gpc_run(s.vcpu, (struct gpc_step) { });
		TEST_ASSERT(!mprotect(s.mem, GPC_SIZE, PROT_READ | PROT_WRITE), "mprotect");
		break;
	case 5:
		set_place(any(2) ? KVMCLOCK : STEAL, 0);
		break;
	case 6:
		i = any(2) ? KVMCLOCK : STEAL;
		set_place(i, any_address(i));
		break;
	case 7:
		/* Slow: it creates a VM. */
		if (!any(20)) {
			set_mem(true);
			restore();
		}
		break;
	case 8:
		i = any(6);
		i = gpc_set_state(s.vcpu, i) == (i < GPC_NR_STATES ? 0 : -EINVAL);
		ASSERT(i, "CURRENT");
		break;
	case 9:
		attr = runstate_data();
		i = gpc_xen_vcpu_attr(s.vcpu, attr);
		now = gpc_now(s.vcpu->vm);
		ASSERT(!i || (i == -EINVAL &&
			      attr.u.runstate.state_entry_time > now - NSEC_PER_SEC),
		       "DATA: error %d", i);
		break;
	case 10:
		attr = (struct kvm_xen_vcpu_attr) {
			.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST,
			.u.runstate = { .state = any(2) ? -1ull : any(GPC_NR_STATES),
					.state_entry_time = 10, .time_blocked = 10 },
		};
		i = gpc_xen_vcpu_attr(s.vcpu, attr);
		ASSERT(!i || i == -EINVAL, "ADJUST: error %d", i);
		break;
	case 11:
		i = areas[any(ARRAY_SIZE(areas))];
		/* A guest that moves its vcpu_info has taken its events. */
		if (i == VCPU_INFO)
			take_events();
		set_place(i, any(4) ? any_address(i) : 0);
		break;
	case 12:
		set_shinfo(any(4), any(2));
		take_events();
		break;
	case 13:
		get_all();
		send_event();
		break;
	case 14:
		if (s.modes)
			set_abi(any(2) ? GPC_32 : GPC_64);
		break;
	}
}

static void assert_clocks(uint64_t clock)
{
	int i;

	for (i = 0; i <= VCPU_INFO; i++) {
		if (seen.clock[i])
			ASSERT(seen.ns[i] >= clock && seen.ns[i] - clock < CLOCK_NS,
			       "Clock %d is %lu ns and was set to %lu ns", i, seen.ns[i], clock);
	}
}

static void assert_runstate(void)
{
	const struct gpc_runstate *rs = &gpc_record.rs;
	int i;

	ASSERT(rs->state == GPC_RUNNING && gpc_runstate_sum(rs) == rs->entry_time,
	       "State %u, times add up to %lu ns at %lu ns", rs->state, gpc_runstate_sum(rs),
	       rs->entry_time);
	for (i = 0; i < GPC_NR_STATES; i++)
		ASSERT(rs->times[i] >= s.last.times[i], "State %d: from %lu ns back to %lu ns",
		       i, s.last.times[i], rs->times[i]);
	s.last = *rs;
}

static void assert_steal(void)
{
	struct kvm_steal_time *st = hva(s.gpa[STEAL]);

	ASSERT(!(st->version & 1) && !st->preempted, "Steal time: version %u, preempted %u",
	       st->version, st->preempted);
	ASSERT(st->steal >= s.steal && st->steal < CLOCK_NS, "Stolen: from %lu ns to %lu ns",
	       s.steal, (uint64_t)st->steal);
	s.steal = st->steal;
}

static void assert_events(void)
{
	const void *info = hva(s.gpa[VCPU_INFO]);
	uint64_t sel = s.abi == GPC_64 ? __get_unaligned_t(uint64_t, info + 8) :
					 __get_unaligned_t(uint32_t, info + 4);

	ASSERT((sel & s.words) == s.words && (!s.words || *(uint8_t *)info),
	       "Events of words 0x%lx, pending 0x%lx, upcall %u", s.words, sel, *(uint8_t *)info);
}

/* Give the guest all its memory and a new clock, run it, and check what it has read. */
static void assert_all(void)
{
	uint64_t clock = any(2 * CLOCK_NS / NSEC_PER_SEC) * NSEC_PER_SEC;
	uint32_t *version;
	int i;

	if (!s.present)
		set_mem(true);
	for (i = 0; i <= VCPU_INFO; i++)
		seen.clock[i] = !s.gpa[i] ? 0 :
				s.gpa[i] + (i == VCPU_INFO ? GPC_XEN_VCPU_INFO_TIME : 0);
	gpc_record.gva = s.gpa[RUNSTATE];
	gpc_record.abi = s.abi;
	sync_global_to_guest(s.vcpu->vm, seen);
	sync_global_to_guest(s.vcpu->vm, gpc_record);
	set_clock(clock);
	gpc_run(s.vcpu, (struct gpc_step) { .call = guest_looks });
	sync_global_from_guest(s.vcpu->vm, seen);
	sync_global_from_guest(s.vcpu->vm, gpc_record);

	assert_clocks(clock);
	if (s.gpa[RUNSTATE])
		assert_runstate();
	if (s.gpa[STEAL] && !s.xen)
		assert_steal();
	if (s.gpa[VCPU_INFO])
		assert_events();
	if (s.shinfo) {
		version = hva(PAGE_GPA(SHINFO_PAGE)) + (s.abi == GPC_64 ? WALL_CLOCK_64 :
									  WALL_CLOCK_32);
		ASSERT(*version && !(*version & 1), "Wall clock: version %u", *version);
	}
	take_events();
}

static void run_sequences(bool xen, bool modes)
{
	int i, nr;

	srandom(seed);
	s = (struct state) { .xen = xen, .modes = modes, .abi = GPC_64 };
	s.vcpu = create();
	s.mem = gpc_mmap_anon(NULL);
	memset(s.mem, 0, GPC_SIZE);
	set_mem(true);
	if (xen)
		gpc_set_abi(s.vcpu->vm, GPC_64);

	for (s.sequence = 0; s.sequence < nr_sequences; s.sequence++) {
		s.log[0] = '\0';
		nr = 1 + any(MAX_OPS);
		for (i = 0; i < nr; i++)
			do_any();
		assert_all();
	}
	kvm_vm_free(s.vcpu->vm);
}

FIXTURE(gpc_sequence)
{
};

FIXTURE_SETUP(gpc_sequence)
{
}

FIXTURE_TEARDOWN(gpc_sequence)
{
}

#define SEQUENCE_TEST(test) TEST_F_TIMEOUT(gpc_sequence, test, TIMEOUT_S)

SEQUENCE_TEST(kvm_guest)
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_KVM_STEAL_TIME));
	run_sequences(false, false);
}

SEQUENCE_TEST(xen_guest)
{
	run_sequences(true, false);
}

SEQUENCE_TEST(xen_guest_mode_switch)
{
	run_sequences(true, true);
}

int main(int argc, char *argv[])
{
	int opt;

	GPC_REQUIRE_RUNSTATE();
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_EVTCHN_SEND);

	while ((opt = getopt(argc, argv, "s:n:")) != -1) {
		if (opt == 's')
			seed = atoi_positive("seed", optarg);
		else if (opt == 'n')
			nr_sequences = atoi_positive("number of sequences", optarg);
		else
			TEST_FAIL("-s SEED, -n SEQUENCES");
	}
	return test_harness_run(1, argv);
}
