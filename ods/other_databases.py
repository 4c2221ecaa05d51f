"""Rows that wait for another database than the configured one, and that InfluxDB does not take there.

`--influx-name` was changed while a backlog waited, and the new user may not write to the old database, or the old one
cannot be created again. That is no outage: InfluxDB takes what is written now. So such a database is put off for a
while, its rows wait, and all others go past them.
"""

import logging
import time

from ods.errors import Unavailable
from ods.influx import Influx

log = logging.getLogger(__name__)

#: How long a database is put off. Seconds.
PUT_OFF_SECONDS = 10.0


class OtherDatabases:
    """Which databases are put off now. Belongs to the hub."""

    def __init__(self, influx: Influx) -> None:
        self._influx = influx
        #: Until when, by database. Monotonic clock, seconds.
        self._until: dict[str, float] = {}
        self._said: set[str] = set()

    def put_off(self) -> frozenset[str]:
        """Those whose rows wait now."""
        now = time.monotonic()
        return frozenset(database for database, until in self._until.items() if until > now)

    @property
    def seconds_left(self) -> float | None:
        """When the next of them may be tried again; None where none is put off."""
        now = time.monotonic()
        return min([until - now for until in self._until.values() if until > now], default=None)

    def is_at_fault(self, database: str, error: Unavailable) -> bool:
        """Whether a write to it failed though InfluxDB takes writes to the configured database; then it is put off."""
        if database == self._influx.settings.database or error.retry_after_seconds:
            return False
        try:
            self._influx.probe()
        except Unavailable:
            return False
        self._until[database] = time.monotonic() + PUT_OFF_SECONDS
        if database not in self._said:
            self._said.add(database)
            advice = f"; {error.advice}" if error.advice else ""
            log.error(
                "drain: points wait for the database %r, which takes none: %s%s; all others are sent meanwhile",
                *(database, error.reason, advice),
            )
        return True

    def takes_writes(self, database: str) -> None:
        """A write to it was confirmed."""
        self._until.pop(database, None)
        self._said.discard(database)
