# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# On the user's machine: make load replaces Debian's KVM modules by ours in the running
# kernel, make unload restores Debian's. Our modules are loaded from build/; the next boot
# does not load them. docs/load.md is for the user.
#
# All files that are read are under SYSROOT, which the lab's tests set.

SYS=${SYSROOT-}/sys
PROC=${SYSROOT-}/proc

# The CPU's vendor module, as the kernel spells it.
vendor()
{
	case $(grep -owE -m 1 'svm|vmx' "$PROC/cpuinfo" | head -n 1) in
	svm) echo kvm_amd ;;
	vmx) echo kvm_intel ;;
	*) die "this CPU has neither AMD's svm nor Intel's vmx, or the firmware hides it:" \
		"look for SVM or VT-x in its setup; in a VM the host has to allow nesting" ;;
	esac
}

# --- refusals -------------------------------------------------------------

# can_replace: our modules can replace this kernel's, and we have the right to do so
can_replace()
{
	local kernel version

	kernel=$(uname -r)
	version=$(uname -v)
	[[ $(uname -m) = x86_64 ]] ||
		die "this is $(uname -m), where KVM is no module but part of the kernel;" \
		"'make run PLATFORM=vhe' boots a kernel that has ours"
	[[ $kernel = "$BASE_SERIES".* && $version = *" Debian "* ]] ||
		die "the running kernel is $kernel ($version), not Debian's $BASE_SERIES:" \
		"install and boot linux-image-amd64 of Debian 13, or a 6.12 of Debian 12"
	[[ -z ${KDIR-} ]] || die "KDIR=$KDIR: what is loaded is made from Debian's source"
	[[ ${KVER:-$kernel} = "$kernel" ]] ||
		die "KVER=$KVER, but $kernel is running: drop KVER, or boot that"
	[[ $EUID -eq 0 ]] || command -v sudo >/dev/null ||
		die "not root and no sudo: modules are root's to load; su, and the same again"
}

# The version of Debian's package that runs: 6.12.117-1~deb12u1
running_version()
{
	uname -v | sed -n 's/.* Debian \([^ ]*\).*/\1/p'
}

