"""What the keeper has workers forked from: the zygote of the version that serves, of one to come, of the one before.

One is always there, or about to be. An upgrade starts a second; once that is ready they are exchanged, and the former
stays until the new version is proven (`ods.trial`): then it goes, or else takes the place of the new one again.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ods.backoff import Backoff
from ods.channel import Message
from ods.child_process import ChildProcess
from ods.trial import Trial
from ods.worker_process import WorkerProcess
from ods.zygote_process import ZygoteProcess

log = logging.getLogger(__name__)

#: How long a zygote may take to become ready: at a start, where the time doubles each time that it was too short, up to
#: the longest (a slow board, a cold disk), and at an upgrade; and how long it may take to fork. Seconds.
START_SECONDS, LONGEST_START_SECONDS, UPGRADE_SECONDS, FORK_SECONDS = 4.0, 64.0, 10.0, 3.0
#: The pause before another one, and the largest while a worker serves, and while none does. Seconds.
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_WITHOUT_WORKER_SECONDS = 0.5, 60.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is called when something has become of them."""

    #: There is another worker.
    forked: Callable[[WorkerProcess], None]
    #: There is none, and why.
    not_forked: Callable[[object], None]
    #: Why the new version cannot be taken: what it said when it was ready is asked about, None where it can.
    differs: Callable[[Message], str | None]
    #: The upgrade is off, and why.
    refused: Callable[[object], None]
    #: The one that workers are forked from has died.
    missed: Callable[[ZygoteProcess], None]


class Zygotes:
    """All of them. `argv` is that of `ods serve`."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], told: Told) -> None:
        self._argv = argv
        self._environment = environment
        self._told = told
        #: What the worker is forked from; what the next one is, in an upgrade; and what is left of the version before.
        self.present: ZygoteProcess | None = None
        self.next: ZygoteProcess | None = None
        self.trial: Trial | None = None
        #: What is not needed any more, and has been killed.
        self.leaving: list[ChildProcess] = []
        self.pause = Backoff(PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._start_seconds = START_SECONDS

    def all(self) -> list[ZygoteProcess]:
        """Those that are needed."""
        former = None if self.trial is None else self.trial.former
        return [zygote for zygote in (self.present, self.next, former) if zygote is not None]

    def look_at_time(self, now: float) -> None:
        """End what takes too long."""
        for zygote in self.all():
            if zygote.killed_at is None and now - zygote.began_at > self._limit_seconds(zygote):
                if not zygote.is_ready and zygote is self.present:
                    self._start_seconds = min(2 * self._start_seconds, LONGEST_START_SECONDS)
                zygote.kill("did not fork in time" if zygote.is_ready else "did not become ready in time")

    def _limit_seconds(self, zygote: ZygoteProcess) -> float:
        if zygote.is_ready:
            return FORK_SECONDS if zygote.is_asked else float("inf")
        return UPGRADE_SECONDS if zygote is self.next else self._start_seconds

    def provide(self, now: float, *, has_worker: bool) -> None:
        """Start one where there is none."""
        if self.present is not None or now < self.pause.until:
            return
        try:
            self.present = ZygoteProcess(self._argv, self._environment)
        except OSError as error:
            self.lengthen_pause(has_worker=has_worker)
            log.error("a worker cannot be started: %s; tried again in %.1f s", error, self.pause.seconds)

    def lengthen_pause(self, *, has_worker: bool) -> None:
        """Wait longer before another is started."""
        longest = None if has_worker else LONGEST_PAUSE_WITHOUT_WORKER_SECONDS
        self.pause.pause(time.monotonic(), longest_seconds=longest)

    def ask_for_worker(self) -> None:
        """Have a worker forked, where that is possible now."""
        zygote = self.present
        if zygote is None or not zygote.is_ready or zygote.is_asked or zygote.killed_at is not None:
            return
        try:
            zygote.ask_for_worker()
        except OSError as error:
            self._told.not_forked(error)

    def heed(self, zygote: ZygoteProcess, message: Message) -> None:
        """Do what a zygote's message calls for."""
        said = message.get("say")
        if said == "ready" and not zygote.is_ready:
            self._ready(zygote, message)
        elif said == "forked" and zygote.is_asked and isinstance(message.get("id"), int):
            try:
                worker = zygote.forked(message["id"])
            except OSError as error:
                self._told.not_forked(error)
            else:
                self._told.forked(worker)
        elif said == "not forked":
            zygote.forget_asked()
            self._told.not_forked(message.get("reason"))

    def _ready(self, zygote: ZygoteProcess, message: Message) -> None:
        if zygote is not self.present and (reason := self._told.differs(message)) is not None:
            zygote.kill(reason)
            return
        zygote.told = message
        if zygote is self.present:
            self._start_seconds = START_SECONDS
            self.pause.reset()

    def bury(self, zygote: ZygoteProcess) -> None:
        """One has died; what it has forked lives."""
        if zygote is self.next:
            self.next = None
            self._told.refused(zygote.cause)
        elif zygote is self.present:
            self.present = None
            self._told.missed(zygote)
        else:
            self.trial = None
        zygote.close()

    def dismiss(self, child: ChildProcess) -> None:
        """Let a child that is not needed any more end."""
        child.kill("not needed any more")
        child.is_open = False
        self.leaving.append(child)

    def dismiss_present(self) -> None:
        """Fork no more workers."""
        if self.present is not None:
            self.dismiss(self.present)
            self.present = None

    def let_go(self, child: ChildProcess) -> None:
        """A child that was dismissed has died."""
        if child.reap():
            self.leaving.remove(child)
            child.close()

    # -- An upgrade

    def begin_upgrade(self) -> None:
        """Start one from the code and the configuration as they are now."""
        try:
            self.next = ZygoteProcess(self._argv, self._environment)
        except OSError as error:
            self._told.refused(error)

    @property
    def can_exchange(self) -> bool:
        """Whether the new version is ready, and no worker of the old one is being forked."""
        is_free = self.present is None or not self.present.is_asked
        return self.next is not None and self.next.is_ready and self.next.killed_at is None and is_free

    def exchange(self) -> None:
        """Have the workers to come forked from the one that is new; the one before stays until it is proven."""
        former, self.present, self.next = self.present, self.next, None
        if former is not None and former.is_ready and former.killed_at is None:
            self.trial = Trial(former)
        elif former is not None:
            self.dismiss(former)

    def accept(self) -> None:
        """The new version is proven."""
        if self.trial is not None:
            self.dismiss(self.trial.former)
            self.trial = None

    def fall_back(self) -> None:
        """The new version has failed: have the workers to come forked from the one before."""
        if self.trial is None:
            return
        self.dismiss_present()
        self.present, self.trial = self.trial.former, None
