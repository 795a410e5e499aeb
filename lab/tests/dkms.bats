#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# The DKMS package: for which kernels its sources are right, and that it is of one piece.
load helper

setup()
{
	lab_setup
	REL=6.12.120+deb12-amd64
	# What the package's script says of headers that are installed, under the test's folder.
	mkdir -p "$TMP/doc/linux-headers-$REL" "$TMP/lib/$REL/source/include" "$TMP/src"
	sed "s|@BASE@|6.12.117-1~deb12u1|; s|@VERSION@|1|g; s|/usr/share/doc|$TMP/doc|
		s|/lib/modules|$TMP/lib|; s|/usr/src/kvm-gpc-1|$TMP/src|; s|/etc/dkms|$TMP/etc|" "$LAB/load/dkms/fits" >"$TMP/fits"
	chmod +x "$TMP/fits"
	echo header >"$TMP/lib/$REL/source/include/kvm_host.h"
	(cd "$TMP/lib/$REL/source" && sha256sum include/kvm_host.h) >"$TMP/src/headers.sha256"
	headers_are 6.12.120-1~deb12u1
	changelog '- ext4: mend it' '- [arm64] KVM: arm64: Mend it' '* [s390x] Revert "KVM: s390: Mend"'
}

headers_are()
{
	fake dpkg-query "[[ \$4 = linux-headers-$REL ]] && echo '$1'"
}

# changelog LINE...: those of versions after the package's
changelog()
{
	{
		printf 'linux-6.12 (6.12.120-1~deb12u1) bookworm-security; urgency=high\n\n  * Rebuild\n\n'
		printf 'linux (6.12.120-1) trixie-security; urgency=high\n\n'
		printf '    %s\n' "$@"
		printf '\nlinux (6.12.117-1) trixie-security; urgency=high\n\n    - [amd64] KVM: x86: Older\n'
	} | gzip >"$TMP/doc/linux-headers-$REL/changelog.Debian.gz"
}

fits()
{
	run "$TMP/fits" "${1-$REL}"
}

# not_for TEXT: it is refused, and says so
not_for()
{
	[[ $status -ne 0 ]] || fail 'it should not fit'
	assert_output --partial "kvm-gpc is not for"
	assert_output --partial "$1"
}

@test "dkms: a later kernel that changes nothing in KVM on x86 fits" {
	fits
	assert_success
	assert_equal "$output" ""
}

@test "dkms: a later kernel that changes KVM does not, and a change is named" {
	for line in '- [amd64] KVM: SVM: Mend it' '- KVM: Mend all' '- [x86] KVM: x86/mmu: Mend' \
		'- [arm64,amd64] KVM: Mend both' '- x86/kvm: Mend the guest' \
		'* Revert "KVM: Mend"'; do
		changelog '- ext4: mend it' "$line" '- [arm64] KVM: Not this'
		fits
		not_for "1 changes to KVM since, such as: ${line#[-*] }"
	done
}

@test "dkms: the same version fits, rebuilt for another Debian too, without a changelog" {
	rm "$TMP/doc/linux-headers-$REL/changelog.Debian.gz"
	headers_are 6.12.117-1~deb12u1
	fits
	assert_success
	headers_are 6.12.117-1
	fits
	assert_success
}

@test "dkms: a later kernel of which nothing is known does not fit" {
	rm "$TMP/doc/linux-headers-$REL/changelog.Debian.gz"
	fits
	not_for changelog
}

@test "dkms: the user may have it for each 6.12, and for no other" {
	headers_are ''
	fits
	not_for 'not installed'
	mkdir "$TMP/etc"
	touch "$TMP/etc/kvm-gpc-any"
	fits
	assert_success
	fits 6.1.0-40-amd64
	not_for "Debian's 6.12"
}

@test "dkms: an older kernel does not fit" {
	headers_are 6.12.101-1
	printf 'linux (6.12.101-1) trixie; urgency=high\n\n    - ext4: mend it\n' |
		gzip >"$TMP/doc/linux-headers-$REL/changelog.Debian.gz"
	fits
	not_for 'older than 6.12.117-1'
}

@test "dkms: another header than the one that the series replaces does not fit" {
	echo changed >"$TMP/lib/$REL/source/include/kvm_host.h"
	fits
	not_for header
}

@test "dkms: kernels of other series, other flavours without headers, no kernel" {
	fits 6.1.0-40-amd64
	not_for "Debian's 6.12"
	fits 6.12.30
	not_for "Debian's 6.12"
	fits 6.12.117+deb12-rt-amd64
	not_for 'linux-headers-6.12.117+deb12-rt-amd64 is not installed'
	fits ''
	[[ $status -ne 0 ]]
}

@test "dkms: a base of the user's own is refused" {
	base_files "$TMP/linux"
	KDIR=$TMP/linux run verb dkms
	bad KDIR
	assert_equal "$(find "$BUILD" -name "*.deb")" ""
}
