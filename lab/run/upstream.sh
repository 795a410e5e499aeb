# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make test-upstream: every KVM selftest of the base, on the unpatched base and here,
# side by side. What passes there must pass here.

UPSTREAM=$BUILD/upstream

# upstream_list ARCH...: in the form of lab/run/tests.list: the base's tests as kselftest
# has them installed (but for the one that is a script and changes module parameters),
# where each runs, and lab/known/upstream.list's short forms
upstream_list()
{
	local arch platforms

	for arch; do
		platforms=svm,vmx
		[[ $arch != arm64 ]] || platforms=vhe,nvhe
		sed "/\.sh\$/d; s|^kvm:||; s|\$| $platforms|" "$BUILD/selftests.$arch/install/kselftest-list.txt"
	done | awk -v own="$(upstream_own)" '
		BEGIN { n = split(own, t, " "); for (i = 1; i <= n; i++) skip[t[i]] = 1 }
		FILENAME != "-" { if (/^[a-z]/) { name = $1; sub(/^[^ \t]+[ \t]*/, ""); args[name] = $0 } else if (/^!/) print; next }
		$1 in skip { next }
		!($1 in on) { order[++k] = $1; on[$1] = $2; next }
		{ on[$1] = on[$1] "," $2 }
		END { for (i = 1; i <= k; i++) print order[i], on[order[i]], args[order[i]] }
		' "$TOP/lab/known/upstream.list" -
}

# upstream_own: the tests that the series adds
upstream_own()
{
	(cd "$TOP/tools/testing/selftests/kvm" && find . -name '*.c' | sed 's|.*/||; s|\.c$||') | xargs
}

# upstream_table BASE OURS LIST: the results side by side, and the closing line; fails if
# something passes on the base and does not here, but for what LIST says may
upstream_table()
{
	awk -F'\t' '
		FILENAME == ARGV[3] {
			if (/^[?]/) {
				split(substr($0, 2), f, " ")
				may[f[1], f[2]] = substr($0, length(f[1] f[2]) + 4)
			}
			next
		}
		FILENAME == ARGV[1] { base[$1, $2] = $3 }
		FILENAME == ARGV[2] { ours[$1, $2] = $3; why[$1, $2] = $4 }
		{
			if (!($2 in row)) { row[$2] = 1; test[++n] = $2; if (length($2) > w) w = length($2) }
			if (!($1 in col)) { col[$1] = 1; be[++m] = $1 }
		}
		END {
			if (w < 9) w = 9
			printf "%-" w "s", "base/here"
			for (j = 1; j <= m; j++) printf "  %-9s", be[j]
			print ""
			for (i = 1; i <= n; i++) {
				printf "%-" w "s", test[i]
				for (j = 1; j <= m; j++) {
					b = base[be[j], test[i]]; o = ours[be[j], test[i]]
					if (b == "" && o == "") { printf "  %-9s", "-"; continue }
					if (b == "") b = "none"
					if (o == "") o = "none"
					printf "  %-9s", b == o ? b : b "/" o
					both[j]++
					if (b == "pass") passed[j]++
					if (b == "pass" && o == "fail" && (be[j], test[i]) in may)
						said[++l] = test[i] " on " be[j] ": fail here, but it " may[be[j], test[i]]
					else if (b == "pass" && o != "pass")
						worse[++k] = test[i] " on " be[j] ": " b " on the base, " o " here: " why[be[j], test[i]]
					if (b != "pass" && o == "pass") better[j]++
				}
				print ""
			}
			print ""
			for (j = 1; j <= m; j++)
				printf "%s: %d tests and cases, %d pass on the base, %d pass only here\n", be[j], both[j], passed[j], better[j]
			for (i = 1; i <= l; i++) print said[i]
			for (i = 1; i <= k; i++) print worse[i]
			printf "%d worse than on the base\n", k
			exit k > 0 || n == 0
		}' "$1" "$2" "$3"
}

verb_upstream()
{
	local arch p whose
	local -a archs

	# shellcheck disable=SC2034 # for test.sh and build.sh
	RESULTS=$UPSTREAM SELFTESTS_ALL=1
	TESTS_LIST=$UPSTREAM/tests.list
	TEST_LIMIT=${TEST_LIMIT:-120} BOOT_LIMIT=${BOOT_LIMIT:-5400}
	PLATFORM=${PLATFORM:-svm vmx vhe nvhe}
	mkdir -p "$UPSTREAM"
	need build
	base
	mapfile -t archs < <(for p in $PLATFORM; do platform_arch "$p"; done | sort -u)
	for arch in "${archs[@]}"; do
		[[ $arch != arm64 ]] || need arm64
		selftests "$arch"
	done
	upstream_list "${archs[@]}" >"$TESTS_LIST"
	check_input
	for whose in base ours; do
		note "$whose:"
		all_platforms "$whose"
		gather "$whose" >"$UPSTREAM/$whose/all"
	done
	upstream_table "$UPSTREAM/base/all" "$UPSTREAM/ours/all" "$TOP/lab/known/upstream.list" >"$UPSTREAM/table.txt" || {
		cat "$UPSTREAM/table.txt"
		die "make test-upstream: see above; consoles and logs are in $UPSTREAM"
	}
	cat "$UPSTREAM/table.txt"
}
