#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# For lab/rig/rig.sh's guest. `load`: make load and make unload as a user types them, but with
# the build of make test-load: here make takes minutes to find that nothing has to be built.
# `dkms`: the package, as installed by dkmstest.sh.
set -uo pipefail
# shellcheck source=/dev/null
. "$LAB/guest/tap.sh"
# shellcheck source=/dev/null
. "$LAB/load/load.sh"
UPDATES=/lib/modules/$KREL/updates/dkms
DEBIANS=$STOCK/lib/modules/$KREL/kernel/arch/x86/kvm
TOP=${LAB%/*}
TEST=$BUILD/selftests.x86_64/install/kvm/gpc_clock_test
CACHE=${STOCK%/stock/*}
export XDG_CACHE_HOME=${CACHE%/*} PREBUILT=1
upper=/proc/1/root/rw/root/upper	# what is written to this root

lab()
{
	make -s -C "$TOP" "$@"
}

ours()
{
	is_loaded "$BUILD/stock/kvm.ko"
	is_loaded "$BUILD/stock/kvm-amd.ko"
	[[ -d /sys/kernel/tracing/events/kvm/kvm_gpc_refresh ]]
}

debians()
{
	is_loaded "$DEBIANS/kvm.ko.xz"
	is_loaded "$DEBIANS/kvm-amd.ko.xz"
	[[ ! -e /sys/kernel/tracing/events/kvm/kvm_gpc_refresh ]]
}

# A parameter from modprobe's command line, and one that was set later.
debians_with_parameters()
{
	modprobe kvm-amd nested=0
	echo 12345 >/sys/module/kvm/parameters/halt_poll_ns
	debians
}

parameters_kept()
{
	[[ $(</sys/module/kvm_amd/parameters/nested) = 0 ]]
	[[ $(</sys/module/kvm/parameters/halt_poll_ns) = 12345 ]]
}

load_works()
{
	lab load
	cat "$BUILD/logs/load.log"
	grep -q '^# PASSED: ' "$BUILD/logs/load.log"
	! grep -q '^not ok' "$BUILD/logs/load.log"
}

hold()
{
	local ready

	coproc HOLDER { exec "$BUILD/holdvm"; }
	read -r ready <&"${HOLDER[0]}"
	[[ $ready = ready ]]
}

# A failing selftest, where make load looks for it.
load_that_fails()
{
	ln -s /bin/false "$BUILD/selftests.x86_64/install/kvm/fails"
	LOAD_TEST=fails refuses 'do not work here' "Debian's are back" -- lab load
}

booted_secure()
{
	mount -t securityfs security /sys/kernel/security
	dmesg | grep -iE 'secure ?boot|lock(ed )?down|X\.509'
	cat /sys/kernel/security/lockdown
	grep -F '[integrity]' /sys/kernel/security/lockdown
}

locked_down()
{
	refuses 'locked down (integrity)' MOK= -- lab load
}

enforced()
{
	echo 1 >/sys/module/module/parameters/sig_enforce
	refuses sig_enforce MOK= -- lab load
}

key_that_is_unknown()
{
	openssl req -new -x509 -nodes -days 2 -subj /CN=nobody -newkey rsa:2048 \
		-keyout /tmp/mok.key -outform DER -out /tmp/mok.pub 2>/dev/null
	MOK=/tmp/mok refuses 'not take our modules' 'Is the key enrolled' -- lab load
	modinfo -F signer "$BUILD/stock/kvm.ko" | grep nobody
}

known_key()
{
	MOK=$BUILD/load/uefi/mok lab load
	modinfo -F signer "$BUILD/stock/kvm.ko"
}

# All files that make load and make unload wrote, except the cache and temporary files.
written()
{
	local found

	found=$(cd "$upper" &&
		find . ! -type d -newer /tmp/began ! -path ".$BUILD/*" ! -path ".$CACHE/*")
	[[ -z $found ]] || { echo "$found"; return 1; }
	found=$(find /proc/1/root/rw/modules/upper ! -type d)
	[[ -z $found ]] || { echo "$found"; return 1; }
}

installed()
{
	tar -C / --keep-directory-symlink -xf "$BUILD/load/installed.tar"
	tar -C "/lib/modules/$KREL" -xf "$BUILD/load/modules.tar"
	(cd "/lib/modules/$KREL" && xargs -r rm <"$BUILD/load/removed")
	dkms status
	dpkg -s kvm-gpc-dkms | grep '^Status: install ok installed'
}

modprobe_gives_dkms()
{
	modprobe kvm-amd
	is_loaded "$UPDATES/kvm.ko.xz"
	is_loaded "$UPDATES/kvm-amd.ko.xz"
	[[ -d /sys/kernel/tracing/events/kvm/kvm_gpc_refresh ]]
}

modprobe_gives_debians()
{
	modprobe -r kvm-amd
	modprobe kvm-amd
	debians
}

removed()
{
	local m

	dpkg -r kvm-gpc-dkms
	for m in kvm kvm-amd kvm-intel; do
		cmp "$DEBIANS/$m.ko.xz" "/lib/modules/$KREL/kernel/arch/x86/kvm/$m.ko.xz"
	done
	[[ ! -e $UPDATES/kvm.ko.xz && ! -e /var/lib/dkms/kvm-gpc ]]
	! compgen -G '/usr/src/kvm-gpc-*'
}

test_load()
{
	plan 16
	sleep 1
	touch /tmp/began
	t "no KVM is loaded" test ! -e /sys/module/kvm
	t "Debian's KVM, with parameters" debians_with_parameters
	t "make load" load_works
	t "ours are in" ours
	t "parameters are kept" parameters_kept
	hold
	t "make load is refused while there is a VM" \
		refuses "holdvm (PID $HOLDER_PID)" 'shut the VMs down' -- lab load
	t "make unload is refused while there is a VM" \
		refuses "holdvm (PID $HOLDER_PID)" 'shut the VMs down' -- lab unload
	t "ours are still in" ours
	kill "$HOLDER_PID"
	wait "$HOLDER_PID"
	t "make unload" lab unload
	t "Debian's are back" debians
	t "a load that fails puts Debian's back" load_that_fails
	t "with them their parameters" parameters_kept
	t "signatures are enforced: make load is refused" enforced
	t "a key that the kernel does not know: Debian's stay" key_that_is_unknown
	t "Debian's are in" debians
	t "nothing outside build/ and the cache was written" written
}

test_secure()
{
	plan 8
	modprobe kvm-amd
	t "Secure Boot has locked the kernel down" booted_secure
	t "make load is refused" locked_down
	t "a key that the firmware does not know: make load is refused" key_that_is_unknown
	t "Debian's are in" debians
	t "a key that it knows: make load" known_key
	t "ours are in" ours
	t "make unload" lab unload
	t "Debian's are back" debians
}

test_dkms()
{
	plan 5
	t "the machine on which DKMS installed it" installed
	t "modprobe loads ours" modprobe_gives_dkms
	t "they work: ${TEST##*/}" "$TEST"
	t "the package is removed" removed
	t "modprobe loads Debian's" modprobe_gives_debians
}

"test_$1"
done_
