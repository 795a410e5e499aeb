#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a run said: splats of the kernel, KTAP, and the tables of it.

A result is a line "BACKEND TEST STATUS WHY", separated by tabs. STATUS is pass, fail or
skip.

  results.py splats PLATFORM CONSOLE ALLOW   lines of CONSOLE that are splats, but for those
                                             that ALLOW has for PLATFORM
  results.py ktap BACKEND KTAP [TEST...]     results of kselftest's runner, which was to run
                                             these tests
  results.py bats                            results of `bats --formatter tap` (stdin)
  results.py table [BASE]                    results (stdin) as a table, with those of the
                                             unpatched base; fails if a result does
  results.py upstream BASE OURS LIST         results side by side; fails if something passes
                                             on the base only, but for what LIST says may
  results.py bench LIST BASE OURS [RECORDED] figures side by side; fails if a bar is missed
  results.py keep RESULTS KEPT               RESULTS in the place of those tests' in KEPT
"""
import collections
import os
import re
import sys

Result = collections.namedtuple("Result", "backend test status why")

# Patterns of console lines that report a fault of the kernel.
SPLAT = re.compile("|".join((
    "WARNING: ", "BUG: ", "BUG at ", r"BUG [a-zA-Z0-9_-]+ \(", "Oops", "Kernel panic",
    "general protection fault", "Unable to handle kernel", "Internal error: ",
    "unchecked MSR access error", "page allocation failure", "Bad page state",
    "refcount_t: ", "list_(add|del) corruption", "Slab cache still has objects",
    "possible recursive locking", "possible circular locking", "possible irq lock inversion",
    "inconsistent lock state", "held lock freed", "trying to register non-static key",
    "suspicious RCU usage", "Invalid wait context",
    "KASAN: ", "KCSAN: ", "KFENCE: ", "UBSAN: ", "ODEBUG: ",
    "kmemleak: [0-9]+ new suspected", "unreferenced object",
    "blocked for more than", "self-detected stall", "detected stalls", "rcu_.*stall",
    "soft lockup", "hard LOCKUP",
    "lab: cannot", "lab: no results channel", "lab: time limit")))


def lines_of(path):
    """The lines of a file, or of standard input for "-". Line ends of a serial line and
    invalid UTF-8 are accepted."""
    with open(0 if path == "-" else path, encoding="utf-8", errors="replace", newline="\n") as f:
        return [line.rstrip("\n").replace("\r", "") for line in f]


def results_of(path):
    return [Result(*(line.split("\t") + [""] * 3)[:4]) for line in lines_of(path)]


def write(results):
    for r in results:
        print(r.backend, r.test, r.status, r.why.replace("\t", " "), sep="\t")


# --- The console -----------------------------------------------------------------------

def bare(line):
    """A line of the console without the parts that differ between runs or builds: stamp,
    CPU, PID, offsets in functions."""
    line = re.sub(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[TC]\d+\])? *", "", line)
    line = re.sub(r"CPU: \d+ PID: \d+ ", "", line)
    line = re.sub(r"\+0x[0-9a-f]+/0x[0-9a-f]+", "", line)
    # As of 7.3.
    return re.sub(r", CPU#\d+: .*/\d+$", "", line)


def splats(platform, console, allow):
    allowed = [line.partition("\t")[2] for line in lines_of(allow)
               if line.startswith(platform + "\t")]
    for line in map(bare, lines_of(console)):
        if SPLAT.search(line) and line not in allowed:
            print(line)


# --- KTAP ------------------------------------------------------------------------------

class Run:
    """Reads the output of kselftest's runner, one test after the other."""

    def __init__(self, backend):
        self.backend = backend
        self.results = []
        self.seen = set()
        self.whole = False
        self.begin()

    def begin(self):
        self.cases = []
        self.plan = 0
        self.why = ""		# the test's reason to skip, or its first assertion
        self.said = ""		# the last line of a failed assertion in a case
        self.hint = ""		# why TEST_REQUIRE in a case skips it
        self.in_case = False

    def emit(self, test, status, why=""):
        self.results.append(Result(self.backend, test, status, why))

    def line(self, line):
        if line.startswith("# selftests: kvm: "):
            self.begin()
        elif line.startswith("# lab: done"):
            self.whole = True
        elif m := re.match(r"(not )?ok \d+ selftests: kvm: (.*?)(?: *# *(.*))?$", line):
            self.end(m[2], not m[1], m[3] or "")
        elif line.startswith("#"):
            self.comment(line)

    def comment(self, line):
        if re.match(r"# # +RUN ", line):
            self.in_case = True
        # TEST_REQUIRE reports a skip without a name before the harness reports the case.
        elif self.in_case and (m := re.match(r"# +ok \d+ # SKIP(?: - )?(.*)", line)):
            self.hint = m[1]
        elif m := re.match(r"# (?:# +SKIP +|1\.\.0 # SKIP *)(.*)", line):
            self.why = m[1]
        elif m := re.match(r"# 1\.\.(\d+)$", line):
            self.plan = int(m[1])
        elif m := re.match(r"# +(not )?ok \d+ (?:- )?(.*)", line):
            self.case(m[2], "fail" if m[1] else "pass")
        else:
            if m := re.match(r"#   ([^ ].*)", line):
                self.said = m[1]
            if not self.why and re.search(r"Assertion|Failure|: Expected", line):
                self.why = re.sub(r"^# *", "", line)

    def case(self, text, status):
        why = self.said if status == "fail" else ""
        if m := re.search(r" *# *SKIP *(.*)", text):
            text, status, why = text[:m.start()], "skip", self.hint or m[1]
        self.cases.append((text, status, why))
        self.said = self.hint = ""
        self.in_case = False

    def end(self, test, passed, note):
        self.seen.add(test)
        skipped = note.startswith("SKIP")
        if not self.cases and not (self.plan and passed and not skipped):
            if skipped:
                self.emit(test, "skip", self.why)
            elif passed:
                self.emit(test, "pass")
            else:
                self.emit(test, "fail", ": ".join(filter(None, (note, self.why))))
        else:
            for name, status, why in self.cases:
                self.emit(test + ": " + name, status, why)
            if not passed and not any(status == "fail" for _, status, _ in self.cases):
                self.emit(test, "fail", note + " with no case that failed")
            elif not skipped and self.plan != len(self.cases):
                self.emit(test, "fail", f"planned {self.plan} cases, saw {len(self.cases)}")
        self.begin()


