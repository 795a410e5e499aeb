#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# The documented order of locks against what lockdep saw.
load helper

setup()
{
	lab_setup_bare
	cd "$TMP" || return
}

# rst ORDER [ARCH]: a document that states it
rst()
{
	printf 'Locks\n=====\n\nAs in::\n\n  z --> y\n\n.. lockdep order%s\n\n::\n\n%s\n\nz --> y\n\n  z --> y\n' \
		"${2:+ of $2}" "  ${1//$'\n'/$'\n  '}"
}

# chains ARCH CHAIN...: what lockdep shows of chains, a name a word
chains()
{
	local arch=$1 chain name
	shift

	for chain; do
		echo "irq_context: 0"
		for name in $chain; do
			echo "[00000000b7a6d55a] $name"
		done
		echo
	done >"saw.$arch"
}

# compare ARCH...: locks.rst with saw.ARCH
compare()
{
	run "$LAB/check/lockorder.sh" locks.rst "${@/#/saw.}"
}

@test "lockorder: an order that agrees" {
	rst $'kvm->lock --> vcpu->mutex --> kvm->slots_lock\nkvm->slots_lock --> kvm->srcu' >locks.rst
	chains x86_64 '&kvm->lock &vcpu->mutex &kvm->srcu' '&kvm->lock &kvm->slots_lock &kvm->srcu' '&kvm->srcu &x &kvm->lock'
	compare x86_64
	assert_success
	assert_output --partial '4 locks, 4 pairs stated, 3 of them seen in 3 chains'
}

@test "lockorder: one that contradicts is an error, and the chain is shown" {
	rst 'kvm->lock --> vcpu->mutex --> kvm->slots_lock' >locks.rst
	chains x86_64 '&kvm->lock &vcpu->mutex' '&kvm->slots_lock &x &kvm->lock &y'
	compare x86_64
	bad 'kvm->lock is stated to be taken outside kvm->slots_lock' 'taken inside'
	assert_output --partial 'kvm->slots_lock --> x --> kvm->lock'
	refute_output --partial '--> y'
}

@test "lockorder: a contradiction is told once" {
	rst 'kvm->lock --> vcpu->mutex' >locks.rst
	chains x86_64 '&vcpu->mutex &kvm->lock' '&vcpu->mutex &kvm->lock &x' '&a &vcpu->mutex &kvm->lock'
	compare x86_64
	bad 'kvm->lock is stated to be taken outside vcpu->mutex'
}

@test "lockorder: a chain begins anew with its context" {
	rst 'kvm->lock --> vcpu->mutex' >locks.rst
	chains x86_64 '&vcpu->mutex' '&kvm->lock'
	compare x86_64
	assert_success
}

@test "lockorder: nothing follows from two lines together" {
	rst $'a --> b\nb --> c' >locks.rst
	chains x86_64 'c a' 'b'
	compare x86_64
	assert_success
}

@test "lockorder: a lock that lockdep does not know" {
	rst $'kvm->lock --> vcpu->mutex\nkvm->lock --> kvm->gpc_lock' >locks.rst
	chains x86_64 '&kvm->lock &vcpu->mutex'
	compare x86_64
	bad 'lockdep knows no lock kvm->gpc_lock'
}

@test "lockorder: names as lockdep decorates them" {
	rst 'vcpu->mutex --> kvm->mmu_lock --> gpc->lock' >locks.rst
	chains x86_64 '&vcpu->mutex/1 &(kvm)->mmu_lock#2 gpc->lock' '&(kvm)->mmu_lock#2/1 &vcpu->mutex'
	compare x86_64
	bad 'vcpu->mutex is stated to be taken outside kvm->mmu_lock'
}

@test "lockorder: what holds on one architecture is not asked of another" {
	{
		rst 'kvm->lock --> vcpu->mutex'
		rst 'kvm->lock --> kvm->arch.config_lock' arm64
	} >locks.rst
	chains x86_64 '&kvm->lock &vcpu->mutex'
	compare x86_64
	assert_success
	assert_output --partial '2 locks, 1 pairs'
	chains arm64 '&kvm->arch.config_lock &kvm->lock'
	compare x86_64 arm64
	bad 'kvm->lock is stated to be taken outside kvm->arch.config_lock'
}

@test "lockorder: a document that contradicts itself" {
	rst $'a --> b --> c\nc --> a' >locks.rst
	chains x86_64 a b c
	compare x86_64
	bad 'c is stated both outside and inside a'
}

@test "lockorder: no order, or no chains, is an error" {
	echo 'a --> b' >locks.rst
	chains x86_64 'a b'
	compare x86_64
	bad 'no order of locks is stated'
	rst 'a --> b' >locks.rst
	: >saw.x86_64
	compare x86_64
	bad 'lockdep saw no chain'
}

@test "lockorder: what a guest sends among its results" {
	chains x86_64 '&kvm->lock &vcpu->mutex'
	{
		echo 'ok 1 selftests: kvm: gpc_clock_test'
		gzip -c saw.x86_64 | base64 | sed 's/^/# lockdep: /'
		echo '# lab: done'
	} | sed 's/$/\r/' >ktap
	run lab 'lockdep_chains "$1"' ktap
	assert_success
	assert_equal "$output" "$(cat saw.x86_64)"
	sed -i '/^# lockdep: /s/.....$//' ktap
	run lab 'lockdep_chains "$1"' ktap
	[[ $status -ne 0 ]]
}
