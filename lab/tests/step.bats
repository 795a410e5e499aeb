#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# Steps, and the ways out: nothing half-made stays, nothing runs on.
load helper

setup()
{
	lab_setup
}

# until_there FILE: it is, in at most ten seconds
until_there()
{
	for _ in $(seq 100); do
		[[ ! -e $1 ]] || return 0
		sleep 0.1
	done
	fail "$1 did not come"
}

@test "step: one that is done is a line with its time, its output in the log" {
	run lab 'step x "do x" echo all of it'
	assert_success
	[[ $output =~ ^"do x"\ +[0-9]+" s"$ ]] || fail "$output"
	assert_equal "$(cat "$BUILD/logs/x.log")" "all of it"
}

@test "step: one that fails ends everything, with the log's end and place" {
	run lab 'work() { seq 100; echo gone wrong; return 3; }; step x "do x" work; echo went on'
	[[ $status -ne 0 ]]
	assert_output --partial FAILED
	assert_output --partial "gone wrong"
	assert_output --partial "$BUILD/logs/x.log"
	refute_output --partial "  | 7"$'\n'
	refute_output --partial "went on"
}

@test "step: of a failed build the errors are shown, wherever they stand" {
	run lab 'work() { echo "pfncache.c:12:3: error: no such thing"; seq 100; return 1; }; step x "do x" work'
	assert_output --partial "pfncache.c:12:3: error: no such thing"
}

@test "step: the first command of it that fails ends it" {
	run lab 'work() { false; echo went on; }; step x "do x" work'
	[[ $status -ne 0 ]]
	assert_equal "$(cat "$BUILD/logs/x.log")" ""
}

@test "step: die in it is the error that is shown" {
	run lab 'work() { die "no such thing"; }; step x "do x" work'
	bad "no such thing"
}

@test "step: a file is there whole or not at all" {
	run lab 'half() { echo half; return 1; }; into "$1" half || echo failed' "$TMP/file"
	assert_output --partial failed
	assert_not_exists "$TMP/file"
	assert_not_exists "$TMP/file.tmp"
	run lab 'into "$1" echo whole' "$TMP/file"
	assert_equal "$(cat "$TMP/file")" whole
}

@test "step: temporaries go on every way out" {
	run lab 'temp t "$1"; mkdir "$t"; die enough' "$TMP/t"
	bad enough
	assert_not_exists "$TMP/t"
	run lab 'temp t "$1"; mkdir "$t"' "$TMP/t"
	assert_success
	assert_not_exists "$TMP/t"
}

@test "step: temporaries of a step that fails go too" {
	run lab 'work() { temp t "$1"; mkdir "$t"; false; }; step x "do x" work "$1"' "$TMP/t"
	[[ $status -ne 0 ]]
	assert_not_exists "$TMP/t"
}

@test "step: interrupted, it ends at once, and so does what it ran" {
	# Not INT or HUP: whoever started us may have had them ignored.
	rm -f "$TMP"/{there,pid,t}
	lab 'echo $$ >"$1/pid"
		work() { temp t "$1/t"; touch "$t"; bash -c "echo \$\$ >\"$1/there\"; exec sleep 60"; echo went on >"$1/on"; }
		step x "do x" work "$1"' "$TMP" >"$TMP/out" 2>&1 &
	child=$!
	until_there "$TMP/there"
	kill -TERM "$(cat "$TMP/pid")"
	rc=0
	wait "$child" || rc=$?
	assert_equal "$rc" 130
	grep -q interrupted "$TMP/out"
	! kill -0 "$(cat "$TMP/there")" 2>/dev/null || fail "its child still runs"
	assert_not_exists "$TMP/on"
	assert_not_exists "$TMP/t"
}

@test "step: a program is one, too, and its failure is seen" {
	run lab 'step x "do x" env true; step y "do y" env false; echo not reached'
	assert_equal "$status" 1
	assert_output --partial FAILED
	refute_output --partial "not reached"
	assert_equal "$(cat "$BUILD/logs/x.log.rc")" 0
}

@test "step: a long one says how far it is, at least every 30 seconds" {
	run lab 'work() { echo "  CC  a.o"; until [[ -e '"$TMP"'/end ]]; do :; done; }
		sleep() { SECONDS=$((SECONDS + 30)); [[ $SECONDS -lt 90 ]] || : >'"$TMP"'/end; command sleep 0.1; }
		STEP_TOTAL=3 step x "do x" work; rm '"$TMP"'/end
		SECONDS=0; STEP_COUNT=none step y "do y" work'
	assert_success
	# A second of real time may pass meanwhile.
	grep -qE '^  1/3 done, 3[0-9] s' <<<"$output"
	grep -qE '^  1/3 done, 6[0-9] s' <<<"$output"
	grep -qE '^  3[0-9] s' <<<"$output"
}
