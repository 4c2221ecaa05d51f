"""Writes batches to InfluxDB until each line is confirmed or refused for good, however long InfluxDB is away.

Two requests are under way at a time; what is noted as done is what was confirmed without a gap.
"""

import gzip
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import gevent
from gevent.event import Event
from gevent.pool import Pool

from ods.availability import MAX_RETRY_AFTER_SECONDS
from ods.errors import Rejected, Suspect, Unavailable
from ods.influx import Influx
from ods.replay.batches import Batch, Position
from ods.sift import SUSPECT_SECONDS, SUSPECT_TRIES, find_bad_lines

#: Requests at once.
AT_ONCE = 2
#: How long to wait before InfluxDB is asked again: at first, and at most. Seconds.
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 5.0
#: How often it is looked for InfluxDB before anything is read. Seconds.
FIND_SECONDS = 1.0
#: Reasons of refused lines that are told one by one.
TOLD_REASONS = 10


@dataclass(slots=True)
class Outcome:
    """What became of the rows that were replayed."""

    stored: int = 0
    refused: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    end: Position | None = None


class _Stopped(Exception):
    """Nobody waits any more."""


class ToInflux:
    """Writes to the database of `influx`, which is started; `confirmed` is called as the outcome grows."""

    def __init__(self, influx: Influx, *, say: Callable[[str], None], confirmed: Callable[[Outcome], None]) -> None:
        self.outcome = Outcome()
        self._influx = influx
        self._say = say
        self._confirmed = confirmed
        self._stopped = Event()
        self._under_way: deque[tuple[Batch, list[int]]] = deque()
        self._known_bad: set[str] = set()
        self._told_reasons: set[str] = set()
        self._is_away = False
        self._failure: BaseException | None = None

    def find(self) -> None:
        """Wait until InfluxDB takes writes; the database is created where it is missing.

        Raises Unavailable where waiting is no use: the password is wrong, say.
        """
        try:
            while not self._is_there():
                pass
        except _Stopped:
            return

    def run(self, batches: Iterable[Batch]) -> bool:
        """Write all of these; returns whether all are done, which they are not where it was stopped."""
        pool = Pool(AT_ONCE)
        for batch in batches:
            if self._stopped.is_set():
                break
            done: list[int] = []
            self._under_way.append((batch, done))
            pool.spawn(self._write_batch, batch, done).link_exception(self._fail)
        pool.join()
        if self._failure is not None:
            raise self._failure
        return not self._stopped.is_set()

    def stop(self) -> None:
        """Write no more than what is under way."""
        self._stopped.set()

    def _fail(self, greenlet: gevent.Greenlet) -> None:
        """A defect: it must not look like an end."""
        self._failure = greenlet.exception
        self._stopped.set()

    def _is_there(self) -> bool:
        try:
            self._influx.probe()
        except Unavailable as error:
            if error.advice:
                raise
            self._await(error, FIND_SECONDS)
            return False
        self._say_back()
        return True

    def _write_batch(self, batch: Batch, done: list[int]) -> None:
        try:
            refused = self._written(batch.lines) if batch.points else 0
        except _Stopped:
            return
        done.append(refused)
        while self._under_way and self._under_way[0][1]:
            settled, (lost,) = self._under_way.popleft()
            self.outcome.stored += settled.points - lost
            self.outcome.refused += lost
            self.outcome.left_out.update(settled.left_out)
            self.outcome.end = settled.end
            self._confirmed(self.outcome)

    def _written(self, lines: bytes) -> int:
        """Write until each line is confirmed or refused; returns how many are refused."""
        try:
            self._write(lines)
        except Rejected:
            return self._sift(lines.decode().split("\n")[:-1])
        return 0

    def _sift(self, lines: Sequence[str]) -> int:
        while True:
            found = find_bad_lines(lines, self._write_lines, self._known_bad)
            try:
                if len(found) == len(lines):
                    self._influx.probe()  # raises where it is the server that takes nothing, whatever is written
            except Unavailable as error:
                self._await(error, WAIT_SECONDS)
                continue
            for line, reason in found:
                self._tell_refused(line, reason)
            return len(found)

    def _tell_refused(self, line: str, reason: str) -> None:
        if reason not in self._told_reasons and len(self._told_reasons) < TOLD_REASONS:
            self._told_reasons.add(reason)
            self._say(f"InfluxDB refuses a line for good: {reason}: {line[:200]}")

    def _write_lines(self, lines: Sequence[str]) -> None:
        self._write("\n".join([*lines, ""]).encode())

    def _write(self, lines: bytes) -> None:
        """Write until it is confirmed. Raises Rejected."""
        packed = gzip.compress(lines, 1, mtime=0)
        seconds, tries = WAIT_SECONDS, SUSPECT_TRIES
        while True:
            try:
                self._influx.write(packed, database=self._influx.settings.database, is_gzip=True)
            except Unavailable as error:
                self._await(error, seconds)
                seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)
            except Suspect as error:
                tries -= 1
                if tries <= 0:
                    raise Rejected(error.reason) from error
                gevent.sleep(SUSPECT_SECONDS)
            else:
                self._say_back()
                return

    def _await(self, error: Unavailable, seconds: float) -> None:
        if not self._is_away:
            self._is_away = True
            advice = f" ({error.advice})" if error.advice else ""
            self._say(f"InfluxDB takes nothing: {error.reason}{advice}; trying again until it does, Ctrl-C stops")
        if self._stopped.wait(max(seconds, min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS))):
            raise _Stopped from error

    def _say_back(self) -> None:
        if self._is_away:
            self._is_away = False
            self._say("InfluxDB answers again")
