#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# lockorder.sh RST CHAINS...: does lockdep's record contradict the lock order that a
# document states?
#
# RST states the order in the literal blocks that follow a comment "lockdep order": a chain
# a line, the outermost lock first. Lines are not combined. "lockdep order of ARCH" is for
# CHAINS of that architecture only:
#
#	.. lockdep order
#
#	::
#
#	  kvm->lock --> vcpu->mutex --> kvm->slots_lock
#
# CHAINS, a file NAME.ARCH, is from /proc/lockdep_chains: the locks held when the last of
# a chain was taken. Names are compared without '&', parentheses, version and subclass. A
# stated lock that is in no chain at all has been renamed, or is misspelt.
set -euo pipefail

[[ $# -ge 2 ]] || { echo "usage: ${0##*/} RST CHAINS..." >&2; exit 2; }

archs=" $(printf '%s ' "${@##*.}")"
awk -v archs="$archs" '
	function name(s) {
		sub(/^\[[^]]*\] /, "", s)
		sub(/\/[0-9]+$/, "", s)
		sub(/#[0-9]+$/, "", s)
		gsub(/[&()]/, "", s)
		return s
	}
	function state(line,   l, n, i, j) {
		n = split(line, l, / +--> +/)
		for (i = 1; i <= n; i++) {
			if (!(l[i] in stated)) lock[++locks] = l[i]
			stated[l[i]] = 1
			for (j = i + 1; j <= n; j++) {
				if ((l[j], l[i]) in outside || l[i] == l[j])
					say(l[i] " is stated both outside and inside " l[j])
				if (!((l[i], l[j]) in outside)) pairs++
				outside[l[i], l[j]] = 1
			}
		}
	}
	# take LOCK, inside those of the chain so far
	function take(l,   i) {
		for (i = 1; i <= depth; i++) {
			if ((held[i], l) in outside) seen[held[i], l] = 1
			if ((l, held[i]) in outside && !((l, held[i]) in told)) {
				told[l, held[i]] = 1
				say(l " is stated to be taken outside " held[i] ", and was taken inside:")
				print chain " --> " l
			}
		}
		held[++depth] = l
		chain = chain (depth > 1 ? " --> " : "  ") l
		there[l] = 1
	}
	function say(text) { print "error: " text; bad = 1 }

	FNR == 1 { files++ }
	files == 1 {
		if (/^\.\. lockdep order/) block = NF == 3 || index(archs, " " $NF " ") ? 1 : 0
		else if (block && /^[ \t]+[^ \t]/) { sub(/^[ \t]+/, ""); sub(/[ \t]+$/, ""); state($0); block = 2 }
		else if (block == 2 && NF) block = 0
		next
	}
	/^irq_context: / { depth = 0; chain = ""; chains++ }
	/^\[/ { take(name($0)) }
	END {
		if (!pairs) say("no order of locks is stated")
		if (!chains) say("lockdep saw no chain of locks")
		else for (i = 1; i <= locks; i++)
			if (!(lock[i] in there)) say("lockdep knows no lock " lock[i] ": misspelt, or younger than that run")
		for (p in seen) n++
		printf "%d locks, %d pairs stated, %d of them seen in %d chains\n", locks, pairs, n, chains
		exit bad
	}' "$@"
