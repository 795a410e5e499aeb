# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What a run said: kernel splats on the console, KTAP on the results channel, and
# the table of it all. A result is a line "BACKEND TEST STATUS [WHY]", tab-separated.

SPLAT='WARNING: |BUG: |BUG at |BUG [a-zA-Z0-9_-]+ \(|trying to register non-static key|unchecked MSR access error|Oops|Kernel panic|general protection fault|possible recursive locking|possible circular locking|possible irq lock inversion|inconsistent lock state|suspicious RCU usage|Invalid wait context|held lock freed|KASAN: |KCSAN: |KFENCE: |UBSAN: |kmemleak: [0-9]+ new suspected|unreferenced object|blocked for more than|self-detected stall|detected stalls|rcu_.*stall|soft lockup|hard LOCKUP|Bad page state|refcount_t: |list_(add|del) corruption|page allocation failure|Unable to handle kernel|Internal error: |ODEBUG: |Slab cache still has objects|lab: cannot|lab: no results channel|lab: time limit'

# splats PLATFORM CONSOLE [ALLOW]: the lines of CONSOLE that are splats. Let
# through is only what ALLOW has by its exact text for PLATFORM: stamps, CPU, PID
# and offsets in functions aside, which change from run to run or build to build.
splats()
{
	awk -v platform="$1" -v re="$SPLAT" -v allow="${3:-$TOP/lab/known/splats.allow}" '
		function bare(s) {
			gsub(/\r/, "", s)
			sub(/^(<[0-9]+>)?\[ *[0-9]+\.[0-9]+\](\[ *[TC][0-9]+\])? */, "", s)
			sub(/CPU: [0-9]+ PID: [0-9]+ /, "", s)
			gsub(/\+0x[0-9a-f]+\/0x[0-9a-f]+/, "", s)
			return s
		}
		BEGIN {
			while ((getline line < allow) > 0) {
				if (line ~ /^#/ || line == "") continue
				split(line, f, "\t")
				if (f[1] == platform) ok[f[2]] = 1
			}
		}
		{ s = bare($0) }
		s ~ re && !(s in ok) { print s }' "$2"
}

# ktap BACKEND KTAP [EXPECTED...]: results of a run of kselftest's runner. A test
# that reports cases is shown by its cases; one that is missing, or fails without
# a case that failed, is a failure of its own.
ktap()
{
	local backend=$1 file=$2
	shift 2

	tr -d '\r' <"$file" | awk -v backend="$backend" -v expected="$*" '
		function emit(test, status, why) {
			gsub(/\t/, " ", why)
			printf "%s\t%s\t%s\t%s\n", backend, test, status, why
		}
		function cases_of(test,   i) {
			for (i = 1; i <= n; i++) emit(test ": " name[i], status[i], reason[i])
		}
		/^# selftests: kvm: / { n = plan = failed = 0; why = said = hint = running = "" }
		# The harness runs a case; TEST_REQUIRE in it reports a skip without a name,
		# before the harness reports the case.
		/^# # +RUN / { running = 1 }
		running && /^# +ok [0-9]+ # SKIP/ {
			hint = $0
			sub(/^.*# SKIP( - )?/, "", hint)
			next
		}
		/^# # +SKIP +/ || /^# 1\.\.0 # SKIP/ { why = $0; sub(/^# (# +SKIP +|1\.\.0 # SKIP *)/, "", why) }
		# What a failed assertion says stands last of its lines.
		/^#   [^ ]/ { said = $0; sub(/^# +/, "", said) }
		/^# 1\.\.[0-9]+$/ { plan = substr($2, 4) + 0 }
		/^# +(not )?ok [0-9]+ / {
			line = $0
			sub(/^# +/, "", line)
			st = line ~ /^not / ? "fail" : "pass"
			sub(/^(not )?ok [0-9]+ (- )?/, "", line)
			r = ""
			if (match(line, / *# *SKIP/)) {
				st = "skip"; r = substr(line, RSTART + RLENGTH); line = substr(line, 1, RSTART - 1)
				sub(/^ +/, "", r)
			}
			if (st == "fail") { failed++; r = said }
			if (st == "skip" && hint != "") r = hint
			said = hint = running = ""
			name[++n] = line; status[n] = st; reason[n] = r
			next
		}
		/^# .*(Assertion|Failure|Test Assertion|: Expected)/ { if (why == "") { why = $0; sub(/^# */, "", why) } }
		/^(not )?ok [0-9]+ selftests: kvm: / {
			test = $0
			sub(/^.*selftests: kvm: /, "", test)
			rest = test
			sub(/ #.*/, "", test)
			st = $0 ~ /^not / ? "fail" : "pass"
			if (rest ~ /# SKIP/) st = "skip"
			else if (match(rest, /# .*/)) note = substr(rest, RSTART + 2)
			seen[test] = 1
			if (n > 0 || (plan > 0 && st == "pass")) {
				cases_of(test)
				if (st == "fail" && !failed) emit(test, "fail", note " with no case that failed")
				else if (st != "skip" && plan != n) emit(test, "fail", "planned " plan " cases, saw " n)
			} else
				emit(test, st, st == "pass" ? "" : (st == "fail" && note != "" ? note ": " : "") why)
			n = plan = failed = 0; why = note = ""
		}
		/^# lab: done/ { whole = 1 }
		END {
			k = split(expected, e, " ")
			for (i = 1; i <= k; i++)
				if (!(e[i] in seen)) emit(e[i], "fail", "did not finish")
			if (!whole) emit("boot", "fail", "the guest did not end by itself")
		}'
}

# lockdep_chains KTAP: what a kernel with lockdep has said of KVM's locks
lockdep_chains()
{
	tr -d '\r' <"$1" | sed -n 's/^# lockdep: //p' | base64 -d | gzip -dc
}

# bats_results: results of `bats --formatter tap`, on standard input
bats_results()
{
	awk '/^(not )?ok [0-9]+ / {
		st = /^not / ? "fail" : "pass"
		sub(/^(not )?ok [0-9]+ /, "")
		why = ""
		if (match($0, / # skip */)) {
			st = "skip"
			why = substr($0, RSTART + RLENGTH)
			$0 = substr($0, 1, RSTART - 1)
		}
		printf "lab\tlab: %s\t%s\t%s\n", $0, st, why
		n++
	}
	/^1\.\./ { plan = substr($1, 4) + 0 }
	END { if (n + 0 != plan + 0 || !n) printf "lab\tlab tests\tfail\tplanned %d, saw %d\n", plan, n }'
}

# table [BASE]: the results on standard input as a table, tests by back ends, and
# the closing line. What passed of the lab's own tests is a line a file. BASE has the results of the unpatched base: a failure there
# too is said beside ours.
table()
{
	awk -F'\t' -v base="${1-}" '
		BEGIN {
			while (base != "" && (getline line < base) > 0) {
				split(line, f, "\t")
				onbase[f[1], f[2]] = f[3]
			}
		}
		{
			if ($1 == "lab" && $3 == "pass" && match($2, /^lab: [a-z]+: /)) {
				of = substr($2, 1, RLENGTH - 2)
				if (!(of in passed)) lab[++l] = of
				passed[of]++
				count["pass"]++
				next
			}
			if (!($2 in row)) { row[$2] = 1; test[++n] = $2; if (length($2) > w) w = length($2) }
			if (!($1 in col)) { col[$1] = 1; be[++m] = $1 }
			# Two results of one name: the worse one counts.
			if (!(($1, $2) in st) || $3 == "fail") st[$1, $2] = $3
			if ($3 != "pass") why[$1, $2] = $4
		}
		END {
			printf "\n%-" w "s", "test"
			for (j = 1; j <= m; j++) printf "  %-5s", be[j]
			print ""
			for (i = 1; i <= n; i++) {
				printf "%-" w "s", test[i]
				for (j = 1; j <= m; j++) {
					s = st[be[j], test[i]]
					if (s == "") s = "-"
					else count[s]++
					printf "  %-5s", s == "fail" ? "FAIL" : s
				}
				print ""
			}
			for (i = 1; i <= l; i++)
				printf "%-" w "s  %d passed\n", lab[i], passed[lab[i]]
			print ""
			for (i = 1; i <= n; i++)
				for (j = 1; j <= m; j++)
					if (st[be[j], test[i]] ~ /skip|fail/) {
						b = onbase[be[j], test[i]]
						printf "%s on %s: %s%s%s\n", test[i], be[j], st[be[j], test[i]],
							why[be[j], test[i]] != "" ? ": " why[be[j], test[i]] : "",
							st[be[j], test[i]] == "fail" && b != "" ? " (on the base: " b ")" : ""
					}
			printf "%d passed, %d failed, %d skipped\n", count["pass"], count["fail"], count["skip"]
			exit !(count["fail"] == 0 && count["pass"] > 0)
		}'
}
