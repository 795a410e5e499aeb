# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make bench: the cost of the cache, unpatched and patched. Boot the stock kernel with
# Debian's modules and with ours on an emulator that counts instructions, each twice: the
# figures must repeat exactly. On arm64, and where the base has no stock kernel, boot two
# built kernels.

BENCH_ON=${PLATFORM:-svm}
BENCH_SUFFIX=.$BENCH_ON
[[ $BENCH_ON != svm ]] || BENCH_SUFFIX=
BENCH=$BUILD/bench$BENCH_SUFFIX
BENCH_LIST=$TOP/lab/bench/$BENCH_ON.list
BENCH_RECORD=$TOP/lab/bench/$BENCH_ON.recorded
BENCH_TITLE="make bench"
[[ $BENCH_ON = svm ]] || BENCH_TITLE+=" PLATFORM=$BENCH_ON"
if [[ $BASE_SERIES != 6.12 ]]; then
	BENCH_RECORD=$TOP/lab/bench/$BENCH_ON.$BASE_SERIES.recorded
	BENCH_TITLE+=" BASE=$BASE_SERIES"
fi

# bench_figures KTAP: "NAME VALUE" of a run
bench_figures()
{
	tr -d '\r' <"$1" | awk '
		/^# # [a-z0-9_]+ -?[0-9]+ (instructions|ticks)$/ {
			if ($5 != "instructions") exit 1
			print $3, $4
		}'
}

# bench_size OBJECT: "memory" and the bytes of a cache
bench_size()
{
	pahole -C gfn_to_pfn_cache "$1" | sed -n 's|.*/\* size: \([0-9]*\),.*|memory \1|p'
}

# bench_boot base|ours N: boot, fill build/bench/WHOSE.N
bench_boot()
{
	local dir=$BENCH/$1.$2 bad kernel

	mkdir -p "$dir"
	: >"$dir/ktap"
	: >"$dir/console"
	kernel=$(kernel_of "$(bench_variant)" "${1/ours/}")
	# Both with the base's memory.
	boot_limited 1500 "$BENCH_ON" "$kernel" "$BENCH/$1.initrd" "$dir" base
	# shellcheck disable=SC2046
	bad=$(splats "$BENCH_ON" "$dir/console"
		ktap "$BENCH_ON" "$dir/ktap" $(bench_programs "$BENCH_ON") | grep -v $'\tpass\t' || :)
	[[ -z $bad ]] || die "the boot of $1 failed, see $dir: $(head -n 1 <<<"$bad")"
	bench_figures "$dir/ktap" >"$dir/figures" ||
		die "this emulator's clock does not count instructions"
}

# The kernel of the benchmark
bench_variant()
{
	variant_of "$BENCH_ON"
}

# bench_list: the cases of this base. A built kernel has no debug information, so no
# sizes.
bench_list()
{
	of_this_base <"$BENCH_LIST" |
		if [[ $(bench_variant) = stock ]]; then cat; else sed '/^memory /d'; fi
}

bench_count()
{
	local whose n pid rc=0
	local -a boots
	local -x ACCEL=icount

	rm -rf "$BENCH"
	mkdir -p "$BENCH"
	for whose in base ours; do
		# shellcheck disable=SC2046
		job "$BENCH_ON" 1400 $(bench_programs "$BENCH_ON") >"$BENCH/$whose.initrd.job"
		job_initramfs "$BENCH_ON" "$(bench_variant)" "$whose" "$BENCH/$whose.initrd"
	done
	for n in 1 2; do
		boots=()
		for whose in base ours; do
			bench_boot "$whose" "$n" &
			boots+=($!)
		done
		for pid in "${boots[@]}"; do
			wait "$pid" || rc=1
		done
		[[ $rc -eq 0 ]] || exit 1
	done
	for whose in base ours; do
		diff "$BENCH/$whose".[12]/figures ||
			die "the figures of two boots of $whose differ: $BENCH/$whose.[12]"
		cp "$BENCH/$whose.1/figures" "$BENCH/$whose"
	done
	if [[ $(bench_variant) = stock ]]; then
		bench_size "$STOCK_HEADERS/vmlinux" >>"$BENCH/base"
		bench_size "$(modules_dir stock)/src/arch/x86/kvm/kvm.ko" >>"$BENCH/ours"
	fi
	rm -f "$BENCH"/*.initrd*
}

# bench_plot: build/bench/invalidation.svg
bench_plot()
{
	awk '
		FNR == NR { base[$1] = $2; next }
		$1 == "none" { print 0, base[$1], $2; b = base[$1]; o = $2 }
		/^miss_[0-9]/ { n = $1; sub("miss_", "", n); print n, b + base[$1], o + $2 }' \
		"$BENCH/base" "$BENCH/ours" >"$BENCH/invalidation"
	gnuplot <<-END
		set terminal svg size 720,400 font "sans-serif,13" background "white"
		set output "$BENCH/invalidation.svg"
		set title "One invalidation that hits nothing"
		set xlabel "active caches"
		set ylabel "thousand instructions"
		set xrange [0:5120]
		set xtics 1024
		set grid
		set key top left
		plot "$BENCH/invalidation" using 1:(\$2 / 1000) with linespoints title "Linux $BASE_SERIES", \
			"" using 1:(\$3 / 1000) with linespoints title "with the series"
	END
}

# Figures are comparable for the same kernel and QEMU only. The features of QEMU's "max"
# CPU differ between versions, and the kernel runs other code for them.
bench_key()
{
	local kernel=${KREL-} qemu=qemu-system-x86_64

	[[ $(bench_variant) = stock ]] || kernel=$BASE_VERSION
	[[ $BENCH_ON = svm ]] || qemu="qemu-system-aarch64"
	echo "Linux $kernel, QEMU $($qemu --version | sed -n 's/.* version \([0-9]*\.[0-9]*\).*/\1/p')"
}

