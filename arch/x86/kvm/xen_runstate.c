// SPDX-License-Identifier: GPL-2.0-only
/*
 * The runstate of a Xen guest's vCPUs: how long each has been running, waiting for
 * a CPU, blocked and offline, kept in memory that the guest has registered.
 */
#include <linux/kvm_host.h>
#include <linux/sched/stat.h>
#include <linux/unaligned.h>

#include "run_delay.h"
#include "x86.h"
#include "xen.h"

/*
 * The record as Xen defines it (xen/include/public/vcpu.h): the state, 32 bits; the
 * time at which it was entered, 64 bits; and the times spent in each of the four
 * states.  A 64-bit guest aligns the times to 8 bytes, a 32-bit guest to 4; the rest
 * is equal.  The guest may put the record at any byte, so any part of the record may
 * cross the end of a page, and the pages may lie in two memslots.
 */
#define RUNSTATE_TIMES_32	offsetof(struct compat_vcpu_runstate_info, state_entry_time)
#define RUNSTATE_TIMES_64	offsetof(struct vcpu_runstate_info, state_entry_time)
#define RUNSTATE_TIMES_SIZE	(sizeof(u64) + sizeof_field(struct kvm_vcpu_xen, runstate_times))

static_assert(RUNSTATE_TIMES_32 + RUNSTATE_TIMES_SIZE ==
	      sizeof(struct compat_vcpu_runstate_info));
static_assert(RUNSTATE_TIMES_64 + RUNSTATE_TIMES_SIZE == sizeof(struct vcpu_runstate_info));

/* runstate_write() has one code path for both layouts. */
static_assert(!offsetof(struct compat_vcpu_runstate_info, state));
static_assert(!offsetof(struct vcpu_runstate_info, state));
static_assert(sizeof_field(struct compat_vcpu_runstate_info, state) == sizeof(u32));
static_assert(sizeof_field(struct vcpu_runstate_info, state) == sizeof(u32));
static_assert(XEN_RUNSTATE_UPDATE >> 56 == 0x80);

/* Offset of the times, which run to the end of the record. */
static size_t runstate_times_offset(struct kvm_vcpu *vcpu)
{
	return kvm_xen_long_mode(vcpu->kvm) ? RUNSTATE_TIMES_64 : RUNSTATE_TIMES_32;
}

/*
 * If the guest asked for the flag, set XEN_RUNSTATE_UPDATE in the entry time for as
 * long as the rest may be inconsistent.  The flag is the topmost bit.  Set it first and
 * clear it last, by a write of its byte only: the other bytes of that word may lie in
 * another cache line, or page.  Do not write the padding.
 */
static void runstate_write(struct kvm_vcpu *vcpu, void *record, size_t times_offset)
{
	struct kvm_vcpu_xen *vx = &vcpu->arch.xen;
	void *times = record + times_offset;
	u8 *last_byte = times + sizeof(u64) - 1;
	u64 entry_time = vx->runstate_entry_time;

	if (vcpu->kvm->arch.xen.runstate_update_flag) {
		entry_time |= XEN_RUNSTATE_UPDATE;
		WRITE_ONCE(*last_byte, entry_time >> 56);
		smp_wmb();	/* the guest sees the flag before anything else */
	}

	put_unaligned(vx->current_runstate, (u32 *)record);
	put_unaligned(entry_time, (u64 *)times);
	memcpy(times + sizeof(u64), vx->runstate_times, sizeof(vx->runstate_times));

	if (entry_time & XEN_RUNSTATE_UPDATE) {
		smp_wmb();	/* ... and sees it cleared after all else */
		WRITE_ONCE(*last_byte, vx->runstate_entry_time >> 56);
	}
}

/*
 * The length to bind an address with.  The record of a guest that switches to 64-bit
 * mode grows by 4 bytes, and only then may extend into the next page.  Include these
 * bytes if they do not need a second page.
 */
static size_t runstate_len(gpa_t gpa, size_t times_offset)
{
	size_t len = RUNSTATE_TIMES_64 + RUNSTATE_TIMES_SIZE;

	if (offset_in_page(gpa) + len <= PAGE_SIZE)
		return len;
	return times_offset + RUNSTATE_TIMES_SIZE;
}

/* A guest that has changed its mode has a record of another length. */
static void runstate_rebind(struct kvm_vcpu *vcpu, size_t times_offset)
{
	struct gfn_to_pfn_cache *gpc = &vcpu->arch.xen.runstate_cache;
	size_t len = runstate_len(gpc->gpa, times_offset);

	if (gpc->len != len)
		kvm_gpc_activate_span(gpc, gpc->gpa, len);
}

