/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Make a thread wait for its CPU, and read that wait from the scheduler.  KVM reports the
 * wait to guests as stolen time.
 */
#ifndef SELFTEST_KVM_GPC_RIVAL_H
#define SELFTEST_KVM_GPC_RIVAL_H

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test_util.h"

uint64_t gpc_run_delay(void);
pid_t gpc_rival_start(void);
void gpc_rival_end(pid_t pid);
void gpc_lose_cpu(void);

#endif /* SELFTEST_KVM_GPC_RIVAL_H */
