"""The process image: reading lines, asking for outputs, waiting for changes. docs/abi.md describes every word.

    from multus import Io

    io = Io.from_env()
    button, lamp = io.input("DI1"), io.output("DO1")
    seen = 0
    while button and lamp:
        lamp.set(bool(button.good()))  # None, when nobody knows the input: off
        seen = io.wait_change(seen, 0.1)

A record is read under its sequence lock, so nothing torn is returned on any machine. A request is four plain stores, the
sequence last. On x86-64 they are seen in that order; on ARM multus-io may, within nanoseconds, see the sequence before the
value. It looks at both in every scan, so the value counts with the next one at the latest.

`wait_change()` sleeps in the kernel (futex, through ctypes). Where ctypes or the number of the system call is missing, it
looks once in a millisecond instead; `Io.waits_in_kernel` says which.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import platform
import sys
import threading
import time
from typing import NamedTuple, Optional, Union

ENV_IMAGE_FD = "MULTUS_IO_IMAGE_FD"
ENV_REQUEST_FD = "MULTUS_IO_REQUEST_FD"

# Numbers of 64-bit words.
CHANGES, LAYOUT, IN_USE, SCAN_TIME, STALE = 3, 4, 5, 7, 20
FIRST_LINE, LINE_WORDS = 64, 32
UNIT, OWNER, KIND, SAFE, LOWEST, HIGHEST, RECORD = 4, 6, 12, 13, 14, 15, 16  # within a line
FIRST_REQUEST, REQUEST_WORDS = 16, 4

LINES = 256
IMAGE_BYTES, REQUEST_BYTES = 66048, 8320
VERSION = 1
NAME_BYTES = 32
BAD, FORCED = 1, 2
DIGITAL_INPUT, DIGITAL_OUTPUT, ANALOGUE_INPUT, ANALOGUE_OUTPUT = 1, 2, 3, 4
ATTEMPTS = 64
WORD_MASK = 2**64 - 1


class IoError(Exception):
    """There is an image or a request page, but it cannot be used. The text says why."""


class NotSet(Exception):
    """An output does not get a value: it is out of its range, or this process does not own the output."""


class Reading(NamedTuple):
    """What a line holds, as of one moment."""

    #: 0 or 1, or a number in the unit of the line; when it is not good: the last good one.
    value: float
    #: The level or number as the hardware has it.
    raw: int
    #: Whether the value is that of the plant now: read or written without an error, by a multus-io that scans.
    is_good: bool
    #: Whether the output is held: safe, by multusd, or at any value by a person.
    is_forced: bool
    #: When the value changed, seconds as time.monotonic() has them; 0: never.
    changed: float
    #: When it was read or written without an error, as `changed`.
    good: float
    #: How often the value changed.
    changes: int


class Io:
    """The inputs and outputs of the plant, as this process may use them. For all threads."""

    def __init__(
        self, image: Optional[mmap.mmap] = None, requests: Optional[mmap.mmap] = None, name: str = "", fd: int = -1
    ) -> None:
        """Without lines. Use `from_env()`, or `from_fds()` for pages that were received."""
        self._image = None if image is None else memoryview(image).cast("Q")
        self._doubles = None if image is None else memoryview(image).cast("d")
        self._requests = None if requests is None else memoryview(requests).cast("Q")
        self._wanted = None if requests is None else memoryview(requests).cast("d")
        self._name = name.encode()
        self._lock = threading.Lock()
        self._wait = None if image is None else _kernel_wait(fd)

    @classmethod
    def from_env(cls) -> Io:
        """The image that multusd gave to this process, or one without lines. Pages that are there but cannot be used are
        reported on standard error."""
        try:
            return cls.try_from_env()
        except IoError as error:
            print(f"multus io: {error}; this process sees no lines", file=sys.stderr, flush=True)
            return cls()

    @classmethod
    def try_from_env(cls) -> Io:
        """As `from_env()`, but raises IoError for pages that cannot be used."""
        image, requests = (_descriptor(variable) for variable in (ENV_IMAGE_FD, ENV_REQUEST_FD))
        if image is None:
            return cls()
        return cls.from_fds(image, requests, os.environ.get("MULTUS_NAME", ""))

    @classmethod
    def from_fds(cls, image: int, requests: Optional[int], name: str) -> Io:
        """An image and a request page by their descriptors, which stay the caller's, for the child instance `name`."""
        page = _map(image, "MULTUSIO", IMAGE_BYTES, mmap.PROT_READ)
        own = None if requests is None else _map(requests, "MULTUSRQ", REQUEST_BYTES, mmap.PROT_READ | mmap.PROT_WRITE)
        return cls(page, own, name, image)

    @property
    def waits_in_kernel(self) -> bool:
        """Whether `wait_change()` sleeps until there is a change; else it looks once in a millisecond."""
        return self._wait is not None

    @property
    def is_fresh(self) -> bool:
        """Whether multus-io scans: whether the image is that of the plant now."""
        image = self._image
        if image is None:
            return False
        last = image[SCAN_TIME]
        return last != 0 and time.monotonic_ns() - last <= image[STALE]

    @property
    def changes(self) -> int:
        """Raised after every change of a line; 0 without an image."""
        return 0 if self._image is None else int(self._image[CHANGES])

    def line(self, name: str) -> Optional[Line]:
        """Any line; None when the image has none of this name."""
        place = self._find(name.encode())
        if place is None or self._image is None:
            return None
        kind = self._image[FIRST_LINE + LINE_WORDS * place[1] + KIND]
        return (Output if kind in (DIGITAL_OUTPUT, ANALOGUE_OUTPUT) else Line)(self, name, place)

    def input(self, name: str) -> Optional[Line]:
        """An input; None when the image has none of this name."""
        line = self.line(name)
        return None if isinstance(line, Output) else line

    def output(self, name: str) -> Optional[Output]:
        """An output; None when the image has none of this name. Anybody may read it; only its owner may set it."""
        line = self.line(name)
        return line if isinstance(line, Output) else None

    def wait_change(self, seen: int, timeout: float) -> int:
        """Sleeps until something has changed since `changes` was `seen`, at most so many seconds; returns what it is then."""
        end = time.monotonic() + timeout
        if self._image is None:
            time.sleep(timeout)
            return 0
        while True:
            changes, left = self.changes, end - time.monotonic()
            if changes != seen or left <= 0:
                return changes
            if self._wait is None:
                time.sleep(min(left, 0.001))
            else:
                self._wait(seen, left)

    def _find(self, name: bytes) -> Optional[tuple[int, int]]:
        """Layout and number of a line."""
        image = self._image
        if image is None or not 0 < len(name) <= NAME_BYTES:
            return None
        wanted = name.ljust(NAME_BYTES, b"\0")
        for _ in range(ATTEMPTS):
            layout = image[LAYOUT]
            if layout == 0 or layout & 1:
                continue
            for number in range(min(image[IN_USE], LINES)):
                first = FIRST_LINE + LINE_WORDS * number
                if bytes(image[first : first + UNIT]) == wanted:
                    break
            else:
                number = -1
            if image[LAYOUT] == layout:
                return None if number < 0 else (layout, number)
        return None

    def _record(self, number: int) -> Optional[tuple[float, list[int]]]:
        """Value and words of what a line holds; None when it is written without end, or its writer died inside."""
        image, doubles = self._image, self._doubles
        if image is None or doubles is None:
            return None
        first = FIRST_LINE + LINE_WORDS * number + RECORD
        for _ in range(ATTEMPTS):
            before = image[first]
            value, words = doubles[first + 1], image[first + 2 : first + 8].tolist()
            if not before & 1 and image[first] == before:
                return value, words
        return None


