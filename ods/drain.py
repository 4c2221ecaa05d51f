"""The drain: sends the backlog to InfluxDB, oldest first, beside live traffic; starts and ends by itself.

While InfluxDB is away it asks twice a second whether a write would be taken, so that the drain starts within two
seconds of its return however long the outage was. Rows are posted as they are stored, joined, and deleted once
confirmed: a crash repeats at most what was in hand, which is harmless.
"""

import gzip
import logging
import time
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from ods import failpoints
from ods.availability import Availability
from ods.buffer import Buffer
from ods.drain_progress import DrainProgress
from ods.errors import BufferUnavailable, InfluxError, Rejected, Suspect, Unavailable
from ods.influx import WRITE_SECONDS, Influx
from ods.ledger import Fate, Ledger
from ods.rows import Row
from ods.sift import Sifter
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How often InfluxDB is asked whether it is back. Seconds.
PROBE_EVERY_SECONDS = 0.5
#: At most so many of these questions run at once.
PROBES = 20
#: Where rows are not confirmed within this time, InfluxDB is asked whether it is there; and when it has answered, it
#: has this long to answer for the rows too, before they are sent again. Seconds.
PATIENCE_SECONDS = 1.0
GRACE_SECONDS = 0.25
#: When so many requests in a row were answered only the second time, uncompressed, all are sent so, for so long.
#: Seconds.
PLAIN_IN_A_ROW = 2
PLAIN_SECONDS = 600.0
#: InfluxDB counts as answering for this long after it has answered a probe. Seconds.
ANSWERED_SECONDS = 15.0
#: How long to wait before rows that InfluxDB has failed over are sent once more. Seconds.
SUSPECT_SECONDS = 0.5
#: How long to wait after the buffer failed. Seconds.
BUFFER_RETRY_SECONDS = 1.0
#: Rows are joined up to this many points, or to this size as stored, in bytes.
JOINED_POINTS = 10_000
JOINED_BYTES = 1024 * 1024


