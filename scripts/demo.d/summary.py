"""Reads events (one JSON object a line) from standard input and prints what was detected and how fast.

Times are differences of CLOCK_MONOTONIC times that multusd put into its events:
overshoot   from the deadline until the fault was detected (a crash has no deadline)
safe        from there until the outputs were forced to their safe values
killed      from there until the process was killed, evidence collected before
reaped, spawned, ready   from the step before
"""
import json
import statistics
import sys

STEPS = ["detected_ns", "safe_ns", "killed_ns", "reaped_ns", "spawned_ns", "ready_ns"]
HEADS = ["overshoot", "safe", "killed", "reaped", "spawned", "ready"]


def show(ns):
    if ns is None:
        return "-"
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}" if abs(ns) < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns} ns"


def differences(fault):
    """Each step's distance from the last step that happened before it."""
    has_deadline = fault.get("fault") in ("hang", "startup-timeout")
    result, before = [], fault.get("deadline_ns") if has_deadline else None
    for step in STEPS:
        at = fault.get(step)
        result.append(at - before if at is not None and before is not None else None)
        before = at if at is not None else before
    return result


def faults(lines):
    """One record for each fault, with all times that are known at the end, in the order of detection."""
    found = {}
    for line in lines:
        event = json.loads(line)
        if event.get("kind") in ("fault", "recovered") and event.get("detected_ns"):
            record = found.setdefault((event.get("child"), event["detected_ns"]), {})
            detail = event.get("detail") if event["kind"] == "fault" else None
            record.update({key: value for key, value in event.items() if key != "detail"})
            record["detail"] = detail or record.get("detail", "")
    return sorted(found.values(), key=lambda fault: fault["detected_ns"])


def row(cells):
    return f"{cells[0]:<10} {cells[1]:<16}" + "".join(f"{cell:>10}" for cell in cells[2:])


def main():
    records = faults(sys.stdin)
    print(f"What was detected, and how long each step took ({len(records)} faults):")
    print(row(["child", "fault", *HEADS]))
    kinds = {}
    for fault in records:
        steps = differences(fault)
        kind = fault.get("fault", "?")
        kinds.setdefault(kind, []).append(steps)
        print(row([fault.get("child", "?"), kind, *map(show, steps)]))
    for kind, rows in sorted(kinds.items()):
        medians = []
        for column in zip(*rows):
            known = [value for value in column if value is not None]
            medians.append(show(statistics.median(known)) if known else "-")
        print(row(["median", kind, *medians]))
    for kind in sorted(kinds):
        example = next((fault["detail"] for fault in records if fault.get("fault") == kind and fault["detail"]), None)
        if example:
            print(f"{kind}: {example.splitlines()[0]}")


main()
