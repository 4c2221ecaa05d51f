"""Writes down every record before it is stored, whatever InfluxDB does.

A disk that does not answer holds nobody up: after `PATIENCE_SECONDS` a batch goes on, and those that follow go on at
once until the disk has caught up. What could not be written is counted and said.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gevent
from gevent.event import Event

from ods.chunk import Chunk
from ods.disk import Disk
from ods.segment_files import compress, left_to_compress, prune, size_bytes
from ods.segments import Rows, Segments
from ods.supervisor import Supervisor
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How long a batch waits for the disk before it goes on without. Seconds.
PATIENCE_SECONDS = 0.1
#: The most that waits for a disk that does not answer; beyond it rows are not recorded. Bytes.
WAITING_BYTES = 32 * 1024 * 1024
#: So much is written before the room on the disk is known. Bytes.
UNLOOKED_BYTES = 1024 * 1024
#: How often old segments are closed, and the room on the disk is looked at. Seconds.
TIDY_SECONDS = 1.0
#: How often it is looked whether the recordings have outgrown their limit. Seconds.
PRUNE_SECONDS = 30.0
#: How often it is looked how large they are, where that is quick; it may take this part of the time. Seconds.
MEASURE_SECONDS = 5.0
MEASURE_SHARE = 0.01


class Recorder:
    """The recordings of all pods."""

    def __init__(
        self,
        *,
        directory: Path,
        disk: Disk,
        limit_bytes: int,
        confirmed_before_ns: Callable[[], int],
    ) -> None:
        self._segments = Segments(directory)
        self._disk = disk
        self._limit_bytes = limit_bytes
        self._confirmed_before_ns = confirmed_before_ns
        self.writer = Worker("recorder")
        self._archiver = Worker("archiver")
        self._caught_up = Event()
        self._caught_up.set()
        self._waiting_bytes = 0
        self._is_stopping = False
        self._trouble = ""
        #: What may be written until the room on the disk is looked at again. Bytes.
        self._room_bytes = UNLOOKED_BYTES
        self.unrecorded = 0
        self.is_paused = False
        #: What all recordings took on the disk when that was last looked at; None before. Bytes.
        self.size_bytes: int | None = None
        self._measure_at = 0.0

    def start(self, supervisor: Supervisor) -> None:
        """Begin to record."""
        self.writer.start()
        self._archiver.start()
        self._archiver.submit(_compress_left, self._segments.directory)
        supervisor.spawn("recorder's tidying", self._tidy)

    def record(self, chunks: Sequence[Chunk]) -> None:
        """Write these down; waits for the disk, but not for long."""
        if self.submit(chunks):
            self._caught_up.wait(PATIENCE_SECONDS)

    def submit(self, chunks: Sequence[Chunk]) -> bool:
        """Have these written down, without waiting; returns whether it is worth waiting for."""
        by_pod: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            if chunk.data_rows or chunk.log_rows:
                by_pod.setdefault(chunk.pod, []).append(chunk)
        return bool(by_pod) and self._submit([_joined(pod, of_pod) for pod, of_pod in by_pod.items()])

    def own_open(self) -> set[Path]:
        """The segments that this run of ODS has open. Waits for the disk."""
        return self.writer.run(self._segments.open_paths)

    def archive(self, closed: Path) -> None:
        """Have a closed segment compressed."""
        self._archiver.submit(_compress, closed)

    def stop(self, patience_seconds: float) -> None:
        """Close the segments, and compress them as far as there is time."""
        deadline = time.monotonic() + patience_seconds
        self._is_stopping = True
        closed: list[Path] = []
        if not self.writer.finish(lambda: closed.extend(self._segments.close_all()), patience_seconds):
            log.warning("recordings: the disk does not answer; segments were left open")
        for path in closed:
            self._archiver.submit(_compress, path, deadline)
        if not self._archiver.finish(int, max(0.0, deadline - time.monotonic())):
            log.info("recordings: some segments are compressed at the next start")
        self.writer.stop()
        self._archiver.stop()

    def _submit(self, rows: list[Rows]) -> bool:
        size_bytes = sum(len(row.data) + len(row.log) for row in rows)
        if self.is_paused or self._waiting_bytes + size_bytes > WAITING_BYTES:
            self._not_recorded(rows, "the disk does not answer" if not self.is_paused else "")
            return False
        is_prompt: bool = self._caught_up.is_set()
        self._caught_up.clear()
        self._waiting_bytes += size_bytes
        self._room_bytes -= size_bytes
        if self._room_bytes <= 0:  # a flood must not take the buffer's room between two looks
            self._pause()
        self.writer.submit(self._append, rows).rawlink(lambda done: self._appended(done, rows, size_bytes))
        return is_prompt

    def _append(self, rows: list[Rows]) -> list[tuple[Rows, OSError]]:
        """On the writer's thread."""
        return self._segments.append(rows, time.monotonic())

    def _appended(self, done: gevent.event.AsyncResult, rows: list[Rows], size_bytes: int) -> None:
        self._waiting_bytes -= size_bytes
        if not self._waiting_bytes:
            self._caught_up.set()
        if done.exception is not None:
            self._not_recorded(rows, repr(done.exception))
        elif done.value:
            self._not_recorded([refused for refused, _ in done.value], str(done.value[0][1]))
        elif self._trouble:
            log.info("recordings: written again; %d records are missing from them", self.unrecorded)
            self._trouble = ""

    def _not_recorded(self, rows: list[Rows], trouble: str) -> None:
        self.unrecorded += sum(row.data.count(b"\n") + row.log.count(b"\n") for row in rows)
        if trouble and not self._trouble:
            log.error("recordings: not written: %s; look after the disk. Forwarding goes on", trouble)
            self._trouble = trouble

    def _tidy(self) -> None:
        pruned_at = float("-inf")
        while not self._is_stopping:
            try:
                if lost := self.writer.run(self._segments.leave_lost):
                    log.error("recordings: %d open segments were deleted; new ones are begun", lost)
                self._look_at_room(self.writer.run(self._disk.free_for_recordings_bytes))
                for closed in self.writer.run(self._segments.close_old, time.monotonic()):
                    self._archiver.submit(_compress, closed)
                if time.monotonic() >= self._measure_at and not self._archiver.waiting:
                    self._archiver.submit(self._measure)
                if self._limit_bytes and time.monotonic() - pruned_at >= PRUNE_SECONDS and not self._archiver.waiting:
                    pruned_at = time.monotonic()
                    self._archiver.submit(self._prune, self._confirmed_before_ns())
            except OSError as error:
                log.debug("recordings: %s", error)
                self._room_bytes = max(self._room_bytes, UNLOOKED_BYTES)
            gevent.sleep(TIDY_SECONDS)

    def _look_at_room(self, free_bytes: int) -> None:
        self._room_bytes = free_bytes - self._waiting_bytes
        if self._room_bytes <= 0:
            self._pause()
        elif self.is_paused:
            log.info("recordings: begun again; %d records are missing from them", self.unrecorded)
            self.is_paused = False

    def _pause(self) -> None:
        if not self.is_paused:
            log.error("recordings: stopped, the disk is nearly full; free some space. Forwarding goes on")
        self.is_paused = True

    def _measure(self) -> None:
        """On the archiver's thread."""
        began = time.monotonic()
        with contextlib.suppress(OSError):
            self.size_bytes = size_bytes(self._segments.directory)
        ended = time.monotonic()
        self._measure_at = ended + max(MEASURE_SECONDS, (ended - began) / MEASURE_SHARE)

    def _prune(self, confirmed_before_ns: int) -> None:
        for path in prune(
            self._segments.directory, limit_bytes=self._limit_bytes, confirmed_before_ns=confirmed_before_ns
        ):
            log.info("recordings: deleted %s (--recordings-limit)", path)


def _joined(pod: str, chunks: Sequence[Chunk]) -> Rows:
    first = chunks[0]
    if len(chunks) == 1:
        return Rows(pod, first.data_rows, first.log_rows, first.first_ns, first.last_ns)
    data = b"".join([chunk.data_rows for chunk in chunks])
    logs = b"".join([chunk.log_rows for chunk in chunks])
    return Rows(pod, data, logs, first.first_ns, chunks[-1].last_ns)


def _compress_left(directory: Path) -> None:
    try:
        for closed in left_to_compress(directory):
            _compress(closed)
    except OSError as error:
        log.warning("recordings: %s", error)


def _compress(closed: Path, deadline: float = float("inf")) -> None:
    if time.monotonic() > deadline:
        return
    try:
        compress(closed)
    except OSError as error:
        log.warning("recordings: %s is left uncompressed: %s", closed, error)
