# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# An initramfs for each architecture, a boot on each back end. The kernel's console
# goes to one file, the tests' results to another.

# --- initramfs ------------------------------------------------------------

busybox_for()
{
	local t=$CACHE/busybox.arm64

	if [[ $1 = x86_64 ]]; then
		command -v busybox
		return
	fi
	[[ -x $t ]] || busybox_arm64 "$t" >&2
	echo "$t"
}

# The host's dpkg need not support arm64.
busybox_arm64()
{
	local t apt

	temp t "$CACHE/apt.arm64"
	mkdir -p "$t/lists/partial" "$t/x"
	apt=(apt-get -q -oAPT::Architecture=arm64 -oAPT::Architectures=arm64
		-oDir::State::Lists="$t/lists" -oDir::Cache::pkgcache= -oDir::Cache::srcpkgcache=
		-oAPT::Sandbox::User=root)
	"${apt[@]}" update
	(cd "$t" && "${apt[@]}" download busybox-static) ||
		die "cannot download busybox-static for arm64: is the network up?"
	dpkg -x "$t"/busybox-static_*.deb "$t/x"
	cp "$t"/x/*bin/busybox "$1.tmp" 2>/dev/null || cp "$t"/x/usr/*bin/busybox "$1.tmp"
	mv "$1.tmp" "$1"
	rm -rf "$t"
}

libdirs()
{
	case $1 in
	x86_64) echo /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib64 ;;
	arm64)  echo /usr/aarch64-linux-gnu/lib ;;
	esac
}

# needed BINARY...: the interpreter and the shared objects that the binaries need;
# pthread_cancel() loads libgcc_s itself
needed()
{
	readelf -d -l "$@" 2>/dev/null |
		sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p; s/.*program interpreter: .*\/\(.*\)\]/\1/p'
	echo libgcc_s.so.1
}

# pack: the current folder as an initramfs; the same files give the same bytes
pack()
{
	find . -exec touch -h -d @0 {} +
	find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet | gzip -1 -n
}

# initramfs_key ARCH: digest of the inputs of its initramfs
initramfs_key()
{
	local -a tests

	mapfile -t tests < <(tests_of "$1")
	(
		cd "$BUILD/selftests.$1/install" || exit
		sha256sum kselftest/* run_kselftest.sh "${tests[@]/#/kvm/}" \
			"$(busybox_for "$1")" "$TOP"/lab/guest/{init,timeout} 2>&1
	) | digest
}

# initramfs ARCH: build/initramfs.ARCH.cpio.gz of busybox, libraries, the runner
# and the selftests that lab/run/tests.list names
initramfs()
{
	local arch=$1 t f lib d

	temp t "$BUILD/initramfs.$arch.d"
	mkdir -p "$t"/{bin,lib,lib64,usr/bin,kselftest/kvm}
	cp "$(busybox_for "$arch")" "$t/bin/busybox"
	install -m 755 "$TOP/lab/guest/init" "$t/init"
	cp -r "$BUILD/selftests.$arch/install/"{run_kselftest.sh,kselftest} "$t/kselftest/"
	for f in $(tests_of "$arch"); do
		[[ -e $BUILD/selftests.$arch/install/kvm/$f ]] ||
			die "lab/run/tests.list names $f, which the $arch selftests do not have"
		strip_into "$arch" "$BUILD/selftests.$arch/install/kvm/$f" "$t/kselftest/kvm/$f"
		echo "kvm:$f"
	done >"$t/kselftest/kselftest-list.txt"
	install -m 755 "$TOP/lab/guest/timeout" "$t/usr/bin/timeout"
	for lib in $(needed "$t"/kselftest/kvm/* | sort -u); do
		for d in $(libdirs "$arch"); do
			if [[ -e $d/$lib ]]; then
				cp -L "$d/$lib" "$t/lib/"
				ln -sf "../lib/$lib" "$t/lib64/$lib"
				break
			fi
		done
	done
	(cd "$t" && into "$BUILD/initramfs.$arch.cpio.gz" pack)
	initramfs_key "$arch" >"$BUILD/initramfs.$arch.key"
	rm -rf "$t"
}

strip_into()
{
	local objcopy=objcopy

	[[ $1 != arm64 ]] || objcopy=aarch64-linux-gnu-objcopy
	$objcopy --strip-debug "$2" "$3"
}

# modules_for PLATFORM: what to insmod, in order, with parameters
modules_for()
{
	# For the share that boot() adds.
	[[ $1 != svm || ${ACCEL-} = icount ]] || printf '%s\n' netfs 9pnet 9pnet_virtio 9p
	# loop is for swap; brd does not work: it swaps without a swap cache
	of_machine "$1" MODULES | tr ' ' '\n'
	echo loop
}

# stock_module RELEASE_DIR NAME OUT
stock_module()
{
	local f

	f=$(find "$1" -name "$2.ko*" | head -n 1)
	[[ -n $f ]] || die "the stock kernel $KREL has no module $2"
	uncompressed "$f" >"$3"
}

# kcsan_scope DIR: the functions of the kernel built there whose races are reported: those
# of KVM, and those of its trees
kcsan_scope()
{
	nm --defined-only "$1"/arch/*/kvm/built-in.a "$1"/lib/{rbtree,interval_tree}.o |
		awk '$2 ~ /^[tT]$/ && $3 !~ /^__(pfx|cfi)_/ { print $3 }' | sort -u
}

