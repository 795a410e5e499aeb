# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make run, make test, make test-VARIANT, make base-test.

TESTS_LIST=$TOP/lab/run/tests.list
RESULTS=$BUILD/results

# tests_list: the list of tests, without comments and those of other bases
tests_list()
{
	sed 's/#.*//; /^[[:space:]]*$/d' "$TESTS_LIST" | of_this_base | sed '/^!/d'
}

# skips_on PLATFORM: "TEST REASON" of tests that cannot run there
skips_on()
{
	local emulator=${ACCEL:-tcg}

	! in_bochs "$1" || emulator=bochs
	of_this_base <"$TESTS_LIST" | sed -En "s#^!($emulator|${VARIANT:-stock})/$1 ##p"
}

# skipped_tests PLATFORM: the requested tests among those of skips_on
skipped_tests()
{
	skips_on "$1" | while read -r t why; do
		[[ -n ${TESTS-} && " $TESTS " != *" $t "* ]] || echo "$t $why"
	done
}

# tests_on PLATFORM [REGEX]: names, in order
tests_on()
{
	local t

	for t in $(tests_list | awk -v p="$1" -v re="${2:-.}" \
			'("," $2 ",") ~ ("," p ",") && $1 ~ re { print $1 }'); do
		if [[ -z ${TESTS-} || " $TESTS " = *" $t "* ]] &&
		   ! grep -q "^$t " <<<"$(skips_on "$1")"; then
			echo "$t"
		fi
	done
}

# bench_programs PLATFORM: what `make bench` runs there
bench_programs()
{
	case $1 in
	svm) echo gpc_bench gpc_nested_bench ;;
	nvhe) echo gpc_bench internal_vm_bench ;;
	vhe) echo internal_vm_bench ;;
	*) echo gpc_bench ;;
	esac | tr ' ' '\n'
}

tests_of()
{
	case $1 in
	x86_64) { tests_on svm; tests_on vmx; bench_programs svm; } ;;
	arm64)  { tests_on vhe; tests_on nvhe; tests_on n1; bench_programs nvhe; } ;;
	esac | awk '!seen[$0]++'
}

# check_input: check the user's request before doing anything
check_input()
{
	local p t

	case ${VARIANT-} in
	''|stock|rt|arm64|debug|kcsan|16k|64k) ;;
	*) die "unknown VARIANT=$VARIANT; on x86: stock rt debug kcsan, on arm64: arm64 rt debug kcsan 16k 64k" ;;
	esac
	for p in ${PLATFORM:-svm}; do
		platform_arch "$p" >/dev/null
		check_accel "$p"
	done
	for t in ${TESTS-}; do
		grep -qxF "$t" <<<"$(tests_list | awk '{ print $1 }')" ||
			die "TESTS: there is no $t in lab/run/tests.list"
	done
	[[ -n $(platforms) ]] || die "none of TESTS=$TESTS runs on ${PLATFORM:-any back end}"
}

# job PLATFORM TIMEOUT TEST...: what /init in the guest reads
job()
{
	local platform=$1 timeout=$2 t args
	shift 2

	echo "OUT=$(of_machine "$platform" CHANNEL)"
	echo "TIMEOUT=$timeout"
	echo "TESTS='$*'"
	for t; do
		args=$(tests_list | awk -v t="$t" '$1 == t { $1 = $2 = ""; sub(/^ +/, ""); print; exit }')
		[[ -z $args ]] || echo "export KSELFTEST_$(tr '[:lower:]' '[:upper:]' <<<"$t" | tr -c '[:alnum:]_\n' _)_ARGS='$args'"
	done
}

# can_boot PLATFORM: Bochs is the one emulator that some machines cannot install
can_boot()
{
	! in_bochs "$1" || need_bochs
}

