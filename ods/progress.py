"""The one check of progress: whether what has work to do gets on with it.

Every part that could stand still says whether it has work, and counts what it has done. One that has work and whose
count does not move is said to stand still, and is told to heal itself where it can; again and again, for as long as it
takes. Where only a restart could heal it, systemd's watchdog is fed no more. A native thread watches over the hub
itself, which cannot say anything once it stands still.
"""

import faulthandler
import logging
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from ods.worker import sleep_natively, start_natively

log = logging.getLogger(__name__)

#: How often progress is looked at. Seconds.
CHECK_SECONDS = 5.0
#: What has work and does none for this long stands still. Seconds.
STANDSTILL_SECONDS = 20.0
#: A disk that has been at one thing for this long hangs. Seconds.
HANGING_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class Watched:
    """A part whose progress is looked at."""

    name: str
    has_work: Callable[[], bool]
    #: Changes with everything that is done.
    done: Callable[[], Hashable]
    #: What may get it going again; None where only waiting is left.
    heal: Callable[[], None] | None = None
    #: Whether a restart is worth what it costs, the run of every pod: only where pods are not served any more.
    calls_for_restart: bool = False
    _seen: Hashable = field(default=None, init=False)
    _moved_at: float = field(default=0.0, init=False)
    stands_still: bool = field(default=False, init=False)

    def look(self, now: float) -> None:
        """See whether it has moved since the last look. Monotonic clock, seconds."""
        done = self.done()
        if done != self._seen or not self.has_work():
            self._seen, self._moved_at = done, now
            if self.stands_still:
                self.stands_still = False
                log.info("%s: moves again", self.name)
        elif now - self._moved_at >= STANDSTILL_SECONDS:
            self._say_and_heal(now)

    def _say_and_heal(self, now: float) -> None:
        if not self.stands_still:
            remedy = "it is started afresh" if self.heal is not None else "all that can be done is to wait"
            log.error("%s: stands still, with work to do, for %.0f s; %s", self.name, now - self._moved_at, remedy)
        self.stands_still = True
        if self.heal is not None:
            self._moved_at = now
            self.heal()


class Progress:
    """Looks at everything; `look` is called by the hub's ticker, every second or so.

    `disk_seconds` tells how long the disks have been at one thing.
    """

    def __init__(self, watched: Sequence[Watched], *, disk_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._watched = watched
        self._disk_seconds = disk_seconds
        self._disk_hung_at = float("-inf")
        self._looked_at = 0.0
        self._beat_at = time.monotonic()
        self._is_watching = False

    @property
    def standing_still(self) -> list[str]:
        """The names of what stands still now."""
        return [part.name for part in self._watched if part.stands_still]

    @property
    def calls_for_restart(self) -> bool:
        """Whether something stands still that a restart could heal.

        It could not heal a disk that hangs, or hung until a moment ago, so that what waited for it has not moved yet.
        """
        if self._beat_at - self._disk_hung_at < STANDSTILL_SECONDS + CHECK_SECONDS:
            return False
        return any(part.stands_still and part.calls_for_restart for part in self._watched)

    def look(self, now: float) -> None:
        """Note that the hub runs; from time to time look at every part. Monotonic clock, seconds."""
        self._beat_at = now
        if self._disk_seconds() >= HANGING_SECONDS:
            self._disk_hung_at = now
        if now - self._looked_at >= CHECK_SECONDS:
            self._looked_at = now
            for part in self._watched:
                part.look(now)

    def start(self) -> None:
        """Watch over the hub, until `stop`."""
        if not self._is_watching:
            self._is_watching = True
            start_natively(self._watch_hub)

    def stop(self) -> None:
        """Watch no more."""
        self._is_watching = False

    def _watch_hub(self) -> None:
        is_said = False
        while self._is_watching:
            sleep_natively(CHECK_SECONDS)
            seconds = time.monotonic() - self._beat_at
            if seconds < STANDSTILL_SECONDS:
                is_said = False
            elif not is_said and self._is_watching:
                is_said = True
                print(f"ods: the hub stands still for {seconds:.0f} s; this is where:", file=sys.__stderr__, flush=True)
                faulthandler.dump_traceback(sys.__stderr__ or 2)
