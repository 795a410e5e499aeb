# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2016
# make dkms: a Debian package of the modules' sources, made by debhelper and dh-dkms.

# The base's version and the date of the last commit: the same files give the same package.
dkms_version()
{
	echo "${BASE_VERSION%%-*}+gpc$(date -u -d "$(series_date)" +%Y%m%d.%H%M%S)"
}

# dkms_fill FILE...: with the names filled in
dkms_fill()
{
	sed -i "s|@VERSION@|$(dkms_version)|g; s|@BASE@|$BASE_VERSION|g
		s|@MAINTAINER@|$(committer_name) <$(committer_email)>|
		s|@DATE@|$(date -R -u -d "$(series_date)")|" "$@"
}

# The same call of kbuild as the lab's, with the kernel that DKMS names. Software-protected
# VMs are for the lab's tests: the package keeps Debian's configuration of KVM.
dkms_makefile()
{
	local arg

	printf '# SPDX-License-Identifier: GPL-2.0-only\nmodules clean:\n\t$(MAKE)'
	while read -r arg; do
		case $arg in
		modules|KCFLAGS=*) ;;
		*) printf " \\\\\n\t\t'%s'" "$arg" ;;
		esac
	done < <(STOCK_HEADERS='$(KDIR)' modules_args '$(CURDIR)')
	printf ' $@\n'
}

dkms_pack()
{
	local t src f

	temp t "$BUILD/dkms.tmp"
	src=$t/package/kvm-gpc-$(dkms_version)
	mkdir -p "$src"
	modules_sync "$src"
	# DKMS installs no module whose version equals that of the kernel's module, which has
	# none.
	sed -i "/^MODULE_LICENSE(/a MODULE_VERSION(\"$(dkms_version)\");" \
		"$src"/{virt/kvm/kvm_main.c,arch/x86/kvm/svm/svm.c,arch/x86/kvm/vmx/vmx.c}
	dkms_makefile >"$src/Makefile"
	# The base's headers that the series changes.
	for f in $(changed_headers); do
		git -C "$TREE" cat-file -e "base:$f" 2>/dev/null || continue
		git -C "$TREE" show "base:$f" | sha256sum | sed "s|-\$|$f|"
	done >"$src/headers.sha256"
	cp "$TOP/lab/load/dkms/fits" "$src/"
	cp -r "$TOP/lab/load/dkms/debian" "$t/package/"
	dkms_fill "$src/fits" "$t"/package/debian/*
	(cd "$t/package" && debian/rules binary)
	rm -f "$BUILD"/kvm-gpc-dkms_*.deb
	mv "$t"/kvm-gpc-dkms_*.deb "$BUILD/"
	rm -rf "$t"
}

verb_dkms()
{
	[[ -z ${KDIR-} ]] || die "KDIR=$KDIR: a DKMS package is made from Debian's source"
	need build dkms
	base
	[[ $BASE_KIND = debian ]] || die "a DKMS package is made from Debian's source, on Debian"
	tree
	step dkms "pack kvm-gpc-dkms $(dkms_version)" dkms_pack
	note "build/kvm-gpc-dkms_$(dkms_version)_all.deb, of Linux $BASE_VERSION; see docs/load.md"
}
