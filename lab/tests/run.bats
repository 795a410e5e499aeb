#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# make run, make test, make base-test, with the building and booting faked.
load helper

setup()
{
	lab_setup
	own_lab
	cat >"$TOP/lab/run/tests.list" <<-'END'
	# A list of the tests' own.
	gpc_clock_test    svm,vmx
	gpc_hva_test      svm,vmx    -i 2 -I 10
	steal_time        svm,vmx,vhe,nvhe   # everywhere
	kvm_pv_test       svm,vmx

	psci_test         vhe,nvhe
	hypercalls        vhe,nvhe
	page_fault_test   nvhe
	END
	# boot writes what $TMP/PLATFORM.ktap and .console hold, or that all passed.
	FAKES='
	sleep() { command sleep 0.01; }
	need() { :; }
	need_bochs() { [[ ! -e '$TMP'/no-bochs ]]; }
	base() { BASE_KIND=debian BASE_VERSION='$BASE_VERSION'; }
	modules() { :; }; stock() { :; }; kernel() { :; }; selftests() { :; }; initramfs() { :; }
	job_initramfs() { :; }
	kernel_of() { :; }
	lab_tests() { mkdir -p "$BUILD/results/lab"; printf "lab\tlab: a\tpass\t\n" >"$BUILD/results/lab/results"; }
	boot() {
		local t n=0 dir=$4

		echo "$1: $(. "$dir/initrd.job"; echo $TESTS)" >>'$TMP'/boots
		{
			for t in $(. "$dir/initrd.job"; echo "$TESTS"); do
				n=$((n + 1))
				echo "ok $n selftests: kvm: $t"
			done
			echo "# lab: done"
		} >"$dir/ktap"
		[[ ! -e '$TMP'/$1.ktap ]] || cp '$TMP'/$1.ktap "$dir/ktap"
		[[ ! -e '$TMP'/$1.console ]] || cp '$TMP'/$1.console "$dir/console"
	}
	'
}

# go CODE: with the fakes
go()
{
	run lab "$FAKES $1"
}

# closing LINE: the last line is this
closing()
{
	assert_equal "${lines[-1]}" "$1"
}

boots()
{
	sort "$TMP/boots" 2>/dev/null
}

@test "run: boots svm with the series' tests, and passes" {
	go verb_run
	assert_success
	assert_equal "$(boots)" "svm: gpc_clock_test gpc_hva_test"
	closing "2 passed, 0 failed, 0 skipped"
}

@test "run: shows the results as they come" {
	TESTS='steal_time kvm_pv_test' go verb_run
	assert_output --partial "ok 1 selftests: kvm: steal_time"
	assert_output --partial "ok 2 selftests: kvm: kvm_pv_test"
}

@test "run: TESTS and PLATFORM say what and where" {
	TESTS='psci_test hypercalls' PLATFORM=nvhe go verb_run
	assert_success
	assert_equal "$(boots)" "nvhe: psci_test hypercalls"
	closing "2 passed, 0 failed, 0 skipped"
}

@test "run: a failed test fails it, and the console's end is shown" {
	printf 'not ok 1 selftests: kvm: steal_time # exit=254\n# lab: done\n' >"$TMP/svm.ktap"
	echo 'last words' >"$TMP/svm.console"
	TESTS=steal_time go verb_run
	assert_equal "$status" 1
	assert_output --partial "steal_time on svm: fail"
	assert_output --partial "last words"
	assert_output --partial "0 passed, 1 failed, 0 skipped"
}

@test "run: a failed assertion is shown whole, and once more as the last thing" {
	printf '%s\n' '# selftests: kvm: steal_time' '# TAP version 13' '# 1..1' \
		'# ==== Test Assertion Failure ====' '#   steal_time.c:7: !r' '#   pid=1 tid=2 errno=4 - x' \
		'#   KVM_RUN: x' '# not ok 1 steal.a' 'not ok 1 selftests: kvm: steal_time # exit=1' \
		'# lab: done' >"$TMP/svm.ktap"
	go 'TESTS=steal_time verb_run'
	[ "$status" -ne 0 ]
	assert_output --partial '#   steal_time.c:7: !r'
	assert_output --partial '#   KVM_RUN: x'
	closing '  steal_time: steal.a: KVM_RUN: x'
}

