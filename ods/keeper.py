"""The keeper: holds what must outlive a crash, which is the pods' connections, and has the worker do everything else.

A pod never reconnects: when its connection breaks, it brakes and ends its run. So this process accepts the pods, keeps
a duplicate of each connection, from which it never reads, and hands it to the worker (`ods.commands.worker`), which is
all the rest of ODS. Whatever becomes of the worker, the connections stand and the kernel goes on receiving; another
worker is started, and handed all of them.

It does nothing that could fail or wait: no gevent, no thread, no data, no disk, no InfluxDB. One loop over a few files:

    the port        a pod connects: accept, hold, hand on
    the channel     the worker lives (a beat each 0.25 s), or tells of connections that have ended
    the worker      has died: say why, start another, at once or after a pause that grows while they die at once
    signals         SIGTERM, SIGINT: let the worker end in good order, and end with its status
                    SIGHUP: start a second worker from the code and the configuration as they are now; when it is ready
                    let the first one settle what it holds and end, then hand everything over. A second one that does
                    not become ready is ended, and the first goes on
    time            a worker that does not beat stands still: it is killed. One that cannot die (it waits for a disk) is
                    waited for, for it holds the buffer

When the keeper itself dies, the worker sees the end of the channel, stores what it has read and ends.
"""

import errno
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ods.channel import ChannelClosed, Message
from ods.directory import DataDirectory
from ods.failpoints import for_worker
from ods.held import Held
from ods.restarts import Restarts
from ods.settings import Settings
from ods.worker_process import Stage, WorkerProcess

log = logging.getLogger(__name__)

#: A worker whose hub has not beaten for so long stands still. Seconds.
STILL_SECONDS = 3.0
#: How long a worker may take to become ready: at a start, where the time doubles each time that it was too short, up to
#: the longest (a slow board, a cold disk), and at an upgrade, while another serves. Seconds.
START_SECONDS, LONGEST_START_SECONDS, UPGRADE_SECONDS = 4.0, 64.0, 10.0
#: How long a worker may take to end in good order. Seconds.
END_SECONDS = 5.0
#: The pause before a worker that follows one that lived for less than a second; it doubles up to the largest, which is
#: small while a pod is connected, whose sends wait. Seconds.
SHORT_LIFE_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, PAUSE_WITH_PODS_SECONDS = 1.0, 0.1, 2.0, 0.2
#: When it is said that a worker which was killed cannot die yet. Seconds.
STUCK_SECONDS = 1.0
#: So many pods are accepted before anything else is looked at; and the pause after a failure to accept one. Seconds.
ACCEPTED_AT_ONCE, ACCEPT_PAUSE_SECONDS = 100, 0.1
#: How long the loop waits at most while nothing is due, and while something is. If it took much longer, the keeper
#: stood still itself, and cannot tell how long the worker has. Seconds.
IDLE_SECONDS, BUSY_SECONDS, LATE_SECONDS = 0.5, 0.02, 1.5

