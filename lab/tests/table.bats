#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# The table of results, its closing line, its exit status; and the lab's own
# tests as results.
load helper

setup()
{
	lab_setup_bare
	: >"$TMP/base"
}

# table [BASE]: of results on standard input, with | for a tab
table()
{
	tr '|' '\t' >"$TMP/results"
	run lab 'table "$2" <"$1"' "$TMP/results" "${1-}"
}

@test "table: rows are tests, columns back ends, each in the order of the results" {
	table <<-'END'
	svm|steal_time|pass|
	svm|gpc: a|pass|
	vhe|steal_time|pass|
	vhe|psci_test|pass|
	END
	assert_success
	assert_equal "$(awk 'NF { $1 = $1; print }' <<<"$output" | head -n 4)" \
		$'test svm vhe\nsteal_time pass pass\ngpc: a pass -\npsci_test - pass'
}

@test "table: the columns stand below each other" {
	table <<-'END'
	svm|a|pass|
	svm|a_long_name_indeed: and a case|pass|
	vmx|a|skip|why
	nvhe|a|fail|why
	END
	assert_equal "$(grep -E '^(test|a) ' <<<"$output" | head -n 2 | awk '{ print match($0, /(svm|pass)/), match($0, /(vmx|skip)/), match($0, /(nvhe|FAIL)/) }' | uniq | wc -l)" 1
}

@test "table: the closing line counts passed, failed, skipped" {
	table <<-'END'
	svm|a|pass|
	svm|b|pass|
	svm|c|fail|why
	vmx|a|pass|
	vmx|b|skip|why
	vmx|d|skip|why
	END
	assert_equal "${lines[-1]}" "3 passed, 1 failed, 2 skipped"
}

@test "table: a failure fails it, a skip does not" {
	table <<<'svm|a|pass|'
	assert_equal "$status ${lines[-1]}" "0 1 passed, 0 failed, 0 skipped"
	table <<<$'svm|a|pass|\nsvm|b|skip|why'
	assert_equal "$status ${lines[-1]}" "0 1 passed, 0 failed, 1 skipped"
	table <<<$'svm|a|pass|\nsvm|b|fail|why'
	assert_equal "$status ${lines[-1]}" "1 1 passed, 1 failed, 0 skipped"
}

@test "table: nothing run, or all skipped, is a failure" {
	table </dev/null
	assert_equal "$status ${lines[-1]}" "1 0 passed, 0 failed, 0 skipped"
	table <<<'svm|a|skip|why'
	assert_equal "$status ${lines[-1]}" "1 0 passed, 0 failed, 1 skipped"
}

@test "table: failures and skips are named with their reason, passes are not" {
	table <<-'END'
	svm|a|pass|
	svm|b|fail|exit=254
	vmx|c|skip|no swap in use
	vmx|d|fail|
	END
	[[ $output = *"b on svm: fail"*"exit=254"* ]]
	[[ $output = *"c on vmx: skip"*"no swap in use"* ]]
	assert_output --partial "d on vmx: fail"
	refute_output --partial "a on svm"
}

@test "table: of a failure is said how the base did" {
	printf 'svm\ta\tfail\twhy\nsvm\tb\tpass\t\nsvm\tc\tskip\twhy\nvmx\td\tfail\twhy\n' >"$TMP/base"
	table "$TMP/base" <<-'END'
	svm|a|fail|why
	svm|b|fail|why
	svm|c|skip|why
	svm|d|fail|why
	END
	grep -q '^a on svm: .*base.*fail' <<<"$output"
	grep -q '^b on svm: .*base.*pass' <<<"$output"
	assert_equal "$(grep -c '^[cd] on svm: .*base' <<<"$output" || :)" 0
	assert_equal "$status ${lines[-1]}" "1 0 passed, 3 failed, 1 skipped"
}

@test "table: of two results of one name the failure counts, once, with its reason" {
	table <<<$'svm|a|fail|first\nsvm|a|pass|\nsvm|b|pass|\nsvm|b|fail|second'
	assert_equal "$status ${lines[-1]}" "1 0 passed, 2 failed, 0 skipped"
	assert_output --partial first
	assert_output --partial second
}

@test "table: a name may hold what printf and awk would read" {
	table <<<'svm|100%s \n & more|fail|50%d & \1'
	assert_output --partial $'\n100%s \\n & more  FAIL'
	assert_output --partial '100%s \n & more on svm: fail: 50%d & \1'
}

@test "table: bats' results are results of the lab" {
	run lab 'printf "%s\n" "1..3" "ok 1 series: a" "not ok 2 series: b" \
		"# (in test file x, line 3)" "#   is 1 2 failed" "ok 3 series: c # skip no perl" | results bats'
	assert_success
	assert_equal "$(cut -f 1-3 <<<"$output")" $'lab\tlab: series: a\tpass\nlab\tlab: series: b\tfail\nlab\tlab: series: c\tskip'
}

@test "table: a skipped test of the lab keeps its reason" {
	run lab 'printf "%s\n" "1..1" "ok 1 series: c # skip no perl" | results bats'
	assert_equal "$(cut -f 4 <<<"$output")" "no perl"
}

@test "table: bats that ended early, or never began, is a failure" {
	run lab 'printf "%s\n" "1..3" "ok 1 series: a" | results bats'
	[[ $output = *$'\tfail\t'* ]]
	run lab 'echo "bats: not found" | results bats'
	[[ $output = *$'\tfail\t'* ]]
}
