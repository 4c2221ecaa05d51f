"""Finds the lines that InfluxDB will never take, off the live path, so that their neighbours are stored.

A rejected batch waits in the buffer. Its lines are sorted by series and halved until the bad ones stand alone: about
`2 k log2 n` requests for k bad series among n lines. Sending a good line again on the way is harmless.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from ods.availability import Availability
from ods.buffer import Buffer
from ods.errors import BufferUnavailable, Rejected, Suspect, Unavailable
from ods.influx import Influx
from ods.ledger import Fate, Ledger
from ods.line_protocol import is_event, is_own, pod_of, series_of, time_of
from ods.other_databases import OtherDatabases
from ods.rows import BadLine, Row
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How long to wait after one of the two stores failed. Seconds.
RETRY_SECONDS = 1.0
#: The reason of a line that can only come from a damaged buffer.
NOT_OWN = "no line of ODS"
#: This many series are remembered as bad, to be tried apart from the others at once.
REMEMBERED_SERIES = 10_000

#: Lines that InfluxDB fails over (5xx, silence) are sent so often before it is taken for theirs, at this interval: once
#: for a row, and for each line that stands alone, unless its series was bad before.
SUSPECT_TRIES = 3
SUSPECT_SECONDS = 0.5

#: A series conflicts with what InfluxDB has of it, from one end to the other unless a shard (a week) ends between.
#: InfluxDB 1.x and 2.x; 3.x.
_WHOLE_SERIES = re.compile("field type conflict|invalid column type")
#: Where the newest line of a series is too old, so are all. InfluxDB 1.x and 2.x; where one of these limits the future
#: too ("or outside permissible write window"), that cannot be said.
_TOO_OLD = re.compile("(?:beyond|outside) retention policy(?!.*write window)")


def find_bad_lines(
    lines: Iterable[str], write: Callable[[Sequence[str]], None], known_bad: set[str]
) -> list[tuple[str, str]]:
    """The bad lines with their reasons; all others are confirmed by `write`, which raises Rejected.

    `known_bad` holds series that were bad before; they are tried apart, and those found are added.
    """
    ordered = sorted(lines, key=series_of)
    series = [list(group) for _, group in groupby(ordered, key=series_of)]
    bad: list[tuple[str, str]] = []
    suspects = [group for group in series if series_of(group[0]) in known_bad]
    others = [group for group in series if series_of(group[0]) not in known_bad]
    for groups in (others, suspects):
        _halve(groups, write, known_bad, bad)
    return bad


def _halve(
    series: list[list[str]],
    write: Callable[[Sequence[str]], None],
    known_bad: set[str],
    bad: list[tuple[str, str]],
) -> None:
    if not series:
        return
    try:
        write([line for group in series for line in group])
    except Rejected as error:
        if len(series) > 1:
            halves = [series[: len(series) // 2], series[len(series) // 2 :]]
        elif _is_all_bad(series[0], error.reason, write):
            bad += [(line, error.reason) for line in series[0]]
            if len(known_bad) < REMEMBERED_SERIES:
                known_bad.add(series_of(series[0][0]))
            return
        else:
            middle = len(series[0]) // 2
            halves = [[series[0][:middle]], [series[0][middle:]]]
        for half in halves:
            _halve(half, write, known_bad, bad)


def _is_all_bad(lines: Sequence[str], reason: str, write: Callable[[Sequence[str]], None]) -> bool:
    """Whether each of these lines of one series is bad, since the lot was rejected for this reason."""
    if len(lines) == 1:
        return True
    oldest, newest = min(lines, key=time_of), max(lines, key=time_of)
    if _WHOLE_SERIES.search(reason):
        return _is_bad(oldest, write) and _is_bad(newest, write)
    return _TOO_OLD.search(reason) is not None and _is_bad(newest, write)


def _is_bad(line: str, write: Callable[[Sequence[str]], None]) -> bool:
    try:
        write([line])
    except Rejected:
        return True
    return False


class Sifter:
    """Works through the rejected rows of the buffer, one at a time."""

    def __init__(
        self,
        *,
        influx: Influx,
        buffer: Buffer,
        buffer_worker: Worker,
        availability: Availability,
        ledger: Ledger,
        sifted: Callable[[], None],
    ) -> None:
        self._influx = influx
        self._buffer = buffer
        self._worker = buffer_worker
        self._availability = availability
        self._ledger = ledger
        self._sifted = sifted
        #: Shared with the drain.
        self.databases = OtherDatabases(influx)
        self._wake = Event()
        self._known_bad: set[str] = set()
        self._said: set[str] = set()
        #: Points of rejected rows that were quarantined, and those that were stored, in this run of ODS.
        self.quarantined = 0
        self.confirmed = 0
        self.is_idle = True
        #: How many requests were answered.
        self.answered = 0
        self._supervisor: Supervisor | None = None
        self._greenlet: Any = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to sift."""
        self.wake()
        self._supervisor = supervisor
        self._greenlet = supervisor.spawn("sifter", self._run)

    def heal(self) -> None:
        """Begin anew, after nothing has moved for a long time."""
        if self._supervisor is not None:
            self.wake()
            self._greenlet.kill(block=False)
            self._greenlet = self._supervisor.spawn("sifter", self._run)

    def wake(self) -> None:
        """A rejected row may wait."""
        self.is_idle = False
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self.databases.seconds_left)
            self._wake.clear()
            try:
                while self._availability.is_available and (row := self._next()) is not None:
                    self._try(row)
            except (Unavailable, BufferUnavailable) as error:
                log.debug("sift: %s", error)
                gevent.sleep(RETRY_SECONDS)
                self._wake.set()
                continue
            if not self._availability.is_available:
                gevent.sleep(RETRY_SECONDS)
                self._wake.set()
                continue
            self.is_idle = not self._wake.is_set()
            self._sifted()

    def _next(self) -> Row | None:
        return self._worker.run(self._buffer.rejected, put_off=self.databases.put_off())

    def _try(self, row: Row) -> None:
        try:
            self._sift(row)
        except Unavailable as error:
            if not self.databases.is_at_fault(row.database, error):
                raise

    def _sift(self, row: Row) -> None:
        tries_left = SUSPECT_TRIES
        database = row.database if row.is_sound else self._influx.settings.database

        def write(lines: Sequence[str]) -> None:
            nonlocal tries_left
            # Halving may be by chance, but the verdict on a line may not.
            is_verdict = len(lines) == 1 and series_of(lines[0]) not in self._known_bad
            tries = SUSPECT_TRIES if is_verdict else tries_left
            while True:
                self.answered += 1
                try:
                    return self._influx.write("\n".join(lines).encode(), database=database)
                except Suspect as error:
                    tries -= 1
                    if not is_verdict:
                        tries_left = tries
                    if tries <= 0:
                        raise Rejected(error.reason) from error
                    gevent.sleep(SUSPECT_SECONDS)

        try:
            lines = row.lines()
        except ValueError as error:
            log.error("buffer: %d points of row %d cannot be read (%s); quarantined", row.points, row.id, error)
            self._finish(self._worker.submit(self._buffer.set_aside, row), row, Counter(row.pods), [])
            return
        if not row.is_sound:  # nor may its counts be right
            counted = Counter(pod_of(line) for line in lines if is_own(line) and not is_event(line))
            row = replace(row, pods=counted, points=counted.total())
        own = [line for line in lines if is_own(line)]
        found = find_bad_lines(own, write, self._known_bad)
        if found and len(found) == len(own):
            self._influx.probe()  # raises where it is the server that takes nothing, whatever is written
        bad = [BadLine(pod_of(line), time_of(line), line, reason, int(not is_event(line))) for line, reason in found]
        pod = next(iter(row.pods), "")
        bad += [BadLine(pod, row.first_ns, line, NOT_OWN, 1) for line in lines if not is_own(line)]
        lost = Counter[str]()
        for line in bad:
            lost[line.pod] += line.points
        self._finish(self._worker.submit(self._buffer.quarantine, row, bad), row, lost, bad)

    def _finish(self, job: AsyncResult, row: Row, lost: Counter[str], bad: Sequence[BadLine]) -> None:
        """Wait for the buffer; what it did is counted when it is done, also where the search was begun anew since."""

        def count(done: AsyncResult) -> None:
            if not done.successful() or not done.value:
                return  # a row that was moved aside meanwhile has its fate when it is brought back
            self._ledger.move(lost, Fate.PENDING, Fate.QUARANTINED)
            self._ledger.move(Counter(row.pods) - lost, Fate.PENDING, Fate.STORED)
            self.quarantined += sum(lost.values())
            self.confirmed += row.points - sum(lost.values())
            self._say(bad)

        job.rawlink(count)
        job.get()

    def _say(self, bad: Sequence[BadLine]) -> None:
        for line in bad:
            series = series_of(line.line) if line.reason != NOT_OWN else NOT_OWN
            if series not in self._said and len(self._said) < REMEMBERED_SERIES:
                self._said.add(series)
                log.error("quarantined: a point of %s: %s; InfluxDB will never take it as it is", series, line.reason)
