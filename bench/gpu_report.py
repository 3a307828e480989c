#!/usr/bin/env python3
"""Puts together what bench/gpu_check.sh has found so far.

    gpu_report.py OUT SHAPES PART...

Writes OUT/summary.md, and the same with every figure as OUT/results/DATE-gpu-CARD.{md,json}. Standard library only.
"""

import datetime
import glob
import json
import os
import re
import statistics
import sys

# Dense fp16 with fp32 sums in TFLOP/s, memory in GB/s, from the makers' data sheets.
PEAKS = {"H200": (989.4, 4800), "H100": (989.4, 3350), "A100": (312, 2039), "A5000": (111.1, 768), "4090": (165.2, 1008)}
FORWARD_GOALS = {"unet-14": {"vdpp_ms": 135, "eager": 2.0, "compiled": 1.4}, "decode-14": {"vdpp_ms": 180}}
STAGES_GOAL, HANDOFF_GOAL = 0.99, 0.01


def read(*path):
    """A file's text, or None."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read().strip()
    except OSError:
        return None


def read_json(*path):
    """None also for a file that was cut off."""
    try:
        return json.loads(read(*path) or "null")
    except ValueError:
        return None


def median_ms(run):
    return statistics.median(run["wall_s"]) * 1e3


# ---- parts ----


def machine(out):
    card = (read(out, "machine", "smi") or "unknown card").splitlines()[0].split(",")[0]
    return {"date": str(datetime.date.today()), "card": card, "smi": read(out, "machine", "smi"),
            "version": read(out, "build", "version"), "doctor": (read(out, "build", "doctor") or "").splitlines()}


def comparisons(out):
    rows = []
    for path in sorted(glob.glob(os.path.join(out, "compare-*", "*.json"))):
        found = read_json(path)
        if found:
            model = os.path.basename(path).split("-")[0]
            wrong = [value for value in found["values"] if not value["fine"]]
            rows.append({"model": model, **{key: found[key] for key in ("network", "dtype", "limit", "worst", "over")},
                         "values": len(found["values"]), "wrong": wrong})
    return rows


def forwards(out, names):
    rows = {}
    for name in names:
        untuned, torch = read_json(out, "forwards", f"{name}.json"), read_json(out, f"torch-{name}", "result.json")
        rows[name] = {"untuned_ms": median_ms(untuned) if untuned else None, **(torch or {})}
        row = rows[name]
        row["vdpp_ms"] = row.get("vdpp_ms") or row["untuned_ms"]
    return rows


def table(out, card):
    found = read_json(out, "table", "table.json")
    if not found:
        return None
    peak = next((figures for name, figures in PEAKS.items() if name in card), None)
    for row in found["rows"]:
        row["total_ms"] = row["count"] * row["seconds"] * 1e3
        if peak:
            row["limit_ms"] = max(row["flops"] / peak[0] * 1e-12, row["bytes"] / peak[1] * 1e-9) * 1e3
            row["share"] = row["limit_ms"] * 1e-3 / row["seconds"]
    found["rows"].sort(key=lambda row: -row["total_ms"])
    found["sum_ms"] = sum(row["total_ms"] for row in found["rows"])
    found["limit_ms"] = sum(row["count"] * row["limit_ms"] for row in found["rows"]) if peak else None
    return found


def steady_s(report):
    return report["timing"]["wall_s"] - report["timing"]["load_s"]


def program(out):
    reports = {name: [report for turn in (1, 2) if (report := read_json(out, "program", f"{name}-{turn}.json"))]
               for name in ("one", "two")}
    found = {"handoff": read_json(out, "program", "handoff.json")}
    if all(reports.values()):
        one, two = (min(steady_s(report) for report in reports[name]) for name in ("one", "two"))
        found["load_s"] = {name: min(report["timing"]["load_s"] for report in reports[name]) for name in reports}
        found["run_s"] = {"one": one, "two": two}
        found["ratio"] = one / two
        found["step_ms"] = min(report["timing"]["step_median_s"] for report in reports["one"]) * 1e3
        found["devices"] = reports["one"][0]["devices"]
        found["hash"] = reports["one"][0]["samples"][0]["latents_hash"]
    return found


# ---- goals ----


def goal(what, value, limit, most):
    if value is None:
        return {"what": what, "goal": limit, "value": None, "met": None}
    return {"what": what, "goal": limit, "value": value, "met": value <= limit if most else value >= limit}


def goals(rows, whole):
    found = []
    for name, wanted in FORWARD_GOALS.items():
        row = rows.get(name, {})
        found.append(goal(f"{name}, ms", row.get("vdpp_ms"), wanted["vdpp_ms"], most=True))
        for other in ("eager", "compiled"):
            if other in wanted:
                ratio = row[f"{other}_ms"] / row["vdpp_ms"] if row.get(f"{other}_ms") and row.get("vdpp_ms") else None
                found.append(goal(f"{name}, times as fast as torch {other}", ratio, wanted[other], most=False))
    found.append(goal("two stages on one GPU against one", whole.get("ratio"), STAGES_GOAL, most=False))
    share = whole["handoff"]["seconds"] * 1e3 / whole["step_ms"] if whole["handoff"] and "step_ms" in whole else None
    found.append(goal("hand-off with checksums, in steps", share, HANDOFF_GOAL, most=True))
    return found


# ---- Markdown ----


def figure(value, digits=1):
    return "" if value is None else value if isinstance(value, str) else f"{value:.{digits}f}"


def scientific(value):
    return value if isinstance(value, str) else f"{value:.1e}"


def as_table(head, rows):
    return ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(row) + " |" for row in rows]


def goal_lines(results):
    words = {True: "met", False: "MISSED", None: "not measured"}
    return as_table(("goal", "wanted", "found", ""), [(row["what"], figure(row["goal"], 2), figure(row["value"], 2),
                                                       words[row["met"]]) for row in results["goals"]])


def part_lines(results):
    return as_table(("part", "result"), [(name, result or "not done yet") for name, result in results["parts"].items()])


def forward_lines(results):
    return as_table(("fp16, random weights", "vdpp ms", "untuned", "torch eager", "torch compiled"),
                    [(name, *(figure(row.get(key)) for key in ("vdpp_ms", "untuned_ms", "eager_ms", "compiled_ms")))
                     for name, row in results["forwards"].items()])


def compare_lines(results):
    return as_table(("model", "network", "type", "values", "worst error", "limit", "over"),
                    [(row["model"], row["network"], row["dtype"], str(row["values"]), scientific(row["worst"]),
                      f"{row['limit']:.0e}", str(row["over"])) for row in results["compared"]])


def table_lines(results):
    found = results["table"]
    if not found:
        return []
    rows = [(str(row["count"]), row["what"], "; ".join(row["plans"]).replace("|", "/"), figure(row["seconds"] * 1e3, 3),
             figure(row["total_ms"], 2), figure(row["flops"] * 1e-9), figure(row["bytes"] * 1e-6),
             figure(100 * row["share"], 0) + "%" if "share" in row else "") for row in found["rows"]]
    limit = f", the card's peaks allow {found['limit_ms']:.1f} ms" if found["limit_ms"] else ""
    return ["", f"The first forward by operation: {found['sum_ms']:.1f} ms in sum{limit}; as one graph "
            f"{found['whole_s'] * 1e3:.1f} ms.",
            *as_table(("count", "operation", "plans", "ms", "total ms", "GFLOP", "MB", "of what the peaks allow"), rows)]


def program_lines(results):
    found, lines = results["program"], [""]
    if found["handoff"]:
        hand = found["handoff"]
        share = f", {hand['seconds'] * 1e5 / found['step_ms']:.2f} % of a step" if found.get("step_ms") else ""
        lines.append(f"- hand-off: {hand['bytes']} bytes, {hand['route']}, {hand['seconds'] * 1e6:.0f} us with checksums, "
                     f"{hand['copy_s'] * 1e6:.0f} us without{share}")
    if "ratio" in found:
        lines.append(f"- load: {found['load_s']['one']:.2f} s, two stages {found['load_s']['two']:.2f} s")
        lines.append(f"- one stage {found['run_s']['one']:.2f} s, two stages on the same GPU {found['run_s']['two']:.2f} s: "
                     f"{found['ratio']:.3f}; {found['step_ms']:.1f} ms a step")
        lines += [f"- {device['name']}: {device['peak_bytes']} bytes at most, {device['planned_bytes']} planned"
                  for device in found["devices"]]
    return lines


def markdown(results, full):
    head = [f"# {results['machine']['card']}, {results['machine']['date']}", "",
            f"{results['machine']['version'] or 'vdpp'}; {results['machine']['smi'] or 'no nvidia-smi'} "
            "(name, driver, memory, highest clocks, power limit).",
            *(f"- {line}" for line in results["machine"]["doctor"] if re.search("driver|cuDNN|cuda|runtime", line, re.I)),
            *(f"- {key}: {value}" for key, value in results["torch"].items())]
    lines = head + goal_lines(results) + forward_lines(results) + program_lines(results) + compare_lines(results)
    return "\n".join(lines + (table_lines(results) if full else part_lines(results))) + "\n"


def save(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def main():
    out, shapes, parts = sys.argv[1], sys.argv[2], sys.argv[3:]
    names = [line.split()[0] for line in read(shapes).splitlines() if line.split("#")[0].strip()]
    found = machine(out)
    results = {"machine": found, "parts": {name: read(out, name, "result") for name in parts}, "torch": {},
               "forwards": forwards(out, names), "program": program(out), "compared": comparisons(out),
               "table": table(out, found["card"])}
    for row in results["forwards"].values():
        results["torch"].update(row.pop("stack", {}))
    results["goals"] = goals(results["forwards"], results["program"])
    name = f"{found['date']}-gpu-{re.sub('[^a-z0-9]+', '-', found['card'].lower()).strip('-')}"
    save(os.path.join(out, "summary.md"), markdown(results, full=False))
    save(os.path.join(out, "results", f"{name}.md"), markdown(results, full=True))
    save(os.path.join(out, "results", f"{name}.json"), json.dumps(results, indent=1) + "\n")
    print(markdown(results, full=False))


if __name__ == "__main__":
    main()
