// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest page cache under everything at once: KVM writes records for two vCPUs, some
 * threads send events to the vCPUs, and other threads change the memory behind the
 * records, the memslots, and the records' addresses.
 *
 * Each changing thread ends after a number of changes (-n).  All others run until the
 * last changing thread has ended, and then for some time undisturbed: by then every
 * record must be present and fresh again.
 *
 * gpc_stress.h describes what the guest may see.
 */
#include <limits.h>
#include <sys/eventfd.h>
#include <time.h>

#include "gpc_harness.h"
#include "gpc_stress_places.h"

#define IRQFD_GSI		32
#define TIMEOUT_S		1200
#define KSM			"/sys/kernel/mm/ksm/"

static int nr_changes;

/*
 * vCPUs
 */

static void new_era(int vcpu)
{
	struct vcpu_state *state = &vmm.guest->vcpu[vcpu];
	struct kvm_clock_data data = { };
	int i;

	pthread_mutex_lock(&vmm.era_lock);
	for (i = 0; i < NR_PLACES; i++)
		state->seq[i] = vmm_seq(i);
	data.clock = ++vmm.era * GPC_ERA_NS;
	vm_ioctl(vmm.vm, KVM_SET_CLOCK, &data);
	state->era = vmm.era;
	pthread_mutex_unlock(&vmm.era_lock);
}

/* The sum changes when a place is disturbed.  Sets @odd if a place is disturbed now. */
static uint64_t sum_seqs(bool *odd)
{
	uint64_t sum = 0;
	uint32_t seq;
	int i;

	for (i = 0; i < NR_PLACES; i++) {
		seq = vmm_seq(i);
		sum += seq;
		*odd |= seq & 1;
	}
	return sum;
}

/* A record's memory is absent: answer with zeros. */
static void answer_mmio(struct kvm_run *run)
{
	TEST_ASSERT(run->mmio.phys_addr >= PLACE_GPA(0) &&
		    run->mmio.phys_addr < PLACE_GPA(NR_PLACES) && !run->mmio.is_write,
		    "MMIO %s at 0x%llx", run->mmio.is_write ? "write" : "read",
		    run->mmio.phys_addr);
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
}

/* Run one round of the guest. */
static void run_round(int i)
{
	struct kvm_vcpu *vcpu = vmm.vcpu[i];
	bool odd = false;
	uint64_t sum;
	int r;

	for (;;) {
		sum = sum_seqs(&odd);
		new_era(i);
		r = __vcpu_run(vcpu);
		vmm_note_run(i);

		if (r || vcpu->run->exit_reason == KVM_EXIT_MMIO) {
			TEST_ASSERT(!r || errno == EFAULT, "KVM_RUN: %s", strerror(errno));
			TEST_ASSERT(sum_seqs(&odd) != sum || odd,
				    "vCPU %d misses memory, and no place is disturbed", i);
			if (!r)
				answer_mmio(vcpu->run);
			sched_yield();
			continue;
		}

		TEST_ASSERT(vcpu->run->exit_reason != KVM_EXIT_SHUTDOWN,
			    "vCPU %d: triple fault", i);
		gpc_assert_synced(vcpu);
		return;
	}
}

static bool vcpus_stop;
static uint64_t rounds[NR_VCPUS];

static void *vcpu_thread(void *arg)
{
	int i = (long)arg;

	while (!READ_ONCE(vcpus_stop)) {
		run_round(i);
		WRITE_ONCE(rounds[i], rounds[i] + 1);
	}
	return NULL;
}

/*
 * Writers other than vCPUs
 */

static bool writers_stop;
static uint64_t events[NR_VCPUS];
static int irqfds[NR_VCPUS];

/* Events of the last port go through an eventfd, and perhaps a workqueue. */
#define IRQFD_PORT	(NR_PORTS - 1)

/*
 * Number of rounds in which the guest must take an event: at the latest in the first one
 * that begins after it was sent.  The workqueue may take longer.
 */
static int late_rounds(int port)
{
	return port == IRQFD_PORT ? 10000 : 3;
}

struct event {
	uint32_t vcpu_info_seq;		/* before it was sent */
	uint32_t shinfo_seq;
	uint32_t before;		/* how often it was taken before */
	uint32_t sent;			/* in total */
	uint64_t round;			/* the round in progress when it was sent */
};

