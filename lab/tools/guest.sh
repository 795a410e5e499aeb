#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Test the bpftrace tools: lab/tools/guest.sh SELFTEST [MODULES], in lab/rig/rig.sh's
# guest. With Debian's modules, the tools named -kp run. All three run at once, during a
# selftest whose every case is a process and a VM, and must agree.
set -euo pipefail
# shellcheck source=lab/rig/guest.sh
. "$LAB/rig/guest.sh"
# shellcheck source=lab/guest/trace.sh
. "$LAB/guest/trace.sh"

SELFTEST=$1 MODULES=${2-}
KP=$([[ -n $MODULES ]] && echo 0 || echo 3)
T=$(mktemp -d)

load_kvm "$MODULES"
hold_kvm
trace_start
"$SELFTEST" >"$T/selftest" 2>&1 || :
# Wait: the counts include the end of the last VM.
sleep 2
trace_end
let_kvm_go

summary
cat "$T"/*.said | grep -v NOTIFY | sed 's/^/# /' || :

VMS=$(grep -c '^ok ' "$T/selftest")
SHOWN=$(awk '$3 == "gpc_clock_test" { print $2 }' "$T/watch.tool" | sort -u | wc -l)
plan "$((KP > 0 ? 10 : 13))"
check "gpc_trace.sh takes the right tools" "$(grep -c 'tracing by kprobes' "$T"/*.said | cut -d: -f2 | paste -sd+) == $KP"
check "gpc_stacks: a clock is turned on by MSR" "$(sum activations 'kvm_set_msr_common') >= 10"
check "gpc_stacks: refreshes are begun by a vCPU that runs" "$(sum refreshes 'kvm_arch_vcpu_ioctl_run') >= 5"
check "gpc_stacks: invalidations come from madvise" "$(sum invalidations do_madvise) >= 3"
check "gpc_latency has each activation" "$(in_hist activate_ns) == $(sum activations)"
check "gpc_latency has refreshes" "$(in_hist refresh_ns) >= 5"
check "gpc_watch shows all $VMS VMs" "$SHOWN == $VMS"
check "gpc_watch has no line without a VM" "$(awk '/^[0-9][0-9]:/ && $2 == 0' "$T/watch.tool" | wc -l) == 0"
check "gpc_watch has each activation" "$(nearly "$(watched ACT)" "$(sum activations)")"
check "gpc_watch has each invalidation" "$(nearly "$(watched INVAL)" "$(sum invalidations)")"
if [[ $KP = 0 ]]; then
	check "gpc_stacks: hits come from madvise" "$(sum hits do_madvise) >= 3"
	check "gpc_watch has each refresh" "$(nearly "$(watched REFR)" "$(sum refreshes)")"
	check "gpc_watch has each hit" "$(nearly "$(watched HITS)" "$(sum hits)")"
fi
done_
