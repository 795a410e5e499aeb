# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What is compiled: the three modules against the stock headers, whole kernels
# from tinyconfig plus configs/, the selftests. Each in a folder under build/.

PLATFORMS_ALL="svm vmx vhe nvhe n1"
MACHINES=$TOP/lab/machines

# of_machine PLATFORM NAME: the value of NAME in the machine's file in lab/machines
of_machine()
(
	# shellcheck source=/dev/null
	. "$MACHINES/$1"
	echo "${!2-}"
)

platform_arch()
{
	[[ " $PLATFORMS_ALL " = *" $1 "* ]] ||
		die "unknown PLATFORM=$1; it is one of: $PLATFORMS_ALL"
	of_machine "$1" ARCH
}

# variant_of PLATFORM: the kernel variant to boot there, as the name of its folder
variant_of()
{
	local arch v=${VARIANT-}

	arch=$(platform_arch "$1")
	if [[ $arch = arm64 ]]; then
		v=${v:-arm64}
	elif [[ -z $v && ( -n ${KDIR-} || $BASE_KIND != debian ) ]]; then
		v=x86_64
	else
		v=${v:-stock}
	fi
	case $arch/$v in
	x86_64/stock|x86_64/rt|x86_64/x86_64|arm64/arm64) echo "$v" ;;
	*/debug|*/kcsan|arm64/rt|arm64/16k|arm64/64k) echo "$v.$arch" ;;
	*) die "VARIANT=$v is no kernel for $1; on x86: stock rt debug kcsan, on arm64: arm64 rt debug kcsan 16k 64k" ;;
	esac
}

cross()
{
	case $1 in
	arm64) echo ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- ;;
	x86_64) echo ARCH=x86_64 ;;
	esac
}

compiler()
{
	case $1 in
	arm64) echo aarch64-linux-gnu-gcc ;;
	x86_64) echo gcc ;;
	esac
}

# The number of objects that make would compile now.
objects()
{
	make -n "$@" 2>/dev/null </dev/null |
		grep -oE "echo '  (CC|AS|HOSTCC|HYP[A-Z]*) [^']*'" | sort -u | wc -l
}

# --- modules against the stock kernel -------------------------------------

# Only the headers that the series changes come before Debian's.
changed_headers()
{
	git -C "$TREE" diff --name-only --diff-filter=d base -- include arch/x86/include
}

modules_sync()
{
	local dir=$1 f

	mkdir -p "$dir"/{arch/x86,virt,include/trace,headers}
	for f in arch/x86/kvm virt/kvm virt/lib; do
		rsync -rL --checksum --delete --exclude='*.o' --exclude='*.ko' --exclude='*.mod' \
			--exclude='*.mod.c' --exclude='.*' --exclude='*.order' --exclude='*.a' \
			--exclude=Module.symvers --exclude='kvm-asm-offsets.[sh]' \
			--exclude=/kvm/Makefile "$TREE/$f" "$dir/${f%/*}/"
	done
	# Out of tree, $(srctree) is the headers' folder; the sources are here.
	sed "s|\$(srctree)/arch/x86/kvm|\$(src)|; s|\$(srctree)/virt/kvm|\$(src)/../../../virt/kvm|" \
		"$TREE/arch/x86/kvm/Makefile" | into_if_new "$dir/arch/x86/kvm/Makefile"
	(cd "$TREE" && changed_headers | rsync -rL --checksum --files-from=- ./ "$dir/headers/")
	# Remove sources of another tree, or of a later step of the series.
	(cd "$dir/headers" && find . -type f | sed 's|^\./||' |
		{ grep -vxF -e "$(cd "$TREE" && changed_headers)" || :; } | xargs -r rm -f)
}

# Keep the old file, and its time, if its contents do not change.
into_if_new()
{
	cat >"$1.tmp"
	if cmp -s "$1.tmp" "$1"; then
		rm "$1.tmp"
	else
		mv "$1.tmp" "$1"
	fi
}

# modules_args SRC: make's arguments for a folder that modules_sync filled
modules_args()
{
	local f inc=-nostdinc

	for f in headers/arch/x86/include headers/arch/x86/include/uapi headers/include \
			headers/include/uapi include/trace; do
		inc+=" -I$1/$f"
	done
	# Debian leaves software-protected VMs out: guest_memfd cannot be tested without
	# that one line of code. One argument a line.
	printf '%s\n' -C "$STOCK_HEADERS" "M=$1/arch/x86/kvm" "NOSTDINC_FLAGS=$inc" \
		KCFLAGS=-DCONFIG_KVM_SW_PROTECTED_VM=1 modules
}

