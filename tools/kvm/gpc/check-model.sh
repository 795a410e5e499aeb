#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Check gpc.pml, the model of the guest-page cache's protocol, with spin: that it
# holds, and that each of its variants with one rule broken does not; and that each
# rule is still in the code, in the words that are quoted here.  Output is KTAP; what
# spin says of a failure follows it.
#
# usage: check-model.sh [full]
#
# Takes three minutes of one core, and 600 MB for each of the JOBS (2) that run at a
# time.
#
# There is no configuration with everything in it; each has what can meet in one
# argument of pfncache.c, for as many rounds as it likes:
#
# - two notifiers, which is all that the counts of invalidations and of records need
#   to differ in any way: what holds for one invalidation is said of each by itself;
# - updates of the memslots: a flag, and there and invalid again, or a move and back,
#   since a cache knows no other memslots than those that bound it and those of now.
#   The generation makes this the only bound on rounds;
# - one page in one memslot, but two in two where the second page could make a
#   difference: to the tree, to records of both kinds, to privacy, to the mapping;
# - a VMM that answers the faults of lookups, but not while it is in a deactivation;
# - one who only ever tries, and two who contend for the refresh_lock: as user and
#   VMM, as two users, or as two VMMs.  A third would just wait for one of them;
# - one cache.  All that caches share is the tree, the records, nr_active and the
#   queue, and on this everybody is woken.
#
# A variant is tried where the model without it was seen to hold.
#
# "full" adds more at a time: minutes, and GBs.

set -u
export LC_ALL=C

SPIN=${SPIN:-spin}
CC=${CC:-gcc}
JOBS=${JOBS:-2}
MODEL=$(cd "$(dirname "$0")" && pwd)/gpc.pml
TREE=$(cd "$(dirname "$0")/../../.." && pwd)

CONFIGURATIONS=(
	"page tables"			"NOTIFIERS=1"
	"... of a cache that stays"	"NOTIFIERS=1 DEACTIVATES=0"
	"memslots"			"PAGES=2 UPDATES=2"
	"two pages in two memslots"	"NOTIFIERS=1 PAGES=2 UPDATES=2"
	"two gfns change attributes"	"CHANGES=1 PAGES=2 UPDATES=2"
	"a memslot moves and is back"	"CHANGES=1 UPDATES=4 HVA=1"
	"guest_memfd loses gfns twice"	"HOLES=2 PAGES=2"
	"a memslot moves, page tables"	"NOTIFIERS=1 UPDATES=2 HVA=1"
	"... and guest_memfd"		"HOLES=1 PAGES=2 UPDATES=2"
	"two notifiers, two users"	"NOTIFIERS=2 TRYLOCKS=1"
	"two notifiers, the VM closes"	"NOTIFIERS=2 RELEASES=1"
	"two VMMs, two users"		"NOTIFIERS=1 VMMS=2 TRYLOCKS=1"
	"attributes and page tables"	"NOTIFIERS=1 CHANGES=1"
	"two users, one a stranger"	"NOTIFIERS=1 LOCKS=2 STRANGERS=1"
	"the VMM answers faults"	"NOTIFIERS=1 PAGES=2 USERFAULTS=1"
	"attributes, the VM closes"	"CHANGES=1 RELEASES=1"
)

FULL=(
	"two notifiers, two of all"	"NOTIFIERS=2 TRYLOCKS=1 PAGES=2"
	"all that can change"		"NOTIFIERS=1 CHANGES=1 UPDATES=1 RELEASES=1"
)

PROGRESS=(
	"of a refresh"			"PROGRESS NOTIFIERS=2 CHANGES=1 PAGES=2"
	"of a refresh, other memslots"	"PROGRESS UPDATES=1"
	"of an invalidation"		"PROGRESS PROGRESS_START NOTIFIERS=1 TRYLOCKS=1"
)

