#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Check gpc.pml, the model of the guest-page cache, with spin: the model holds; each
# variant with one rule broken is rejected; each rule is still in the code, in the words
# quoted here.  Output is KTAP.  What spin prints about a failure follows it.
#
# usage: check-model.sh [full]
#
# No configuration has everything.  Each has what meets in one argument of the code:
#
# - two notifiers, so that the counts of invalidations and of records differ in any way;
# - one page in one memslot; two pages in two where the second page makes a difference;
# - one who only tries, and two who contend for refresh_lock.  A third would just wait;
# - one cache.  Caches share the tree, the records, nr_active and the queue, and an event
#   on the queue wakes all.
#
# A variant is tried where the model without it was seen to hold.
#
# "full" adds more at a time: minutes, and GBs.

set -u
export LC_ALL=C

SPIN=${SPIN:-spin}
CC=${CC:-gcc}
JOBS=${JOBS:-2}
TREE=$(cd "$(dirname "$0")/../../.." && pwd)
MODEL=$TREE/tools/kvm/gpc/gpc.pml
CODE=("$TREE"/virt/kvm/{pfncache.c,gpc_invalidate.c,gpc_lock.h} "$TREE"/include/linux/kvm_gpc.h)
GUEST=$TREE/virt/kvm/gpc_guest.c	# a later step of the series than the model
[[ ! -e $GUEST ]] || CODE+=("$GUEST")

# The macros that make three programs of the model
declare -A PROGRAMS=(
	[safety]="SAFETY"
	[use]="PROGRESS=USE NP NFAIR=3"
	[start]="PROGRESS=START NP NFAIR=3"
)

declare -A ABOUT=([safety]="safety" [use]="progress of a use" [start]="progress of an invalidation")

# Name, program, settings, and what it is about
CONFIGURATIONS=(
	tables      safety  "NOTIFIERS=1"                       "page tables"
	overlaps    safety  "NOTIFIERS=2 TRYLOCKS=1"            "two notifiers"
	overlaps2   safety  "NOTIFIERS=2 PAGES=2"               "two notifiers, two pages"
	endless     safety  "NOTIFIERS=1 ENDLESS=1 PAGES=2"     "an invalidation without end"
	users       safety  "NOTIFIERS=1 LOCKS=2 TRYLOCKS=1"    "two users and one that tries"
	slots       safety  "UPDATES=1 PAGES=2"                 "memslots"
	moves       safety  "NOTIFIERS=1 UPDATES=1 PAGES=2"     "memslots, page tables"
	faults      safety  "NOTIFIERS=1 PAGES=2 USERFAULTS=1"  "the VMM answers faults"
	attributes  safety  "ATTRIBUTES=1 PAGES=2"              "attributes"
	exchange    safety  "ATTRIBUTES=1 UPDATES=1"            "attributes, memslots"
	exchange2   safety  "ATTRIBUTES=1 UPDATES=1 PAGES=2"    "attributes, memslots, two pages"
	changes     safety  "NOTIFIERS=1 ATTRIBUTES=1 PAGES=2"  "attributes, page tables"
	all         safety  "NOTIFIERS=1 ATTRIBUTES=1 UPDATES=1" "attributes, memslots, page tables"
	release     safety  "NOTIFIERS=2 RELEASES=1 ENDLESS=1"  "the VM closes"
	guest       safety  "GUEST=1 LOCKS=0 NOTIFIERS=2"       "guest use, two notifiers"
	guest-slots safety  "GUEST=1 LOCKS=0 NOTIFIERS=1 UPDATES=1" "guest use, memslots, tables"
	guest-gfns  safety  "GUEST=1 LOCKS=0 ATTRIBUTES=1 UPDATES=1" "guest use, attributes, slots"
	use         use     "NOTIFIERS=2 ATTRIBUTES=1"          "page tables, attributes"
	use-slots   use     "UPDATES=1"                         "memslots"
	start       start   "NOTIFIERS=1 TRYLOCKS=1"            "two users"
)
FULL=(
	full        safety  "NOTIFIERS=2 TRYLOCKS=1 PAGES=2"    "two of all"
	full-all    safety  "NOTIFIERS=1 ATTRIBUTES=1 UPDATES=1 RELEASES=1" "all that can change"
)

