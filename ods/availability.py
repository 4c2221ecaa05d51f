"""Whether InfluxDB can take points: the one place that knows of an outage, and the one that speaks of it.

An outage begins when a write fails and ends when a write that began after it is confirmed. What an older write reports
late changes nothing: a request may hang for seconds while others are answered.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ods.errors import Unavailable

log = logging.getLogger(__name__)

#: No server's `Retry-After` is waited for longer than this. Seconds.
MAX_RETRY_AFTER_SECONDS = 30.0
#: At most this many reasons of one outage are logged.
SAID_REASONS = 20
#: This many outages of a run are remembered.
REMEMBERED_OUTAGES = 1000


@dataclass(slots=True)
class Outage:
    """A time in which InfluxDB took nothing. Monotonic clock, seconds."""

    began: float
    reason: str
    #: When it began by the clock of ODS, in nanoseconds since 1970 (UTC).
    began_ns: int = 0
    ended: float | None = None
    #: When the backlog that it left was empty.
    drained: float | None = None
    #: What has been said of it: a server that fails now this way, now that way, is not news each time.
    said: set[str] = field(default_factory=set)

    def seconds(self, now: float) -> float:
        """How long it lasted, or has lasted."""
        return (self.ended if self.ended is not None else now) - self.began

    def time_ns(self, moment: float) -> int:
        """A moment of it, given on the monotonic clock, by the clock of ODS."""
        return self.began_ns + int((moment - self.began) * 1e9)


class Availability:
    """The state of InfluxDB as its answers show it. `on_change` is called when an outage has begun or ended."""

    def __init__(
        self,
        *,
        url: str,
        on_change: Callable[[bool, str], None] = lambda available, detail: None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._url = url
        self._now_ns = now_ns
        self._on_change = on_change
        self.outage: Outage | None = None
        #: The outages of this run, over or not, and how many there were.
        self.outages: deque[Outage] = deque(maxlen=REMEMBERED_OUTAGES)
        self.outages_begun = 0
        self._ended_seconds = 0.0
        self.last_error: str | None = None
        #: Whether anything is known yet.
        self.is_known = False
        #: Not to be asked again before this time. Monotonic clock, seconds.
        self.retry_at = 0.0
        self._confirmed_began = float("-inf")

    @property
    def latest(self) -> Outage | None:
        """The outage that began last, over or not."""
        return self.outages[-1] if self.outages else None

    def outage_seconds(self, now: float) -> float:
        """How long all outages of this run lasted, or have lasted. `now`: monotonic clock, seconds."""
        return self._ended_seconds + (self.outage.seconds(now) if self.outage is not None else 0.0)

    @property
    def confirmed_began(self) -> float:
        """When the latest of the writes that were confirmed began."""
        return self._confirmed_began

    @property
    def is_available(self) -> bool:
        """Whether writes go to InfluxDB; true also as long as nothing is known."""
        return self.outage is None

    def confirmed(self, began: float) -> None:
        """A write that began at this time was confirmed."""
        self._confirmed_began = max(self._confirmed_began, began)
        if not self.is_known:
            self.is_known = True
            log.info("InfluxDB at %s is available", self._url)
        if self.outage is not None and began >= self.outage.began:
            self._end(self.outage)

    def failed(self, began: float, error: Unavailable) -> None:
        """A write that began at this time failed."""
        if began < self._confirmed_began:
            return
        now = time.monotonic()
        self.is_known = True
        # Another request, which was under way and fails without such a time, does not take it back.
        self.retry_at = max(self.retry_at, now + min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
        self.last_error = error.reason
        if self.outage is None:
            self.outage = Outage(now, error.reason, self._now_ns())
            self.outages.append(self.outage)
            self.outages_begun += 1
            self._on_change(False, error.reason)
        if error.reason not in self.outage.said and len(self.outage.said) < SAID_REASONS:
            self.outage.said.add(error.reason)
            advice = f"; {error.advice}" if error.advice else ""
            log.warning("InfluxDB at %s is unavailable: %s%s; points are buffered", self._url, error.reason, advice)

    def _end(self, outage: Outage) -> None:
        outage.ended = time.monotonic()
        self.outage = None
        self.retry_at = 0.0
        seconds = outage.seconds(outage.ended)
        self._ended_seconds += seconds
        log.info("InfluxDB at %s is available again after %.1f s", self._url, seconds)
        self._on_change(True, f"after {seconds:.1f} s: {outage.reason}")