# prepare PLATFORM ours|base: build everything that a boot there needs
prepare()
{
	local platform=$1 whose=$2 arch variant

	arch=$(platform_arch "$platform")
	need build
	case $platform in
	vmx) in_bochs vmx || need svm ;;
	svm) need svm ;;
	*) need arm64 ;;
	esac
	base
	variant=$(variant_of "$platform")
	case $variant/$whose in
	stock/ours|rt/ours) modules "$variant" ;;
	stock/base|rt/base) stock "$variant" ;;
	*/ours) kernel "$variant" ;;
	*/base) kernel "$variant" base ;;
	esac
	if [[ -z ${SELFTESTS_BUILT[$arch]-} ]]; then
		selftests "$arch"
		[[ -s $BUILD/initramfs.$arch.key && $(<"$BUILD/initramfs.$arch.key") = "$(initramfs_key "$arch")" ]] ||
			step "initramfs-$arch" "make the $arch initramfs" initramfs "$arch"
		SELFTESTS_BUILT[$arch]=1
	fi
}
declare -A SELFTESTS_BUILT=()

# limits of a boot, in seconds: a test, and the whole. Bochs is slow, and so is a kernel
# with checkers.
test_limit() { echo "${TEST_LIMIT:-$(limit "$1" 600 900 300)}"; }
boot_limit() { echo "${BOOT_LIMIT:-$(limit "$1" 1500 3600 900)}"; }

# limit PLATFORM BOCHS CHECKED QEMU
limit()
{
	if in_bochs "$1"; then
		echo "$2"
	elif [[ $(variant_of "$1") = *.* ]]; then
		echo "$3"
	else
		echo "$4"
	fi
}

# run_on PLATFORM ours|base TEST...: boot, fill WHOSE/PLATFORM of the results
run_on()
{
	local platform=$1 whose=$2 variant dir t why
	shift 2

	variant=$(variant_of "$platform")
	dir=$RESULTS/$whose/$platform
	rm -rf "$dir"
	mkdir -p "$dir"
	job "$platform" "$(test_limit "$platform")" "$@" >"$dir/initrd.job"
	job_initramfs "$platform" "$variant" "$whose" "$dir/initrd"
	: >"$dir/ktap"
	: >"$dir/console"
	boot_limited "$(boot_limit "$platform")" "$platform" \
		"$(kernel_of "$variant" "${whose/ours/}")" "$dir/initrd" "$dir" "${whose/ours/}"
	{
		ktap "$platform" "$dir/ktap" "$@"
		skipped_tests "$platform" | while read -r t why; do
			printf '%s\t%s\tskip\t%s\n' "$platform" "$t" "$why"
		done
		splats "$platform" "$dir/console" | awk -v p="$platform" \
			'NR == 1 { printf "%s\tkernel splat\tfail\t%s\n", p, $0 }'
	} >"$dir/results.tmp"
	# Keep the lock chains only if all tests ran.
	if [[ $whose = ours && -z ${TESTS-} ]] && grep -q '^# lockdep: ' "$dir/ktap"; then
		mkdir -p "$BUILD/lockdep"
		into "$BUILD/lockdep/$variant" lockdep_chains "$dir/ktap" || :
	fi
	mv "$dir/results.tmp" "$dir/results"
	[[ $dir != "$BUILD/results/ours/"* ]] || matrix_keep "$dir/results" "$platform" "$variant"
	rm -rf "$dir/initrd" "$dir/iso.img" "$dir/share"
}

# show_failure PLATFORM WHOSE: the end of the console, then the failures and their reasons
show_failure()
{
	local dir=$RESULTS/$2/$1 s

	s=$(splats "$1" "$dir/console")
	if [[ -n $s ]]; then
		echo "kernel splats on $1:"
		head -n 20 <<<"$s" | sed 's/^/  | /'
	fi
	echo "the console's end ($dir/console):"
	tail -n 20 "$dir/console" | sed 's/^/  | /'
	[[ ! -s $dir/emulator ]] || { echo "the emulator said:"; tail -n 5 "$dir/emulator" | tr -d '\033' | sed 's/^/  | /'; }
	awk -F'\t' -v head="what failed on $1 ($dir/ktap):" '
		$3 == "fail" { if (!n++) print head; print "  " $2 ": " $4 }' "$dir/results"
}

