/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARCH_X86_KVM_RUN_DELAY_H
#define __ARCH_X86_KVM_RUN_DELAY_H

#include <linux/kvm_host.h>
#include <linux/sched.h>

/*
 * Read how long the current thread has waited for a CPU: set *@waited to the time, in ns,
 * since the last call for this vCPU.
 *
 * A new task may reuse the address of one that has exited, but not its start time, too.
 *
 * Context: process or sched-out.  The scheduler changes run_delay only while the thread
 * does not run.  A caller that sched-out would interrupt disables preemption.
 *
 * Return: %false if another thread made the last call, or if there was none.  run_delay
 * counts a thread's waits, not a vCPU's, and the counts of two threads cannot be compared.
 */
static __always_inline bool kvm_read_run_delay(struct kvm_run_delay *rd, u64 *waited)
{
	u64 total = current->sched_info.run_delay;

	*waited = total - rd->total;
	rd->total = total;

	if (likely(rd->task == current && rd->start_time == current->start_time))
		return true;

	rd->task = current;
	rd->start_time = current->start_time;
	return false;
}

/* Like kvm_read_run_delay(), but return the time, or 0 from one thread to another. */
static __always_inline u64 kvm_run_delay(struct kvm_run_delay *rd)
{
	u64 waited;

	return kvm_read_run_delay(rd, &waited) ? waited : 0;
}

#endif /* __ARCH_X86_KVM_RUN_DELAY_H */
