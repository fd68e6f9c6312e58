#!/usr/bin/env python3
"""A supervised child in Python with two threads: the main loop, and a poller with a lane and a deadline of its own.

child.py            works until SIGTERM or Ctrl-C
child.py TURNS      works that many turns of 10 ms

Its checkpoints do nothing until the configuration names them, for example:

    [[supervision]]
    checkpoints = ["begin", "end"]
    start = ["begin"]
    next = { begin = ["end"], end = ["begin"] }
    deadline = [{ from = "begin", to = "end", min = "5ms", max = "50ms" }]
"""

import logging
import sys
import threading
import time

import multus
import multus.logging

TURN_SECONDS = 0.01


def poll(lane: multus.Lane, stop: threading.Event) -> None:
    with lane:
        while not stop.wait(TURN_SECONDS):  # here: ask a device
            lane.beat()


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else None
    multus.logging.setup()
    stop = threading.Event()
    with multus.supervised() as heartbeat:
        if heartbeat.is_supervised:
            logging.info("supervised with a deadline of %s s", heartbeat.deadline)
        else:
            logging.info("not supervised")
        poller = threading.Thread(target=poll, args=(heartbeat.lane("poller", deadline=0.5), stop), name="poller")
        poller.start()
        begin, end = heartbeat.checkpoint("begin"), heartbeat.checkpoint("end")
        heartbeat.ready()
        try:
            while turns is None or turns > 0:
                begin.passed()
                time.sleep(TURN_SECONDS)  # here: one turn of the work
                end.passed()
                heartbeat.beat()
                turns = None if turns is None else turns - 1
        finally:
            stop.set()
            poller.join()
            logging.info("stopped")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
