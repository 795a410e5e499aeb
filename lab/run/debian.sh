# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make test-debian: a fresh root of a Debian release, a clone of the repository in it,
# and the verbs that a new user types. The root's caches stay outside of it.
#
# lab/run/debian.root.sh runs in separate mount and PID namespaces: its mounts and its
# processes end with it.

debian_host()
{
	(. /etc/os-release && echo "${VERSION_CODENAME-}")
}

# debian_sources SUITE: this machine's apt sources of Debian, for another suite
debian_sources()
{
	# shellcheck disable=SC2016 # the names are of apt
	apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' |
		awk -v suite="$1" -v host="$(debian_host)" '
			$1 == "Debian" && ($2 == host || index($2, host "-") == 1) {
				sub("^" host, suite, $4)
				print "deb", $3, $4, $5
			}' | sort -u
}

# debian_apt: this machine's download settings, a proxy for example
debian_apt()
{
	apt-config dump | grep '^Acquire::' | grep -v IndexTargets
}

# debian_obstacle: why this machine cannot make a root of Debian, or nothing
debian_obstacle()
{
	command -v apt-get >/dev/null || { echo "there is no apt"; return; }
	unshare --mount --pid --fork true 2>/dev/null || { echo "no right to mount"; return; }
	have_package mmdebstrap || apt_update >/dev/null 2>&1 || :
	have_package mmdebstrap || installed mmdebstrap || { echo "apt has no mmdebstrap"; return; }
	[[ -n $(debian_sources x) ]] || { echo "apt has no source of this Debian release"; return; }
	lacks_space "$BUILD" 6
}

# debian_root ROOT SUITE CACHE
debian_root()
{
	local root=$1 suite=$2 debs=$3/archives

	mkdir -p "$debs/partial" "$3/kvm-gpc"
	debian_apt >"$3/apt.conf"
	debian_sources "$suite" >"$3/sources"
	cat "$3/sources"
	# mmdebstrap's mounts end with it, so that the root can be removed on every exit. The
	# first hook provides the packages of earlier runs, the last one keeps the new ones.
	unshare --mount --pid --fork --kill-child --mount-proc \
		mmdebstrap --variant=minbase --include=git,make,ca-certificates --mode=root \
		--aptopt="$3/apt.conf" --skip=download/empty,essential/unlink,cleanup/apt/cache \
		--setup-hook="mkdir -p \"\$1/var/cache/apt/archives\" && cp -l '$debs'/*.deb \"\$1/var/cache/apt/archives/\" || :" \
		--customize-hook="cp -n \"\$1\"/var/cache/apt/archives/*.deb '$debs/'; rm -f \"\$1\"/var/cache/apt/archives/*.deb" \
		"$suite" "$root" "$3/sources"
	git clone -q "$TOP" "$root/root/kvm-gpc"
}

# debian_sum VERB LOG RC: the closing line of the log, or one for the verb itself
debian_sum()
{
	{ grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$2" || :; } | tail -n 1 |
		awk -v rc="$3" '{ p = $1; f = $3; s = $5 }
			END { if (rc != 0 && !f) f++; else if (!NR) p++
				printf "%d passed, %d failed, %d skipped\n", p, f, s }'
}

# sum_up: the sum of closing lines
sum_up()
{
	awk '{ p += $1; f += $3; s += $5 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }'
}

verb_test_debian()
{
	local suite=${SUITE:-trixie} why cache dir root verb rc log sums=

	[[ $(id -u) -eq 0 ]] ||
		die "make test-debian makes a root of Debian and mounts in it, which needs root; as root, type: make test-debian SUITE=$suite"
	why=$(debian_obstacle)
	if [[ -n $why ]]; then
		debian_skip "$suite" "$why"
		return 0
	fi
	need debian
	[[ -z $(git -C "$TOP" status --porcelain) ]] || note "what is not committed is not tested"
	# shellcheck disable=SC2153 # of lib.sh
	cache=$CACHE/debian/$suite dir=$BUILD/debian/$suite
	rm -rf "$dir"
	mkdir -p "$dir"/{logs,results}
	temp root "$dir/root"
	(step debian "make a root of Debian $suite" debian_root "$root" "$suite" "$cache") &
	if ! wait $!; then
		debian_skip "$suite" "mmdebstrap fails"
		return 0
	fi
	for verb in ${VERBS:-run}; do
		note "--- $suite: make $verb"
		log=$dir/$verb.log rc=0
		unshare --mount --pid --fork --kill-child "$TOP/lab/run/debian.root.sh" \
			"$root" "$cache" "$dir" "$verb" </dev/null 9>&- 2>&1 | tee "$log" &
		wait $! || rc=$?
		sums+=$(debian_sum "$verb" "$log" "$rc")$'\n'
		note "--- $suite: make $verb ended with $rc"
	done
	why=$(sum_up <<<"${sums%$'\n'}")
	note "$why"
	[[ $why = *" 0 failed, "* ]] || exit 1
}

debian_skip()
{
	echo "*** Debian $1 is SKIPPED: $2 ***"
	echo "0 passed, 0 failed, 1 skipped"
}
