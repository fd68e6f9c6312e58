import asyncio
import time
import unittest
import unittest.mock

from multus import Heartbeat
from multus.aio import beat_from_loop
from tests.page import HEADER, Page

SHORT = 0.002


class BeatFromLoop(unittest.TestCase):
    def test_a_free_loop_beats_and_a_blocked_one_does_not(self):
        async def work():
            beat_from_loop(heartbeat, SHORT)
            while page.lane(0)[0] < 5:
                await asyncio.sleep(SHORT)
            before = page.lane(0)[0]
            time.sleep(20 * SHORT)  # blocks the loop
            during = page.lane(0)[0]
            while page.lane(0)[0] < during + 3:
                await asyncio.sleep(SHORT)
            return before, during

        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            before, during = asyncio.run(work())
            self.assertEqual(before, during)
            self.assertGreaterEqual(page.lane(0)[2], 20 * SHORT * 1e9, "the longest interval shows it")

    def test_the_interval_comes_from_the_deadline(self):
        async def intervals(*writers):
            slept = []

            async def sleep(seconds):
                slept.append(seconds)
                await asyncio.Event().wait()

            with unittest.mock.patch("asyncio.sleep", sleep):
                tasks = [beat_from_loop(writer) for writer in writers]
                while len(slept) < len(tasks):
                    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=SHORT)
                for task in tasks:
                    task.cancel()
            return slept

        with Page() as page, Page(header=(*HEADER[:4], 0)) as unlimited:
            heartbeat = Heartbeat.from_fd(page.fd)
            lanes = [heartbeat.lane("x", deadline=0.8), heartbeat.lane("y")]
            without = [Heartbeat.from_fd(unlimited.fd), Heartbeat()]
            self.assertEqual(asyncio.run(intervals(heartbeat, *lanes, *without)), [0.0125, 0.2, 0.0125, 0.25, 0.25])

    def test_a_cancelled_task_beats_no_more(self):
        async def work():
            task = beat_from_loop(heartbeat, SHORT)
            while page.lane(0)[0] == 0:
                await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            # A task that has ended runs no more, so neither does its beat.
            self.assertTrue(task.done())
            self.assertEqual([t for t in asyncio.all_tasks() if t is not asyncio.current_task()], [])

        with Page() as page:
            heartbeat = Heartbeat.from_fd(page.fd)
            asyncio.run(work())

    def test_nonsense_is_refused(self):
        async def work():
            for interval in (0, -1, float("nan")):
                with self.assertRaises(ValueError):
                    beat_from_loop(Heartbeat(), interval)

        asyncio.run(work())
        with self.assertRaises(RuntimeError):
            beat_from_loop(Heartbeat(), 1)


if __name__ == "__main__":
    unittest.main()
