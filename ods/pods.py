"""Who sends: pods by their name, which is the peer's address or what `--pod ADDRESS=NAME` calls it.

Two connections from one address are one pod, and so are two addresses with one name: a pod has one sequence of
reception times, strictly increasing, because InfluxDB silently overwrites a point of the same series and time.
"""

from collections.abc import Mapping

from ods.line_protocol import pod_tag
from ods.protocol import NameBook

#: The pod of events that concern no pod.
ODS = "ods"


class Pod:
    """One pod: its name and address, its reception times, the names it has used, its connections."""

    def __init__(self, name: str, address: str | None, *, max_names: int, is_expected: bool = False) -> None:
        self.name = name
        self.address = address
        #: Whether the operator named it, so that it is missed where it does not come.
        self.is_expected = is_expected
        self.tag = pod_tag(name)
        self.names = NameBook(max_names)
        self.warned_of_names = False
        #: Connections that stand, and all of this run.
        self.connections = 0
        self.connects = 0
        #: When it last connected, when a connection of it last ended, in nanoseconds, and how that was.
        self.connected_ns: int | None = None
        self.left_ns: int | None = None
        self.left_how: str | None = None
        #: Monotonic clock, seconds; None until it has sent something.
        self.last_seen: float | None = None
        self.replies_dropped = 0
        self._latest_ns = 0

    @property
    def latest_ns(self) -> int:
        """The last time that a record of it was given; 0 where none was."""
        return self._latest_ns

    def enter(self, time_ns: int, *, is_new: bool = True) -> None:
        """A connection of it begins, or is taken over from the process before."""
        self.connections += 1
        self.connects += is_new
        self.connected_ns = time_ns

    def leave(self, time_ns: int, how: str) -> None:
        """A connection of it has ended."""
        self.connections -= 1
        self.left_ns, self.left_how = time_ns, how

    def take_times(self, time_ns: int, count: int) -> range:
        """Times for records received at this time: consecutive nanoseconds, after the last one used."""
        return self.repeat_times(max(time_ns, self._latest_ns + 1), count)

    def repeat_times(self, first_ns: int, count: int) -> range:
        """The times that records were given before, from this one on; none of them is given again."""
        end_ns = first_ns + count
        if end_ns > self._latest_ns:
            self._latest_ns = end_ns - 1
        return range(first_ns, end_ns)


class Pods:
    """All pods seen, and those that the operator named."""

    def __init__(self, names: Mapping[str, str], *, max_names: int) -> None:
        self._names = names
        self._max_names = max_names
        self.by_name: dict[str, Pod] = {}
        for name in names.values():
            self.named(name)

    def at(self, address: str) -> Pod:
        """The pod with this address."""
        pod = self.named(self._names.get(address, address))
        pod.address = address
        return pod

    def ods(self) -> Pod:
        """The pod that ODS's own events belong to; it is not listed."""
        return Pod(ODS, None, max_names=0)

    def named(self, name: str) -> Pod:
        """The pod of this name; where it was not seen in this run, its address is None or what `--pod` says."""
        if name not in self.by_name:
            address = next((address for address, given in self._names.items() if given == name), None)
            self.by_name[name] = Pod(name, address, max_names=self._max_names, is_expected=address is not None)
        return self.by_name[name]
