"""The store manager: every point gets exactly one fate.

A batch is written to InfluxDB. One that InfluxDB does not confirm in time is committed to the buffer and answered,
while its request runs on; only a failure begins an outage, and during one batches go straight to the buffer. What
neither store takes is dropped, counted and refused. Each store is enough: where one fails, the other is used. (A disk
that hangs without failing does hold up a batch that InfluxDB is slow to confirm.)
"""

import logging
import time
from collections.abc import Callable

import gevent

from ods.availability import Availability
from ods.batch import Batch
from ods.buffer import Buffer
from ods.errors import BufferUnavailable, InfluxError, Rejected, Unavailable
from ods.influx import Influx
from ods.ledger import Fate, Ledger
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: A point that InfluxDB has not confirmed this long after it was read is committed to the buffer. Seconds.
PATIENCE_SECONDS = 0.25
#: This many requests of batches that are in the buffer already may run on.
OVERDUE_WRITES = 8


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

    def keep(self, batch: Batch) -> None:
        """Give a batch its fate; returns when that is done, and the replies of its chunks are on their way."""
        if not batch.lines:
            batch.settle(Fate.STORED)
        elif not self._availability.is_available:
            if not self._commit(batch):
                self._drop(batch)
        elif self._overdue < OVERDUE_WRITES:
            self._write(batch)
        elif not self._commit(batch):
            self._conclude(self._request(batch), batch)

    def _write(self, batch: Batch) -> None:
        request = self._supervisor.spawn("request", self._request, batch)
        try:
            error = request.get(timeout=max(0.0, batch.read_at + PATIENCE_SECONDS - time.monotonic()))
        except gevent.Timeout:
            self._overdue += 1
            row_id = self._commit(batch, is_claimed=True)
            request.link(lambda ended: self._finish_overdue(ended, batch, row_id))
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
        elif not self._commit(batch, rejected=error.reason if isinstance(error, Rejected) else None):
            self._drop(batch)

    def _finish_overdue(self, ended: gevent.Greenlet, batch: Batch, row_id: int | None) -> None:
        """InfluxDB has answered a batch that is in the buffer already, or could not be put there."""
        self._overdue -= 1
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
                self._ledger.move(self._worker.run(self._buffer.delete, [row_id]), Fate.PENDING, Fate.STORED)
            elif isinstance(error, Rejected):
                self._worker.run(self._buffer.mark_rejected, [row_id], error.reason)
        except BufferUnavailable as trouble:
            log.debug("buffer: row %d is left to the drain: %s", row_id, trouble.reason)
        self._worker.run(self._buffer.release, row_id)
        self._backlog_grew()

    def _commit(self, batch: Batch, *, rejected: str | None = None, is_claimed: bool = False) -> int | None:
        """Put a batch into the buffer; returns its row, None where the buffer did not take it."""
        try:
            row_id = self._worker.run(
                self._buffer.append,
                batch.lines,
                database=self._database,
                pods=batch.pods,
                first_ns=batch.first_ns,
                rejected=rejected,
                is_claimed=is_claimed,
            )
        except BufferUnavailable as error:
            self._say_trouble(error.reason)
            return None
        self._say_trouble("")
        self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.PENDING)
        batch.settle(Fate.PENDING)
        self._backlog_grew()
        return row_id

    def _drop(self, batch: Batch) -> None:
        """Neither store takes it."""
        self._ledger.move(batch.pods, Fate.IN_FLIGHT, Fate.DROPPED)
        batch.settle(Fate.DROPPED)

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
