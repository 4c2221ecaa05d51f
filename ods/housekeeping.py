"""What is looked after once a second beside the flow of the data, and what is told at the end.

The times are noted by which the next start goes on, the data directory is held on to, a buffer that failed is tried
again, what it found or lost is counted, progress is looked at, and systemd is told how it stands.
"""

import logging
import time
from collections.abc import Callable

import gevent
from gevent.event import AsyncResult

from ods.availability import Availability
from ods.buffer import Buffer
from ods.clock import Clock
from ods.directory import DataDirectory
from ods.health_points import HealthPoints
from ods.ledger import Fate, Ledger
from ods.marking import Marking
from ods.pods import Pods
from ods.progress import Progress
from ods.reception import Reception
from ods.recovery import Recovery
from ods.report import report
from ods.status import Status
from ods.store import StoreManager
from ods.supervisor import Supervisor
from ods.systemd import Notifier
from ods.web import Web
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How often all is looked after. Seconds.
TICK_SECONDS = 1.0
#: How long the last note of the times may take. Seconds.
NOTES_STOP_SECONDS = 0.1


class Housekeeping:
    """The ticker. `is_kept` tells whether the keeper, where there is one, does not stand still.

    `backlog_grew` is called when the buffer is found to hold something.
    """

    def __init__(
        self,
        *,
        availability: Availability,
        buffer: Buffer,
        buffer_worker: Worker,
        clock: Clock,
        directory: DataDirectory,
        health_points: HealthPoints,
        ledger: Ledger,
        marking: Marking,
        notifier: Notifier,
        pods: Pods,
        progress: Progress,
        reception: Reception,
        recovery: Recovery,
        status: Status,
        store: StoreManager,
        web: Web,
        is_kept: Callable[[], bool],
        backlog_grew: Callable[[], None],
    ) -> None:
        self._availability = availability
        self._buffer = buffer
        self._buffer_worker = buffer_worker
        self._clock = clock
        self._directory = directory
        self._health_points = health_points
        self._ledger = ledger
        self._marking = marking
        self._notifier = notifier
        self._pods = pods
        self._progress = progress
        self._reception = reception
        self._recovery = recovery
        self._status = status
        self._store = store
        self._web = web
        self._is_kept = is_kept
        self._backlog_grew = backlog_grew
        self._notes = Worker("notes")
        self._supervisor: Supervisor | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to look after everything."""
        self._supervisor = supervisor
        self._notes.start()
        self._progress.start()
        supervisor.spawn("ticker", self._tick)

    def stop(self) -> None:
        """Look after nothing more, and note the times a last time."""
        self._progress.stop()
        self._note_times()
        self._notes.finish(int, NOTES_STOP_SECONDS)

    def take_backlog_over(self) -> None:
        """Count what the buffer held when it was first opened, which may be later than the start, and what it lost."""
        for fate, done in (self._buffer.file.take_done() or {}).items():
            self._ledger.move(done, Fate.PENDING, Fate(fate))
        found = self._buffer.file.take_found()
        if found is None:
            return
        for fate, points in found.items():
            for pod in points:
                self._pods.named(pod)
            self._ledger.begin_with(Fate(fate), points)
        waiting, quarantined = sum(found["pending"].values()), sum(found["quarantined"].values())
        log.info("backlog: %d points wait, %d are quarantined", waiting, quarantined)
        self._backlog_grew()

    def report(self) -> None:
        """Say what came of the run."""
        self._status.look_at_backlog()
        for line in report(
            seconds=self._status.uptime_seconds,
            pods={pod: self._ledger.of(pod) for pod in self._pods.by_name},
            outages=self._availability.outages,
            outages_before=self._availability.outages_begun - len(self._availability.outages),
            largest_backlog=self._status.largest_backlog,
            restarts=self._status.restarts.total,
            restarted_for=[cause for _, cause in self._status.restarts.latest],
        ):
            log.info("%s", line)

    def _tick(self) -> None:
        while True:
            self._status.tick()
            self._progress.look(time.monotonic())
            self.take_backlog_over()
            self._health_points.look(time.monotonic())
            if not self._notes.waiting:
                self._notes.submit(self._directory.hold).rawlink(self._held)
                self._note_times()
            if not self._buffer_worker.waiting:
                self._look_after_buffer()
            self._notify(time.monotonic())
            gevent.sleep(TICK_SECONDS)

    def _notify(self, now: float) -> None:
        """Tell systemd how it stands; not that all is well where a restart could heal what is not."""
        if self._notifier.is_heard:
            is_well = not self._progress.calls_for_restart and self._is_kept()
            self._notifier.tick(now, sentence=self._status.sentence(), is_well=is_well)

    def _held(self, done: AsyncResult) -> None:
        if done.successful() and done.value and self._supervisor is not None:
            self._supervisor.spawn("control socket", self._web.open_control)
        _debug_failure(done)

    def _look_after_buffer(self) -> None:
        if self._store.is_buffer_in_trouble:
            self._buffer_worker.submit(self._buffer.try_writing).rawlink(self._tried_writing)
        else:
            self._buffer_worker.submit(self._buffer.look_after).rawlink(_debug_failure)

    def _tried_writing(self, done: AsyncResult) -> None:
        if done.successful():
            self._store.buffer_is_usable()
        _debug_failure(done)

    def _note_times(self) -> None:
        now_ns = self._clock.now_ns()
        undecided = [
            time_ns for time_ns in (self._reception.oldest_ns(), self._marking.oldest_ns) if time_ns is not None
        ]
        settled_ns = self._recovery.limit(min(undecided, default=now_ns) - 1)
        self._notes.submit(self._directory.note_times, now_ns, settled_ns).rawlink(_debug_failure)


def _debug_failure(done: AsyncResult) -> None:
    if done.exception is not None:
        log.debug("data directory: %s", done.exception)
