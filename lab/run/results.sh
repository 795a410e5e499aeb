# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Results of a run. results.py reads them: see there. The demo's guest sources this file, too,
# without the lab's other files and variables.

results() { "${BASH_SOURCE[0]%/*}/results.py" "$@"; }

# splats PLATFORM CONSOLE [ALLOW]: the lines of CONSOLE that are splats
splats() { results splats "$1" "$2" "${3:-${BASH_SOURCE[0]%/*}/../known/splats.allow}"; }

# ktap BACKEND KTAP [EXPECTED...]: results of a run of kselftest's runner
ktap() { results ktap "$@"; }

# table [BASE]: the results on standard input as a table, and the closing line
table() { results table "$@"; }

# lockdep_chains KTAP: the chains of KVM's locks, from a kernel with lockdep
lockdep_chains()
{
	tr -d '\r' <"$1" | sed -n 's/^# lockdep: //p' | base64 -d | gzip -dc
}
