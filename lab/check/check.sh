# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make check: run a reviewer's tools on the series and on the lab. Warnings of compilers
# and sparse are compared with the base: there must be no new ones.

CHECKS_FAILED=0

# check TEXT command...: like step, but a failure does not stop the next check
check()
{
	local log text=$1 start=$SECONDS
	shift

	log=$LOGS/check-$(basename "$1" .sh | tr _ -).log
	printf '%-58s' "$text"
	: < <(contained "$log" "$@")
	progress $! "$text" "$start" "$log"
	if [[ $(contained_status "$log") -eq 0 ]]; then
		printf '%3d s\n' $((SECONDS - start))
	else
		printf 'FAILED\n'
		tail -n 30 "$log" | sed 's/^/  | /'
		echo "  whole log: $log"
		CHECKS_FAILED=$((CHECKS_FAILED + 1))
	fi
}

overlay_in_kernel_form()
{
	overlay_placed | grep -E '\.([chS]|rst|sh|bt)$'
}

# mails_without_overlay DIR: the mails, except the cover letter, without the files that
# checkpatch sees whole
mails_without_overlay()
{
	local mail

	rm -rf "$1"
	mkdir -p "$1"
	for mail in "$BUILD"/series/[0-9]*-*.patch; do
		[[ $mail != */0000-* ]] || continue
		overlay_in_kernel_form | awk '
			FILENAME == "-" { whole["b/" $1] = 1; next }
			/^diff --git / { skip = ($4 in whole) }
			/^-- $/ { skip = 0 }
			!skip' - "$mail" >"$1/${mail##*/}"
		# Without a diff, checkpatch looks at nothing.
		grep -q '^diff --git ' "$1/${mail##*/}" || cp "$mail" "$1/"
	done
}

check_checkpatch()
{
	local rc=0
	local -a checkpatch=(scripts/checkpatch.pl --strict --terse --no-summary --show-types)

	cd "$TREE" || exit
	# Debian's python has the modules that checkpatch's helpers need.
	export PATH=/usr/bin:$PATH
	# checkpatch asks for MAINTAINERS for each patch that adds files. The base has no
	# history, so checkpatch cannot find the commit of a Fixes: tag.
	# linux/acpi.h includes asm/acpi.h only with CONFIG_ACPI.
	mails_without_overlay "$BUILD/check/mails"
	find "$BUILD/check/mails" -type f | sort |
		xargs -P "$JOBS" -n 8 "${checkpatch[@]}" --ignore FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID || rc=1
	overlay_in_kernel_form |
		xargs -P "$JOBS" -n 8 "${checkpatch[@]}" --ignore ARCH_INCLUDE_LINUX -f || rc=1
	return $rc
}

# What the series writes: the overlay files, and what the mails say and add. checkpatch can
# look up codespell's dictionary too, but then it takes five times as long.
check_spelling()
{
	local mail words=$BUILD/check/words

	rm -rf "$words"
	mkdir -p "$words"
	for mail in "$BUILD"/series/*.patch; do
		awk '/^diff --git / { diff = 1 } !diff || /^\+/' "$mail" >"$words/${mail##*/}"
	done
	cd "$TREE" || exit
	# Arm's Scalable Matrix Extension
	overlay_placed | PATH=/usr/bin:$PATH xargs codespell -L sme "$words"
}

check_kernel_doc()
{
	local f

	cd "$TREE" || exit
	for f in $(overlay_placed | grep -E '\.[ch]$' | grep -v '^tools/'); do
		scripts/kernel-doc -none -Wall -Werror "$f"
	done
}

