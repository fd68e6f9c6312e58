import contextlib
import io
import logging
import os
import unittest
from unittest import mock

import multus.logging


class Logging(unittest.TestCase):
    def setUp(self):
        root = logging.getLogger()
        before = list(root.handlers), root.level
        self.addCleanup(lambda: (setattr(root, "handlers", before[0]), root.setLevel(before[1])))
        root.handlers = []

    def lines(self, act, level=None, **environment):
        """What `act` writes to standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for name in {"MULTUS_NAME", "MULTUS_LOG_LEVEL"} - set(environment):
                os.environ.pop(name, None)
            multus.logging.setup(level)
            act()
        return out.getvalue(), err.getvalue()

    def test_a_record_is_one_line_and_warnings_go_to_standard_error(self):
        def act():
            logging.debug("unseen")
            logging.info("pump %s\nstarted", 3)
            logging.warning("hot")
            logging.critical("very hot")

        out, err = self.lines(act, MULTUS_NAME="pump")
        self.assertEqual(out, "INFO  pump 3\\nstarted\n")
        self.assertEqual(err, "WARN  hot\nERROR very hot\n")

    def test_by_hand_lines_carry_the_time(self):
        out, _ = self.lines(lambda: logging.info("x"))
        self.assertRegex(out, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z INFO  x\n$")

    def test_a_traceback_is_set_in_under_its_record(self):
        def act():
            try:
                raise ValueError("two\nlines")
            except ValueError:
                logging.exception("failed")

        out, err = self.lines(act, MULTUS_NAME="pump")
        lines = err.splitlines()
        self.assertEqual((out, lines[0]), ("", "ERROR failed"))
        self.assertEqual(lines[1], "      Traceback (most recent call last):")
        self.assertTrue(all(line.startswith("      ") for line in lines[1:]))
        self.assertEqual(lines[-2:], ["      ValueError: two", "      lines"])

    def test_the_level_comes_from_the_environment_or_the_program(self):
        def act():
            logging.log(1, "trace")
            logging.debug("debug")
            logging.error("error")

        self.assertEqual(self.lines(act, MULTUS_NAME="x", MULTUS_LOG_LEVEL="TRACE")[0], "TRACE trace\nDEBUG debug\n")
        self.assertEqual(self.lines(act, MULTUS_NAME="x", MULTUS_LOG_LEVEL="debug")[0], "DEBUG debug\n")
        self.assertEqual(self.lines(act, MULTUS_NAME="x", MULTUS_LOG_LEVEL="off"), ("", ""))
        by_program = self.lines(act, level=logging.DEBUG, MULTUS_NAME="x", MULTUS_LOG_LEVEL="off")
        self.assertEqual(by_program[0], "DEBUG debug\n")
        out, err = self.lines(act, MULTUS_NAME="x", MULTUS_LOG_LEVEL="loud")
        self.assertEqual((out, err.splitlines()[1]), ("", "ERROR error"))
        self.assertIn("WARN  MULTUS_LOG_LEVEL is not one of off, error,", err)
        with self.assertRaises(ValueError):
            multus.logging.setup("loud")

    def test_a_second_set_up_replaces_the_first(self):
        def act():
            multus.logging.setup()
            logging.info("once")

        self.assertEqual(self.lines(act, MULTUS_NAME="x")[0], "INFO  once\n")

    def test_a_log_that_cannot_be_written_does_not_stop_the_work(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            multus.logging.setup()
            with contextlib.redirect_stdout(full), contextlib.redirect_stderr(full):
                logging.info("x")
                logging.warning("x")
            with contextlib.suppress(OSError):
                full.close()


if __name__ == "__main__":
    unittest.main()
