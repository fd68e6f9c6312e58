"""A heartbeat page as multusd makes it, and what tests need beside it."""

import fcntl
import mmap
import os
import struct
import sys
import unittest

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEADER = (int.from_bytes(b"MULTUSHB", "little"), 32768 << 32 | 1, 1, 16, 50_000_000)


class Page:
    def __init__(self, header=HEADER, length=32768, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW):
        self.fd = os.memfd_create("heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, length)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        os.pwrite(self.fd, struct.pack(f"<{len(header)}Q", *header), 0)
        self.words = memoryview(mmap.mmap(self.fd, length)).cast("Q") if length == 32768 else None

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
