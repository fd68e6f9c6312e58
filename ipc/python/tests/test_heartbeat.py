import contextlib
import fcntl
import io
import os
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

from multus import Heartbeat, PageError, _heartbeat
from tests.page import BYTES, HEADER, Page, clean_environment


class Beats(unittest.TestCase):
    def test_a_beat_is_a_time_and_a_count(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            before = time.monotonic_ns()
            heartbeat.beat()
            self.assertTrue(before <= page.lane(0)[1] <= time.monotonic_ns())
            self.assertEqual(page.lane(0)[0], 1)
            self.assertEqual(sum(page.histogram(0)), 0, "one beat is no interval")
            self.assertEqual(page.words[8], 0)
            heartbeat.ready()
            self.assertEqual((page.lane(0)[0], page.words[8]), (2, 1))
            self.assertEqual(sum(page.histogram(0)), 1)

    def test_nothing_but_the_own_words_is_written(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            for _ in range(3):
                heartbeat.beat()
            heartbeat.ready()
            written = {number for number, word in enumerate(page.words) if word}
            own = {*range(384, 384 + 232), *range(4608 + 64, 4608 + 320)}
            marks = {137, *range(4608, 4608 + 4)}
            self.assertEqual(written - own, {0, 1, 2, 3, 4, 8, 128, 129, 130} | marks)

    def test_what_is_said_lies_where_multusd_looks(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            heartbeat.status("gone")
            heartbeat.status("well \u00e4")
            for number in range(1, 5):
                heartbeat.notice(f"notice {number}" + "\u00e4" * 200)
            record = lambda place: page.words[16 + 28 * place :][:28]
            text = lambda place: bytes(record(place)[2:26]).rstrip(b"\0").decode()
            self.assertEqual((page.words[10], record(0)[0], record(0)[1], text(0)), (4, 4, 1, "well \u00e4"))
            self.assertEqual([record(1 + number % 3)[1] for number in (2, 3, 4)], [2, 3, 4])
            self.assertEqual(text(1 + 4 % 3), "notice 4" + "\u00e4" * 90 + "\u2026")
            self.assertEqual(page.lane(0)[0], 0, "words are no beat")

    def test_intervals_are_counted_with_the_longest(self):
        milliseconds = [10, 20, 35, 36]
        times = [number * 1_000_000 for number in milliseconds]
        with Page() as page, mock.patch.object(_heartbeat, "monotonic_ns", side_effect=times):
            heartbeat = Heartbeat.from_fd(page.fd)
            for _ in times:
                heartbeat.beat()
            self.assertEqual(list(page.lane(0)[:3]), [4, 36_000_000, 15_000_000])
            counts = {bucket: count for bucket, count in enumerate(page.histogram(0)) if count}
            expected = {_heartbeat.bucket(interval * 1_000_000): 1 for interval in (10, 15, 1)}
            self.assertEqual(counts, expected)

    def test_beat_counts_into_the_bucket_that_the_layout_says(self):
        intervals = [0, 1023, 8191, 8192, 9216, 16383, 16384, 123_456, 10**9, 2**41, 2**62]
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            for interval in intervals:
                page.lane(0)[1] = 1
                with mock.patch.object(_heartbeat, "monotonic_ns", return_value=interval + 1):
                    earlier = page.histogram(0)
                    heartbeat.beat()
                counted = [number for number, count in enumerate(page.histogram(0)) if count != earlier[number]]
                self.assertEqual(counted, [_heartbeat.bucket(interval)], interval)

    def test_the_trace_keeps_the_last_marks_and_the_pace(self):
        start = 5_000_000_000_000
        times = [start + number * 10_000_000 for number in range(100)]
        times += [times[-1] + 40_000_000_000, times[-1] + 80_000_000_000]
        with Page() as page, mock.patch.object(_heartbeat, "monotonic_ns", side_effect=times):
            heartbeat = Heartbeat.from_fd(page.fd)
            for _ in range(100):
                heartbeat.beat()
            self.assertEqual(page.marks(0), [(time, 0) for time in times[36:100]])
            pace = page.pace(0)
            self.assertEqual(sum(beats for _, beats, _ in pace.values()), 100)
            self.assertEqual(set(pace), {time >> 27 & 255 for time in times[:100]})
            self.assertEqual({round_ for round_, _, _ in pace.values()}, {start >> 35})
            self.assertEqual({longest for _, _, longest in pace.values()}, {10_000})
            heartbeat.beat()
            late = times[100] >> 27
            self.assertEqual(page.pace(0)[late & 255], (late >> 8, 1, 0xFFFFFF), "at most 16.7 s are told")
            page.words[4672 + (times[101] >> 27 & 255)] = times[101] >> 35 << 44 | 0xFFFFF << 24 | 5
            heartbeat.beat()
            self.assertEqual(page.pace(0)[times[101] >> 27 & 255][1], 0xFFFFF, "a full count stays full")

    def test_a_page_full_of_anything_does_no_harm(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            for number in range(5, BYTES // 8):
                page.words[number] = 2**64 - 1
            heartbeat.beat()
            self.assertEqual(page.lane(0)[0], 0, "modulo 2^64")
            heartbeat.beat()
            with self.assertRaises(RuntimeError):
                heartbeat.lane("x")

    def test_two_heartbeats_of_one_process_go_on_counting(self):
        with Page() as page:
            first, second = Heartbeat.from_fd(page.fd), Heartbeat.from_fd(page.fd)
            for _ in range(3):
                first.beat()
                second.beat()
            self.assertEqual(page.lane(0)[0], 6)
            first.lane("a")
            second.lane("b")
            self.assertEqual((page.words[9], page.name(1), page.name(2)), (3, "a", "b"))


class Inert(unittest.TestCase):
    def test_without_supervision_all_calls_do_nothing(self):
        with mock.patch.dict(os.environ):
            os.environ.pop("MULTUS_HEARTBEAT_FD", None)
            heartbeat = Heartbeat.from_env()
        heartbeat.ready()
        heartbeat.beat()
        self.assertEqual((heartbeat.is_supervised, heartbeat.deadline, heartbeat.error), (False, None, None))
        with heartbeat.lane("x", deadline=1) as lane:
            lane.beat()
        self.assertIsNone(lane.deadline)

    def test_a_forked_process_is_inert(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            lane = heartbeat.lane("x")
            pid = os.fork()
            if pid == 0:
                heartbeat.beat()
                lane.beat()
                lane.close()
                os._exit(heartbeat.is_supervised or lane.is_supervised)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            self.assertEqual((page.lane(0)[0], page.lane(1)[0], page.lane(1)[3]), (0, 1, 0))
            heartbeat.beat()
            self.assertEqual(page.lane(0)[0], 1)


class Environment(unittest.TestCase):
    def test_the_page_is_found_and_kept_from_other_programs(self):
        with Page() as page, mock.patch.dict(os.environ, page.environment()):
            os.set_inheritable(page.fd, True)
            heartbeat = Heartbeat.from_env()
            self.assertTrue(heartbeat.is_supervised)
            self.assertEqual(heartbeat.deadline, 0.05)
            self.assertFalse(os.get_inheritable(page.fd))
            os.fstat(page.fd)

    def test_the_descriptor_may_be_closed_afterwards(self):
        page = Page()
        heartbeat = Heartbeat.from_fd(page.fd)
        os.close(page.fd)
        heartbeat.beat()
        self.assertEqual(page.lane(0)[0], 1)

    def test_what_is_no_descriptor_is_told_once_and_the_program_runs_on(self):
        reader, writer = os.pipe()
        os.close(writer)
        values = ("", "seven", "-1", "1", "7x", "٧", "99999999999", "654", str(reader))
        for value in values:
            message = io.StringIO()
            with mock.patch.dict(os.environ, {"MULTUS_HEARTBEAT_FD": value}), contextlib.redirect_stderr(message):
                heartbeat = Heartbeat.from_env()
                with self.assertRaises(PageError):
                    Heartbeat.try_from_env()
            heartbeat.beat()
            self.assertFalse(heartbeat.is_supervised)
            self.assertIn(heartbeat.error, message.getvalue())
            self.assertEqual(message.getvalue().count("\n"), 1, value)
        os.close(reader)

    def test_pages_of_something_else_are_refused_and_not_written(self):
        cases = {
            "not the expected page": Page(header=(7, *HEADER[1:])),
            "page layout version 2": Page(header=(HEADER[0], BYTES << 32 | 2, *HEADER[2:])),
            "16384 bytes": Page(header=(HEADER[0], 16384 << 32 | 1, *HEADER[2:])),
            "17 lanes": Page(header=(*HEADER[:3], 17, HEADER[4])),
            "65536 bytes are mapped": Page(length=65536),
            "a page of 0 bytes": Page(length=0, header=()),
            "a page of 1001 bytes": Page(length=1001, header=()),
            "not a sealed": Page(seals=fcntl.F_SEAL_GROW),
        }
        for reason, page in cases.items():
            with page, self.subTest(reason), self.assertRaisesRegex(PageError, reason):
                Heartbeat.from_fd(page.fd)


class Lanes(unittest.TestCase):
    def test_a_lane_has_name_deadline_and_beats(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            with heartbeat.lane("poller", deadline=0.005) as lane:
                self.assertEqual(page.words[9], 2)
                thread = threading.Thread(target=lambda: [lane.beat() for _ in range(10)])
                thread.start()
                thread.join()
                self.assertEqual((lane.deadline, page.lane(1)[4]), (0.005, 5_000_000))
                self.assertEqual(page.lane(1)[3], 0)
            self.assertEqual((page.name(1), page.lane(1)[0], page.lane(1)[3]), ("poller", 11, 1))
            lane.beat()
            lane.close()
            self.assertEqual((page.lane(1)[0], page.lane(0)[0]), (11, 0))
            self.assertEqual(heartbeat.lane("second").deadline, 0.05)

    def test_a_thread_that_dies_of_an_exception_stays_supervised(self):
        with Page() as page:
            lane = Heartbeat.from_fd(page.fd).lane("x")
            with self.assertRaises(ZeroDivisionError), lane:
                raise ZeroDivisionError
            self.assertEqual(page.lane(1)[3], 0)

    def test_sixteen_lanes_and_no_more_from_any_thread(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            refused = []

            def open_some():
                for _ in range(5):
                    try:
                        heartbeat.lane(threading.current_thread().name).beat()
                    except RuntimeError as error:
                        refused.append(str(error))

            threads = [threading.Thread(target=open_some) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(refused, ["all 16 lanes are taken"] * 5)
            self.assertEqual(page.words[9], 16)
            self.assertEqual([page.lane(lane)[0] for lane in range(16)], [0] + [2] * 15)

    def test_names_are_cut_between_characters(self):
        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            cases = {"x" * 40: "x" * 32, "x" * 31 + "ä": "x" * 31, "": "", "ä€🌀": "ä€🌀", "\ud800": "?"}
            for name, expected in cases.items():
                heartbeat.lane(name)
                self.assertEqual(page.name(page.words[9] - 1), expected)

    def test_a_deadline_that_is_none_is_refused(self):
        with Page() as page:
            for heartbeat in (Heartbeat.from_fd(page.fd), Heartbeat()):
                for deadline in (0, -1, 1e-12, 1e300, float("nan"), float("inf")):
                    with self.assertRaises((ValueError, OverflowError)):
                        heartbeat.lane("x", deadline=deadline)
            self.assertEqual(page.words[9], 0)


class Example(unittest.TestCase):
    def test_the_example_beats_in_two_lanes_and_ends_in_good_order(self):
        with Page() as page:
            result = run_example(["5"], env=page.environment(), pass_fds=[page.fd])
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn("INFO  supervised with a deadline of 0.05 s\n", result.stdout)
            self.assertEqual((page.words[8], page.words[9], page.lane(0)[0]), (1, 2, 6))
            self.assertEqual((page.name(1), page.lane(1)[3]), ("poller", 1))
            self.assertGreater(page.lane(1)[0], 1)

    def test_the_example_runs_by_hand(self):
        result = run_example(["1"], env=clean_environment())
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"(?m)^\d{4}-\d\d-\d\dT[\d:.]+Z INFO  not supervised$")


def run_example(arguments, **options):
    example = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "child.py")
    return subprocess.run([sys.executable, example, *arguments], capture_output=True, text=True, timeout=60, **options)


if __name__ == "__main__":
    unittest.main()
