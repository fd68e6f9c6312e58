"""The heartbeat page: what a process writes to show that its work goes on. docs/abi.md describes every word.

A beat stores the time, then the count; multusd reads the count, then the time. So a new time without a new count is
half a beat, and never counts: nobody is taken to be alive for having died inside beat().

CPython has no fences. On x86-64 stores are seen in the order in which they are made. On ARM, too, there are hundreds of
instructions of the interpreter between the two, but the processor promises nothing: another one may see the count some
nanoseconds before the time. Should multusd look at just that moment, the beat counts with the time of the one before
it, as if it had been made one interval earlier, until the next beat. That changes no verdict when the deadline is at
least three times the interval between beats; on ARM do not go below that.

A 64-bit Python stores a word whole. A 32-bit one may store it in two halves, and a look between them sees a time that
nobody meant. It takes a look in the nanosecond or so in which the upper half changes, which it does every 4.3 seconds:
rare, but not never. Where it matters, use a 64-bit Python, or the library for C or Rust.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
import weakref
from time import monotonic_ns
from typing import TYPE_CHECKING, Optional

from ._checkpoint import Checkpoint, leave

if TYPE_CHECKING:
    from types import TracebackType

ENV_FD = "MULTUS_HEARTBEAT_FD"

# Numbers of 64-bit words.
MAGIC, SHAPE, GENERATION, LANE_COUNT, DEADLINE = range(5)
READY, LANES_IN_USE, NOTICES = 8, 9, 10
FIRST_RECORD, RECORD_WORDS, NOTICES_KEPT = 16, 28, 3
FIRST_LANE, LANE_WORDS = 128, 16
SEQUENCE, TIME, MAX_GAP, LEFT, LANE_DEADLINE, LANE_NAME = range(6)  # within a lane
MARKS = 9  # within a lane
FIRST_HISTOGRAM, BUCKETS = 384, 232
FIRST_TRACE, TRACE_WORDS, RING, SLOTS = 4608, 320, 64, 256

LANES = 16
BYTES = 77824
NAME_BYTES = 32
SAID_BYTES = 192
VERSION = 1
EXPECTED_MAGIC = int.from_bytes(b"MULTUSHB", "little")
EXPECTED_SHAPE = BYTES << 32 | VERSION
WORD_MASK = 2**64 - 1
LATEST_MARK = WORD_MASK >> 5

# A word of the pace, from its lowest bit: the longest interval in us, the number of beats, the round.
LONGEST_MASK = 2**24 - 1
ONE_BEAT, ALL_BEATS = 1 << 24, 2**20 - 1 << 24
ROUND_SHIFT, ROUND_MASK = 44, 2**20 - 1


class PageError(Exception):
    """There is a heartbeat page, but it cannot be used. The text says why."""


class _Writer:
    """Writes the beats of one lane, each part of it through a view of its own, so that places are small numbers. Of the
    pace it keeps the word that it wrote last. In beat() every reading, masking and adding of a 64-bit word counts."""

    __slots__ = ("__weakref__", "_deadline", "_lane", "_longest", "_page", "_slot", "_step", "_views", "_word")

    def __init__(self, page: Optional[memoryview], lane: int) -> None:
        first = FIRST_LANE + LANE_WORDS * lane
        self._lane = lane
        self._deadline = DEADLINE if lane == 0 else first + LANE_DEADLINE
        self._page = page
        # The slot of the pace that is open, its word, what a beat adds to that, and its longest interval in us.
        self._slot, self._word, self._step, self._longest = -1, 0, ONE_BEAT, 0
        if page is not None:
            histogram = FIRST_HISTOGRAM + BUCKETS * lane
            trace = FIRST_TRACE + TRACE_WORDS * lane
            self._views = (
                page[first : first + LANE_WORDS],
                page[histogram : histogram + BUCKETS],
                page[trace : trace + TRACE_WORDS],
            )
            _writers.add(self)

    def beat(self) -> None:
        """One beat: "my work loop has come round again". One to two microseconds; no system call. Not for a signal
        handler, which could come in the middle of another beat."""
        if self._page is None:
            return
        lane, histogram, trace = self._views
        now = monotonic_ns()
        before = lane[1]  # TIME
        lane[1] = now
        # The last one of 2^64 is not reached in a lifetime; a page may hold any number all the same.
        count = lane[0] + 1  # SEQUENCE
        lane[0] = count if count <= WORD_MASK else 0
        # As `_mark()` and `bucket()`, written out: a call would cost as much as the rest.
        count = lane[9]  # MARKS
        trace[count & 63] = now << 5 if now <= LATEST_MARK else 0
        lane[9] = count + 1 if count < WORD_MASK else 0
        interval = now - before if 0 < before < now else 0
        slot = now >> 27
        if slot != self._slot:
            self._open_slot(slot, trace)
        word = self._word + self._step
        microseconds = interval // 1000
        if microseconds > self._longest:
            microseconds = min(microseconds, LONGEST_MASK)
            word += microseconds - self._longest
            self._longest = microseconds
        self._word = trace[64 + (slot & 255)] = word
        if before:
            if interval > lane[2]:  # MAX_GAP
                lane[2] = interval
            ticks = interval >> 10
            if ticks > 7:
                exponent = ticks.bit_length() - 1
                ticks = (exponent - 2 << 3) + (ticks >> exponent - 3 & 7)
                if ticks > 231:
                    ticks = 231
            count = histogram[ticks] + 1
            histogram[ticks] = count if count <= WORD_MASK else 0

    def _open_slot(self, slot: int, trace: memoryview) -> None:
        """The first beat of a slot: goes on with what another writer of this process has there."""
        word = trace[RING + slot % SLOTS]
        if word >> ROUND_SHIFT != slot >> 8 & ROUND_MASK:
            word = (slot >> 8 & ROUND_MASK) << ROUND_SHIFT
        # Python does not make half a million beats in a slot: a count that is nearly full stays as it is.
        self._step = ONE_BEAT if word & ALL_BEATS <= ALL_BEATS >> 1 else 0
        self._slot, self._word, self._longest = slot, word, word & LONGEST_MASK

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of this name that the configuration has for this lane (`[[supervision]]`); an inert one where
        it has none. Look it up once, before the loop, and call its `passed()` in the loop."""
        return Checkpoint(self, _text(name, NAME_BYTES))

    def _mark(self, now: int, code: int) -> None:
        """One more mark in the trace: 0 for a beat, 1 + n for checkpoint n."""
        lane, _, trace = self._views
        count = lane[MARKS]
        trace[count % RING] = (now << 5 | code) & WORD_MASK
        lane[MARKS] = count + 1 & WORD_MASK

    def _name(self, page: memoryview) -> list[int]:
        """The words of the lane's name. That of the main loop is empty; a further lane without one has no words at all,
        so that it is not taken for the main loop."""
        first = FIRST_LANE + LANE_WORDS * self._lane + LANE_NAME
        words: list[int] = page[first : first + NAME_BYTES // 8].tolist()
        return words if self._lane == 0 or any(words) else []

    @property
    def is_supervised(self) -> bool:
        """Whether somebody watches these beats."""
        return self._page is not None

    @property
    def deadline(self) -> Optional[float]:
        """The deadline in seconds; None without one, and without supervision."""
        page = self._page
        nanoseconds = 0 if page is None else page[self._deadline] or page[DEADLINE]
        return nanoseconds / 1e9 if nanoseconds else None


class Heartbeat(_Writer):
    """The heartbeat of this process. Inert (all calls do nothing) in a process that nobody supervises.

    `beat()` and `ready()` are for one thread, that of the work loop; further threads get a `lane()` each. A process
    that was made by os.fork() is not supervised: there, everything of its parent becomes inert.
    """

    __slots__ = ("error",)

    #: Why there is a page but no supervision; None without an error.
    error: Optional[str]

    def __init__(self, page: Optional[memoryview] = None, error: Optional[str] = None) -> None:
        """An inert heartbeat. Use `from_env()`, or `from_fd()` for a page that was received."""
        super().__init__(page, 0)
        self.error = error

    @classmethod
    def from_env(cls) -> Heartbeat:
        """The heartbeat that multusd set up for this process, or an inert one when there is none. A page that is
        there but cannot be used is reported on standard error; multusd will then find the process silent."""
        try:
            return cls.try_from_env()
        except PageError as error:
            print(f"multus heartbeat: {error}; this process cannot beat", file=sys.stderr, flush=True)
            return cls(error=str(error))

    @classmethod
    def try_from_env(cls) -> Heartbeat:
        """As `from_env()`, but raises PageError for a page that cannot be used."""
        value = os.environ.get(ENV_FD)
        if value is None:
            return cls()
        if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 2):
            raise PageError(f"{ENV_FD} is {value!r}, not a descriptor")
        try:
            # Programs that this one starts must not beat in its name.
            os.set_inheritable(int(value), False)
            return cls.from_fd(int(value))
        except OSError as error:
            raise PageError(f"{ENV_FD}={value}: {error.strerror}") from None

    @classmethod
    def from_fd(cls, fd: int) -> Heartbeat:
        """A heartbeat on the page of this descriptor, which stays the caller's and may be closed afterwards.

        Raises PageError for what is no heartbeat page of this release, OSError for what the system refuses.
        """
        return cls(_map(fd))

    def ready(self) -> None:
        """Says that set-up is done: from now on the deadline counts, and outputs are released. Includes a beat. A
        process that never calls it is ready with its first beat."""
        self.beat()
        if self._page is not None:
            self._page[READY] = 1

    def status(self, text: str) -> None:
        """How the process is, in a line of at most 192 bytes, until something else is said: shown with its state. Any
        thread may call this."""
        page = self._page
        if page is not None:
            with _speaking:
                _say(page, 0, 1, text)

    def notice(self, text: str) -> None:
        """Something that happened and belongs into the record of events, at most 192 bytes. Meant for what changes now
        and then: multusd takes ten at once, then one every ten seconds. It listens twice a second; a process that ends
        sooner takes its last notice with it. Any thread may call this."""
        page = self._page
        if page is not None:
            with _speaking:
                number = page[NOTICES] + 1 & WORD_MASK
                _say(page, 1 + number % NOTICES_KEPT, number, text)
                page[NOTICES] = number

    def lane(self, name: str, deadline: Optional[float] = None) -> Lane:
        """Puts one more thread under supervision, from now on, with a deadline of its own in seconds (None: that of
        the process). A fault of the thread is reported with the name, at most 32 bytes of UTF-8.

        Raises RuntimeError when all 16 lanes are taken. Any thread may call this.
        """
        nanoseconds = 0 if deadline is None else round(deadline * 1e9)
        if deadline is not None and not 0 < nanoseconds <= WORD_MASK:
            raise ValueError(f"a deadline of {deadline} s")
        page = self._page
        if page is None:
            return Lane(None, 0)
        with _opening:
            number = max(1, page[LANES_IN_USE])
            if number >= LANES:
                raise RuntimeError(f"all {LANES} lanes are taken")
            lane = Lane(page, number)
            first = FIRST_LANE + LANE_WORDS * number
            for offset, word in enumerate(_text(name, NAME_BYTES)):
                page[first + LANE_NAME + offset] = word
            page[first + LANE_DEADLINE] = nanoseconds
            lane.beat()
            page[LANES_IN_USE] = number + 1
        return lane


