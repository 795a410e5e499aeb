#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# gpc_trace.sh stacks|latency|watch [ARGUMENT OF BPFTRACE...]
#
# Runs gpc_NAME.bt where KVM has the tracepoints kvm:kvm_gpc_*, and gpc_NAME-kp.bt, which
# shows what kprobes can see, where it has not.
dir=$(dirname "$0")
tool=$dir/gpc_$1

if [ $# -lt 1 ] || [ ! -e "$tool.bt" ]; then
	sed -n '4,7s/^# //p' "$0" >&2
	exit 2
fi
shift
if [ ! -d /sys/kernel/tracing/events/kvm/kvm_gpc_refresh ]; then
	if ! grep -q '[[:space:]]kvm_gpc_activate[[:space:]]' /proc/kallsyms; then
		echo "gpc_trace.sh: KVM is not loaded, or older than its caches" >&2
		exit 1
	fi
	echo "gpc_trace.sh: no tracepoints kvm:kvm_gpc_*, tracing by kprobes" >&2
	tool=$tool-kp
fi
exec bpftrace "$@" "$tool.bt"
