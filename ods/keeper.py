"""The keeper: holds what must outlive a crash, which is the pods' connections, and has the worker do everything else.

A pod never reconnects: when its connection breaks, it brakes and ends its run. So this process accepts the pods, keeps
a duplicate of each connection, from which it never reads, and hands it to the worker (`ods.commands.worker`), which is
all the rest of ODS. Whatever becomes of the worker, the connections stand and the kernel goes on receiving; another
worker is forked, from the zygote (`ods.zygote`), and handed all of them.

It does nothing that could fail or wait: no gevent, no thread, no data, no disk, no InfluxDB. One loop over a few files:

    the port        a pod connects: accept, hold, hand on
    the channels    the worker lives (a beat each 0.25 s), or tells of connections that have ended; the zygote is ready,
                    or has forked a worker, which is given its go
    the worker      has died: say why, have another forked, at once or after a pause that grows while they die at once
    the zygote      has died: start another, from the code and the configuration as they are now
    signals         SIGTERM, SIGINT: let the worker end in good order, and end with its status
                    SIGHUP: start a second zygote from the code and the configuration as they are now; when it is ready
                    let the worker settle what it holds and end, and have the next one forked from it. One that does not
                    become ready is ended, one whose worker fails in its trial (`ods.trial`) gives way to the former.
                    Where the keeper's own code has changed too, the keeper becomes the new one then (`ods.succession`)
    time            a worker that does not beat stands still: it is killed. One that cannot die (it waits for a disk) is
                    waited for, for it holds the buffer

When the keeper itself dies, the worker sees the end of the channel, stores what it has read and ends. Under systemd the
connections stand then too, and the next keeper is handed them (`ods.descriptor_store`). When the keeper stands still,
the worker hears no answer to its beats, and the watchdog is fed no more.
"""

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
from typing import Any

from ods.acceptance import Acceptance
from ods.backoff import Backoff
from ods.channel import Channel, ChannelClosed, Message
from ods.child_process import ChildProcess, reap_stranger
from ods.descriptor_store import DescriptorStore
from ods.directory import DataDirectory
from ods.held import Held
from ods.keeper_state import ConnectionState, KeeperState, WorkerState, differs
from ods.restarts import ASKED_FOR, FAILED, Restarts
from ods.settings import Settings
from ods.succession import Succession
from ods.worker_process import Stage, WorkerProcess
from ods.zygote_process import ZygoteProcess, adopt_workers
from ods.zygotes import Told, Zygotes

log = logging.getLogger(__name__)

