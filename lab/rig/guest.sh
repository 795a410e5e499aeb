# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# For scripts that run in lab/rig/rig.sh's guest.

# load_kvm [DIR]: the KVM modules of DIR, or Debian's
load_kvm()
{
	if [[ -n ${1-} ]]; then
		modprobe -a irqbypass ccp
		insmod "$1/kvm.ko"
		insmod "$1/kvm-amd.ko"
	else
		modprobe kvm-amd
	fi
}

# hold_kvm: keep VMs open, then start the other CPUs, and leave the first one if there are
# three; let_kvm_go undoes that. CPUS has those to use. holdvm.c has the reason for the order,
# lab/machines/svm that for the third CPU.
hold_kvm()
{
	local held cpu

	exec {held}< <(exec "$BUILD/holdvm")
	HOLDER=$!
	read -r _ <&"$held"
	for cpu in /sys/devices/system/cpu/cpu[1-9]/online; do
		echo 1 >"$cpu"
	done
	CPUS=0-1
	[[ ! -e /sys/devices/system/cpu/cpu2 ]] || CPUS=1-2
	taskset -pc "$CPUS" $$ >/dev/null
}

let_kvm_go()
{
	local cpu

	for cpu in /sys/devices/system/cpu/cpu[1-9]/online; do
		echo 0 >"$cpu"
	done
	kill "$HOLDER"
	wait "$HOLDER" || :
}