check_shell()
{
	shellcheck -x "$TOP"/lab/lab "$TOP"/lab/*/*.sh "$TOP"/lab/machines/{svm,vmx,vhe,nvhe,n1} \
		"$TOP"/lab/demo/host "$TOP"/.ci/run
	shellcheck -s sh -e SC1091 "$TOP"/lab/guest/init "$TOP"/lab/rig/init "$TOP"/lab/demo/init
	shellcheck "$TOP"/tools/kvm/gpc/*.sh
	shellcheck "$TOP"/lab/load/dkms/fits
	shellcheck "$TOP"/lab/tests/*.bats "$TOP"/lab/tests/*.bash
}

# A clone with only the folders that the series touches in its work tree.
sparse_clone()
{
	local dir=$1

	rm -rf "$dir"
	git clone -q --no-checkout --branch base "$BASE_GIT" "$dir"
	git -C "$dir" config core.autocrlf false
	{ git -C "$TREE" diff --name-only base series; printf '%s\n' arch/x86/kvm/ virt/kvm/ virt/lib/; } |
		sed 's|[^/]*$||' | sort -u | git -C "$dir" sparse-checkout set --stdin
	git -C "$dir" checkout -q
}

# git am of the mails gives what make tree gives.
check_git_am()
{
	local dir=$BUILD/check/am f
	local -a mails

	mapfile -t mails < <(find "$BUILD/series" -name '*.patch' ! -name '0000-*' | sort)
	[[ -z $(tree_edits) ]] || die "build/tree has edits that are not in patches/; 'make refresh'"
	sparse_clone "$dir"
	git -C "$dir" -c user.name=check -c user.email=check@localhost am -q "${mails[@]}"
	[[ $(git -C "$dir" rev-parse 'HEAD^{tree}') = "$(series_tree)" ]] ||
		die "the mails do not give the commits' tree"
	for f in $(git -C "$dir" diff --name-only base HEAD); do
		cmp "$dir/$f" "$TREE/$f"
	done
	rm -rf "$dir"
}

series_tree()
{
	git -C "$TREE" rev-parse "$(series_commits "$TREE" | awk 'END { print $2 }')^{tree}"
}

# Each step of the series compiles, and the last step adds no warning of W=1 and sparse to
# those of the base.
check_every_step()
{
	local dir=$BUILD/check/steps src=$BUILD/check/src commit new
	local -a args commits

	mapfile -t args < <(modules_args "$src")
	# Without debug information, which is not needed here.
	args=("${args[@]/#KCFLAGS=/KCFLAGS=-g0 }" CONFIG_DEBUG_INFO_BTF_MODULES=
		"CC=ccache $STOCK_CC" W=1)
	sparse_clone "$dir"
	git -C "$dir" fetch -q "$TREE" "$(series_commits "$TREE" | awk 'END { print $2 }')"
	git -C "$dir" branch -q series FETCH_HEAD
	mapfile -t commits < <(git -C "$dir" rev-list --reverse base..series -- arch/x86 include virt)
	[[ $STEPS = all ]] || commits=("${commits[-1]}")
	for commit in base "${commits[@]}"; do
		git -C "$dir" checkout -q "$commit"
		echo "== $(git -C "$dir" log -1 --format=%s)"
		TREE=$dir modules_sync "$src"
		make -j "$JOBS" "${args[@]}" KERNELDOC=true
		[[ $commit != base ]] || warnings "$src" "$BUILD/check/warnings.base" "${args[@]}"
	done
	warnings "$src" "$BUILD/check/warnings.ours" "${args[@]}"
	new=$(comm -13 "$BUILD/check/warnings.base" "$BUILD/check/warnings.ours")
	[[ -z $new ]] || { echo "new warnings:"; echo "$new"; return 1; }
}

# Each step that touches KVM's sources compiles for that architecture: KVM's objects only,
# not a whole kernel.
check_every_step_arm64()
{
	check_steps_of_kernel arm64 arm64 arm64
}

check_every_step_x86()
{
	check_steps_of_kernel x86_64 x86_64 x86
}

# check_steps_of_kernel VARIANT ARCH FOLDER
check_steps_of_kernel()
{
	local src=$BUILD/check/$1/tree dir=$BUILD/check/$1/$1 commit samples
	local symbols=$TOP/configs/series.$2
	local -a args commits

	rm -rf "$BUILD/check/$1"
	mkdir -p "$dir"
	git clone -q --no-checkout --branch base "$BASE_GIT" "$src"
	git -C "$src" config core.autocrlf false
	# Without most of what is not compiled.
	git -C "$src" sparse-checkout set --no-cone '/*' '!/Documentation/' '!/tools/testing/' \
		'!/tools/perf/' '!/drivers/' '!/sound/' '!/net/' '!/fs/' '!/arch/*/' "/arch/$3/" \
		/arch/x86/entry/syscalls/ 'Kconfig*'
	git -C "$src" checkout -q
	git -C "$src" fetch -q "$TREE" "$(series_commits "$TREE" | awk 'END { print $2 }')"
	kernel_config "$src" "$dir" "$1" base
	# shellcheck disable=SC2207
	args=(-C "$src" O="$dir" $(cross "$2") "CC=ccache $(compiler "$2")")
	mapfile -t commits < <(git -C "$src" rev-list --reverse base..FETCH_HEAD -- "arch/$3" include virt samples)
	[[ $STEPS = all ]] || commits=("${commits[-1]}")
	for commit in "${commits[@]}"; do
		git -C "$src" checkout -q "$commit"
		echo "== $(git -C "$src" log -1 --format=%s)"
		# The symbols of the series that exist at this step.
		if [[ -e $symbols ]]; then
			cat "$symbols" >>"$dir/.config"
			make "${args[@]}" olddefconfig
		fi
		samples=
		[[ ! -d $src/samples/kvm ]] || samples=samples/kvm/
		make -j "$JOBS" "${args[@]}" "arch/$3/kvm/" $samples
	done
	rm -rf "$BUILD/check/$1"
}

# The C files that the series touches and that the modules are made of.
touched_sources()
{
	git -C "$TREE" diff --name-only base series |
		grep -E '^(arch/x86/kvm|virt/kvm)/.*\.c$'
}

