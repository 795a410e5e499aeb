# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# What the lab's tests share: a scratch repository with a copy of the lab in it, a
# base of a few lines, a series of three patches. No network, root, QEMU or kernel.

bats_load_library bats-support
bats_load_library bats-assert
bats_load_library bats-file

LAB=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd -P)
BASE_VERSION=6.12.117-1
export LC_ALL=C

# lab_setup: TOP, BUILD, CACHE in the test's own folder. Of what the user said to
# make, and of the user's git, nothing is left; of the host, no installer.
lab_setup()
{
	# shellcheck disable=SC2046
	unset $(git rev-parse --local-env-vars)
	places "$BATS_RUN_TMPDIR/seed"
	[[ -d $TMP ]] || seed
	cp -r "$TMP/." "$BATS_TEST_TMPDIR"
	places "$(cd "$BATS_TEST_TMPDIR" && pwd -P)"
	export PATH=$BIN:$PATH
}

# lab_setup_bare: the lab in a folder of the test's own, and nothing else
lab_setup_bare()
{
	places "$BATS_TEST_TMPDIR"
	mkdir "$TOP"
	ln -s "$LAB" "$TOP/lab"
}

# own_lab: a copy of the lab, to change
own_lab()
{
	rm "$TOP/lab"
	mkdir "$TOP/lab"
	tar -C "$LAB" --exclude=./tests -c . | tar -C "$TOP/lab" -x
}

places()
{
	unset BASE PLATFORM VARIANT TESTS KVER KDIR PATCH ACCEL JOBS KERNEL_ORG KERNEL_ORG_VERSION \
		BASE_KIND BASE_GIT MAKEFLAGS MFLAGS GIT_AUTHOR_DATE GIT_COMMITTER_DATE
	TMP=$1 TOP=$1/top BUILD=$1/top/build CACHE=$1/cache/kvm-gpc BIN=$1/bin
	export HOME=$TMP/home XDG_CACHE_HOME=$TMP/cache GIT_TEMPLATE_DIR=$TMP/home
	export GIT_CONFIG_GLOBAL=$TMP/gitconfig GIT_CONFIG_NOSYSTEM=1
}

# What every test starts from is made once in a run.
seed()
{
	local tool

	mkdir -p "$BUILD/logs" "$CACHE" "$BIN" "$GIT_TEMPLATE_DIR"
	ln -s "$LAB" "$TOP/lab"
	printf '[user]\n\tname = Ann Author\n\temail = ann@example.org\n' >"$GIT_CONFIG_GLOBAL"
	for tool in apt apt-get sudo dpkg bats qemu-system-x86_64 qemu-system-aarch64 bochs; do
		fake "$tool" "echo \"the test ran $tool \$*\" >&2; exit 99"
	done
	fake dpkg-query 'echo install ok installed'
	fake df 'printf "Filesystem 1024-blocks Used Available\nx 0 0 104857600\n"'
	: >"$TMP/apt"
	fake apt-cache 'db=${BASH_SOURCE%/*}/../apt
		case $1 in
		madison) awk -v p="$2" "\$1 == p { print \" \" p \" | \" \$2 \" | http://deb.debian.org/debian bookworm/main amd64 Packages\" }" "$db" ;;
		search) awk -v re="$3" "\$1 ~ re && !seen[\$1]++ { print \$1 \" - some package\" }" "$db" ;;
		show) awk -v p="$2" "\$1 \"=\" \$2 == p { printf \"Package: %s\\nVersion: %s\\nDepends: %s\\n\", \$1, \$2, \$3 }" "$db" ;;
		esac'
	seed_series
}

# fake TOOL SCRIPT: what PATH finds for TOOL
fake()
{
	printf '#!/bin/bash\n%s\n' "$2" >"$BIN/$1"
	chmod +x "$BIN/$1"
}

# fake_apt <<<"PACKAGE VERSION [DEPENDS]"...: what apt-cache knows
fake_apt()
{
	cat >"$TMP/apt"
}

# lab CODE [ARG...]: CODE with the lab's parts sourced, as lab/lab does it
lab()
{
	bash -c 'set -euo pipefail
		eval "$(sed -n "/^PARTS=/,/\"\$/p" "$0/lab/lab")"
		for part in $PARTS; do
			. "$0/lab/$part.sh"
		done
		code=$1
		shift
		eval "$code"' "$TOP" "$@" </dev/null 3>&-
}

# verb VERB...: the real entry, as make calls it
verb()
{
	"$TOP/lab/lab" "$@" </dev/null 3>&-
}

# --- a base and a series --------------------------------------------------

