"""An InfluxDB that does what a test says, with the interface of `ods.influx.Influx` as the stores use it."""

import gzip
from collections.abc import Callable

from gevent.event import AsyncResult

from components.hub import wait_in_hub
from ods.errors import InfluxError, Rejected, Suspect, Unavailable
from ods.settings import InfluxSettings


class Call:
    """A write that is under way until the test answers it."""

    def __init__(self, lines: list[str], database: str) -> None:
        self.lines = lines
        self.database = database
        self._answer = AsyncResult()

    def confirm(self) -> None:
        """204."""
        self._answer.set(None)

    def fail(self, error: InfluxError) -> None:
        """Any other answer, or none."""
        self._answer.set_exception(error)

    def wait(self) -> None:
        """What the writer does: raises what the test said."""
        self._answer.get()


class FakeInflux:
    """Confirms everything, unless it is held, away, or finds a line bad."""

    def __init__(self, database: str = "ods") -> None:
        self.settings = InfluxSettings(host="fake", port=1, user="u", password="p", database=database)
        #: Every write, answered or not, in the order of their beginnings.
        self.calls: list[Call] = []
        #: The lines confirmed, by database, as often as they were.
        self.stored: dict[str, list[str]] = {}
        #: While set, writes and probes fail with it.
        self.error: Unavailable | None = None
        #: Why a line is refused; None for a good one.
        self.find_fault: Callable[[str], str | None] = lambda line: None
        #: Why the server fails over a batch with this line, while it takes others; None for one it does not fail over.
        self.find_poison: Callable[[str], str | None] = lambda line: None
        #: While true, compressed writes are never answered.
        self.is_gzip_swallowed = False
        #: How many connections were given up.
        self.dropped_idle = 0
        #: While true, writes wait for the test's answer.
        self.is_held = False
        self.probes = 0
        #: While set, probes fail with it, and writes do not.
        self.probe_error: Unavailable | None = None
        #: While true, probes wait for the test's answer.
        self.is_probe_held = False
        self.held_probes: list[Call] = []

    def write(self, lines: bytes, *, database: str, is_gzip: bool = False) -> None:
        """As `Influx.write`. A batch with a bad line is refused as a whole, the harder one of InfluxDB's two ways."""
        text = (gzip.decompress(lines) if is_gzip else lines).decode()
        call = Call(text.removesuffix("\n").split("\n"), database)
        self.calls.append(call)
        if self.is_held or (is_gzip and self.is_gzip_swallowed):
            call.wait()
        if self.error is not None:
            raise self.error
        poison = [why for line in call.lines if (why := self.find_poison(line))]
        if poison:
            raise Suspect(poison[0])
        faults = [fault for line in call.lines if (fault := self.find_fault(line))]
        if faults:
            raise Rejected(faults[0])
        self.stored.setdefault(database, []).extend(call.lines)

    def probe(self) -> None:
        """As `Influx.probe`."""
        self.probes += 1
        if self.is_probe_held:
            self.held_probes.append(Call([], self.settings.database))
            self.held_probes[-1].wait()
        error = self.error or self.probe_error
        if error is not None:
            raise error

    def drop_idle(self) -> None:
        """As `Influx.drop_idle`."""
        self.dropped_idle += 1

    def call(self, number: int) -> Call:
        """The write of this number, counted from 0; waits until it has begun."""
        wait_in_hub(lambda: len(self.calls) > number, f"write {number}")
        return self.calls[number]
