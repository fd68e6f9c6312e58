"""The frame around a supervised program."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from ._heartbeat import Heartbeat

if TYPE_CHECKING:
    from types import FrameType, TracebackType

Result = TypeVar("Result")


class supervised:
    """The heartbeat of this process for a block, or for a function that gets it as its first argument:

        with supervised() as heartbeat:        @supervised()
            ...                                def main(heartbeat): ...

    *Ready* is never said for you, since only the program knows when its set-up is done: call `heartbeat.ready()`, or
    just beat; the first beat counts as ready.

    multusd asks for an end by SIGTERM, of which Python would die without clean-up. Within the block it raises
    SystemExit(0) instead, so `finally` and `with` do their work; a second SIGTERM kills. `sigterm=False` leaves SIGTERM
    alone, as happens for a program with a handler of its own and outside the main thread.

    An exception leaves the block as it is: uncaught, it ends the process, which is a crash that multusd sees. After the
    block the process still is supervised; one that goes on must go on beating.
    """

    def __init__(self, *, sigterm: bool = True) -> None:
        self._sigterm = sigterm
        self._handles_sigterm = False

    def __enter__(self) -> Heartbeat:
        heartbeat = Heartbeat.from_env()
        if (
            self._sigterm
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _exit_in_good_order)
            self._handles_sigterm = True
        return heartbeat

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._handles_sigterm:
            self._handles_sigterm = False
            if signal.getsignal(signal.SIGTERM) is _exit_in_good_order:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __call__(self, function: Callable[..., Result]) -> Callable[..., Result]:
        if inspect.iscoroutinefunction(function):
            raise TypeError("supervised() frames a plain function; call asyncio.run() inside of it")

        @functools.wraps(function)
        def with_heartbeat(*arguments: Any, **keywords: Any) -> Result:
            with supervised(sigterm=self._sigterm) as heartbeat:
                return function(heartbeat, *arguments, **keywords)

        return with_heartbeat


def _exit_in_good_order(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(0)
