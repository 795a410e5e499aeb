#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# What kselftest's runner said, as results: BACKEND TEST STATUS WHY.
load helper

setup()
{
	lab_setup_bare
}

# runs: the channel's text around what is on standard input
runs()
{
	printf '# lab: kernel 6.12.117+deb12-amd64\nTAP version 13\n1..1\n'
	cat
	echo '# lab: done'
}

# ktap [EXPECTED...]: results of $TMP/ktap, tabs shown as |
ktap()
{
	run lab 'ktap svm "$@"' "$TMP/ktap" "$@"
	assert_success
	output=${output//$'\t'/|}
}

@test "ktap: whole tests pass, fail and skip" {
	runs >"$TMP/ktap" <<-'END'
	# overriding timeout to 300
	# selftests: kvm: steal_time
	# Random seed: 0x6b8b4567
	ok 1 selftests: kvm: steal_time
	# overriding timeout to 300
	# selftests: kvm: xen_shinfo_test
	# 1..0 # SKIP - Requirement not met: kvm_has_cap(KVM_CAP_XEN_HVM)
	ok 2 selftests: kvm: xen_shinfo_test # SKIP
	# overriding timeout to 300
	# selftests: kvm: kvm_clock_test
	# ==== Test Assertion Failure ====
	#   x86_64/kvm_clock_test.c:123: a == b
	#   pid=234 tid=234 errno=0 - Success
	not ok 3 selftests: kvm: kvm_clock_test # exit=254
	END
	ktap steal_time xen_shinfo_test kvm_clock_test
	assert_equal "${#lines[@]}" 3
	[[ $output = *"svm|steal_time|pass|"* ]]
	[[ $output = *"svm|xen_shinfo_test|skip|"*"Requirement not met: kvm_has_cap(KVM_CAP_XEN_HVM)"* ]]
	[[ $output = *"svm|kvm_clock_test|fail|exit=254"*"Assertion"* ]]
}

@test "ktap: a test that reports cases is shown by them, with reasons" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..3
	# # Starting 3 tests from 1 test cases.
	# #  RUN           gpc_clock.follows ...
	# #            OK  gpc_clock.follows
	# ok 1 gpc_clock.follows
	# #  RUN           gpc_clock.swaps ...
	# #      SKIP      no swap in use
	# #            OK  gpc_clock.swaps
	# ok 2 gpc_clock.swaps # SKIP no swap in use
	# #  RUN           gpc_clock.stays ...
	# # gpc_clock_test.c:6:stays:Expected 1 (1) == 2 (2)
	# # stays: Test failed
	# #          FAIL  gpc_clock.stays
	# not ok 3 gpc_clock.stays
	# # FAILED: 2 / 3 tests passed.
	# # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
	not ok 1 selftests: kvm: gpc_clock_test # exit=1
	END
	ktap gpc_clock_test
	assert_equal "$(grep -v '|fail|' <<<"$output")" \
		$'svm|gpc_clock_test: gpc_clock.follows|pass|\nsvm|gpc_clock_test: gpc_clock.swaps|skip|no swap in use'
	assert_equal "$(grep -c '|fail|' <<<"$output")" 1
	assert_output --partial 'svm|gpc_clock_test: gpc_clock.stays|fail|'
}

@test "ktap: TEST_REQUIRE in a case skips that case, with the reason" {
	# The child numbers its own skip after all that came; then the harness
	# reports the case.
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..2
	# #  RUN           gpc_clock.requires ...
	# ok 2 # SKIP - Requirement not met: kvm_has_cap(X)
	# # Planned tests != run tests (2 != 1)
	# # Totals: pass:0 fail:0 xfail:0 xpass:0 skip:1 error:0
	# #            OK  gpc_clock.requires
	# ok 1 gpc_clock.requires # SKIP unknown
	# #  RUN           gpc_clock.follows ...
	# #            OK  gpc_clock.follows
	# ok 2 gpc_clock.follows
	# # PASSED: 2 / 2 tests passed.
	ok 1 selftests: kvm: gpc_clock_test
	END
	ktap gpc_clock_test
	assert_equal "${#lines[@]}" 2
	assert_output --partial 'svm|gpc_clock_test: gpc_clock.follows|pass|'
	[[ $output = *'svm|gpc_clock_test: gpc_clock.requires|skip|'*'Requirement not met: kvm_has_cap(X)'* ]]
}

@test "ktap: a case that skips without a name counts" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: set_id_regs
	# TAP version 13
	# 1..2
	# ok 1 # SKIP ID_AA64SMFR0_EL1 is not there
	# ok 2 test_vcpu_ftr_id_regs
	# # Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0
	ok 1 selftests: kvm: set_id_regs
	END
	ktap set_id_regs
	assert_equal "$(grep -c '|skip|' <<<"$output") $(grep -c '|pass|' <<<"$output") ${#lines[@]}" "1 1 2"
	assert_output --partial 'ID_AA64SMFR0_EL1 is not there'
}

@test "ktap: fewer cases than planned is a failure" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..3
	# ok 1 gpc_clock.follows
	ok 1 selftests: kvm: gpc_clock_test
	END
	ktap gpc_clock_test
	assert_output --partial 'svm|gpc_clock_test|fail|planned 3 cases, saw 1'
	assert_output --partial 'svm|gpc_clock_test: gpc_clock.follows|pass|'
}

@test "ktap: cases planned and none reported is a failure" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..3
	ok 1 selftests: kvm: gpc_clock_test
	END
	ktap gpc_clock_test
	assert_output --partial 'svm|gpc_clock_test|fail|'
	refute_output --partial '|pass|'
}

