#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# Bad input: one clear error, a non-zero exit, before anything is done.
load helper

setup()
{
	lab_setup
	# Nothing may get as far as asking for a base.
	fake apt-cache 'echo "the test ran apt-cache $*" >&2; exit 99'
	fake curl 'echo "the test ran curl $*" >&2; exit 99'
}

# refused TEXT...: in one line, and nothing was run or built
refused()
{
	bad "$@"
	refute_output --partial "the test ran"
	refute_output --partial FAILED
	assert_equal "$(find "$BUILD" -mindepth 1 ! -name .lock ! -name logs)" ""
}

verbs()
{
	sed -n 's/^VERBS := //p' "$LAB/../Makefile"
}

@test "input: an unknown verb" {
	run verb frobnicate
	refused frobnicate
}

@test "input: no verb is help, which names every verb of the Makefile" {
	run verb
	assert_success
	for v in $(verbs); do
		[[ $v = help || $output = *"make $v "* ]] || fail "help has no $v"
	done
}

@test "input: the Makefile's verbs are verbs of the lab" {
	for v in $(verbs); do
		grep -qE "^$v\)" "$TOP/lab/lab" || fail "lab/lab has no $v"
	done
}

@test "input: an unknown PLATFORM of run" {
	PLATFORM=sparc run verb run
	refused PLATFORM=sparc "svm vmx vhe nvhe"
}

@test "input: an unknown PLATFORM of shell" {
	PLATFORM=sparc run verb shell
	refused PLATFORM=sparc
}

@test "input: an unknown PLATFORM among those of test" {
	PLATFORM="svm sparc" run verb test
	refused PLATFORM=sparc
}

@test "input: an unknown PLATFORM among those of base-test" {
	PLATFORM="svm sparc" run verb base-test
	refused PLATFORM=sparc
}

@test "input: an unknown ACCEL" {
	ACCEL=xen run verb run
	refused ACCEL=xen
	ACCEL=xen run verb test
	refused ACCEL=xen
}

@test "input: ACCEL=kvm for another machine's CPU" {
	fake uname 'echo x86_64'
	ACCEL=kvm PLATFORM=vhe run verb run
	refused ACCEL=kvm /dev/kvm vhe ACCEL=tcg
}

@test "input: unknown TESTS of run, test and base-test" {
	for v in run test base-test; do
		TESTS="steal_time no_such_test" run verb "$v"
		refused no_such_test
	done
}

@test "input: unknown TESTS and PLATFORM of test-debug, test-kcsan and test-rt" {
	for v in debug kcsan rt; do
		TESTS="steal_time no_such_test" run verb "test-$v"
		refused no_such_test
		PLATFORM=sparc run verb "test-$v"
		refused PLATFORM=sparc
	done
}

@test "input: TESTS are names, not patterns" {
	TESTS="steal.time" run verb run
	refused steal.time
}

@test "input: TESTS that do not run on PLATFORM" {
	run lab 'need() { :; }; prepare() { BASE_KIND=debian; }; run_on() { echo BOOTED; }
		PLATFORM=svm TESTS=psci_test; verb_run'
	bad TESTS svm
	refute_output --partial BOOTED
}

# Refusals that want a base first.
variants()
{
	run lab 'need() { :; }; base() { BASE_KIND=debian BASE_VERSION=6.12.117-1; }
		step() { echo "DID $2"; }; stock() { echo "DID stock"; }; tree() { echo "DID tree"; }
		kernel() { echo "DID kernel $*"; }; modules_sync() { echo "DID sync"; }
		modules_make() { echo "DID make"; }; run_on() { echo "DID boot"; }; '"$1"
}

@test "input: unknown STEPS" {
	STEPS=first run verb check
	refused STEPS=first "all or last"
}

@test "input: an unknown VARIANT of run" {
	VARIANT=fast variants verb_run
	bad VARIANT=fast stock debug
	refute_output --partial DID
}

@test "input: an unknown VARIANT of test" {
	VARIANT=fast variants 'lab_tests() { :; }; verb_test'
	bad VARIANT=fast stock debug
	refute_output --partial DID
}

@test "input: a VARIANT of the other architecture" {
	VARIANT=arm64 variants 'variant_of svm'
	bad VARIANT=arm64
	VARIANT=stock variants 'variant_of vhe'
	bad VARIANT=stock
	VARIANT=stock variants 'variant_of nvhe'
	bad VARIANT=stock
}

@test "input: a VARIANT of the other architecture ends run and test" {
	VARIANT=arm64 variants verb_run
	bad VARIANT=arm64
	refute_output --partial DID
	VARIANT=stock PLATFORM=vhe variants 'lab_tests() { :; }; verb_test'
	bad VARIANT=stock
	refute_output --partial DID
}

@test "input: a VARIANT that has no modules" {
	for v in debug kcsan arm64 fast ..; do
		VARIANT=$v variants verb_modules
		bad "VARIANT=$v"
		refute_output --partial DID
	done
}

@test "input: each VARIANT that there is, by its folder" {
	run lab 'BASE_KIND=debian; for v in "" stock rt debug kcsan; do VARIANT=$v; variant_of svm; done
		for v in "" arm64 rt debug kcsan 16k 64k; do VARIANT=$v; variant_of vhe; done
		VARIANT= BASE_KIND=tarball; variant_of svm'
	assert_equal "$(xargs <<<"$output")" \
		"stock stock rt debug.x86_64 kcsan.x86_64 arm64 arm64 rt.arm64 debug.arm64 kcsan.arm64 16k.arm64 64k.arm64 x86_64"
}

@test "input: another make that runs" {
	mkdir -p "$BUILD"
	exec 8>"$BUILD/.lock"
	flock -n 8
	run verb clean
	bad another
	exec 8>&-
	run verb clean
	assert_success
}

@test "input: too little disk space" {
	fake df 'printf "Filesystem 1024-blocks Used Available\nx 0 0 1048576\n"'
	run lab 'need_space "$CACHE" 6'
	bad "$CACHE" "1 GiB" XDG_CACHE_HOME
	run lab 'need_space "$CACHE" 1'
	assert_success
}

@test "input: a cache that cannot be made" {
	echo file >"$TMP/file"
	XDG_CACHE_HOME=$TMP/file run verb clean
	bad "$TMP/file"
}

@test "input: missing packages without root or sudo are said as one command" {
	fake dpkg-query 'exit 1'
	fake apt-cache 'echo " x | 1 | y"'
	rm "$BIN/sudo"
	for t in bash awk env grep sed cat tail head sleep nproc pgrep cut dirname; do
		ln -sf "$(type -P "$t")" "$BIN/$t"
	done
	# As another user, where the test runs as root: EUID is read-only.
	sed 's/\$EUID/1000/g' "$LAB/lib/deps.sh" >"$TMP/deps.sh"
	PATH=$BIN run lab '. "$1"; need svm' "$TMP/deps.sh"
	bad "apt-get install qemu-system-x86"
	refute_output --partial "the test ran"
}

@test "input: an emulator that is not there" {
	rm "$BIN/qemu-system-x86_64"
	for t in bash env sed nproc pgrep cut tr cat; do
		ln -sf "$(type -P "$t")" "$BIN/$t"
	done
	PATH=$BIN run lab 'boot svm k i "$TMP_DIR"'
	[[ $status -ne 0 ]]
	TMP_DIR=$TMP PATH=$BIN run lab 'boot svm k i "$TMP_DIR"'
	bad qemu-system-x86_64
}
