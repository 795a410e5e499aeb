# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The base: Debian's linux-source-6.12 and the stock kernel of the same version,
# the user's tree (KDIR), or the kernel.org tarball. For BASE=7.3, the source from
# Debian's backports.
#
# The source is kept as a bare git repository with one commit, the image, modules
# and headers as Debian's packages unpacked into one folder. Both are in the cache, and
# both are renamed into place only when complete.
#
# base() sets	BASE_KIND	debian, backports, kdir or tarball
#		BASE_VERSION	what names the source
#		BASE_GIT	the bare repository, its commit is refs/heads/base
# stock() sets	KREL		the stock kernel's release
#		STOCK		where its packages are unpacked
#		STOCK_CC	the compiler it was built with

# Bases newer than the releases' kernel are in the backports of this suite.
BACKPORTS_OF=trixie

KERNEL_ORG=${KERNEL_ORG:-https://cdn.kernel.org/pub/linux/kernel/v6.x}
KERNEL_ORG_VERSION=${KERNEL_ORG_VERSION:-6.12.74}

base()
{
	local get

	[[ -z ${BASE_GIT-} ]] || return 0

	if [[ -n ${KDIR-} ]]; then
		name_kdir
		get=base_from_kdir
	elif [[ $BASE_SERIES != 6.12 ]]; then
		name_backports
		get=base_from_deb
	elif command -v apt-cache >/dev/null; then
		name_debian
		get=base_from_deb
	else
		name_tarball
		get=base_from_tarball
	fi
	# What is in build/ was made from another base: make it anew.
	if [[ -e $BUILD/base && $(<"$BUILD/base") != "$BASE_KIND $BASE_VERSION" ]]; then
		note "the base was $(<"$BUILD/base"), now $BASE_KIND $BASE_VERSION: making build/ anew"
		tree_must_be_clean
		build_empty
	# What is built there, other than the tree, names files by absolute paths.
	elif [[ -e $BUILD/place && $(<"$BUILD/place") != "$TOP" ]]; then
		note "the checkout was $(<"$BUILD/place"), now $TOP: building anew"
		build_empty ! -name tree
	fi
	echo "$BASE_KIND $BASE_VERSION" >"$BUILD/base"
	echo "$TOP" >"$BUILD/place"
	if [[ ! -d $BASE_GIT ]]; then
		need_space "$(dirname "$(dirname "$BASE_GIT")")" 6
		step base "get the source of $BASE_VERSION ($BASE_KIND)" "$get"
	fi
}

# build_empty [TEST...]: remove what was built, of that what find's TESTs say
build_empty()
{
	find "$BUILD" -mindepth 1 -maxdepth 1 ! -name .lock ! -name logs ! -name stock.pick "$@" \
		-exec rm -rf {} +
}

# --- Debian ---------------------------------------------------------------

# Options of apt-get and apt-cache for base packages. Empty: the machine's own apt.
APT_OPTIONS=()

# versions PACKAGE: those that apt offers, newest first
versions()
{
	apt-cache madison "$1" "${APT_OPTIONS[@]}" 2>/dev/null | awk -F' *\\| *' '{ print $2 }' | awk '!seen[$0]++'
}

# releases: "VERSION RELEASE" of each stock kernel that apt offers
releases()
{
	apt-cache search --names-only "^linux-headers-$BASE_SERIES\\..*-amd64\$" |
		awk '{ sub("^linux-headers-", "", $1); print $1 }' |
		grep -E '^[0-9.]+(\+deb[0-9]+)?-amd64$' |
		while read -r rel; do
			versions "linux-headers-$rel" | sed "s/\$/ $rel/"
		done
}

# Source and stock kernel must be of one version: take the newest that has both,
# or, for KVER, exactly that one.
pick_debian()
{
	local rel v sources offered

	sources=$(versions "linux-source-$BASE_SERIES")
	[[ -n $sources ]] || die "apt has no linux-source-$BASE_SERIES:" \
		"enable Debian's security suite, or give KDIR="
	if [[ -n ${KVER-} ]]; then
		v=$(versions "linux-headers-$KVER" | head -n 1)
		[[ -n $v ]] || die "KVER=$KVER: apt has no linux-headers-$KVER;" \
			"it has: $(releases | awk '{ printf "%s ", $2 }')"
		grep -qxF "$v" <<<"$sources" ||
			die "KVER=$KVER is version $v, but apt has linux-source-$BASE_SERIES" \
			"only as ${sources//$'\n'/, }; take a kernel of one of these"
		echo "$v $KVER"
		return 0
	fi
	offered=$(releases)
	for v in $sources; do
		rel=$(awk -v v="$v" '$1 == v { print $2; exit }' <<<"$offered")
		[[ -z $rel ]] || { echo "$v $rel"; return 0; }
	done
	die "apt's linux-source-$BASE_SERIES (${sources//$'\n'/, }) and stock kernels" \
		"($(awk '{ printf "%s ", $1 }' <<<"$offered")) have no version in common; run apt-get update"
}

name_debian()
{
	local pick

	# A base once chosen stays until `make clean` or another KVER.
	if [[ -z ${KVER-} && -s $BUILD/stock.pick ]]; then
		pick=$(<"$BUILD/stock.pick")
	else
		have_package "linux-source-$BASE_SERIES" ||
			step apt-update "apt-get update" apt_update
		pick=$(pick_debian)
		[[ -n ${KVER-} ]] || echo "$pick" >"$BUILD/stock.pick"
	fi
	BASE_KIND=debian
	BASE_VERSION=${pick% *}
	KREL=${pick#* }
	BASE_GIT=$CACHE/base/$BASE_VERSION.git
}

# backports_sources: the machine's own mirror of Debian, for backports
backports_sources()
{
	[[ -n $(debian_sources "$BACKPORTS_OF") ]] || apt_update >&2
	debian_sources "$BACKPORTS_OF" | awk -v suite="$BACKPORTS_OF" '$3 == suite {
		$1 = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
		$3 = suite "-backports"
		print
	}'
}

# Lists and cache of the lab's own: apt's configuration of the machine stays as it is.
backports_update()
{
	local dir=$CACHE/apt.$BASE_SERIES

	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	backports_sources >"$dir/sources.list"
	[[ -s $dir/sources.list ]] ||
		die "apt has no source of Debian from which its mirror could be known"
	apt-get -q update "${APT_OPTIONS[@]}"
}

name_backports()
{
	local dir=$CACHE/apt.$BASE_SERIES pick

	command -v apt-cache >/dev/null ||
		die "BASE=$BASE_SERIES comes from Debian, and there is no apt; KDIR= takes a tree you have"
	APT_OPTIONS=(-o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir" -o APT::Sandbox::User=root
		-o APT::Update::Error-Mode=any)
	if [[ -s $BUILD/stock.pick ]]; then
		pick=$(<"$BUILD/stock.pick")
	else
		step apt-backports "apt-get update for $BACKPORTS_OF-backports" backports_update
		pick=$(versions "linux-source-$BASE_SERIES" | head -n 1)
		[[ -n $pick ]] || base_is_gone
		echo "$pick" >"$BUILD/stock.pick"
	fi
	BASE_KIND=backports
	BASE_VERSION=$pick
	BASE_GIT=$CACHE/base/$BASE_VERSION.git
}

# Backports move on to the next series. Verbs that test then pass with a skip.
base_is_gone()
{
	local why="Debian's $BACKPORTS_OF-backports offer no linux-source-$BASE_SERIES any more"

	case ${VERB-} in
	run|test*|base-test|bench|check)
		echo "*** BASE=$BASE_SERIES is SKIPPED: $why ***"
		echo "0 passed, 0 failed, 1 skipped"
		exit 0 ;;
	*) die "$why; KDIR= takes a tree you have" ;;
	esac
}

