"""Between a connection and the stores: bytes are decoded, given their times, encoded once, and answered in order.

One `Intake` a connection. It knows no socket: bytes come in by `receive`, replies go out by the function it was given.
The replies to a chunk are sent when the chunk and all before it are settled.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from ods.admission import Admission
from ods.chunk import Chunk, settle
from ods.clock import Clock
from ods.ledger import Fate, Ledger
from ods.line_protocol import data_lines, log_line
from ods.pods import Pod
from ods.protocol import DataPoints, Decoded, Decoder, LogMessage, NoRecord, replies_when_dropped, replies_when_kept
from ods.recording import data_rows, log_row

log = logging.getLogger(__name__)

#: A pod whose next line follows its reply within this time seems to wait for its replies. Seconds.
TURNAROUND_SECONDS = 0.025
#: How long a pod that was seen not to wait is taken to be one that never does. Seconds.
STREAMING_SECONDS = 1.0


class Intake:
    """What ODS knows of one connection besides its socket."""

    def __init__(
        self,
        *,
        pod: Pod,
        clock: Clock,
        ledger: Ledger,
        admission: Admission,
        forward: Callable[[Chunk], None],
        reply: Callable[[bytes], None],
    ) -> None:
        self.pod = pod
        self._clock = clock
        self._ledger = ledger
        self._admission = admission
        self._forward = forward
        self._reply = reply
        self._decoder = Decoder(pod.names)
        self._unsettled: deque[Chunk] = deque()
        self._streaming_until = 0.0
        self._replied_at = float("-inf")

    @property
    def is_settled(self) -> bool:
        """Whether nothing of this connection is in flight."""
        return not self._unsettled

    def receive(self, data: bytes) -> None:
        """Take bytes of the pod in. May pause for a moment near the limit of memory (`ods.admission`)."""
        self._take(self._decoder.feed(data))

    def finish(self) -> None:
        """The connection has ended: keep its last words, note a torn line."""
        self._take(self._decoder.finish())

    def _take(self, decoded: Decoded) -> None:
        if not decoded.records:
            return
        now = self.pod.last_seen = time.monotonic()
        chunk = self._encode(decoded, now)
        self._count(decoded, chunk.points)
        self._unsettled.append(chunk)
        if not self._admission.admit(self.pod.name, chunk.size_bytes):
            self._ledger.move({chunk.pod: chunk.points}, Fate.IN_FLIGHT, Fate.DROPPED)
            chunk.size_bytes = 0  # nothing to be released
            settle([chunk], Fate.DROPPED)
        self._forward(chunk)

    def _encode(self, decoded: Decoded, now: float) -> Chunk:
        records = decoded.records
        count = sum([len(record) if isinstance(record, DataPoints) else 1 for record in records])
        first_ns = self.pod.take_times(self._clock, count)
        times = [str(time_ns) for time_ns in range(first_ns, first_ns + count)]
        lines, data, logs, points = _encoded(records, self.pod.tag, times)
        return Chunk(
            pod=self.pod.name,
            points=points,
            lines=lines.encode(),
            data_rows=data.encode(),
            log_rows=logs.encode(),
            first_ns=first_ns,
            last_ns=first_ns + count - 1,
            replies=decoded.replies,
            urgent=self._seems_to_wait(now),
            received_at=now,
            on_settled=self._reply_to_settled,
        )

    def _seems_to_wait(self, now: float) -> bool:
        """Whether the pod waits for each reply: nothing of it is in flight and it follows its last reply at once."""
        if self._unsettled:
            self._streaming_until = now + STREAMING_SECONDS
        return now >= self._streaming_until and now - self._replied_at < TURNAROUND_SECONDS

    def _count(self, decoded: Decoded, points: int) -> None:
        self._ledger.receive(self.pod.name, points)
        counts = self._ledger.of(self.pod.name)
        for record in decoded.records:
            if isinstance(record, NoRecord):
                counts.torn += record.kind == "torn"
                counts.invalid += record.kind == "invalid"
        if self.pod.names.refused and not self.pod.warned_of_names:
            self.pod.warned_of_names = True
            limit = self.pod.names.limit
            log.warning("pod %s uses more than %d names; further ones are refused (--max-names)", self.pod.name, limit)

    def _reply_to_settled(self) -> None:
        replies = []
        while self._unsettled and self._unsettled[0].fate is not Fate.IN_FLIGHT:
            done = self._unsettled.popleft()
            if done.size_bytes:
                self._admission.release(done.pod, done.size_bytes)
            dropped = done.fate is Fate.DROPPED
            replies.append(replies_when_dropped(done.replies) if dropped else replies_when_kept(done.replies))
        if replies:
            self._replied_at = time.monotonic()
            self._reply(b"".join(replies))


def _encoded(records: Sequence[object], tag: str, times: list[str]) -> tuple[str, str, str, int]:
    """Line protocol, data rows, log rows, and how many points the first holds."""
    lines, data, logs, points, at = [], [], [], 0, 0
    for record in records:
        if isinstance(record, DataPoints):
            span = times[at : at + len(record)]
            lines.append(data_lines(record, tag, span))
            data.append(data_rows(record, span))
            points += len(span)
            at += len(span)
            continue
        if isinstance(record, LogMessage):
            lines.append(log_line(record, tag, times[at]))
            logs.append(log_row(times[at], "log", record.sent))
            points += 1
        elif isinstance(record, NoRecord):
            logs.append(log_row(times[at], record.kind, record.sent))
        at += 1
    return "".join(lines), "".join(data), "".join(logs), points
