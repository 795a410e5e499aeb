#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# make load and make unload: what is refused, before anything is done. All of /sys and
# /proc is a folder of the test's; whatever would change something ends the test.
load helper

setup()
{
	local tool

	lab_setup_bare
	mkdir -p "$BIN" "$TMP/proc/77/fd" "$TMP/sys/kernel/security" "$TMP/sys/module/module/parameters"
	export PATH=$BIN:$PATH SYSROOT=$TMP
	unset KVER KDIR MOK PREBUILT
	for tool in insmod rmmod modprobe; do
		fake $tool "echo \"the test ran $tool \$*\" >&2; exit 99"
	done
	uname_is x86_64 6.12.117+deb12-amd64 '#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1~deb12u1 (2026-11-14)'
	echo 'flags : fpu svm npt' >"$TMP/proc/cpuinfo"
	echo '[none] integrity confidentiality' >"$TMP/sys/kernel/security/lockdown"
	echo N >"$TMP/sys/module/module/parameters/sig_enforce"
	kvm_is kvm_amd 0
}

# uname_is MACHINE RELEASE VERSION
uname_is()
{
	fake uname "case \$1 in -m) echo '$1' ;; -r) echo '$2' ;; -v) echo '$3' ;; esac"
}

# kvm_is VENDOR REFCNT
kvm_is()
{
	mkdir -p "$TMP/sys/module/kvm/holders/$1" "$TMP/sys/module/"{kvm,"$1"}/parameters
	echo "$2" >"$TMP/sys/module/$1/refcnt"
}

# load_: make load as far as it gets without a base, which is where building begins
load_()
{
	run lab 'as_root() { "$@"; }; need() { die "nothing was refused"; }; verb_load'
	refute_output --partial 'the test ran'
}

unload_()
{
	run lab 'as_root() { "$@"; }; verb_unload'
	refute_output --partial 'the test ran'
}

@test "load: a machine on which it can work is not refused" {
	load_
	bad 'nothing was refused'
}

@test "load: arm64 is refused: there KVM is no module" {
	uname_is aarch64 6.12.117+deb12-arm64 '#1 SMP Debian 6.12.117-1'
	load_
	bad aarch64 'no module'
}

@test "load: another kernel than Debian's 6.12 is refused, and named" {
	uname_is x86_64 6.1.0-40-amd64 '#1 SMP PREEMPT_DYNAMIC Debian 6.1.153-1 (2025-09-20)'
	load_
	bad 6.1.0-40-amd64 6.12
	uname_is x86_64 6.12.30 '#1 SMP PREEMPT_DYNAMIC Thu Jan 1'
	load_
	bad 6.12.30 "Debian's"
	uname_is x86_64 6.120.1+deb14-amd64 '#1 SMP PREEMPT_DYNAMIC Debian 6.120.1-1'
	load_
	bad 6.120.1 6.12
}

@test "load: KVER of another kernel, and KDIR, are refused" {
	KVER=6.12.101+deb12-amd64 load_
	bad KVER=6.12.101+deb12-amd64 6.12.117+deb12-amd64
	KVER=6.12.117+deb12-amd64 load_
	bad 'nothing was refused'
	KDIR=/usr/src/linux load_
	bad KDIR=/usr/src/linux
}

@test "load: a CPU without svm and vmx is refused" {
	echo 'flags : fpu vme svm_lock de' >"$TMP/proc/cpuinfo"
	load_
	bad svm vmx firmware
}

@test "load: without root and sudo it is refused" {
	[[ $EUID -eq 0 ]] || skip "only root can become another user"
	rm -f "$BIN/sudo"
	for tool in bash sed grep head dirname cat env sha256sum nproc mkdir pgrep; do
		ln -sf "$(command -v $tool)" "$BIN/$tool"
	done
	# That user may not see where the repository is.
	own_lab
	chmod 755 "$TMP" "$BATS_RUN_TMPDIR" "$BATS_TEST_TMPDIR"
	PATH=$BIN run env "$(command -v setpriv)" --reuid=65534 --clear-groups \
		bash -c "$(declare -f lab); TOP=$TOP; lab 'verb_load'"
	bad 'not root' sudo
}