def ktap(backend, path, *expected):
    """Show a test that reports cases by its cases. A test that is missing, or fails without
    a failed case, counts as one failure."""
    run = Run(backend)
    for line in lines_of(path):
        run.line(line)
    for test in expected:
        if test not in run.seen:
            run.emit(test, "fail", "did not finish")
    if not run.whole:
        run.emit("boot", "fail", "the guest did not end by itself")
    write(run.results)


def bats():
    results, plan = [], 0
    for line in lines_of("-"):
        if m := re.match(r"(not )?ok \d+ (.*?)(?: # skip *(.*))?$", line):
            status = "skip" if m[3] is not None else "fail" if m[1] else "pass"
            results.append(Result("lab", "lab: " + m[2], status, m[3] or ""))
        elif m := re.match(r"1\.\.(\d+)", line):
            plan = int(m[1])
    if len(results) != plan or not plan:
        results.append(Result("lab", "lab tests", "fail", f"planned {plan}, saw {len(results)}"))
    write(results)


# --- Tables ----------------------------------------------------------------------------

def unique(items):
    return list(dict.fromkeys(items))


def columns(head, rows, width):
    """A table with a wide first column."""
    wide = max(map(len, [head[0]] + [row[0] for row in rows]))
    for row in [head] + rows:
        print(row[0].ljust(wide), *(cell.ljust(width) for cell in row[1:]), sep="  ")


def table(base=None):
    """Tests by back ends, reasons, the closing line. The lab's own tests that passed are one
    line a file."""
    results, lab, count = [], collections.Counter(), collections.Counter()
    for r in results_of("-"):
        m = re.match(r"lab: [a-z]+(?=: )", r.test)
        if r.backend == "lab" and r.status == "pass" and m:
            lab[m[0]] += 1
        else:
            results.append(r)
    # Two results of one name: the worse one counts.
    cell = {}
    for r in results:
        if (r.backend, r.test) not in cell or r.status == "fail":
            cell[r.backend, r.test] = r
    on_base = {(r.backend, r.test): r.status for r in results_of(base)} if base else {}
    tests, backends = unique(r.test for r in results), unique(r.backend for r in results)

    def status(backend, test):
        return cell[backend, test].status if (backend, test) in cell else "-"

    print()
    columns(["test", *backends],
            [[test] + [status(b, test).replace("fail", "FAIL") for b in backends]
             for test in tests] +
            [[of, f"{n} passed"] for of, n in lab.items()], 5)
    print()
    for test in tests:
        for backend in backends:
            s = status(backend, test)
            count[s] += 1
            if s in ("fail", "skip"):
                why = cell[backend, test].why
                was = on_base.get((backend, test)) if s == "fail" else None
                print(f"{test} on {backend}: {s}" + (f": {why}" if why else "") +
                      (f" (on the base: {was})" if was else ""))
    count["pass"] += sum(lab.values())
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return count["fail"] == 0 and count["pass"] > 0


