#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# patches/6.12/series as commits on the base.
load helper

setup()
{
	series_setup
}

commits()
{
	run lab "$STUB series_commits $BASE"
}

# commit PATCH: its commit, of the last run
commit()
{
	awk -v p="$1" '$1 == p { print $2 }' <<<"$output"
}

show()
{
	git -C "$BASE" show "$@"
}

@test "series: one commit for each entry, in order, comments aside" {
	commits
	assert_success
	assert_equal "$(awk '{ print $1 }' <<<"$output")" $'one.patch\ntwo.patch\ntests.patch'
	assert_equal "$(git -C "$BASE" log --reverse --format=%s "base..$(commit tests.patch)")" \
		$'KVM: pfncache: Write it anew\nKVM: x86: Use it\nKVM: selftests: Test it'
}

@test "series: the message is subject, body and sign-off, nothing else" {
	commits
	assert_equal "$(git -C "$BASE" log -1 --format=%B "$(commit one.patch)")" \
		$'KVM: pfncache: Write it anew\n\nIt was slow.\n\nNow it is quick.\n\nSigned-off-by: Ann Author <ann@example.org>'
}

@test "series: the sign-off joins the trailers that the patch has" {
	sed -i '/^Now it is/s/$/\n\nFixes: 123456789abc ("KVM: something")\nReviewed-by: B <b@example.org>/' \
		"$TOP/patches/6.12/one.patch"
	commits
	assert_equal "$(git -C "$BASE" log -1 --format=%B "$(commit one.patch)" | git interpret-trailers --parse)" \
		$'Fixes: 123456789abc ("KVM: something")\nReviewed-by: B <b@example.org>\nSigned-off-by: Ann Author <ann@example.org>'
}

@test "series: each commit has its patch and not the next one's" {
	commits
	assert_equal "$(git -C "$BASE" diff --name-only base "$(commit one.patch)" | xargs)" \
		"include/linux/kvm_gpc.h include/linux/kvm_host.h virt/kvm/kvm_main.c virt/kvm/pfncache.c"
	assert_equal "$(git -C "$BASE" diff --name-only "$(commit one.patch)" "$(commit two.patch)" | xargs)" \
		"arch/x86/kvm/x86.c virt/kvm/kvm_main.c"
	assert_equal "$(show "$(commit one.patch):virt/kvm/kvm_main.c" | sed -n '5p;25p')" $'main five\nmain 25'
	assert_equal "$(show "$(commit two.patch):virt/kvm/kvm_main.c" | sed -n '5p;25p')" $'main five\nmain twenty-five'
}

@test "series: overlay files land with the commit that adds them" {
	commits
	assert_equal "$(show "$(commit one.patch):virt/kvm/pfncache.c")" "our cache"
	assert_equal "$(show "$(commit one.patch):include/linux/kvm_gpc.h")" "/* the interface */"
	assert_equal "$(git -C "$BASE" ls-tree -r --name-only "$(commit two.patch)" tools)" tools/testing/selftests/kvm/Makefile
	assert_equal "$(show "$(commit tests.patch):tools/testing/selftests/kvm/gpc.sh")" "echo tested"
}

@test "series: overlay files keep their exec bit" {
	commits
	assert_equal "$(git -C "$BASE" ls-tree -r --format='%(objectmode) %(path)' "$(commit tests.patch)" \
		include/linux/kvm_gpc.h tools/testing/selftests/kvm/gpc.sh scripts)" \
		$'100644 include/linux/kvm_gpc.h\n100755 scripts/old.sh\n100755 tools/testing/selftests/kvm/gpc.sh'
}