# stream FILE PID: the KTAP lines of FILE as they come, and messages of failed assertions,
# until PID ends
stream()
{
	tail -n +1 -f --pid="$2" -s 0.2 "$1" 2>/dev/null | sed -u 's/\r//' |
		grep --line-buffered -E '^(# )?(TAP version|1\.\.|(not )?ok )|^# (.*(Assertion|Expected|mismatch)|  +[^ ])' || :
}

verb_run()
{
	local platform=${PLATFORM:-svm} child dir tests start

	PLATFORM=$platform check_input
	can_boot "$platform" || die "Bochs cannot be installed here, so PLATFORM=vmx cannot run"
	prepare "$platform" ours
	tests=$(if [[ -n ${TESTS-} ]]; then tests_on "$platform"; else tests_on "$platform" '^(gpc|internal|reinit)_'; fi)
	[[ -n $tests ]] || tests=$(tests_on "$platform")
	dir=$RESULTS/ours/$platform
	note "boot $platform, kernel $(variant_of "$platform")"
	rm -rf "$dir"
	start=$SECONDS
	# shellcheck disable=SC2086
	run_on "$platform" ours $tests &
	child=$!
	while kill -0 "$child" 2>/dev/null && [[ ! -e $dir/ktap ]]; do sleep 0.1; done
	stream "$dir/ktap" "$child"
	wait "$child" || die "the boot of $platform failed"
	note "boot and tests took $((SECONDS - start)) s"
	if ! table <"$dir/results"; then
		show_failure "$platform" ours >&2
		exit 1
	fi
}

# start_in FOLDER command...: run in the background. Results go to FOLDER of the results,
# whose lock is held until the command ends. Waiting for the PID does not work: a build
# forks so much that PIDs are reused.
start_in()
{
	local dir=$RESULTS/$1
	shift

	mkdir -p "${dir%/*}"
	rm -rf "${dir:?}"
	exec 8>"$dir.lock"
	flock 8
	"$@" &
	exec 8>&-
}

# wait_in FOLDER TEXT WHY LOG [TOTAL]: wait until that command has ended; die with WHY if it
# left no results. LOG shows its progress.
wait_in()
{
	local dir=$RESULTS/$1 start=$SECONDS

	printf '%-58s' "$2"
	flock "$dir.lock" true &
	STEP_COUNT='^(not )?ok ' progress $! "$2" "$start" "$4" "${@:5}"
	wait $!
	[[ -s $dir/results ]] || die "$3"
	printf '%3d s\n' $((SECONDS - start))
}

# The lab's own tests run in parallel with the rest of make test.
lab_tests()
{
	bats --formatter tap "$TOP/lab/tests" >"$LOGS/bats.log" 2>&1 </dev/null 8>&- 9>&- || :
	mkdir -p "$RESULTS/lab"
	results bats <"$LOGS/bats.log" >"$RESULTS/lab/results"
}

# all_platforms WHOSE: keep both cores busy: Bochs has one CPU and takes longest, so it starts
# first, and the arm64 kernel is built in parallel. svm goes last, with nothing beside: its CPUs
# wait for each other, which takes several times as long on busy cores.
all_platforms()
{
	local whose=$1 p
	SKIPPED=()

	for p in $(in_order); do
		if ! can_boot "$p"; then
			echo "*** Bochs cannot be installed here: $p is SKIPPED ***"
			SKIPPED+=("$p")
			continue
		fi
		prepare "$p" "$whose"
		[[ $p != svm ]] || wait_background "$whose"
		start_on "$p" "$whose"
		if in_bochs "$p"; then
			note "boot $p in the background"
			BACKGROUND+=("$p")
		else
			wait_on "$p" "$whose"
		fi
	done
	wait_background "$whose"
}
# Back ends, and "lab" for the lab's tests.
BACKGROUND=()

# wait_background WHOSE: wait until all of BACKGROUND has ended
wait_background()
{
	local p

	for p in "${BACKGROUND[@]}"; do
		if [[ $p = lab ]]; then
			wait_in lab "run the lab's tests" "the lab's tests cannot be run" "$LOGS/bats.log"
		else
			wait_on "$p" "$1"
		fi
	done
	BACKGROUND=()
}