class Line:
    """One line of the image."""

    def __init__(self, io: Io, name: str, place: tuple[int, int]) -> None:
        """Use `Io.line()`."""
        self._io, self._place = io, place
        self.name = name

    @property
    def value(self) -> float:
        """The last known value, good or not; NaN when the line is gone."""
        return self.read().value

    @property
    def unit(self) -> str:
        """The unit of the value."""
        number = self._number()
        if number is None or self._io._image is None:
            return ""
        first = FIRST_LINE + LINE_WORDS * number
        return bytes(self._io._image[first + UNIT : first + OWNER]).rstrip(b"\0").decode("utf-8", "replace")

    def good(self) -> Optional[float]:
        """The value, if it is that of the plant; None when the line is bad or gone, or multus-io does not scan."""
        reading = self.read()
        return reading.value if reading.is_good else None

    def read(self) -> Reading:
        """All that is known of the line now."""
        number = self._number()
        record = None if number is None else self._io._record(number)
        if record is None:
            return Reading(math.nan, 0, False, False, 0.0, 0.0, 0)
        value, (raw, flags, changed, good, changes, _) = record
        is_good = not flags & BAD and self._io.is_fresh
        return Reading(value, raw, is_good, bool(flags & FORCED), changed / 1e9, good / 1e9, changes)

    def _number(self) -> Optional[int]:
        """Looked for anew when the lines were defined anew."""
        image = self._io._image
        if image is None:
            return None
        if image[LAYOUT] != self._place[0]:
            place = self._io._find(self.name.encode())
            if place is None:
                return None
            self._place = place
        return self._place[1]


