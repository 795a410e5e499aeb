// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU's thread waits in KVM_RUN for a page that userfaultfd(2) has not supplied yet,
 * as in a stalled post-copy migration.  The VMM kicks the thread with a signal, as it
 * does to stop a VM.  KVM_RUN returns, and the KVM_RUN that finds the page writes the
 * record.
 */
#include "gpc_harness.h"
#include "gpc_uffd.h"
#include "gpc_xen.h"

#define KICKS		3

/* A second page of the slot: Xen's shared info. */
#define SHINFO		(GPC_CLOCK + PAGE_SIZE)

/* Xen's public header xen.h */
#define UPCALL_PENDING	0

FIXTURE(gpc_kick)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_kick)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_kick)
{
	gpc_free(self->vcpu);
}

#define KICK_TEST(test) KVM_ONE_VCPU_TEST(gpc_kick, test, gpc_guest)

/*
 * Wait for the record in @page, which KVM writes in each run after KVM_SET_CLOCK.  On
 * return the page was supplied, full of poison, and the vCPU has run.
 */
static void wait_for_record(struct kvm_vcpu *vcpu, void *page)
{
	int i, uffd = gpc_uffd_make_missing(page);
	struct gpc_task task;

	gpc_new_era(vcpu->vm);
	gpc_step = (struct gpc_step) { };
	sync_global_to_guest(vcpu->vm, gpc_step);
	gpc_catch_kicks(vcpu);
	for (i = 0; i < KICKS; i++) {
		gpc_task_start(&task, gpc_task_run_fn, vcpu);
		gpc_uffd_await(uffd, page, 0);
		gpc_kick_out(vcpu, &task);
	}
	TEST_ASSERT(!gpc_pfn(page), "The page is present before it is supplied");

	gpc_uffd_supply(uffd, page);
	TEST_ASSERT_EQ(gpc_task_run_fn(vcpu), 0);
	gpc_assert_synced(vcpu);
}

/* Returns the page of GPC_CLOCK. */
static void *slot_add(struct kvm_vcpu *vcpu)
{
	void *mem = gpc_mmap_anon(NULL);

	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	return mem + (GPC_CLOCK - GPC_GPA);
}

static void assert_clock_in(void *page, size_t offset)
{
	size_t end = offset + GPC_CLOCK_SIZE;

	GPC_ASSERT_POISON(page, offset);
	gpc_assert_written(page + offset);
	GPC_ASSERT_POISON(page + end, PAGE_SIZE - end);
}

KICK_TEST(clock)
{
	void *page = slot_add(vcpu);

	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, GPC_CLOCK | KVM_MSR_ENABLED);
	wait_for_record(vcpu, page);
	assert_clock_in(page, 0);
	gpc_assert_served(vcpu, GPC_CLOCK);
}

KICK_TEST(steal_time)
{
	struct kvm_steal_time *steal = slot_add(vcpu);

	gpc_wrmsr(vcpu, MSR_KVM_STEAL_TIME, GPC_CLOCK | KVM_MSR_ENABLED);
	wait_for_record(vcpu, steal);
	TEST_ASSERT(!(steal->version & 1) && !steal->preempted,
		    "Steal time not written: version 0x%x", steal->version);
	GPC_ASSERT_POISON(steal + 1, PAGE_SIZE - sizeof(*steal));
}

KICK_TEST(vcpu_info)
{
	void *page = slot_add(vcpu);

	gpc_xen_on(vcpu->vm);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), 0);
	wait_for_record(vcpu, page);
	assert_clock_in(page, GPC_XEN_VCPU_INFO_TIME);
}

KICK_TEST(vcpu_time_info)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		.u.gpa = GPC_CLOCK,
	};
	void *page = slot_add(vcpu);

	gpc_xen_on(vcpu->vm);
	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, attr), 0);
	wait_for_record(vcpu, page);
	assert_clock_in(page, 0);
}

/* Wait for the first or the second page of a record that crosses the first page's end. */
static void wait_for_runstate(struct kvm_vcpu *vcpu, int nth)
{
	const uint64_t gpa = GPC_SPAN_END - GPC_RECORD_MAX / 2;
	struct gpc_span span = gpc_span_one_slot(vcpu->vm, gpc_mmap_anon(NULL));

	GPC_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE,
		    "kernel without runstates: CONFIG_SCHED_INFO?");
	gpc_xen_on(vcpu->vm);
	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_set_record(vcpu, gpa), 0);
	gpc_span_poison(&span);
	wait_for_record(vcpu, span.page[nth]);
	gpc_take_record(&span, gpa, GPC_64);
}

KICK_TEST(runstate)
{
	wait_for_runstate(vcpu, 0);
}

KICK_TEST(runstate_second_page)
{
	wait_for_runstate(vcpu, 1);
}

/*
 * An event arrives while the vCPU info is missing, for a guest that does not exit by
 * itself: KVM keeps the event until it has the page.
 */
static struct spinning {
	bool on;
	bool look;
} spinning;

static void spin(void)
{
	WRITE_ONCE(spinning.on, true);
	while (!READ_ONCE(spinning.look))
		cpu_relax();
	while (READ_ONCE(*(uint8_t *)(GPC_CLOCK + UPCALL_PENDING)) != 1)
		cpu_relax();
}

KICK_TEST(event_kept)
{
	struct spinning *s = addr_gva2hva(vcpu->vm, (uintptr_t)&spinning);
	void *page = slot_add(vcpu);
	struct gpc_task task;
	int i, uffd;

	gpc_xen_on(vcpu->vm);
	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, SHINFO), 0);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, GPC_CLOCK), 0);
	memset(page, 0, 2 * PAGE_SIZE);
	gpc_update(vcpu);

	uffd = gpc_uffd_make_missing(page);
	gpc_catch_kicks(vcpu);
	gpc_step = (struct gpc_step) { .call = spin };
	sync_global_to_guest(vcpu->vm, gpc_step);
	gpc_task_start(&task, gpc_task_run_fn, vcpu);
	while (!READ_ONCE(s->on))
		usleep(1000);
	TEST_ASSERT_EQ(gpc_xen_send_event(vcpu), 0);
	TEST_ASSERT(gpc_xen_event_pending(page + PAGE_SIZE), "Event not sent");
	for (i = 0; i < KICKS; i++) {
		gpc_uffd_await(uffd, page, 0);
		gpc_kick_out(vcpu, &task);
		gpc_task_start(&task, gpc_task_run_fn, vcpu);
	}
	gpc_uffd_await(uffd, page, 0);
	gpc_uffd_supply(uffd, page);
	WRITE_ONCE(s->look, true);
	TEST_ASSERT(gpc_task_ends(&task), "Event not delivered");
	TEST_ASSERT_EQ(task.ret, 0);
	gpc_assert_synced(vcpu);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_IMMEDIATE_EXIT));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XEN_HVM));

	return test_harness_run(argc, argv);
}