@test "series: the same files give the same commits, at any time, in any repository" {
	commits
	first=$output
	assert_equal "$(git -C "$BASE" log -1 --format='%at %ct' "$(commit tests.patch)")" "1580702706 1580702706"
	git clone -q --bare "$BASE" "$TMP/other.git"
	touch "$TOP"/virt/kvm/* "$TOP"/patches/6.12/*
	GIT_AUTHOR_DATE=2001-01-01T00:00:00Z run lab "$STUB series_commits $TMP/other.git"
	assert_equal "$output" "$first"
}

@test "series: commits are made where the repository has none yet, and no name is set" {
	rm -rf "$TOP/.git"
	git init -q "$TOP"
	: >"$GIT_CONFIG_GLOBAL"
	commits
	assert_success
	assert_equal "$(git -C "$BASE" log -1 --format='%an %ct' "$(commit tests.patch)")" "kvm-gpc 0"
}

@test "series: nothing but objects changes in the repository, and no index stays" {
	before=$(cd "$BASE" && git for-each-ref && cat HEAD && find . -maxdepth 1 | sort)
	commits
	assert_success
	assert_equal "$(cd "$BASE" && git for-each-ref && cat HEAD && find . -maxdepth 1 | sort)" "$before"
	assert_not_exists "$BUILD/series.index"
}

@test "series: a patch that does not apply is named, with file and base" {
	sed -i 's/^-main 25$/-main 26/' "$TOP/patches/6.12/two.patch"
	commits
	bad two.patch virt/kvm/kvm_main.c "$BASE_VERSION"
	refute_output --partial tests.patch
}

@test "series: a patch to a file that the base has not is named, with file and base" {
	sed -i 's|arch/x86/kvm/x86.c|arch/x86/kvm/none.c|' "$TOP/patches/6.12/two.patch"
	commits
	bad two.patch arch/x86/kvm/none.c "$BASE_VERSION"
}

@test "series: a patch that makes a file that the base has is named, with file and base" {
	printf 'diff --git a/Kbuild b/Kbuild\nnew file mode 100644\n--- /dev/null\n+++ b/Kbuild\n@@ -0,0 +1 @@\n+x\n' \
		>>"$TOP/patches/6.12/two.patch"
	commits
	bad two.patch Kbuild "$BASE_VERSION"
}

@test "series: a patch that is cut off is named" {
	sed -i '$d' "$TOP/patches/6.12/two.patch"
	commits
	bad two.patch corrupt
}

@test "series: a diff in quilt's plain form is applied or refused, not dropped" {
	sed -i '/^diff --git /d' "$TOP/patches/6.12/two.patch"
	commits
	if [[ $status -eq 0 ]]; then
		assert_equal "$(show "$(commit two.patch):arch/x86/kvm/x86.c" | sed -n 10p)" "x86 ten"
		assert_equal "$(git -C "$BASE" log -1 --format=%b "$(commit two.patch)" | grep -c '^[-+]' || :)" 0
	else
		bad two.patch
	fi
}

@test "series: an entry without its patch is named" {
	rm "$TOP/patches/6.12/two.patch"
	commits
	bad two.patch "patches/6.12/series"
}

@test "series: a patch without a subject is named" {
	sed -i '/^Subject: /d' "$TOP/patches/6.12/two.patch"
	commits
	bad two.patch Subject
}

@test "series: an overlay file that is not there is named, with its patch" {
	rm "$TOP/include/linux/kvm_gpc.h"
	commits
	bad one.patch include/linux/kvm_gpc.h
}

@test "series: a file that two patches add is named, with both" {
	sed -i 's|^The clock is.*|&\n\nAdds: virt/kvm/pfncache.c|' "$TOP/patches/6.12/two.patch"
	commits
	bad one.patch two.patch virt/kvm/pfncache.c
}

@test "series: overlay files that no patch adds are named" {
	echo x >"$TOP/virt/kvm/stray.c"
	run lab 'orphans_text'
	assert_output --partial virt/kvm/stray.c
	refute_output --partial pfncache.c
	rm "$TOP/virt/kvm/stray.c"
	run lab 'overlay_orphans'
	assert_equal "$output" ""
}
