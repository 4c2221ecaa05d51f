"""Recovery after a crash: what may not have been stored is taken from the recordings and put through the store again.

In the background, one segment and one batch at a time, beside live traffic and behind it. A segment is closed once
every row of it is kept; until all are, the note of what is settled stays where it was, so that a second crash loses
nothing. To put a point through the store again is harmless (same series, time and value); what the buffer holds already
is left out, so that it counts once.
"""

import errno
import logging
import time
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import gevent
from gevent.event import AsyncResult

from ods.batch import Batch
from ods.buffer import Buffer
from ods.chunk import Chunk
from ods.encoder import encode
from ods.errors import BufferUnavailable
from ods.ledger import Fate, Ledger
from ods.left_segments import close_left, find_recorded_times, left_behind
from ods.line_protocol import pod_of, pod_tag, time_of
from ods.playback import play
from ods.pods import Pods
from ods.recorder import Recorder
from ods.recording import Row as RecordedRow
from ods.recording import pod_of_folder, points_of, segment_begin
from ods.rows import Row
from ods.segment_files import OPEN
from ods.store import StoreManager
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How long to wait before a batch that neither store took is tried again. Seconds.
RETRY_SECONDS = 1.0
#: Batches do not come in the order of their first records. How far one may be behind. Nanoseconds.
DISORDER_NS = 2_000_000_000
#: How long pods wait to be read until it is known what of the last they sent is recorded. Seconds.
RECORDED_SECONDS = 1.0
#: How long a segment that the disk fails to read is tried again, and what such a failure is. Seconds.
UNREADABLE_SECONDS = 60.0
_PASSING = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EMFILE, errno.ENFILE}


@dataclass(slots=True)
class _Left:
    """A segment that was left behind, and what was found in it."""

    path: Path
    pod: str
    kind: str
    latest_ns: int
    unreadable: int = 0
    kept_already: int = 0


@dataclass(slots=True)
class _Outcome:
    """What the recovery has to tell."""

    segments: int = 0
    stored_again: int = 0
    kept_already: int = 0
    unreadable: dict[Path, int] = field(default_factory=dict)


