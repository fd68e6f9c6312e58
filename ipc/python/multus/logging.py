"""Logging the way multusd expects it: one line for each record, information on standard output, warnings and errors on
standard error. multusd takes both, adds the time and keeps the files; by hand in a terminal the time is added here.

    import logging
    import multus.logging

    multus.logging.setup()
    logging.info("pump %s started", 3)
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Optional, TextIO, Union

ENV_LEVEL = "MULTUS_LOG_LEVEL"
ENV_NAME = "MULTUS_NAME"

#: The words of MULTUS_LOG_LEVEL.
LEVELS = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": 1,
}


def setup(level: Optional[Union[int, str]] = None) -> None:
    """Sets up the root logger, in place of what it had. The level is a number of `logging`, a word of `LEVELS`, or by
    default what MULTUS_LOG_LEVEL says; without it: info."""
    number, complaint = _level(os.environ.get(ENV_LEVEL, "info") if level is None else level, level is None)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.addHandler(LineHandler(add_time=ENV_NAME not in os.environ))
    root.setLevel(number)
    if complaint:
        root.warning(complaint)


class LineFormatter(logging.Formatter):
    """A record as one line: level, text. A traceback follows on lines of its own, each set in under its record, so that
    it stays readable and no line of it looks like a record."""

    def __init__(self, add_time: bool) -> None:
        super().__init__()
        self._add_time = add_time

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_word(record.levelno):5} {text}"
        if self._add_time:
            line = f"{_rfc3339(record.created)} {line}"
        details = []
        if record.exc_info and record.exc_info[0] is not None:
            details.append(self.formatException(record.exc_info))
        elif record.exc_text:
            details.append(record.exc_text)
        if record.stack_info:
            details.append(self.formatStack(record.stack_info))
        return "\n      ".join([line, *(line for detail in details for line in detail.splitlines())])


class LineHandler(logging.Handler):
    """Writes a record at once, warnings and above to standard error, the rest to standard output."""

    def __init__(self, add_time: bool) -> None:
        super().__init__()
        self.setFormatter(LineFormatter(add_time))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream: Optional[TextIO] = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
            if stream is not None:
                stream.write(self.format(record) + "\n")
                stream.flush()
        except RecursionError:
            raise
        except OSError:
            pass  # A log that cannot be written must not stop the work.
        except Exception:
            self.handleError(record)


def _level(level: Union[int, str], from_environment: bool) -> tuple[int, Optional[str]]:
    if isinstance(level, int):
        return level, None
    number = LEVELS.get(level.lower())
    if number is not None:
        return number, None
    words = ", ".join(LEVELS)
    if not from_environment:
        raise ValueError(f"the level {level!r} is not one of {words}")
    return logging.INFO, f"{ENV_LEVEL} is not one of {words}; using info"


def _word(number: int) -> str:
    for word in ("error", "warn", "info", "debug"):
        if number >= LEVELS[word]:
            return word.upper()
    return "TRACE"


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06}Z"