# What spin can say: assert(...) in gpc.pml, and its own
declare -A SAYS=(
	[open]='assertion violated  !((gpc.users<128))'
	[nothing]='assertion violated khva'
	[unmapped]='assertion violated (khva&&mapped)'
	[unmapped-twice]='assertion violated mapped'
	[mapped]='assertion violated (gpc.refreshing|| !(mapped))'
	[left]='assertion violated ((gpc.is_active|| !((mapped||(gpcs.in_tree!=0))))'
	[in-tree]='assertion violated (gpc.refresh_lock|| !((gpcs.in_tree!=0)))'
	[stale]='assertion violated (((gpc.nr_pages<=0)||(gpc.map.pfns[0]=='
	[misled]='assertion violated ( !(( !(gpc.gpa)||(gpc.generation==memslots_'
	[private]='assertion violated ((( !(gpc.gpa)||(gpc.nr_pages<=0))|| !(((gfn_t'
	[old-memslot]='assertion violated ( !(gpc.gpa)||(gpc.generation>=memslots_f'
	[mm-gone]='assertion violated  !(mm_gone)'
	[stuck]='invalid end state'
	[starves]='non-progress cycle'
)

# The variants: the words of pfncache.c or kvm_gpc.h that state the rule, and BREAK_...
# with what spin must say of it in what configuration.  First the rules of the comment
# that is the argument, in its order, one variant each.
VARIANTS=(
	"a use compares the cache's generation with that of the memslots"
	NO_GENERATION		old-memslot	"PAGES=2 UPDATES=2"
	"waits for all readers of srcu"
	NO_SRCU_WAIT		old-memslot	"PAGES=2 UPDATES=2"
	"raising @users, which fails when that is negative"
	COUNT_LATE		nothing		"NOTIFIERS=1"
	"Closing makes @users negative"
	CLOSE_LATE		starves		"PROGRESS PROGRESS_START NOTIFIERS=1 TRYLOCKS=1"
	"spins until the uses that are left have ended"
	CLOSE_NO_WAIT		unmapped	"NOTIFIERS=1"
	"What a use reads changes only while the cache is closed"
	BIND_NO_CLOSE		open		"PAGES=2 UPDATES=2"
	"finds the caches of its range in an interval tree"
	TREE_ONE_PAGE		stale		"NOTIFIERS=1 PAGES=2 USERFAULTS=1"
	"an invalidation leaves a record"
	NO_RECORD		stale		"NOTIFIERS=1"
	"puts its pages into the tree; waits"
	TREE_LATE		stale		"NOTIFIERS=1"
	"waits until no record overlaps any of them"
	WAIT_FIRST_PAGE		stale		"NOTIFIERS=1 PAGES=2 USERFAULTS=1"
	"clears @missed in the same section"
	CLEAR_LATE		stale		"NOTIFIERS=1 DEACTIVATES=0"
	"publishes, but only if @missed is still clear"
	PUBLISH_MISSED		stale		"NOTIFIERS=1 DEACTIVATES=0"
	"All of start and end"
	START_TWO_SECTIONS	stale		"NOTIFIERS=1"
	"all that is said here of a refresh but lookup and mapping, are sections"
	PUBLISH_TWO_SECTIONS	stale		"NOTIFIERS=1 DEACTIVATES=0"
	"the refresh sees the record and waits"
	WAIT_NOT		stale		"NOTIFIERS=1"
	"it finds the cache in the tree and sets @missed"
	START_NOT_MISSED	stale		"NOTIFIERS=1"
	"and closes the cache in case it was published"
	START_KEEPS_OPEN	stale		"NOTIFIERS=1"
	"they neither delay a refresh"
	WAIT_ANY		starves		"PROGRESS NOTIFIERS=2 CHANGES=1 PAGES=2"
	"nor make it retry, however many there are"
	MISS_ANY		starves		"PROGRESS NOTIFIERS=2 CHANGES=1 PAGES=2"
	"does not itself wait for refresh_lock"
	END_WAITS		stuck		"NOTIFIERS=1"
	"kvm_gpc_close_vm() wakes all"
	CLOSE_VM_NO_WAKE	stuck		"NOTIFIERS=2 RELEASES=1"
	"A user task can be killed in it"
	WAIT_UNKILLABLE		stuck		"NOTIFIERS=1"
	"the waiter is on the queue before it looks at the records"
	QUEUE_LATE		stuck		"NOTIFIERS=1"
	"marks the one it waits for"
	MARK_NOT		stuck		"NOTIFIERS=1"
	"end removes the record and looks for the mark in one section"
	END_TWO_SECTIONS	stuck		"NOTIFIERS=1"
	"a refresh waits until that equals the number of records"
	WAIT_NO_DRAIN		stale		"NOTIFIERS=1"
	"is waited for in the same way"
	DRAIN_NO_WAKE		stuck		"NOTIFIERS=1"
	"leaves a record of gfns"
	GFNS_NO_RECORD		private		"NOTIFIERS=1 CHANGES=1"
	"finds its caches through the memslots of its time"
	GFNS_NOT_INVALID	private		"HOLES=1 PAGES=2 UPDATES=2"
	"attributes change under slots_lock"
	GFNS_NO_SLOTS_LOCK	private		"CHANGES=1 PAGES=2 UPDATES=2"
	"looks at the attributes after the change"
	LOOKUP_PRIVATE		private		"NOTIFIERS=1 CHANGES=1"
	"Deactivation does not wait for a refresh"
	DEACTIVATE_WAITS	stuck		"NOTIFIERS=1 PAGES=2 USERFAULTS=1"
	"It sets @missed, so that nothing is published"
	DEACTIVATE_NOT_MISSED	left		"NOTIFIERS=1"
	"clears @active, so that no lookup begins"
	INACTIVE_UNSEEN		left		"PAGES=2 UPDATES=2"
	"While a refresh is under way the mapping is its own"
	DEACTIVATE_TAKES_MAP	unmapped-twice	"NOTIFIERS=1"
	"otherwise deactivation undoes it"
	DEACTIVATE_KEEPS_MAP	mapped		"NOTIFIERS=1"
	"all caches are closed"
	CLOSE_VM_KEEPS_CACHES	mm-gone		"NOTIFIERS=2 RELEASES=1"
	"none can be refreshed"
	CLOSE_VM_NOT_SAID	mm-gone		"NOTIFIERS=2 RELEASES=1"
	"Lock order: kvm->srcu or kvm->slots_lock, gpc->refresh_lock, mm locks"
	USE_TAKES_LOCK		stuck		"NOTIFIERS=1"

	# What is said at a function or field.
	"One activation or refresh at a time"
	NO_REFRESH_LOCK		open		"NOTIFIERS=1"
	"take guest memory away from the caches"
	GFNS_KEEP_OPEN		private		"NOTIFIERS=1 CHANGES=1"
	"A cache that is activated from here on sees the record"
	GFNS_RECORD_LATE	private		"NOTIFIERS=1 CHANGES=1"
	"anywhere from the first gfn of all to the last"
	GFNS_FIRST_START	private		"HOLES=2 PAGES=2"
	"refreshes then wait for the end of the last"
	GFNS_FIRST_END		private		"HOLES=2 PAGES=2"
	"let refreshes of guest memory go on"
	GFNS_NO_WAKE		stuck		"NOTIFIERS=1 CHANGES=1"
	"let refreshes of a user range go on"
	END_NO_WAKE		stuck		"NOTIFIERS=1"
	"it will wake &kvm_gpcs.wait at its end"
	MARK_LATE		stuck		"NOTIFIERS=1"
	"that a lookup of these pages must wait for"
	WAIT_ANY_GFNS		starves		"PROGRESS NOTIFIERS=2 CHANGES=1 PAGES=2"
	"if another one, it is in the tree no more"
	SET_IN_TREE		stale		"PAGES=2 UPDATES=2"
	"A refresh that needs no new binding: the memslots are the same"
	BEGIN_OLD		starves		"PROGRESS UPDATES=1"
	"if the cache is to be bound anew"
	BEGIN_OUTSIDE		misled		"NOTIFIERS=1"
	"@map is the refresh's that is under way"
	REFRESHING_UNSAID	unmapped-twice	"NOTIFIERS=1"
	"Returns GPC_IS_OPEN if it is"
	SHORTCUT_CLOSED		stale		"NOTIFIERS=1"
	"the pages are still those that are mapped"
	SHORTCUT_OTHER		stale		"PAGES=2 UPDATES=2"
	"If not, whether a lookup may begin"
	SHORTCUT_RECORD		private		"CHANGES=1 UPDATES=4 HVA=1"
	"a page has no memslot, is private"
	SHORTCUT_PRIVATE	private		"CHANGES=1 UPDATES=4 HVA=1"
	"the user pages of @uhva and of the last byte"
	PRIVATE_FIRST_PAGE	private		"CHANGES=1 PAGES=2 UPDATES=2"
	"It does when only the page tables had changed"
	MAP_OLD			stale		"NOTIFIERS=1"
	"Somebody else has done it, while this one waited for refresh_lock"
	STRANGER_OPEN		unmapped	"NOTIFIERS=1 LOCKS=2 STRANGERS=1"
	"On failure the cache is left closed"
	FAIL_OPEN		unmapped	"PAGES=2 UPDATES=2"
	"closed, unmapped"
	MAP_LEAKED		left		"NOTIFIERS=1"
	"and out of the tree"
	FAIL_IN_TREE		misled		"PAGES=2 UPDATES=2"
	"Spins until uses have ended"
	DEACTIVATE_NO_CLOSE	nothing		"NOTIFIERS=1"
	"give a cache's pages back"
	DEACTIVATE_IN_TREE	in-tree		"NOTIFIERS=1"
	"that fails with -EINVAL when it comes to it"
	DEACTIVATE_NO_WAKE	stuck		"NOTIFIERS=1"
)