# start_on PLATFORM WHOSE: run_on in the background
start_on()
{
	# shellcheck disable=SC2046
	start_in "$2/$1" run_on "$1" "$2" $(tests_on "$1")
}

# wait_on PLATFORM WHOSE: wait until it has ended
wait_on()
{
	wait_in "$2/$1" "run the tests on $1" "the boot of $1 failed" "$RESULTS/$2/$1/ktap" \
		"$(tests_on "$1" | wc -l)"
}

# in_order: platforms, Bochs first, svm last
in_order()
{
	local p

	for p in $(platforms); do
		if in_bochs "$p"; then
			echo "0 $p"
		elif [[ $p != svm ]]; then
			echo "1 $p"
		else
			echo "2 $p"
		fi
	done | sort -s -n -k 1,1 | cut -d' ' -f2
}

# platforms: the requested back ends that TESTS run on
platforms()
{
	local p

	for p in ${PLATFORM:-$PLATFORMS_ALL}; do
		[[ -z $(tests_on "$p")$(skipped_tests "$p") ]] || echo "$p"
	done
}

# gather WHOSE: all results in the order of the table
gather()
{
	local p t

	for p in $(platforms); do
		if [[ " ${SKIPPED[*]-} " = *" $p "* ]]; then
			for t in $(tests_on "$p"); do
				printf '%s\t%s\tskip\tBochs is not installable\n' "$p" "$t"
			done
		else
			cat "$RESULTS/$1/$p/results"
		fi
	done
}

verb_test()
{
	local lab

	check_input
	if [[ -z ${TESTS-} && $BASE_SERIES = 6.12 ]]; then
		# The lab's tests need what a build does.
		need build bats
		note "run the lab's tests in the background"
		start_in lab lab_tests
		lab=1 BACKGROUND=(lab)
	fi
	all_platforms ours
	{
		gather ours
		[[ -z ${lab-} ]] || cat "$RESULTS/lab/results"
	} | report
}

# verb_test_variant VARIANT: the same tests on that kernel, on one back end of each
# architecture. KVM needs a constant TSC on PREEMPT_RT: QEMU's CPUs have none, Bochs' has.
verb_test_variant()
{
	VARIANT=$1
	case $1 in
	rt) PLATFORM=${PLATFORM:-vmx vhe} ;;
	*)  PLATFORM=${PLATFORM:-svm vhe} ;;
	esac
	check_input
	all_platforms ours
	gather ours | report
}

# report: the table of the results on standard input, what failed, the exit status
report()
{
	local p all=$RESULTS/all base

	cat >"$all"
	base
	base=$(base_results)
	if ! table "$([[ ! -e $base ]] || echo "$base")" <"$all"; then
		for p in $(platforms); do
			! grep -q $'\tfail\t' "$RESULTS/ours/$p/results" 2>/dev/null || show_failure "$p" ours >&2
		done
		# The closing line stays the last.
		table <"$all" | tail -n 1
		exit 1
	fi
}

# The place of the base's results: named after their inputs.
base_results()
{
	local key

	key=$({ echo "$BASE_VERSION ${VARIANT-}"; cat "$TOP/lab/run/tests.list" "$TOP/lab/guest/init"
		cat "$TOP"/tools/testing/selftests/kvm/*/gpc* 2>/dev/null || :; } | digest)
	echo "$CACHE/base-results/$BASE_VERSION-$key"
}

verb_base_test()
{
	local file

	check_input
	need build
	base
	file=$(base_results)
	if [[ -e $file && -z ${TESTS-}${PLATFORM-} ]]; then
		note "kept results of the unpatched base $BASE_VERSION:"
	else
		all_platforms base
		gather base >"$RESULTS/base/all"
		# Keep only complete results.
		if [[ -z ${TESTS-}${PLATFORM-} ]] &&
		   ! grep -q $'\tboot\tfail\t' "$RESULTS/base/all"; then
			mkdir -p "${file%/*}"
			cp "$RESULTS/base/all" "$file.tmp"
			mv "$file.tmp" "$file"
		fi
		file=$RESULTS/base/all
	fi
	table <"$file"
}
