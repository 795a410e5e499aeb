#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016,SC2154
# Bases: BASE=, and the base that comes from Debian's backports.
load helper

setup()
{
	lab_setup
	export BASE=7.3
	mkdir -p "$TOP/patches/7.3" "$TOP/build-7.3/logs"
	cp "$TOP"/patches/6.12/* "$TOP/patches/7.3/"
	fake apt-get 'case $1 in
		indextargets)
			for suite in bookworm bookworm-updates bookworm-security; do
				echo "Debian $suite http://mirror.example/debian/ $suite main"
			done ;;
		-q)	[[ $2 = update && " $* " != *" Dir::Etc::sourceparts=- "* ]] && echo "the machine'\''s apt" >&2
			exit "${APT_RC:-0}" ;;
		esac'
	fake apt-config 'exit 0'
}

host()
{
	run env "$@" bash -c "$(declare -f lab); TOP=$TOP
		lab 'debian_host() { echo bookworm; }; base; echo \"\$BASE_KIND \$BASE_VERSION \$BUILD\"'"
}

have()
{
	mkdir -p "$CACHE/base"
	cp -r "$CACHE/base/$BASE_VERSION.git" "$CACHE/base/$1.git"
}

@test "bases: one without patches is refused, with those that there are" {
	rm -r "$TOP/patches/7.3" "$TOP/build-7.3"
	run verb tree
	bad BASE=7.3 6.12/
	assert_not_exists "$TOP/build-7.3"
}

@test "bases: a verb of the stock kernel is refused" {
	run verb dkms
	bad "make dkms" BASE=6.12
}

@test "bases: the newest version in the backports is taken, from the machine's own mirror" {
	have 7.3.9-1~bpo13+1
	echo "linux-source-7.3 7.3.9-1~bpo13+1" | fake_apt
	host
	assert_success
	assert_equal "${lines[-1]}" "backports 7.3.9-1~bpo13+1 $TOP/build-7.3"
	assert_equal "$(cat "$CACHE/apt.7.3/sources.list")" \
		"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ trixie-backports main"
	refute_output --partial "the machine's apt"
}

@test "bases: one that was chosen stays when apt learns of a newer one" {
	have 7.3.9-1~bpo13+1
	echo "linux-source-7.3 7.3.9-1~bpo13+1" | fake_apt
	host
	echo "linux-source-7.3 7.3.10-1~bpo13+1" | fake_apt
	host
	assert_equal "${lines[-1]}" "backports 7.3.9-1~bpo13+1 $TOP/build-7.3"
}

@test "bases: backports that offer it no more are a skip that passes, loudly" {
	host VERB=test
	assert_success
	assert_output --partial "*** BASE=7.3 is SKIPPED"
	assert_equal "${lines[-1]}" "0 passed, 0 failed, 1 skipped"
}

@test "bases: backports that offer it no more are an error of what makes something" {
	host VERB=tree
	bad linux-source-7.3 trixie-backports KDIR=
}

@test "bases: a mirror that cannot be reached is an error, not a skip" {
	host APT_RC=100 VERB=test
	[[ $status -ne 0 ]]
	assert_output --partial FAILED
	refute_output --partial SKIPPED
}

@test "bases: overlay files of the selftests go where the base has its own" {
	run lab 'printf "%s\n" tools/testing/selftests/kvm/{x86_64,include/x86_64,lib/aarch64}/a virt/kvm/x86_64/b | placed'
	assert_equal "${lines[*]}" "tools/testing/selftests/kvm/x86/a tools/testing/selftests/kvm/include/x86/a tools/testing/selftests/kvm/lib/arm64/a virt/kvm/x86_64/b"
	BASE=6.12 run lab 'echo tools/testing/selftests/kvm/x86_64/a | placed'
	assert_equal "$output" tools/testing/selftests/kvm/x86_64/a
}
