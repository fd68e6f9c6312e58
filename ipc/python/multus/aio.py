"""Heartbeats of programs that are built on asyncio."""

from __future__ import annotations

import asyncio
from typing import Optional, Union

from ._heartbeat import Heartbeat, Lane

#: Seconds between beats where there is no deadline to go by.
DEFAULT_INTERVAL = 0.25

# The event loop itself keeps only weak references to its tasks.
_tasks: set[asyncio.Task[None]] = set()


def beat_from_loop(heartbeat: Union[Heartbeat, Lane], interval: Optional[float] = None) -> asyncio.Task[None]:
    """Beats from the running event loop every `interval` seconds, by default four times within the deadline. Whatever
    blocks the loop stops the beats, and is a hang.

    This shows that the loop turns, not that a certain task gets on: a task that waits for ever goes unnoticed. Where
    one task is the work, call `heartbeat.beat()` in it, or give it a lane.

    The first beat comes with the next turn of the loop and counts as ready, so call this when set-up is done. The beats
    end when the task that this returns is cancelled, or with the loop.
    """
    if interval is None:
        deadline = heartbeat.deadline
        interval = DEFAULT_INTERVAL if deadline is None else deadline / 4
    if not interval > 0:
        raise ValueError(f"an interval of {interval} s")
    task = asyncio.get_running_loop().create_task(_beat_for_ever(heartbeat, interval), name="multus heartbeat")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def _beat_for_ever(heartbeat: Union[Heartbeat, Lane], interval: float) -> None:
    while True:
        heartbeat.beat()
        await asyncio.sleep(interval)
