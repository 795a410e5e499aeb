// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest with three clocks, kvmclock and Xen's two: PVCLOCK_GUEST_STOPPED is set in
 * kvmclock only, and the TSC reference does not change when Xen's shared_info is set.
 */
#include "gpc_harness.h"
#include "gpc_xen.h"

/* Each in a page of its own. */
#define KVMCLOCK	0
#define VCPU_INFO	1
#define TIME_INFO	2
#define SHARED_INFO	3

#define PAGE_GPA(page)	(GPC_GPA + (page) * PAGE_SIZE)

/* Xen's public header xen.h: struct shared_info of 64 and of 32 bits. */
#define WALL_CLOCK_64	0xc00
#define WALL_CLOCK_32	0x900

static void *mem;

FIXTURE(gpc_clock_flags)
{
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(gpc_clock_flags)
{
	self->vcpu = gpc_create(_metadata);
}

FIXTURE_TEARDOWN(gpc_clock_flags)
{
	gpc_free(self->vcpu);
}

#define FLAGS_TEST(test) KVM_ONE_VCPU_TEST(gpc_clock_flags, test, gpc_guest)

static struct pvclock_vcpu_time_info *clock_in(int page)
{
	return mem + page * PAGE_SIZE + (page == VCPU_INFO ? GPC_XEN_VCPU_INFO_TIME : 0);
}

static void xen_clocks_on(struct kvm_vcpu *vcpu)
{
	struct kvm_xen_vcpu_attr time_info = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		.u.gpa = PAGE_GPA(TIME_INFO),
	};

	gpc_xen_on(vcpu->vm);
	gpc_set_abi(vcpu->vm, GPC_64);
	TEST_ASSERT_EQ(gpc_xen_set_vcpu_info(vcpu, PAGE_GPA(VCPU_INFO)), 0);
	TEST_ASSERT_EQ(gpc_xen_vcpu_attr(vcpu, time_info), 0);
}

static void clocks_on(struct kvm_vcpu *vcpu)
{
	mem = gpc_mmap_anon(NULL);
	memset(mem, 0, GPC_SIZE);
	gpc_slot(vcpu->vm, 0, GPC_GPA, GPC_SIZE, mem);
	xen_clocks_on(vcpu);
	gpc_wrmsr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, PAGE_GPA(KVMCLOCK) | KVM_MSR_ENABLED);
	gpc_update(vcpu);
}

static void stop_guest(struct kvm_vcpu *vcpu)
{
	vcpu_ioctl(vcpu, KVM_KVMCLOCK_CTRL, NULL);
}

static bool is_stopped(int page)
{
	return clock_in(page)->flags & PVCLOCK_GUEST_STOPPED;
}

static void assert_stopped_in_kvmclock_only(bool stopped)
{
	TEST_ASSERT_EQ(is_stopped(KVMCLOCK), stopped);
	TEST_ASSERT(!is_stopped(VCPU_INFO),
		    "The clock in vcpu_info says that the guest was stopped");
	TEST_ASSERT(!is_stopped(TIME_INFO), "Xen's second clock says that the guest was stopped");
}

FLAGS_TEST(guest_stopped_kvmclock_only)
{
	clocks_on(vcpu);
	assert_stopped_in_kvmclock_only(false);

	stop_guest(vcpu);
	gpc_update(vcpu);
	gpc_assert_written(clock_in(KVMCLOCK));
	gpc_assert_written(clock_in(VCPU_INFO));
	gpc_assert_written(clock_in(TIME_INFO));
	assert_stopped_in_kvmclock_only(true);

	/* The flag stays until the guest clears it. */
	gpc_update(vcpu);
	assert_stopped_in_kvmclock_only(true);
	clock_in(KVMCLOCK)->flags &= ~PVCLOCK_GUEST_STOPPED;
	gpc_update(vcpu);
	assert_stopped_in_kvmclock_only(false);
}