class Drain:
    """Empties the buffer."""

    def __init__(
        self,
        *,
        influx: Influx,
        buffer: Buffer,
        buffer_worker: Worker,
        availability: Availability,
        ledger: Ledger,
        sifter: Sifter,
    ) -> None:
        self._influx = influx
        self._buffer = buffer
        self._worker = buffer_worker
        self._availability = availability
        self._ledger = ledger
        self._sifter = sifter
        self._databases = sifter.databases
        self._wake = Event()
        #: Confirmed rows whose delete is under way, or has to be tried again.
        self._confirmed: set[int] = set()
        #: The first rows of the requests that InfluxDB failed over once.
        self._suspects: set[int] = set()
        self._patience_seconds = PATIENCE_SECONDS
        self._plain_in_a_row = 0
        self._plain_until = float("-inf")
        self._supervisor: Supervisor | None = None
        self._greenlet: Any = None
        #: By how much requests are smaller than they could be, after nothing moved.
        self._smaller_by = 1
        #: How many requests got rows out of the queue, and when InfluxDB answered a probe last (monotonic, seconds).
        self.sent = 0
        self.answered_at = float("-inf")
        self.progress = DrainProgress(
            availability=availability, ledger=ledger, sifted=lambda: (sifter.confirmed, sifter.quarantined)
        )

    def start(self, supervisor: Supervisor) -> None:
        """Begin to watch over InfluxDB and the backlog."""
        self._supervisor = supervisor
        self._greenlet = supervisor.spawn("drain", self._run)

    def heal(self) -> None:
        """Begin anew, on new connections and with smaller requests, after nothing has moved for a long time."""
        if self._supervisor is None:
            return
        self._smaller_by = min(self._smaller_by * 4, JOINED_POINTS)
        self._influx.drop_idle()
        self._greenlet.kill(block=False)
        self._greenlet = self._supervisor.spawn("drain", self._run)

    @property
    def is_answered(self) -> bool:
        """Whether InfluxDB takes writes, or has taken a probe a moment ago."""
        return self._availability.is_available or time.monotonic() - self.answered_at < ANSWERED_SECONDS

    def wake(self) -> None:
        """Something may be there to be drained, or something has changed."""
        self._wake.set()

    def _run(self) -> None:
        answered_at: float | None = self._wait_for_answer()
        while True:
            self._wake.clear()
            if answered_at is None and not self._availability.is_available:
                answered_at = self._wait_for_answer()
            try:
                self._drain(answered_at)
            except BufferUnavailable as error:
                log.debug("drain: %s", error.reason)
                if answered_at is not None:  # no row can tell; live points need no buffer
                    self._availability.confirmed(answered_at)
                gevent.sleep(BUFFER_RETRY_SECONDS)
            answered_at = None
            if not self._availability.is_available:
                gevent.sleep(PROBE_EVERY_SECONDS)

    def _wait_for_answer(self, unless: gevent.Greenlet | None = None) -> float:
        """Ask InfluxDB whether it would take a write, again and again; returns when that was asked which it answered.

        Nothing more is asked, and nothing answered, once the greenlet given has ended.

        A question runs on while others are asked: a server that answers slowly is one that answers, and a connection
        that is dead must not hide that the server is back.
        """
        answered: AsyncResult = AsyncResult()
        if unless is not None:
            unless.link(lambda _: answered.set(time.monotonic()))
        probes: list[gevent.Greenlet] = []
        try:
            while not answered.ready():
                probes = [probe for probe in probes if not probe.ready()]
                if len(probes) < PROBES and time.monotonic() >= self._availability.retry_at:
                    probes.append(gevent.Greenlet.spawn(self._probe, answered))
                answered.wait(PROBE_EVERY_SECONDS)
        finally:
            gevent.killall(probes, block=False)
        began: float = answered.get()
        self._patience_seconds = PATIENCE_SECONDS
        return began

    def _probe(self, answered: AsyncResult) -> None:
        began = time.monotonic()
        try:
            self._influx.probe()
        except Unavailable as error:
            self._availability.failed(began, error)
        else:
            self.answered_at = time.monotonic()
            answered.set(began)

    def _drain(self, answered_at: float | None) -> None:
        """Send rows until there are none, or InfluxDB is away; then wait for news.

        During an outage it is `answered_at` that InfluxDB took a probe: a row that it takes ends the outage, and so
        does the probe where no row waits.
        """
        following = self._fetch(())
        if answered_at is not None and not gevent.wait([following], timeout=BUFFER_RETRY_SECONDS):
            self._availability.confirmed(answered_at)  # the disk hangs, and live points need no buffer
        while rows := following.get():
            self.progress.begin(time.monotonic())
            following = self._fetch(rows)
            if not self._send(rows):
                following.get()
                return
        if answered_at is not None:
            self._availability.confirmed(answered_at)
        self._delete_confirmed()
        if not self._confirmed and self._sifter.is_idle:
            self._worker.run(self._buffer.check_empty)
            self.progress.end(time.monotonic())
            self._give_back()
        if self._availability.is_available:
            self._wake.wait(BUFFER_RETRY_SECONDS if self._confirmed else self._databases.seconds_left)

    def _fetch(self, in_hand: list[Row] | tuple[()]) -> Any:
        excluding = self._confirmed.union(row.id for row in in_hand)
        return self._worker.submit(
            self._buffer.oldest,
            excluding=excluding,
            limit_points=max(1, JOINED_POINTS // self._smaller_by),
            limit_bytes=JOINED_BYTES,
            put_off=self._databases.put_off(),
        )

    def _send(self, rows: list[Row]) -> bool:
        """Post rows of one database, joined. False: InfluxDB is away."""
        sound = [row for row in rows if row.is_sound]
        if len(sound) < len(rows):
            self._leave_to_sifter([row for row in rows if not row.is_sound], "checksum")
        if not sound or sound[0].database in self._databases.put_off():
            return True
        began = time.monotonic()
        is_plain = sound[0].id in self._suspects or began < self._plain_until
        try:
            self._write(b"".join([row.payload for row in sound]), sound[0].database, is_plain=is_plain)
        except Unavailable as error:
            if self._databases.is_at_fault(sound[0].database, error):
                self.sent += 1  # the others go on
                return True
            self._availability.failed(began, error)
            return False
        except (Rejected, Suspect) as error:
            self._availability.confirmed(began)
            self._put_by(sound, error)
            return True
        self._availability.confirmed(began)
        self.progress.look(time.monotonic())
        failpoints.reach("confirmed")
        self._smaller_by = 1
        self.sent += 1
        self._databases.takes_writes(sound[0].database)
        self._suspects.discard(sound[0].id)
        self._confirmed.update(row.id for row in sound)
        self._delete_confirmed()
        return True

    def _write(self, body: bytes, database: str, *, is_plain: bool) -> None:
        """Write, and once more on another connection where the one in use turns out to be dead: a line that was cut may
        leave it without an answer for as long as a request may take. Raises InfluxError.

        The second time it is not compressed: something between may swallow what is.
        """
        began = time.monotonic()
        request = gevent.Greenlet.spawn(_outcome, self._influx, body, database, is_plain)
        try:
            request.join(self._patience_seconds)
            if not request.ready():
                self._wait_for_answer(unless=request)
                request.join(GRACE_SECONDS)
            if request.ready():
                error: InfluxError | None = request.get()
            else:
                self._patience_seconds = WRITE_SECONDS  # not a third time: it may be slow
                error = _outcome(self._influx, body, database, True)
                self._plain_in_a_row += error is None and not is_plain
        finally:
            request.kill(block=False)
        if error is not None:
            raise error
        self._judge_compression(is_answered=request.successful() and not is_plain)
        self._patience_seconds = max(PATIENCE_SECONDS, 2 * (time.monotonic() - began))

    def _judge_compression(self, *, is_answered: bool) -> None:
        if is_answered:
            self._plain_in_a_row = 0
        elif self._plain_in_a_row >= PLAIN_IN_A_ROW:
            self._plain_in_a_row = 0
            self._plain_until = time.monotonic() + PLAIN_SECONDS
            log.warning("drain: compressed bodies are not answered, others are; they are sent uncompressed for a while")

    def _put_by(self, rows: list[Row], error: InfluxError) -> None:
        """Rows that InfluxDB does not take while it takes others; once more where it may have been chance."""
        if isinstance(error, Suspect) and rows[0].id not in self._suspects:
            log.debug("drain: %d rows are sent once more: %s", len(rows), error.reason)
            self._suspects.add(rows[0].id)
            self._wake.set()
            gevent.sleep(SUSPECT_SECONDS)
        else:
            self._leave_to_sifter(rows, error.reason)
            self._suspects.discard(rows[0].id)
        self.progress.look(time.monotonic())

    def _leave_to_sifter(self, rows: list[Row], reason: str) -> None:
        marking = self._worker.submit(self._buffer.mark_rejected, [row.id for row in rows], reason)
        marking.rawlink(lambda _: self._sifter.wake())
        marking.get()
        self.sent += 1

    def _delete_confirmed(self) -> None:
        """Delete what was confirmed; while a delete is under way, what is confirmed meanwhile waits for the next.

        The ledger moves when it is done, also where the drain has been begun anew since.
        """
        ids = frozenset(self._confirmed)
        if ids:
            deleting = self._worker.submit(self._buffer.delete, ids)
            deleting.rawlink(lambda done: self._deleted(done, ids))
            deleting.get()

    def _deleted(self, done: AsyncResult, ids: frozenset[int]) -> None:
        if done.successful():
            self._ledger.move(done.value, Fate.PENDING, Fate.STORED)
            self.progress.count(sum(done.value.values()))
            self._confirmed -= ids

    def _give_back(self) -> None:
        while self._buffer.free_pages and not self._wake.is_set():
            self._worker.run(self._buffer.give_back)


def _outcome(influx: Influx, body: bytes, database: str, is_plain: bool) -> InfluxError | None:
    """Write rows, compressed as they are or unpacked; returns the error, for whoever has not given up on it."""
    try:
        influx.write(gzip.decompress(body) if is_plain else body, database=database, is_gzip=not is_plain)
    except InfluxError as error:
        return error
    return None