# Each kernel other than the default has a separate folder.
modules_dir()
{
	echo "$BUILD/$1${KVER:+-$KVER}"
}

# modules_key: digest of the modules' inputs
modules_key()
{
	(
		cd "$TREE" || exit
		echo "$STOCK"
		"$STOCK_CC" --version
		{ find -L arch/x86/kvm virt/kvm virt/lib -type f; changed_headers; } | sort | xargs sha256sum
	) | digest
}

# modules VARIANT: kvm.ko and its two vendors in build/VARIANT
modules()
{
	local dir key
	local -a args

	dir=$(modules_dir "$1")

	stock "$1"
	tree
	key=$(modules_key)
	[[ ! -s $dir/key || $(<"$dir/key") != "$key" ]] || return 0
	rm -f "$dir/key"
	modules_sync "$dir/src"
	mapfile -t args < <(modules_args "$dir/src")
	args+=("CC=ccache $STOCK_CC")
	STEP_TOTAL=$(objects "${args[@]}") \
	step "modules-$1" "build kvm, kvm-amd, kvm-intel for $KREL" \
		modules_make "$dir" "${args[@]}"
	echo "$key" >"$dir/key"
}

modules_make()
{
	local dir=$1 m
	shift

	make -j "$JOBS" "$@"
	for m in kvm kvm-amd kvm-intel; do
		objcopy --strip-debug "$dir/src/arch/x86/kvm/$m.ko" "$dir/$m.ko.tmp"
		mv "$dir/$m.ko.tmp" "$dir/$m.ko"
	done
}

verb_modules()
{
	case ${VARIANT:-stock} in
	stock|rt) ;;
	*) die "VARIANT=$VARIANT has no modules: its kernel is built whole; it is stock or rt here" ;;
	esac
	need build
	base
	modules "${VARIANT:-stock}"
	ls -1 "$(modules_dir "${VARIANT:-stock}")"/*.ko
}

# --- whole kernels --------------------------------------------------------

# fragments VARIANT [base]: the files of configs/ that make it, in order. The base has
# no symbols of the series.
fragments()
{
	local arch=${1##*.} f series

	series=series.$arch
	[[ ${2-} != base ]] || series=
	for f in common "$BASE_SERIES" "$arch" "$BASE_SERIES.$arch" $series "${1%.*}" "${1%.*}.$arch"; do
		[[ ! -f $TOP/configs/$f ]] || echo "$TOP/configs/$f"
	done | awk '!seen[$0]++'
}

# lost FRAGMENT... CONFIG: symbols whose last setting did not survive
lost()
{
	awk '
		function symbol(line) {
			if (line ~ /^# CONFIG_.* is not set$/) return $2
			if (line ~ /^CONFIG_/) { sub(/=.*/, "", line); return line }
		}
		FILENAME == config { s = symbol($0); if (s) have[s] = $0; next }
		{ s = symbol($0); if (s) { if (!(s in want)) order[++n] = s; want[s] = $0; from[s] = FILENAME } }
		END {
			for (i = 1; i <= n; i++) {
				s = order[i]; w = want[s]
				if (w ~ /is not set$/ || w ~ /=n$/) { if (!(s in have) || have[s] ~ /not set$/) continue }
				else if (have[s] == w) continue
				sub(/.*\//, "", from[s])
				print s " (configs/" from[s] " wants " w ")"
			}
		}' config="${*: -1}" "$@"
}

# kernel_config SRC DIR VARIANT [base]
kernel_config()
{
	local src=$1 dir=$2 variant=$3 arch=${3##*.} missing
	local -a frags

	mapfile -t frags < <(fragments "${@:3}")
	# shellcheck disable=SC2046
	make -C "$src" O="$dir" $(cross "$arch") tinyconfig
	cat "${frags[@]}" >>"$dir/.config"
	# shellcheck disable=SC2046
	make -C "$src" O="$dir" $(cross "$arch") olddefconfig
	missing=$(lost "${frags[@]}" "$dir/.config")
	if [[ -n $missing ]]; then
		rm -f "$dir/.config"
		die "olddefconfig dropped ${missing//$'\n'/, }: a symbol it depends on is not set, or it has another name in this base"
	fi
	# Headers are generated now, so that the objects to do can be counted.
	# shellcheck disable=SC2046
	make -j "$JOBS" -C "$src" O="$dir" $(cross "$arch") CC="ccache $(compiler "$arch")" prepare
}

kernel_image()
{
	case ${1##*.} in
	arm64)  echo arch/arm64/boot/Image ;;
	x86_64) echo arch/x86/boot/bzImage ;;
	esac
}