@test "load: a locked-down kernel is refused, unless there is a key to sign with" {
	echo 'none [integrity] confidentiality' >"$TMP/sys/kernel/security/lockdown"
	load_
	bad integrity MOK= docs/load.md
	MOK=$TMP/none load_
	bad MOK= "$TMP/none.key"
	touch "$TMP/mok.key" "$TMP/mok.pub"
	MOK=$TMP/mok load_
	bad 'nothing was refused'
}

@test "load: a kernel that enforces signatures is refused" {
	echo Y >"$TMP/sys/module/module/parameters/sig_enforce"
	load_
	bad sig_enforce MOK=
}

@test "load: Secure Boot is seen where securityfs is not mounted" {
	rm "$TMP/sys/kernel/security/lockdown"
	load_
	bad 'nothing was refused'
	mkdir -p "$TMP/sys/firmware/efi/efivars"
	printf '\6\0\0\0\1' >"$TMP/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	load_
	bad 'Secure Boot is on'
	printf '\6\0\0\0\0' >"$TMP/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	load_
	bad 'nothing was refused'
}

@test "load: a VM that runs is refused, and whose it is said; unload too" {
	echo qemu-system-x86 >"$TMP/proc/77/comm"
	ln -s anon_inode:kvm-vm "$TMP/proc/77/fd/10"
	load_
	bad 'qemu-system-x86 (PID 77)' 'shut the VMs down'
	rm "$TMP/proc/77/fd/10"
	ln -s /dev/kvm "$TMP/proc/77/fd/9"
	load_
	bad 'qemu-system-x86 (PID 77)'
	lab_is_loaded
	unload_
	bad 'qemu-system-x86 (PID 77)'
}

@test "load: a user that /proc does not show is refused; unload too" {
	kvm_is kvm_amd 3
	load_
	bad /sys/module/kvm_amd/refcnt
	lab_is_loaded
	unload_
	bad /sys/module/kvm_amd/refcnt
}

@test "load: another module that uses kvm.ko is refused, by its name" {
	mkdir "$TMP/sys/module/kvm/holders/kvmgt"
	load_
	bad kvmgt
}

@test "load: a guest that takes lab/load/load.sh, and nothing else of the lab, knows what is loaded" {
	fake objcopy true
	mkdir -p "$TMP/sys/module/m/notes"
	echo id | tee "$TMP/sys/module/m/notes/.note.gnu.build-id" | xz >"$TMP/m.ko.xz"
	run bash -c '. "$0/lab/load/load.sh"; is_loaded "$1"' "$TOP" "$TMP/m.ko.xz"
	assert_equal "$output" ''
	assert_equal "$status" 0
	echo another | xz >"$TMP/m.ko.xz"
	run bash -c '. "$0/lab/load/load.sh"; is_loaded "$1"' "$TOP" "$TMP/m.ko.xz"
	assert_equal "$status" 1
}

# lab_is_loaded: what is loaded is not what modprobe finds, TMP/kvm.ko.xz
lab_is_loaded()
{
	mkdir -p "$TMP/sys/module/kvm/notes"
	echo 'int x;' | gcc -shared -Wl,--build-id=sha1 -xc - -o "$TMP/kvm.ko"
	xz -k "$TMP/kvm.ko"
	echo ours >"$TMP/sys/module/kvm/notes/.note.gnu.build-id"
	fake modinfo "echo $TMP/kvm.ko.xz"
}

@test "load: unload leaves alone what modprobe would load" {
	lab_is_loaded
	objcopy -O binary --only-section=.note.gnu.build-id "$TMP/kvm.ko" 2>/dev/null \
		"$TMP/sys/module/kvm/notes/.note.gnu.build-id"
	unload_
	assert_success
	assert_output --partial "KVM is $TMP/kvm.ko.xz: nothing to do"
}

