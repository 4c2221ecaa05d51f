"""What a drain says of itself: its beginning, how far it is, and the report at its end."""

import logging
from collections.abc import Callable

from ods.availability import Availability, Outage
from ods.ledger import Ledger

log = logging.getLogger(__name__)

#: How often progress is logged. Seconds.
PROGRESS_SECONDS = 10.0
#: A smaller backlog that follows no outage is not worth a line: a slow InfluxDB leaves such a one now and then. Points.
NEWS_POINTS = 10_000


class DrainProgress:
    """One drain after the other, each from its first row sent to the empty backlog. Monotonic clock, seconds."""

    def __init__(self, *, availability: Availability, ledger: Ledger, sifted: Callable[[], tuple[int, int]]) -> None:
        self._availability = availability
        self._ledger = ledger
        #: Points of rejected rows so far: stored, quarantined.
        self._sifted = sifted
        self._reported: Outage | None = None
        self._began: float | None = None
        self._sifted_before = (0, 0)
        self._logged_at = 0.0
        self._points = 0
        self._is_news = False

    @property
    def is_under_way(self) -> bool:
        """Whether there is a drain now."""
        return self._began is not None

    @property
    def points(self) -> int | None:
        """How many points this drain has got out of the backlog so far; None when nothing is drained."""
        return None if self._began is None else self._points + sum(self._sifted_since())

    def points_per_second(self, now: float) -> float | None:
        """The rate so far; None when nothing is drained."""
        return None if self._began is None else self._points / max(now - self._began, 0.001)

    def begin(self, now: float) -> None:
        """Rows are about to be sent. The drain counts from the first ones that are confirmed."""
        if self._began is None:
            self._points, self._is_news = 0, False
            self._sifted_before = self._sifted()
        if not self._points:
            self._began = self._logged_at = now

    def count(self, points: int) -> None:
        """Points have left the backlog, confirmed."""
        self._points += points

    def look(self, now: float) -> None:
        """InfluxDB has answered: say that the drain has begun, or from time to time how far it is."""
        pending = self._ledger.totals().pending
        if not self._is_news and pending and (pending > NEWS_POINTS or self._outage() is not None):
            self._is_news = True
            log.info("drain: begun, %d points wait", pending)
        if now - self._logged_at >= PROGRESS_SECONDS:
            self._logged_at = now
            rate = self.points_per_second(now) or 1.0
            log.info("drain: %d points left, %.0f a second, about %.0f s to go", pending, rate, pending / rate)

    def end(self, now: float) -> None:
        """The backlog is empty."""
        began, self._began = self._began, None
        for over in reversed(self._availability.outages):
            if over.drained is not None:
                break
            if over.ended is not None:
                over.drained = now
        if began is None or not self._is_news:
            return
        sifted, quarantined = self._sifted_since()
        confirmed = self._points + sifted
        backfilled, seconds = confirmed + quarantined, max(now - began, 0.001)
        outage, self._reported = self._outage(), self._availability.latest
        log.info(
            "drain: done, %d points backfilled in %.1f s (%.0f a second): %d confirmed, %d quarantined; %s",
            *(backfilled, seconds, backfilled / seconds, confirmed, quarantined),
            f"the outage lasted {outage.seconds(now):.1f} s" if outage else "there was no outage in this run",
        )

    def _sifted_since(self) -> tuple[int, int]:
        (stored, quarantined), (stored_before, quarantined_before) = self._sifted(), self._sifted_before
        return stored - stored_before, quarantined - quarantined_before

    def _outage(self) -> Outage | None:
        """The outage that this drain follows; None where it follows none."""
        latest = self._availability.latest
        return latest if latest is not self._reported else None
