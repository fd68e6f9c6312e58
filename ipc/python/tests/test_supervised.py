import os
import signal
import subprocess
import sys
import textwrap
import unittest
from unittest import mock

from multus import supervised
from tests.page import Page, clean_environment


def python(code, **options):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


class Supervised(unittest.TestCase):
    def test_a_block_gets_the_heartbeat_and_ready_is_not_said_for_it(self):
        with Page() as page, mock.patch.dict(os.environ, page.environment()):
            with supervised() as heartbeat:
                self.assertEqual((page.lane(0)[0], page.words[8]), (0, 0))
                heartbeat.beat()
            self.assertEqual((page.lane(0)[0], page.words[8], page.lane(0)[3]), (1, 0, 0))

    def test_a_function_gets_the_heartbeat_as_its_first_argument(self):
        @supervised()
        def work(heartbeat, turns, *, step):
            """Documented."""
            heartbeat.ready()
            for _ in range(0, turns, step):
                heartbeat.beat()
            return "done"

        with Page() as page, mock.patch.dict(os.environ, page.environment()):
            self.assertEqual(work(4, step=2), "done")
            self.assertEqual(page.lane(0)[0], 3)
        self.assertEqual((work.__name__, work.__doc__), ("work", "Documented."))

    def test_a_coroutine_function_is_refused_at_once(self):
        async def work(heartbeat):
            pass

        with self.assertRaises(TypeError):
            supervised()(work)

    def test_exceptions_pass_and_the_signal_handler_is_put_back(self):
        with self.assertRaises(ZeroDivisionError), supervised():
            self.assertNotEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
            raise ZeroDivisionError
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_a_handler_of_the_program_is_left_alone(self):
        def own(number, frame):
            pass

        signal.signal(signal.SIGTERM, own)
        try:
            with supervised():
                self.assertIs(signal.getsignal(signal.SIGTERM), own)
            self.assertIs(signal.getsignal(signal.SIGTERM), own)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with supervised(sigterm=False):
            self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_sigterm_ends_the_block_with_clean_up(self):
        process = python(
            """
            import time
            from multus import supervised
            with supervised():
                try:
                    print("working", flush=True)
                    time.sleep(60)
                finally:
                    print("cleaned up")
            """,
            env=clean_environment(),
        )
        self.assertEqual(process.stdout.readline(), "working\n")
        process.terminate()
        self.assertEqual((*process.communicate(timeout=60), process.returncode), ("cleaned up\n", "", 0))

    def test_a_second_sigterm_ends_a_clean_up_that_hangs(self):
        process = python(
            """
            import time
            from multus import supervised
            with supervised():
                try:
                    print("working", flush=True)
                    time.sleep(60)
                finally:
                    print("cleaning up", flush=True)
                    time.sleep(60)
            """,
            env=clean_environment(),
        )
        self.assertEqual(process.stdout.readline(), "working\n")
        process.terminate()
        self.assertEqual(process.stdout.readline(), "cleaning up\n")
        process.terminate()
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, -signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