# What spin can say: assert(...) in gpc.pml, and its own
declare -A SAYS=(
	[count]='assertion violated ((gpc.count%128)'
	[unlock]='assertion violated (gpc.count>=128)'
	[records]='assertion violated (gpcs.nr_recorded<='
	[lookup]='assertion violated (gpc.state!=2)'
	[leaked]='assertion violated  !(lookup[me].map.type)'
	[mapped]='assertion violated  !(is_mapped)'
	[unmapped]='assertion violated ( !(lookup[me].map.type)||is_mapped)'
	[misled]='assertion violated (( !(khva)'
	[rebound]='assertion violated (gpc.nr_pages==gpc.length)'
	[stale]='assertion violated (((gpc.nr_pages<=0)'
	[private]='assertion violated ((( !(gpc.gpa)'
	[memslot]='assertion violated (( !(gpc.gpa)||'
	[mm-gone]='assertion violated  !(mm_is_gone)'
	[left]='assertion violated ((gpc.nr_pages==0)'
	[freed]='assertion violated ((gpc.count==128)'
	[orphan]='assertion violated ((vmcs%2)==0)'
	[taken]='assertion violated ( !(mem_is_private[0])'
	[moved]='assertion violated (slots_lock||'
	[stuck]='invalid end state'
	[starves]='non-progress cycle'
)

