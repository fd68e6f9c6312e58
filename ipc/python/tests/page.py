"""A heartbeat page as multusd makes it, and what tests need beside it."""

import fcntl
import mmap
import os
import struct
import sys
import unittest

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BYTES = 77824
HEADER = (int.from_bytes(b"MULTUSHB", "little"), BYTES << 32 | 1, 1, 16, 50_000_000)


class Page:
    def __init__(self, header=HEADER, length=BYTES, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW):
        self.fd = os.memfd_create("heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, length)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        os.pwrite(self.fd, struct.pack(f"<{len(header)}Q", *header), 0)
        self.words = memoryview(mmap.mmap(self.fd, length)).cast("Q") if length == BYTES else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def environment(self):
        """Variables of a process that gets this page: `pass_fds=[page.fd]`."""
        return {**clean_environment(), "MULTUS_HEARTBEAT_FD": str(self.fd)}

    def lane(self, number):
        first = 128 + 16 * number
        return self.words[first : first + 16]

    def name(self, number):
        return bytes(self.lane(number)[5:9]).rstrip(b"\0").decode()

    def lay_out(self, section, lane, names, order=None, deadlines=()):
        """The checkpoints of one lane, as multusd lays them down: `names` from number 0, 4, 8... of its section on, `order`
        {name: followers} with the first one as the beginning, `deadlines` [(number, from, to, min, max)] in ns."""
        numbers = {name: 4 * section + number for number, name in enumerate(names)}
        self._put(4224 + 8 * section, lane)
        for name, number in numbers.items():
            entry = 4096 + 8 * number
            self._put(entry, name)
            self.words[entry + 4] = section + 1
            if order is not None:
                self.words[entry + 5] = sum(1 << numbers[follower] for follower in order[name])
                self.words[entry + 6] = 1 | (2 if name == names[0] else 0)
        for number, begin, end, least, most in deadlines:
            entry = self.words[4352 + 8 * number :][:8]
            entry[0], entry[1], entry[2] = numbers[begin] | numbers[end] << 8 | 1 << 16, least, most

    def _put(self, first, text):
        self.words[first : first + 4] = memoryview(text.encode().ljust(32, b"\0")).cast("Q")

    def section(self, number):
        return self.words[4224 + 8 * number :][:8]

    def deadline(self, number):
        return self.words[4352 + 8 * number :][:8]

    def marks(self, lane):
        """The last marks of a lane, oldest first: (time in ns, 0 for a beat or 1 + number of the checkpoint)."""
        count = self.lane(lane)[9]
        ring = self.words[4608 + 320 * lane :][:64]
        return [(ring[n % 64] >> 5, ring[n % 64] & 31) for n in range(max(0, count - 64), count)]

    def pace(self, lane):
        """What the slots hold that are not empty: {slot: (round, beats, longest interval in us)}."""
        slots = enumerate(self.words[4672 + 320 * lane :][:256])
        return {slot: (word >> 44, word >> 24 & 0xFFFFF, word & 0xFFFFFF) for slot, word in slots if word}

    def histogram(self, number):
        first = 384 + 232 * number
        return list(self.words[first : first + 232])


def clean_environment():
    names = ("MULTUS_HEARTBEAT_FD", "MULTUS_LOG_LEVEL", "MULTUS_NAME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return {**environment, "PYTHONPATH": FOLDER}


def skip(test, reason):
    """Says why a test is skipped, here and in the file that MULTUS_SKIP_LOG names."""
    line = f"skipped: {test}: {reason}\n"
    sys.stderr.write(line)
    log = os.environ.get("MULTUS_SKIP_LOG")
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(line)
    raise unittest.SkipTest(reason)
