/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For tests in which userfaultfd(2) supplies a page of the VMM, and the test is the
 * handler: it reads the fault of a thread in KVM, acts while that thread sleeps, and then
 * supplies the page.  Code that wrongly waits for the page runs into the harness'
 * timeout.
 */
#ifndef SELFTEST_KVM_GPC_UFFD_H
#define SELFTEST_KVM_GPC_UFFD_H

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "gpc.h"

#include <linux/userfaultfd.h>

int gpc_uffd_open(uint64_t features);
void gpc_uffd_register(int uffd, void *mem, size_t size, uint64_t mode);
void gpc_uffd_await_fault(int uffd, void *page, uint64_t flags);
void gpc_uffd_await(int uffd, void *page, uint64_t why);
void gpc_uffd_supply(int uffd, void *page);
void gpc_uffd_supply_zeros(int uffd, void *page);
int gpc_uffd_make_missing(void *page);

/*
 * A thread that may sleep in KVM
 */

struct gpc_task {
	pthread_t thread;
	int (*fn)(void *arg);
	void *arg;
	int ret;
	pid_t tid;
	bool done;
};

void gpc_task_start(struct gpc_task *task, int (*fn)(void *arg), void *arg);
int gpc_task_finish(struct gpc_task *task);
bool gpc_task_ends(struct gpc_task *task);
void gpc_task_await_done_or(struct gpc_task *task, char sleep);
bool gpc_task_ends_unserved(struct gpc_task *task, int uffd);
int gpc_task_update_fn(void *vcpu);
void gpc_task_update(struct gpc_task *task, struct kvm_vcpu *vcpu, int uffd, void *page);

/*
 * A kick: the signal by which a VMM gets a vCPU's thread out of KVM_RUN
 */

void gpc_catch_kicks(struct kvm_vcpu *vcpu);
int gpc_task_run_fn(void *vcpu);
void gpc_kick_out(struct kvm_vcpu *vcpu, struct gpc_task *task);

#endif /* SELFTEST_KVM_GPC_UFFD_H */
