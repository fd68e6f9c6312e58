"""The whole system: multusd, multus-io, and a child called "lab" that owns outputs; seen through multusctl."""

import datetime
import json
import os
import pathlib
import socket
from types import SimpleNamespace

import lab


class Plant(lab.Box):
    def __init__(self, place, hardware, deadline="5s"):
        self.wanted = pathlib.Path(place) / "wanted"
        files = {
            "hardware.toml": hardware,
            "multusd.toml": "",
            # A pause in which only multusd can have made outputs safe.
            "children/io.toml": f'command = ["multus-io"]\nheartbeat.deadline = "{deadline}"\nrestart.delays = ["3s"]\n',
            "children/lab.toml": f'command = ["/host/guest/owner", "{self.wanted}"]\nafter = ["io"]\n'
            f'heartbeat.deadline = "{deadline}"\nrestart.delays = ["1s"]\n'
            f'environment = {{ PYTHONPATH = "/host/python" }}\n',
        }
        super().__init__(place, files)
        self.values = {}

    def start(self):
        super().start()
        # Where multusctl asks, too: a program for every look takes an emulated machine a second.
        control = socket.socket(socket.AF_UNIX)
        control.connect(str(self.dirs["runtime"] / "control.sock"))
        self.control = control.makefile("rw")
        self.until_running("lab")
        lab.until("multus-io has the outputs", lambda: self.io()["fresh"] and self.io()["driven_by"] == "multus-io")
        names = [line["name"] for line in self.io()["lines"]]
        lab.same([line["name"] for line in json.loads(self.ctl("io", "list", "--json"))["lines"]], names)
        return self

    def io(self):
        print('{"cmd":"io"}', file=self.control, flush=True)
        return json.loads(self.control.readline())["data"]

    def read(self, name):
        io = self.io()
        line = next(line for line in io["lines"] if line["name"] == name)
        return SimpleNamespace(
            value=line["value"],
            raw=line["raw"],
            is_good=line["good"] and io["fresh"],
            is_forced=line["source"] == "forced",
            good=datetime.datetime.fromisoformat(line["last_good"] or "1970-01-01T00:00:00Z").timestamp(),
            changes=line["changes"],
        )

    def until(self, name, value):
        def is_so():
            reading = self.read(name)
            return reading.is_good and reading.value == value

        lab.until(f"{name} is {value}, it is {self.read(name)}; {self.told()[-300:]}", is_so)

    def scans(self):
        """So far, those that were left out included."""
        return self.io()["scans"] + self.io()["overruns"]

    def is_fresh(self):
        return self.io()["fresh"]

    def ask(self, name, value):
        self.values[name] = value
        new = self.wanted.with_suffix(".new")
        new.write_text(json.dumps(self.values))
        os.rename(new, self.wanted)

    def force(self, name, value):
        self.ctl("io", "force", name, str(value))

    def release(self, name):
        self.ctl("io", "release", name)

    def told(self):
        return self.log("io")

    def end(self):
        return self.stop()
