"""Brings the rows of a damaged buffer, which was moved aside, into the new one, in the background.

ODS listens and buffers meanwhile. Each piece is committed together with a note of how far the file is worked through,
so that a crash repeats nothing. The file itself stays, for the curious.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import gevent

from ods.buffer import Buffer
from ods.buffer_file import ASIDE, SAVED
from ods.disk import read_through
from ods.errors import BufferUnavailable
from ods.ledger import Fate, Ledger
from ods.salvage import Report, Salvage
from ods.saved import Saved
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How many rows are brought over in one transaction.
PIECE_ROWS = 100
#: How often it is looked whether a file was moved aside, and how long to wait for a buffer that takes nothing. Seconds.
LOOK_SECONDS = 1.0
#: A file on a disk that fails to read is worked through all the same when that has lasted. Seconds.
UNREADABLE_SECONDS = 60.0

_FATES = {"pending": Fate.PENDING, "quarantined": Fate.QUARANTINED}


class Rescue:
    """Works through the files that were moved aside, one after the other. `backlog_grew` is called for each piece."""

    def __init__(
        self,
        *,
        buffer: Buffer,
        buffer_worker: Worker,
        ledger: Ledger,
        name_pod: Callable[[str], object],
        backlog_grew: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._buffer_worker = buffer_worker
        self._ledger = ledger
        self._name_pod = name_pod
        self._backlog_grew = backlog_grew
        self._reader = Worker("rescue")
        self._moved_aside = -1
        #: Points of files that were damaged in this run, by fate and pod: they are counted already.
        self._awaited: dict[str, Counter[str]] = {fate: Counter() for fate in _FATES}

    def start(self, supervisor: Supervisor) -> None:
        """Begin to look for files, also those of earlier runs."""
        self._reader.start()
        supervisor.spawn("rescue", self._run)

    def stop(self) -> None:
        """End the thread; what is not brought over is at the next start."""
        self._reader.stop()

    def _run(self) -> None:
        while True:
            if self._buffer.file.moved_aside != self._moved_aside:
                moved_aside = self._buffer.file.moved_aside
                try:
                    self._rescue_all()
                    self._moved_aside = moved_aside
                except (BufferUnavailable, OSError) as error:
                    log.debug("rescue: %s", error)
            gevent.sleep(LOOK_SECONDS)

    def _rescue_all(self) -> None:
        for fate, points in self._buffer.file.take_left().items():
            if fate in self._awaited:
                self._awaited[fate].update(points)
        for path in self._buffer_worker.run(self._buffer.to_rescue):
            self._rescue(path)
        self._give_up_the_rest()

    def _rescue(self, path: Path) -> None:
        log.warning("buffer: what can be read of %s is brought into the new one", path)
        self._wait_until_readable(path)
        salvage = Salvage(path)
        position = self._buffer_worker.run(self._buffer.rescued, path)
        rows = salvage.rows()
        self._reader.run(_skip, rows, position)
        points = 0
        while piece := self._reader.run(_next, rows):
            position += len(piece)
            points += self._bring(piece, path, position)
        self._buffer_worker.run(self._buffer.finish_rescue, path)
        _say(self._reader.run(_renamed, path), points, salvage.report)

    def _wait_until_readable(self, path: Path) -> None:
        """A disk that fails to read for a moment would make rows look lost; one sector that stays bad is gone over."""
        deadline = time.monotonic() + UNREADABLE_SECONDS
        while time.monotonic() < deadline:
            trouble = self._reader.run(read_through, path, seconds=UNREADABLE_SECONDS)
            if trouble is None:
                return
            log.debug("rescue: %s", trouble)
            gevent.sleep(LOOK_SECONDS)

    def _bring(self, piece: list[Saved], path: Path, position: int) -> int:
        """Commit these rows, however long it takes; returns their points."""
        while True:
            try:
                brought = self._buffer_worker.run(self._buffer.restore, piece, path, position)
                break
            except BufferUnavailable as error:
                log.debug("rescue: %s", error)
                gevent.sleep(LOOK_SECONDS)
        for fate, points in brought.items():
            self._count(fate, points)
        self._backlog_grew()
        return sum(map(sum, (points.values() for points in brought.values())))

    def _count(self, fate: str, points: Mapping[str, int]) -> None:
        counted = Counter(points) & self._awaited[fate]
        self._awaited[fate] -= counted
        for pod in points:
            self._name_pod(pod)
        self._ledger.begin_with(_FATES[fate], Counter(points) - counted)

    def _give_up_the_rest(self) -> None:
        for fate, points in self._awaited.items():
            if points:
                log.error("buffer: %d points are lost with the damaged file", sum(points.values()))
                self._ledger.lose(points, _FATES[fate])
                points.clear()


def _renamed(path: Path) -> Path:
    """The file under a name that says it is worked through, should the note of that be lost with a buffer."""
    saved = path.with_name(path.name.replace(ASIDE, SAVED))
    try:
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.replace(saved.with_name(saved.name + suffix))
    except OSError as error:
        log.debug("rescue: %s", error)
        return path
    return saved


def _next(rows: Iterator[Saved]) -> list[Saved]:
    return list(islice(rows, PIECE_ROWS))


def _skip(rows: Iterator[Saved], count: int) -> None:
    for _ in islice(rows, count):
        pass


def _say(path: Path, points: int, report: Report) -> None:
    log.warning("buffer: %d points in %d rows are saved from the damaged file, now %s", points, report.rows_saved, path)
    expected = report.points_expected
    if report.rows_lost or report.pages_unreadable or (expected is not None and expected > report.points_saved):
        log.error(
            "buffer: %d rows and %d pages of %s could not be read; %s points should have waited in it, %d are saved",
            *(report.rows_lost, report.pages_unreadable, path, "?" if expected is None else expected),
            report.points_saved,
        )
    if report.error is not None:
        log.error("buffer: %s: %s", path, report.error)