# Set KVER to the running kernel, unless build/ is already for that kernel.
for_running_kernel()
{
	local pick=

	[[ ! -s $BUILD/stock.pick ]] || pick=$(<"$BUILD/stock.pick")
	[[ ${pick#* } = "$(uname -r)" ]] || KVER=$(uname -r)
}

build_for_running_kernel()
{
	need build
	base
	[[ $BASE_VERSION = "$(running_version)" ]] ||
		die "the running kernel is $(running_version), but apt has the source of" \
		"$BASE_VERSION for $KREL: apt-get update and upgrade, boot that kernel, then the same again"
	modules stock
	selftests x86_64
}

# Use an earlier build, perhaps of another machine, as it is.
built_for_running_kernel()
{
	local dir kernel

	dir=$(modules_dir stock)
	kernel=$(modinfo -F vermagic "$dir/kvm.ko" 2>/dev/null | sed 's/ .*//') || :
	[[ $kernel = "$(uname -r)" && $(<"$BUILD/base") = "debian $(running_version)" ]] ||
		die "PREBUILT: $dir/kvm.ko is built for ${kernel:-nothing}," \
		"of $(cat "$BUILD/base" 2>/dev/null), and $(uname -r), $(running_version), is running"
	[[ -x $BUILD/selftests.x86_64/install/kvm/$LOAD_TEST ]] ||
		die "PREBUILT: $LOAD_TEST is not built"
}

# signature_wanted: why this kernel accepts signed modules only; fails if it accepts any
signature_wanted()
{
	local lockdown=$SYS/kernel/security/lockdown
	local efi=$SYS/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c

	if grep -qsE '\[(integrity|confidentiality)\]' "$lockdown"; then
		echo "the kernel is locked down ($(grep -o '[a-z]*\]' "$lockdown" | tr -d ']'))," \
			"as with Secure Boot"
	elif [[ $(cat "$SYS/module/module/parameters/sig_enforce" 2>/dev/null) = Y ]]; then
		echo "module.sig_enforce is set"
	elif [[ ! -e $lockdown && $(od -An -tu1 -j4 -N1 "$efi" 2>/dev/null) -eq 1 ]]; then
		echo "Secure Boot is on"
	else
		return 1
	fi
}

# users: processes that have /dev/kvm or a VM open, and modules that use kvm.ko
users()
{
	local m n

	as_root find "$PROC"/[0-9]*/fd -lname /dev/kvm -o -lname 'anon_inode:kvm-*' 2>/dev/null |
		sed -n 's|.*/\([0-9]*\)/fd/.*|\1|p' | sort -un |
		while read -r n; do
			echo "$(cat "$PROC/$n/comm" 2>/dev/null) (PID $n)"
		done
	for m in "$SYS"/module/kvm/holders/*; do
		[[ ! -e $m || $m = */kvm_amd || $m = */kvm_intel ]] || echo "module ${m##*/}"
	done
}

nobody_uses_kvm()
{
	local who m

	who=$(users)
	# A process that /proc does not show, for example of another PID namespace.
	for m in kvm_amd kvm_intel; do
		[[ $(cat "$SYS/module/$m/refcnt" 2>/dev/null || echo 0) = 0 ]] ||
			who=${who:-"someone (/sys/module/$m/refcnt)"}
	done
	[[ -z $who ]] ||
		die "KVM is in use by ${who//$'\n'/, }: shut the VMs down, then the same again"
}

# --- modules that are loaded ----------------------------------------------

loaded()
{
	[[ -e $SYS/module/$1 ]]
}

# uncompressed MODULE: on standard output, for insmod. boot.sh uses it, too; it is here
# because the guest that tests this file has no other part of the lab.
uncompressed()
{
	case $1 in
	*.xz) xz -dc "$1" ;;
	*.zst) zstd -dqc "$1" ;;
	*) cat "$1" ;;
	esac
}

# is_loaded FILE: was the loaded module of that name loaded from this file?
is_loaded()
{
	local m=${1##*/} t same=1

	m=${m%%.ko*}
	t=$(mktemp)
	uncompressed "$1" >"$t"
	objcopy -O binary --only-section=.note.gnu.build-id "$t"
	! cmp -s "$t" "$SYS/module/${m//-/_}/notes/.note.gnu.build-id" || same=0
	rm -f "$t"
	return $same
}

# parameters MODULE: the present NAME=VALUE. A value with a space is a message of the module
# ("not required"), which the module would not accept.
parameters()
{
	local p v

	for p in "$SYS/module/$1/parameters"/*; do
		v=$(cat "$p" 2>/dev/null) || continue
		[[ -z $v || $v = *' '* || $v = '(null)' ]] || echo "${p##*/}=$v"
	done
}

# out VENDOR: unload both modules
out()
{
	local m

	for m in "$1" kvm; do
		! loaded "$m" || as_root rmmod "$m" || return 1
	done
}

# debians_in VENDOR: load the modules that modprobe finds, with the old parameters
debians_in()
{
	as_root modprobe kvm "${KVM_ARGS[@]}" && as_root modprobe "$1" "${VENDOR_ARGS[@]}"
}

keep_parameters()
{
	mapfile -t KVM_ARGS < <(parameters kvm)
	mapfile -t VENDOR_ARGS < <(parameters "$1")
}

