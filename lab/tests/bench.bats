#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# make bench: what is counted as worse, what is compared, what is not believed.
load helper

setup()
{
	lab_setup_bare
	mkdir -p "$BUILD/bench" "$BUILD/logs"
	printf '# name bar text\nmiss base a miss\nmiss_1 90 a miss, 1 cache\nsize - bytes\n' >"$TMP/list"
	figures base 10000 40 100
	figures ours 5000 80 200
	BOOT='need() { :; }; job() { :; }; job_initramfs() { :; }; kernel_of() { :; }; modules_dir() { :; }
		bench_size() { echo "memory 100"; }; STOCK_HEADERS=
		boot_limited() {
			local dir=$5
			printf "# # miss 5 %s\n" "${UNIT-instructions}" >"$dir/ktap"
			printf "%s 1 selftests: kvm: gpc_bench\n" "${ENDED-ok}" >>"$dir/ktap"
			printf "ok 2 selftests: kvm: gpc_nested_bench\n# lab: done\n" >>"$dir/ktap"
			[[ $dir != *ours.2 ]] || eval "${ON_LAST-}"
		};'
}

# figures FILE MISS MISS_1 SIZE
figures()
{
	printf 'miss %s\nmiss_1 %s\nsize %s\n' "$2" "$3" "$4" >"$TMP/$1"
}

table()
{
	run lab 'cd "$1"; results bench list base ours $(ls recorded 2>/dev/null)' "$TMP"
}

# worse TEXT: just that is said to be wrong
worse()
{
	assert_equal "$status" 1
	assert_equal "${lines[-1]}" "$1"
	assert_equal "$(grep -c ' <-$' <<<"$output")" 1
}

# recorded KEY: which file is compared with
recorded()
{
	echo "# $1" >"$TMP/recorded"
	run lab 'bench_key() { echo "Linux 6.12.117+deb12-amd64, QEMU 7.2"; }; BENCH_RECORD=$1; bench_recorded' "$TMP/recorded"
	assert_success
}

# count [SETTING]: four boots, with something wrong
count()
{
	run env ${1+"$1"} bash -c "$(declare -f lab); TOP=$TOP; lab '$BOOT BASE_KIND=debian; step bench text bench_count'"
}

# disbelieved TEXT SETTING: it goes wrong, and is told
disbelieved()
{
	count "$2"
	assert_equal "$status" 1
	assert_output --partial "$1"
	assert_not_exists "$BUILD/bench/ours"
}

@test "bench: the table has base, ours and their ratio, in the list's order" {
	figures ours 50 80 100
	table
	assert_success
	assert_equal "$(awk 'NR > 1 { print $(NF - 2), $(NF - 1), $NF }' <<<"$output")" \
		$'10,000 50 1/200\n40 80 2.00\n100 100 1.00'
	refute_output --partial '<-'
}

@test "bench: worse than the base is more than 2 % and 20" {
	figures ours 10200 80 100
	table
	assert_success
	figures ours 10201 80 100
	table
	worse "miss: 10201 is worse than 10000 on the base"
	figures base 100 40 100
	figures ours 120 80 100
	table
	assert_success
}

@test "bench: a bar stands in for the base" {
	figures ours 5000 90 100
	table
	assert_success
	figures ours 5000 91 100
	table
	worse "miss_1: 91 is above its bar of 90"
}

@test "bench: a bar may allow nothing above the base" {
	sed -i 's/^miss base/miss never/' "$TMP/list"
	figures ours 10000 80 200
	table
	assert_success
	figures ours 10001 80 200
	table
	worse "miss: 10001 is worse than 10000 on the base"
}

@test "bench: a bar may be relative to the base" {
	sed -i 's/^miss base/miss base-1000/; s/^miss_1 90/miss_1 base*0.5/' "$TMP/list"
	figures ours 9000 20 200
	table
	assert_success
	figures ours 9001 20 200
	table
	worse "miss: 9001 is above its bar of 9000"
	figures ours 9000 21 200
	table
	worse "miss_1: 21 is above its bar of 20"
}

@test "bench: the base may lack what the series adds, which has a bar" {
	sed -i 's/^miss_1 90/miss_1 new:90/' "$TMP/list"
	sed -i /miss_1/d "$TMP/base"
	table
	assert_success
	sed -i 's/^miss_1 80/miss_1 91/' "$TMP/ours"
	table
	worse "miss_1: 91 is above its bar of 90"
}

@test "bench: worse than recorded fails, though better than the base" {
	figures recorded 5000 80 200
	table
	assert_success
	figures ours 5101 80 200
	table
	worse "miss: 5101 is worse than 5000, which is recorded"
	figures ours 5000 80 221
	table
	worse "size: 221 is worse than 200, which is recorded"
}

