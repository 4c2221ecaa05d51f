"""ODS's own events as points: pod connected, disconnected, outage begun, ended. Best effort, and not in the ledger."""

import time
from collections.abc import Callable

from ods.chunk import Chunk
from ods.clock import Clock
from ods.line_protocol import event_line
from ods.pods import Pod


class Events:
    """Turns what happened into points and passes them on to the store."""

    def __init__(self, *, clock: Clock, forward: Callable[[Chunk], None]) -> None:
        self._clock = clock
        self._forward = forward

    def emit(self, pod: Pod, event: str, detail: str) -> bytes:
        """Note an event of a pod, as of now; returns its line."""
        return self.emit_at(pod, event, detail, pod.take_times(self._clock.now_ns(), 1)[0])

    def emit_at(self, pod: Pod, event: str, detail: str, time_ns: int) -> bytes:
        """Note what happened to a pod with the record of this time, which no other such event has."""
        lines = event_line(event, detail, pod.tag, time_ns).encode()
        now = time.monotonic()
        self._forward(Chunk(pod=pod.name, points=0, lines=lines, first_ns=time_ns, last_ns=time_ns, received_at=now))
        return lines