#: A worker whose hub has not beaten for so long stands still. Seconds.
STILL_SECONDS = 3.0
#: How long a worker may take to end in good order. Seconds.
END_SECONDS = 5.0
#: The pause before a worker that follows one that lived for less than a second; it doubles up to the largest, which is
#: small while a pod is connected, whose sends wait. Seconds.
SHORT_LIFE_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, PAUSE_WITH_PODS_SECONDS = 1.0, 0.1, 2.0, 0.2
#: When it is said that a worker which was killed cannot die yet. Seconds.
STUCK_SECONDS = 1.0
#: How long the loop waits at most while nothing is due, and while something is. If it took much longer, the keeper
#: stood still itself, and cannot tell how long the others have. Seconds.
IDLE_SECONDS, BUSY_SECONDS, LATE_SECONDS = 0.5, 0.02, 1.5

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
        store: DescriptorStore | None = None,
        connections: Sequence[ConnectionState] = (),
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._directory = directory
        self._store = store or DescriptorStore(None)
        self._held = Held(tapes=resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4, store=self._store)
        self._held.take_over(connections)
        self._acceptance = Acceptance(listening, self._held)
        self._restarts = Restarts()
        self._worker: WorkerProcess | None = None
        self._zygotes = Zygotes(
            argv,
            environment,
            Told(
                forked=self._welcome,
                not_forked=self._fail_to_start,
                differs=partial(differs, bound_by(settings)),
                refused=self._refuse,
                missed=self._miss,
            ),
        )
        #: Whether a worker was started: what the first one cannot do ends ODS, unless pods are connected already.
        self._has_started = bool(connections)
        self._succession = Succession(argv, environment)
        self._is_upgrade_wanted = False
        self._pause = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        #: When what was begun (a hand-over, the end) must be over.
        self._deadline = float("inf")
        self._is_ending = False
        self._status: int | None = None
        self._signals, self._signalled = socket.socketpair()
        self._has_terminal = os.isatty(2)

    def go_on_from(self, state: KeeperState) -> None:
        """Be the successor of the keeper that this process was. Raises OSError."""
        self._held.take_over(state.connections, last=state.last_number)
        self._restarts.take_over(state.restarts)
        self._has_started = True
        channel = Channel(socket.socket(fileno=state.worker.channel))
        self._worker = WorkerProcess(state.worker.process_id, channel)
        self._worker.stage = Stage.SERVING

    def run(self) -> int:
        """Keep. Returns the exit status."""
        adopt_workers()
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # noted by the descriptor above, acted on in the loop
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # they were held while this keeper took over
        before = time.monotonic()
        while self._status is None:
            now = time.monotonic()
            if now - before > LATE_SECONDS:
                self._forgive(now)
            self._look_at_time(now)
            before = time.monotonic()
            self._wait()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # while the interpreter ends, one more must not change the status
        return self._status

    # -- The loop

    def _wait(self) -> None:
        """Wait until something happens, and see to it."""
        poll, actions = select.poll(), dict[int, Callable[[], object]]()

        def watch(file: int, action: Callable[[], object], events: int = select.POLLIN) -> None:
            poll.register(file, events)
            actions[file] = action

        def watch_child(child: ChildProcess, heed: Callable[[Message], None], bury: Callable[[], None]) -> None:
            events = select.POLLIN | select.POLLOUT if child.channel.has_unsent else select.POLLIN
            if child.is_open:
                watch(child.channel.fileno(), partial(self._hear, child, heed), events)
            watch(child.pidfd, bury)

        watch(self._signals.fileno(), self._take_signals)
        if self._worker is not None:
            worker = self._worker
            watch_child(worker, partial(self._heed, worker), partial(self._bury, worker))
        for zygote in self._zygotes.all():
            watch_child(zygote, partial(self._zygotes.heed, zygote), partial(self._bury_zygote, zygote))
        for child in self._zygotes.leaving:
            watch(child.pidfd, partial(self._zygotes.let_go, child))
        if self._acceptance.is_due(time.monotonic()) and not self._is_ending:
            watch(self._acceptance.fileno(), self._accept)
        is_waiting = self._zygotes.trial is not None or self._succession.is_trying or self._succession.is_due
        is_busy = self._worker is None or self._deadline != float("inf") or is_waiting
        for file, _ in poll.poll((BUSY_SECONDS if is_busy else IDLE_SECONDS) * 1000):
            actions[file]()

    def _children(self) -> list[ChildProcess]:
        return [*self._zygotes.all(), *([] if self._worker is None else [self._worker])]

    def _forgive(self, now: float) -> None:
        for child in self._children():
            child.heard_at = child.began_at = now

    def _look_at_time(self, now: float) -> None:
        self._zygotes.look_at_time(now)
        if self._worker is not None:
            self._look_at_worker(self._worker, now)
        self._store.flush()
        reap_stranger(
            {child.process_id for child in [*self._children(), *self._zygotes.leaving]} | self._succession.processes
        )
        self._look_at_succession(now)
        if self._is_ending:
            return
        if self._zygotes.can_exchange:
            self._exchange()
        if not (self._succession.is_due and self._worker is not None):  # what follows starts its own
            self._zygotes.provide(now, has_worker=self._worker is not None)
        if self._worker is None and now >= self._pause.until:
            self._zygotes.ask_for_worker()

    def _look_at_worker(self, worker: WorkerProcess, now: float) -> None:
        if worker.killed_at is not None:
            if now - worker.killed_at > STUCK_SECONDS and not worker.is_stuck_said:
                worker.is_stuck_said = True
                log.error("worker %d was killed and cannot die yet: look after the disk", worker.process_id)
        elif now >= self._deadline:
            worker.kill("did not end in time")
        elif now - worker.heard_at > STILL_SECONDS:
            worker.kill(f"stood still for {STILL_SECONDS:g} s")
        elif self._zygotes.trial is not None and worker.is_on_trial and now >= self._zygotes.trial.ends_at:
            self._end_trial(worker)

    def _accept(self) -> None:
        for number in self._acceptance.accept():
            if self._worker is not None and self._worker.takes_connections:
                self._held.hand(number, self._worker.channel)

    def _hear(self, child: ChildProcess, heed: Callable[[Message], None]) -> None:
        """Take in what a child says, and send it what did not go before."""
        child.channel.flush()
        try:
            while child.is_open and (received := child.channel.receive()) is not None:
                message, files = received
                for file in files:
                    os.close(file)
                child.heard_at = time.monotonic()
                heed(message)
        except ChannelClosed:
            child.is_open = False  # it is about to die, or does not beat any more

    # -- The worker

    def _fail_to_start(self, reason: object) -> None:
        self._lengthen_pause()
        log.error("a worker cannot be started: %s; tried again in %.1f s", reason, self._pause.seconds)

    def _lengthen_pause(self) -> None:
        self._pause.pause(time.monotonic(), longest_seconds=PAUSE_WITH_PODS_SECONDS if len(self._held) else None)

    def _give(self, worker: WorkerProcess) -> None:
        """Give a worker its go, and every connection that stands."""
        self._worker = worker
        worker.is_first, self._has_started = not self._has_started, True
        if self._zygotes.trial is not None:
            worker.is_on_trial = True
            self._zygotes.trial.given(time.monotonic())
        lock = self._directory.lock_file
        go = {
            "do": "go",
            "address": self._listening.getsockname()[:2],
            "directory": str(self._settings.directory),
            "restarts": self._restarts.as_dict() | {"is_on_trial": worker.is_on_trial},
            "is_first": worker.is_first,
            "pods_stay": self._store.is_there,
        }
        worker.channel.send(go, [2] if lock is None else [2, lock])
        for number in list(self._held):
            self._held.hand(number, worker.channel)
        worker.channel.send({"do": "all"})

    def _heed(self, worker: WorkerProcess, message: Message) -> None:
        said = message.get("say")
        if said == "serving" and worker.stage is Stage.GIVEN:
            worker.stage = Stage.SERVING
            self._restarts.are_told()
            if self._zygotes.trial is not None and worker.is_on_trial:
                self._zygotes.trial.serving(worker.heard_at)
        elif said == "beat":
            worker.channel.send({"do": "beat"})
        elif said == "entered" and isinstance(message.get("id"), int):
            self._held.entered(message["id"])
        elif said == "closed" and isinstance(message.get("id"), int):
            self._held.close(message["id"])
        elif said == "restart":
            self._upgrade()

    def _bury(self, worker: WorkerProcess) -> None:
        """The worker has died."""
        if not worker.reap():
            return
        self._hear(worker, partial(self._heed, worker))
        self._worker = None
        self._deadline = float("inf")
        status = worker.status or 0
        if self._is_ending:
            self._status = status if status >= 0 else 1
        elif worker.is_first and status == 2 and worker.stage < Stage.SERVING:
            self._status = status  # ODS was started wrongly: that is told by ending, and not tried again
        elif worker.is_on_trial and status and self._zygotes.trial is not None:
            self._fall_back(worker.cause)
        else:
            self._replace(worker)
        worker.close()

    def _replace(self, dead: WorkerProcess) -> None:
        is_asked_for = dead.is_handing_over and dead.status == 0
        cause = ASKED_FOR if is_asked_for else dead.cause
        self._restarts.add(cause)
        told = (dead.process_id, cause, len(self._held), self._restarts.total)
        if is_asked_for:
            log.info("worker %d ended: %s; another takes over, with %d connections (restart %d)", *told)
        else:
            log.warning("worker %d ended: %s; another takes over, with %d connections (restart %d)", *told)
        if not is_asked_for and time.monotonic() - dead.began_at < SHORT_LIFE_SECONDS:
            self._lengthen_pause()
        else:
            self._pause.reset()

    def _welcome(self, worker: WorkerProcess) -> None:
        if self._is_ending:
            self._zygotes.dismiss(worker)
        else:
            self._give(worker)

    def _bury_zygote(self, zygote: ZygoteProcess) -> None:
        if zygote.reap():
            self._hear(zygote, partial(self._zygotes.heed, zygote))
            self._zygotes.bury(zygote)

    def _miss(self, zygote: ZygoteProcess) -> None:
        """There is nothing to fork a worker from."""
        if self._is_ending:
            return
        if not self._has_started and not zygote.is_ready and (zygote.status or 0) > 0:
            print(zygote.said, file=sys.stderr)
            self._status = zygote.status  # ODS was started wrongly
        elif self._zygotes.trial is not None and self._worker is None:
            self._fall_back(zygote.cause)
        else:
            self._zygotes.lengthen_pause(has_worker=self._worker is not None)
            if zygote.is_ready or self._worker is None:
                log.warning("what workers are forked from ended: %s; it is started again", zygote.cause)

    # -- An upgrade

    def _upgrade(self) -> None:
        if self._zygotes.next is not None or self._is_ending or self._succession.is_trying:
            return
        if self._zygotes.trial is not None:
            self._is_upgrade_wanted = True
            return
        log.info("restart: a worker is started from the code and the configuration as they are now")
        if self._worker is None:
            self._zygotes.begin_upgrade()
            return
        try:
            self._succession.try_out(self._state(self._worker))
        except OSError as error:
            self._refuse(error)

    def _refuse(self, reason: object) -> None:
        """What was to take over did not become ready, or must not."""
        self._succession.forget()
        if self._is_ending:
            return
        log.error("restart: refused, and ODS goes on as it was: %s", reason)
        if self._worker is not None:
            self._worker.channel.send({"do": "refused", "reason": str(reason)})

    def _exchange(self) -> None:
        """The new version is ready: let the worker settle what it holds, and end."""
        self._zygotes.exchange()
        self._pause.reset()
        if self._worker is not None:
            self._worker.is_handing_over = True
            self._worker.channel.send({"do": "hand over"})
            self._deadline = time.monotonic() + END_SECONDS

    def _end_trial(self, worker: WorkerProcess) -> None:
        """The time of the trial is over."""
        if worker.stage is not Stage.SERVING:
            worker.kill("did not start in time")
            return
        worker.is_on_trial = False
        worker.channel.send({"do": "accepted"})
        self._zygotes.accept()
        if self._is_upgrade_wanted:
            self._is_upgrade_wanted = False
            self._upgrade()

    def _fall_back(self, cause: str) -> None:
        """Go on with the version before."""
        self._succession.forget()
        self._restarts.add(FAILED + cause)
        log.error(
            "restart: the new version failed: %s; the one before takes over, with %d connections (restart %d)",
            *(cause, len(self._held), self._restarts.total),
        )
        self._zygotes.fall_back()
        self._is_upgrade_wanted = False
        self._pause.reset()

    # -- The keeper's own code

    def _look_at_succession(self, now: float) -> None:
        verdict = self._succession.look(now)
        if verdict is not None and verdict.reason:
            self._refuse(verdict.reason)
        elif verdict is not None and not self._is_ending:
            self._zygotes.begin_upgrade()
        elif self._succession.is_due and self._worker is not None and self._is_quiet(self._worker):
            self._succeed(self._worker)

    def _is_quiet(self, worker: WorkerProcess) -> bool:
        """Whether nothing is under way that the next keeper would have to know of."""
        is_at_work = worker.stage is Stage.SERVING and worker.is_open and not worker.is_handing_over
        is_unhurt = worker.killed_at is None and not worker.channel.has_unsent and not self._store.has_unsaid
        return (
            is_at_work
            and is_unhurt
            and self._zygotes.next is None
            and self._zygotes.trial is None
            and not self._is_ending
        )

    def _succeed(self, worker: WorkerProcess) -> None:
        """Become the next keeper, once this one's zygote has ended: it is of no use to that one."""
        self._zygotes.dismiss_present()
        if self._zygotes.leaving:
            return
        self._take_signals()
        if not self._is_ending and self._succession.is_due:
            self._succession.succeed(self._state(worker))

    def _state(self, worker: WorkerProcess) -> KeeperState:
        """What a successor is left."""
        return KeeperState(
            listening=self._listening.fileno(),
            lock=self._directory.lock_file,
            last_number=self._held.last,
            connections=self._held.state(),
            worker=WorkerState(process_id=worker.process_id, channel=worker.channel.fileno()),
            restarts=self._restarts.as_dict(),
            stored=self._store.names,
            bound=bound_by(self._settings),
        )

    # -- Signals

    def _take_signals(self) -> None:
        for number in self._noted_signals():
            if number == signal.SIGHUP and not (self._has_terminal and not os.isatty(2)):
                self._upgrade()
            elif number in _SIGNALS:  # a terminal that is gone sends SIGHUP too
                self._end(pods_stay=number == signal.SIGTERM)  # if this is no restart, systemd ends the connections

    def _noted_signals(self) -> bytes:
        try:
            return self._signals.recv(100)
        except BlockingIOError:
            return b""

    def _end(self, *, pods_stay: bool = False) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        self._deadline = time.monotonic() + END_SECONDS
        for zygote in self._zygotes.all():
            zygote.kill("ODS is stopped")
        if self._worker is None:
            self._status = int(self._has_started)  # there was none to store what pods have sent
        else:
            self._worker.channel.send({"do": "stop", "pods_stay": pods_stay and self._store.is_there})


def bound_by(settings: Settings) -> dict[str, Any]:
    """What of the options no worker and no keeper that follows may change: the port is taken, the directory locked."""
    return {"host": settings.listener.host, "port": settings.listener.port, "directory": str(settings.directory)}
