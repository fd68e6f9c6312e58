"""Checkpoints: places in the work that a thread passes. In which order and within which times is laid down in the
configuration of the child (`[[supervision]]`); docs/abi.md describes every word.

The thread that passes a checkpoint notes what is wrong, and multusd finds it there. What multusd laid down does not
change while the process lives, so it is read once, when a checkpoint is looked up.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ._heartbeat import _Writer

# Numbers of 64-bit words.
CHECKPOINTS, SECTIONS, DEADLINES, ENTRY_WORDS = 4096, 4224, 4352, 8
SECTION_OF, SUCCESSORS, FLAGS = range(4, 7)  # within a checkpoint, after its name
SUPERVISED, FIRST = 1, 2  # flags
LAST, DISORDER = 4, 5  # within a section, after the name of its lane
ENDS, MIN, MAX, BEGUN, COUNT, SHORTEST, LONGEST, OUTSIDE = range(8)  # within a deadline
PRESENT = 1 << 16

ENTRIES = 16  # of each kind
NAME_WORDS = 4
COUNT_MASK = 0xFFFF
WORD_MASK = 2**64 - 1


class Checkpoint:
    """A place in the work of one thread, which alone calls `passed()`. Inert (that call does nothing) without
    supervision, and where the configuration has no checkpoint of this name for this lane."""

    __slots__ = ("_allowed", "_deadlines", "_last", "_number", "_writer")

    def __init__(self, writer: _Writer, name: list[int]) -> None:
        """Use `checkpoint()` of a heartbeat or a lane."""
        self._writer = writer
        self._number: Optional[int] = None
        page = writer._page
        if page is None:
            return
        lane = writer._name(page)
        for number, entry in _entries(CHECKPOINTS):
            section = page[entry + SECTION_OF] - 1
            if _is_of_lane(page, section, lane) and page[entry : entry + NAME_WORDS].tolist() == name:
                break
        else:
            return
        self._number = number
        self._last = SECTIONS + ENTRY_WORDS * section + LAST
        # Which word LAST allows to pass here: bit 0 for the beginning, bit 1 + n after checkpoint n.
        self._allowed: Optional[int] = None
        if page[entry + FLAGS] & SUPERVISED:
            allowed = page[entry + FLAGS] & FIRST and 1
            for before, other in _entries(CHECKPOINTS):
                allowed |= (page[other + SUCCESSORS] >> number & 1) << before + 1
            self._allowed = allowed
        # First word of each deadline that ends or begins here, and which of the two it does.
        self._deadlines = [
            (first, to == number, begin == number)
            for first, begin, to in _deadlines(page)
            if number in (begin, to)
        ]

    @property
    def is_supervised(self) -> bool:
        """Whether somebody judges when this is passed."""
        return self._number is not None and self._writer._page is not None

    def passed(self) -> None:
        """The thread is here: its order and its times are judged. This is no beat. One to two microseconds; no
        system call. Not for a signal handler."""
        number = self._number
        page = self._writer._page
        if page is None or number is None:
            return
        now = monotonic_ns()
        last = page[self._last]
        page[self._last] = number + 1
        if self._allowed is not None and not self._allowed >> (last if last <= ENTRIES else 0) & 1:
            _one_more(page, self._last - LAST + DISORDER, (last & 0xFF) << 16 | number << 24)
        for first, ends, begins in self._deadlines:
            if ends and page[first + BEGUN]:
                _end(page, first, now)
            # What is under way goes on: who begins again and again without an end is found, too.
            if begins and not page[first + BEGUN]:
                page[first + BEGUN] = now
        self._writer._mark(now, number + 1)


def leave(page: memoryview, lane: list[int]) -> None:
    """The thread of the lane of this name ends in good order: what it began is not waited for any longer, and a later
    lane of this name begins anew."""
    for section, first in _entries(SECTIONS):
        if _is_of_lane(page, section, lane):
            page[first + LAST] = 0
    for first, begin, _ in _deadlines(page):
        if begin < ENTRIES and _is_of_lane(page, page[CHECKPOINTS + ENTRY_WORDS * begin + SECTION_OF] - 1, lane):
            page[first + BEGUN] = 0


def _entries(first: int) -> list[tuple[int, int]]:
    """Number and first word of all entries of a kind."""
    return [(number, first + ENTRY_WORDS * number) for number in range(ENTRIES)]


def _deadlines(page: memoryview) -> list[tuple[int, int, int]]:
    """Of each deadline its first word, and the checkpoints at which it begins and ends."""
    deadlines = []
    for _, first in _entries(DEADLINES):
        ends = page[first + ENDS]
        if not ends & PRESENT:
            break
        deadlines.append((first, ends & 0xFF, ends >> 8 & 0xFF))
    return deadlines


def _is_of_lane(page: memoryview, section: int, lane: list[int]) -> bool:
    if not 0 <= section < ENTRIES:
        return False
    first = SECTIONS + ENTRY_WORDS * section
    return bool(page[first : first + NAME_WORDS].tolist() == lane)


def _end(page: memoryview, first: int, now: int) -> None:
    """A deadline that had begun ends."""
    took = max(0, now - page[first + BEGUN])
    count, shortest, longest = page[first + COUNT], page[first + MIN], page[first + MAX]
    if count == 0 or took < page[first + SHORTEST]:
        page[first + SHORTEST] = took
    if took > page[first + LONGEST]:
        page[first + LONGEST] = took
    page[first + COUNT] = count + 1 & WORD_MASK
    if took < shortest or 0 < longest < took:
        # Too short rounds down and too long rounds up, so that the time given still is outside.
        microseconds = took // 1000 if took < shortest else -(-took // 1000)
        _one_more(page, first + OUTSIDE, microseconds << 16 & WORD_MASK)
    page[first + BEGUN] = 0


def _one_more(page: memoryview, word: int, what: int) -> None:
    """One more of something, with what belongs to it: the count is never 0 again."""
    page[word] = what | ((page[word] & COUNT_MASK) + 1 & COUNT_MASK or 1)
