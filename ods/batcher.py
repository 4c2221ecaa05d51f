"""Batches form by themselves: a lone record goes at once, a trickle at a pace, a flood in large pieces.

A pod that waits for each reply is answered in one round trip; a pod that does not would make a thousand requests a
second that way. So a batch begins when nothing is under way and its pod seems to wait, and otherwise 25 ms after the
one before it (100 ms while buffering), or when it is full.
"""

import time
from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

from ods import together
from ods.batch import Batch
from ods.chunk import Chunk
from ods.intake import Intake
from ods.supervisor import Supervisor

#: While a stream comes in, batches for InfluxDB begin at this pace. Seconds.
PACE_SECONDS = 0.025
#: The same for batches for the buffer, each of which makes a disk work. Seconds.
BUFFERING_PACE_SECONDS = 0.1
#: A batch this large does not wait for the pace, and grows no further. Bytes of line protocol.
FULL_BYTES = 512 * 1024
#: So much of what was read is decoded before a batch begins, so that no batch has more than a few milliseconds' work to
#: do first, in which nothing else goes on. Bytes.
PIECE_BYTES = 16 * 1024
#: This many batches are under way at once; one of them is taken in hand while the other travels.
UNDER_WAY = 2
#: After this many batches at once for a pod that seems to wait, one keeps the pace, to see whether it really does. It
#: is tried at twice the number each time that it does, up to the most.
URGENT_BATCHES, MOST_URGENT_BATCHES = 64, 1024


class Batcher:
    """Takes chunks, hands on batches: `keep` gets each in a greenlet of its own and returns when it is settled."""

    def __init__(
        self, *, keep: Callable[[Batch], None], is_buffering: Callable[[], bool], supervisor: Supervisor
    ) -> None:
        self._keep = keep
        self._is_buffering = is_buffering
        self._supervisor = supervisor
        self._open: deque[Chunk] = deque()
        self._open_bytes = 0
        self._expected: dict[Intake, None] = {}
        self._expected_bytes = 0
        self._is_urgent = False
        self._urgent_batches = self._urgent_left = URGENT_BATCHES
        self._under_way = 0
        #: How many batches have their fate.
        self.settled = 0
        self._began = float("-inf")
        self._changed = Event()
        self._is_stopping = False

    def start(self) -> None:
        """Begin to form batches."""
        self._supervisor.spawn("batcher", self._form)

    def put(self, chunk: Chunk) -> None:
        """Take a chunk over. Never waits."""
        is_full = self._open_bytes < FULL_BYTES <= self._open_bytes + len(chunk.lines)
        if is_full or not self._has_news:
            self._changed.set()
        self._open.append(chunk)
        self._open_bytes += len(chunk.lines)

    def expect(self, intake: Intake, size_bytes: int, *, urgent: bool) -> None:
        """So much more waits to be decoded: have this intake flushed before the next batch begins; it will `put`.

        `urgent`: somebody seems to wait for it.
        """
        if not self._has_news or (urgent and not self._is_urgent):
            self._changed.set()
        self._expected[intake] = None
        self._is_urgent = self._is_urgent or urgent
        self._expected_bytes += size_bytes
        if self._expected_bytes >= PIECE_BYTES:
            self._flush_expected()

    @property
    def has_work(self) -> bool:
        """Whether anything waits for its batch or is under way."""
        return self._has_news or bool(self._under_way)

    @property
    def _has_news(self) -> bool:
        return bool(self._open or self._expected)

    def stop(self, patience_seconds: float) -> None:
        """Hand on what was taken over, and wait until it is settled."""
        self._is_stopping = True
        self._changed.set()
        deadline = time.monotonic() + patience_seconds
        while (self._has_news or self._under_way) and time.monotonic() < deadline:
            gevent.sleep(0.01)

    def _form(self) -> None:
        while True:
            while not self._has_news or (wait := self._seconds_to_begin(time.monotonic())) > 0:
                self._changed.clear()
                self._changed.wait(wait if self._has_news else None)
            batch = self._seal()
            if batch is not None:
                self._under_way += 1
                self._supervisor.spawn("batch", self._keep, batch).link(self._settled)

    def _seconds_to_begin(self, now: float) -> float:
        """How long the open batch has to wait for its turn; 0 when it is there."""
        if self._under_way >= UNDER_WAY:
            return 1.0  # a batch that ends says so
        if self._open_bytes >= FULL_BYTES or self._is_stopping:
            return 0.0
        if self._is_urgent and self._urgent_left and not self._under_way:
            return 0.0
        pace_seconds = BUFFERING_PACE_SECONDS if self._is_buffering() else PACE_SECONDS
        return max(0.0, self._began + pace_seconds - now)

    def _seal(self) -> Batch | None:
        """The next batch; None when what was read holds no record yet."""
        is_urgent, self._is_urgent = self._is_urgent, False
        self._flush_expected()
        if not self._open:
            return None
        now = time.monotonic()
        self._count_urgent(is_urgent, keeps_pace=now - self._began >= PACE_SECONDS)
        self._began = now
        chunks: list[Chunk] = []
        size_bytes = 0
        while self._open and (size_bytes < FULL_BYTES or not chunks):
            chunks.append(self._open.popleft())
            size_bytes += len(chunks[-1].lines)
        self._open_bytes -= size_bytes
        return Batch(chunks)

    def _flush_expected(self) -> None:
        """Have what was read put in. Whoever runs this may be some pod's greenlet, which must not pay for an error."""
        expected, self._expected, self._expected_bytes = self._expected, {}, 0
        try:
            together.flush(expected)
        except Exception as error:  # noqa: BLE001 - it takes the service down
            self._supervisor.fail("batcher", error)

    def _count_urgent(self, is_urgent: bool, *, keeps_pace: bool) -> None:
        if not is_urgent:
            self._urgent_batches = URGENT_BATCHES
        elif keeps_pace and not self._urgent_left:
            self._urgent_batches = min(2 * self._urgent_batches, MOST_URGENT_BATCHES)
        self._urgent_left = self._urgent_batches if keeps_pace else self._urgent_left - 1

    def _settled(self, batch: gevent.Greenlet) -> None:
        self._under_way -= 1
        self.settled += 1
        self._changed.set()
