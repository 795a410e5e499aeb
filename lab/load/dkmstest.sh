#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# dkmstest.sh DIR DEB KREL STOCK HEADERS_DEB...: DKMS installs the package DEB as it does
# on a user's machine: first there are no headers, then they come with "a kernel update".
# The test runs on this machine, since the compiler is too slow in the lab's guest. It uses a
# mount namespace, with this root under a tmpfs that takes the writes. DIR/installed.tar gets
# these files; with them the guest becomes the machine on which the package was installed.
set -uo pipefail
# shellcheck source=/dev/null
. "${BASH_SOURCE%/*}/../guest/tap.sh"
dir=$1 deb=$2 KREL=$3 STOCK=$4
shift 4
headers=("$@")
export LC_ALL=C DEBIAN_FRONTEND=noninteractive TAP_SAID=$dir/dkms.log
root=$dir/root
ours=$root/lib/modules/$KREL/updates/dkms

# overlay LOWER NAME WHERE
overlay()
{
	mkdir -p "$dir/rw/$2/upper" "$dir/rw/$2/work" "$3" &&
		mount -t overlay -o "lowerdir=$1,upperdir=$dir/rw/$2/upper,workdir=$dir/rw/$2/work" "$2" "$3"
}

make_root()
{
	mount --make-rprivate /
	mkdir -p "$dir/rw" "$root"
	mount -t tmpfs rw "$dir/rw"
	overlay / root "$root"
	overlay "$STOCK/lib/modules/$KREL" modules "$root/lib/modules/$KREL"
	mount --bind /dev "$root/dev"
	mount -t proc proc "$root/proc"
	mount -t tmpfs tmp "$root/tmp"
	# The cache may be a mount, which the overlay does not have.
	mkdir "$root/tmp/headers"
	mount --bind "$STOCK/usr/src/linux-headers-$KREL" "$root/tmp/headers"
	# Nothing is started.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
}

in_root()
{
	chroot "$root" "$@"
}

install_package()
{
	cp "$deb" "$root/tmp/"
	in_root apt-get -q install -y --no-install-recommends dkms linux-base "/tmp/${deb##*/}"
	in_root dkms status kvm-gpc | grep added
	[[ ! -e $ours ]]
}

# kernel_comes RELEASE: run the hook of its headers' package
kernel_comes()
{
	mkdir -p "$root/lib/modules/$1"
	ln -s /tmp/headers "$root/lib/modules/$1/build"
	in_root run-parts --report --exit-on-error --arg="$1" /etc/kernel/header_postinst.d
}

# A kernel that the package is not for: the hook succeeds (else apt would stop), and nothing
# is built.
other_kernel()
{
	local rel=$1

	kernel_comes "$rel"
	[[ $(in_root dkms status kvm-gpc -k "$rel") != *installed* ]]
	[[ ! -e $root/lib/modules/$rel/updates ]]
	rm -r "$root/lib/modules/$rel"
}

# If the user overrides that, DKMS begins to build, which is enough here.
override()
{
	local rel=6.12.999+deb12-amd64

	touch "$root/etc/dkms/kvm-gpc-any"
	echo 'MAKE[0]="touch /tmp/tried; false"' >"$root/etc/dkms/kvm-gpc.conf"
	refuses 'Bad return status' -- kernel_comes $rel
	[[ -e $root/tmp/tried ]]
	rm -r "$root"/etc/dkms/kvm-gpc{-any,.conf} "$root/lib/modules/$rel"
}

# The modules of the image are already present.
install_headers()
{
	cp "${headers[@]}" "$root/tmp/"
	in_root dpkg --force-depends -i "${headers[@]/#*\//\/tmp\/}"
	# DKMS of Debian 13 adds in parentheses that it keeps Debian's modules.
	in_root dkms status kvm-gpc | grep -e "$KREL.*installed$" -e "$KREL.*installed ("
}

modules_are_found()
{
	local m f

	for m in kvm kvm-amd kvm-intel; do
		f=$(in_root modinfo -k "$KREL" -F filename $m)
		[[ $f = */updates/dkms/$m.ko* ]] || { echo "$m is $f"; return 1; }
	done
}

# In their place, or in DKMS's store (Debian 13), from where the removal puts them back.
debians_are_kept()
{
	local m f

	for m in kvm kvm-amd kvm-intel; do
		f=$root/lib/modules/$KREL/kernel/arch/x86/kvm/$m.ko.xz
		[[ -e $f ]] || f=$root/var/lib/dkms/kvm-gpc/original_module/$KREL/x86_64/$m.ko.xz
		cmp "$STOCK/lib/modules/$KREL/kernel/arch/x86/kvm/$m.ko.xz" "$f"
	done
}

signed_with_mok()
{
	[[ -s $root/var/lib/dkms/mok.pub ]]
	in_root modinfo -k "$KREL" -F signer kvm | grep 'DKMS module signing key'
}

# Without the headers: the guest has those of the cache. Whiteouts, the overlay's record of
# what was removed, cannot be unpacked: `removed` lists the files.
pack()
{
	local modules=$dir/rw/modules/upper

	tar -C "$dir/rw/root/upper" --exclude=./usr/src/linux-* --exclude=./usr/lib/linux-kbuild-* \
		--exclude=./usr/lib/modules --exclude=./var/cache --exclude=./usr/sbin/policy-rc.d \
		-cf "$dir/installed.tar" .
	find "$modules" -type c -printf '%P\n' >"$dir/removed"
	tar -C "$modules" --exclude-from="$dir/removed" -cf "$dir/modules.tar" .
}

rm -f "$TAP_SAID"
plan 9
t "a root to install in" make_root
t "the package installs where there are no headers yet" install_package
t "a 6.1 kernel comes: nothing is built, and apt goes on" other_kernel 6.1.0-99-amd64
t "a 6.12 that nothing is known of comes: nothing is built, and apt goes on" \
	other_kernel 6.12.999+deb12-amd64
t "but DKMS builds where the user says so" override
t "headers of the kernel come: DKMS builds and installs" install_headers
t "modprobe finds ours" modules_are_found
t "Debian's modules are kept" debians_are_kept
t "DKMS has signed them with its own key" signed_with_mok
pack
done_
