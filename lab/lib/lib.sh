# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Common code of the lab's parts: paths, messages, steps, exit handling.

TOP=$(cd "${BASH_SOURCE%/*}/../.." && pwd -P)
BASE_SERIES=${BASE:-6.12}
BUILD=$TOP/build
[[ $BASE_SERIES = 6.12 ]] || BUILD+=-$BASE_SERIES
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kvm-gpc
LOGS=$BUILD/logs
PATCHES=$TOP/patches/$BASE_SERIES
JOBS=${JOBS:-$(nproc)}
export CCACHE_DIR=$CACHE/ccache CCACHE_BASEDIR=$TOP CCACHE_NOHASHDIR=1
export CCACHE_COMPILERCHECK=content CCACHE_SLOPPINESS=time_macros
# The compiler's list of the files that it read is the key: no preprocessor runs before it.
export CCACHE_DEPEND=1
# Two builds must not differ by user, host or time.
export KBUILD_BUILD_USER=kvm-gpc KBUILD_BUILD_HOST=lab
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export LC_ALL=C
unset MAKEFLAGS MFLAGS MAKELEVEL GNUMAKEFLAGS

die()
{
	echo "error: $*" >&2
	exit 1
}

note()
{
	echo "$*"
}

# On every exit, including ctrl-C at any point, end all child processes and remove all
# temporary files. Long work runs in the background and the shell waits for it, so that
# the shell handles a signal at once.
LAB_TMP=()

cleanup()
{
	local rc=$?

	trap '' INT TERM HUP
	trap - EXIT
	end_children $$
	[[ ${#LAB_TMP[@]} -eq 0 ]] || rm -rf "${LAB_TMP[@]}"
	exit "$rc"
}
trap cleanup EXIT
trap 'echo; echo "interrupted" >&2; exit 130' INT TERM HUP

# descendants PID: deepest first
descendants()
{
	local child

	for child in $(pgrep -P "$1" || :); do
		descendants "$child"
		echo "$child"
	done
}

# end_children PID: TERM, time to exit, KILL (Bochs ignores TERM)
end_children()
{
	local pids i

	pids=$(descendants "$1")
	[[ -n $pids ]] || return 0
	# shellcheck disable=SC2086
	kill -TERM $pids 2>/dev/null || :
	for ((i = 0; i < 25; i++)); do
		# shellcheck disable=SC2086
		kill -0 $pids 2>/dev/null || return 0
		sleep 0.2
	done
	# shellcheck disable=SC2086
	kill -KILL $pids 2>/dev/null || :
}

# A temporary file that is removed on every exit.
# temp VAR PATH
temp()
{
	LAB_TMP+=("$2" "$2.lock")
	rm -rf "$2" "$2.lock"
	printf -v "$1" %s "$2"
}

with_lock()
{
	[[ -z ${BASE-} || -f $PATCHES/series ]] ||
		die "BASE=$BASE_SERIES: there is no patches/$BASE_SERIES/series; there is: $(cd "$TOP/patches" && echo */)"
	mkdir -p "$BUILD" "$LOGS" "$CACHE" || die "cannot make $BUILD and $CACHE"
	exec 9>"$BUILD/.lock"
	flock -n 9 || die "another make runs in $TOP; wait for it to end"
	"$@"
}

# lacks_space DIR GIB: print the problem and its solution, or nothing
lacks_space()
{
	local have

	mkdir -p "$1"
	have=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }')
	[[ $have -ge $2 ]] ||
		echo "$1 has $have GiB free, $2 are needed; make room, or set XDG_CACHE_HOME"
}

need_space()
{
	local why

	why=$(lacks_space "$@")
	[[ -z $why ]] || die "$why"
}

# of_this_base: of a list on standard input, the lines of all bases and of BASE. A line
# that begins with "BASE:" is for that base only.
of_this_base()
{
	sed "s/^$BASE_SERIES://; /^[0-9.]*:/d"
}

# contained LOG command...: write the command's output to LOG and its exit status to LOG.rc,
# and always remove its temporary files. For `< <(contained ...)`: not `&`, since under a
# condition bash would not stop it at the first error.
contained()
{
	CONTAINED=$1.rc
	rm -f "$CONTAINED"
	exec 9>&- >"$1" 2>&1 </dev/null
	LAB_TMP=()
	trap 'rc=$?; [[ ${#LAB_TMP[@]} -eq 0 ]] || rm -rf "${LAB_TMP[@]}"; echo $rc >"$CONTAINED"; exit $rc' EXIT
	trap 'exit 143' TERM
	set -e
	shift
	"$@"
	exit	# or bash would exec a program in its own place, without the trap
}

# contained_status LOG: the status, once the command has ended. Bash loses the status of such
# a child when another child ends at the same moment (-1, seen with 5.2).
contained_status()
{
	cat "$1.rc" 2>/dev/null || echo 1
}

# Print one line for a step, run the step with all output in a log, add the time. While
# the step runs, count the lines of the log that match STEP_COUNT, by default the objects
# that kbuild reports; STEP_TOTAL is the expected number.
# step NAME TEXT command...
step()
{
	local log=$LOGS/$1.log text=$2 start=$SECONDS
	shift 2

	printf '%-58s' "$text"
	: < <(contained "$log" "$@")
	progress $! "$text" "$start" "$log" "${STEP_TOTAL-}"
	if [[ $(contained_status "$log") -ne 0 ]]; then
		printf 'FAILED\n'
		show_tail "$log" >&2
		exit 1
	fi
	printf '%3d s\n' $((SECONDS - start))
}

# progress PID TEXT START LOG [TOTAL]: show the progress until PID ends
progress()
{
	local so_far next=30 count=${STEP_COUNT-'^  (CC|AS|HOSTCC|HYP[A-Z]*)\>'}

	while kill -0 "$1" 2>/dev/null; do
		sleep 0.2
		[[ -t 1 || $((SECONDS - $3)) -ge $next ]] || continue
		so_far=$(grep -acE "$count" "$4" 2>/dev/null || :)
		[[ -n ${5-} || ${so_far:-0} -gt 0 ]] || so_far=
		so_far=${so_far:+$so_far${5:+/$5} done, }
		if [[ -t 1 ]]; then
			printf '\r%-38s %s%d s  ' "$2" "$so_far" $((SECONDS - $3))
			sleep 0.3
		else
			printf '\n  %s%d s ' "$so_far" $((SECONDS - $3))
			next=$((next + 30))
		fi
	done
	[[ ! -t 1 ]] || printf '\r%-58s' "$2"
}

# show_tail LOG: the errors in the log, or else its end
show_tail()
{
	{ grep -E '^error: |(: error:|: fatal error:| Error [0-9]|^E: )' "$1" || tail -n 15 "$1"; } |
		tail -n 15 | sed 's/^/  | /'
	echo "  whole log: $1"
}

# SHA of standard input
digest()
{
	sha256sum | cut -c1-16
}

# Never leave a half-written file under its final name.
# into FILE command...
into()
{
	local out=$1
	shift

	"$@" >"$out.tmp" || { rm -f "$out.tmp"; return 1; }
	mv "$out.tmp" "$out"
}