# holdvm: that program
holdvm()
{
	local out=$BUILD/holdvm

	[[ $out -nt $TOP/lab/guest/holdvm.c ]] || gcc -static -O2 -o "$out" "$TOP/lab/guest/holdvm.c"
	echo "$out"
}

# job_initramfs PLATFORM VARIANT base|ours OUT: the modules and the job on top
job_initramfs()
{
	local platform=$1 variant=$2 whose=$3 out=$4 t m args

	temp t "$out.d"
	mkdir -p "$t/lab"
	cp "$out.job" "$t/lab/job"
	if [[ $variant = stock || $variant = rt ]]; then
		while read -r m args; do
			if [[ $whose = ours && $m = kvm* ]]; then
				cp "$(modules_dir "$variant")/$m.ko" "$t/lab/"
			else
				stock_module "$STOCK/lib/modules/$KREL" "$m" "$t/lab/$m.ko"
			fi
			echo "$m $args"
		done < <(modules_for "$platform") >"$t/lab/modules"
	fi
	[[ $variant != kcsan.* ]] || kcsan_scope "$(kernel_dir "$variant" "${whose/ours/}")" >"$t/lab/kcsan"
	[[ $(platform_arch "$platform") = arm64 ]] || cp "$(holdvm)" "$t/lab/"
	(cd "$t" && into "$out.job.gz" pack)
	cat "$BUILD/initramfs.$(platform_arch "$platform").cpio.gz" "$out.job.gz" >"$out"
	rm -rf "$t" "$out.job.gz"
}

# --- machines -------------------------------------------------------------

check_accel()
{
	local cpu=vmx nested

	case ${ACCEL:-tcg} in
	tcg) return 0 ;;
	icount)	# for make bench
		[[ $(of_machine "$1" ICOUNT) = 1 ]] || die "ACCEL=icount is for PLATFORM=svm, nvhe and vhe only"
		return 0 ;;
	kvm) ;;
	*) die "unknown ACCEL=$ACCEL; it is tcg or kvm" ;;
	esac
	[[ $1 != svm ]] || cpu=svm
	[[ $(platform_arch "$1") = "$(uname -m)" && -w /dev/kvm ]] ||
		die "ACCEL=kvm: this host has no /dev/kvm that can be written for $1; use ACCEL=tcg"
	if [[ $(uname -m) = x86_64 ]]; then
		grep -qw "$cpu" /proc/cpuinfo ||
			die "ACCEL=kvm: this host's CPU has no $cpu, which PLATFORM=$1 needs; use ACCEL=tcg"
		nested=$(cat "/sys/module/kvm_${cpu/svm/amd}/parameters/nested" 2>/dev/null ||
			cat "/sys/module/kvm_intel/parameters/nested" 2>/dev/null || echo N)
		[[ $nested = [Y1] ]] || die "ACCEL=kvm: the host's KVM has nested=$nested; load it with nested=1"
	fi
}

