"""The composition root: makes every part of ODS, joins them along the flow of the data, starts and stops them.

    listener -> intake -> batcher -> recorder -> store -> influx
                                                     \\-> buffer -> drain -> influx

The order of the start is the order of what pods need: the port is taken and the lock held before anything else, pods
are accepted at once, and what may wait (the disk, InfluxDB) is waited for by nobody.
"""

import logging

import gevent

from ods import __version__, failpoints
from ods.admission import Admission
from ods.availability import Availability
from ods.batch import Batch
from ods.batcher import Batcher
from ods.buffer import Buffer
from ods.clock import Clock
from ods.control import Control
from ods.directory import DataDirectory
from ods.disk import Disk
from ods.drain import Drain
from ods.errors import BufferUnavailable, SettingsError
from ods.events import Events
from ods.health_points import HealthPoints
from ods.housekeeping import Housekeeping
from ods.influx import Influx
from ods.keeper_link import Go, KeeperLink, Restarts
from ods.latest import LatestValues
from ods.ledger import Ledger
from ods.limit_watch import LimitWatch
from ods.listener import Listener
from ods.marking import Marking
from ods.pods import Pods
from ods.progress import Progress, Watched
from ods.reception import Reception
from ods.recorder import Recorder
from ods.recovery import Recovery
from ods.rescue import Rescue
from ods.settings import Settings
from ods.sift import Sifter
from ods.status import TOLD_RATE, Status
from ods.store import StoreManager
from ods.supervisor import Supervisor
from ods.systemd import Notifier, Systemd
from ods.web import Web
from ods.worker import Worker

log = logging.getLogger(__name__)

#: How long the drain waits for the buffer to be opened; it also asks whether InfluxDB is back. Seconds.
OPEN_SECONDS = 1.0
#: How long each step of the stop may take: 5 s in all. Seconds.
STORE_STOP_SECONDS, RECORDER_STOP_SECONDS, BUFFER_STOP_SECONDS = 1.5, 0.7, 0.5


