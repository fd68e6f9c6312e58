"""multus-io on its own: this program is the owner of the outputs, and stands for the daemon as far as multus-io needs one.
docs/abi.md describes the pages."""

import array
import fcntl
import mmap
import os
import pathlib
import signal
import socket
import struct
import subprocess

import lab
from multus._io import IMAGE_BYTES, REQUEST_BYTES, Io



def page(letters, length, places):
    """The descriptor of a new page."""
    fd = os.memfd_create(letters, os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, length)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    words = memoryview(mmap.mmap(fd, length)).cast("Q")
    words[0], words[1], words[2] = int.from_bytes(letters.encode(), "little"), length << 32 | 1, places
    return fd


class Desk:
    """A multus-io with its pages; the one owner of outputs is called "lab"."""

    def __init__(self, place, hardware, io="patience = \"0s\"\n"):
        self.dir = pathlib.Path(place)
        self.environment = dict(os.environ, MULTUS_NAME="io", MULTUS_CONFIG=str(self.dir / "config/io.toml"))
        for name in ["config", "runtime", "log", "state"]:
            (self.dir / name).mkdir(parents=True, exist_ok=True)
            self.environment[f"MULTUSD_{name.upper()}_DIR"] = str(self.dir / name)
        lab.write(self.dir / "config/hardware.toml", hardware)
        lab.write(self.dir / "config/io.toml", io)
        self.image = page("MULTUSIO", IMAGE_BYTES, 256)
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
        fds = {"IMAGE": self.image, "REQUESTS": theirs.fileno()}
        variables = {f"MULTUS_IO_{name}_FD": str(fd) for name, fd in fds.items()}
        log = open(self.dir / "log/io.log", "a")
        self.process = subprocess.Popen(
            ["multus-io"], env=self.environment | variables, pass_fds=fds.values(), stdout=log, stderr=log
        )
        theirs.close()
        # The process of the owner, to this multus-io a new one.
        self.generation += 1
        requests = page("MULTUSRQ", REQUEST_BYTES, 256)
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

    def end(self, with_signal=signal.SIGTERM):
        """Ends multus-io; its exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(lab.PATIENCE)