@test "ktap: a plan of one test is not held against the next" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..1
	# not ok 1 gpc_clock.follows
	# # gpc_clock_test.c:6:follows:Expected 1 (1) == 2 (2)
	not ok 1 selftests: kvm: gpc_clock_test # exit=1
	# selftests: kvm: steal_time
	ok 2 selftests: kvm: steal_time
	# selftests: kvm: xen_vmcall_test
	not ok 3 selftests: kvm: xen_vmcall_test # exit=2
	END
	ktap gpc_clock_test steal_time
	assert_output --partial 'svm|steal_time|pass|'
	assert_equal "$(grep 'steal\|xen' <<<"$output" | grep -c 'Expected\|exit=1' || :)" 0
	assert_equal "${#lines[@]}" 3
}

@test "ktap: a crash with no case that failed is a failure of the test" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..2
	# ok 1 gpc_clock.follows
	# ok 2 gpc_clock.stays
	not ok 1 selftests: kvm: gpc_clock_test # exit=139
	END
	ktap gpc_clock_test
	[[ $output = *'svm|gpc_clock_test|fail|exit=139'* ]]
	assert_equal "$(grep -c '|pass|' <<<"$output")" 2
}

@test "ktap: a crash before the first case is a failure, with exit status and assertion" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..2
	# ==== Test Assertion Failure ====
	#   lib/kvm_util.c:123: vm->fd >= 0
	not ok 1 selftests: kvm: gpc_clock_test # exit=254
	# selftests: kvm: steal_time
	not ok 2 selftests: kvm: steal_time # exit=139
	END
	ktap gpc_clock_test steal_time
	[[ $output = *'svm|gpc_clock_test|fail|exit=254'*Assertion* ]]
	[[ $output = *'svm|steal_time|fail|exit=139'* ]]
	assert_equal "${#lines[@]}" 2
}

@test "ktap: a crash in mid-plan keeps the failed case and says what is missing" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..3
	# not ok 1 gpc_clock.follows
	not ok 1 selftests: kvm: gpc_clock_test # exit=139
	END
	ktap gpc_clock_test
	assert_output --partial 'svm|gpc_clock_test: gpc_clock.follows|fail|'
	assert_output --partial 'svm|gpc_clock_test|fail|planned 3 cases, saw 1'
}

@test "ktap: a test that took too long is a failure that says so" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: dirty_log_test
	# Test iterations: 2, interval: 10 (ms)
	#
	not ok 1 selftests: kvm: dirty_log_test # TIMEOUT 300 seconds
	END
	ktap dirty_log_test
	[[ $output = *'svm|dirty_log_test|fail|TIMEOUT 300 seconds'* ]]
}

@test "ktap: a boot that died fails the tests that did not finish, and itself" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: steal_time
	ok 1 selftests: kvm: steal_time
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..3
	# ok 1 gpc_clock.follows
	END
	sed -i '/lab: done/d' "$TMP/ktap"
	printf '# ok 2 gpc_clo' >>"$TMP/ktap"
	ktap steal_time gpc_clock_test xen_shinfo_test
	assert_output --partial 'svm|steal_time|pass|'
	assert_output --partial 'svm|gpc_clock_test|fail|did not finish'
	assert_output --partial 'svm|xen_shinfo_test|fail|did not finish'
	assert_output --partial 'svm|boot|fail|'
}

@test "ktap: tests all done without the end marker is a failure of the boot" {
	runs <<<'ok 1 selftests: kvm: steal_time' | sed '/lab: done/d' >"$TMP/ktap"
	ktap steal_time
	assert_equal "$(grep -v '|pass|' <<<"$output" | cut -d'|' -f1-3)" "svm|boot|fail"
}

@test "ktap: nothing at all fails every test and the boot" {
	: >"$TMP/ktap"
	ktap steal_time xen_shinfo_test
	assert_equal "$(grep -c '|fail|' <<<"$output") ${#lines[@]}" "3 3"
}

@test "ktap: no /dev/kvm fails every test" {
	printf '# lab: there is no /dev/kvm\n# lab: done\n' >"$TMP/ktap"
	ktap steal_time xen_shinfo_test
	assert_equal "$(cut -d'|' -f2,3 <<<"$output")" $'steal_time|fail\nxen_shinfo_test|fail'
}

@test "ktap: a serial line's line ends make no difference" {
	runs >"$TMP/ktap" <<-'END'
	# selftests: kvm: gpc_clock_test
	# TAP version 13
	# 1..2
	# ok 1 gpc_clock.follows
	# ok 2 gpc_clock.swaps # SKIP no swap in use
	ok 1 selftests: kvm: gpc_clock_test
	# selftests: kvm: xen_shinfo_test
	# 1..0 # SKIP - none
	ok 2 selftests: kvm: xen_shinfo_test # SKIP
	END
	ktap gpc_clock_test xen_shinfo_test
	plain=$output
	sed -i 's/$/\r/' "$TMP/ktap"
	ktap gpc_clock_test xen_shinfo_test
	assert_equal "$output" "$plain"
	assert_equal "${#lines[@]}" 3
}

@test "ktap: a tab in a reason does not make a column" {
	printf '# selftests: kvm: a\n# 1..0 # SKIP one\ttwo\nok 1 selftests: kvm: a # SKIP\n# lab: done\n' >"$TMP/ktap"
	ktap a
	assert_equal "$output" "svm|a|skip|one two"
}

@test "ktap: what ran without being asked for is shown too" {
	runs >"$TMP/ktap" <<<'not ok 1 selftests: kvm: other_test # exit=1'
	ktap
	assert_output --partial 'svm|other_test|fail|exit=1'
}