# kernel_dir VARIANT [base]: where that kernel is built. The base's kernel lies beside its
# tree, as ours does: the compiler cache identifies files by their relative paths.
kernel_dir()
{
	echo "$BUILD/${2:+pristine/}$1"
}

# kernel VARIANT [base]: that kernel, of the tree or of the pristine base
kernel()
{
	local variant=$1 src=$TREE dir arch=${1##*.} key name=${2:+$2-}$1
	local -a args

	dir=$(kernel_dir "$@")
	if [[ ${2-} = base ]]; then
		src=$BUILD/pristine/tree
		base_tree
	else
		tree
	fi
	mkdir -p "$dir"
	# An older .config lacks symbols that the series adds.
	key=$({ fragments "$@" | xargs cat; cat "$src"/{virt/kvm,arch/*/kvm,samples}/Kconfig; } | digest)
	if [[ ! -f $dir/.config || ! -f $dir/config-key || $(<"$dir/config-key") != "$key" ]]; then
		step "config-$name" "configure kernel $name" \
			kernel_config "$src" "$dir" "$@"
		echo "$key" >"$dir/config-key"
	fi
	# shellcheck disable=SC2207
	args=(-C "$src" O="$dir" $(cross "$arch") "CC=ccache $(compiler "$arch")" "$(basename "$(kernel_image "$variant")")")
	STEP_TOTAL=$(objects "${args[@]}") step "kernel-$name" "build kernel $name" make -j "$JOBS" "${args[@]}"
}

base_tree()
{
	[[ ! -e $BUILD/pristine/tree ]] || return 0
	step base-tree "check out the pristine base" base_tree_make
}

base_tree_make()
{
	mkdir -p "$BUILD/pristine/tree.tmp"
	git --git-dir="$BASE_GIT" archive base | tar -xf - -C "$BUILD/pristine/tree.tmp"
	mv "$BUILD/pristine/tree.tmp" "$BUILD/pristine/tree"
}

# --- selftests ------------------------------------------------------------

SELFTESTS_ALL=	# or 1: not those of lab/run/tests.list only, but all there are

# selftests ARCH: kselftest's install of TARGETS=kvm in build/selftests.ARCH
selftests()
{
	local arch=$1 dir=$BUILD/selftests.$1

	tree
	if [[ ! -e $dir/headers ]]; then
		# shellcheck disable=SC2046
		step "headers-$arch" "install the headers for $arch selftests" \
			make -C "$TREE" O="$dir" $(cross "$arch") headers_install
		: >"$dir/headers"
	fi
	step "selftests-$arch" "build the KVM selftests for $arch" selftests_make "$arch" "$dir"
}

selftests_make()
{
	local arch=$1 dir=$2 sub t f
	local -a only=() args=()

	cd "$TREE/tools/testing/selftests/kvm" || exit
	sub=$(placed <<<"tools/testing/selftests/kvm/${arch/arm64/aarch64}/")
	sub=$(basename "$sub")
	for t in $(tests_of "$arch"); do
		for f in "$t" "$sub/$t"; do
			[[ ! -e $f.c ]] || { only+=("$f"); break; }
		done
	done
	# Without VFIO's library, which one test of the base links with.
	[[ -n $SELFTESTS_ALL ]] ||
		args=("TEST_GEN_PROGS_$sub=${only[*]}" "TEST_GEN_PROGS_EXTENDED_$sub=" "TEST_PROGS_$sub="
			LIBVFIO_O= LDLIBS=-ldl)
	# shellcheck disable=SC2046
	make -j "$JOBS" -C .. O="$dir" TARGETS=kvm \
		$(cross "$arch") CC="ccache $(compiler "$arch")" KHDR_INCLUDES="-isystem $dir/usr/include" \
		FORCE_TARGETS=1 INSTALL_PATH="$dir/install" "${args[@]}" install
}

verb_clean()
{
	if [[ -e $TREE/.git/kvm-gpc ]]; then
		tree_must_be_clean
	fi
	find "$BUILD" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
	note "build/ is empty; the cache ($CACHE) stays"
}
