#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# make test-debian, with the root and what runs in it faked.
load helper

setup()
{
	lab_setup
	own_lab
	fake mmdebstrap 'exit 0'
	room 10
	fake unshare '[[ ${*: -1} != true ]] || exit 0; shift 4; exec "$@"'
	fake apt-cache 'echo " mmdebstrap | 1.3 | http://deb.debian.org/debian bookworm/main amd64 Packages"'
	fake apt-get '[[ $1 = indextargets ]] || exit 99
		echo "Debian bookworm http://deb.debian.org/debian/ bookworm main"
		echo "Debian bookworm-updates http://deb.debian.org/debian/ bookworm-updates main"
		echo "Debian bookworm-security http://deb.debian.org/debian-security/ bookworm-security main"
		echo "Docker bookworm http://docker.example.org/ bookworm stable"'
	FAKES='
	need() { :; }
	debian_host() { echo bookworm; }
	debian_root() { mkdir -p "$1/root/kvm-gpc"; }
	'
	# What the verb does in the root.
	printf '#!/bin/bash\n. %q\n' "$TMP/says" >"$TOP/lab/run/debian.root.sh"
	echo 'echo "3 passed, 0 failed, 1 skipped"' >"$TMP/says"
}

# room GIB: what is free where the lab builds
room()
{
	fake df "printf 'Filesystem 1024-blocks Used Available\nx 0 0 $(($1 << 20))\n'"
}

go()
{
	run lab "$FAKES $1"
}

@test "debian: the other release's sources are those of Debian, with the suite's name changed" {
	go 'debian_sources trixie'
	assert_success
	assert_equal "$output" "deb http://deb.debian.org/debian-security/ trixie-security main
deb http://deb.debian.org/debian/ trixie main
deb http://deb.debian.org/debian/ trixie-updates main"
}

@test "debian: the closing lines of the verbs are summed up" {
	VERBS='run test' go verb_test_debian
	assert_success
	assert_equal "${lines[-1]}" "6 passed, 0 failed, 2 skipped"
}

@test "debian: a verb without a closing line counts as one" {
	echo 'echo all checks passed' >"$TMP/says"
	VERBS='check' go verb_test_debian
	assert_success
	assert_equal "${lines[-1]}" "1 passed, 0 failed, 0 skipped"
	echo 'echo some failed; exit 2' >"$TMP/says"
	VERBS='check' go verb_test_debian
	assert_equal "$status" 1
	assert_equal "${lines[-1]}" "0 passed, 1 failed, 0 skipped"
}

@test "debian: a verb that fails is a failure though its closing line has none" {
	echo 'exit 2' >>"$TMP/says"
	go verb_test_debian
	assert_equal "$status" 1
	assert_equal "${lines[-1]}" "3 passed, 1 failed, 1 skipped"
}

@test "debian: nothing of the root is left" {
	go verb_test_debian
	assert_not_exists "$BUILD/debian/trixie/root"
	go 'debian_root() { mkdir -p "$1"; false; }; verb_test_debian'
	assert_not_exists "$BUILD/debian/trixie/root"
}

@test "debian: without root it says so, and what to type" {
	fake id 'echo 1000'
	go verb_test_debian
	bad root 'make test-debian SUITE=trixie'
}

@test "debian: where no root can be made it is a skip, loudly" {
	fake apt-cache 'exit 0'
	fake dpkg-query 'exit 1'
	go verb_test_debian
	assert_success
	assert_output --partial "*** Debian trixie is SKIPPED: apt has no mmdebstrap ***"
	assert_equal "${lines[-1]}" "0 passed, 0 failed, 1 skipped"
	fake unshare 'exit 1'
	go verb_test_debian
	assert_success
	assert_output --partial "no right to mount"
	go 'debian_obstacle() { :; }; debian_root() { echo no key >&2; false; }; verb_test_debian'
	assert_success
	assert_output --partial "SKIPPED: mmdebstrap fails"
	assert_output --partial "no key"
}

@test "debian: without room for a root it is a skip, loudly" {
	room 5
	go verb_test_debian
	assert_success
	assert_output --partial "SKIPPED: $BUILD has 5 GiB free, 6 are needed; make room"
	assert_equal "${lines[-1]}" "0 passed, 0 failed, 1 skipped"
}

@test "debian: interrupted while the root is made, it ends at once, and the root goes" {
	lab "$FAKES"'echo $$ >"$1/pid"
		debian_root() { mkdir -p "$1"; : >'"$TMP"'/there; sleep 20; }
		verb_test_debian' "$TMP" >/dev/null 2>&1 &
	child=$!
	for _ in $(seq 100); do
		[[ ! -e $TMP/there ]] || break
		sleep 0.1
	done
	SECONDS=0
	kill -TERM "$(cat "$TMP/pid")"
	wait "$child" || :
	[[ $SECONDS -lt 15 ]] || fail "it took $SECONDS s"
	assert_not_exists "$BUILD/debian/trixie/root"
}
