# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make demo: a Linux guest and its nested guest run on our KVM modules under QEMU, while
# bpftrace traces. lab/demo/host runs in the rig of lab/rig/rig.sh, lab/demo/init and
# clock.c in its guest, lab/demo/nested.c in the nested guest.

# demo_initramfs OUT: the guest's initramfs
demo_initramfs()
{
	local t m

	temp t "$1.d"
	mkdir -p "$t"/{bin,modules}
	cp "$(busybox_for x86_64)" "$t/bin/busybox"
	install -m 755 "$TOP/lab/demo/init" "$t/init"
	gcc -static -O2 -pthread -o "$t/clock" "$TOP/lab/demo/clock.c"
	cp "$(holdvm)" "$t/"
	for m in virtio_balloon netfs 9pnet 9pnet_virtio 9p irqbypass ccp kvm kvm-amd; do
		stock_module "$STOCK/lib/modules/$KREL" "$m" "$t/modules/$m.ko"
		echo "$m"
	done >"$t/modules/order"
	(cd "$t" && into "$1" pack)
	rm -rf "$t"
}

# demo_nested DIR: kernel and initramfs of the nested guest. The kernel is uncompressed: the
# nested guest would decompress the image for half a minute.
demo_nested()
{
	local t

	mkdir -p "$1"
	into "$1/vmlinux" "$TREE/scripts/extract-vmlinux" "$(kernel_of stock)"
	temp t "$1/initrd.d"
	mkdir -p "$t/dev"
	gcc -static -O2 -o "$t/init" "$TOP/lab/demo/nested.c"
	(cd "$t" && into "$1/initrd" pack)
	rm -rf "$t"
}

verb_demo()
{
	local rc=0

	root_prepare
	need demo
	modules stock
	step demo-initramfs "make the guest's initramfs" demo_initramfs "$BUILD/root/demo.initrd"
	step demo-nested "make the nested guest's kernel and initramfs" demo_nested "$BUILD/root/nested"
	note "boot the host: Linux $KREL, this machine's root, our KVM"
	# Two nodes, so that the VMM's memory can move between them. It starts on node 0;
	# everything else runs on node 1, since pages that held code are slow in TCG.
	root_run "${BOOT_LIMIT:-600}" "$BUILD/root/demo" numa=fake=2 \
		numactl --preferred=1 bash "$TOP/lab/demo/host" "$(modules_dir stock)" "$BUILD/root/demo.initrd" "$BUILD/root/nested" || rc=$?
	[[ $rc -eq 0 ]] || die "the demo failed; its whole output is in $BUILD/root/demo"
}
