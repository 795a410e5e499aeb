/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARCH_X86_KVM_RUN_DELAY_H
#define __ARCH_X86_KVM_RUN_DELAY_H

#include <linux/kvm_host.h>
#include <linux/sched.h>

/*
 * Time, in ns, that the current thread has waited for a CPU since the last call for this
 * vCPU.  Return 0 if another thread made that call: run_delay counts a thread's waits, not
 * a vCPU's, and the counts of two threads cannot be compared.
 *
 * A new task may reuse the address of one that has exited, but not its start time, too.
 *
 * Context: process or sched-out.  The scheduler changes run_delay only while the thread
 * does not run.  A caller that sched-out would interrupt disables preemption.
 */
static __always_inline u64 kvm_run_delay(struct kvm_run_delay *rd)
{
	u64 total = current->sched_info.run_delay;
	u64 waited = total - rd->total;

	rd->total = total;

	if (unlikely(rd->task != current || rd->start_time != current->start_time)) {
		rd->task = current;
		rd->start_time = current->start_time;
		return 0;
	}
	return waited;
}

#endif /* __ARCH_X86_KVM_RUN_DELAY_H */
