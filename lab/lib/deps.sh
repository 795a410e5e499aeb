# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Packages that the host needs, by the task that needs them.

packages_for()
{
	case $1 in
	build) echo gcc make libc6-dev bc bison flex libelf-dev libssl-dev ccache \
		rsync xz-utils zstd cpio kmod git perl python3 pahole \
		busybox-static procps util-linux file ;;
	svm)   echo qemu-system-x86 ;;
	bench) echo gnuplot-nox ;;
	demo)  echo bpftrace numactl ;;
	vmx)   echo bochs bochs-term bochsbios vgabios grub-pc-bin grub-common xorriso mtools ;;
	arm64) echo qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
	check) echo sparse shellcheck spin gcc-aarch64-linux-gnu \
		libc6-dev-arm64-cross python3-ply python3-git codespell ;;
	uefi)  echo ovmf sbsigntool openssl ;;
	bats)  echo bats bats-assert bats-file curl ;;
	dkms)  echo debhelper dh-dkms ;;
	debian) echo mmdebstrap ;;
	docs)  echo python3-sphinx graphviz ;;
	esac
}

installed()
{
	dpkg-query -W -f='${Status}\n' "$1" 2>/dev/null | grep -q '^install ok'
}

have_package()
{
	[[ -n $(apt-cache madison "$1" 2>/dev/null) ]]
}

# as_root command...: without root and sudo, print the command to type and stop
as_root()
{
	if [[ $EUID -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "not root and no sudo; as root, type: $*"
	fi
}

apt_update()
{
	[[ -z ${APT_UPDATED-} ]] || return 0
	APT_UPDATED=1
	as_root apt-get -q update
}

# need GROUP...: install what is missing
need()
{
	local group p missing=()

	command -v dpkg-query >/dev/null || return 0   # not Debian: the user's part
	for group; do
		for p in $(packages_for "$group"); do
			# Debian 12 calls it dwarves, Debian 13 pahole
			[[ $p = pahole ]] && command -v pahole >/dev/null && continue
			installed "$p" || missing+=("$p")
		done
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	have_package "${missing[0]}" ||
		step apt-update "apt-get update" apt_update
	for p in "${!missing[@]}"; do
		if [[ ${missing[p]} = pahole ]] && ! have_package pahole; then
			missing[p]=dwarves
		fi
	done
	if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null; then
		die "missing packages and no root; as root, type: apt-get install ${missing[*]}"
	fi
	step apt "install ${#missing[@]} packages" \
		as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -q install -y --no-install-recommends "${missing[@]}"
}

# Bochs is the one tool that some machines cannot install. The lab then skips the
# vmx back end, and says so.
need_bochs()
{
	command -v bochs >/dev/null && return 0
	have_package bochs || { apt_update >/dev/null 2>&1; have_package bochs; } || return 1
	need vmx
}
