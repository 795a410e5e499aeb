#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Check gpc.pml, the model of the guest-page cache's locking, with spin: that it
# holds, and that each of its variants with one rule broken does not.  Output is
# KTAP; what spin says of a failure follows it.
#
# usage: check-model.sh [full]
#
# "full" adds all processes at once: 5 minutes and 4 GB instead of 2 and 1.

set -u
export LC_ALL=C

SPIN=${SPIN:-spin}
CC=${CC:-gcc}
MODEL=$(cd "$(dirname "$0")" && pwd)/gpc.pml

# The variants and what spin must say of each.  assert(...) in gpc.pml:
STALE='assertion violated ((khva==(uhva+1))&& !(khva_gone))'
OLD_MEMSLOT='assertion violated  !(((gpa&&(uhva==0))&&memslot_freed))'
DEACTIVATED='assertion violated  !(deactivated)'
MM_GONE='assertion violated  !(mm_gone)'
STUCK='invalid end state'
STARVES='non-progress cycle'

VARIANTS=(
	NO_TREE_INSERT		"$STALE"
	CLEAR_OUTSIDE		"$STALE"
	PUBLISH_UNCHECKED	"$STALE"
	RECORD_DROPPED		"$STALE"
	NO_DRAIN		"$STALE"
	START_NO_WAIT		"$STALE"
	START_KEEPS_VALID	"$STALE"
	CHECK_UNLOCKED		"$STALE"
	TREE_STAYS		"$STALE"
	DEACTIVATE_NO_WAIT	"$STALE"
	NO_REFRESH_LOCK		"$DEACTIVATED"
	NO_GENERATION		"$OLD_MEMSLOT"
	NO_SRCU_WAIT		"$OLD_MEMSLOT"
	CLOSE_KEEPS_CACHES	"$MM_GONE"
	CLOSED_UNSEEN		"$MM_GONE"
	MARK_LATE		"$STUCK"
	QUEUE_LATE		"$STUCK"
	END_TWO_SECTIONS	"$STUCK"
	DRAIN_NO_WAKE		"$STUCK"
	CLOSE_NO_WAKE		"$STUCK"
	WAIT_ANY		"$STARVES"
	MISS_ANY		"$STARVES"
)

tests=0
failures=0

result()
{
	local verdict=ok

	tests=$((tests + 1))
	if [[ $1 -ne 0 ]]; then
		verdict='not ok'
		failures=$((failures + 1))
	fi
	echo "$verdict $tests gpc_model: $2"
	[[ $1 -eq 0 ]] || sed 's/^/# /' log
}

# verify safety|progress SPIN-FLAG...: an exhaustive search, what it says in ./log
verify()
{
	local cflags=(-O1 -DCOLLAPSE -DMEMLIM="$memlim") args=(-m2000000 -w24) kind=$1
	shift

	if [[ $kind = progress ]]; then
		set -- -DPROGRESS "$@"
		cflags+=(-DNP -DNFAIR=3)
		args+=(-l -f)
	else
		cflags+=(-DSAFETY)
	fi
	rm -f pan* ./*.trail
	"$SPIN" -a "$@" gpc.pml >log 2>&1 &&
		"$CC" -w "${cflags[@]}" pan.c -o pan >>log 2>&1 &&
		./pan "${args[@]}" >log 2>&1
	if [[ -e gpc.pml.trail ]]; then
		"$SPIN" -t -p "$@" gpc.pml 2>&1 | tail -n 50 >>log
	fi
}

search_was_complete()
{
	grep -q 'errors: 0$' log && ! grep -qE '^error|not completed|reached -DMEMLIM' log
}

holds()
{
	local text=$1
	shift

	verify "$@"
	search_was_complete
	result $? "$text"
}

# A step that is never made would be one that is not checked.
all_reached()
{
	! grep -qE ', state [0-9]+, ' log
}

is_rejected()
{
	local name=$1 expected=$2 kind=safety flags=() rule

	[[ $expected = "$STARVES" ]] && kind=progress || flags=(-DONE_NOTIFIER)
	rule=$(sed -nE "s|^#if.* BREAK_${name}[[:space:]]+/\* (.*) \*/|\1|p" gpc.pml)
	verify "$kind" -DBREAK_"$name" "${flags[@]}"
	[[ -n $rule ]] && grep -qF "pan:1: $expected" log
	result $? "rejects BREAK_$name, $rule: ${expected%% (*}"
}

# In the model, and not in the table above?
unlisted()
{
	comm -3 <(grep -oE '\bBREAK_[A-Z_]+' gpc.pml | sort -u) \
		<(printf 'BREAK_%s\n' "${names[@]}" | sort)
}

for cmd in "$SPIN" "$CC"; do
	command -v "$cmd" >/dev/null || { echo "Bail out! $cmd is not installed"; exit 1; }
done

dir=$(mktemp -d) || exit
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cp "$MODEL" "$dir" && cd "$dir" || exit

names=()
for ((i = 0; i < ${#VARIANTS[@]}; i += 2)); do
	names+=("${VARIANTS[i]}")
done
full=0
[[ ${1-} != full ]] || full=1

echo "TAP version 13"
echo "1..$((6 + full + ${#names[@]}))"

memlim=1800
holds "safety, two notifiers, the memslots change" safety -DNO_RELEASE
holds "safety, two notifiers, the VM closes" safety -DNO_MEMSLOT_UPDATE
holds "safety, one notifier, the memslots change and the VM closes" safety -DONE_NOTIFIER
all_reached
result $? "there each step of the model is made"
holds "progress" progress
if ((full)); then
	memlim=8000
	holds "safety, all at once" safety
	memlim=1800
fi

unlisted >log
[[ ! -s log ]]
result $? "all broken variants are listed"
for ((i = 0; i < ${#VARIANTS[@]}; i += 2)); do
	is_rejected "${VARIANTS[i]}" "${VARIANTS[i + 1]}"
done

[[ $failures -eq 0 ]]