class Lane(_Writer):
    """The heartbeat of one further thread, which alone calls `beat()`. As a context manager it is closed at the end of
    the block, unless the block ends by an exception: a thread that died is to be found silent."""

    __slots__ = ("_left",)

    def __init__(self, page: Optional[memoryview], number: int) -> None:
        super().__init__(page, number)
        self._left = FIRST_LANE + LANE_WORDS * number + LEFT

    def close(self) -> None:
        """The thread ends in good order: it is no longer supervised. Beats after this do nothing."""
        page, self._page = self._page, None
        if page is not None:
            leave(page, self._name(page))
            page[self._left] = 1

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close()


def bucket(interval_ns: int) -> int:
    """The bucket of the histogram that counts this interval: linear up to 8 us, then eight for each power of two."""
    ticks = interval_ns >> 10
    if ticks < 8:
        return ticks
    exponent = ticks.bit_length() - 1
    return min((exponent - 2) * 8 + (ticks >> (exponent - 3) & 7), BUCKETS - 1)


def _map(fd: int) -> memoryview:
    if sys.byteorder != "little":
        raise PageError("the pages of multusd are little-endian, this machine is not")
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno != 22:  # EINVAL: no memfd
            raise
        seals = 0
    if not seals & fcntl.F_SEAL_SHRINK:
        raise PageError("not a sealed memory page of multusd")
    length = os.fstat(fd).st_size
    if length == 0 or length % 8:
        raise PageError(f"a page of {length} bytes")
    page = memoryview(mmap.mmap(fd, length)).cast("Q")
    if page[MAGIC] != EXPECTED_MAGIC:
        raise PageError(f"not the expected page (first word {page[MAGIC]:#018x})")
    if page[SHAPE] & 0xFFFFFFFF != VERSION:
        found = page[SHAPE] & 0xFFFFFFFF
        raise PageError(f"page layout version {found}, this program knows {VERSION}; use programs of one release")
    if length != BYTES or page[SHAPE] != EXPECTED_SHAPE or page[LANE_COUNT] != LANES:
        stated = f"{page[SHAPE] >> 32} bytes and {page[LANE_COUNT]} lanes"
        raise PageError(f"the page says it has {stated}, {length} bytes are mapped")
    return page