# --- One check: in a directory of its own, with what is to be read in ./log ---------

# verify MACRO...: an exhaustive search
verify()
{
	local cflags=(-O0 -DCOLLAPSE -DMEMLIM="$memlim") args=(-m3000000 -w23) flags=("${@/#/-D}")

	if [[ " $* " = *" PROGRESS "* ]]; then
		cflags+=(-DNP -DNFAIR=3)
		args+=(-l -f)
	else
		cflags+=(-DSAFETY)
	fi
	"$SPIN" -a "${flags[@]}" gpc.pml >log 2>&1 &&
		"$CC" -w "${cflags[@]}" pan.c -o pan >>log 2>&1 &&
		./pan "${args[@]}" >log 2>&1
	if [[ -e gpc.pml.trail ]]; then
		"$SPIN" -t -p "${flags[@]}" gpc.pml 2>&1 | sed '/^#processes/,$d' |
			tail -n 50 >>log
	fi
}

holds()
{
	verify "$@"
	grep -q 'errors: 0$' log && ! grep -qE '^error|not completed|reached -DMEMLIM' log
}

# is_rejected NAME SAYING MACRO...
is_rejected()
{
	local name=BREAK_$1 says=${SAYS[$2]}
	shift 2

	verify "$name" "$@"
	grep -qF "pan:1: $says" log
}

