"""multus-io on its own: this program is the core and the owners of outputs, so that what happens between a page and a wire can
be tried without a daemon. docs/abi.md describes the pages."""

import array
import fcntl
import mmap
import os
import pathlib
import signal
import socket
import struct
import subprocess
import time

import lab
from multus._io import IMAGE_BYTES, REQUEST_BYTES, Io

FORCE_ENTRIES = 16
FORCE_BYTES = 8 * (16 + 8 * FORCE_ENTRIES)
CHANGES, SCANS, LEFT_OUT = 3, 6, 12


def page(letters, length, places):
    """A new page: its descriptor and its words."""
    fd = os.memfd_create(letters, os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, length)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    words = memoryview(mmap.mmap(fd, length)).cast("Q")
    words[0], words[1], words[2] = int.from_bytes(letters.encode(), "little"), length << 32 | 1, places
    return fd, words


class Desk:
    """A multus-io with its pages; the one owner of outputs is called "lab"."""

    def __init__(self, place, hardware, io="patience = \"0s\"\n", with_force=False):
        self.dir = pathlib.Path(place)
        self.environment = dict(os.environ, MULTUS_NAME="io", MULTUS_CONFIG=str(self.dir / "config/io.toml"))
        for name in ["config", "runtime", "log", "state"]:
            (self.dir / name).mkdir(parents=True, exist_ok=True)
            self.environment[f"MULTUSD_{name.upper()}_DIR"] = str(self.dir / name)
        lab.write(self.dir / "config/hardware.toml", hardware)
        lab.write(self.dir / "config/io.toml", io)
        self.image, self.words = page("MULTUSIO", IMAGE_BYTES, 256)
        self.fds = {"IMAGE": self.image}
        if with_force:
            self.fds["FORCE"], self.force_page = page("MULTUSFO", FORCE_BYTES, FORCE_ENTRIES)
        self.forced = {}
        self.generation = 0
        self.process = None

    def start(self):
        """Starts multus-io, and waits for its first scan."""
        self.spawn()
        lab.until("it scans", lambda: self.process.poll() is not None or self.io.is_fresh)
        assert self.process.poll() is None, self.told()
        return self

    def spawn(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = self.fds | {"REQUESTS": theirs.fileno()}
        variables = {f"MULTUS_IO_{name}_FD": str(fd) for name, fd in fds.items()}
        log = open(self.dir / "log/io.log", "a")
        self.process = subprocess.Popen(
            ["multus-io"], env=self.environment | variables, pass_fds=fds.values(), stdout=log, stderr=log
        )
        theirs.close()
        # The process of the owner, to this multus-io a new one.
        self.generation += 1
        requests, _ = page("MULTUSRQ", REQUEST_BYTES, 256)
        name = b"lab".ljust(48, b"\0")
        introduction = struct.pack("<8sQQQ48s", b"MULTUSRP", 1, 0, self.generation, name)
        ours.sendmsg([introduction], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [requests]))])
        self.socket = ours
        self.io = Io.from_fds(self.image, requests, "lab")

    def told(self):
        return (self.dir / "log/io.log").read_text()

    def read(self, name):
        return self.io.line(name).read()

    def until(self, name, value):
        """Waits until a line is good and has this value."""
        lab.until(
            f"{name} is {value}, it is {self.read(name)}; {self.told()[-300:]}",
            lambda: self.read(name).is_good and self.read(name).value == value,
        )

    def ask(self, name, value):
        self.io.output(name).set(value)

    def force(self, name, value, is_forced=True):
        """What the watch loop does on a fault, and when all is well again."""
        number = self.forced.setdefault(name, len(self.forced))
        base = 16 + 8 * number
        self.force_page[base : base + 8] = memoryview(
            struct.pack("<32sdQQQ", name.encode(), float(value), is_forced, time.monotonic_ns(), 0)
        ).cast("Q")
        self.force_page[CHANGES] += 1

    def release(self, name):
        self.force(name, 0, False)

    def scans(self):
        """So far, those that were left out included."""
        return self.words[SCANS] + self.words[LEFT_OUT]

    def is_fresh(self):
        return self.io.is_fresh

    def end(self, with_signal=signal.SIGTERM):
        """Ends multus-io; its exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(lab.PATIENCE)
