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
	good
	is "$(sed -n '5p;25p' "$TREE/virt/kvm/kvm_main.c")" $'main five\nmain twenty-five'
	for f in virt/kvm/pfncache.c include/linux/kvm_gpc.h tools/testing/selftests/kvm/gpc.sh; do
		is "$(readlink -f "$TREE/$f")" "$TOP/$f"
	done
	[[ ! -L $TREE/virt/kvm/kvm_main.c && -x $TREE/scripts/old.sh ]]
}

@test "tree: git has nothing to say of it" {
	series_setup
	tree
	is "$(git -C "$TREE" status --porcelain)" ""
	is "$(git -C "$TREE" log --format=%s base..)" \
		$'KVM: selftests: Test it\nKVM: x86: Use it\nKVM: pfncache: Write it anew'
}

@test "tree: an edit of an overlay file is an edit of the repository's" {
	tree_setup
	echo edited >>"$TREE/virt/kvm/pfncache.c"
	is "$(cat "$TOP/virt/kvm/pfncache.c")" $'our cache\nedited'
	tree
	good
	is "$(cat "$TREE/virt/kvm/pfncache.c")" $'our cache\nedited'
	is "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: made again, it keeps the edits to base files" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	tree
	good
	is "$output" ""
	is "$(tail -n 1 "$TREE/virt/kvm/kvm_main.c")" mine
}

@test "tree: it follows the patches" {
	tree_setup
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	tree
	good
	is "$(sed -n 10p "$TREE/arch/x86/kvm/x86.c")" "x86 zehn"
	is "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: an overlay file that leaves the series gives way to the base's" {
	tree_setup
	sed -i '/^Adds: virt/d' "$TOP/patches/6.12/one.patch"
	sed -i '/^tests/d' "$TOP/patches/6.12/series"
	tree
	good
	[[ ! -L $TREE/virt/kvm/pfncache.c ]]
	is "$(cat "$TREE/virt/kvm/pfncache.c")" "the base's cache"
	gone "$TREE/tools/testing/selftests/kvm/gpc.sh"
	is "$(readlink -f "$TREE/include/linux/kvm_gpc.h")" "$TOP/include/linux/kvm_gpc.h"
	is "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: an overlay file that joins the series takes the base's place" {
	tree_setup
	echo 'our Kbuild' >"$TOP/Kbuild"
	sed -i 's/^Adds: .*/&\nAdds: Kbuild/' "$TOP/patches/6.12/tests.patch"
	tree
	good
	is "$(readlink -f "$TREE/Kbuild")" "$TOP/Kbuild"
	is "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: with edits in it and patches changed, it refuses and keeps the edits" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	tree
	bad virt/kvm/kvm_main.c refresh
	is "$(tail -n 1 "$TREE/virt/kvm/kvm_main.c")" mine
	is "$(sed -n 10p "$TREE/arch/x86/kvm/x86.c")" "x86 ten"
}

@test "tree: a series that fails leaves no tree behind" {
	series_setup
	sed -i 's/^-main 25$/-main 26/' "$TOP/patches/6.12/two.patch"
	tree
	bad two.patch virt/kvm/kvm_main.c "$BASE_VERSION"
	gone "$TREE"
	tree
	bad two.patch
}

@test "tree: a series that fails leaves the last tree whole, and is not taken for made" {
	tree_setup
	sed -i 's/^-main 25$/-main 26/' "$TOP/patches/6.12/two.patch"
	tree
	bad two.patch
	is "$(sed -n '5p;25p' "$TREE/virt/kvm/kvm_main.c")" $'main five\nmain twenty-five'
	is "$(readlink -f "$TREE/virt/kvm/pfncache.c")" "$TOP/virt/kvm/pfncache.c"
	tree
	bad two.patch
}

@test "tree: one that was interrupted when new is made anew" {
	series_setup
	mkdir -p "$TREE/virt/kvm" "$TREE.tmp/.git"
	echo half >"$TREE/virt/kvm/kvm_main.c"
	tree
	good
	is "$(sed -n '5p;25p' "$TREE/virt/kvm/kvm_main.c")" $'main five\nmain twenty-five'
	gone "$TREE.tmp"
}

@test "tree: one that was interrupted between checkout and links is not trusted" {
	tree_setup
	sed -i 's/^+x86 ten$/+x86 zehn/' "$TOP/patches/6.12/two.patch"
	run lab "$STUB eval \"really_\$(declare -f tree_links)\"
		tree_links() { [[ \$2 != make ]] || exit 7; really_tree_links \"\$@\"; }; tree"
	[[ $status -ne 0 && ! -L $TREE/virt/kvm/pfncache.c ]]
	tree
	good
	is "$(readlink -f "$TREE/virt/kvm/pfncache.c")" "$TOP/virt/kvm/pfncache.c"
	is "$(sed -n 10p "$TREE/arch/x86/kvm/x86.c")" "x86 zehn"
	is "$(git -C "$TREE" status --porcelain)" ""
}

@test "tree: overlay files that no patch adds are left out, and said" {
	series_setup
	echo x >"$TOP/virt/kvm/stray.c"
	tree
	good
	has virt/kvm/stray.c
	gone "$TREE/virt/kvm/stray.c"
}

@test "tree: clean refuses while there are edits in it" {
	tree_setup
	echo mine >>"$TREE/virt/kvm/kvm_main.c"
	run verb clean
	bad virt/kvm/kvm_main.c
	[[ -e $TREE/virt/kvm/kvm_main.c ]]
	git -C "$TREE" checkout -q .
	run verb clean
	good
	gone "$TREE"
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
		is "$(readlink -f "$TMP/moved/build/tree/$f")" "$TMP/moved/$f"
	done
	TOP=$TMP/moved tree
	good
	is "$(tail -n 1 "$TMP/moved/build/tree/virt/kvm/kvm_main.c")" mine
	is "$(git -C "$TMP/moved/build/tree" status --porcelain)" " M virt/kvm/kvm_main.c"
}

@test "tree: what a guest's own /tmp hides of the checkout and the cache is told to the guest" {
	lab_setup
	run lab 'TOP=/tmp/a; CACHE=/var/tmp/c/kvm-gpc; root_hidden'
	is "$output" $'/tmp/a\n/var/tmp/c/kvm-gpc'
	run lab 'TOP=/tmpfs/a; CACHE=/root/tmp/c/kvm-gpc; root_hidden'
	good
	is "$output" ""
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
	good
	has "build kvm"
	modules true
	good
	is "$output" ""
	for f in virt/kvm/pfncache.c include/linux/kvm_gpc.h arch/x86/kvm/x86.c; do
		echo edited >>"$TREE/$f"
		modules false
		[[ $status -ne 0 ]]
		modules true
		good
		has "build kvm"
	done
}