class Recovery:
    """Runs once, after a start."""

    def __init__(
        self,
        *,
        directory: Path,
        recorder: Recorder,
        store: StoreManager,
        buffer: Buffer,
        buffer_worker: Worker,
        ledger: Ledger,
        pods: Pods,
    ) -> None:
        self._directory = directory
        #: Up to this reception time the fate of every record of the runs before is decided.
        self._settled_ns = 0
        self._recorder = recorder
        self._store = store
        self._buffer = buffer
        self._buffer_worker = buffer_worker
        self._ledger = ledger
        self._pods = pods
        self._worker = Worker("recovery")
        self._greenlet: gevent.Greenlet | None = None
        self._outcome = _Outcome()
        self._is_waiting_said = False
        self._is_finished = False

    def start(self, supervisor: Supervisor, *, settled_ns: int, now_ns: int) -> None:
        """Begin with what is later than `settled_ns`; this run of ODS has given out no time before `now_ns`.

        To be called when the buffer is about to be opened, before anything is drained from it.
        """
        self._settled_ns = settled_ns
        after_ns = self._settled_ns - DISORDER_NS
        rows = self._buffer_worker.submit(self._buffer.newest, after_ns)
        quarantined = self._buffer_worker.submit(self._buffer.newest_quarantined, self._settled_ns)
        self._worker.start()
        self._greenlet = supervisor.spawn("recovery", self._run, now_ns, rows, quarantined)

    def recorded(self, since: Mapping[str, int]) -> Mapping[str, Set[int]]:
        """The times, by pod, of what is recorded since then, which the recovery sees to. To be called before `start`.

        Waits for the disk, not for long: pods wait to be read.
        """
        self._worker.start()
        found: dict[str, set[int]] = {}
        try:
            self._worker.submit(find_recorded_times, self._directory, since, found).get(timeout=RECORDED_SECONDS)
        except gevent.Timeout:
            log.warning(
                "recovery: the disk is slow; what the run before had in flight may be recorded and counted twice"
            )
        return dict(found)  # without those pods that the worker is still to find

    def stop(self) -> None:
        """Leave what is not done to the next start."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=0.5)
            self._worker.stop()

    def limit(self, time_ns: int) -> int:
        """This time; while the recovery is under way, none that is later than what was settled when it began."""
        return time_ns if self._is_finished else min(time_ns, self._settled_ns)

    def _run(self, begun_ns: int, rows: AsyncResult, quarantined: AsyncResult) -> None:
        segments = self._list(begun_ns)
        own = self._recorder.own_open() if segments else set()
        kept = self._kept(rows, quarantined) if segments else {}
        for path in segments:
            if path not in own:
                self._recover(path, kept)
        self._is_finished = True
        self._worker.stop()
        self._say()

    def _list(self, begun_ns: int) -> list[Path]:
        deadline = time.monotonic() + UNREADABLE_SECONDS
        while True:
            try:
                return self._worker.run(left_behind, self._directory, self._settled_ns, begun_ns)
            except OSError as error:
                if error.errno not in _PASSING or time.monotonic() >= deadline:
                    log.warning("recovery: the recordings cannot be listed: %s", error)
                    return []
            gevent.sleep(RETRY_SECONDS)

    def _kept(self, rows: AsyncResult, quarantined: AsyncResult) -> Mapping[str, "array[int]"]:
        """The times of what the buffer and the quarantine hold already, in order, by pod."""
        try:
            return self._worker.run(_times_by_pod, rows.get(), quarantined.get())
        except BufferUnavailable as error:
            log.debug("recovery: what the buffer holds is not known: %s", error.reason)
            return {}

    def _recover(self, path: Path, kept: Mapping[str, "array[int]"]) -> None:
        try:
            latest_ns, kind = segment_begin(path.name)
            left = _Left(path, _pod_of(path), kind, latest_ns)
            self._play(left, kept.get(left.pod, array("q")))
            if path.suffix == OPEN:
                self._outcome.segments += 1
                closed = self._worker.run(close_left, path, left.latest_ns)
                if closed is not None:
                    self._recorder.archive(closed)
        except FileNotFoundError as error:
            log.debug("recovery: %s", error)  # one of this run, closed since, or deleted by somebody
            return
        except (OSError, ValueError) as error:
            log.warning("recovery: %s is left as it is: %s", path, error)
            return
        self._outcome.kept_already += left.kept_already
        if left.unreadable:
            self._outcome.unreadable[path] = left.unreadable

    def _play(self, left: _Left, kept: "array[int]") -> None:
        """Have what a segment holds stored. A disk that fails to read for a moment must not hide the rest for good."""
        after_ns = self._settled_ns
        deadline = time.monotonic() + UNREADABLE_SECONDS
        while True:
            chunks = _chunks(left, after_ns, kept)
            try:
                while (chunk := self._worker.run(_next, chunks)) is not None:
                    self._keep(Batch([chunk]))
                    after_ns = max(after_ns, chunk.last_ns)
                return
            except OSError as error:
                if error.errno not in _PASSING or time.monotonic() >= deadline:
                    raise
                log.debug("recovery: %s", error)
            gevent.sleep(RETRY_SECONDS)

    def _keep(self, batch: Batch) -> None:
        """Have a batch stored, however long it takes."""
        for pod, points in batch.pods.items():
            self._pods.named(pod)
            self._ledger.receive(pod, points)
        try:
            while not self._store.try_keep(batch):
                self._say_waiting()
                gevent.sleep(RETRY_SECONDS)
        finally:
            if batch.fate is Fate.IN_FLIGHT:  # ODS is stopped: they are received at the next start
                for pod, points in batch.pods.items():
                    self._ledger.receive(pod, -points)
        self._outcome.stored_again += sum(batch.pods.values())

    def _say_waiting(self) -> None:
        if not self._is_waiting_said:
            self._is_waiting_said = True
            log.warning("recovery: what a crash has left waits in the recordings until one of the stores takes it")

    def _say(self) -> None:
        outcome = self._outcome
        if outcome.segments or outcome.stored_again:
            log.info(
                "recovery: %d records were put through the store again, %d were kept already; %d open segments closed",
                *(outcome.stored_again, outcome.kept_already, outcome.segments),
            )
        if outcome.unreadable:
            log.warning(
                "recovery: %d rows could not be read, in %s",
                *(sum(outcome.unreadable.values()), ", ".join(map(str, outcome.unreadable))),
            )


def _times_by_pod(rows: list[Row], quarantined: list[tuple[str, int]]) -> Mapping[str, "array[int]"]:
    found: dict[str, array[int]] = defaultdict(lambda: array("q"))
    for pod, time_ns in quarantined:
        found[pod].append(time_ns)
    while rows:
        row = rows.pop()
        try:
            for line in row.lines():
                found[pod_of(line)].append(time_of(line))
        except ValueError as error:
            log.debug("recovery: row %d of the buffer: %s", row.id, error)
    return {pod: array("q", sorted(times)) for pod, times in found.items()}


def _pod_of(path: Path) -> str:
    """The pod of a segment. Raises ValueError where none could be called so: no line protocol could hold its name."""
    pod = pod_of_folder(path.parent.name)
    if not pod.isprintable() or "\\" in pod:
        raise ValueError(f"{pod!r} is no pod's name")
    return pod


def _next(chunks: Iterator[Chunk]) -> Chunk | None:
    return next(chunks, None)


def _chunks(left: _Left, after_ns: int, kept: "array[int]") -> Iterator[Chunk]:
    """What a segment holds that is not kept already, encoded as it was at first. May wait for the disk."""
    tag = pod_tag(left.pod)
    for piece in play(left.path, after_ns=after_ns):
        left.latest_ns = piece.latest_ns
        left.unreadable += piece.unreadable
        missing = [row for row in piece.rows if not _holds(kept, row)]
        left.kept_already += len(piece.rows) - len(missing)
        records, times = points_of(left.kind, missing)
        if times:
            encoded = encode(records, tag, times)
            yield Chunk(
                pod=left.pod,
                points=encoded.points,
                lines=encoded.lines,
                first_ns=min(map(int, times)),
                last_ns=max(map(int, times)),
                received_at=time.monotonic(),
            )


def _holds(times_ns: "array[int]", row: RecordedRow) -> bool:
    time_ns = int(row[0])
    at = bisect_left(times_ns, time_ns)
    return at < len(times_ns) and times_ns[at] == time_ns