static bool event_undisturbed(int vcpu, const struct event *event)
{
	return vmm_undisturbed(PLACE(vcpu, VCPU_INFO), event->vcpu_info_seq) &&
	       vmm_undisturbed(SHINFO_PLACE, event->shinfo_seq);
}

static void send_port(int vcpu, int i, struct event *event)
{
	int r;

	event->vcpu_info_seq = vmm_seq(PLACE(vcpu, VCPU_INFO));
	event->shinfo_seq = vmm_seq(SHINFO_PLACE);
	if (i == IRQFD_PORT)
		r = eventfd_write(irqfds[vcpu], 1);
	else
		r = vmm_send_event(vcpu, i);
	TEST_ASSERT(!r || !event_undisturbed(vcpu, event), "Event refused: %s", strerror(errno));
	event->sent++;
	event->round = READ_ONCE(rounds[vcpu]);
}

/* Wait until the event is taken.  It must not be taken more often than it was sent. */
static void wait_taken(int vcpu, int i, struct event *event)
{
	uint32_t *taken = &vmm.guest->vcpu[vcpu].taken[i];
	bool late;

	for (;;) {
		late = READ_ONCE(rounds[vcpu]) - event->round >= late_rounds(i);
		if (__atomic_load_n(taken, __ATOMIC_SEQ_CST) != event->before)
			break;
		if (!event_undisturbed(vcpu, event))
			send_port(vcpu, i, event);
		else
			TEST_ASSERT(!late, "Event %d to vCPU %d is lost", i, vcpu);
		vmm_wait_a_run();
	}
	TEST_ASSERT(*taken <= event->sent, "Event %d to vCPU %d: taken %u times, sent %u times",
		    i, vcpu, *taken, event->sent);
}

static void *event_thread(void *arg)
{
	struct event all[NR_PORTS] = {};
	int vcpu = (long)arg, i;

	while (!READ_ONCE(writers_stop)) {
		for (i = 0; i < NR_PORTS; i++) {
			all[i].before = READ_ONCE(vmm.guest->vcpu[vcpu].taken[i]);
			send_port(vcpu, i, &all[i]);
		}
		for (i = 0; i < NR_PORTS; i++) {
			wait_taken(vcpu, i, &all[i]);
			events[vcpu]++;
		}
	}
	return NULL;
}

/* Keep the caches of the shared info and the vCPU infos in use or in refresh. */
static void *noise_thread(void *arg)
{
	int i;

	while (!READ_ONCE(writers_stop)) {
		for (i = 0; i < NR_VCPUS; i++)
			(void)vmm_send_event(i, NOISE_PORT);
		sched_yield();
	}
	return NULL;
}

/* KVM writes the wall clock whenever the VMM sets the guest's mode. */
static void *wall_clock_thread(void *arg)
{
	uint64_t era;
	uint32_t seq;

	while (!READ_ONCE(writers_stop)) {
		seq = vmm_seq(SHINFO_PLACE);
		pthread_mutex_lock(&vmm.era_lock);
		era = vmm.era;
		pthread_mutex_unlock(&vmm.era_lock);

		if (!vmm_set_attr(KVM_XEN_ATTR_TYPE_LONG_MODE, 1)) {
			WRITE_ONCE(vmm.guest->wall_era, era);
			WRITE_ONCE(vmm.guest->wall_seq, seq);
		} else {
			TEST_ASSERT(!vmm_undisturbed(SHINFO_PLACE, seq),
				    "Wall clock not written: %s", strerror(errno));
		}
		vmm_wait_a_run();
	}
	return NULL;
}

/*
 * Changing threads
 */

static int pick_change(struct changer *c)
{
	unsigned int sum = 0, pick;
	int i;

	for (i = 0; c->changes[i].make; i++)
		sum += c->changes[i].weight;
	pick = rand_r(&c->seed) % sum;
	for (i = 0; pick >= c->changes[i].weight; i++)
		pick -= c->changes[i].weight;
	return i;
}

/*
 * Prefer two kinds: the shared info, because it is in use without a pause, and the run
 * states, because a refresh of two pages takes longest.
 */
static struct place *pick_place(struct changer *c)
{
	unsigned int place = rand_r(&c->seed) % (2 * NR_PLACES);

