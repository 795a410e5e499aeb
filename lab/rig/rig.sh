# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The stock kernel under QEMU (SVM) with this machine's root as its root: over 9p, read
# only, with a tmpfs on top that takes the writes. Programs installed here run there: a
# VMM, bpftrace, dpkg. The kernel starts lab/rig/init.
#
# The script that runs in the guest has LAB, BUILD, KREL and STOCK in its environment, the
# stock kernel's modules in /lib/modules/$KREL, its headers in /usr/src, and
# lab/rig/guest.sh to load KVM.

ROOT_MEMORY=${ROOT_MEMORY:-4G}
ROOT_MODULES="9p 9pnet_virtio overlay"
ROOT_OWN="tmp run var/tmp dev/shm"	# of the guest's own, empty
ROOT_KERNEL=	# another image than the stock kernel's
ROOT_QEMU=()	# more arguments

# root_hidden: paths that the guest needs and that a folder of the guest hides. lab/rig/init
# mounts them there.
root_hidden()
{
	local own d

	for d in "$TOP" "$CACHE"; do
		for own in $ROOT_OWN; do
			[[ $d/ != "/$own/"* ]] || echo "$d"
		done
	done
}

# root_initramfs DIR SCRIPT [ARG...]: busybox, the modules that a 9p root takes, the job
root_initramfs()
{
	local dir=$1 t m
	shift

	# Debian runs depmod when it installs a kernel.
	[[ -e $STOCK/lib/modules/$KREL/modules.dep ]] || depmod -b "$STOCK" "$KREL"
	temp t "$dir/initrd.d"
	mkdir -p "$t"/{bin,lab}
	cp "$(busybox_for x86_64)" "$t/bin/busybox"
	install -m 755 "$TOP/lab/rig/init" "$t/init"
	# shellcheck disable=SC2086
	modprobe -d "$STOCK" -S "$KREL" -aD $ROOT_MODULES | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
		while read -r m; do
			m=${m##*/}
			stock_module "$STOCK/lib/modules/$KREL" "${m%%.ko*}" "$t/lab/${m%%.ko*}.ko"
			echo "${m%%.ko*}"
		done >"$t/lab/modules"
	printf '%s=%q\n' LAB "$TOP/lab" BUILD "$BUILD" KREL "$KREL" STOCK "$STOCK" \
		OWN "$ROOT_OWN" HIDDEN "$(root_hidden | xargs)" JOB "$(printf '%q ' "$@")" >"$t/lab/job"
	(cd "$t" && into "$dir/initrd" pack)
	rm -rf "$t"
}

# root_qemu DIR CMDLINE
root_qemu()
{
	local dir=$1
	local -a qemu

	# shellcheck disable=SC2207
	qemu=($(machine svm) -m "$ROOT_MEMORY")
	# TCG executes a string store byte by byte, and for each byte checks all its
	# translations of the page: clearing a page that held code takes seconds.
	[[ ${ACCEL:-tcg} = kvm ]] || qemu+=(-cpu "max,-erms,-fsrm")
	qemu+=("${ROOT_QEMU[@]}")
	exec "${qemu[@]}" -nodefaults -display none -no-reboot \
		-kernel "${ROOT_KERNEL:-$(kernel_of stock)}" -initrd "$dir/initrd" -append "$2" \
		-virtfs local,path=/,security_model=none,readonly=on,multidevs=remap,mount_tag=root \
		-chardev "file,id=con,path=$dir/console" -serial chardev:con \
		-chardev "file,id=out,path=$dir/out" -serial chardev:out \
		</dev/null >"$dir/emulator" 2>&1
}

# root_prepare: make everything that a boot needs, except KVM
root_prepare()
{
	check_accel svm
	need build svm
	stock
	mkdir -p "$BUILD/root"
	holdvm >/dev/null
}

# root_run LIMIT DIR CMDLINE SCRIPT [ARG...]: boot, run SCRIPT there as root, show its output
# as it comes (DIR/out keeps it). CMDLINE is added to the kernel's. The status is SCRIPT's,
# or 1 if the kernel complained or LIMIT seconds were not enough.
root_run()
{
	local limit=$1 dir=$2 cmdline=$3 child said rc
	shift 3

	rm -rf "$dir"
	mkdir -p "$dir"
	root_initramfs "$dir" "$@"
	: >"$dir/out"
	: >"$dir/console"
	# One CPU at first: see holdvm.c.
	limited "$limit" "$dir" root_qemu "$dir" "console=ttyS0 panic=-1 oops=panic loglevel=5 \
maxcpus=1 tsc=reliable clocksource=tsc$(tsc_early)$(smp_cmdline svm) $cmdline" &
	child=$!
	tail -n +1 -f --pid="$child" -s 0.2 "$dir/out" 2>/dev/null | sed -u 's/\r//' |
		grep --line-buffered -v '^lab: exit ' || :
	wait "$child" || :
	rm -f "$dir/initrd"
	said=$(splats svm "$dir/console")
	rc=$(tr -d '\r' <"$dir/out" | sed -n 's/^lab: exit //p')
	[[ -n $said || -z $rc ]] || return "$rc"
	{
		[[ -z $said ]] || { echo "the kernel's console:"; head -n 20 <<<"$said" | sed 's/^/  | /'; }
		echo "the console's end ($dir/console):"
		tail -n 20 "$dir/console" | sed 's/^/  | /'
		[[ ! -s $dir/emulator ]] || tail -n 5 "$dir/emulator" | sed 's/^/  | /'
	} >&2
	return 1
}