# base_files DIR: a kernel of a few files
base_files()
{
	mkdir -p "$1"/{virt/kvm,arch/x86/kvm,arch/x86/include/asm,include/linux,scripts,tools/testing/selftests/kvm}
	printf 'VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\n\nmrproper:\n' >"$1/Makefile"
	echo '# Kbuild' >"$1/Kbuild"
	seq -f 'main %g' 30 >"$1/virt/kvm/kvm_main.c"
	echo 'the base'\''s cache' >"$1/virt/kvm/pfncache.c"
	seq -f 'x86 %g' 30 >"$1/arch/x86/kvm/x86.c"
	seq -f 'asm %g' 3 >"$1/arch/x86/include/asm/kvm_host.h"
	seq -f 'host %g' 30 >"$1/include/linux/kvm_host.h"
	echo '# tests' >"$1/tools/testing/selftests/kvm/Makefile"
	echo 'echo old' >"$1/scripts/old.sh"
	chmod +x "$1/scripts/old.sh"
}

# hunk FILE WORD NUMBER TEXT: a diff that replaces line "WORD NUMBER" by TEXT
hunk()
{
	local n=$3

	printf 'diff --git a/%s b/%s\n--- a/%s\n+++ b/%s\n' "$1" "$1" "$1" "$1"
	printf '@@ -%d,7 +%d,7 @@\n' $((n - 3)) $((n - 3))
	seq -f " $2 %g" $((n - 3)) $((n - 1))
	printf -- '-%s %d\n+%s\n' "$2" "$n" "$4"
	seq -f " $2 %g" $((n + 1)) $((n + 3))
}

# The base as base_import makes it; the series and the overlay, committed.
seed_series()
{
	git init -q "$TOP"
	mkdir -p "$TOP"/{patches/6.12,include/linux,virt/kvm,tools/testing/selftests/kvm}
	echo build/ >"$TOP/.gitignore"
	echo '/* the interface */' >"$TOP/include/linux/kvm_gpc.h"
	echo 'our cache' >"$TOP/virt/kvm/pfncache.c"
	echo 'echo tested' >"$TOP/tools/testing/selftests/kvm/gpc.sh"
	chmod +x "$TOP/tools/testing/selftests/kvm/gpc.sh"
	printf '# Order of the series.\n\none.patch\n  # between\ntwo.patch	# the second\n\ntests.patch\n' \
		>"$TOP/patches/6.12/series"
	{
		printf 'Subject: KVM: pfncache: Write it anew\n\nIt was slow.\n\nNow it is quick.\n\n'
		printf 'Adds: include/linux/kvm_gpc.h\nAdds: virt/kvm/pfncache.c\n---\n'
		hunk include/linux/kvm_host.h host 10 'host ten'
		hunk virt/kvm/kvm_main.c main 5 'main five'
	} >"$TOP/patches/6.12/one.patch"
	{
		printf 'Subject: KVM: x86: Use it\n\nThe clock is its first user.\n---\n'
		hunk arch/x86/kvm/x86.c x86 10 'x86 ten'
		hunk virt/kvm/kvm_main.c main 25 'main twenty-five'
	} >"$TOP/patches/6.12/two.patch"
	printf 'Subject: KVM: selftests: Test it\n\nAs a VMM would.\n\nAdds: tools/testing/selftests/kvm/gpc.sh\n' \
		>"$TOP/patches/6.12/tests.patch"
	printf 'KVM: a cache of guest pages\n\nThis series is about caches.\n\nIt is short.\n' >"$TOP/patches/cover"
	git -C "$TOP" add -A
	GIT_AUTHOR_DATE='2020-02-03T04:05:06+00:00' GIT_COMMITTER_DATE='2020-02-03T04:05:06+00:00' \
		git -C "$TOP" commit -q -m 'start'
	git -C "$TOP" repack -adq

	base_files "$TMP/src"
	lab "BASE_VERSION=$BASE_VERSION BASE_GIT=$CACHE/base/$BASE_VERSION.git; base_import $TMP/src"
}

# series_setup: BASE is the base's repository, STUB the base() that finds it
# without apt, TREE where the tree goes
series_setup()
{
	lab_setup
	BASE=$CACHE/base/$BASE_VERSION.git
	TREE=$BUILD/tree
	STUB="base() { BASE_KIND=debian BASE_VERSION=$BASE_VERSION BASE_GIT=$BASE; }; base; need() { :; };"
}

# tree_setup: the same, with build/tree as `make tree` leaves it
tree_setup()
{
	local kept=$BATS_RUN_TMPDIR/tree

	series_setup
	if [[ ! -d $kept ]]; then
		lab "$STUB tree" >/dev/null
		cp -a "$TREE" "$kept"
		return
	fi
	cp -a "$kept" "$TREE"
}

# --- claims ---------------------------------------------------------------

# bad TEXT...: it failed, and one line of error has all of TEXT
bad()
{
	local text line

	[[ $status -ne 0 ]] || fail "it should have failed:" "$output"
	line=$(grep 'error: ' <<<"$output") || fail "no error is said (status $status):" "$output"
	[[ $(wc -l <<<"$line") -eq 1 ]] || fail "more than one error:" "$output"
	for text; do
		[[ $line = *"$text"* ]] || fail "the error does not say: $text" "but:" "$output"
	done
}
