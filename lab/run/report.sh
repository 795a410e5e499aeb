# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make report: one HTML page, that needs nothing else, of what the last runs said.

# The last result of each test on each back end and kernel: MATRIX/BACKEND.KERNEL
MATRIX=$BUILD/matrix

# matrix_keep RESULTS BACKEND KERNEL: the run's results in place of those tests' last
matrix_keep()
{
	local file=$MATRIX/$2.$3

	mkdir -p "$MATRIX"
	touch "$file"
	awk -F'\t' '
		function name(s) { sub(/: .*/, "", s); return s }
		FNR == NR { new[name($2)] = 1; line[++n] = $0; next }
		!(name($2) in new)
		END { for (i = 1; i <= n; i++) print line[i] }' "$1" "$file" >"$file.tmp"
	mv "$file.tmp" "$file"
}

html_escape()
{
	sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'
}

report_head()
{
	cat <<-END
		<!DOCTYPE html>
		<html lang="en"><head><meta charset="utf-8">
		<meta name="viewport" content="width=device-width, initial-scale=1">
		<title>kvm-gpc: report</title>
		<style>
		body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #222; background: #fff }
		h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2rem }
		.wide { overflow-x: auto }
		table { border-collapse: collapse; font-size: .875rem }
		th, td { padding: .2rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #ddd }
		td.n { text-align: right; font-variant-numeric: tabular-nums }
		.pass { background: #e3f4e1 } .fail { background: #f8d7d3; font-weight: bold } .skip { background: #fbf3d0 }
		svg { max-width: 100%; height: auto } ul { padding-left: 1.2rem; overflow-wrap: anywhere }
		.names td { white-space: normal } .names td:first-child { overflow-wrap: anywhere }
		@media (max-width: 40rem) { .names { font-size: .8rem } .names td, .names th { padding: .2rem } }
		</style></head><body>
		<h1>kvm-gpc: report</h1>
		<p>Written $(date +%F): series $(git -C "$TOP" describe --always --dirty) on Linux $BASE_VERSION;
		$(qemu-system-x86_64 --version | sed -n '1s/ (.*//p').</p>
	END
}

# report_matrix: tests by back ends and kernels, each cell the cases that passed
report_matrix()
{
	local files

	files=$(cd "$MATRIX" 2>/dev/null && ls) || return 0
	echo "<h2>Selftests</h2><p>Cases that passed, by back end and kernel; $(date -r "$MATRIX" +%F).</p>"
	# shellcheck disable=SC2086
	(cd "$MATRIX" && html_escape_files $files) | awk -F'\t' '
		$1 == "" { col[++m] = $2; next }
		{
			t = $2; sub(/: .*/, "", t)
			if (!(t in seen)) { seen[t] = 1; test[++n] = t }
			count[t, m, $3]++; all[t, m]++
			if ($3 != "pass") why[++k] = $3 ": " $2 " on " col[m] ($4 != "" ? ": " $4 : "")
		}
		END {
			printf "<div class=wide><table><tr><th>test"
			for (j = 1; j <= m; j++) printf "<th>%s", col[j]
			print ""
			for (i = 1; i <= n; i++) {
				printf "<tr><td>%s", test[i]
				for (j = 1; j <= m; j++) {
					a = all[test[i], j]; f = count[test[i], j, "fail"]; p = count[test[i], j, "pass"]
					if (!a) printf "<td>–"
					else if (f) printf "<td class=fail>%d of %d failed", f, a
					else if (!p) printf "<td class=skip>skipped"
					else if (p < a) printf "<td class=skip>%d of %d", p, a
					else printf "<td class=pass>%d", p
				}
				print ""
			}
			print "</table></div>"
			if (k) print "<ul>"
			for (i = 1; i <= k; i++) print "<li>" why[i]
			if (k) print "</ul>"
		}'
}

# html_escape_files FILE...: each behind a line that names it
html_escape_files()
{
	local f

	for f; do
		printf '\t%s\n' "${f/./, }"
		html_escape <"$f"
	done
}

# report_upstream: the closing lines, then the tests by back ends
report_upstream()
{
	[[ -e $BUILD/upstream/table.txt ]] || return 0
	echo "<h2>The base's own selftests</h2><p>On the unpatched base and here, $(date -r "$BUILD/upstream/table.txt" +%F).</p>"
	html_escape <"$BUILD/upstream/table.txt" | awk -F'  +' '
		/^$/ { below = 1; next }
		below { said = said "<li>" $0 "\n"; next }
		{
			rows = rows "<tr>"
			for (i = 1; i <= NF; i++) {
				class = ""
				if ($i ~ /^(fail|.*\/skip)$/) class = " class=skip"
				if ($i ~ /pass$/ && i > 1) class = " class=pass"
				if ($i ~ /\/(fail|none)$/) class = " class=fail"
				if (i > 1) sub("/", "/<wbr>", $i)
				if ($i != "") rows = rows (NR == 1 ? "<th>" : "<td" class ">") $i
			}
			rows = rows "\n"
		}
		END { printf "<ul>\n%s</ul>\n<div class=wide><table class=names>\n%s</table></div>\n", said, rows }'
}

# report_bench DIR TITLE: table and plots of a benchmark
report_bench()
{
	[[ -e $1/table.txt ]] || return 0
	echo "<h2>$2</h2><p>Instructions; $(date -r "$1/table.txt" +%F).</p><div class=wide><table class=names>"
	html_escape <"$1/table.txt" | awk '
		{ class = sub(/ +&lt;-$/, "") ? " class=fail" : "" }
		# Below the table is what is wrong, in words.
		!/ [0-9,a-z-]+ +[0-9,a-z-]+ +([0-9.]+|1\/[0-9]+|-|ratio)$/ { next }
		{
			text = $0
			sub(/ +[^ ]+ +[^ ]+ +[^ ]+$/, "", text)
			printf "<tr%s><td>%s<td class=n>%s<td class=n>%s<td class=n>%s\n", class, text, $(NF - 2), $(NF - 1), $NF
		}'
	echo "</table></div>"
	for svg in "$1"/*.svg; do
		[[ ! -e $svg ]] || sed '/^<?xml/d; /^<!DOCTYPE/,/>/d' "$svg"
	done
}

report_write()
{
	report_head
	report_matrix
	report_upstream
	report_bench "$BUILD/bench" "Cost of the cache (x86, SVM)"
	report_bench "$BUILD/bench.nvhe" "Stolen time, and a reset of the VM (arm64, nVHE)"
	echo "</body></html>"
}

verb_report()
{
	[[ -e $MATRIX || -e $BUILD/upstream/table.txt || -e $BUILD/bench/table.txt ]] ||
		die "nothing to report yet: make test, make test-upstream and make bench leave their results in build/"
	base
	into "$BUILD/report.html" report_write
	note "$BUILD/report.html"
}
