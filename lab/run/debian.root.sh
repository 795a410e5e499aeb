#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# debian.root.sh ROOT CACHE DIR VERB: `make VERB` in ROOT, a Debian release, in mount and
# PID namespaces that end with this script. Downloads and the lab's cache are in CACHE,
# logs and results in DIR.
set -euo pipefail
root=$1 cache=$2 dir=$3 verb=$4
repo=$root/root/kvm-gpc

mount --make-rprivate /
# Programs in the root change the propagation of "/", so the root must be a mount.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/root/.cache/kvm-gpc" "$repo"/build/{logs,results}
mount --bind "$cache/kvm-gpc" "$root/root/.cache/kvm-gpc"
mount --bind "$cache/archives" "$root/var/cache/apt/archives"
mount --bind "$dir/logs" "$repo/build/logs"
mount --bind "$dir/results" "$repo/build/results"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

settings=()
for name in TESTS PLATFORM VARIANT KVER JOBS http_proxy https_proxy no_proxy; do
	[[ -z ${!name-} ]] || settings+=("$name=${!name}")
done
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=/root TERM="${TERM:-dumb}" "${settings[@]}" make -C /root/kvm-gpc --no-print-directory "$verb"
