#!/usr/bin/env python3
"""Measures Heartbeat.beat() and Checkpoint.passed(): the median of single calls, and of the mean over many. Needs nothing installed.

A single call is measured between two readings of the clock, so it includes the cost of one reading; that is shown too.
"""

import os
import platform
import statistics
import sys
from time import perf_counter_ns

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from multus import Heartbeat
from tests.page import Page

CALLS = 200_000
BATCH = 1000


def single_calls(call):
    """Sorted times of single calls, ns."""
    times = []
    for _ in range(CALLS):
        before = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - before)
    return sorted(times)


def mean_of_batches(call):
    """Median of the means of batches, ns; no clock reading per call, but the loop."""
    means = []
    for _ in range(CALLS // BATCH):
        before = perf_counter_ns()
        for _ in range(BATCH):
            call()
        means.append((perf_counter_ns() - before) / BATCH)
    return statistics.median(means)


def main():
    print(f"Python {platform.python_version()}, {platform.machine()}, Linux {platform.release()}")
    with Page() as page:
        heartbeat = Heartbeat.from_fd(page.fd)
        lane = heartbeat.lane("lane")
        order = {"begin": ["end"], "end": ["begin"]}
        page.lay_out(0, "", ["begin", "end"], order, [(0, "begin", "end", 0, 10**9)])
        begin, end = heartbeat.checkpoint("begin"), heartbeat.checkpoint("end")

        def turn():
            begin.passed()
            end.passed()

        cases = {
            "beat()": heartbeat.beat,
            "lane.beat()": lane.beat,
            "2 * passed()": turn,
            "inert": Heartbeat().beat,
            "int()": int,
        }
        for name, call in cases.items():
            single = single_calls(call)
            print(
                f"{name:12} median {single[CALLS // 2]:5} ns   99 % {single[CALLS * 99 // 100]:6} ns"
                f"   in batches {mean_of_batches(call):6.0f} ns"
            )


if __name__ == "__main__":
    main()
