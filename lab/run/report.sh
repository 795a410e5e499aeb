# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make report: one HTML page with the results of the last runs.

# The last result of each test on each back end and kernel: MATRIX/BACKEND.KERNEL
MATRIX=$BUILD/matrix

# matrix_keep RESULTS BACKEND KERNEL: replace the last results of these tests
matrix_keep()
{
	mkdir -p "$MATRIX"
	results keep "$1" "$MATRIX/$2.$3"
}

report_write()
{
	"$TOP/lab/run/report.py" "$BUILD" "series $(git -C "$TOP" describe --always --dirty) on Linux $BASE_VERSION; $(
		qemu-system-x86_64 --version | sed -n '1s/ (.*//p')."
}

verb_report()
{
	[[ -e $MATRIX || -e $BUILD/upstream/table.txt || -e $BUILD/bench/table.txt ]] ||
		die "nothing to report yet: make test, make test-upstream and make bench leave their results in build/"
	base
	into "$BUILD/report.html" report_write
	note "$BUILD/report.html"
}
