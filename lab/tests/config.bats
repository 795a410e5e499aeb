#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# Kconfig fragments: which make a kernel, and the symbols that olddefconfig drops.
load helper

setup()
{
	lab_setup_bare
	mkdir -p "$TOP/configs"
	cd "$TMP" || return
}

lost()
{
	run lab 'lost "$@"' "$@"
	assert_success
}

@test "config: nothing is lost where all survived" {
	printf '# a comment\nCONFIG_KVM=y\nCONFIG_NR_CPUS=4\n\n# CONFIG_SMP is not set\nCONFIG_CMDLINE="a=b c"\n' >frag
	printf 'CONFIG_CMDLINE="a=b c"\nCONFIG_NR_CPUS=4\nCONFIG_KVM=y\nCONFIG_OTHER=y\n# CONFIG_SMP is not set\n' >.config
	lost frag .config
	assert_equal "$output" ""
}

@test "config: a symbol that is gone is named, with its fragment" {
	echo CONFIG_KVM=y >x86_64
	echo CONFIG_OTHER=y >.config
	lost x86_64 .config
	assert_output --partial CONFIG_KVM
	assert_output --partial x86_64
	refute_output --partial CONFIG_OTHER
}

@test "config: a symbol that was turned off is named" {
	printf 'CONFIG_KVM=y\nCONFIG_EXPERT=y\n' >frag
	printf '# CONFIG_KVM is not set\nCONFIG_EXPERT=y\n' >.config
	lost frag .config
	assert_output --partial CONFIG_KVM
	refute_output --partial CONFIG_EXPERT
}

@test "config: a symbol with another value is named" {
	printf 'CONFIG_NR_CPUS=4\nCONFIG_KVM=y\nCONFIG_CMDLINE="a"\n' >frag
	printf 'CONFIG_NR_CPUS=64\nCONFIG_KVM=m\nCONFIG_CMDLINE="a b"\n' >.config
	lost frag .config
	assert_equal "$(wc -l <<<"$output")" 3
}

@test "config: a symbol that should be off and is on is named" {
	printf '# CONFIG_SLUB_TINY is not set\nCONFIG_SMP=n\n' >frag
	printf 'CONFIG_SLUB_TINY=y\nCONFIG_SMP=y\n' >.config
	lost frag .config
	assert_output --partial CONFIG_SLUB_TINY
	assert_output --partial CONFIG_SMP
}

@test "config: a symbol that should be off may be absent" {
	printf '# CONFIG_SLUB_TINY is not set\nCONFIG_SMP=n\n' >frag
	printf '# CONFIG_SMP is not set\n' >.config
	lost frag .config
	assert_equal "$output" ""
}

@test "config: of several fragments the last one counts" {
	printf 'CONFIG_SLUB_TINY=y\nCONFIG_KVM=y\n' >one
	printf '# CONFIG_SLUB_TINY is not set\nCONFIG_KASAN=y\n' >two
	printf '# CONFIG_SLUB_TINY is not set\nCONFIG_KVM=y\nCONFIG_KASAN=y\n' >.config
	lost one two .config
	assert_equal "$output" ""
	lost two one .config
	assert_equal "$(wc -l <<<"$output")" 1
	assert_output --partial CONFIG_SLUB_TINY
	assert_output --partial one
}

@test "config: a kernel is its architecture, its variant, and both together" {
	touch "$TOP"/configs/{x86_64,arm64,debug,debug.x86_64,kcsan,rt}
	run lab 'for v in debug.x86_64 debug.arm64 kcsan.x86_64 rt.arm64 arm64; do fragments "$v" | sed "s|.*/||" | tr "\n" " "; echo; done'
	assert_equal "$output" $'x86_64 debug debug.x86_64 \narm64 debug \nx86_64 kcsan \narm64 rt \narm64 '
}

@test "config: the base has no symbols of the series" {
	touch "$TOP"/configs/{arm64,debug,series.arm64}
	run lab 'for w in "" base; do fragments debug.arm64 $w | sed "s|.*/||" | tr "\n" " "; echo; done'
	assert_equal "$output" $'arm64 series.arm64 debug \narm64 debug '
}

@test "config: a lost symbol fails the step, and leaves no .config" {
	echo CONFIG_KVM=y >"$TOP/configs/arm64"
	mkdir -p k bin
	printf '#!/bin/sh\ncase "$*" in *tinyconfig*) echo CONFIG_TINY=y >%s/k/.config ;; *) grep -v KVM %s/k/.config >%s/k/new; mv %s/k/new %s/k/.config ;; esac\n' \
		"$TMP" "$TMP" "$TMP" "$TMP" "$TMP" >bin/make
	chmod +x bin/make
	PATH=$TMP/bin:$PATH run lab 'kernel_config src "$1" arm64' "$TMP/k"
	bad CONFIG_KVM
	assert_not_exists k/.config
}

@test "config: a kernel is configured again when the series has another symbol" {
	mkdir -p "$TMP/tree"/{virt/kvm,arch/x86/kvm,samples}
	: >frag
	touch "$TMP/tree"/{virt/kvm,arch/x86/kvm,samples}/Kconfig
	run lab 'tree() { :; }
		objects() { :; }
		step() { [[ $1 != config* ]] || { echo configure; : >"$BUILD/debug.x86_64/.config"; }; }
		TREE=$1/tree
		fragments() { echo '"$TMP"'/frag; }
		kernel debug.x86_64
		kernel debug.x86_64
		echo "config NEW" >>"$TREE/virt/kvm/Kconfig"
		kernel debug.x86_64' "$TMP"
	assert_success
	assert_equal "$output" $'configure\nconfigure'
}