/* A writable Xen clock does not use up the flag of a kvmclock that is not writable. */
FLAGS_TEST(guest_stopped_pending)
{
	void *page;

	clocks_on(vcpu);
	page = mem + KVMCLOCK * PAGE_SIZE;

	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ), "mprotect");
	stop_guest(vcpu);
	gpc_update(vcpu);
	gpc_assert_written(clock_in(VCPU_INFO));
	gpc_assert_written(clock_in(TIME_INFO));
	assert_stopped_in_kvmclock_only(false);

	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	gpc_update(vcpu);
	assert_stopped_in_kvmclock_only(true);

	/* KVM sets the flag only once. */
	clock_in(KVMCLOCK)->flags = 0;
	gpc_update(vcpu);
	assert_stopped_in_kvmclock_only(false);
}

/* KVM clears the flag in Xen's clocks, even if a record already has it. */
FLAGS_TEST(guest_stopped_xen)
{
	clocks_on(vcpu);
	clock_in(VCPU_INFO)->flags |= PVCLOCK_GUEST_STOPPED;
	clock_in(TIME_INFO)->flags |= PVCLOCK_GUEST_STOPPED;
	gpc_update(vcpu);
	assert_stopped_in_kvmclock_only(false);
}

/*
 * The TSC reference
 */

struct reference {
	uint64_t tsc;
	uint64_t ns;
};

static struct reference reference_in(int page)
{
	struct pvclock_vcpu_time_info *clock = clock_in(page);

	return (struct reference) { clock->tsc_timestamp, clock->system_time };
}

static void assert_reference_stays(struct kvm_vcpu *vcpu, const struct reference *old)
{
	struct reference new;

	gpc_run(vcpu, (struct gpc_step) { });
	new = reference_in(KVMCLOCK);
	TEST_ASSERT(new.tsc == old->tsc && new.ns == old->ns,
		    "Reference from TSC %lu, %lu ns to TSC %lu, %lu ns",
		    old->tsc, old->ns, new.tsc, new.ns);
}

static void assert_wall_clock(const void *shinfo, size_t offset)
{
	const uint32_t *version = shinfo + offset, *sec = version + 1;

	TEST_ASSERT(*version && !(*version & 1) && *sec, "No wall clock, version %u, %u s",
		    *version, *sec);
}

static int set_shinfo_hva(struct kvm_vm *vm, void *hva)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA,
		.u.shared_info.hva = (uintptr_t)hva,
	};

	return gpc_xen_vm_attr(vm, attr);
}

FLAGS_TEST(tsc_reference_with_shared_info)
{
	struct kvm_clock_data data;
	struct reference ref;
	void *shinfo;

	clocks_on(vcpu);
	vm_ioctl(vcpu->vm, KVM_GET_CLOCK, &data);
	GPC_REQUIRE(data.flags & KVM_CLOCK_TSC_STABLE, "the host's clock is not the TSC");

	shinfo = mem + SHARED_INFO * PAGE_SIZE;
	ref = reference_in(KVMCLOCK);
	assert_reference_stays(vcpu, &ref);

	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, PAGE_GPA(SHARED_INFO)), 0);
	assert_wall_clock(shinfo, WALL_CLOCK_64);
	assert_reference_stays(vcpu, &ref);

	/* Set it again, change the layout, remove it, move it. */
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, PAGE_GPA(SHARED_INFO)), 0);
	assert_reference_stays(vcpu, &ref);
	gpc_set_abi(vcpu->vm, GPC_32);
	assert_wall_clock(shinfo, WALL_CLOCK_32);
	assert_reference_stays(vcpu, &ref);
	TEST_ASSERT_EQ(gpc_xen_set_shinfo(vcpu->vm, -1ul), 0);
	assert_reference_stays(vcpu, &ref);
	shinfo = gpc_mmap_anon(NULL);
	memset(shinfo, 0, PAGE_SIZE);
	TEST_ASSERT_EQ(set_shinfo_hva(vcpu->vm, shinfo), 0);
	assert_wall_clock(shinfo, WALL_CLOCK_32);
	assert_reference_stays(vcpu, &ref);

	/* The guest's mode when it asks for its hypercall page sets the layout. */
	gpc_wrmsr(vcpu, GPC_XEN_MSR, PAGE_GPA(SHARED_INFO));
	assert_wall_clock(shinfo, WALL_CLOCK_64);
	assert_reference_stays(vcpu, &ref);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA);

	return test_harness_run(argc, argv);
}