# The variants: name, what spin must say, in which configuration, and the words of the code
# that state the rule
VARIANTS=(
	# gpc_lock.h
	READ_NO_UNDO           count     tables       "takes itself off again if the sum shows a"
	WRITE_STORES           unlock    users        "A writer may see a reader that is about to"
	READ_LOOKS_FIRST       rebound   tables       "adds itself to the count, and takes itself"
	WRITE_ADDS_LATE        starves   start        "gpc_write_lock() adds to the count before it"
	WRITE_NO_WAIT          rebound   tables       "what a reader did happened before anything"
	USE_TAKES_LOCK         stuck     tables       "Neither the start nor the end of a read"

	# The head of gpc_invalidate.c
	TREE_LATE              stale     tables       "a cache is in the tree from the moment that"
	TREE_ONE_PAGE          stale     faults       "closes the caches of that range, which it"
	START_NO_RECORD        stale     tables       "Start records its range"
	START_TWO_SECTIONS     stale     tables       "Start, end, and the refresh's begin and"
	WAIT_NOT               stale     tables       "begin: the record overlaps, wait"
	START_KEEPS_LOOKUP     stale     tables       "start: record, LOOKUP to CLOSED"
	START_KEEPS_OPEN       stale     tables       "start: record, OPEN to CLOSED"
	PUBLISH_ANYHOW         stale     tables       "publish: not LOOKUP, begin again"
	WAIT_ANY               starves   use          "Invalidations that do not overlap neither"
	START_CLOSES_ANY       starves   use          "nor make it begin again"
	WAIT_NO_COUNT          stale     tables       "a refresh waits while that differs from the"
	QUEUE_LATE             stuck     tables       "the waiter is on the wait queue before it"
	MARK_NOT               stuck     tables       "and marks one"
	END_TWO_SECTIONS       stuck     tables       "End removes the record and reads the mark in"

	# Elsewhere in gpc_invalidate.c and in kvm_mm.h
	KEEPS_LOCK             rebound   tables       "waits for the uses"
	WAIT_FIRST_PAGE        stale     faults       "Is an invalidation in progress that a lookup"
	END_NO_WAKE            stuck     tables       "so, its end wakes kvm->gpcs.wait"
	MARK_LATE              stuck     tables       "a refresh waits for the end"
	END_UNRECORDED_NO_WAKE stuck     tables       "Any refresh may wait for an invalidation"
	END_IF_RECORDED        stuck     tables       "in a VM with an active cache or a record"
	END_IF_ACTIVE          records   tables       "The end of an invalidation, in a VM with an"
	END_WAITS              stuck     tables       "Does not sleep"
	GFNS_KEEP_OPEN         private   attributes   "Caches are found through the memslots of the"
	GFNS_NO_RECORD         private   attributes   "its lookup waits for the change"
	GFNS_RECORD_LATE       private   attributes   "A cache that is activated from here on waits"
	GFNS_NO_SLOTS_LOCK     private   exchange     "allows one change at a time"
	WAIT_ANY_GFNS          starves   use          "first gfn whose memory attributes are being"
	GFNS_NO_WAKE           stuck     attributes   "refreshes that wait for an invalidation to"
	GFNS_EMPTY_RANGE       stuck     attributes   "0 when no change is in progress"
	BEGIN_PRIVATE          private   attributes   "or sees the new attributes"
	CLOSE_VM_NOT_SAID      mm-gone   release      "let no lookup begin"
	CLOSE_VM_KEEPS_OPEN    mm-gone   release      "Close all caches of a VM"
	CLOSE_VM_NO_WAKE       stuck     release      "the MMU notifier goes or has gone"

	# pfncache.c
	NO_REFRESH_LOCK        mapped    users        "there is one refresh at a time"
	PUBLISH_TWO_SECTIONS   rebound   tables       "finds another state than LOOKUP if an"
	NO_GENERATION          memslot   slots        "Instead a use compares the generation of the"
	NO_SRCU_WAIT           memslot   slots        "all readers of srcu"
	SET_IN_TREE            stale     slots        "A cache that comes to depend on another page"
	BIND_SAME              stale     slots        "Clears @same if the pages are not those that"
	BIND_FAIL_IN_TREE      misled    slots        "or -EFAULT where there is no memory"
	BEGIN_NO_CLOSE         stale     slots        "Find the user pages of a closed cache"
	BEGIN_OLD              starves   use-slots    "Is the cache bound by the memslots of the"
	BEGIN_UNBOUND          leaked    moves        "0 until @gpa has been translated"
	BEGIN_OPEN             unlock    users        "another task refreshed it"
	BEGIN_INACTIVE         leaked    tables       "the cache is not active, or"
	BEGIN_TWO_SECTIONS     lookup    tables       "Each change is made under"
	BEGIN_COPIES_MAP       unmapped  tables       "unless a refresh works on it"
	PRIVATE_FIRST_PAGE     private   attributes   "no page that can be written and mapped"
	SAME_CLOSED            stale     tables       "Only the memslots have changed"
	SAME_PRIVATE           private   exchange     "and lead to the same pages"
	WAIT_UNKILLABLE        stuck     endless      "-EINTR: killed"
	MAP_OLD                stale     tables       "is used again if the pages are the same"
	MAP_TWICE              mapped    tables       "A vmap or memremap of before"
	FAIL_KEEPS_MAP         leaked    tables       "the cache stays active"
	ACTIVATE_NO_CLOSE      rebound   tables       "changes only while @lock is held for write"
	ACTIVATE_IN_TREE       misled    faults       "user pages in @pages and in the tree"
	ACTIVATE_UNCOUNTED     stale     tables       "With no active cache, start leaves no record"
	ACTIVATE_WAITS         stuck     faults       "activation and deactivation never wait for a"
	DEACTIVATE_WAITS       stuck     faults       "Does not wait for a refresh, which then"
	ACTIVATE_NO_WAKE       stuck     endless      "A refresh may wait for an invalidation of"
	DEACTIVATE_NO_CLOSE    freed     tables       "Spins until uses have ended"
	DEACTIVATE_IN_TREE     left      tables       "unbind a cache"
	DEACTIVATE_KEEPS_MAP   left      tables       "the mapping that @khva points into"
	DEACTIVATE_NO_WAKE     stuck     endless      "has nothing to wait for any more"

	# gpc_guest.c
	GUEST_NO_REQUEST       orphan    guest        "keeps the vCPU out until it has looked"
	GUEST_REQUEST_FIRST    orphan    guest        "closes the cache and then makes the request"
	GUEST_SKIPS_CLOSED     orphan    guest        "Also if it was closed"
	GUEST_NO_WAIT          orphan    guest        "an invalidation waits until the vCPU has"
	GUEST_NO_RECHECK       orphan    guest        "sets its mode, and then reads its requests"
	GUEST_CLEARS_LATE      orphan    guest        "clear the request of an invalidation before"
	GUEST_LOSES_REQUEST    orphan    guest        "with this function before it enters guest"
	GUEST_NO_MEMSLOTS      moved     guest-slots  "ends with a request to all vCPUs"
	GUEST_SLOTS_NO_WAIT    moved     guest-slots  "and waits until they have left guest"
	GUEST_GFNS_NO_WAIT     taken     guest-gfns   "with no lock held"
	GUEST_UNLINK_SILENT    orphan    guest-slots  "a lookup that takes the cache out of the"
	GUEST_SLEEPS_BLIND     stuck     guest        "and neither sleeps nor wakes the guest"
)

