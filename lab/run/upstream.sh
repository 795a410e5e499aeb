# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make test-upstream: every KVM selftest of the base, on the unpatched base and here,
# side by side. A test that passes there must pass here.

UPSTREAM=$BUILD/upstream

# upstream_list ARCH...: in the form of lab/run/tests.list: the base's tests as kselftest
# installs them (except the one that is a script and changes module parameters), the back
# ends of each, and the short forms of lab/known/upstream.list
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
	results upstream "$UPSTREAM/base/all" "$UPSTREAM/ours/all" "$TOP/lab/known/upstream.list" >"$UPSTREAM/table.txt" || {
		cat "$UPSTREAM/table.txt"
		die "make test-upstream: see above; consoles and logs are in $UPSTREAM"
	}
	cat "$UPSTREAM/table.txt"
}