	if (place >= NR_PLACES)
		place = place % 2 ? SHINFO_PLACE : PLACE(place / 2 % NR_VCPUS, RUNSTATE);
	return &vmm.place[place];
}

/* Disturb a place in bursts: a change shall meet the refresh that the last one caused. */
static void *changer_thread(void *arg)
{
	struct changer *c = arg;
	const struct change *change;
	struct place *p;
	int i, left = nr_changes;
	bool done;

	while (left > 0) {
		p = pick_place(c);
		i = pick_change(c);
		change = &c->changes[i];

		if (change->disturbs)
			place_disturb(p);
		do {
			done = change->make(c, p);
			c->done[i] += done;
			left--;
		} while (change->disturbs && done && !changer_rarely(c, 4));
		if (change->disturbs)
			place_settle(p);
	}
	return NULL;
}

static void changer_create(const struct change *changes)
{
	struct changer *c = &vmm.changer[vmm.nr_changers];
	int i;

	TEST_ASSERT(vmm.nr_changers < MAX_CHANGERS, "Too many changing threads");
	c->changes = changes;
	c->seed = time(NULL) + vmm.nr_changers;
	c->diversion = vmm_map(NULL, PLACE_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	c->yard = vmm_map(NULL, YARD_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(c->yard, GPC_POISON, YARD_SIZE);
	for (i = 0; i < YARD_PAGES; i++)
		c->spare[i] = AREA_SIZE + vmm.nr_changers * YARD_SIZE + i * PAGE_SIZE;
	vmm.nr_changers++;
}

/*
 * The VM
 */

static void create_areas(void)
{
	const size_t size = AREA_SIZE + MAX_CHANGERS * YARD_SIZE;
	void *mem;

	vmm.file = kvm_memfd_alloc(size, false);
	vmm.alias = vmm_map(NULL, size, MAP_SHARED, vmm.file, 0);
	memset(vmm.alias, GPC_POISON, size);

	mem = vmm_map(NULL, 3 * AREA_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mem = (void *)align_up((uintptr_t)mem, AREA_SIZE);
	vmm.area[0] = vmm_map(mem, AREA_SIZE, MAP_SHARED, vmm.file, 0);
	vmm.area[1] = mem + AREA_SIZE;
	memset(vmm.area[1], GPC_POISON, AREA_SIZE);
	(void)madvise(vmm.area[1], AREA_SIZE, MADV_MERGEABLE);
}

static void create_place(int id)
{
	struct place *p = &vmm.place[id];
	int k;

	p->id = id;
	p->kind = id == SHINFO_PLACE ? SHARED_INFO : id % NR_VCPU_KINDS;
	p->vcpu = id == SHINFO_PLACE ? 0 : id / NR_VCPU_KINDS;
	p->anon = !p->vcpu;
	p->two_slots = p->vcpu;
	p->hva = vmm.area[p->anon] + AREA_OFFSET(id);
	p->offset = p->kind == RUNSTATE ? PAGE_SIZE - 15 : 0;
	pthread_mutex_init(&p->lock, NULL);

	for (k = 0; k < PLACE_PAGES; k++) {
		p->file[k] = AREA_OFFSET(id) + k * PAGE_SIZE;
		place_make_page(p, k, place_page(p, k));
	}
	place_set_slots(p, PLACE_GPA(id), true);
}

static void create_irqfds(void)
{
	struct {
		struct kvm_irq_routing info;
		struct kvm_irq_routing_entry entries[NR_VCPUS];
	} routing = { .info.nr = NR_VCPUS };
	struct kvm_irqfd irqfd = { };
	int i;

	for (i = 0; i < NR_VCPUS; i++) {
		routing.entries[i] = (struct kvm_irq_routing_entry) {
			.gsi = IRQFD_GSI + i,
			.type = KVM_IRQ_ROUTING_XEN_EVTCHN,
			.u.xen_evtchn.port = port_of(i, IRQFD_PORT),
			.u.xen_evtchn.vcpu = i,
			.u.xen_evtchn.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
		};
	}
	vm_ioctl(vmm.vm, KVM_SET_GSI_ROUTING, &routing.info);

	for (i = 0; i < NR_VCPUS; i++) {
		irqfds[i] = eventfd(0, 0);
		SYSCALL_OK(irqfds[i]);
		irqfd.fd = irqfds[i];
		irqfd.gsi = IRQFD_GSI + i;
		vm_ioctl(vmm.vm, KVM_IRQFD, &irqfd);
	}
}

static void create_timer(int vcpu)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER,
		.u.timer.port = port_of(vcpu, TIMER_PORT),
		.u.timer.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	vcpu_ioctl(vmm.vcpu[vcpu], KVM_XEN_VCPU_SET_ATTR, &attr);
}

static void create_vm(void)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
		.msr = GPC_XEN_MSR,
	};
	int i;

	vmm.vm = vm_create_with_vcpus(NR_VCPUS, stress_guest, vmm.vcpu);
	vmm.guest = addr_gva2hva(vmm.vm, (uintptr_t)&stress);
	vmm.guest->wall_base = time(NULL) - 1;
	vmm.migrations_left = 20;

	vm_install_exception_handler(vmm.vm, UPCALL_VECTOR, stress_upcall_handler);
	vm_ioctl(vmm.vm, KVM_XEN_HVM_CONFIG, &config);
	TEST_ASSERT_EQ(vmm_set_attr(KVM_XEN_ATTR_TYPE_LONG_MODE, 1), 0);
	TEST_ASSERT_EQ(vmm_set_attr(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG, 1), 0);
	TEST_ASSERT_EQ(vmm_set_attr(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, UPCALL_VECTOR), 0);
	create_irqfds();

	create_areas();
	virt_map(vmm.vm, GPC_GPA, GPC_GPA, (PLACE_GPA(NR_PLACES) - GPC_GPA) / PAGE_SIZE);
	for (i = 0; i < NR_PLACES; i++) {
		create_place(i);
		place_disturb(&vmm.place[i]);
		place_bind(&vmm.place[i], true);
		place_settle(&vmm.place[i]);
	}

	for (i = 0; i < NR_VCPUS; i++) {
		vmm.guest->vcpu[i].id = i;
		vcpu_args_set(vmm.vcpu[i], 1, &stress.vcpu[i]);
		create_timer(i);
	}
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	TEST_ASSERT(!pthread_create(&thread, NULL, fn, arg), "Cannot create a thread");
	return thread;
}

