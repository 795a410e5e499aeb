# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# In lab/rig/rig.sh's guest: run the bpftrace tools, read and check their output.
# T is a folder for the output: T/stacks.tool, T/latency.tool, T/watch.tool.

# shellcheck source=lab/guest/tap.sh
. "$LAB/guest/tap.sh"
TOOLS=${LAB%/lab}/tools/kvm/gpc
declare -A TOOL

# trace_start: start all three tools; they count when it returns
trace_start()
{
	local t end=$((SECONDS + 180))

	for t in stacks latency watch; do
		# bpftrace can say when its probes are attached; BEGIN runs before that.
		__BPFTRACE_NOTIFY_PROBES_ATTACHED=1 "$TOOLS/gpc_trace.sh" $t \
			>"$T/$t.tool" 2>"$T/$t.said" &
		TOOL[$t]=$!
	done
	for t in "${!TOOL[@]}"; do
		until cat "$T/$t.tool" "$T/$t.said" | grep -q PROBES_ATTACHED; do
			if ! kill -0 "${TOOL[$t]}" 2>/dev/null || [[ $SECONDS -ge $end ]]; then
				echo "error: gpc_$t does not trace:"
				cat "$T/$t.tool" "$T/$t.said"
				return 1
			fi
			sleep 0.2
		done
	done
}

# trace_end: end the tools; their final output is complete when it returns. bpftrace 0.17
# ends by a signal only while it waits for events, and misses a signal that comes while it
# handles events. Repeat the signal, but not soon: a signal that comes while bpftrace shows
# its maps would cut them short.
trace_end()
{
	local i

	for ((i = 0; i < 100; i++)); do
		((i % 50)) || kill -INT "${TOOL[@]}" 2>/dev/null || :
		ps -p "$(IFS=,; echo "${TOOL[*]}")" -o stat= | grep -qv "^Z" || break
		sleep 0.2
	done
	for i in "${!TOOL[@]}"; do
		[[ $(ps -p "${TOOL[$i]}" -o stat=) != [!Z]* ]] || { echo "error: gpc_$i does not end"; return 1; }
	done
	wait "${TOOL[@]}" || :
}

# stacks MAP [REGEX]: of gpc_stacks, a line a stack, "COUNT FUNCTION <- CALLER ...", most
# first
stacks()
{
	awk -v map="@$1[" '
		$1 == map { in_map = 1; stack = ""; next }
		in_map && /^\]: / { print $2, stack; in_map = 0 }
		in_map && NF { sub(/\+[0-9]+$/, "", $1); stack = stack (stack == "" ? "" : " <- ") $1 }
	' "$T/stacks.tool" | sort -rn | { grep -E "${2:-.}" || :; }
}

# sum MAP [REGEX]: of the counts of these stacks
sum()
{
	stacks "$@" | awk '{ n += $1 } END { print n + 0 }'
}

# in_hist NAME: how many values gpc_latency's histogram has
in_hist()
{
	awk -v name="@$1:" '/^@/ { in_hist = $1 == name } in_hist && /\|/ { sub(/^[^])]*[])]/, ""); n += $1 }
		END { print n + 0 }' "$T/latency.tool"
}

# watched NAME [PID]: the sum of that column of gpc_watch
watched()
{
	awk -v name="$1" -v pid="${2-}" '
		$1 == "TIME" { for (i = 1; i <= NF; i++) if ($i == name) column = i; next }
		column && /^[0-9][0-9]:/ && (pid == "" || $2 == pid) { n += $column }
		END { print n + 0 }' "$T/watch.tool"
}

# nearly COUNT TRUTH: an expression for check. What happens while gpc_watch puts a VM's
# line together may go uncounted; nothing is ever counted twice.
nearly()
{
	echo "$1 > 0 && $1 <= $2 && $1 * 50 >= ($2 - 1) * 49"
}

# summary: the tools' output, with a stack's first functions on a line
summary()
{
	local map

	for map in activations refreshes invalidations hits; do
		echo "# gpc_stacks: $map, $(sum $map) in all"
		stacks $map | head -n 6 | awk -F' <- ' -v OFS=' <- ' '
			NF > 7 { NF = 7; $0 = $0 " <- ..." } { print "#   " $0 }'
	done
	echo "# gpc_latency, ns"
	grep -E '^(@|\[)' "$T/latency.tool" | sed 's/^/#   /'
	echo "# gpc_watch"
	grep -E '^(TIME|[0-9]+:)' "$T/watch.tool" | sed 's/^/#   /'
}
