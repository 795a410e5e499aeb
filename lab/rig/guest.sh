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

# hold_kvm: keep VMs open, then start the second CPU; let_kvm_go undoes that. holdvm.c has
# the reason for the order.
hold_kvm()
{
	local held

	exec {held}< <(exec "$BUILD/holdvm")
	HOLDER=$!
	read -r _ <&"$held"
	echo 1 >/sys/devices/system/cpu/cpu1/online
}

let_kvm_go()
{
	echo 0 >/sys/devices/system/cpu/cpu1/online
	kill "$HOLDER"
	wait "$HOLDER" || :
}