# download PACKAGE=VERSION...: into the cache
download()
{
	local p version
	local -a missing=()

	mkdir -p "$CACHE/debs.tmp" "$CACHE/debs"
	for p; do
		version=${p#*=}
		compgen -G "$CACHE/debs/${p%%=*}_${version/:/%3a}_*.deb" >/dev/null ||
			missing+=("$p")
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	cd "$CACHE/debs.tmp" || exit
	apt-get -q download "${missing[@]}" "${APT_OPTIONS[@]}" ||
		die "cannot download ${missing[*]}: is the network up? 'apt-get update' may help too"
	mv ./*.deb "$CACHE/debs/"
}

deb()
{
	local f

	for f in "$CACHE/debs/$1_"*"$2"_*.deb; do
		echo "$f"
	done
}

base_from_deb()
{
	local t

	download "linux-source-$BASE_SERIES=$BASE_VERSION"
	temp t "$CACHE/base.tmp"
	mkdir -p "$t/src"
	dpkg-deb --fsys-tarfile "$(deb "linux-source-$BASE_SERIES" "${BASE_VERSION#*:}")" |
		tar -xO "./usr/src/linux-source-$BASE_SERIES.tar.xz" | base_unpack "$t/src"
	base_import "$t/src"
	rm -rf "$t"
}

# base_unpack DIR: a tar.xz of the source. More than half of it are drivers that no
# kernel here has: of these come the Kconfig files and Makefiles only.
base_unpack()
{
	local d
	local -a unused=()

	for d in drivers/{gpu,media,net/ethernet,net/wireless,staging}; do
		unused+=("--exclude=*/$d/*.[ch]")
	done
	tar -xJ -C "$1" --strip-components=1 "${unused[@]}"
}

# base_import DIR: its files as the one commit of BASE_GIT
base_import()
{
	local t=$BASE_GIT.tmp

	rm -rf "$t"
	mkdir -p "${BASE_GIT%/*}"
	git init -q --bare "$t"
	git -C "$t" config core.bare true
	# One pack instead of 85,000 loose files: a "big" file goes straight to a pack.
	git --git-dir="$t" --work-tree="$1" -c core.bare=false -c core.bigFileThreshold=1 \
		-c pack.compression=1 -c core.autocrlf=false -c core.safecrlf=false \
		add -A -f .
	commit_tree "$t" "$(git --git-dir="$t" write-tree)" "Linux $BASE_VERSION" \
		>"$t/refs/heads/base"
	git -C "$t" symbolic-ref HEAD refs/heads/base
	rm -f "$t/index"
	mv "$t" "$BASE_GIT"
}

# The stock kernel of BASE_VERSION; VARIANT=rt takes the PREEMPT_RT one.
stock()
{
	base
	[[ $BASE_KIND = debian ]] ||
		die "there is no stock kernel to a base of kind $BASE_KIND; use VARIANT=debug, or no KDIR"
	[[ ${1-} != rt ]] || KREL=${KREL%%-*}-rt-amd64
	STOCK=$CACHE/stock/$KREL-$BASE_VERSION
	if [[ ! -d $STOCK/lib/modules/$KREL ]]; then
		step stock "get the stock kernel $KREL" stock_get "$KREL" "$BASE_VERSION"
	fi
	# shellcheck disable=SC2034 # for build.sh
	STOCK_HEADERS=$STOCK/usr/src/linux-headers-$KREL
	STOCK_CC=$(<"$STOCK/cc")
	command -v "$STOCK_CC" >/dev/null || {
		step apt-cc "install $STOCK_CC" as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get -q install -y --no-install-recommends "$STOCK_CC"
	}
}

stock_get()
{
	local rel=$1 version=$2 t=$STOCK.tmp p image

	image=linux-image-$rel
	[[ -n $(versions "$image") ]] || image=$image-unsigned
	set -- "$image" "linux-headers-$rel"
	for p in $(apt-cache show "linux-headers-$rel=$version" |
			sed -n 's/^Depends: //p' | tr ',' '\n' | awk '{ print $1 }'); do
		case $p in
		linux-headers-*|linux-kbuild-*) set -- "$@" "$p" ;;
		gcc-*) STOCK_CC=$p ;;
		esac
	done
	for p; do
		grep -qxF "$version" <<<"$(versions "$p")" ||
			die "the stock kernel is $version, but apt has $p only as" \
			"$(versions "$p" | tr '\n' ' '); run apt-get update"
	done
	# shellcheck disable=SC2046
	download $(printf "%s=$version " "$@")
	rm -rf "$t"
	mkdir -p "$t"
	for p; do
		dpkg -x "$(deb "$p" "${version#*:}")" "$t"
	done
	# Debian 13 has no /lib, but /usr/lib.
	[[ -d $t/lib/modules ]] || { mkdir -p "$t/lib" && mv "$t/usr/lib/modules" "$t/lib/"; }
	# The headers name each other by absolute path; they now live here.
	sed -i "s|/usr/src/|$STOCK/usr/src/|" "$t/usr/src/linux-headers-$rel/Makefile"
	echo "${STOCK_CC:?linux-headers-$rel names no compiler}" >"$t/cc"
	rm -rf "$STOCK"
	mv "$t" "$STOCK"
}

# --- a tree of the user's own, kernel.org ---------------------------------

# kernel_version DIR: 6.12.117, or nothing where DIR is no kernel tree
kernel_version()
{
	[[ -f $1/Makefile && -f $1/Kbuild && -d $1/virt/kvm ]] || return 0
	awk -F' *= *' '$1 == "VERSION" { v = $2 } $1 == "PATCHLEVEL" { p = $2 }
		$1 == "SUBLEVEL" { print v "." p "." $2; exit }' "$1/Makefile"
}

name_kdir()
{
	local v key

	v=$(kernel_version "$KDIR")
	[[ -n $v ]] || die "KDIR=$KDIR is no kernel tree (it wants a Makefile, a Kbuild and virt/kvm)"
	[[ $v = "$BASE_SERIES".* ]] ||
		die "KDIR=$KDIR is Linux $v; the series is for $BASE_SERIES"
	BASE_KIND=kdir
	# Seen by content of what the series touches and by HEAD, so that a changed
	# tree is a new base.
	key=$(cd "$KDIR" && { git rev-parse HEAD 2>/dev/null || :
		find arch/*/kvm arch/*/include virt include tools/testing/selftests/kvm \
			-type f -exec sha1sum {} + 2>/dev/null | sort || :
		} | digest)
	BASE_VERSION=$v-$key
	BASE_GIT=$BUILD/kdir/$BASE_VERSION.git
}

base_from_kdir()
{
	local t

	temp t "$BUILD/kdir.tmp"
	mkdir -p "$t"
	if [[ $(git -C "$KDIR" rev-parse --show-toplevel 2>/dev/null) = "$(realpath "$KDIR")" ]]; then
		(cd "$KDIR" && git ls-files -z | rsync -a --from0 --files-from=- ./ "$t/")
	else
		rsync -a --exclude='*.o' --exclude='*.ko' --exclude='*.a' --exclude='.*.cmd' "$KDIR/" "$t/"
		make -C "$t" -s mrproper
	fi
	base_import "$t"
	rm -rf "$t"
}

name_tarball()
{
	BASE_KIND=tarball
	BASE_VERSION=$KERNEL_ORG_VERSION
	BASE_GIT=$CACHE/base/$BASE_VERSION.git
}

base_from_tarball()
{
	local t url=$KERNEL_ORG/linux-$KERNEL_ORG_VERSION.tar.xz

	temp t "$CACHE/base.tmp"
	mkdir -p "$t/src"
	curl -fsSL -o "$t/linux.tar.xz" "$url" ||
		die "cannot download $url: is the network up? KDIR= takes a tree you have"
	base_unpack "$t/src" <"$t/linux.tar.xz"
	base_import "$t/src"
	rm -rf "$t"
}