@test "run: a splat fails it though every test passed, and is shown" {
	printf '[    9.0] WARNING: CPU: 1 PID: 2 at virt/kvm/pfncache.c:1 kvm_gpc_x+0x1/0x2\r\n' >"$TMP/svm.console"
	TESTS=steal_time go verb_run
	assert_equal "$status" 1
	assert_output --partial "kernel splat on svm: fail"
	assert_output --partial "pfncache.c:1"
	assert_output --partial "1 passed, 1 failed, 0 skipped"
}

@test "run: a flood of splats fails it like one" {
	yes '[    9.0] WARNING: CPU: 1 PID: 2 at virt/kvm/pfncache.c:1 kvm_gpc_x+0x1/0x2' | head -n 20000 >"$TMP/svm.console"
	TESTS=steal_time go verb_run
	assert_equal "$status" 1
	assert_output --partial "1 passed, 1 failed, 0 skipped"
	[[ ${#lines[@]} -lt 100 ]]
}

@test "run: a guest that dies fails it" {
	: >"$TMP/svm.ktap"
	TESTS=steal_time go verb_run
	assert_equal "$status" 1
	assert_output --partial "0 passed, 2 failed, 0 skipped"
}

@test "run: results of the last time are not taken for this one's" {
	TESTS=steal_time go verb_run
	assert_success
	TESTS=steal_time go 'boot() { :; }; verb_run'
	[[ $status -ne 0 ]]
	refute_output --partial "1 passed"
}

@test "run: a build step that fails ends it, whatever it would do next" {
	go 'work() { false; echo went on; }; modules() { step modules "build" work; echo BUILT; }; verb_run'
	[[ $status -ne 0 ]]
	assert_output --partial FAILED
	refute_output --partial BUILT
	assert_equal "$(boots)" ""
}

@test "run: what was built stays when the boot fails, and is not built again" {
	MAKES='modules() { [[ -e $BUILD/stock/kvm.ko ]] || step modules "build the modules" build; }
		build() { mkdir -p "$BUILD/stock"; : >"$BUILD/stock/kvm.ko"; };'
	TESTS=steal_time go "$MAKES"'job_initramfs() { die "no such module"; }; verb_run'
	[[ $status -ne 0 ]]
	assert_output --partial "no such module"
	assert_output --partial "build the modules"
	TESTS=steal_time go "$MAKES verb_run"
	assert_success
	refute_output --partial "build the modules"
}

@test "run: an error between the steps ends it" {
	go 'modules() { false; echo BUILT; }; verb_run'
	[[ $status -ne 0 ]]
	refute_output --partial BUILT
	assert_equal "$(boots)" ""
}

@test "run: without Bochs vmx is refused" {
	touch "$TMP/no-bochs"
	PLATFORM=vmx go verb_run
	bad Bochs vmx
	assert_equal "$(boots)" ""
}

@test "run: a boot ends at its time limit, which fails it" {
	mkdir -p "$TMP/r"
	go 'boot() { echo $BASHPID >'"$TMP"'/pid; exec sleep 60; }; boot_limited 1 svm k i "$1"' "$TMP/r"
	run lab "$FAKES"'boot() { echo $BASHPID >"$4/pid"; exec sleep 60; }; boot_limited 1 svm k i "$1"; splats svm "$1/console"' "$TMP/r"
	assert_success
	assert_output --partial "time limit"
	! kill -0 "$(cat "$TMP/r/pid")" 2>/dev/null || fail "it still runs"
}

@test "run: Bochs has more time than QEMU, and a kernel that checks itself, too" {
	run lab 'BASE_KIND=debian; VARIANT=stock; test_limit svm; boot_limit svm; test_limit vmx
		VARIANT=debug; test_limit svm; boot_limit vhe; VARIANT=rt; boot_limit vmx; boot_limit vhe'
	assert_equal "$(xargs <<<"$output")" "300 900 600 900 3600 1500 3600"
}

@test "run: a test's arguments reach the guest under kselftest's name" {
	run lab 'job svm 300 gpc_hva_test steal_time'
	assert_output --partial "export KSELFTEST_GPC_HVA_TEST_ARGS='-i 2 -I 10'"
	assert_output --partial "TESTS='gpc_hva_test steal_time'"
	assert_output --partial TIMEOUT=300
	refute_output --partial STEAL_TIME
}

@test "run: a test is for its back ends only, in the list's order" {
	run lab 'for p in svm vmx vhe nvhe; do tests_on "$p" | xargs; done; tests_of arm64 | xargs'
	assert_equal "$output" "gpc_clock_test gpc_hva_test steal_time kvm_pv_test
gpc_clock_test gpc_hva_test steal_time kvm_pv_test
steal_time psci_test hypercalls
steal_time psci_test hypercalls page_fault_test
steal_time psci_test hypercalls page_fault_test gpc_bench internal_vm_bench"
}

@test "run: a test that Bochs cannot run is a skip there, with the reason" {
	echo '!bochs/vmx kvm_pv_test Bochs hangs' >>"$TOP/lab/run/tests.list"
	PLATFORM=vmx TESTS='steal_time kvm_pv_test' go verb_test
	assert_success
	assert_equal "$(boots)" "vmx: steal_time"
	assert_output --partial "kvm_pv_test on vmx: skip: Bochs hangs"
	closing "1 passed, 0 failed, 1 skipped"
}

@test "run: a test that a kernel cannot run is a skip there, with the reason" {
	echo '!debug/svm kvm_pv_test takes hours' >>"$TOP/lab/run/tests.list"
	VARIANT=debug PLATFORM=svm TESTS='steal_time kvm_pv_test' go verb_run
	assert_success
	assert_equal "$(boots)" "svm: steal_time"
	assert_output --partial "kvm_pv_test on svm: skip: takes hours"
	closing "1 passed, 0 failed, 1 skipped"

	TESTS='steal_time kvm_pv_test' go verb_run
	closing "2 passed, 0 failed, 0 skipped"
}

@test "run: a test that Bochs cannot run is nothing where TESTS do not ask for it" {
	echo '!bochs/vmx kvm_pv_test Bochs hangs' >>"$TOP/lab/run/tests.list"
	PLATFORM=vmx TESTS=steal_time go verb_test
	closing "1 passed, 0 failed, 0 skipped"
}

@test "run: the list that there is names back ends, and each test once" {
	assert_equal "$(sed 's/#.*//; /^\([0-9.]*:\)\?!/d; /^[[:space:]]*$/d' "$LAB/run/tests.list" |
		awk '$2 !~ /^(svm|vmx|vhe|nvhe|n1)(,(svm|vmx|vhe|nvhe|n1))*$/ || seen[$1]++')" ""
}

# --- make test

@test "run: test boots all four back ends, adds the lab's tests, and passes" {
	go verb_test
	assert_success
	assert_equal "$(boots | cut -d: -f1 | xargs)" "nvhe svm vhe vmx"
	assert_equal "$(grep -E '^test ' <<<"$output" | xargs)" "test svm vmx vhe nvhe lab"
	[[ ${lines[-1]} = *" passed, 0 failed, "* ]]
}

@test "run: test runs the lab's tests beside the boots" {
	go 'eval "passed_$(declare -f lab_tests)"
		lab_tests() {
			for _ in $(seq 100); do
				[[ ! -s '"$TMP"'/boots ]] || { passed_lab_tests; return; }
				command sleep 0.1
			done
			return 1
		}
		verb_test'
	assert_success
	assert_output --partial "lab: a"
}

@test "run: test boots svm last, when the lab's tests have ended" {
	go 'eval "passed_$(declare -f lab_tests)"
		lab_tests() {
			# Until all others have booted, then longer than svm would take.
			for _ in $(seq 300); do
				! grep -q "nvhe\|svm" '"$TMP"'/boots || break
				command sleep 0.1
			done
			for _ in $(seq 30); do
				! grep -q svm '"$TMP"'/boots || break
				command sleep 0.1
			done
			passed_lab_tests
			echo "lab: a" >>'"$TMP"'/boots
		}
		verb_test'
	assert_success
	run cut -d: -f1 "$TMP/boots"
	assert_output $'vmx\nvhe\nnvhe\nlab\nsvm'
}

@test "run: test takes the lab's results though the shell has forgotten their PID" {
	go 'kernel() { wait; }; verb_test'
	assert_success
	assert_output --partial "lab: a"
}

@test "run: test installs what the lab's tests need before it starts them" {
	go 'need() { echo "$*" >>'"$TMP"'/needed; }
		lab_tests() {
			cp '"$TMP"'/needed '"$TMP"'/before
			mkdir -p "$BUILD/results/lab"
			printf "lab\tlab: a\tpass\t\n" >"$BUILD/results/lab/results"
		}
		verb_test'
	assert_success
	run grep -wo 'build\|bats' "$TMP/before"
	assert_output $'build\nbats'
}

@test "run: test fails with any back end, and the closing line stays the last" {
	printf 'not ok 1 selftests: kvm: steal_time # exit=254\n# lab: done\n' >"$TMP/vhe.ktap"
	echo 'last words' >"$TMP/vhe.console"
	TESTS=steal_time go verb_test
	assert_equal "$status" 1
	assert_output --partial "last words"
	closing "3 passed, 1 failed, 0 skipped"
}

@test "run: test fails with the lab's tests alone" {
	PLATFORM=svm go 'lab_tests() { mkdir -p "$BUILD/results/lab"; printf "lab\tlab: a\tfail\t\n" >"$BUILD/results/lab/results"; }; verb_test'
	assert_equal "$status" 1
	[[ ${lines[-1]} = *", 1 failed, "* ]]
}

@test "run: test without Bochs skips vmx, loudly, and counts it" {
	touch "$TMP/no-bochs"
	TESTS='steal_time kvm_pv_test' go verb_test
	assert_success
	assert_output --partial SKIPPED
	assert_equal "$(boots | cut -d: -f1 | xargs)" "nvhe svm vhe"
	closing "4 passed, 0 failed, 2 skipped"
}

@test "run: test boots no back end that TESTS do not run on" {
	TESTS=psci_test go verb_test
	assert_success
	assert_equal "$(boots)" $'nvhe: psci_test\nvhe: psci_test'
	closing "2 passed, 0 failed, 0 skipped"
}

@test "run: test with TESTS that run nowhere on PLATFORM is refused" {
	TESTS=psci_test PLATFORM=svm go verb_test
	bad TESTS
	assert_equal "$(boots)" ""
}

@test "run: test ends with a build step that fails" {
	go 'work() { false; echo went on; }; kernel() { step kernel "build" work; echo BUILT; }; verb_test'
	[[ $status -ne 0 ]]
	assert_output --partial FAILED
	refute_output --partial BUILT
}

# --- make test-VARIANT

# variant VARIANT: its verb, with the kernels that are made in $TMP/kernels
variant()
{
	go "kernel() { echo \"\$*\" >>$TMP/kernels; }; modules() { kernel \"\$@\"; }
		lab_tests() { echo LAB; }; verb_test_variant $1"
}

@test "run: test-debug and test-kcsan run every test on their kernels, on svm and vhe" {
	for v in debug kcsan; do
		rm -f "$TMP"/{boots,kernels}
		variant $v
		assert_success
		assert_equal "$(sort "$TMP/kernels" | xargs)" "$v.arm64 $v.x86_64"
		assert_equal "$(boots)" "svm: gpc_clock_test gpc_hva_test steal_time kvm_pv_test
vhe: steal_time psci_test hypercalls"
		refute_output --partial LAB
		closing "7 passed, 0 failed, 0 skipped"
	done
}

@test "run: test-rt runs every test on Debian's RT kernel on vmx, on a built one on vhe" {
	variant rt
	assert_success
	assert_equal "$(sort "$TMP/kernels" | xargs)" "rt rt.arm64"
	assert_equal "$(boots)" "vhe: steal_time psci_test hypercalls
vmx: gpc_clock_test gpc_hva_test steal_time kvm_pv_test"
	refute_output --partial LAB
	closing "7 passed, 0 failed, 0 skipped"
}

@test "run: test-VARIANT heeds PLATFORM and TESTS" {
	PLATFORM=nvhe TESTS='steal_time hypercalls' variant debug
	assert_success
	assert_equal "$(boots)" "nvhe: steal_time hypercalls"
	assert_equal "$(cat "$TMP/kernels")" debug.arm64
	closing "2 passed, 0 failed, 0 skipped"
}

@test "run: test-VARIANT fails with a splat, and the closing line stays the last" {
	echo '[    9.0] BUG: KCSAN: data-race in gpc_a / gpc_b' >"$TMP/vhe.console"
	TESTS=steal_time variant kcsan
	assert_equal "$status" 1
	assert_output --partial "kernel splat on vhe: fail: BUG: KCSAN: data-race in gpc_a / gpc_b"
	closing "2 passed, 1 failed, 0 skipped"
}

@test "run: the debug kernel, and no other, poisons free pages" {
	VARIANT=debug run lab 'cmdline vhe'
	assert_output --partial page_poison=1
	VARIANT=kcsan run lab 'cmdline vhe'
	refute_output --partial page_poison
	run lab 'cmdline vmx'
	refute_output --partial page_poison
}

@test "run: QEMU's x86 guest is told its TSC's frequency, which is the host's" {
	fake uname 'echo x86_64'
	printf '#!/bin/sh\necho 2596118\n' >"$BUILD/tsckhz"
	chmod +x "$BUILD/tsckhz"
	run lab 'cmdline svm'
	assert_output --partial " tsc_early_khz=2596118"
	run lab 'cmdline vmx; cmdline vhe; ACCEL=kvm; cmdline svm'
	refute_output --partial tsc_early_khz
}

@test "run: KCSAN is to report on KVM's functions and those of its trees" {
	fake nm 'printf "%s\n" "" "kvm_main.o:" "0000000000000000 t gpc_x.isra.0" "0000000000000010 T kvm_gpc_x" \
			"0000000000000000 T __pfx_kvm_gpc_x" "0000000000000000 d data" "0000000000000010 T kvm_gpc_x"'
	run lab 'kcsan_scope "$1"' "$BUILD/kcsan.arm64"
	assert_success
	assert_equal "$output" $'gpc_x.isra.0\nkvm_gpc_x'
}

# --- make base-test

@test "run: base-test is kept, and said beside our failures" {
	printf 'not ok 1 selftests: kvm: steal_time # exit=254\n# lab: done\n' >"$TMP/svm.ktap"
	go 'tests_on() { echo steal_time; }; verb_base_test'
	assert_equal "$status" 1
	rm "$TMP/boots"
	go verb_base_test
	assert_equal "$(boots)" ""
	assert_output --partial "steal_time on svm: fail"
	TESTS=steal_time PLATFORM=svm go verb_test
	assert_output --partial "(on the base: fail)"
}

@test "run: base-test keeps nothing of a boot that died" {
	: >"$TMP/svm.ktap"
	go 'tests_on() { echo steal_time; }; verb_base_test'
	assert_equal "$status" 1
	rm "$TMP"/boots "$TMP"/svm.ktap
	go 'tests_on() { echo steal_time; }; verb_base_test'
	assert_success
	assert_equal "$(boots | cut -d: -f1 | xargs)" "n1 nvhe svm vhe vmx"
}

@test "run: base-test of one VARIANT is not taken for another's" {
	go 'tests_on() { echo steal_time; }; verb_base_test'
	assert_success
	rm "$TMP/boots"
	VARIANT=debug go 'tests_on() { echo steal_time; }; verb_base_test'
	assert_equal "$(boots | cut -d: -f1 | xargs)" "n1 nvhe svm vhe vmx"
}