static void runstate_write_guest(struct kvm_vcpu *vcpu, bool may_sleep)
{
	struct gfn_to_pfn_cache *gpc = &vcpu->arch.xen.runstate_cache;
	size_t times_offset = runstate_times_offset(vcpu);
	size_t size = times_offset + RUNSTATE_TIMES_SIZE;
	void *record;

	if (may_sleep) {
		runstate_rebind(vcpu, times_offset);
		record = kvm_gpc_lock(gpc, size);
	} else {
		record = kvm_gpc_trylock(gpc, size);
	}
	if (IS_ERR(record)) {
		/* A signal ends KVM_RUN: write the record when the vCPU runs again. */
		if (PTR_ERR(record) == -EINTR)
			kvm_make_request(KVM_REQ_STEAL_UPDATE, vcpu);
		return;
	}

	/* Other vCPUs may spin on the flag; an invalidation spins until the unlock. */
	guard(irqsave)();
	runstate_write(vcpu, record, times_offset);
	kvm_gpc_unlock(gpc, size);
}

static void runstate_update_guest(struct kvm_vcpu *vcpu, bool may_sleep)
{
	if (kvm_gpc_is_active(&vcpu->arch.xen.runstate_cache))
		runstate_write_guest(vcpu, may_sleep);
}

/*
 * Account the time since the last change, and enter @state.  Sched-out does the same for a
 * vCPU in KVM_RUN, so disable preemption.  During other ioctls sched-out does not change
 * the times, so these need not disable preemption.
 */
static inline void runstate_enter(struct kvm_vcpu *vcpu, int state)
{
	struct kvm_vcpu_xen *vx = &vcpu->arch.xen;
	u64 waited, now;
	s64 delta;

	guard(preempt)();

	now = get_kvmclock_ns(vcpu->kvm);
	delta = now - vx->runstate_entry_time;
	/* Stand still until a clock that was set back has caught up. */
	if (unlikely(delta < 0)) {
		now = vx->runstate_entry_time;
		delta = 0;
	}

	if (unlikely(!kvm_read_run_delay(&vx->run_delay, &waited))) {
		waited = 0;
		/* It has entered no state yet, or the VMM has set all times to 0. */
		if (!vx->runstate_entry_time)
			vx->current_runstate = RUNSTATE_offline;
	}

	/*
	 * Waiting for a CPU is stolen time only for a vCPU that wanted to run.  The
	 * scheduler uses another clock: cap the stolen time at the time that has passed.
	 */
	if (vx->current_runstate == RUNSTATE_running) {
		u64 stolen = min_t(u64, waited, delta);

		delta -= stolen;
		vx->runstate_times[RUNSTATE_runnable] += stolen;
	}

	vx->runstate_times[vx->current_runstate] += delta;
	vx->current_runstate = state;
	vx->runstate_entry_time = now;
}

/**
 * kvm_xen_runstate_set_running - a vCPU is about to run
 * @vcpu: loaded vCPU
 *
 * Context: may sleep; &kvm.srcu held.
 */
void kvm_xen_runstate_set_running(struct kvm_vcpu *vcpu)
{
	runstate_enter(vcpu, RUNSTATE_running);
	runstate_update_guest(vcpu, true);
}

/**
 * kvm_xen_runstate_set_preempted - a vCPU that wants to run loses its CPU
 * @vcpu: vCPU that is being scheduled out
 *
 * A vCPU that exits to its VMM (hypercall, I/O) still counts as running, since the VMM
 * works on behalf of the vCPU.  The VMM sets the state if the vCPU blocks.
 *
 * Context: the scheduler's; &kvm.srcu held.  If the guest's memory is not accessible at
 * once, the next change of state updates the record.
 */
void kvm_xen_runstate_set_preempted(struct kvm_vcpu *vcpu)
{
	runstate_enter(vcpu, RUNSTATE_runnable);

	/* A vCPU that loses its CPU again and again could fill its dirty ring. */
	if (kvm_dirty_ring_has_room(vcpu))
		runstate_update_guest(vcpu, false);
}

static int runstate_set_addr(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct gfn_to_pfn_cache *gpc = &vcpu->arch.xen.runstate_cache;
	int r = 0;

	if (gpa != KVM_XEN_INVALID_GPA)
		r = kvm_gpc_activate_span(gpc, gpa,
					  runstate_len(gpa, runstate_times_offset(vcpu))) ?:
		    kvm_gpc_refresh(gpc);

	if (gpa == KVM_XEN_INVALID_GPA || r)
		kvm_gpc_deactivate(gpc);
	else
		runstate_update_guest(vcpu, true);
	return r;
}

/* Do the times of the four states add up to the entry time, and is it not in the future? */
static bool runstate_times_valid(struct kvm_vcpu *vcpu, const struct kvm_xen_vcpu_attr *data,
				 u64 since)
{
	u64 sum = data->u.runstate.time_running + data->u.runstate.time_runnable +
		  data->u.runstate.time_blocked + data->u.runstate.time_offline;

	return data->u.runstate.state_entry_time == sum &&
	       get_kvmclock_ns(vcpu->kvm) >= since + sum;
}