def _text(text: str, size: int, end: bytes = b"") -> list[int]:
    """The words of a text. One that is too long is cut between two characters, and has this end."""
    whole = text.encode("utf-8", "replace")
    if len(whole) > size:
        whole = whole[: size - len(end)].decode("utf-8", "ignore").encode() + end
    whole = whole.ljust(size, b"\0")
    return [int.from_bytes(whole[first : first + 8], "little") for first in range(0, size, 8)]


def _say(page: memoryview, place: int, number: int, text: str) -> None:
    """Writes a record: its sequence is odd meanwhile, so that nobody takes half of it."""
    first = FIRST_RECORD + RECORD_WORDS * place
    page[first] = entered = (page[first] | 1) & WORD_MASK
    for offset, word in enumerate([number, *_text(text, SAID_BYTES, "…".encode())], first + 1):
        page[offset] = word
    page[first] = entered + 1 & WORD_MASK


_opening = threading.Lock()
_speaking = threading.Lock()
_writers: weakref.WeakSet[_Writer] = weakref.WeakSet()


def _after_fork() -> None:
    global _opening, _speaking
    _opening, _speaking = threading.Lock(), threading.Lock()  # another thread of the parent may have held them
    for writer in list(_writers):
        writer._page = None


os.register_at_fork(after_in_child=_after_fork)