#: The cause of a restart that is none of a death.
ASKED_FOR = "restart asked for"

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Keeper:
    """Serves until it is told to end. `argv` is that of `ods serve`, which each worker is given."""

    def __init__(
        self,
        settings: Settings,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        listening: socket.socket,
        directory: DataDirectory,
    ) -> None:
        self._settings = settings
        self._argv = argv
        self._environment = environment
        self._listening = listening
        self._directory = directory
        self._held = Held(tapes=resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._restarts = Restarts()
        #: The worker that serves, or is to; and the one that is to follow it in an upgrade.
        self._worker: WorkerProcess | None = None
        self._next: WorkerProcess | None = None
        self._has_started = False
        self._start_at = 0.0
        self._pause_seconds = 0.0
        self._start_seconds = START_SECONDS
        self._accept_at = 0.0
        self._is_accept_failure_said = False
        #: When what was begun (a hand-over, the end) must be over.
        self._deadline = float("inf")
        self._is_ending = False
        self._status: int | None = None
        self._signals, self._signalled = socket.socketpair()
        self._has_terminal = os.isatty(2)

    def run(self) -> int:
        """Keep. Returns the exit status."""
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # noted by the descriptor above, acted on in the loop
        before = time.monotonic()
        while self._status is None:
            now = time.monotonic()
            if now - before > LATE_SECONDS:
                self._forgive(now)
            self._look_at_time(now)
            before = time.monotonic()
            self._wait()
        return self._status

    # -- The loop

    def _workers(self) -> list[WorkerProcess]:
        return [worker for worker in (self._worker, self._next) if worker is not None]

    def _wait(self) -> None:
        """Wait until something happens, and see to it."""
        poll, actions = select.poll(), dict[int, Callable[[], None]]()

        def watch(file: int, action: Callable[[], None], events: int = select.POLLIN) -> None:
            poll.register(file, events)
            actions[file] = action

        watch(self._signals.fileno(), self._take_signals)
        for worker in self._workers():
            events = select.POLLIN | select.POLLOUT if worker.channel.has_unsent else select.POLLIN
            if worker.is_open:
                watch(worker.channel.fileno(), partial(self._hear, worker), events)
            watch(worker.pidfd, partial(self._bury, worker))
        if time.monotonic() >= self._accept_at and not self._is_ending:
            watch(self._listening.fileno(), self._accept)
        is_busy = self._worker is None or self._deadline != float("inf")
        for file, _ in poll.poll((BUSY_SECONDS if is_busy else IDLE_SECONDS) * 1000):
            actions[file]()

    def _forgive(self, now: float) -> None:
        for worker in self._workers():
            worker.beat_at = worker.began_at = now

    def _look_at_time(self, now: float) -> None:
        for worker in self._workers():
            self._look_at(worker, now)
        if now >= self._deadline and self._worker is not None:
            self._worker.kill("did not end in time")
        if self._worker is None and now >= self._start_at:
            self._start()

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        if worker.killed_at is not None:
            if now - worker.killed_at > STUCK_SECONDS and not worker.is_stuck_said:
                worker.is_stuck_said = True
                log.error("worker %d was killed and cannot die yet: look after the disk", worker.process_id)
        elif worker.stage is not Stage.STARTING:
            if now - worker.beat_at > STILL_SECONDS:
                worker.kill(f"stood still for {STILL_SECONDS:g} s")
        elif now - worker.began_at > (UPGRADE_SECONDS if worker is self._next else self._start_seconds):
            if worker is self._worker:
                self._start_seconds = min(2 * self._start_seconds, LONGEST_START_SECONDS)
            worker.kill("did not become ready in time")

    # -- Pods

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNABORTED:  # that pod is gone already
                    self._fail_to_accept(error)
                    return
                continue
            self._is_accept_failure_said = False
            number = self._held.add(sock, peer)
            if self._worker is not None and self._worker.takes_connections:
                self._held.hand(number, self._worker.channel)

    def _fail_to_accept(self, error: OSError) -> None:
        self._accept_at = time.monotonic() + ACCEPT_PAUSE_SECONDS
        if not self._is_accept_failure_said:
            self._is_accept_failure_said = True
            log.error("a pod cannot be accepted: %s; it waits", error)

    # -- Workers

    def _start(self) -> None:
        is_first, self._has_started = not self._has_started, True
        try:
            self._worker = WorkerProcess(
                self._argv, for_worker(self._environment, is_first=is_first), is_first=is_first
            )
        except OSError as error:
            self._pause()
            log.error("a worker cannot be started: %s; tried again in %.1f s", error, self._pause_seconds)

    def _pause(self) -> None:
        longer = max(2 * self._pause_seconds, FIRST_PAUSE_SECONDS)
        self._pause_seconds = min(longer, PAUSE_WITH_PODS_SECONDS if len(self._held) else LONGEST_PAUSE_SECONDS)
        self._start_at = time.monotonic() + self._pause_seconds

    def _hear(self, worker: WorkerProcess) -> None:
        """Take in what a worker says, and send it what did not go before."""
        worker.channel.flush()
        try:
            while (received := worker.channel.receive()) is not None:
                message, files = received
                for file in files:
                    os.close(file)
                self._heed(worker, message)
        except ChannelClosed:
            worker.is_open = False  # it is about to die, or does not beat any more

    def _heed(self, worker: WorkerProcess, message: Message) -> None:
        worker.beat_at = time.monotonic()
        said = message.get("say")
        if said == "ready" and worker.stage is Stage.STARTING:
            worker.stage = Stage.READY
            self._ready(worker, message)
        elif said == "serving" and worker.stage is Stage.GIVEN:
            worker.stage = Stage.SERVING
            self._restarts.are_told()
        elif said == "entered" and isinstance(message.get("id"), int):
            self._held.entered(message["id"])
        elif said == "closed" and isinstance(message.get("id"), int):
            self._held.close(message["id"])
        elif said == "restart" and worker is self._worker:
            self._upgrade()

    def _ready(self, worker: WorkerProcess, message: Message) -> None:
        if worker is self._worker:
            self._give(worker)
        elif (reason := self._differs(message)) is not None:
            worker.kill(reason)
        elif self._worker is None:
            self._promote()
        elif self._worker.stage < Stage.GIVEN:
            self._worker.kill("another is ready before it")
        else:
            self._worker.is_handing_over = True
            self._worker.channel.send({"do": "hand over"})
            self._deadline = time.monotonic() + END_SECONDS

    def _differs(self, message: Message) -> str | None:
        """What of the new configuration this keeper cannot follow: it holds the port, and the lock on the directory."""
        listener = self._settings.listener
        own = {"host": listener.host, "port": listener.port, "directory": str(self._settings.directory)}
        changed = [f"--{name} is {message.get(name)} now" for name, value in own.items() if message.get(name) != value]
        return f"{', '.join(changed)}: that takes a stop and a start of ODS" if changed else None

    def _give(self, worker: WorkerProcess) -> None:
        """Give a worker its go, and every connection that stands."""
        self._start_seconds = START_SECONDS
        worker.stage = Stage.GIVEN
        worker.beat_at = time.monotonic()
        lock = self._directory.lock_file
        go = {
            "do": "go",
            "address": self._listening.getsockname()[:2],
            "directory": str(self._settings.directory),
            "restarts": self._restarts.as_dict(),
            "is_first": worker.is_first,
        }
        worker.channel.send(go, [2] if lock is None else [2, lock])
        for number in list(self._held):
            self._held.hand(number, worker.channel)
        worker.channel.send({"do": "all"})

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker has died."""
        if not worker.reap():
            return
        self._hear(worker)
        if worker is self._next:
            self._next = None
            self._refuse(worker)
        else:
            self._worker = None
            self._deadline = float("inf")
            self._follow(worker)
        worker.close()

    def _refuse(self, worker: WorkerProcess) -> None:
        """The one that was to take over did not become ready, or must not."""
        if self._is_ending:
            return
        reason = worker.cause
        log.error("restart: refused, and ODS goes on as it was: %s", reason)
        if self._worker is not None:
            self._worker.channel.send({"do": "refused", "reason": reason})

    def _follow(self, dead: WorkerProcess) -> None:
        """Whatever follows the death of the worker that served, or was to."""
        if self._is_ending:
            self._status = dead.status if dead.status >= 0 else int(dead.stage >= Stage.GIVEN)
        elif dead.is_first and self._is_no_start(dead):
            if dead.said:
                print(dead.said, file=sys.stderr)
            self._status = dead.status
        else:
            self._replace(dead)

    def _is_no_start(self, dead: WorkerProcess) -> bool:
        """Whether ODS was started wrongly: that is told by ending, and not tried again."""
        return dead.status > 0 and (dead.stage < Stage.GIVEN or (dead.status == 2 and dead.stage < Stage.SERVING))

    def _replace(self, dead: WorkerProcess) -> None:
        is_asked_for = dead.is_handing_over and dead.status == 0
        cause = ASKED_FOR if is_asked_for else dead.cause
        self._restarts.add(cause)
        told = (dead.process_id, cause, len(self._held), self._restarts.total)
        if is_asked_for:
            log.info("worker %d ended: %s; another takes over, with %d connections (restart %d)", *told)
        else:
            log.warning("worker %d ended: %s; another takes over, with %d connections (restart %d)", *told)
        if self._next is not None:
            self._promote()
        elif time.monotonic() - dead.began_at < SHORT_LIFE_SECONDS:
            self._pause()
        else:
            self._start_at = self._pause_seconds = 0.0

    def _promote(self) -> None:
        self._worker, self._next = self._next, None
        if self._worker is not None and self._worker.stage is Stage.READY:
            self._give(self._worker)

    # -- Signals

    def _take_signals(self) -> None:
        for number in self._signals.recv(100):
            if number == signal.SIGHUP and not (self._has_terminal and not os.isatty(2)):
                self._upgrade()
            elif number in _SIGNALS:  # a terminal that is gone sends SIGHUP too
                self._end()

    def _upgrade(self) -> None:
        if self._next is not None or self._is_ending or self._worker is None:
            return  # the one that is about to be started finds the code and the configuration as they are
        log.info("restart: a worker is started from the code and the configuration as they are now")
        try:
            self._next = WorkerProcess(self._argv, for_worker(self._environment, is_first=False))
        except OSError as error:
            log.error("restart: refused, and ODS goes on as it was: %s", error)

    def _end(self) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        self._deadline = time.monotonic() + END_SECONDS
        if self._next is not None:
            self._next.kill("ODS is stopped")
        if self._worker is None:
            self._status = 1  # there was none to store what pods have sent
        elif self._worker.stage < Stage.GIVEN:
            self._worker.kill("ODS is stopped")
        else:
            self._worker.channel.send({"do": "stop"})
