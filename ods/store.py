"""The store manager: every point gets exactly one fate.

Chunks come in one by one and are written to InfluxDB in batches that form by themselves. A batch that InfluxDB does not
confirm in time is committed to the buffer and answered, while its request runs on; only a failure begins an outage, and
during one batches go straight to the buffer. What neither store takes is dropped, counted and refused. Each store is
enough: nothing here waits for the one in order to use the other.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

from ods.availability import Availability
from ods.batch import Batch
from ods.buffer import Buffer
from ods.chunk import Chunk
from ods.errors import BufferUnavailable, InfluxError, Rejected, Unavailable
from ods.influx import Influx
from ods.ledger import Fate, Ledger
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: While a stream comes in, writes to InfluxDB begin at this pace. Seconds.
PACE_SECONDS = 0.025
#: The same for commits to the buffer, each of which makes a disk work. Seconds.
BUFFERING_PACE_SECONDS = 0.1
#: A batch this large does not wait for the pace, and grows no further. Bytes of line protocol.
FULL_BYTES = 512 * 1024
#: A point that InfluxDB has not confirmed this long after it was read is committed to the buffer. Seconds.
PATIENCE_SECONDS = 0.25
#: This many batches that replies wait for are under way at once.
PROMPT_WRITES = 2
#: This many requests of batches that are in the buffer already may run on besides.
OVERDUE_WRITES = 8
#: After this many writes at once for a pod that seems to wait, one keeps the pace, to see whether it really does.
URGENT_WRITES = 64


class StoreManager:
    """Takes chunks, decides their fate. `backlog_grew` is called when the buffer has something to drain."""

    def __init__(
        self,
        *,
        influx: Influx,
        buffer: Buffer,
        buffer_worker: Worker,
        availability: Availability,
        ledger: Ledger,
        supervisor: Supervisor,
        backlog_grew: Callable[[], None],
    ) -> None:
        self._influx = influx
        self._buffer = buffer
        self._worker = buffer_worker
        self._availability = availability
        self._ledger = ledger
        self._supervisor = supervisor
        self._backlog_grew = backlog_grew
        self._database = influx.settings.database
        self._open: deque[Chunk] = deque()
        self._open_bytes = 0
        self._is_urgent = False
        self._urgent_left = URGENT_WRITES
        self._changed = Event()
        self._began = float("-inf")
        self._prompt = 0
        self._overdue = 0
        self._is_stopping = False
        self._buffer_trouble = ""

    def start(self) -> None:
        """Begin to store."""
        self._supervisor.spawn("store manager", self._form)

    def put(self, chunk: Chunk) -> None:
        """Take a chunk over. Never waits."""
        if chunk.fate is not Fate.IN_FLIGHT:
            return
        is_news = not self._open or self._open_bytes < FULL_BYTES <= self._open_bytes + len(chunk.lines)
        self._open.append(chunk)
        self._open_bytes += len(chunk.lines)
        if chunk.urgent and not self._is_urgent:
            self._is_urgent = is_news = True
        if is_news:
            self._changed.set()

    def stop(self, patience_seconds: float) -> None:
        """Store what was taken over; what is not confirmed by then is in the buffer."""
        self._is_stopping = True
        self._changed.set()
        deadline = time.monotonic() + patience_seconds
        while (self._open or self._prompt) and time.monotonic() < deadline:
            gevent.sleep(0.01)

    def _form(self) -> None:
        while True:
            while not self._open or (wait := self._seconds_to_begin(time.monotonic())) > 0:
                self._changed.clear()
                self._changed.wait(wait if self._open else None)
            batch = self._seal()
            self._prompt += 1
            self._supervisor.spawn("batch", self._keep, batch).link(self._kept)

    def _seconds_to_begin(self, now: float) -> float:
        """How long the open batch has to wait for its turn; 0 when it is there."""
        is_available = self._availability.is_available
        if self._prompt >= PROMPT_WRITES:
            return 1.0  # a write that ends says so
        if self._open_bytes >= FULL_BYTES or self._is_stopping:
            return 0.0
        if not self._prompt and self._is_urgent and self._urgent_left:
            return 0.0
        pace_seconds = PACE_SECONDS if is_available else BUFFERING_PACE_SECONDS
        return max(0.0, self._began + pace_seconds - now)

    def _seal(self) -> Batch:
        now = time.monotonic()
        self._urgent_left = self._urgent_left - 1 if now - self._began < PACE_SECONDS else URGENT_WRITES
        self._began = now
        chunks: list[Chunk] = []
        size_bytes = 0
        while self._open and (size_bytes < FULL_BYTES or not chunks):
            chunks.append(self._open.popleft())
            size_bytes += len(chunks[-1].lines)
        self._open_bytes -= size_bytes
        self._is_urgent = self._is_urgent and bool(self._open)
        return Batch(chunks)

    def _kept(self, writer: gevent.Greenlet) -> None:
        self._prompt -= 1
        self._changed.set()

    def _keep(self, batch: Batch) -> None:
        """Give a batch its fate; returns when the replies of its chunks can be sent."""
        if not batch.lines:
            batch.settle(Fate.STORED)
        elif not self._availability.is_available or self._overdue >= OVERDUE_WRITES:
            self._commit(batch)
        else:
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        request = self._supervisor.spawn("request", self._request, batch)
        try:
            error = request.get(timeout=max(0.0, batch.read_at + PATIENCE_SECONDS - time.monotonic()))
        except gevent.Timeout:
            self._overdue += 1
            row_id = self._commit(batch, or_drop=False)
            request.link(lambda ended: self._finish_overdue(ended.value, batch, row_id))
        else:
            self._conclude(error, batch)

    def _request(self, batch: Batch) -> InfluxError | None:
        """Write to InfluxDB; returns the error, so that a late one is not lost."""
        began = time.monotonic()
        try:
            self._influx.write(batch.lines, database=self._database)
        except Unavailable as error:
            self._availability.failed(began, error)
            return error
        except Rejected as error:
            self._availability.confirmed(began)
            return error
        self._availability.confirmed(began)
        return None

    def _conclude(self, error: InfluxError | None, batch: Batch) -> None:
        """InfluxDB has answered a batch that is nowhere else."""
        if error is None:
            self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.STORED)
            batch.settle(Fate.STORED)
        else:
            self._commit(batch, rejected=error.reason if isinstance(error, Rejected) else None)

    def _finish_overdue(self, error: InfluxError | None, batch: Batch, row_id: int | None) -> None:
        """InfluxDB has answered a batch that is in the buffer already, or could not be put there."""
        self._overdue -= 1
        if row_id is None:
            self._supervisor.spawn("late answer", self._conclude, error, batch)
        else:
            self._supervisor.spawn("late answer", self._resolve, error, row_id)

    def _resolve(self, error: InfluxError | None, row_id: int) -> None:
        try:
            if error is None:
                self._ledger.move(self._worker.run(self._buffer.delete, [row_id]), Fate.PENDING, Fate.STORED)
            elif isinstance(error, Rejected):
                self._worker.run(self._buffer.mark_rejected, [row_id], error.reason)
        except BufferUnavailable as trouble:
            log.debug("buffer: row %d is left to the drain: %s", row_id, trouble.reason)
        self._worker.run(self._buffer.release, row_id)
        self._backlog_grew()
        self._changed.set()

    def _commit(self, batch: Batch, *, rejected: str | None = None, or_drop: bool = True) -> int | None:
        """Put a batch into the buffer; returns its row, which is claimed unless it is final."""
        try:
            row_id = self._worker.run(
                self._buffer.append,
                batch.lines,
                database=self._database,
                pods=batch.pods,
                first_ns=batch.first_ns,
                rejected=rejected,
                is_claimed=not or_drop,
            )
        except BufferUnavailable as error:
            self._say_trouble(error.reason)
            if or_drop:
                self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.DROPPED)
                batch.settle(Fate.DROPPED)
            return None
        self._say_trouble("")
        self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.PENDING)
        batch.settle(Fate.PENDING)
        self._backlog_grew()
        return row_id

    def _say_trouble(self, reason: str) -> None:
        if reason and not self._buffer_trouble:
            log.error("buffer: takes nothing: %s; while InfluxDB is away too, points are dropped and refused", reason)
        elif self._buffer_trouble and not reason:
            log.info("buffer: takes points again; %d points were dropped", self._ledger.totals().dropped)
        self._buffer_trouble = reason

    @property
    def is_dropping(self) -> bool:
        """Whether the last batch found room in neither store."""
        return bool(self._buffer_trouble) and not self._availability.is_available
