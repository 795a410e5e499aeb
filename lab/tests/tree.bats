#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# build/tree: the series on the base, the overlay files links to the repository's.
load helper

tree()
{
	run lab "$STUB tree"
}

@test "tree: base files are patched, overlay files are links to ours" {
	series_setup
	tree
	assert_success
	assert_equal "$(sed -n '5p;25p' "$TREE/virt/kvm/kvm_main.c")" $'main five\nmain twenty-five'
	for f in virt/kvm/pfncache.c include/linux/kvm_gpc.h tools/testing/selftests/kvm/gpc.sh; do
		assert_equal "$(readlink -f "$TREE/$f")" "$TOP/$f"
	done
	[[ ! -L $TREE/virt/kvm/kvm_main.c && -x $TREE/scripts/old.sh ]]
}

@test "tree: git has nothing to say of it" {
	series_setup
	tree
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
	assert_equal "$(git -C "$TREE" log --format=%s base..)" \
		$'KVM: selftests: Test it\nKVM: x86: Use it\nKVM: pfncache: Write it anew'
}

@test "tree: an edit of an overlay file is an edit of the repository's" {
	tree_setup
	echo edited >>"$TREE/virt/kvm/pfncache.c"
	assert_equal "$(cat "$TOP/virt/kvm/pfncache.c")" $'our cache\nedited'
	tree
	assert_success
	assert_equal "$(cat "$TREE/virt/kvm/pfncache.c")" $'our cache\nedited'
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: made again, it keeps the edits to base files" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	tree
	assert_success
	assert_equal "$output" ""
	assert_equal "$(tail -n 1 "$TREE/virt/kvm/kvm_main.c")" mine
}

@test "tree: it follows the patches" {
	tree_setup
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	tree
	assert_success
	assert_equal "$(sed -n 10p "$TREE/arch/x86/kvm/x86.c")" "x86 zehn"
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: an overlay file that leaves the series gives way to the base's" {
	tree_setup
	sed -i '/^Adds: virt/d' "$TOP/patches/6.12/one.patch"
	sed -i '/^tests/d' "$TOP/patches/6.12/series"
	tree
	assert_success
	[[ ! -L $TREE/virt/kvm/pfncache.c ]]
	assert_equal "$(cat "$TREE/virt/kvm/pfncache.c")" "the base's cache"
	assert_not_exists "$TREE/tools/testing/selftests/kvm/gpc.sh"
	assert_equal "$(readlink -f "$TREE/include/linux/kvm_gpc.h")" "$TOP/include/linux/kvm_gpc.h"
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: an overlay file that joins the series takes the base's place" {
	tree_setup
	echo 'our Kbuild' >"$TOP/Kbuild"
	sed -i 's/^Adds: .*/&\nAdds: Kbuild/' "$TOP/patches/6.12/tests.patch"
	tree
	assert_success
	assert_equal "$(readlink -f "$TREE/Kbuild")" "$TOP/Kbuild"
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: with edits in it and patches changed, it refuses and keeps the edits" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	tree
	bad virt/kvm/kvm_main.c refresh
	assert_equal "$(tail -n 1 "$TREE/virt/kvm/kvm_main.c")" mine
	assert_equal "$(sed -n 10p "$TREE/arch/x86/kvm/x86.c")" "x86 ten"
}

@test "tree: a series that fails leaves no tree behind" {
	series_setup
	sed -i 's/^-main 25$/-main 26/' "$TOP/patches/6.12/two.patch"
	tree
	bad two.patch virt/kvm/kvm_main.c "$BASE_VERSION"
	assert_not_exists "$TREE"
	tree
	bad two.patch
}

@test "tree: a series that fails leaves the last tree whole, and is not taken for made" {
	tree_setup
	sed -i 's/^-main 25$/-main 26/' "$TOP/patches/6.12/two.patch"
	tree
	bad two.patch
	assert_equal "$(sed -n '5p;25p' "$TREE/virt/kvm/kvm_main.c")" $'main five\nmain twenty-five'
	assert_equal "$(readlink -f "$TREE/virt/kvm/pfncache.c")" "$TOP/virt/kvm/pfncache.c"
	tree
	bad two.patch
}