/* Nothing disturbs the places any more: every record must become fresh. */
static void assert_recovered(void)
{
	uint64_t fresh[NR_VCPUS][NR_VCPU_KINDS], until[NR_VCPUS];
	struct looks *looks;
	int i, kind;

	for (i = 0; i < NR_VCPUS; i++) {
		looks = &vmm.guest->vcpu[i].looks[PLACE(i, 0)];
		until[i] = READ_ONCE(rounds[i]) + 3;
		for (kind = 0; kind < NR_VCPU_KINDS; kind++)
			fresh[i][kind] = READ_ONCE(looks[kind].fresh);
	}

	for (i = 0; i < NR_VCPUS; i++) {
		while (READ_ONCE(rounds[i]) < until[i])
			vmm_wait_a_run();
		looks = &vmm.guest->vcpu[i].looks[PLACE(i, 0)];
		for (kind = 0; kind < NR_VCPU_KINDS; kind++)
			TEST_ASSERT(READ_ONCE(looks[kind].fresh) > fresh[i][kind],
				    "place %d: not fresh again", PLACE(i, kind));
	}
}

static void report_changes(const struct changer *c)
{
	char line[256] = "";
	int i, n = 0;

	for (i = 0; c->changes[i].make; i++)
		n += snprintf(line + n, sizeof(line) - n, " %s %lu", c->changes[i].name,
			      c->done[i]);
	ksft_print_msg("changes:%s\n", line);
}