# machine PLATFORM: the emulator's command line without kernel, initrd, channels. With
# icount an instruction is a nanosecond, and two boots differ only if the guest does.
machine()
{
	local cpu smp

	cpu=$(of_machine "$1" CPU)
	smp=$(of_machine "$1" SMP)
	of_machine "$1" QEMU
	case ${ACCEL:-tcg} in
	kvm) echo -accel kvm -cpu host -smp 2 ;;
	icount) echo -accel tcg -icount shift=0,sleep=off -seed 1 -rtc base=2020-01-01,clock=vm -cpu "$cpu" -smp 1 ;;
	tcg) echo -accel tcg,thread=multi -cpu "$cpu" -smp "${smp:-2}" ;;
	esac
}

in_bochs()
{
	[[ $(of_machine "$1" EMULATOR) = bochs && ${ACCEL:-tcg} = tcg ]]
}

# tsc_early: pass the TSC's frequency to the guest; see tsckhz.c
tsc_early()
{
	[[ ${ACCEL:-tcg} = tcg && $(uname -m) = x86_64 ]] || return 0
	[[ $BUILD/tsckhz -nt $TOP/lab/machines/tsckhz.c ]] || gcc -O2 -o "$BUILD/tsckhz" "$TOP/lab/machines/tsckhz.c"
	echo " tsc_early_khz=$("$BUILD/tsckhz")"
}

# smp_cmdline PLATFORM: what its number of CPUs needs
smp_cmdline()
{
	local needs

	needs=$(of_machine "$1" SMP_CMDLINE)
	[[ ${ACCEL:-tcg} != tcg || -z $needs ]] || echo " $needs"
}

# cmdline PLATFORM [base]: on x86 the guest's kernel does not use some of the RAM, for
# tests of memory without a struct page. Its RAM ends within a memory section, so there
# are struct pages behind that end. On the base it ends at a section's end: unpatched 6.12
# would oops.
cmdline()
{
	local common="panic=-1 oops=panic loglevel=5" mem=1856M

	[[ ${2-} != base ]] || mem=1920M
	[[ ${ACCEL-} != icount ]] || common+=" nokaslr norandmaps randomize_kstack_offset=off"
	# Only the debug kernel poisons free pages, though Debian's kernels could.
	[[ ${VARIANT-} != debug ]] || common+=" page_poison=1"
	case $1 in
	svm) common+=" mem=$mem$(tsc_early)$(smp_cmdline svm)" ;;
	vmx) common+=" mem=$mem" ;;
	*) common+=" $(kunit_args)" ;;
	esac
	echo "console=$(of_machine "$1" CONSOLE) $common $(of_machine "$1" CMDLINE)"
}

# kunit_args: the suites to run at boot; userspace can only start these again. They take a
# page out of the linear map, so the linear map must consist of pages: 6.12 calls that
# "full", later kernels "on".
kunit_args()
{
	local rodata=on

	[[ $BASE_SERIES != 6.12 ]] || rodata=full
	if [[ ${ACCEL-} = icount ]]; then
		echo "kunit.filter_glob=kvm_internal_bench"
	else
		echo "kunit.filter_glob=kvm_internal_vm* rodata=$rodata"
	fi
}

kernel_of()
{
	case $1 in
	stock|rt) echo "$STOCK/boot/vmlinuz-$KREL" ;;
	*) echo "$(kernel_dir "$@")/$(kernel_image "$1")" ;;
	esac
}

