"""What is to be said of one pod."""

from dataclasses import dataclass

from ods.status_view.reading import Part
from ods.status_view.words import UNKNOWN, clock_time

CONNECTED, LEFT, AWAY, NEVER_SEEN = "connected", "left", "away", "never_seen"


@dataclass(frozen=True, slots=True)
class Entry:
    """A log message of a pod."""

    time_ns: float | None
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. `away`: not connected, and its ODS does not tell whether it ever was."""

    name: str
    address: str
    state: str
    #: When it connected, or left.
    since_ns: float | None
    left_how: str
    is_expected: bool
    entries: list[Entry]
    part: Part

    def words(self, now_ns: float | None) -> str:
        """Its state in a few words."""
        if self.state == NEVER_SEEN:
            return "never seen"
        since = "" if self.since_ns is None else f" {clock_time(self.since_ns, now_ns)}"
        return f"{self.state}{since}"


def pods(snapshot: Part) -> list[Pod]:
    """All pods, in the order of their names."""
    return sorted((_pod(part) for part in snapshot.parts("pods")), key=lambda pod: pod.name)


def _pod(part: Part) -> Pod:
    state = _state(part)
    return Pod(
        name=part.text("name") or UNKNOWN,
        address=part.text("address"),
        state=state,
        since_ns=part.number("connected_ns" if state == CONNECTED else "left_ns"),
        left_how="" if state == CONNECTED else part.text("left_how"),
        is_expected=bool(part.flag("expected")),
        entries=[_entry(entry) for entry in part.parts("log")],
        part=part,
    )


def _state(part: Part) -> str:
    if part.flag("connected"):
        return CONNECTED
    if part.number("left_ns") is not None:
        return LEFT
    was_here = part.number("connects") or part.number("last_seen_seconds") is not None
    return AWAY if was_here or part.number("connects") is None else NEVER_SEEN


def _entry(part: Part) -> Entry:
    return Entry(part.number("time_ns"), part.text("level"), part.text("text"))