same_parameters()
{
	local new

	[[ ${#KVM_ARGS[@]} -gt 0 ]] || return 0
	new=$(diff <(printf '%s\n' "${KVM_ARGS[@]}" "${VENDOR_ARGS[@]}") \
		<({ parameters kvm; parameters "$1"; }) | grep '^[<>]') || return 0
	note "parameters that were (<) and are (>):"
	note "$new"
}

# ours_in DIR VENDOR: load our modules, and test them
ours_in()
{
	local dir=$1 vendor=$2 m

	for m in $(modinfo -F depends "$dir/kvm.ko" "$dir/${vendor/_/-}.ko" | tr ',' '\n'); do
		[[ $m = kvm ]] || as_root modprobe "$m"
	done
	as_root insmod "$dir/kvm.ko" "${KVM_ARGS[@]}"
	as_root insmod "$dir/${vendor/_/-}.ko" "${VENDOR_ARGS[@]}"
	is_loaded "$dir/kvm.ko"
	is_loaded "$dir/${vendor/_/-}.ko"
	as_root timeout 120 "$BUILD/selftests.x86_64/install/kvm/$LOAD_TEST"
}
LOAD_TEST=${LOAD_TEST:-gpc_clock_test}

# accepted FILE: would the kernel accept this module? The kernel checks the signature first,
# and then finds that a module of that name exists.
accepted()
{
	local said

	said=$(as_root insmod "$1" 2>&1) || :
	[[ $said = *"File exists"* ]] || { echo "$said"; return 1; }
}

# --- verbs ----------------------------------------------------------------

verb_load()
{
	local vendor dir why said

	can_replace
	vendor=$(vendor)
	if why=$(signature_wanted) && [[ -z ${MOK-} ]]; then
		die "$why: modules must be signed. MOK=/path/to/key signs them with key.key and key.pub;" \
			"docs/load.md tells how to make the firmware trust such a key"
	fi
	[[ -z ${MOK-} ]] || as_root test -r "$MOK.key" -a -r "$MOK.pub" ||
		die "MOK=$MOK: there is no $MOK.key, or no $MOK.pub"
	nobody_uses_kvm

	for_running_kernel
	if [[ -n ${PREBUILT-} ]]; then
		built_for_running_kernel
	else
		build_for_running_kernel
	fi
	dir=$(modules_dir stock)
	[[ -z ${MOK-} ]] || step sign "sign them with $MOK.key" sign "$dir" "$MOK"

	nobody_uses_kvm
	if loaded kvm && ! said=$(accepted "$dir/kvm.ko"); then
		die "the kernel does not take our modules (${said:-no answer});" \
			"Debian's are as they were. Is the key enrolled? See docs/load.md"
	fi
	keep_parameters "$vendor"
	if ! out "$vendor"; then
		debians_in "$vendor" || :
		die "KVM has come into use just now; Debian's modules stay"
	fi
	if ! (step load "load them, run $LOAD_TEST" ours_in "$dir" "$vendor"); then
		{ out "$vendor" && debians_in "$vendor"; } ||
			die "our modules do not work here, and Debian's cannot be put back: modprobe $vendor"
		die "our modules do not work here; Debian's are back. dmesg may say why"
	fi
	same_parameters "$vendor"
	note "KVM is kvm-gpc's until the next boot; 'make unload' puts Debian's back"
}

sign()
{
	local m headers=${STOCK_HEADERS:-/lib/modules/$(uname -r)/build}

	rm -f "$1/key"	# a signed module is not the one that was built
	for m in kvm kvm-amd kvm-intel; do
		as_root "$headers/scripts/sign-file" sha256 "$2.key" "$2.pub" "$1/$m.ko"
	done
}

verb_unload()
{
	local vendor debians

	can_replace
	vendor=$(vendor)
	debians=$(modinfo -F filename kvm) ||
		die "modprobe finds no kvm: is the kernel's package whole?"
	if loaded kvm && is_loaded "$debians"; then
		note "KVM is $debians: nothing to do"
		return 0
	fi
	nobody_uses_kvm
	keep_parameters "$vendor"
	{ out "$vendor" && debians_in "$vendor"; } ||
		die "cannot put Debian's modules back; type: modprobe $vendor"
	same_parameters "$vendor"
	note "KVM is $debians again"
}