class Output(Line):
    """One output."""

    def set(self, value: Union[bool, float]) -> None:
        """Asks for a value: it is at the output with the next scan, unless the output is forced, and stays until another
        one is asked for or the process ends. Raises NotSet when the value is out of range, then nothing was asked for, or
        when this process does not own the output, which multus-io refuses as well, and tells."""
        io, number = self._io, self._number()
        image, doubles, requests, wanted = io._image, io._doubles, io._requests, io._wanted
        if number is None or image is None or doubles is None:
            raise NotSet(f"output {self.name}: there is no such line")
        if requests is None or wanted is None:
            raise NotSet(f"output {self.name}: this process has no request page; name its child as owner in hardware.toml")
        first, layout, number_wanted = FIRST_LINE + LINE_WORDS * number, self._place[0], float(value)
        owner = bytes(image[first + OWNER : first + KIND]).rstrip(b"\0")
        if image[first + KIND] == DIGITAL_OUTPUT:
            fits = number_wanted in (0.0, 1.0)
        else:
            fits = doubles[first + LOWEST] <= number_wanted <= doubles[first + HIGHEST]
        if not fits:
            raise NotSet(f"output {self.name}: the value is out of range")
        request = FIRST_REQUEST + REQUEST_WORDS * number
        with io._lock:
            wanted[request + 1] = number_wanted
            requests[request + 2] = time.monotonic_ns()
            requests[request + 3] = layout
            requests[request] = (requests[request] + 1 & WORD_MASK) or 1
            requests[CHANGES] = requests[CHANGES] + 1 & WORD_MASK
        if not owner or owner != io._name[:48]:
            raise NotSet(f"output {self.name}: the line is not owned by this child (owner in hardware.toml)")


def _descriptor(variable: str) -> Optional[int]:
    value = os.environ.get(variable)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 2):
        raise IoError(f"{variable} is {value!r}, not a descriptor")
    try:
        # Not for programs that this one starts.
        os.set_inheritable(int(value), False)
    except OSError as error:
        raise IoError(f"{variable}={value}: {error.strerror}") from None
    return int(value)


def _map(fd: int, letters: str, length: int, protection: int) -> mmap.mmap:
    if sys.byteorder != "little":
        raise IoError("the pages of multusd are little-endian, this machine is not")
    try:
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise IoError("not a sealed memory page of multusd")
        if os.fstat(fd).st_size != length:
            raise IoError(f"a page of {os.fstat(fd).st_size} bytes, expected {length}")
        page = mmap.mmap(fd, length, mmap.MAP_SHARED, protection)
    except OSError as error:
        raise IoError(f"not a page of multusd: {error.strerror}") from None
    words = memoryview(page).cast("Q")
    if words[0] != int.from_bytes(letters.encode(), "little"):
        raise IoError(f"not the expected page (first word {words[0]:#018x})")
    if words[1] != length << 32 | VERSION or words[2] != LINES:
        raise IoError(f"page layout version {words[1] & 0xFFFFFFFF}, this program knows {VERSION}; use programs of one release")
    return page


# SYS_futex; the one that takes a timespec of two longs.
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "armv7l": 240, "armv6l": 240, "i686": 240}


def _kernel_wait(fd: int):  # type: ignore[no-untyped-def]
    """A function that waits for the change counter of the image, or None where that cannot be done."""
    number = _FUTEX.get(platform.machine())
    # A 32-bit program on a 64-bit kernel would use the wrong number.
    if number is None or (sys.maxsize > 2**32) != platform.machine().endswith("64"):
        return None
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        # A mapping of its own, whose address is known; it stays as long as the process.
        address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            return None
    except (ImportError, AttributeError, OSError):
        return None

    class Timespec(ctypes.Structure):
        _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

    word = ctypes.c_void_p(address + 8 * CHANGES)

    def wait(seen: int, seconds: float) -> None:
        # At most an hour, so that every C long holds it; the caller looks again.
        nanoseconds = int(min(seconds, 3600.0) * 1e9)
        timeout = Timespec(nanoseconds // 10**9, nanoseconds % 10**9)
        # FUTEX_WAIT: whatever ends it, the caller looks again. The interpreter runs other threads meanwhile.
        libc.syscall(ctypes.c_long(number), word, 0, ctypes.c_uint32(seen & 0xFFFFFFFF), ctypes.byref(timeout), None, 0)

    return wait
