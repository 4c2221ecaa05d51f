"""The drain: sends the backlog to InfluxDB, oldest first, beside live traffic; starts and ends by itself.

While InfluxDB is away it asks twice a second whether a write would be taken, so that the drain starts within two
seconds of its return however long the outage was. Rows are posted as they are stored, joined, and deleted once
confirmed: a crash repeats at most what was in hand, which is harmless.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event

from ods.availability import Availability
from ods.buffer import Buffer, Row
from ods.errors import BufferUnavailable, Rejected, Unavailable
from ods.influx import Influx
from ods.ledger import Fate, Ledger
from ods.sift import Sifter
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How often InfluxDB is asked whether it is back. Seconds.
PROBE_EVERY_SECONDS = 0.5
#: How long to wait after the buffer failed. Seconds.
BUFFER_RETRY_SECONDS = 1.0
#: How often progress is logged. Seconds.
PROGRESS_SECONDS = 10.0
#: Rows are joined up to this many points, or to this size as stored, in bytes.
JOINED_POINTS = 10_000
JOINED_BYTES = 1024 * 1024


@dataclass(slots=True)
class Progress:
    """One drain, from the first row sent to the empty backlog. Monotonic clock, seconds."""

    began: float
    quarantined_before: int
    outage_seconds: float
    points: int = 0
    logged_at: float = 0.0

    def points_per_second(self, now: float) -> float:
        """The rate so far."""
        return self.points / max(now - self.began, 0.001)


class Drain:
    """Empties the buffer. `claimed` are the rows to leave alone: their own requests are still under way."""

    def __init__(
        self,
        *,
        influx: Influx,
        buffer: Buffer,
        buffer_worker: Worker,
        availability: Availability,
        ledger: Ledger,
        sifter: Sifter,
        claimed: Callable[[], set[int]],
    ) -> None:
        self._influx = influx
        self._buffer = buffer
        self._worker = buffer_worker
        self._availability = availability
        self._ledger = ledger
        self._sifter = sifter
        self._claimed = claimed
        self._wake = Event()
        #: Confirmed rows whose delete is under way, or has to be tried again; with their points by pod.
        self._confirmed: dict[int, dict[str, int]] = {}
        self._has_shrunk = False
        self.progress: Progress | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to watch over InfluxDB and the backlog."""
        supervisor.spawn("drain", self._run)

    def wake(self) -> None:
        """Something may be there to be drained, or something has changed."""
        self._wake.set()

    def points_per_second(self) -> float | None:
        """How fast it drains; None while it does not."""
        return self.progress.points_per_second(time.monotonic()) if self.progress else None

    def _run(self) -> None:
        is_back = self._probe()
        while True:
            self._wake.clear()
            if not (is_back or self._availability.is_available):
                self._wait_for_probe()
                is_back = self._probe()
                continue
            is_back = False
            try:
                self._drain()
            except BufferUnavailable as error:
                log.debug("drain: %s", error.reason)
                gevent.sleep(BUFFER_RETRY_SECONDS)

    def _wait_for_probe(self) -> None:
        gevent.sleep(max(PROBE_EVERY_SECONDS, self._availability.retry_at - time.monotonic()))

    def _probe(self) -> bool:
        """Ask InfluxDB whether it would take a write; where nothing waits to be written, that ends an outage."""
        began = time.monotonic()
        try:
            self._influx.probe()
        except Unavailable as error:
            self._availability.failed(began, error)
            return False
        if not self._ledger.totals().pending:
            self._availability.confirmed(began)
        return True

    def _drain(self) -> None:
        """Send rows until there are none, or InfluxDB is away; then wait for news."""
        following = self._fetch(())
        while rows := following.get():
            self._begin()
            following = self._fetch(rows)
            if not self._send(rows):
                following.get()
                return
        self._delete_confirmed()
        if not self._confirmed and self._sifter.is_idle:
            self._end()
        if self._availability.is_available:
            self._wake.wait(BUFFER_RETRY_SECONDS if self._confirmed else None)
        else:
            self._availability.confirmed(time.monotonic())

    def _fetch(self, in_hand: list[Row] | tuple[()]) -> Any:
        excluding = self._claimed() | self._confirmed.keys() | {row.id for row in in_hand}
        return self._worker.submit(
            self._buffer.oldest, excluding=excluding, limit_points=JOINED_POINTS, limit_bytes=JOINED_BYTES
        )

    def _send(self, rows: list[Row]) -> bool:
        """Post rows of one database, joined. False: InfluxDB is away."""
        sound = [row for row in rows if row.is_sound]
        self._set_aside([row for row in rows if not row.is_sound])
        began = time.monotonic()
        try:
            if sound:
                body = b"".join([row.payload for row in sound])
                self._influx.write(body, database=sound[0].database, is_gzip=True)
        except Unavailable as error:
            self._availability.failed(began, error)
            return False
        except Rejected as error:
            self._availability.confirmed(began)
            self._worker.run(self._buffer.mark_rejected, [row.id for row in sound], error.reason)
            self._sifter.wake()
            return True
        self._availability.confirmed(began)
        self._count(sum([row.points for row in sound]))
        self._confirmed |= {row.id: dict(row.pods) for row in sound}
        self._delete_confirmed()
        return True

    def _set_aside(self, rows: list[Row]) -> None:
        for row in rows:
            log.error("buffer: %d points of row %d cannot be read; they are quarantined", row.points, row.id)
            self._worker.run(self._buffer.set_aside, row)
            self._ledger.move(row.pods, Fate.PENDING, Fate.QUARANTINED)

    def _delete_confirmed(self) -> None:
        """Delete what was confirmed; while a delete is under way, what is confirmed meanwhile waits for the next."""
        rows = dict(self._confirmed)
        if not rows:
            return
        self._worker.run(self._buffer.delete, rows)
        for row_id, pods in rows.items():
            del self._confirmed[row_id]
            self._ledger.move(pods, Fate.PENDING, Fate.STORED)
        self._has_shrunk = True

    def _begin(self) -> None:
        if self.progress is None:
            now = time.monotonic()
            outages = self._availability.outages
            seconds = outages[-1].seconds(now) if outages else 0.0
            self.progress = Progress(now, self._sifter.quarantined, seconds, logged_at=now)

    def _count(self, points: int) -> None:
        progress, now = self.progress, time.monotonic()
        assert progress is not None
        if not progress.points and self._is_worth_a_line():
            log.info("drain: begun, %d points wait", self._ledger.totals().pending)
        progress.points += points
        if now - progress.logged_at >= PROGRESS_SECONDS:
            progress.logged_at = now
            left, rate = self._ledger.totals().pending, progress.points_per_second(now)
            log.info("drain: %d points left, %.0f a second, about %.0f s to go", left, rate, left / max(rate, 1.0))

    def _is_worth_a_line(self) -> bool:
        """What a slow InfluxDB makes the store leave to the drain now and then is no news."""
        pending = self._ledger.totals().pending
        return pending > JOINED_POINTS or (pending > 0 and bool(self._availability.outages))

    def _end(self) -> None:
        if self._has_shrunk:
            self._has_shrunk = False
            while not self._wake.is_set() and self._worker.run(self._buffer.give_back):
                pass
        progress, self.progress = self.progress, None
        quarantined = self._sifter.quarantined - progress.quarantined_before if progress else 0
        if progress is None or not progress.points + quarantined:
            return
        now = time.monotonic()
        log.info(
            "drain: done, %d points backfilled in %.1f s (%.0f a second): %d confirmed, %d quarantined;"
            " the outage lasted %.1f s",
            progress.points + quarantined,
            now - progress.began,
            progress.points_per_second(now),
            progress.points,
            quarantined,
            progress.outage_seconds,
        )