# --- One check, in a directory of its own with what is to be read in ./log -----------

# build PROGRAM
build()
{
	local macros

	read -ra macros <<<"${PROGRAMS[$1]}"
	mkdir "$1" && cd "$1" && cp "$MODEL" gpc.pml &&
		"$SPIN" -a "${macros[@]/#/-D}" gpc.pml >log 2>&1 &&
		"$CC" -w -O2 "${macros[@]/#/-D}" -DMEMLIM=2000 pan.c -o pan >>log 2>&1
}

# verify CONFIGURATION [SETTING]: an exhaustive search, up to the first error
verify()
{
	local program=${program_of[$1]} args=("-m$depth" -w20) settings

	read -ra settings <<<"${settings_of[$1]} ${2-}"
	[[ $program = safety ]] || args+=(-l -f)
	env "${settings[@]}" "../$program/pan" "${args[@]}" >log 2>&1
	if [[ -e gpc.pml.trail ]]; then
		ln -s "$MODEL" gpc.pml
		env "${settings[@]}" "../$program/pan" -r 2>&1 | tail -n 50 >>log
	fi
}

holds()
{
	verify "$1"
	grep -q 'errors: 0$' log && ! grep -qE '^error|not completed|reached -DMEMLIM' log
}

# is_rejected VARIANT SAYING CONFIGURATION
is_rejected()
{
	local number

	number=$(awk -v name="$1" '$1 == "#define" && $2 == name { print $3 }' "$MODEL")
	depth=1000000
	verify "$3" "BREAK=$number"
	grep -qF "pan:1: ${SAYS[$2]}" log
}

# --- All of them ---------------------------------------------------------------------

texts=()
checks=()
tests=0
failures=0
pids=()

plan()
{
	texts+=("$1")
	shift
	checks+=("$*")
}

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
		mkdir "$i" || exit
		# shellcheck disable=SC2086 # a command in words
		(cd "$i" && ${checks[i]}) &
		pids[i]=$!
	done
}

