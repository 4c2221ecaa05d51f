"""The store manager: every point gets exactly one fate.

A batch is written to InfluxDB. One that InfluxDB does not confirm in time is committed to the buffer and answered,
while its request runs on; only a failure begins an outage, and during one batches go straight to the buffer. What
neither store takes is dropped, counted and refused. Each store is enough: where one fails or hangs, the other decides.
"""

import logging
import time
from collections.abc import Callable

import gevent
from gevent.event import AsyncResult

from ods import failpoints
from ods.availability import Availability
from ods.batch import Batch
from ods.buffer import Buffer
from ods.errors import BufferUnavailable, InfluxError, Rejected, Suspect, Unavailable
from ods.influx import Influx
from ods.latency import Latency
from ods.ledger import Fate, Ledger
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: A point that InfluxDB has not confirmed this long after it was read is committed to the buffer. Seconds.
PATIENCE_SECONDS = 0.25
#: One that had to wait before it was sent is given this long all the same, while InfluxDB owes no other answer: where
#: ODS is what is slow, to commit what InfluxDB is about to confirm would make it slower. Seconds.
LEAST_PATIENCE_SECONDS = 0.15
#: This many requests of batches that are in the buffer already may run on.
OVERDUE_WRITES = 8

#: Stands for the answer to a batch that was not sent, and that the buffer did not take.
_NOT_SENT = Unavailable("it is away")