# boot PLATFORM KERNEL INITRD DIR [base]: DIR/console and DIR/ktap fill while it runs.
# Returns when the machine is off; its exit status says nothing about the guest.
boot()
{
	local platform=$1 kernel=$2 initrd=$3 dir=$4 whose=${5-}
	local -a qemu

	if in_bochs "$platform"; then
		boot_bochs "$@"
		return
	fi
	# shellcheck disable=SC2207
	qemu=($(machine "$platform"))
	command -v "${qemu[0]}" >/dev/null || die "${qemu[0]} is not installed; 'make run' and 'make test' install it"
	qemu+=(-nodefaults -display none -no-reboot -kernel "$kernel" -initrd "$initrd"
		-append "$(cmdline "$platform" "$whose")"
		-chardev "file,id=con,path=$dir/console" -serial chardev:con
		-chardev "file,id=out,path=$dir/ktap")
	# A folder to write to; make bench does not need the device.
	if [[ $platform = svm && ${ACCEL-} != icount ]]; then
		mkdir -p "$dir/share"
		qemu+=(-virtfs "local,path=$dir/share,security_model=none,mount_tag=share")
	fi
	case $(of_machine "$platform" CHANNEL) in
	ttyS1) qemu+=(-serial chardev:out) ;;
	hvc0) qemu+=(-device virtio-serial-device -device "virtconsole,chardev=out") ;;
	esac
	exec "${qemu[@]}" </dev/null >"$dir/emulator" 2>&1
}

# Bochs boots from a CD that GRUB makes. Debian's Bochs starts in its debugger:
# `c` lets it run, and `q` ends it where a reset or a triple fault stops it. The
# terminal display needs no terminal.
boot_bochs()
{
	local platform=$1 kernel=$2 initrd=$3 dir=$4 iso=$4/iso

	mkdir -p "$iso/boot/grub"
	cp "$kernel" "$iso/boot/vmlinuz"
	cp "$initrd" "$iso/boot/initrd"
	printf 'set timeout=0\nlinux /boot/vmlinuz %s\ninitrd /boot/initrd\nboot\n' \
		"$(cmdline "$platform" "${5-}")" >"$iso/boot/grub/grub.cfg"
	grub-mkrescue -o "$dir/iso.img" "$iso" >"$dir/emulator" 2>&1
	rm -rf "$iso"
	sed "s|@DIR@|$dir|g; s|@CPUS@|${CPUS:-1}|" "$TOP/lab/machines/bochsrc.in" >"$dir/bochsrc"
	printf 'c\nq\n' >"$dir/debugger"
	TERM=xterm exec bochs -q -f "$dir/bochsrc" -rc "$dir/debugger" \
		</dev/null >>"$dir/emulator" 2>&1
}

# boot_limited LIMIT PLATFORM KERNEL INITRD DIR [base]: boot, but not for longer than
# LIMIT seconds
boot_limited()
{
	local limit=$1
	shift

	limited "$limit" "$4" boot "$@"
}

# limited LIMIT DIR command...: run an emulator for at most LIMIT seconds. If the limit
# ends the emulator, DIR/console says so.
limited()
{
	local limit=$1 dir=$2 child start=$SECONDS
	shift 2

	("$@") 9>&- &
	child=$!
	while kill -0 "$child" 2>/dev/null; do
		if [[ $((SECONDS - start)) -ge $limit ]]; then
			echo "lab: time limit of $limit s reached" >>"$dir/console"
			kill -KILL "$child"
			break
		fi
		sleep 0.2
	done
	wait "$child" 2>/dev/null || :
}

verb_shell()
{
	local platform=${PLATFORM:-svm} arch dir variant
	local -a qemu

	check_input
	arch=$(platform_arch "$platform")
	! in_bochs "$platform" || die "PLATFORM=vmx runs in Bochs, which has no terminal to type at; use svm, or ACCEL=kvm on an Intel host"
	prepare "$platform" ours
	variant=$(variant_of "$platform")
	dir=$BUILD/results/shell
	mkdir -p "$dir"
	printf 'SHELL_ON=/dev/%s\n' "$(of_machine "$platform" CONSOLE)" >"$dir/initrd.job"
	job_initramfs "$platform" "$variant" ours "$dir/initrd"
	# shellcheck disable=SC2207
	qemu=($(machine "$platform"))
	note "booting ($arch, kernel $variant); ctrl-A x ends the emulator"
	"${qemu[@]}" -nodefaults -display none -no-reboot -kernel "$(kernel_of "$variant")" \
		-initrd "$dir/initrd" -append "$(cmdline "$platform")" -serial mon:stdio
}
