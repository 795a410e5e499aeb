# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make test-load: make load, make unload and the DKMS package in a VM with this machine's
# root, never on this machine.

LOADTEST=$BUILD/load

# dkms_headers: the packages of the stock kernel's headers, as files
dkms_headers()
{
	local p version=${BASE_VERSION#*:} abi=${KREL%%-*}

	for p in "linux-headers-$KREL" "linux-headers-$abi-common" "linux-kbuild-$abi"; do
		deb "$p" "$version"
	done
}

dkms_test()
{
	# shellcheck disable=SC2046
	as_root unshare -m "$TOP/lab/load/dkmstest.sh" "$LOADTEST" "$BUILD"/kvm-gpc-dkms_*.deb \
		"$KREL" "$STOCK" $(dkms_headers)
}

# loadtest_boot WHAT: the guest's output is KTAP
loadtest_boot()
{
	root_run 1800 "$BUILD/results/load/$1" "" "$TOP/lab/load/guest.sh" "$1"
}

# A machine with Secure Boot on, whose firmware trusts the key of a Debian test, which is
# public with its private half. For the guest, it is the key that a user has enrolled.
secure_boot()
{
	local dir=$LOADTEST/uefi of=/usr/share/ovmf/PkKek-1-snakeoil

	mkdir -p "$dir"
	openssl rsa -passin pass:snakeoil -in $of.key -out "$dir/mok.key"
	openssl x509 -in $of.pem -outform DER -out "$dir/mok.pub"
	sbsign --key "$dir/mok.key" --cert $of.pem --output "$dir/vmlinuz" "$(kernel_of stock)"
	cp /usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd "$dir/vars"
}

loadtest_boot_secure()
{
	local uefi=$LOADTEST/uefi code=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd
	# shellcheck disable=SC2034 # for root.sh
	local ROOT_KERNEL=$uefi/vmlinuz
	# shellcheck disable=SC2034
	local -a ROOT_QEMU=(-machine "q35,smm=on"
		-global "driver=cfi.pflash01,property=secure,value=on"
		-drive "if=pflash,format=raw,readonly=on,file=$code"
		-drive "if=pflash,format=raw,file=$uefi/vars")
	# The firmware writes to every serial line.
	loadtest_boot secure | sed -u 's/\x1b\[[0-9;=]*[a-zA-Z]//g; /^EFI stub/d; /^ *$/d'
}

verb_test_load()
{
	local rc=0

	unset KVER MOK PREBUILT LOAD_TEST
	need uefi
	root_prepare
	modules stock
	selftests x86_64
	verb_dkms
	mkdir -p "$LOADTEST"
	step uefi "sign the kernel for Secure Boot" secure_boot
	note "make load, make unload, in a VM"
	loadtest_boot load || rc=1
	note "make load in a VM with Secure Boot"
	loadtest_boot_secure || rc=1
	note "the package: DKMS builds and installs it in a root of its own"
	dkms_test || rc=1
	note "the package, in a VM"
	loadtest_boot dkms || rc=1
	[[ $rc -eq 0 ]] || die "something failed; the consoles are in build/results/load/"
	note "make load, make unload and the DKMS package work"
}