class StoreManager:
    """Takes batches, decides their fate. `backlog_grew` is called when the buffer has something to drain."""

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
        self._overdue = 0
        self._buffer_trouble = ""
        #: From the first read of a batch to its fate, by the store that it found.
        self.latency = {"influx": Latency(), "buffer": Latency()}

    def keep(self, batch: Batch) -> None:
        """Give a batch its fate; returns when that is done, and the replies of its chunks are on their way."""
        if not batch.lines:
            batch.settle(Fate.STORED)
            return
        request = self._send(batch) if self._is_to_be_sent else None
        if request is not None:
            request.join(max(self._least_patience_seconds, batch.read_at + PATIENCE_SECONDS - time.monotonic()))
            if request.ready():
                self._conclude(request.value, batch)
                return
            self._count_overdue(request)
        self._commit_meanwhile(batch, request)

    def try_keep(self, batch: Batch) -> bool:
        """Give a batch that nobody waits for its fate. False: neither store took it, and it is still in flight."""
        error = self._request(batch) if self._availability.is_available else _NOT_SENT
        if error is None:
            self._stored(batch)
            return True
        try:
            self._submit(batch, rejected=error.reason if isinstance(error, Rejected) else None).get()
        except BufferUnavailable as trouble:
            log.debug("buffer: took no batch that can wait: %s", trouble.reason)
            return False
        self._pending(batch)
        return True

    @property
    def _is_to_be_sent(self) -> bool:
        return self._availability.is_available and self._overdue < OVERDUE_WRITES

    @property
    def _least_patience_seconds(self) -> float:
        return 0.0 if self._overdue else LEAST_PATIENCE_SECONDS

    def _send(self, batch: Batch) -> gevent.Greenlet:
        return self._supervisor.spawn("request", self._request, batch)

    def _request(self, batch: Batch) -> InfluxError | None:
        """Write to InfluxDB; returns the error, so that a late one is not lost."""
        began = time.monotonic()
        try:
            self._influx.write(batch.lines, database=self._database)
        except Unavailable as error:
            self._availability.failed(began, error)
            return error
        except (Rejected, Suspect) as error:
            self._availability.confirmed(began)
            return error
        self._availability.confirmed(began)
        return None

    def _count_overdue(self, request: gevent.Greenlet) -> None:
        def ended(_: gevent.Greenlet) -> None:
            self._overdue -= 1

        self._overdue += 1
        request.link(ended)

    def _commit_meanwhile(self, batch: Batch, request: gevent.Greenlet | None) -> None:
        """Commit a batch that InfluxDB has not confirmed; what comes first decides, for either store may hang."""
        commit = self._submit(batch, is_claimed=request is not None)
        while not commit.ready():
            under_way = [] if request is None or request.ready() else [request]
            gevent.wait([commit, *under_way], timeout=PATIENCE_SECONDS, count=1)
            if commit.ready():
                break
            if request is not None and request.successful() and request.value is None:
                self._stored(batch)
                batch.forget()
                commit.rawlink(lambda done: self._take_back(done, batch))
                return
            if self._is_to_be_sent and (request is None or isinstance(request.value, Unavailable)):
                request = self._send(batch)
                self._count_overdue(request)
        row_id = self._committed(commit, batch)
        if request is not None:
            request.link(lambda ended: self._finish_overdue(ended, batch, row_id))
        elif row_id is None:
            self._conclude(self._request(batch) if self._availability.is_available else _NOT_SENT, batch)

    def _conclude(self, error: InfluxError | None, batch: Batch) -> None:
        """InfluxDB has answered, or was not asked, and the batch is nowhere else."""
        if error is None:
            self._stored(batch)
        elif error is _NOT_SENT or not self._commit(batch, error):
            self._ledger.lose(batch.pods, Fate.IN_FLIGHT)
            batch.settle(Fate.DROPPED)

    def _stored(self, batch: Batch) -> None:
        self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.STORED)
        self.latency["influx"].observe(time.monotonic() - batch.read_at)
        batch.settle(Fate.STORED)

    def _take_back(self, commit: AsyncResult, batch: Batch) -> None:
        """A batch was committed after InfluxDB had confirmed it."""
        if commit.successful() and commit.value is not None:
            self._ledger.move(batch.pods, Fate.STORED, Fate.PENDING)
            self._supervisor.spawn("late commit", self._resolve, None, commit.value)

    def _finish_overdue(self, ended: gevent.Greenlet, batch: Batch, row_id: int | None) -> None:
        """InfluxDB has answered a batch that is in the buffer already, or could not be put there."""
        if not ended.successful() or isinstance(ended.value, gevent.GreenletExit):
            return  # nothing is known of it: its row is left to the next start
        error: InfluxError | None = ended.value
        if row_id is None:
            self._supervisor.spawn("late answer", self._conclude, error, batch)
        else:
            self._supervisor.spawn("late answer", self._resolve, error, row_id)

    def _resolve(self, error: InfluxError | None, row_id: int) -> None:
        try:
            if error is None:
                failpoints.reach("confirmed")
                self._ledger.move(self._worker.run(self._buffer.delete, [row_id]), Fate.PENDING, Fate.STORED)
            elif isinstance(error, Rejected):
                self._worker.run(self._buffer.mark_rejected, [row_id], error.reason)
        except BufferUnavailable as trouble:
            log.debug("buffer: row %d is left to the drain: %s", row_id, trouble.reason)
        self._worker.run(self._buffer.release, row_id)
        self._backlog_grew()

    def _commit(self, batch: Batch, error: InfluxError) -> bool:
        """Put a batch that InfluxDB has not taken into the buffer; returns whether the buffer took it."""
        rejected = error.reason if isinstance(error, Rejected) else None
        return self._committed(self._submit(batch, rejected=rejected), batch) is not None

    def _submit(self, batch: Batch, *, rejected: str | None = None, is_claimed: bool = False) -> AsyncResult:
        return self._worker.submit(self._append, batch, rejected, is_claimed)

    def _append(self, batch: Batch, rejected: str | None, is_claimed: bool) -> int | None:
        """On the buffer's thread. None where InfluxDB has confirmed the batch since."""
        if batch.fate is Fate.STORED:
            return None
        return self._buffer.append(
            batch.lines,
            database=self._database,
            pods=batch.pods,
            first_ns=batch.first_ns,
            rejected=rejected,
            is_claimed=is_claimed,
        )

    def _committed(self, commit: AsyncResult, batch: Batch) -> int | None:
        """Wait for the buffer; returns the row of the batch, None where the buffer did not take it."""
        try:
            row_id: int = commit.get()
        except BufferUnavailable as error:
            self._say_trouble(error.reason)
            return None
        self._say_trouble("")
        self._pending(batch)
        return row_id

    def _pending(self, batch: Batch) -> None:
        self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.PENDING)
        self.latency["buffer"].observe(time.monotonic() - batch.read_at)
        batch.settle(Fate.PENDING)
        self._backlog_grew()

    def buffer_is_usable(self) -> None:
        """The buffer was seen to take points, though there may have been none."""
        self._say_trouble("")

    def _say_trouble(self, reason: str) -> None:
        if reason and not self._buffer_trouble:
            log.error("buffer: takes nothing: %s; while InfluxDB is away too, points are dropped and refused", reason)
        elif self._buffer_trouble and not reason:
            log.info("buffer: takes points again; %d points were dropped", self._ledger.totals().dropped)
        self._buffer_trouble = reason

    @property
    def is_buffer_in_trouble(self) -> bool:
        """Whether the last commit failed."""
        return bool(self._buffer_trouble)

    @property
    def is_dropping(self) -> bool:
        """Whether the last batch found room in neither store."""
        return bool(self._buffer_trouble) and not self._availability.is_available
