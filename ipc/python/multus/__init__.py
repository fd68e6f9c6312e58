"""Heartbeats, inputs and outputs for programs that multusd supervises.

    from multus import supervised

    with supervised() as heartbeat:
        set_up()
        heartbeat.ready()
        while work():
            heartbeat.beat()

Beat from the loop that does the work, at least twice within the deadline; a thread that only beats proves nothing. In a
process that nobody supervises all calls do nothing, so the program runs by hand as it is.

`Io` is the process image: inputs, outputs, and waiting for their changes.

`multus.aio` beats from an asyncio event loop, `multus.logging` sets up logging the way multusd expects it.
"""

from ._checkpoint import Checkpoint
from ._heartbeat import Heartbeat, Lane, PageError
from ._io import Io, IoError, Line, NotSet, Output, Reading
from ._supervised import supervised

__all__ = [
    "Checkpoint",
    "Heartbeat",
    "Io",
    "IoError",
    "Lane",
    "Line",
    "NotSet",
    "Output",
    "PageError",
    "Reading",
    "supervised",
]
__version__ = "0.1.0"