@test "bench: a case without a figure fails, on either side" {
	figures recorded 5000 80 200
	sed -i /miss_1/d "$TMP"/{base,ours,recorded}
	table
	assert_equal "$status" 1
	assert_output --partial "miss_1: the base has no figure"
	assert_output --partial "miss_1: the series has no figure"
	assert_output --partial "miss_1: no figure is recorded"
}

@test "bench: a figure that is no case fails" {
	echo 'mist 1' >>"$TMP/ours"
	table
	assert_equal "$status" 1
	assert_output --partial "mist: is not in the list"
}

@test "bench: recorded figures are for one kernel and QEMU, and others are told so" {
	recorded "Linux 6.12.117+deb12-amd64, QEMU 7.2"
	assert_equal "$output" "$TMP/recorded"
	for k in "Linux 6.12.120+deb12-amd64, QEMU 7.2" "Linux 6.12.117+deb12-amd64, QEMU 10.0"; do
		recorded "$k"
		assert_output --partial "not compared"
		assert_output --partial "$k"
		assert_equal "$(grep -cxF "$TMP/recorded" <<<"$output")" 0
	done
}

@test "bench: both kernels are booted, and their figures taken" {
	count
	assert_success
	assert_equal "$(cat "$BUILD/bench/base")" $'miss 5\nmemory 100'
	assert_equal "$(cat "$BUILD/bench/ours")" $'miss 5\nmemory 100'
}

@test "bench: figures that do not repeat are an error" {
	disbelieved "differ" 'ON_LAST=sed -i s/5/6/ $dir/ktap'
}

@test "bench: a splat, a failure, a boot that stops are errors" {
	disbelieved "WARNING" 'ON_LAST=echo "[ 1.0] WARNING: CPU: 0 PID: 1 at virt/kvm/pfncache.c:1 x+0x1/0x2" >"$dir/console"'
	disbelieved "gpc_bench" 'ENDED=not ok'
	disbelieved "end by itself" 'ON_LAST=sed -i /done/d "$dir/ktap"'
}

@test "bench: a clock that does not count instructions is an error" {
	disbelieved "instructions" UNIT=ticks
}

@test "bench: RECORD keeps the figures, and puts table and plot into docs/figures.md" {
	mkdir -p "$TMP/repo"/{lab,docs}
	printf 'a\n<!-- figures: make bench RECORD=1 -->\nold\n<!-- end of the figures -->\nb\n' >"$TMP/repo/docs/figures.md"
	cp "$TMP/ours" "$BUILD/bench/ours"
	echo 'the table' >"$BUILD/bench/table.txt"
	echo 'the plot' >"$BUILD/bench/invalidation.svg"
	for _ in 1 2; do
		run lab 'BASE_KIND=debian TOP=$1 BENCH_RECORD=$1/lab/recorded; bench_key() { echo "Linux 6.12"; }; bench_record' "$TMP/repo"
		assert_success
	done
	assert_equal "$(head -n 2 "$TMP/repo/lab/recorded")" $'# Linux 6.12\nmiss 5000'
	assert_equal "$(grep -cE '^(a|b|the table|<!-- .* -->)$' "$TMP/repo/docs/figures.md")" 5
	assert_equal "$(grep -c old "$TMP/repo/docs/figures.md")" 0
	assert_equal "$(cat "$TMP/repo/docs/bench.svg")" "the plot"
}

@test "bench: nvhe has figures, and a place in docs/figures.md, of its own" {
	mkdir -p "$TMP/repo"/{lab,docs} "$BUILD/bench.nvhe"
	printf '<!-- figures: make bench%s RECORD=1 -->\nold\n<!-- end of the figures -->\n' \
		'' ' PLATFORM=nvhe' >"$TMP/repo/docs/figures.md"
	cp "$TMP/ours" "$BUILD/bench.nvhe/ours"
	echo 'the table' >"$BUILD/bench.nvhe/table.txt"
	export PLATFORM=nvhe
	run lab 'BASE_KIND=debian TOP=$1 BENCH_RECORD=$1/lab/recorded; bench_key() { echo "Linux 6.12"; }; bench_record' "$TMP/repo"
	assert_success
	assert_equal "$(head -n 2 "$TMP/repo/docs/figures.md" | tail -n 1)" old
	assert_equal "$(grep -c 'the table' "$TMP/repo/docs/figures.md")" 1
	assert_equal "$(grep -c svg "$TMP/repo/docs/figures.md")" 0
	assert_not_exists "$TMP/repo/docs/bench.svg"
}

@test "bench: other back ends and kernels are refused" {
	for v in PLATFORM=vmx VARIANT=rt ACCEL=kvm; do
		run env "$v" "$TOP/lab/lab" bench </dev/null 3>&-
		bad "make bench"
	done
}

@test "bench: the base is known before its cases are" {
	run lab 'need() { :; }; base() { BASE_KIND=debian; }; prepare() { echo prepared; exit 3; }
		unset BASE_KIND; verb_bench'
	assert_equal "$status" 3
	assert_output prepared
}
