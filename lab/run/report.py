#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""report.py BUILD SUBTITLE: one self-contained HTML page of the last runs' results in BUILD.
SUBTITLE names what was tested."""
import collections
import datetime
import html
import pathlib
import re
import sys

import results

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kvm-gpc: report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem;
       color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem }
th, td { padding: .2rem .6rem; text-align: left; white-space: nowrap;
         border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.pass { background: #e3f4e1 } .fail { background: #f8d7d3; font-weight: bold }
.skip { background: #fbf3d0 }
svg { max-width: 100%; height: auto } ul { padding-left: 1.2rem; overflow-wrap: anywhere }
.names td { white-space: normal } .names td:first-child { overflow-wrap: anywhere }
@media (max-width: 40rem) {
  .names { font-size: .8rem } .names td, .names th { padding: .2rem }
}
</style></head><body>
<h1>kvm-gpc: report</h1>"""


def day(path):
    return datetime.date.fromtimestamp(path.stat().st_mtime)


def head(title, text):
    print(f"<h2>{title}</h2><p>{text}</p>")


def cell(text, status=""):
    return f"<td class={status}>{text}" if status else f"<td>{text}"


def table(rows, kind=""):
    print(f"<div class=wide><table{kind}>", *("<tr>" + "".join(row) for row in rows),
          "</table></div>", sep="\n")


def listed(lines):
    if lines:
        print("<ul>", *("<li>" + html.escape(line) for line in lines), "</ul>", sep="\n")


def matrix(folder):
    """Tests by back ends and kernels, each cell the cases that passed."""
    files = sorted(folder.glob("*.*")) if folder.exists() else []
    if not files:
        return
    where = [", ".join(file.name.split(".", 1)) for file in files]
    count = collections.defaultdict(collections.Counter)
    tests, others = {}, []
    for place, file in zip(where, files):
        for r in results.results_of(file):
            test = r.test.partition(": ")[0]
            tests[test] = True
            count[test, place][r.status] += 1
            if r.status != "pass":
                others.append(f"{r.status}: {r.test} on {place}" + (r.why and f": {r.why}"))

    def summary(n):
        if not n:
            return cell("–")
        if n["fail"]:
            return cell(f"{n['fail']} of {n.total()} failed", "fail")
        if not n["pass"]:
            return cell("skipped", "skip")
        if n["skip"]:
            return cell(f"{n['pass']} of {n.total()}", "skip")
        return cell(n["pass"], "pass")

    head("Selftests", f"Cases that passed, by back end and kernel; {day(folder)}.")
    table([["<th>test", *("<th>" + place for place in where)]] +
          [[cell(html.escape(test)), *(summary(count[test, place]) for place in where)]
           for test in tests])
    listed(others)


def upstream(path):
    """The closing lines, then the tests by back ends."""
    if not path.exists():
        return
    lines = results.lines_of(path)
    end = lines.index("")

    def status(text):
        if re.search("/(fail|none)$", text):
            return cell(text, "fail")
        if text.endswith("pass"):
            return cell(text, "pass")
        return cell(text, "skip" if re.search("^fail$|/skip$", text) else "")

    head("The base's own selftests", f"On the unpatched base and here, {day(path)}.")
    listed(lines[end + 1:])
    rows = [re.split("  +", html.escape(line.rstrip())) for line in lines[:end]]
    table([["<th>" + text for text in rows[0]]] +
          [[cell(row[0]), *(status(text).replace("/", "/<wbr>") for text in row[1:])]
           for row in rows[1:]], " class=names")


def bench(folder, title):
    """Table and plots of a benchmark."""
    path = folder / "table.txt"
    if not path.exists():
        return
    rows = []
    for line in results.lines_of(path):
        # Explanations of failures follow the table.
        if m := re.match(r"(.*?) +([\d,a-z-]+) +([\d,a-z-]+) +([\d.]+|1/\d+|-|ratio)(  <-)?$", line):
            rows.append([cell(html.escape(m[1]), "fail" if m[5] else ""),
                         *(cell(m[i], "n") for i in (2, 3, 4))])
    head(title, f"Instructions; {day(path)}.")
    table(rows, " class=names")
    for svg in sorted(folder.glob("*.svg")):
        print(re.sub(r"^<\?xml.*\n|<!DOCTYPE[^>]*>\n?", "", svg.read_text()))


def main(build, subtitle):
    build = pathlib.Path(build)
    print(HEAD)
    print(f"<p>Written {datetime.date.today()}: {html.escape(subtitle)}</p>")
    matrix(build / "matrix")
    upstream(build / "upstream" / "table.txt")
    bench(build / "bench", "Cost of the cache (x86, SVM)")
    bench(build / "bench.nvhe", "Stolen time, and a reset of the VM (arm64, nVHE)")
    bench(build / "bench.vhe", "VMs that the kernel makes for itself (arm64, VHE)")
    print("</body></html>")


if __name__ == "__main__":
    main(*sys.argv[1:])
