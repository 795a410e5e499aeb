# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make demo: KVM with our modules runs a Linux guest on QEMU, bpftrace looks on.
# lab/demo/host runs in the rig of lab/rig/rig.sh, lab/demo/init and clock.c in its guest.

# demo_initramfs OUT: of the inner guest
demo_initramfs()
{
	local t

	temp t "$1.d"
	mkdir -p "$t/bin"
	cp "$(busybox_for x86_64)" "$t/bin/busybox"
	install -m 755 "$TOP/lab/demo/init" "$t/init"
	gcc -static -O2 -pthread -o "$t/clock" "$TOP/lab/demo/clock.c"
	stock_module "$STOCK/lib/modules/$KREL" virtio_balloon "$t/virtio_balloon.ko"
	(cd "$t" && into "$1" pack)
	rm -rf "$t"
}

verb_demo()
{
	local rc=0

	root_prepare
	need demo
	modules stock
	step demo-initramfs "make the guest's initramfs" demo_initramfs "$BUILD/root/demo.initrd"
	note "boot the host: Linux $KREL, this machine's root, our KVM"
	# Two nodes, so that the VMM's memory can move from one to the other. It starts on
	# node 0; what else runs is on node 1, for pages that had code are slow in TCG.
	root_run "${BOOT_LIMIT:-600}" "$BUILD/root/demo" numa=fake=2 \
		numactl --preferred=1 bash "$TOP/lab/demo/host" "$(modules_dir stock)" "$BUILD/root/demo.initrd" || rc=$?
	[[ $rc -eq 0 ]] || die "the demo failed; all that was said is in $BUILD/root/demo"
}
