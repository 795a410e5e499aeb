#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# make refresh: edits to base files in the tree go back into patches/.
load helper

setup()
{
	tree_setup
	cp -r "$TOP/patches/6.12" "$TMP/patches.before"
}

refresh()
{
	before=$(content)
	run lab "$STUB verb_refresh"
}

edit()
{
	sed -i "$1" "$TREE/$2"
}

# changed: the patches that are not as they were
changed()
{
	diff -rq "$TMP/patches.before" "$TOP/patches/6.12" | sed 's/^Only in [^:]*: /new /; s/.* and .*\/\(.*\) differ/\1/' | xargs
}

# What the patches now make, which is what the tree holds afterwards, is what was
# edited.
taken()
{
	assert_success
	diff <(echo "$before") <(content)
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

content()
{
	cd "$TREE" || return
	find . -name .git -prune -o ! -type d -printf '%p %m\n' | sort
	find . -name .git -prune -o ! -type d -print | sort | xargs sha1sum
}

@test "refresh: without a tree it says what makes one" {
	rm -rf "$TREE"
	run lab "$STUB verb_refresh"
	bad "make tree"
}

@test "refresh: without edits nothing happens" {
	refresh
	assert_success
	assert_output --partial nothing
	assert_equal "$(changed)" ""
}

@test "refresh: an edit goes into the last patch that touches the file" {
	edit 's/^main 26$/main twenty-six/; s/^main five$/main FIVE/' virt/kvm/kvm_main.c
	refresh
	taken
	assert_output --partial two.patch
	assert_equal "$(changed)" two.patch
	assert_equal "$(sed -n '5p;25,26p' "$TREE/virt/kvm/kvm_main.c")" $'main FIVE\nmain twenty-five\nmain twenty-six'
}

@test "refresh: a tree made from nothing has the edits, and nothing is left to refresh" {
	edit 's/^main 26$/main twenty-six/' virt/kvm/kvm_main.c
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	refresh
	taken
	cp -r "$TOP/patches/6.12" "$TMP/patches.after"
	rm -rf "$TREE"
	lab "$STUB tree"
	assert_equal "$(content)" "$before"
	refresh
	assert_output --partial nothing
	diff -r "$TMP/patches.after" "$TOP/patches/6.12"
}

@test "refresh: edits go each into its own patch" {
	edit 's/^x86 20$/x86 twenty/' arch/x86/kvm/x86.c
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	refresh
	taken
	assert_equal "$(changed)" "one.patch two.patch"
	grep -q '^+x86 twenty$' "$TOP/patches/6.12/two.patch"
	grep -q '^+host twenty$' "$TOP/patches/6.12/one.patch"
}

@test "refresh: the patch keeps its header, and what it did to other files" {
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	refresh
	assert_equal "$(sed '/^---$/q' "$TOP/patches/6.12/one.patch")" "$(sed '/^---$/q' "$TMP/patches.before/one.patch")"
	grep -q '^+host ten$' "$TOP/patches/6.12/one.patch"
	grep -q '^+main five$' "$TOP/patches/6.12/one.patch"
}

@test "refresh: the overlay stays out of the patches" {
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	echo edited >>"$TREE/virt/kvm/pfncache.c"
	refresh
	taken
	assert_equal "$(grep -hc pfncache.c "$TOP"/patches/6.12/one.patch)" 1
	assert_equal "$(cat "$TOP/virt/kvm/pfncache.c")" $'our cache\nedited'
}

@test "refresh: an edit taken back takes the file out of the patch" {
	edit 's/^host ten$/host 10/' include/linux/kvm_host.h
	refresh
	taken
	assert_equal "$(grep -c kvm_host.h "$TOP/patches/6.12/one.patch" || :)" 0
}

@test "refresh: a file that no patch touches wants PATCH" {
	edit "\$a more" Kbuild
	refresh
	bad Kbuild PATCH=
	assert_equal "$(changed)" ""
	assert_equal "$(tail -n 1 "$TREE/Kbuild")" more
}

@test "refresh: PATCH takes a file that no patch touched" {
	edit "\$a more" Kbuild
	PATCH=one.patch refresh
	taken
	assert_equal "$(changed)" one.patch
	grep -q '^+more$' "$TOP/patches/6.12/one.patch"
}

@test "refresh: PATCH may be later than the last patch that touches the file" {
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	PATCH=two.patch refresh
	taken
	assert_equal "$(changed)" two.patch
}

@test "refresh: PATCH is refused where a later patch touches the file" {
	edit 's/^main five$/main FIVE/' virt/kvm/kvm_main.c
	PATCH=one.patch refresh
	bad virt/kvm/kvm_main.c two.patch one.patch
	assert_equal "$(changed)" ""
	grep -q '^main FIVE$' "$TREE/virt/kvm/kvm_main.c"
}

@test "refresh: an unknown PATCH is refused" {
	edit 's/^main five$/main FIVE/' virt/kvm/kvm_main.c
	PATCH=none.patch refresh
	bad PATCH=none.patch patches/6.12/series
	assert_equal "$(changed)" ""
}

@test "refresh: an entry that is new, with a subject only, takes edits" {
	echo three.patch >>"$TOP/patches/6.12/series"
	printf 'Subject: KVM: More\n\nMore.\n' >"$TOP/patches/6.12/three.patch"
	edit "\$a more" Kbuild
	PATCH=three.patch refresh
	taken
	assert_equal "$(git -C "$TREE" log -1 --format=%s)" "KVM: More"
	assert_equal "$(git -C "$TREE" show --format= --name-only)" Kbuild
}

@test "refresh: a file added to git goes into PATCH, with its exec bit" {
	echo 'echo new' >"$TREE/scripts/new.sh"
	chmod +x "$TREE/scripts/new.sh"
	echo new >"$TREE/scripts/new.txt"
	git -C "$TREE" add scripts
	PATCH=two.patch refresh
	taken
	assert_equal "$(git -C "$TREE" ls-files -s scripts | awk '{ print $1, $4 }')" \
		$'100755 scripts/new.sh\n100644 scripts/new.txt\n100755 scripts/old.sh'
}

@test "refresh: a new file that git does not know yet is taken or refused, not passed over" {
	echo new >"$TREE/scripts/new.txt"
	PATCH=two.patch refresh
	assert_output --partial scripts/new.txt
	[[ -e $TREE/scripts/new.txt ]]
}

@test "refresh: a deleted file is deleted by the patch" {
	rm "$TREE/scripts/old.sh"
	PATCH=two.patch refresh
	taken
	grep -q '^deleted file mode 100755$' "$TOP/patches/6.12/two.patch"
	assert_not_exists "$TREE/scripts/old.sh"
}

@test "refresh: a mode that changed is in the patch" {
	chmod -x "$TREE/scripts/old.sh"
	PATCH=two.patch refresh
	taken
	grep -q '^new mode 100644$' "$TOP/patches/6.12/two.patch"
}

@test "refresh: with edits in the tree and patches changed, it refuses and loses neither" {
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	cp "$TOP/patches/6.12/two.patch" "$TMP/patches.before/"
	refresh
	bad patches/ build/tree
	assert_equal "$(changed)" ""
	grep -q '^host twenty$' "$TREE/include/linux/kvm_host.h"
}

@test "refresh: the user's own settings of git diff leave the patches alone" {
	git config --global diff.noprefix true
	git config --global diff.context 1
	git config --global color.ui always
	edit 's/^host 20$/host twenty/' include/linux/kvm_host.h
	refresh
	taken
	grep -qxF -- '--- a/include/linux/kvm_host.h' "$TOP/patches/6.12/one.patch"
}

@test "refresh: what is said between the message and the diff stays" {
	sed -i 's/^---$/---\nv2: new words/' "$TOP/patches/6.12/one.patch"
	echo "/* mine */" >>"$TREE/include/linux/kvm_host.h"
	refresh
	taken
	grep -qx 'v2: new words' "$TOP/patches/6.12/one.patch"
}