/* Report how much was checked. */
static void report(void)
{
	static const char *const kinds[] = {
		"kvmclock", "time info", "vCPU info", "run state", "shared info",
	};
	struct looks sum[ARRAY_SIZE(kinds)] = {}, *to, *from;
	int i, p;

	for (i = 0; i < NR_VCPUS; i++) {
		ksft_print_msg("vCPU %d: %lu rounds, %lu runs, %lu events, %u timers\n", i,
			       rounds[i], vmm.runs[i], events[i], vmm.guest->vcpu[i].timers);
		for (p = 0; p < NR_PLACES; p++) {
			from = &vmm.guest->vcpu[i].looks[p];
			to = &sum[vmm.place[p].kind];
			to->seen += from->seen;
			to->fresh += from->fresh;
			to->absent += from->absent;
			to->busy += from->busy;
			to->disturbed += from->disturbed;
		}
	}
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		ksft_print_msg("%s: seen %lu, fresh %lu, absent %lu, busy %lu, disturbed %lu\n",
			       kinds[i], sum[i].seen, sum[i].fresh, sum[i].absent,
			       sum[i].busy, sum[i].disturbed);
	for (i = 0; i < vmm.nr_changers; i++)
		report_changes(&vmm.changer[i]);
}

static void run_all(void)
{
	pthread_t vcpus[NR_VCPUS], senders[NR_VCPUS], noise, wall_clock;
	long i;

	for (i = 0; i < NR_VCPUS; i++)
		vcpus[i] = start(vcpu_thread, (void *)i);
	for (i = 0; i < NR_VCPUS; i++)
		senders[i] = start(event_thread, (void *)i);
	noise = start(noise_thread, NULL);
	wall_clock = start(wall_clock_thread, NULL);

	for (i = 0; i < vmm.nr_changers; i++)
		vmm.changer[i].thread = start(changer_thread, &vmm.changer[i]);
	for (i = 0; i < vmm.nr_changers; i++)
		pthread_join(vmm.changer[i].thread, NULL);

	assert_recovered();
	WRITE_ONCE(writers_stop, true);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(senders[i], NULL);
	pthread_join(noise, NULL);
	pthread_join(wall_clock, NULL);
	WRITE_ONCE(vcpus_stop, true);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(vcpus[i], NULL);

	for (i = 0; i < vmm.nr_changers; i++)
		yard_assert(&vmm.changer[i]);
	for (i = 0; i < NR_PLACES; i++)
		place_assert_around(&vmm.place[i]);
	report();
}

FIXTURE(gpc_stress)
{
};

FIXTURE_SETUP(gpc_stress)
{
	gpc_metadata = _metadata;
	atexit(gpc_restore);
	create_vm();
}

FIXTURE_TEARDOWN(gpc_stress)
{
	kvm_vm_free(vmm.vm);
	gpc_restore();
}

#define STRESS_TEST(test) TEST_F_TIMEOUT(gpc_stress, test, TIMEOUT_S)

STRESS_TEST(pages_replaced)
{
	changer_create(stress_replacing);
	changer_create(stress_replacing);
	run_all();
}

/* Does nothing on a kernel without KSM. */
static void start_ksmd(void)
{
	(void)(gpc_set(KSM "sleep_millisecs", "20") && gpc_set(KSM "run", "1"));
}

STRESS_TEST(pages_move)
{
	start_ksmd();
	changer_create(stress_keeping);
	changer_create(stress_keeping);
	run_all();
}

STRESS_TEST(memslots_change)
{
	changer_create(stress_slots);
	changer_create(stress_slots);
	run_all();
}

STRESS_TEST(caches_come_and_go)
{
	vmm.guest->lax_times = true;
	changer_create(stress_activity);
	changer_create(stress_activity);
	run_all();
}

STRESS_TEST(everything_changes)
{
	start_ksmd();
	vmm.guest->lax_times = true;
	changer_create(stress_replacing);
	changer_create(stress_keeping);
	changer_create(stress_slots);
	changer_create(stress_activity);
	run_all();
}

/* The harness accepts only its own arguments. */
static int take_arguments(int argc, char *argv[])
{
	if (argc < 3 || strcmp(argv[1], "-n"))
		return argc;

	nr_changes = atoi_positive("-n", argv[2]);
	memmove(argv + 1, argv + 3, (argc - 2) * sizeof(*argv));
	return argc - 2;
}

int main(int argc, char *argv[])
{
	const int caps = KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA | KVM_XEN_HVM_CONFIG_EVTCHN_SEND |
			 KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG;

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE((kvm_check_cap(KVM_CAP_XEN_HVM) & caps) == caps);

	/* On one CPU, the threads take longer and find less. */
	nr_changes = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 400 : 100;
	argc = take_arguments(argc, argv);
	return test_harness_run(argc, argv);
}
