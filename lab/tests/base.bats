#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016,SC2030,SC2031
# The base: which source, which stock kernel, and what is refused.
load helper

setup()
{
	lab_setup
	KERNEL=$TMP/linux
}

# base [SETTING...]: kind, version, release of what is chosen
base()
{
	run env "$@" bash -c "$(declare -f lab); TOP=$TOP; lab 'base; echo \"\$BASE_KIND \$BASE_VERSION \${KREL-}\"; git -C \"\$BASE_GIT\" cat-file -e base:Makefile'"
}

# have VERSION: the base of that version is in the cache
have()
{
	[[ -d $CACHE/base/$1.git ]] || cp -r "$CACHE/base/$BASE_VERSION.git" "$CACHE/base/$1.git"
}

# apt_has SOURCE... -- KERNEL...: versions; kernels as VERSION=RELEASE, newest first
apt_has()
{
	{
		while [[ $# -gt 0 && $1 != -- ]]; do
			echo "linux-source-6.12 $1"
			shift
		done
		shift
		for k; do
			echo "linux-headers-${k#*=} ${k%=*} linux-headers-common,linux-kbuild-6.12,gcc-12"
			echo "linux-image-${k#*=} ${k%=*}"
		done
	} | fake_apt
}

# --- Debian

@test "base: the newest version that has both source and stock kernel is taken" {
	apt_has 6.12.120-1 6.12.117-1 6.12.101-1 -- \
		6.12.117-1=6.12.117+deb12-amd64 6.12.101-1=6.12.101+deb12-amd64
	base
	assert_success
	assert_equal "${lines[-1]}" "debian 6.12.117-1 6.12.117+deb12-amd64"
}

@test "base: stock kernels of other flavours and series are passed over" {
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-rt-amd64 6.12.117-1=6.12.117+deb12-cloud-amd64 \
		6.12.117-1=6.1.0-50-amd64 6.12.117-1=6.12.117+deb12-amd64
	base
	assert_equal "${lines[-1]}" "debian 6.12.117-1 6.12.117+deb12-amd64"
}

@test "base: one that was chosen stays when apt learns of a newer one" {
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-amd64
	base
	assert_success
	have 6.12.120-1
	apt_has 6.12.120-1 6.12.117-1 -- 6.12.120-1=6.12.120+deb12-amd64 6.12.117-1=6.12.117+deb12-amd64
	base
	assert_equal "${lines[-1]}" "debian 6.12.117-1 6.12.117+deb12-amd64"
}

@test "base: source and stock kernel without a common version are refused, with both named" {
	apt_has 6.12.120-1 -- 6.12.117-1=6.12.117+deb12-amd64
	base
	bad 6.12.120-1 6.12.117-1 "in common"
	refute_output --partial 'the test ran'
	assert_not_exists "$BUILD/base"
}

@test "base: an apt that has no source of the series is refused" {
	fake apt-get 'exit 0'
	apt_has -- 6.12.117-1=6.12.117+deb12-amd64
	base
	bad linux-source-6.12
}

@test "base: KVER takes that kernel, and the source of its version" {
	have 6.12.101-1
	apt_has 6.12.117-1 6.12.101-1 -- \
		6.12.117-1=6.12.117+deb12-amd64 6.12.101-1=6.12.101+deb12-amd64
	base KVER=6.12.101+deb12-amd64
	assert_success
	assert_equal "${lines[-1]}" "debian 6.12.101-1 6.12.101+deb12-amd64"
}

@test "base: KVER that apt does not know is refused, with those that it knows" {
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-amd64 6.12.101-1=6.12.101+deb12-amd64
	base KVER=6.12.99-amd64
	bad KVER=6.12.99-amd64 6.12.117+deb12-amd64 6.12.101+deb12-amd64
	assert_not_exists "$BUILD/base"
}

@test "base: KVER of a version that has no source is refused, with those that have one" {
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-amd64 6.12.101-1=6.12.101+deb12-amd64
	base KVER=6.12.101+deb12-amd64
	bad KVER=6.12.101+deb12-amd64 6.12.101-1 6.12.117-1
	assert_not_exists "$BUILD/base"
}

@test "base: a stock image of another version than its headers is refused before any download" {
	fake_apt <<-'END'
	linux-source-6.12 6.12.117-1
	linux-headers-6.12.117+deb12-amd64 6.12.117-1 linux-headers-6.12.117+deb12-common,linux-kbuild-6.12.117+deb12,gcc-12
	linux-headers-6.12.117+deb12-common 6.12.117-1
	linux-kbuild-6.12.117+deb12 6.12.117-1
	linux-image-6.12.117+deb12-amd64 6.12.116-1
	END
	run lab 'stock'
	bad linux-image-6.12.117+deb12-amd64 6.12.117-1 6.12.116-1
	refute_output --partial 'the test ran'
	assert_equal "$(find "$CACHE/stock" 2>/dev/null)" ""
}

# stock_setup MODULES: apt has a stock kernel whose packages have it in MODULES
stock_setup()
{
	local rel=6.12.118+deb13-amd64

	rm -rf "$CACHE"/base/*
	mkdir -p "$CACHE/base/6.12.118-1.git"
	fake_apt <<-END
	linux-source-6.12 6.12.118-1
	linux-headers-$rel 6.12.118-1 gcc-14
	linux-image-$rel 6.12.118-1
	END
	fake gcc-14 'exit 0'
	fake apt-get 'for p; do [[ $p != *=* ]] || : >"${p%%=*}_${p#*=}_amd64.deb"; done'
	fake dpkg "case \$2 in
		*image*) mkdir -p \$3/$1/$rel/kernel ;;
		*headers*) mkdir -p \$3/usr/src/linux-headers-$rel; : >\$3/usr/src/linux-headers-$rel/Makefile ;;
		esac"
}

@test "base: a stock kernel is found in /lib of its packages, as in Debian 12, and in /usr/lib, as in 13" {
	for modules in lib/modules usr/lib/modules; do
		rm -rf "$CACHE/stock"
		stock_setup "$modules"
		run lab 'stock; ls -d "$STOCK/lib/modules/$KREL/kernel"'
		assert_success
	done
}

@test "base: a stock kernel that was kept without its modules is got again" {
	stock_setup usr/lib/modules
	mkdir -p "$CACHE/stock/6.12.118+deb13-amd64-6.12.118-1/lib/6.12.118+deb13-amd64"
	run lab 'stock; ls -d "$STOCK/lib/modules/$KREL/kernel"; ls "$STOCK/lib"'
	assert_success
	assert_equal "${lines[-1]}" modules
}

@test "base: a download that fails is an error, and nothing half-made is left" {
	rm -rf "$CACHE/base"
	fake apt-get 'echo "E: Failed to fetch http://deb.debian.org/" >&2; exit 100'
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-amd64
	base
	bad linux-source-6.12=6.12.117-1 network
	assert_not_exists "$CACHE/base/6.12.117-1.git"
}

# --- KDIR

@test "base: KDIR is copied, all of it, and not modified" {
	base_files "$KERNEL"
	before=$(cd "$KERNEL" && find . -printf '%p %m %T@\n' | sort)
	base KDIR="$KERNEL"
	assert_success
	[[ ${lines[-1]} = "kdir 6.12.117-"* ]]
	assert_equal "$(cd "$KERNEL" && find . -printf '%p %m %T@\n' | sort)" "$before"
	git clone -q "$BUILD"/kdir/*.git "$TMP/clone"
	diff -r -x .git "$KERNEL" "$TMP/clone"
}

@test "base: KDIR under git is copied without what is built in it" {
	base_files "$KERNEL"
	git -C "$KERNEL" init -q
	printf '*.o\n' >"$KERNEL/.gitignore"
	git -C "$KERNEL" add -A
	git -C "$KERNEL" commit -q -m linux
	echo built >"$KERNEL/virt/kvm/kvm_main.o"
	echo edited >>"$KERNEL/virt/kvm/kvm_main.c"
	base KDIR="$KERNEL"
	assert_success
	git clone -q "$BUILD"/kdir/*.git "$TMP/clone"
	assert_not_exists "$TMP/clone/virt/kvm/kvm_main.o"
	assert_equal "$(tail -n 1 "$TMP/clone/virt/kvm/kvm_main.c")" edited
}

@test "base: KDIR in a folder of someone else's repository is copied all the same" {
	git init -q "$TMP"
	base_files "$KERNEL"
	base KDIR="$KERNEL"
	assert_success
	git clone -q "$BUILD"/kdir/*.git "$TMP/clone"
	diff -r -x .git "$KERNEL" "$TMP/clone"
}

@test "base: KDIR that is no folder, or no kernel tree, is refused" {
	base KDIR="$TMP/none"
	bad "KDIR=$TMP/none" "no kernel tree"
	mkdir -p "$TMP/empty"
	base KDIR="$TMP/empty"
	bad "KDIR=$TMP/empty" "no kernel tree"
	assert_not_exists "$BUILD/base"
}

@test "base: KDIR without a Makefile is refused in one line" {
	base_files "$KERNEL"
	rm "$KERNEL/Makefile"
	base KDIR="$KERNEL"
	bad "KDIR=$KERNEL" "no kernel tree"
}

@test "base: KDIR of another version is refused, with both named" {
	base_files "$KERNEL"
	for v in '6 1 150' '6 13 0' '5 12 9' '6 120 1'; do
		read -r a b c <<<"$v"
		printf 'VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = %s\n' "$a" "$b" "$c" >"$KERNEL/Makefile"
		base KDIR="$KERNEL"
		bad "KDIR=$KERNEL" "$a.$b.$c" 6.12
	done
	assert_not_exists "$BUILD/base"
	assert_not_exists "$BUILD/kdir"
}

@test "base: KDIR with a change in what the series touches is another base" {
	base_files "$KERNEL"
	seen=
	for f in '' virt/kvm/kvm_main.c arch/x86/kvm/x86.c include/linux/kvm_host.h \
		arch/x86/include/asm/kvm_host.h tools/testing/selftests/kvm/Makefile; do
		[[ -z $f ]] || echo changed >>"$KERNEL/$f"
		base KDIR="$KERNEL"
		assert_success
		[[ $seen != *" ${lines[-1]} "* ]] || fail "a change in $f makes no new base"
		seen+=" ${lines[-1]} "
	done
}

@test "base: KDIR without a stock kernel says what to use" {
	base_files "$KERNEL"
	KDIR=$KERNEL run lab 'base >/dev/null; stock'
	bad 'kdir' VARIANT=debug
}

@test "base: another base than the last time makes build/ anew, and is there itself" {
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-amd64
	base
	mkdir -p "$BUILD/stock"
	base_files "$KERNEL"
	base KDIR="$KERNEL"
	assert_success
	assert_not_exists "$BUILD/stock"
	assert_equal "$(cut -c1-14 "$BUILD/base")" "kdir 6.12.117-"
	mkdir -p "$BUILD/x86_64"
	base KDIR="$KERNEL"
	assert_success
	[[ -d $BUILD/x86_64 ]]
}

@test "base: another base is refused while the tree has edits" {
	STUB="name_debian() { BASE_KIND=debian BASE_VERSION=\$V BASE_GIT=$CACHE/base/$BASE_VERSION.git; };"
	V=$BASE_VERSION run lab "$STUB base; tree"
	assert_success
	echo mine >>"$BUILD/tree/Kbuild"
	V=6.12.120-1 run lab "$STUB base"
	bad Kbuild
	assert_equal "$(tail -n 1 "$BUILD/tree/Kbuild")" mine
}

@test "base: in a checkout that was moved, what is built is built anew, but for the tree" {
	apt_has 6.12.117-1 -- 6.12.117-1=6.12.117+deb12-amd64
	base
	assert_success
	mkdir -p "$BUILD/stock" "$BUILD/tree"
	base
	assert_success
	[[ -d $BUILD/stock ]]
	mv "$TOP" "$TMP/moved"
	TOP=$TMP/moved
	base
	assert_success
	assert_output --partial "$TMP/moved"
	assert_not_exists "$TOP/build/stock"
	[[ -d $TOP/build/tree ]]
}

# --- kernel.org, and the import itself

@test "base: without apt it is the tarball of kernel.org" {
	base_files "$TMP/linux-6.12.74"
	tar -C "$TMP" -cJf "$TMP/linux-6.12.74.tar.xz" linux-6.12.74
	run env KERNEL_ORG="file://$TMP" KERNEL_ORG_VERSION=6.12.74 bash -c "$(declare -f lab); TOP=$TOP
		lab 'name_tarball; base_from_tarball; git -C \"\$BASE_GIT\" show base:virt/kvm/pfncache.c'"
	assert_success
	assert_output --partial "the base's cache"
}

@test "base: of drivers that no kernel here has it keeps what Kconfig reads" {
	base_files "$TMP/linux-6.12.74"
	mkdir -p "$TMP/linux-6.12.74/drivers/gpu/drm/x" "$TMP/linux-6.12.74/include/drm"
	touch "$TMP/linux-6.12.74/drivers/gpu/drm/x/"{x.c,x.h,Kconfig,Makefile} "$TMP/linux-6.12.74/include/drm/drm.h"
	tar -C "$TMP" -cJf "$TMP/linux-6.12.74.tar.xz" linux-6.12.74
	run env KERNEL_ORG="file://$TMP" KERNEL_ORG_VERSION=6.12.74 bash -c "$(declare -f lab); TOP=$TOP
		lab 'name_tarball; base_from_tarball; git -C \"\$BASE_GIT\" ls-tree -r --name-only base'"
	assert_success
	assert_output --partial drivers/gpu/drm/x/Kconfig
	assert_output --partial drivers/gpu/drm/x/Makefile
	assert_output --partial include/drm/drm.h
	refute_output --partial drivers/gpu/drm/x/x.
}

@test "base: a tarball that cannot be had is an error that names it, and leaves nothing" {
	run env KERNEL_ORG="file://$TMP/none" KERNEL_ORG_VERSION=6.12.74 bash -c "$(declare -f lab); TOP=$TOP
		lab 'name_tarball; step base get base_from_tarball'"
	bad "file://$TMP/none/linux-6.12.74.tar.xz" network
	assert_not_exists "$CACHE/base/6.12.74.git"
	assert_not_exists "$CACHE/base.tmp"
}

@test "base: an import that was interrupted is not taken for a base" {
	base_files "$KERNEL"
	mkdir -p "$CACHE/base/x.git.tmp"
	echo half >"$CACHE/base/x.git.tmp/HEAD"
	run lab 'BASE_VERSION=x BASE_GIT=$CACHE/base/x.git; commit_tree() { exit 7; }; base_import "$1"' "$KERNEL"
	[[ $status -ne 0 ]]
	assert_not_exists "$CACHE/base/x.git"
	run lab 'BASE_VERSION=x BASE_GIT=$CACHE/base/x.git; base_import "$1"; git -C "$BASE_GIT" show base:Kbuild' "$KERNEL"
	assert_success
	assert_not_exists "$CACHE/base/x.git.tmp"
}

@test "base: the import takes ignored files, exec bits and line ends as they are" {
	base_files "$KERNEL"
	printf '*.c\n' >"$KERNEL/.gitignore"
	printf 'a\r\n' >"$KERNEL/crlf.txt"
	git config --global core.autocrlf input
	lab 'BASE_VERSION=x BASE_GIT=$CACHE/base/x.git; base_import "$1"' "$KERNEL"
	assert_equal "$(git -C "$CACHE/base/x.git" show base:crlf.txt | od -An -tx1)" ' 61 0d 0a'
	assert_equal "$(git -C "$CACHE/base/x.git" ls-tree base:scripts | awk '{ print $1 }')" 100755
	assert_equal "$(git -C "$CACHE/base/x.git" show base:virt/kvm/kvm_main.c | head -n 1)" "main 1"
}
