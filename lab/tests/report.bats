#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016,SC2030,SC2031
# make report and make test-upstream: what they make of results.
load helper

setup()
{
	lab_setup_bare
	mkdir -p "$BUILD/logs" "$BUILD/matrix"
	BASE='base() { BASE_VERSION=6.12.1; }; qemu-system-x86_64() { echo "QEMU emulator version 7.2.0 (x)"; };'
}

# results FILE LINE...: BACKEND TEST STATUS [WHY], | for a tab
results()
{
	local file=$1
	shift
	printf '%s\n' "$@" | tr '|' '\t' >"$TMP/$file"
}

keep()
{
	run lab 'matrix_keep "$1" svm stock; cut -f 2,3 "$MATRIX/svm.stock"' "$TMP/new"
}

@test "report: a run's results stay until the test is run again" {
	results new 'svm|a: one|fail' 'svm|a: two|pass' 'svm|b|pass'
	keep
	results new 'svm|a: one|pass' 'svm|a: three|pass'
	keep
	assert_equal "$output" "$(printf 'b\tpass\na: one\tpass\na: three\tpass')"
}

page()
{
	run lab "$BASE base >/dev/null; report_write"
	assert_equal "$status" 0
}

@test "report: a cell counts the cases, and tells of what did not pass" {
	printf 'svm\ta: one\tpass\t\nsvm\ta: two\tpass\t\nsvm\tb: one\tfail\t1 < 2 & 3\n' >"$BUILD/matrix/svm.stock"
	printf 'vhe\ta: one\tpass\t\nvhe\ta: two\tskip\tno THP\nvhe\tc\tskip\tno need\n' >"$BUILD/matrix/vhe.debug"
	page
	assert_output --partial '<th>svm, stock<th>vhe, debug'
	assert_output --partial '<tr><td>a<td class=pass>2<td class=skip>1 of 2'
	assert_output --partial '<tr><td>b<td class=fail>1 of 1 failed<td>–'
	assert_output --partial '<tr><td>c<td>–<td class=skip>skipped'
	assert_output --partial '<li>fail: b: one on svm, stock: 1 &lt; 2 &amp; 3'
}

@test "report: asks for nothing from elsewhere" {
	printf 'svm\ta\tpass\t\n' >"$BUILD/matrix/svm.stock"
	page
	assert_equal "$(grep -cE '(src|href)=|@import|url\(|<script' <<<"$output")" 0
}

@test "report: a benchmark's columns" {
	mkdir -p "$BUILD/bench"
	printf '%-55s %12s %12s %8s\n' instructions base patched ratio '+ that hits nothing, 1 cache' 39 71 1.82 >"$BUILD/bench/table.txt"
	echo 'x: a line below' >>"$BUILD/bench/table.txt"
	printf '<?xml version="1.0"?>\n<svg><g/></svg>\n' >"$BUILD/bench/a.svg"
	page
	assert_output --partial '<td>+ that hits nothing, 1 cache'
	assert_output --partial '<td class=n>39<td class=n>71<td class=n>1.82'
	assert_output --partial '<svg><g/></svg>'
	refute_output --partial 'a line below'
	refute_output --partial '<?xml'
}

@test "report: the base's tests, what is worse and what is better" {
	mkdir -p "$BUILD/upstream"
	printf '%s\n' 'base/here  svm        vhe' 'a: case 1  pass/fail  -' 'b_test     skip/pass  fail' '' \
		'1 worse than on the base' >"$BUILD/upstream/table.txt"
	page
	assert_output --partial '<th>base/here<th>svm<th>vhe'
	assert_output --partial '<td>a: case 1<td class=fail>pass/<wbr>fail<td>-'
	assert_output --partial '<td>b_test<td class=pass>skip/<wbr>pass<td class=skip>fail'
	assert_output --partial '<li>1 worse than on the base'
}

@test "report: nothing to report" {
	rm -r "$BUILD/matrix"
	run lab "$BASE verb_report"
	bad 'nothing to report yet'
}

compare()
{
	[[ -e $TMP/list ]] || : >"$TMP/list"
	run lab 'results upstream "$1/base" "$1/ours" "$1/list"' "$TMP"
}

@test "upstream: what passes on the base and not here is an error" {
	results base 'svm|a|pass' 'svm|b|fail' 'svm|c|pass' 'vhe|a|skip'
	results ours 'svm|a|pass' 'svm|b|pass' 'svm|c|fail|no luck' 'vhe|a|skip'
	compare
	assert_equal "$status" 1
	assert_output --partial 'c on svm: pass on the base, fail here: no luck'
	assert_equal "${lines[-1]}" '1 worse than on the base'
	assert_output --partial 'b          fail/pass  -'
}

@test "upstream: a test that is missing here is an error" {
	results base 'svm|a|pass' 'svm|b|pass'
	results ours 'svm|a|pass'
	compare
	assert_equal "$status" 1
	assert_output --partial 'b on svm: pass on the base, none here'
}

@test "upstream: what fails on both is not" {
	results base 'svm|a|fail' 'svm|b|pass'
	results ours 'svm|a|fail' 'svm|b|pass'
	compare
	assert_equal "$status" 0
	assert_output --partial 'svm: 2 tests and cases, 1 pass on the base, 0 pass only here'
}

@test "upstream: what fails at times on the base may fail here, on that back end" {
	printf '# comment\na -i 1\n!tcg/svm c not here\n?svm a fails on the base, too\n' >"$TMP/list"
	results base 'svm|a|pass' 'svm|b|pass' 'vhe|a|pass'
	results ours 'svm|a|fail|no luck' 'svm|b|pass' 'vhe|a|pass'
	compare
	assert_equal "$status" 0
	assert_output --partial 'a on svm: fail here, but it fails on the base, too'
	assert_equal "${lines[-1]}" '0 worse than on the base'

	results ours 'svm|a|pass' 'svm|b|pass' 'vhe|a|fail|no luck'
	compare
	assert_equal "$status" 1
	results ours 'svm|b|pass' 'vhe|a|pass'
	compare
	assert_equal "$status" 1
}

@test "upstream: the list has the base's tests where they run, with short forms" {
	own_lab
	mkdir -p "$BUILD"/selftests.{x86_64,arm64}/install "$TOP/tools/testing/selftests/kvm/x86_64"
	: >"$TOP/tools/testing/selftests/kvm/x86_64/gpc_own_test.c"
	printf 'kvm:%s\n' a_test gpc_own_test slow x.sh >"$BUILD/selftests.x86_64/install/kselftest-list.txt"
	printf 'kvm:%s\n' slow arm >"$BUILD/selftests.arm64/install/kselftest-list.txt"
	printf '# comment\nslow\t\t-i 1 -b 2M\n!tcg/vhe arm why not\n?vhe arm why\n' >"$TOP/lab/known/upstream.list"
	run lab 'upstream_list x86_64 arm64 | grep -v "^#"; upstream_list arm64 >"$BUILD/list"; TESTS_LIST=$BUILD/list skips_on vhe'
	assert_equal "$output" "$(printf '!tcg/vhe arm why not\na_test svm,vmx \nslow svm,vmx,vhe,nvhe -i 1 -b 2M\narm vhe,nvhe \narm why not')"
}