@test "tree: one that was interrupted when new is made anew" {
	series_setup
	mkdir -p "$TREE/virt/kvm" "$TREE.tmp/.git"
	echo half >"$TREE/virt/kvm/kvm_main.c"
	tree
	assert_success
	assert_equal "$(sed -n '5p;25p' "$TREE/virt/kvm/kvm_main.c")" $'main five\nmain twenty-five'
	assert_not_exists "$TREE.tmp"
}

@test "tree: one that was interrupted between checkout and links is not trusted" {
	tree_setup
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	run lab "$STUB eval \"really_\$(declare -f tree_links)\"
		tree_links() { [[ \$2 != make ]] || exit 7; really_tree_links \"\$@\"; }; tree"
	[[ $status -ne 0 && ! -L $TREE/virt/kvm/pfncache.c ]]
	tree
	assert_success
	assert_equal "$(readlink -f "$TREE/virt/kvm/pfncache.c")" "$TOP/virt/kvm/pfncache.c"
	assert_equal "$(sed -n 10p "$TREE/arch/x86/kvm/x86.c")" "x86 zehn"
	assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: overlay files that no patch adds are left out, and said" {
	series_setup
	echo x >"$TOP/virt/kvm/stray.c"
	tree
	assert_success
	assert_output --partial virt/kvm/stray.c
	assert_not_exists "$TREE/virt/kvm/stray.c"
}

@test "tree: clean refuses while there are edits in it" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	run verb clean
	bad virt/kvm/kvm_main.c
	[[ -e $TREE/virt/kvm/kvm_main.c ]]
	git -C "$TREE" checkout -q .
	run verb clean
	assert_success
	assert_not_exists "$TREE"
}

@test "tree: clean refuses while there is a new file in it" {
	tree_setup
	echo mine >"$TREE/virt/kvm/mine.c"
	run verb clean
	bad virt/kvm/mine.c
	[[ -e $TREE/virt/kvm/mine.c ]]
}

@test "tree: in a checkout that was moved, the links lead to its own files, and edits are kept" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	mv "$TOP" "$TMP/moved"
	for f in virt/kvm/pfncache.c include/linux/kvm_gpc.h tools/testing/selftests/kvm/gpc.sh; do
		assert_equal "$(readlink -f "$TMP/moved/build/tree/$f")" "$TMP/moved/$f"
	done
	TOP=$TMP/moved tree
	assert_success
	assert_equal "$(tail -n 1 "$TMP/moved/build/tree/virt/kvm/kvm_main.c")" mine
	assert_equal "$(git -C "$TMP/moved/build/tree" status --porcelain)" " M virt/kvm/kvm_main.c"
}

@test "tree: what a guest's own /tmp hides of the checkout and the cache is told to the guest" {
	lab_setup
	run lab 'TOP=/tmp/a; CACHE=/var/tmp/c/kvm-gpc; root_hidden'
	assert_equal "$output" $'/tmp/a\n/var/tmp/c/kvm-gpc'
	run lab 'TOP=/tmpfs/a; CACHE=/root/tmp/c/kvm-gpc; root_hidden'
	assert_success
	assert_equal "$output" ""
}

# modules MAKE: what is said where modules_make does MAKE
modules()
{
	run lab "$STUB"'
		stock() { STOCK=$BUILD KREL=x STOCK_CC=true STOCK_HEADERS=x; }
		modules_sync() { :; }; modules_make() { '"$1"'; }
		modules stock'
}

@test "tree: the modules are built again only when a file of them has changed" {
	tree_setup
	mkdir -p "$TREE/virt/lib" "$BUILD/stock"
	modules true
	assert_success
	assert_output --partial "build kvm"
	modules true
	assert_success
	assert_equal "$output" ""
	for f in virt/kvm/pfncache.c include/linux/kvm_gpc.h arch/x86/kvm/x86.c; do
		echo edited >>"$TREE/$f"
		modules false
		[[ $status -ne 0 ]]
		modules true
		assert_success
		assert_output --partial "build kvm"
	done
}