class Service:
    """All of ODS. `run` serves until `request_stop` is called or a part of it fails."""

    def __init__(
        self,
        settings: Settings,
        *,
        systemd: Systemd | None = None,
        link: KeeperLink | None = None,
        go: Go | None = None,
    ) -> None:
        self._settings = settings
        self._link = link
        self._go = go
        self._restarts = Restarts() if go is None else go.restarts
        given = systemd or Systemd()
        self._notifier = Notifier(given)
        self._inherited_socket = given.pods_socket
        self._directory = DataDirectory(settings.directory)
        if go is not None and go.lock is not None:
            self._directory.adopt(go.lock)
        self._supervisor = Supervisor()
        self._clock = Clock(on_step=self._clock_stepped)
        self._ledger = Ledger()
        self._pods = Pods(settings.pods, max_names=settings.max_names)
        self._ods = self._pods.ods()
        self._disk = Disk(settings.directory)
        self._admission = Admission()
        self._limits = LimitWatch(
            settings.sensors, emit=lambda *event: self._events.emit_at(*event), now_ns=self._clock.now_ns
        )
        self._latest = LatestValues(now_ns=self._clock.now_ns, beyond=self._limits.shown)
        self._make_stores()
        self._make_front()
        self._progress = Progress(self._watched(), disk_seconds=self._disk_seconds)
        self._status = Status(
            admission=self._admission,
            settings=settings,
            availability=self._availability,
            buffer=self._buffer,
            clock=self._clock,
            disk=self._disk,
            drain=self._drain,
            latest=self._latest,
            ledger=self._ledger,
            limits=self._limits,
            listener=self._listener,
            pods=self._pods,
            progress=self._progress,
            recorder=self._recorder,
            refusals=self._reception.refusals,
            replying=self._reception.replying,
            restarts=self._restarts,
            store=self._store,
        )
        control = Control(
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            ledger=self._ledger,
            marking=self._marking,
            link=link,
            backlog_grew=self._backlog_grew,
        )
        self._web = Web(
            status=self._status,
            latest=self._latest,
            sensors=settings.sensors,
            control=control,
            directory=self._directory,
            host=settings.http_host,
            port=settings.http_port,
        )
        self._housekeeping = Housekeeping(
            availability=self._availability,
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            clock=self._clock,
            directory=self._directory,
            health_points=HealthPoints(
                clock=self._clock,
                ods=self._ods,
                pods=self._pods,
                snapshot=self._status.snapshot,
                forward=self._batcher.put,
            ),
            ledger=self._ledger,
            marking=self._marking,
            notifier=self._notifier,
            pods=self._pods,
            progress=self._progress,
            reception=self._reception,
            recovery=self._recovery,
            status=self._status,
            store=self._store,
            web=self._web,
            is_kept=lambda: link is None or link.is_answered,
            backlog_grew=self._backlog_grew,
        )

    def _make_stores(self) -> None:
        settings = self._settings
        self._influx = Influx(settings.influx)
        self._availability = Availability(
            url=settings.influx.url, on_change=self._availability_changed, now_ns=self._clock.now_ns
        )
        self._buffer = Buffer(
            self._directory.buffer,
            limit_bytes=settings.buffer_limit_bytes,
            disk=self._disk,
            database=settings.influx.database,
        )
        self._buffer_worker = Worker("buffer")
        self._store = StoreManager(
            influx=self._influx,
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            availability=self._availability,
            ledger=self._ledger,
            supervisor=self._supervisor,
            backlog_grew=self._backlog_grew,
        )
        self._sifter = Sifter(
            influx=self._influx,
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            availability=self._availability,
            ledger=self._ledger,
            sifted=lambda: self._drain.wake(),
        )
        self._drain = Drain(
            influx=self._influx,
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            availability=self._availability,
            ledger=self._ledger,
            sifter=self._sifter,
        )
        self._rescue = Rescue(
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            ledger=self._ledger,
            name_pod=self._pods.named,
            backlog_grew=self._backlog_grew,
        )

    def _make_front(self) -> None:
        self._recorder = Recorder(
            directory=self._directory.recordings,
            disk=self._disk,
            limit_bytes=self._settings.recordings_limit_bytes,
            confirmed_before_ns=self._confirmed_before_ns,
        )
        self._batcher = Batcher(
            keep=self._keep,
            is_buffering=lambda: not self._availability.is_available,
            supervisor=self._supervisor,
        )
        self._events = Events(clock=self._clock, forward=self._batcher.put)
        self._marking = Marking(clock=self._clock, ods=self._ods, forward=self._batcher.put)
        self._reception = Reception(
            pods=self._pods,
            clock=self._clock,
            ledger=self._ledger,
            admission=self._admission,
            batcher=self._batcher,
            recorder=self._recorder,
            events=self._events,
            latest=self._latest,
            limits=self._limits,
        )
        self._listener = Listener(
            self._settings.listener,
            self._reception,
            self._supervisor,
            inherited=self._inherited_socket,
            link=self._link,
            go=self._go,
        )

        self._recovery = Recovery(
            directory=self._directory.recordings,
            recorder=self._recorder,
            store=self._store,
            buffer=self._buffer,
            buffer_worker=self._buffer_worker,
            ledger=self._ledger,
            pods=self._pods,
        )

    def _watched(self) -> list[Watched]:
        """What could stand still, and what gets it going again."""
        drain, sifter, availability = self._drain, self._sifter, self._availability
        recorder, buffer = self._recorder.writer, self._buffer_worker
        return [
            Watched(
                name="drain",
                has_work=lambda: self._ledger.totals().pending > 0 and drain.is_answered and sifter.is_idle,
                done=lambda: drain.sent,
                heal=drain.heal,
            ),
            Watched(
                name="search for bad lines",
                has_work=lambda: not sifter.is_idle and availability.is_available,
                done=lambda: sifter.answered,
                heal=sifter.heal,
            ),
            Watched(
                name="batches",
                has_work=lambda: self._batcher.has_work,
                done=lambda: self._batcher.settled,
                calls_for_restart=True,
            ),
            Watched(name="buffer's disk", has_work=lambda: buffer.waiting > 0, done=lambda: buffer.done),
            Watched(name="recordings' disk", has_work=lambda: recorder.waiting > 0, done=lambda: recorder.done),
        ]

    def _disk_seconds(self) -> float:
        """How long a disk has been at one thing."""
        return max(self._buffer_worker.seconds_at_job, self._recorder.writer.seconds_at_job)

    def run(self) -> int:
        """Serve. Returns the exit status. Raises SettingsError when it cannot start."""
        self._directory.open()
        try:
            self._listener.bind()
            self._bind_web()
        except SettingsError:
            self._directory.close()
            raise
        try:
            if self._link is not None:
                self._link.begin(self.request_stop)
            self._start()
            self._supervisor.ended.wait()
        finally:
            self._stop()
            self._directory.close()
        return 1 if self._supervisor.has_failed else 0

    def _bind_web(self) -> None:
        """Where pods are connected already, they are served without the page rather than not at all."""
        try:
            self._web.bind()
        except SettingsError as error:
            if self._go is None or self._go.is_first:
                raise
            log.error("status: %s; it is not served", error)

    def request_stop(self) -> None:
        """End `run`."""
        self._supervisor.ended.set()

    def _start(self) -> None:
        self._announce()
        settled_ns = self._directory.settled_ns()
        if self._clock.continue_from(max(self._directory.latest_ns(), settled_ns)):
            log.warning("clock: it is before the last reception time of the run before; that time is continued from")
        self._buffer_worker.start()
        self._influx.start()
        self._influx.witness = self._events.emit(self._ods, "started", __version__)
        opened = self._buffer_worker.submit(self._buffer.open)
        opened.rawlink(lambda _: self._housekeeping.take_backlog_over())
        self._listener.take_over()
        self._reception.resume(self._recovery.recorded)
        self._recovery.start(self._supervisor, settled_ns=settled_ns, now_ns=self._clock.now_ns())
        self._recorder.start(self._supervisor)
        self._batcher.start()
        self._listener.start()
        self._web.start()
        self._supervisor.spawn("start of the drain", self._start_drain, opened)
        self._latest.start(self._supervisor)
        self._limits.start(self._supervisor)
        self._housekeeping.start(self._supervisor)
        self._notifier.ready()
        self._tell_restarts()
        if self._link is not None:
            self._link.serving()

    def _tell_restarts(self) -> None:
        latest = self._restarts.latest
        for _, cause in latest[len(latest) - self._restarts.untold :]:
            self._events.emit(self._ods, "worker_restarted", cause)

    def _start_drain(self, opened: gevent.event.AsyncResult) -> None:
        try:
            opened.get(timeout=OPEN_SECONDS)
        except BufferUnavailable as error:
            log.error("buffer: %s; look after the disk. Live forwarding goes on", error.reason)
        except gevent.Timeout:
            log.warning("buffer: the disk does not answer; it is not waited for")
        self._sifter.start(self._supervisor)
        self._drain.start(self._supervisor)
        self._rescue.start(self._supervisor)

    def _announce(self) -> None:
        settings = self._settings
        log.info("OpenLoop Data Shuttle %s", __version__)
        for warning in settings.warnings:
            log.warning("%s", warning)
        for address in self._listener.addresses:
            log.info("pods connect to %s port %d", address, self._listener.port)
        log.info("data directory: %s", settings.directory)
        log.info("configuration file: %s", settings.config or "none")
        log.info("sensor file: %s, %d names", settings.sensors.path or "none", len(settings.sensors.by_name))
        log.info("InfluxDB: %s, database %r", settings.influx.url, settings.influx.database)
        for page in self._web.urls or ["not served (--http-port 0)"]:
            log.info("status: %s", page)
        try:
            self._disk.free_for_buffer_bytes()
            log.info("disk: lasts %.0f hours at %.0f points a second", self._status.hours_left(TOLD_RATE), TOLD_RATE)
        except OSError as error:
            log.warning("disk: %s", error)

    def _stop(self) -> None:
        """Stop accepting, store what was read, and say what waits."""
        is_end = self._link is None or self._link.is_ending
        if is_end:
            self._notifier.stopping()
        self._listener.stop()
        self._web.stop()
        self._recovery.stop()
        self._batcher.stop(STORE_STOP_SECONDS)
        self._recorder.stop(RECORDER_STOP_SECONDS)
        self._supervisor.stop()
        self._influx.stop()
        self._rescue.stop()
        self._housekeeping.stop()
        if not self._buffer_worker.finish(self._buffer.close, BUFFER_STOP_SECONDS):
            log.warning("buffer: the disk does not answer; what was committed is safe")
        self._housekeeping.report()
        totals = self._ledger.totals()
        if totals.in_flight:
            log.error("stopped in the middle of %d points, which were not answered", totals.in_flight)
        if is_end:
            log.info("stopped: %d points wait in the buffer and are sent at the next start", totals.pending)
        else:
            log.info("handed over: %d points wait in the buffer", totals.pending)

    def _keep(self, batch: Batch) -> None:
        """What becomes of every batch: it is written down, then stored."""
        self._recorder.record(batch.chunks)
        failpoints.reach("recorded")
        self._store.keep(batch)

    def _backlog_grew(self) -> None:
        self._sifter.wake()
        self._drain.wake()

    def _confirmed_before_ns(self) -> int:
        """Every record before this reception time is in InfluxDB or quarantined."""
        oldest_ns = self._buffer.oldest_ns
        return self._recovery.limit(self._clock.now_ns() - int(60e9) if oldest_ns is None else oldest_ns)

    def _availability_changed(self, is_available: bool, detail: str) -> None:
        self._status.look_at_backlog()
        self._events.emit(self._ods, "outage_ended" if is_available else "outage_begun", detail)
        self._drain.wake()

    def _clock_stepped(self, seconds: float) -> None:
        log.warning("clock: the wall clock stepped by %+.3f s; reception times stay in order", seconds)