# bench_recorded: the file to compare with, or nothing and why
bench_recorded()
{
	local key

	key=$(bench_key)
	if [[ ! -e $BENCH_RECORD ]]; then
		note "no figures are recorded (make bench RECORD=1)" >&2
	elif [[ $(head -n 1 "$BENCH_RECORD") != "# $key" ]]; then
		note "not compared with the recorded figures, which are for $(sed 's/^# //; q' "$BENCH_RECORD"); this is $key" >&2
	else
		echo "$BENCH_RECORD"
	fi
}

# bench_record: record our figures; table and plot go into docs/figures.md
bench_record()
{
	local key plot=""

	key=$(bench_key)
	{ echo "# $key"; cat "$BENCH/ours"; } >"$BENCH_RECORD"
	if [[ $(bench_variant) = stock ]]; then
		cp "$BENCH/invalidation.svg" "$TOP/docs/bench.svg"
		plot='\n\n![Cost of an invalidation by the number of caches](bench.svg)'
	fi
	awk -v key="$key" -v date="$(date +%F)" -v table="$BENCH/table.txt" -v title="$BENCH_TITLE" -v plot="$plot" '
		/^<!-- end of the figures -->/ { skip = 0 }
		!skip
		$0 == "<!-- figures: " title " RECORD=1 -->" {
			print "Recorded " date ": " key ".\n\n```"
			while ((getline line < table) > 0) print line
			print "```" plot
			skip = 1
		}' "$TOP/docs/figures.md" >"$BENCH/figures.md"
	cp "$BENCH/figures.md" "$TOP/docs/figures.md"
	note "recorded in ${BENCH_RECORD#"$TOP"/} and docs/figures.md"
}

verb_bench()
{
	local rc=0 recorded=

	case "$BENCH_ON ${VARIANT:-default} ${ACCEL:-tcg}" in
	"svm default tcg"|"svm stock tcg"|"nvhe default tcg"|"nvhe arm64 tcg"|"vhe default tcg"|"vhe arm64 tcg") ;;
	*) die "make bench is for PLATFORM=svm, nvhe or vhe, with their default kernel and ACCEL=tcg: it compares with the base" ;;
	esac
	[[ -n $(of_this_base <"$BENCH_LIST" | sed '/^#/d') ]] ||
		die "make bench PLATFORM=$BENCH_ON has no figures of BASE=$BASE_SERIES"
	need build "${BENCH_ON/*vhe/arm64}" bench
	prepare "$BENCH_ON" ours
	[[ $(bench_variant) = stock ]] || kernel "$(bench_variant)" base
	step bench "boot $BENCH_ON with the base's KVM and ours, twice" bench_count
	[[ -n ${RECORD-} ]] || recorded=$(bench_recorded)
	results bench <(bench_list) "$BENCH/base" "$BENCH/ours" ${recorded:+"$recorded"} >"$BENCH/table.txt" || rc=1
	[[ $BENCH_ON != svm ]] || step bench-plot "plot build/bench/invalidation.svg" bench_plot
	cat "$BENCH/table.txt"
	[[ -z ${RECORD-} ]] || bench_record
	[[ $rc -eq 0 ]] || die "make bench: cases are worse than they may be; see above"
}