# warnings DIR OUT MAKE_ARG...: warnings of W=1 and sparse for the touched files, without
# line numbers. The compiler cache keeps those of W=1.
warnings()
{
	local dir=$1 out=$2 f
	shift 2

	for f in $(touched_sources); do
		[[ ! -e $dir/$f ]] || touch "$dir/$f"
	done
	make -k -j "$JOBS" "$@" C=1 >"$out.log" 2>&1 || {
		tail -n 30 "$out.log"
		return 1
	}
	for f in $(touched_sources); do
		grep -E "(^|/)${f##*/}:[0-9]+:[0-9]+: " "$out.log" || :
	done | sed -E 's|^.*/([^/]*):[0-9]+:[0-9]+: |\1: |' | sort >"$out"
}

# Mails about any file of the series reach a KVM list, and each pattern that the series
# adds to MAINTAINERS matches a file.
check_maintainers()
{
	local f rc=0

	cd "$TREE" || exit
	# shellcheck disable=SC2016 # The inner shell's.
	git diff --name-only base series | grep -vxF MAINTAINERS | xargs -P "$JOBS" -n 1 sh -c '
		scripts/get_maintainer.pl --nogit --nogit-fallback --nom --nor --norolestats --kf \
			-f "$1" | grep -q "^kvm.*@" || { echo "no list of KVM knows $1"; false; }' sh || rc=1
	while read -r f; do
		compgen -G "$f" >/dev/null || { echo "MAINTAINERS: there is no file $f"; rc=1; }
	done < <(git diff base series -- MAINTAINERS | sed -n 's/^+F:[[:space:]]*//p')
	return $rc
}

# HTML of virt/kvm in build/docs, as `make htmldocs` of the tree makes it, but without other
# folders. Always from scratch: Sphinx does not repeat warnings of cached files.
check_docs()
{
	local name
	local -a kernel_doc=()

	rm -rf "$BUILD/docs"
	# After 6.12, kernel-doc is a part of Sphinx's extension.
	! grep -q kerneldoc_bin "$TREE/Documentation/conf.py" ||
		kernel_doc=(-D "kerneldoc_bin=$TREE/scripts/kernel-doc")
	# Debian's Sphinx is for Debian's python.
	PATH=/usr/bin:$PATH PYTHONDONTWRITEBYTECODE=1 KDOC_WERROR=1 srctree=$TREE \
		sphinx-build -q -E -W --keep-going -j "$JOBS" -b html -c "$TREE/Documentation" \
		-D version="$BASE_SERIES" -D release="$BASE_VERSION" \
		-D kerneldoc_srctree="$TREE" "${kernel_doc[@]}" \
		-d "$BUILD/docs/.doctrees" "$TREE/Documentation/virt/kvm" "$BUILD/docs"
	# kernel-doc silently leaves out a name that it does not find.
	while read -r name; do
		grep -q "id=\"c\.$name\"" "$BUILD/docs/pfncache.html" ||
			die "pfncache.rst asks for kernel-doc of $name, which there is not"
	done < <(awk -v RS= '/^\.\. kernel-doc::/ { sub(/.*:identifiers:/, "")
			for (i = 1; i <= NF; i++) print $i }' "$TREE/Documentation/virt/kvm/pfncache.rst")
}

verb_docs()
{
	need build docs
	base
	tree
	step docs "make the HTML of Documentation/virt/kvm" check_docs
	note "build/docs/index.html; the series' own pages are pfncache.html and locking.html"
}

# lockdep sees all generic locks on x86, but only some of them on arm64.
check_lockorder()
{
	if [[ -s $BUILD/lockdep/debug.x86_64 ]]; then
		check "locking.rst and what lockdep saw" \
			"$TOP/lab/check/lockorder.sh" "$TREE/Documentation/virt/kvm/locking.rst" "$BUILD"/lockdep/*
	else
		note "locking.rst and what lockdep saw: not compared, there has been no 'make test-debug' on svm"
	fi
}

verb_check()
{
	STEPS=${STEPS:-all}
	[[ $STEPS = all || $STEPS = last ]] || die "STEPS=$STEPS: it is all or last"
	need build check docs
	base
	tree
	verb_series
	check "checkpatch --strict of mails and files" check_checkpatch
	check "codespell of mails and files" check_spelling
	check "kernel-doc" check_kernel_doc
	check "MAINTAINERS know every file" check_maintainers
	check "Sphinx: no warning in virt/kvm" check_docs
	check_lockorder
	# Once, whatever the base.
	if [[ $BASE_SERIES = 6.12 ]]; then
		check "shellcheck of the lab" check_shell
		check "the cache's model: spin" "$TOP/tools/kvm/gpc/check-model.sh"
	fi
	check "git am of the mails equals make tree" check_git_am
	check "steps of the series compile for arm64: $STEPS" check_every_step_arm64
	if [[ $BASE_KIND = debian ]]; then
		stock
		check "steps compile for x86: $STEPS; W=1, sparse: nothing new" check_every_step
	else
		check "steps of the series compile for x86: $STEPS" check_every_step_x86
	fi
	[[ $CHECKS_FAILED -eq 0 ]] || die "$CHECKS_FAILED checks failed"
	note "all checks passed"
}
