# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# KTAP for scripts that test: plan N, then N times `t TEXT command...` or `check TEXT
# EXPRESSION`, then done_.

TAP_N=0 TAP_FAILED=0

plan()
{
	TAP_PLAN=$1
	echo "KTAP version 1"
	echo "1..$1"
}

# t TEXT command...: passes if the command succeeds; else its output follows. The command
# is a function of the script or a program, and its first error ends it.
t()
{
	local text=$1 said rc=0 start=$SECONDS
	shift

	TAP_N=$((TAP_N + 1))
	said=$(mktemp)
	: < <(set -e; "$@" >"$said" 2>&1)
	wait $! || rc=$?
	if [[ $rc -eq 0 ]]; then
		echo "ok $TAP_N $text # $((SECONDS - start)) s"
	else
		TAP_FAILED=$((TAP_FAILED + 1))
		echo "not ok $TAP_N $text"
		tail -n 15 "$said" | sed 's/^/#   /'
	fi
	[[ -z ${TAP_SAID-} ]] || { echo "== $text ($rc)"; cat "$said"; } >>"$TAP_SAID"
	rm -f "$said"
}

# check TEXT EXPRESSION: passes if the expression, an arithmetic one, is true
check()
{
	local not='' how=''

	TAP_N=$((TAP_N + 1))
	(($2)) || { not='not ' how=" # it is not: $2"; TAP_FAILED=$((TAP_FAILED + 1)); }
	echo "${not}ok $TAP_N $1$how"
}

# done_: return success if all planned tests ran and passed
done_()
{
	[[ $TAP_N -eq $TAP_PLAN ]] || echo "# planned $TAP_PLAN, did $TAP_N"
	echo "# $((TAP_N - TAP_FAILED)) passed, $TAP_FAILED failed"
	[[ $TAP_N -eq $TAP_PLAN && $TAP_FAILED -eq 0 ]]
}

# refuses WORD... -- command...: the command fails, and prints each WORD
refuses()
{
	local said w
	local -a words=()

	while [[ $1 != -- ]]; do
		words+=("$1")
		shift
	done
	shift
	if said=$("$@" 2>&1); then
		echo "$said"
		echo "this should have been refused: $*"
		return 1
	fi
	echo "$said"
	for w in "${words[@]}"; do
		grep -qF -- "$w" <<<"$said" || { echo "not said: $w"; return 1; }
	done
}