# A step that no configuration makes would not be checked.  A variant's own does not count,
# nor does what vcpu() has in common with user_lock().
not_reached()
{
	local i nr=0 seen=()

	for ((i = 0; i < ${#CONFIGURATIONS[@]}; i += 4)); do
		[[ ${CONFIGURATIONS[i + 1]} != safety ]] || seen+=("$((i / 4))/log")
	done
	nr=${#seen[@]}
	awk '/^unreached in/ { proctype = $NF }
	     / state [0-9]+, / && !/"-end-"/ { print proctype, $1, $0 }' "${seen[@]}" |
		sort | uniq -c | awk -v nr="$nr" '
		FNR == NR { variant[FNR] = /BROKEN\(|when\(|PROGRESS/ }
		FNR == NR && /^\/\* --- / { section = $3 }
		FNR == NR { guest[FNR] = section == "gpc_guest.c"; next }
		{ split($3, at, ":"); line = int(at[2]) }
		$2 == "vcpu" && !guest[line] { next }
		$1 == nr && !variant[line] && !/"\(\(*broken==/' "$MODEL" -
}

# Comments as running text
words()
{
	sed 's|^[[:space:]]*/\?\*\+/\?||' "${CODE[@]}" | tr -s '[:space:]' ' '
}

# The tables, the model and the code must not drift apart: each variant of the model is in
# the table once, with a rule of its own that is in the code by these words, and the model
# names the function that it breaks.  What the model calls gpc_...() has that name in the
# code.
drifted()
{
	local text names=() rules=() i name

	text=$(words)
	for ((i = 0; i < ${#VARIANTS[@]}; i += 4)); do
		names+=("${VARIANTS[i]}")
		rules+=("${VARIANTS[i + 3]}")
		[[ -e $GUEST || ${VARIANTS[i]} != GUEST_* ]] || continue
		[[ $text = *"${VARIANTS[i + 3]}"* ]] || echo "not in the code: ${VARIANTS[i + 3]}"
	done
	printf '%s\n' "${rules[@]}" | sort | uniq -d
	diff <(sed -nE 's|^#define ([A-Z_]+)\t+[0-9]+\t+/\* [a-z_]+\(\): .*|\1|p' "$MODEL" | sort) \
		<(printf '%s\n' "${names[@]}" | sort)
	grep -oE '\b(__)?(kvm_)?gpc_[a-z_]+\(' "$MODEL" | sort -u | while read -r name; do
		grep -q "\b$name" "${CODE[@]}" "$TREE"/patches/*/*.patch ||
			echo "not in the code: $name)"
	done
}

# What the model says beside a variant: the function, and how it is broken
broken()
{
	sed -nE "s|^#define $1[[:space:]].*/\* (.*) \*/$|\1|p" "$MODEL"
}

for cmd in "$SPIN" "$CC"; do
	command -v "$cmd" >/dev/null || { echo "Bail out! $cmd is not installed"; exit 1; }
done

dir=$(mktemp -d) || exit
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir" || exit

depth=4000000
[[ ${1-} != full ]] || { CONFIGURATIONS+=("${FULL[@]}"); depth=20000000; }
declare -A program_of settings_of
for ((i = 0; i < ${#CONFIGURATIONS[@]}; i += 4)); do
	name=${CONFIGURATIONS[i]}
	program_of[$name]=${CONFIGURATIONS[i + 1]}
	settings_of[$name]=${CONFIGURATIONS[i + 2]}
	plan "${ABOUT[${CONFIGURATIONS[i + 1]}]}: ${CONFIGURATIONS[i + 3]}" holds "$name"
done
for ((i = 0; i < ${#VARIANTS[@]}; i += 4)); do
	name=${VARIANTS[i]}
	plan "rejects $name, $(broken "$name"): ${VARIANTS[i + 3]}" \
		is_rejected "${VARIANTS[@]:i:3}"
done

echo "TAP version 13"
echo "1..$((${#checks[@]} + 2))"
for program in "${!PROGRAMS[@]}"; do
	(build "$program") || { echo "Bail out! $(cat "$program/log")"; exit 1; }
done
run
not_reached >log
[[ ! -s log ]]
result $? "each step of the model is made" log
drifted >log
[[ ! -s log ]]
result $? "each broken variant has a rule of the code, and each name is the code's" log

[[ $failures -eq 0 ]]