# --- All of them --------------------------------------------------------------------

texts=()
checks=()

plan()
{
	texts+=("$1")
	shift
	checks+=("$*")
}

tests=0
failures=0

# result STATUS TEXT LOG
result()
{
	local verdict=ok

	tests=$((tests + 1))
	if [[ $1 -ne 0 ]]; then
		verdict='not ok'
		failures=$((failures + 1))
	fi
	echo "$verdict $tests gpc_model: $2"
	[[ $1 -eq 0 ]] || sed '/^unreached in/,/ states)$/d; s/^/# /' "$3"
}

pids=()

report()
{
	wait "${pids[$1]}"
	result $? "${texts[$1]}" "$1/log"
}

# $JOBS at a time, reported in order
run()
{
	local i

	for ((i = 0; i < ${#checks[@]} + JOBS; i++)); do
		((i < JOBS)) || report $((i - JOBS))
		((i < ${#checks[@]})) || continue
		mkdir "$i" && cp "$MODEL" "$i" || exit
		# shellcheck disable=SC2086 # a command in words
		(cd "$i" && ${checks[i]}) &
		pids[i]=$!
	done
}

# A step that is made in none of the first configurations would not be checked.
not_reached()
{
	local nr=$((${#CONFIGURATIONS[@]} / 2)) i

	for ((i = 0; i < nr; i++)); do
		awk '/^unreached in/ { proctype = $NF }
		     / state [0-9]+, / && !/"-end-"/ { print proctype, $1, $3 }' "$i/log"
	done | sort | uniq -c | awk -v nr="$nr" '$1 == nr'
}

# What the model's comment beside BREAK_$1 says: the function, and how it is broken.
rule()
{
	sed -nE "s|^#.*BREAK_$1\)?[[:space:]]+/\* (.*) \*/$|\1|p" "$MODEL"
}

# Comments as running text
words()
{
	sed 's|^[[:space:]]*/\?\*\+/\?||' \
		"$TREE"/virt/kvm/pfncache.c "$TREE"/include/linux/kvm_gpc.h |
		tr -s '[:space:]' ' '
}

# The tables, the model and the code must not drift apart: a variant is in the first two,
# once; has a rule of its own, which is in the code by these words; names the function
# that it breaks; and its configuration is listed.  What the model calls gpc_...() or
# kvm_gpc_...() has the name in the code.
drifted()
{
	local code=$TREE/virt/kvm/pfncache.c listed text names=() rules=() i name

	listed=$(printf '%s\n' "${CONFIGURATIONS[@]}" "${PROGRESS[@]}")

	text=$(words)
	for ((i = 0; i < ${#VARIANTS[@]}; i += 4)); do
		rules+=("${VARIANTS[i]}")
		names+=("BREAK_${VARIANTS[i + 1]}")
		[[ ${text,,} = *"${VARIANTS[i],,}"* ]] || echo "not in the code: ${VARIANTS[i]}"
		grep -qxF "${VARIANTS[i + 3]}" <<<"$listed" ||
			echo "not a configuration: ${VARIANTS[i + 3]}"
		[[ $(rule "${VARIANTS[i + 1]}") =~ ^[a-z_]+\(\):\ .+$ ]] ||
			echo "no function and rule in the model: BREAK_${VARIANTS[i + 1]}"
	done
	printf '%s\n' "${rules[@]}" | sort | uniq -d
	comm -3 <(grep -oE '\bBREAK_[A-Z_]+' "$MODEL" | sort -u) \
		<(printf '%s\n' "${names[@]}" | sort)
	grep -oE '\b(__)?(kvm_)?gpc_[a-z_]+\(' "$MODEL" | sort -u | while read -r name; do
		grep -q "\b$name" "$code" || echo "not in pfncache.c: $name)"
	done
}

for cmd in "$SPIN" "$CC"; do
	command -v "$cmd" >/dev/null || { echo "Bail out! $cmd is not installed"; exit 1; }
done

dir=$(mktemp -d) || exit
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir" || exit

for ((i = 0; i < ${#CONFIGURATIONS[@]}; i += 2)); do
	plan "safety, ${CONFIGURATIONS[i]}" holds "${CONFIGURATIONS[i + 1]}"
done
for ((i = 0; i < ${#PROGRESS[@]}; i += 2)); do
	plan "progress ${PROGRESS[i]}" holds "${PROGRESS[i + 1]}"
done
for ((i = 0; i < ${#VARIANTS[@]}; i += 4)); do
	name=${VARIANTS[i + 1]}
	plan "rejects $name, $(rule "$name"): ${VARIANTS[i + 2]}" \
		is_rejected "${VARIANTS[@]:i + 1:3}"
done
memlim=700
if [[ ${1-} = full ]]; then
	memlim=2000
	for ((i = 0; i < ${#FULL[@]}; i += 2)); do
		plan "safety, ${FULL[i]}" holds "${FULL[i + 1]}"
	done
fi

echo "TAP version 13"
echo "1..$((${#checks[@]} + 2))"
run
not_reached >log
[[ ! -s log ]]
result $? "each step of the model is made" log
drifted >log
[[ ! -s log ]]
result $? "each broken variant has a rule of the code, and each name is the code's" log

[[ $failures -eq 0 ]]
