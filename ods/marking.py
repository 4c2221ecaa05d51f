"""Notes the marks of an operator while ODS runs: as points and as rows of the recordings, on the way that records take.

A mark is in the recordings before it is in a store, and is answered once a store has it, as a record is. It is one of
ODS's own events, so the ledger does not count it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from gevent.event import AsyncResult

from ods.chunk import Chunk
from ods.clock import Clock
from ods.encoder import encode
from ods.ledger import Fate
from ods.pods import Pod
from ods.protocol import MarkText

log = logging.getLogger(__name__)

#: How long an answer may take; a mark that has no fate by then is on its way still. Seconds.
PATIENCE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of a mark: IN_FLIGHT where that is not known yet."""

    time_ns: int
    fate: Fate


class Marking:
    """Makes marks of the pod `ods` and passes them on. Belongs to the hub."""

    def __init__(self, *, clock: Clock, ods: Pod, forward: Callable[[Chunk], None]) -> None:
        self._clock = clock
        self._ods = ods
        self._forward = forward
        self._in_flight: dict[int, Chunk] = {}

    @property
    def oldest_ns(self) -> int | None:
        """The time of the oldest mark without a fate; None where there is none."""
        return min(self._in_flight, default=None)

    def note(self, text: str) -> Noted:
        """Note this moment; waits until a store has it, for a moment at most. `text` is as `ods.marks` has it."""
        log.info("mark: %r", text)
        chunk = self._chunk(text)
        settled = AsyncResult()
        chunk.on_settled = lambda: settled.set(self._in_flight.pop(chunk.first_ns, None))
        self._in_flight[chunk.first_ns] = chunk
        self._forward(chunk)
        settled.wait(PATIENCE_SECONDS)
        return Noted(chunk.first_ns, chunk.fate)

    def _chunk(self, text: str) -> Chunk:
        (time_ns,) = self._ods.take_times(self._clock.now_ns(), 1)
        encoded = encode([MarkText(text)], self._ods.tag, [str(time_ns)])
        return Chunk(
            pod=self._ods.name,
            points=encoded.points,
            lines=encoded.lines,
            log_rows=encoded.log_rows,
            first_ns=time_ns,
            last_ns=time_ns,
            received_at=time.monotonic(),
        )