@test "load: parameters are kept, but not the module's own words" {
	printf 'Y\n' >"$TMP/sys/module/kvm/parameters/ignore_msrs"
	printf '200000\n' >"$TMP/sys/module/kvm/parameters/halt_poll_ns"
	printf 'not required\n' >"$TMP/sys/module/kvm/parameters/vmentry_l1d_flush"
	printf '(null)\n' >"$TMP/sys/module/kvm/parameters/none"
	run lab 'parameters kvm'
	assert_success
	assert_equal "$output" $'halt_poll_ns=200000\nignore_msrs=Y'
}

@test "load: when ours do not work, Debian's are put back with the parameters they had" {
	own_modules
	run lab "$SWAP; ours_in() { echo in >>$TMP/did; false; }; verb_load"
	bad 'do not work' "Debian's are back"
	assert_equal "$(<"$TMP/did")" $'rmmod kvm_amd\nrmmod kvm\nin\nmodprobe kvm halt_poll_ns=7\nmodprobe kvm_amd nested=0'
}

@test "load: unload takes ours out and puts in what modprobe finds, with the parameters" {
	own_modules
	lab_is_loaded
	run lab "$SWAP; verb_unload"
	assert_success
	assert_output --partial "KVM is $TMP/kvm.ko.xz again"
	assert_equal "$(<"$TMP/did")" $'rmmod kvm_amd\nrmmod kvm\nmodprobe kvm halt_poll_ns=7\nmodprobe kvm_amd nested=0'
}

@test "load: PREBUILT of another kernel, or of none, is refused" {
	own_modules
	fake modinfo 'echo "6.12.101+deb12-amd64 SMP preempt mod_unload modversions"'
	echo 'debian 6.12.101-1' >"$BUILD/base"
	PREBUILT=1 run lab "$SWAP; verb_load"
	bad PREBUILT 6.12.101+deb12-amd64 6.12.117+deb12-amd64
	fake modinfo 'exit 1'
	PREBUILT=1 run lab "$SWAP; verb_load"
	bad PREBUILT nothing
	fake modinfo 'echo "6.12.117+deb12-amd64 SMP preempt"'
	PREBUILT=1 run lab "$SWAP; verb_load"
	bad PREBUILT 6.12.101-1
	assert_not_exists "$TMP/did"
}

@test "load: a module that the kernel does not take is seen while Debian's are in" {
	own_modules
	fake insmod 'echo "insmod: ERROR: could not insert module: Key was rejected by service" >&2; exit 1'
	run lab "$SWAP; verb_load"
	bad 'Key was rejected' enrolled
	assert_not_exists "$TMP/did"
}

@test "load: a kernel of another version than apt's source is refused" {
	own_modules
	uname_is x86_64 6.12.117+deb12-amd64 '#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-2~deb12u1 (2026-11-14)'
	run lab "$SWAP; verb_load"
	bad 6.12.117-2~deb12u1 6.12.117-1~deb12u1
	assert_not_exists "$TMP/did"
}

# own_modules: nothing is built, and rmmod and modprobe write down that they were called
own_modules()
{
	echo 7 >"$TMP/sys/module/kvm/parameters/halt_poll_ns"
	echo 0 >"$TMP/sys/module/kvm_amd/parameters/nested"
	mkdir -p "$BUILD/logs"
	fake rmmod "echo rmmod \$* >>$TMP/did; rm -r $TMP/sys/module/\$1"
	fake modprobe "echo modprobe \$* >>$TMP/did"
	fake insmod 'echo "insmod: ERROR: could not insert module: File exists" >&2; exit 1'
	SWAP='as_root() { "$@"; }; need() { :; }; base() { BASE_VERSION=6.12.117-1~deb12u1 KREL=6.12.117+deb12-amd64; }; modules() { :; }; selftests() { :; }'
}
