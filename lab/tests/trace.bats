#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# What is read from the output of the bpftrace tools, and the checks upon it.
load helper

setup()
{
	lab_setup_bare
	cat >"$TMP/stacks.tool" <<-'END'
	Attaching 5 probes...
	Tracing guest-page caches... Hit Ctrl-C to end.


	@activations[
	    gpc_activate+197
	    kvm_set_msr_common+3183
	    kvm_emulate_wrmsr+78
	]: 3
	@hits[
	    gpc_invalidate+82
	    do_madvise+4006
	]: 4
	@hits[
	    gpc_invalidate+82
	    try_to_migrate_one+2618
	]: 40
	@hits_of_another_kind[
	    gpc_invalidate+82
	]: 1000
	END
	cat >"$TMP/latency.tool" <<-'END'
	Attaching 12 probes...


	@activate_ns: 
	[256K, 512K)          19 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|
	[512K, 1M)             1 |@@                                                  |

	@retries: 7
	@wait_ns: 
	[1]                    2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|
	END
	cat >"$TMP/watch.tool" <<-'END'
	Attaching 7 probes...
	TIME     PID     COMM               ACT   REFR   FAIL  RETRY  WAIT_US   INVAL   HITS
	12:33:00 373     gpc_clock_test       1      2      0      0        0       5      3
	12:33:00 376     gpc_clock_test       1      2      0      0        0       5      3
	12:33:01 376     gpc_clock_test       0      4      0      0        0       7      4
	END
}

# trace FUNCTION ARGUMENT...: one of lab/guest/trace.sh
trace()
{
	LAB=$LAB T=$TMP run bash -c '. "$LAB/guest/trace.sh"; "$@"' trace "$@"
	assert_success
}

@test "trace: stacks are a line each, without offsets, most first" {
	trace stacks hits
	assert_equal "$output" $'40 gpc_invalidate <- try_to_migrate_one\n4 gpc_invalidate <- do_madvise'
}

@test "trace: counts are added up, of the stacks asked for and of no other map" {
	trace sum hits
	assert_equal "$output" 44
	trace sum hits do_madvise
	assert_equal "$output" 4
	trace sum hits kswapd
	assert_equal "$output" 0
	trace sum refreshes
	assert_equal "$output" 0
}

@test "trace: a histogram's values are counted, and no other map's" {
	trace in_hist activate_ns
	assert_equal "$output" 20
	trace in_hist wait_ns
	assert_equal "$output" 2
	trace in_hist refresh_ns
	assert_equal "$output" 0
}

@test "trace: a column of gpc_watch is found by its name, for all or for one" {
	trace watched INVAL
	assert_equal "$output" 17
	trace watched HITS 376
	assert_equal "$output" 7
	trace watched NOSUCH
	assert_equal "$output" 0
}

@test "trace: gpc_watch may miss a few, and never has too many" {
	trace eval '(($(nearly 100 100))) && (($(nearly 98 100))) && (($(nearly 21 22)))'
	trace eval '! (($(nearly 101 100))) && ! (($(nearly 96 100))) && ! (($(nearly 0 22)))'
}

@test "trace: a check that is not true is not ok, says why, and is counted" {
	trace eval 'check "a is two" "1 + 1 == 2"; check "it is three" "1 + 1 == 3"; echo "$TAP_FAILED of $TAP_N"'
	assert_equal "$output" $'ok 1 a is two\nnot ok 2 it is three # it is not: 1 + 1 == 3\n1 of 2'
}
