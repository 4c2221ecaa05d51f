"""A snapshot as lines for a pipe: no colour, no layout, one thing a line, `label: key=value key=value`.

Labels and keys are for scripts to rely on: keys have the names of `/api/status`, values are plain numbers (bytes,
seconds), `yes` or `no`, times with their distance from UTC, and `-` for what does not apply. What holds a space or a
quotation mark is quoted as in JSON. New keys come at the end of a line or on lines of their own.
"""

import json
import re
from collections.abc import Iterator, Sequence

from ods.status_view.boot import Boot, boot
from ods.status_view.pods import Pod, pods
from ods.status_view.reading import Part, clean
from ods.status_view.telling import COUNTERS, drain, sentence
from ods.status_view.words import full_time

_BARE = re.compile(r"[\w.:/@%+,()<>\[\]-]+")

_SNAPSHOT = ("version", "state", "healthy", "uptime_seconds", "started_ns", "time_ns")
_INFLUX = ("available", "url", "database", "outage_began_ns", "outage_seconds", "last_error")
_BUFFER = ("points", "bytes", "limit_bytes", "oldest_seconds", "usable")
_DISK = ("free_bytes", "hours_left")
_RECORDINGS = ("recording", "unrecorded", "bytes")
_CLOCK = ("offset_seconds", "steps_forward", "steps_back")
_OUTAGES = ("count", "seconds")
_OUTAGE = ("began_ns", "ended_ns", "seconds", "drained_ns", "reason")
_POD = ("connections", "connects", "connected_ns", "left_ns", "left_how", "last_seen_seconds", "points_per_second")
_POD_END = ("names", "replies_dropped")


def lines(snapshot: Part, *, source: str, only_boot: bool = False) -> Iterator[str]:
    """The whole snapshot, or the sentence and why a pod does not boot. `source` is where it was asked for."""
    told = sentence(snapshot)
    yield f"sentence: {told.level}: {told.text}"
    yield from (f"note: {note}" for note in told.notes)
    if not only_boot:
        yield _line("ods", snapshot, _SNAPSHOT, source=source)
        yield from _stores(snapshot)
        yield from _outages(snapshot)
        yield from (f"standing_still: {name}" for name in snapshot.texts("standing_still"))
    yield from _boot(boot(snapshot))
    if not only_boot:
        for pod in pods(snapshot):
            yield from _pod(pod)


def one_line(snapshot: Part, *, only_boot: bool = False) -> str:
    """The whole in one line, for one that follows another."""
    told = sentence(snapshot)
    text = boot(snapshot).conclusion if only_boot else told.text
    rate = sum(pod.number("points_per_second") or 0 for pod in snapshot.parts("pods"))
    connected = sum(pod.flag("connected") is True for pod in snapshot.parts("pods"))
    pairs = [("time", full_time(snapshot.number("time_ns")) or ""), ("level", told.level)]
    pairs += [(counter, _number(snapshot.part("totals").number(counter))) for counter in COUNTERS]
    pairs += [("points_per_second", _number(round(rate, 1))), ("pods_connected", str(connected)), ("text", text)]
    return _pairs(pairs)


def trouble_line(trouble: str, time_ns: int) -> str:
    """The line in place of `one_line` where no ODS answers."""
    return _pairs([("time", full_time(time_ns) or ""), ("level", "unreachable"), ("text", trouble)])


def _stores(snapshot: Part) -> Iterator[str]:
    yield _line("influx", snapshot.part("influx"), _INFLUX)
    yield _line("buffer", snapshot.part("buffer"), _BUFFER)
    if (under_way := drain(snapshot)) is not None:
        numbers = (under_way.done, under_way.total, under_way.points_per_second, under_way.eta_seconds)
        keys = ("drained_points", "drain_total_points", "drain_points_per_second", "eta_seconds")
        yield f"drain: {_pairs([(key, _number(number)) for key, number in zip(keys, numbers, strict=True)])}"
    yield _line("totals", snapshot.part("totals"), COUNTERS)
    yield _line("disk", snapshot.part("disk"), _DISK)
    yield _line("recordings", snapshot.part("recordings"), _RECORDINGS)
    yield _line("clock", snapshot.part("clock"), _CLOCK)


def _outages(snapshot: Part) -> Iterator[str]:
    outages = snapshot.part("outages")
    yield _line("outages", outages, _OUTAGES, largest_backlog=_number(snapshot.number("largest_backlog")))
    yield from (_line("outage", outage, _OUTAGE) for outage in outages.parts("latest"))


def _boot(shown: Boot) -> Iterator[str]:
    yield f"boot: {shown.conclusion}"
    listening = (("addresses", ",".join(shown.addresses)), ("port", shown.port), ("allow", ",".join(shown.allow)))
    yield f"listening: {_pairs(listening)}"
    for peer in shown.refused:
        pairs = [("address", peer.address), ("count", _number(peer.count)), ("last", full_time(peer.last_ns) or "")]
        yield f"refused: {_pairs([*pairs, ('reason', peer.reason)])}"


def _pod(pod: Pod) -> Iterator[str]:
    head = [("name", pod.name), ("address", pod.address), ("state", pod.state), ("expected", _yes(pod.is_expected))]
    keys = (*_POD, *COUNTERS, *_POD_END)
    yield f"pod: {_pairs([*head, *_values(pod.part, keys)])}"
    for entry in pod.entries:
        pairs = (("pod", pod.name), ("time", full_time(entry.time_ns) or ""), ("level", entry.level))
        yield f"log: {_pairs([*pairs, ('text', entry.text)])}"


def _line(label: str, part: Part, keys: Sequence[str], **more: str) -> str:
    return f"{label}: {_pairs([*_values(part, keys), *more.items()])}"


def _values(part: Part, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each key with its value; a time of nanoseconds under the name of what happened then."""
    for key in keys:
        if key.endswith("_ns"):
            yield key.removesuffix("_ns"), full_time(part.number(key)) or ""
        elif (flag := part.flag(key)) is not None:
            yield key, _yes(flag)
        else:
            yield key, part.text(key) or _number(part.number(key))


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{key}={_quoted(value)}" for key, value in pairs)


def _quoted(value: str) -> str:
    if not value:
        return "-"
    return value if _BARE.fullmatch(value) and value != "-" else json.dumps(clean(value), ensure_ascii=False)


def _number(number: float | None) -> str:
    return "" if number is None else str(number)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
