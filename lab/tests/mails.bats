#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# make series: mails for git am, with a cover letter.
load helper

setup()
{
	series_setup
}

mails()
{
	run lab "$STUB verb_series"
}

# am MAIL...: onto the base, in a clone of it
am()
{
	rm -rf "$TMP/am"
	git clone -q "$BASE" "$TMP/am"
	git -C "$TMP/am" am -q "$@"
}

top_of_series()
{
	lab "$STUB series_commits $BASE" | awk 'END { print $2 }'
}

@test "mails: git am of them on the base gives the series, byte for byte" {
	mails
	assert_success
	am "$BUILD"/series/000[1-9]-*.patch
	top=$(top_of_series)
	assert_equal "$(git -C "$TMP/am" rev-parse 'HEAD^{tree}')" "$(git -C "$BASE" rev-parse "$top^{tree}")"
	assert_equal "$(git -C "$TMP/am" log --format='%an %ae%n%B' origin/base..)" \
		"$(git -C "$BASE" log --format='%an %ae%n%B' "base..$top")"
}

@test "mails: the command that is printed applies all of more than nine" {
	for i in 4 5 6 7 8 9 10 11; do
		printf 'Subject: KVM: Step %d\n\nWhy.\n---\n' "$i" >"$TOP/patches/6.12/$i.patch"
		printf 'diff --git a/new%d b/new%d\nnew file mode 100644\n--- /dev/null\n+++ b/new%d\n@@ -0,0 +1 @@\n+x\n' \
			"$i" "$i" "$i" >>"$TOP/patches/6.12/$i.patch"
		echo "$i.patch" >>"$TOP/patches/6.12/series"
	done
	mails
	assert_success
	assert_output --partial 'git am '
	git clone -q "$BASE" "$TMP/am"
	eval "cd '$TOP'; set -- $(sed -n 's/.*git am \(.*\), on Linux.*/\1/p' <<<"$output")"
	printf '%s\n' "$@"
	git -C "$TMP/am" am -q "${@/#build/$BUILD}"
	assert_equal "$(git -C "$TMP/am" rev-list --count origin/base..)" 11
}

@test "mails: the cover letter is filled in from patches/cover" {
	mails
	cover=$BUILD/series/0000-cover-letter.patch
	grep -qx 'Subject: \[PATCH 0/3\] KVM: a cache of guest pages' "$cover"
	assert_equal "$(sed -n '/^This series/,/^It is/p' "$cover")" $'This series is about caches.\n\nIt is short.'
	assert_equal "$(grep -c 'HERE' "$cover" || :)" 0
	grep -q '^  KVM: pfncache: Write it anew$' "$cover"
	grep -qx "Base: v[0-9.]* of linux-stable, as it is in Debian's linux-source-6.12 $BASE_VERSION" "$cover"
	assert_equal "$(grep -c '^base-commit: ' "$cover" || :)" 0
}

@test "mails: the cover's subject is taken as it stands" {
	sed -i '1s/.*/KVM: caches \& clocks/' "$TOP/patches/cover"
	mails
	grep -qx 'Subject: \[PATCH 0/3\] KVM: caches & clocks' "$BUILD/series/0000-cover-letter.patch"
}

@test "mails: those of the last time do not stay" {
	mails
	sed -i '/^tests/d' "$TOP/patches/6.12/series"
	git -C "$TOP" rm -rq tools
	mails
	assert_success
	assert_equal "$(find "$BUILD/series" -type f | wc -l)" 3
	assert_equal "$(cd "$BUILD" && echo series*)" series
}

@test "mails: an overlay file that no patch adds is refused" {
	echo x >"$TOP/virt/kvm/stray.c"
	mails
	bad virt/kvm/stray.c
	assert_not_exists "$BUILD/series"
}

@test "mails: the user's own settings of git leave them alone" {
	git config --global diff.noprefix true
	git config --global format.signOff true
	git config --global format.attach true
	mails
	assert_success
	am "$BUILD"/series/000[1-9]-*.patch
	top=$(top_of_series)
	assert_equal "$(git -C "$TMP/am" log --format=%B%T origin/base..)" "$(git -C "$BASE" log --format=%B%T "base..$top")"
}
