import os
import unittest
from unittest import mock

from multus import Checkpoint, Heartbeat, _checkpoint, _heartbeat
from tests.page import Page

MS = 1_000_000
ORDER = {"read": ["compute"], "compute": ["compute", "write"], "write": ["read"]}


class Clock:
    """What `monotonic_ns` tells in place of the time."""

    def __init__(self, test):
        self.now = 0
        for module in (_heartbeat, _checkpoint):
            patch = mock.patch.object(module, "monotonic_ns", lambda: self.now)
            patch.start()
            test.addCleanup(patch.stop)


class Checkpoints(unittest.TestCase):
    def setUp(self):
        self.clock = Clock(self)
        self.page = Page()
        self.addCleanup(os.close, self.page.fd)
        self.page.lay_out(0, "", ["read", "compute", "write"], ORDER, [(0, "read", "write", 2 * MS, 10 * MS)])
        self.page.lay_out(1, "poller", ["read"], None, [(1, "read", "read", 0, 0)])
        self.heartbeat = Heartbeat.from_fd(self.page.fd)
        self.read, self.compute, self.write = (self.heartbeat.checkpoint(name) for name in ORDER)

    def at(self, milliseconds, checkpoint):
        self.clock.now = round(milliseconds * MS)
        checkpoint.passed()

    def test_a_good_round_leaves_nothing_but_its_times(self):
        poller = self.heartbeat.lane("poller").checkpoint("read")
        for turn in range(1, 4):
            self.at(100 * turn, self.read)
            self.assertEqual(self.page.deadline(0)[3], 100 * turn * MS)
            self.at(100 * turn + 1, self.compute)
            self.at(100 * turn + 2, self.compute)
            self.at(100 * turn + 2, poller)
            self.at(100 * turn + 3 + turn, self.write)
        self.assertEqual(list(self.page.section(0)[4:]), [3, 0, 0, 0])
        self.assertEqual(list(self.page.section(1)[4:]), [5, 0, 0, 0])
        self.assertEqual(list(self.page.deadline(0)[3:]), [0, 3, 4 * MS, 6 * MS, 0])
        self.assertEqual(list(self.page.deadline(1)[3:]), [302 * MS, 2, 100 * MS, 100 * MS, 0], "a whole round")
        self.assertEqual(self.page.lane(0)[0], 0, "a pass is no beat")

    def test_disorder_is_noted_with_from_and_to(self):
        self.at(1, self.compute)
        self.assertEqual(self.page.section(0)[5], 1 << 24 | 0 << 16 | 1)
        self.at(2, self.write)
        self.assertEqual(self.page.section(0)[5] & 0xFFFF, 1)
        self.assertEqual(self.page.deadline(0)[4], 0, "what has not begun does not end")
        self.at(3, self.compute)
        self.assertEqual(self.page.section(0)[5], 1 << 24 | 3 << 16 | 2)
        self.page.section(0)[5] = 0xFFFF
        self.at(4, self.read)
        self.assertEqual(self.page.section(0)[5], 0 << 24 | 2 << 16 | 1, "the count does not become 0")

    def test_what_is_too_early_or_too_late_is_noted(self):
        for number, (took, told) in enumerate([(1.0005, 1000), (10.0001, 10001), (5, 10001)]):
            self.at(100, self.read)
            self.at(100 + took, self.write)
            self.assertEqual(self.page.deadline(0)[7], told << 16 | min(number + 1, 2), took)
        self.at(200, self.read)
        self.at(205, self.read)
        self.assertEqual(self.page.deadline(0)[3], 200 * MS, "what is under way goes on")
        self.assertEqual(list(self.page.deadline(0)[4:7]), [3, 1_000_500, 10_000_100])

    def test_marks_of_beats_and_checkpoints_stand_in_one_row(self):
        self.at(1, self.read)
        self.heartbeat.beat()
        self.at(2, self.write)
        self.assertEqual(self.page.marks(0), [(MS, 1), (MS, 0), (2 * MS, 3)])
        lane = self.heartbeat.lane("poller")
        self.at(3, lane.checkpoint("read"))
        self.assertEqual(self.page.marks(1), [(2 * MS, 0), (3 * MS, 5)])

    def test_a_closed_lane_is_not_waited_for(self):
        lane = self.heartbeat.lane("poller")
        checkpoint = lane.checkpoint("read")
        self.at(1, self.read)
        self.at(1, checkpoint)
        self.assertEqual((self.page.deadline(0)[3], self.page.deadline(1)[3]), (MS, MS))
        lane.close()
        self.assertEqual((self.page.deadline(0)[3], self.page.deadline(1)[3]), (MS, 0))
        self.at(2, checkpoint)
        self.assertEqual((self.page.deadline(1)[3], checkpoint.is_supervised), (0, False))

    def test_each_lane_has_the_checkpoints_of_its_name(self):
        self.assertTrue(self.read.is_supervised)
        names = {"": [], "other": [], "poller": ["read"]}
        for lane, expected in names.items():
            opened = self.heartbeat.lane(lane)
            found = [name for name in (*ORDER, "", "x") if opened.checkpoint(name).is_supervised]
            self.assertEqual(found, expected, lane)
        self.at(1, self.read)
        nameless = self.heartbeat.lane("")
        self.at(2, nameless.checkpoint("write"))
        nameless.close()
        self.assertEqual(self.page.deadline(0)[3], MS, "a lane without a name is not the main loop")

    def test_what_is_not_there_does_nothing(self):
        before = bytes(self.page.words)
        for checkpoint in (self.heartbeat.checkpoint("x"), Heartbeat().checkpoint("read")):
            self.assertIsInstance(checkpoint, Checkpoint)
            self.assertFalse(checkpoint.is_supervised)
            self.at(1, checkpoint)
        Heartbeat().lane("poller").checkpoint("read").passed()
        self.assertEqual(bytes(self.page.words), before)

    def test_a_forked_process_passes_nothing(self):
        pid = os.fork()
        if pid == 0:
            self.read.passed()
            os._exit(self.read.is_supervised)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(self.page.section(0)[4], 0)

    def test_a_page_full_of_anything_does_no_harm(self):
        value = 88172645463325252
        for number in range(4096, 4608):
            value = value * 0x9E3779B97F4A7C15 + 1 & 2**64 - 1
            self.page.words[number] = value
        self.clock.now = 5 * MS
        for checkpoint in (self.read, self.compute, self.write):
            for _ in range(3):
                checkpoint.passed()
        self.page.words[4224:4352] = self.page.words[4352:4480]
        self.heartbeat.checkpoint("read").passed()
        for number in range(4096, 4608):
            self.page.words[number] = 2**64 - 1
        self.read.passed()
        self.heartbeat.checkpoint("read").passed()
        self.heartbeat.lane("poller").close()


if __name__ == "__main__":
    unittest.main()