def upstream(base, ours, known):
    may = {}
    for line in lines_of(known):
        if m := re.match(r"\?(\S+) (\S+) (.*)", line):
            may[m[1], m[2]] = m[3]
    results = results_of(base), results_of(ours)
    there, here = ({(r.backend, r.test): r for r in of} for of in results)
    backends = unique(r.backend for of in results for r in of)
    tests = unique(r.test for of in results for r in of)
    none = Result("", "", "none", "")
    allowed, worse, rows = [], [], []
    count = collections.Counter()

    for test in tests:
        rows.append([test])
        for backend in backends:
            key = backend, test
            if key not in there and key not in here:
                rows[-1].append("-")
                continue
            b, o = there.get(key, none).status, here.get(key, none)
            rows[-1].append(b if b == o.status else f"{b}/{o.status}")
            count[backend, "all"] += 1
            count[backend, "base"] += b == "pass"
            count[backend, "here"] += b != "pass" and o.status == "pass"
            if b == "pass" and o.status == "fail" and key in may:
                allowed.append(f"{test} on {backend}: fail here, but it {may[key]}")
            elif b == "pass" and o.status != "pass":
                worse.append(f"{test} on {backend}: {b} on the base, {o.status} here: {o.why}")

    columns(["base/here", *backends], rows, 9)
    print()
    for backend in backends:
        print(f"{backend}: {count[backend, 'all']} tests and cases, "
              f"{count[backend, 'base']} pass on the base, "
              f"{count[backend, 'here']} pass only here")
    print(*allowed, *worse, f"{len(worse)} worse than on the base", sep="\n")
    return tests and not worse


def number(text):
    """12 or 12.0 as 12, 12.5 as it is."""
    return int(float(text)) if float(text).is_integer() else float(text)


def figures_of(path):
    return {line.split()[0]: int(line.split()[1]) for line in lines_of(path)
            if not line.startswith("#")}


def bench(cases, base, ours, recorded=None):
    """Mark each failure beside its case, and explain it below the table."""
    base, ours = figures_of(base), figures_of(ours)
    recorded = figures_of(recorded) if recorded else None
    cases = [line.split(None, 2) for line in lines_of(cases) if not line.startswith("#")]
    cases = [case for case in cases if len(case) == 3]
    said = [f"{name}: is not in the list of cases"
            for figures in (base, ours) for name in figures
            if name not in [case[0] for case in cases]]

    def worse(figure, than):
        return figure > than * 1.02 and figure > than + 20

    def ratio(a, b):
        if a <= 0 or b <= 0:
            return "-"
        return f"{a / b:.2f}" if a / b >= 0.01 else f"1/{b // a}"

    def wrong_with(name, bar):
        b, o = base.get(name), ours.get(name)
        if b is None and not bar.startswith("new:"):
            yield "the base has no figure"
        bar = bar.removeprefix("new:")
        if o is None:
            yield "the series has no figure"
        elif bar.isdigit():
            if o > int(bar):
                yield f"{o} is above its bar of {bar}"
        elif b is not None and (m := re.match(r"base([-*])(.*)", bar)):
            top = b - float(m[2]) if m[1] == "-" else b * float(m[2])
            if o > top:
                yield f"{o} is above its bar of {number(top)}"
        elif b is not None and (bar == "never" and o > b or bar == "base" and worse(o, b)):
            yield f"{o} is worse than {b} on the base"
        if recorded is not None:
            if name not in recorded:
                yield "no figure is recorded"
            elif o is not None and worse(o, recorded[name]):
                yield f"{o} is worse than {recorded[name]}, which is recorded"

    print(f"{'instructions':<55} {'base':>12} {'patched':>12} {'ratio':>8}")
    for name, bar, text in cases:
        wrong = list(wrong_with(name, bar))
        said += [f"{name}: {what}" for what in wrong]
        b, o = base.get(name, 0), ours.get(name, 0)
        print(f"{text:<55} {f'{b:,}' if name in base else '':>12} "
              f"{f'{o:,}' if name in ours else '':>12} {ratio(o, b):>8}" + "  <-" * bool(wrong))
    print(*said, sep="\n", end="\n" * bool(said))
    return not said


def keep(results, kept):
    new = results_of(results)
    tests = {r.test.partition(": ")[0] for r in new}
    old = results_of(kept) if os.path.exists(kept) else []
    with open(kept + ".tmp", "w", encoding="utf-8") as f:
        for r in [r for r in old if r.test.partition(": ")[0] not in tests] + new:
            print(*r, sep="\t", file=f)
    os.replace(kept + ".tmp", kept)


if __name__ == "__main__":
    VERBS = {f.__name__: f for f in (splats, ktap, bats, table, upstream, bench, keep)}
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        sys.exit(__doc__)
    sys.exit(VERBS[sys.argv[1]](*sys.argv[2:]) is False)