static void runstate_add_times(struct kvm_vcpu *vcpu, const struct kvm_xen_vcpu_attr *data)
{
	struct kvm_vcpu_xen *vx = &vcpu->arch.xen;

	vx->runstate_entry_time += data->u.runstate.state_entry_time;
	vx->runstate_times[RUNSTATE_running] += data->u.runstate.time_running;
	vx->runstate_times[RUNSTATE_runnable] += data->u.runstate.time_runnable;
	vx->runstate_times[RUNSTATE_blocked] += data->u.runstate.time_blocked;
	vx->runstate_times[RUNSTATE_offline] += data->u.runstate.time_offline;
}

/* The whole record, as saved on another host. */
static int runstate_set_data(struct kvm_vcpu *vcpu, const struct kvm_xen_vcpu_attr *data)
{
	struct kvm_vcpu_xen *vx = &vcpu->arch.xen;

	if (data->u.runstate.state > RUNSTATE_offline || !runstate_times_valid(vcpu, data, 0))
		return -EINVAL;

	vx->current_runstate = data->u.runstate.state;
	vx->runstate_entry_time = 0;
	memset(vx->runstate_times, 0, sizeof(vx->runstate_times));
	runstate_add_times(vcpu, data);
	vx->run_delay.task = NULL;	/* the next change of state starts a new count */
	return 0;
}

/* Add the time that has passed; and enter the given state, or keep the state for -1. */
static int runstate_adjust(struct kvm_vcpu *vcpu, const struct kvm_xen_vcpu_attr *data)
{
	if (data->u.runstate.state > RUNSTATE_offline && data->u.runstate.state != (u64)-1)
		return -EINVAL;

	if (!runstate_times_valid(vcpu, data, vcpu->arch.xen.runstate_entry_time))
		return -EINVAL;

	runstate_add_times(vcpu, data);
	if (data->u.runstate.state <= RUNSTATE_offline)
		runstate_enter(vcpu, data->u.runstate.state);
	runstate_update_guest(vcpu, true);
	return 0;
}

/**
 * kvm_xen_runstate_set_attr - KVM_XEN_VCPU_SET_ATTR for KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_*
 * @vcpu: loaded vCPU
 * @data: attribute, as in Documentation/virt/kvm/api.rst; times in ns
 *
 * Context: may sleep; &kvm.srcu held.
 *
 * Return: 0, or
 * * -EOPNOTSUPP: the host's scheduler keeps no statistics
 * * -EINVAL: no such state, times that do not add up or lie in the future
 * * -EFAULT: the address is not in memory that can be written
 * * -ENOENT: no such attribute
 */
int kvm_xen_runstate_set_attr(struct kvm_vcpu *vcpu, const struct kvm_xen_vcpu_attr *data)
{
	if (!sched_info_on())
		return -EOPNOTSUPP;

	switch (data->type) {
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR:
		return runstate_set_addr(vcpu, data->u.gpa);
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT:
		if (data->u.runstate.state > RUNSTATE_offline)
			return -EINVAL;
		runstate_enter(vcpu, data->u.runstate.state);
		runstate_update_guest(vcpu, true);
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA:
		return runstate_set_data(vcpu, data);
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST:
		return runstate_adjust(vcpu, data);
	default:
		return -ENOENT;
	}
}

/**
 * kvm_xen_runstate_get_attr - KVM_XEN_VCPU_GET_ATTR for KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_*
 * @vcpu: vCPU
 * @data: where to put the attribute
 *
 * Return: 0, or
 * * -EOPNOTSUPP: the host's scheduler keeps no statistics
 * * -ENOENT: no address has been set
 * * -EINVAL: the attribute can only be set
 */
int kvm_xen_runstate_get_attr(struct kvm_vcpu *vcpu, struct kvm_xen_vcpu_attr *data)
{
	struct kvm_vcpu_xen *vx = &vcpu->arch.xen;

	if (data->type == KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST)
		return -EINVAL;
	if (!sched_info_on())
		return -EOPNOTSUPP;

	switch (data->type) {
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR:
		if (!kvm_gpc_is_active(&vx->runstate_cache))
			return -ENOENT;
		data->u.gpa = vx->runstate_cache.gpa;
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA:
		data->u.runstate.state_entry_time = vx->runstate_entry_time;
		data->u.runstate.time_running = vx->runstate_times[RUNSTATE_running];
		data->u.runstate.time_runnable = vx->runstate_times[RUNSTATE_runnable];
		data->u.runstate.time_blocked = vx->runstate_times[RUNSTATE_blocked];
		data->u.runstate.time_offline = vx->runstate_times[RUNSTATE_offline];
		fallthrough;
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT:
		data->u.runstate.state = vx->current_runstate;
		return 0;
	default:
		return -ENOENT;
	}
}
