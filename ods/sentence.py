"""Is telemetry safe? The answer as one plain sentence: the same on the page, in the terminal, for the service manager.

Pure: made from the status (`ods.status`), which holds every figure that is told.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ods.report import duration

#: So little disk left asks for attention. Hours.
FEW_HOURS = 2.0
#: Points that wait for longer than this beside a live InfluxDB are worth saying. Seconds.
SLOW_SECONDS = 5.0
#: A clock this far from the wall clock asks for attention. Seconds.
CLOCK_SECONDS = 1.0
#: So many missing pods are named.
NAMED_PODS = 5
#: What a value can be beyond, the worse one first, and so many of each are named.
SEVERITIES = ("danger", "warning")
NAMED_VALUES = 5

_Status = Mapping[str, Any]


def sentence(status: _Status, *, lost: int, is_losing: bool) -> dict[str, Any]:
    """`level` (live, buffering, draining, losing), `text`, and `notes`: what else asks for attention.

    `lost`: how many points were lost in this run, `is_losing`: whether some are now.
    """
    return {
        "level": "losing" if is_losing else status["state"],
        "text": text(status, lost=lost, is_losing=is_losing),
        "notes": list(_notes(status, lost=lost, is_losing=is_losing)),
    }


def text(status: _Status, *, lost: int, is_losing: bool) -> str:
    """The sentence alone, which needs nothing of the pods."""
    return _losing(status, lost) if is_losing else _TEXTS[status["state"]](status)


def _live(status: _Status) -> str:
    if not status["influx"]["known"]:
        return "Ready: nothing has been sent to InfluxDB yet."
    if status["buffer"]["oldest_seconds"] is not None and status["buffer"]["oldest_seconds"] > SLOW_SECONDS:
        return f"Live: points go to InfluxDB; {_points(status['buffer']['points'])} still wait on this machine's disk."
    return "Live: points go straight to InfluxDB."


def _buffering(status: _Status) -> str:
    since = _clock_time(status["influx"]["outage_began_ns"], status["time_ns"])
    points = status["buffer"]["points"]
    waits = f"{_points(points)} {'waits' if points == 1 else 'wait'} safely on this machine's disk"
    return f"Buffering since {since}: InfluxDB is away; {waits if points else 'nothing waits yet'}."


def _draining(status: _Status) -> str:
    eta_seconds = status["buffer"]["eta_seconds"]
    done = "" if eta_seconds is None else f", done in {duration(eta_seconds)}"
    return f"Draining: {_points(status['buffer']['points'])} to go{done}."


def _losing(status: _Status, lost: int) -> str:
    told = f"; {_points(lost)} {'is' if lost == 1 else 'are'} lost" if lost else ""
    reason = "neither InfluxDB nor the buffer takes points"
    if status["influx"]["available"]:
        reason = "more comes in than can be kept"
    return f"Losing data: {reason}{told}."


_TEXTS = {"live": _live, "buffering": _buffering, "draining": _draining}


def _notes(status: _Status, *, lost: int, is_losing: bool) -> Iterator[str]:
    influx, totals, recordings = status["influx"], status["totals"], status["recordings"]
    if not influx["available"]:
        yield f"InfluxDB at {influx['url']}: {influx['last_error']}"
    if not status["buffer"]["usable"] and influx["available"]:
        yield "The buffer takes nothing: while InfluxDB is away too, points would be lost. Look after the disk."
    if lost and not is_losing:
        yield f"Lost in this run: {_points(lost)}."
    if totals["quarantined"]:
        yield f"In quarantine: {_points(totals['quarantined'])}; `ods quarantine list` says why."
    yield from (f"Stands still: {name}." for name in status["standing_still"])
    if not recordings["recording"]:
        yield "Recordings are stopped: the disk is nearly full. Free some space."
    elif recordings["unrecorded"]:
        yield f"Missing from the recordings: {grouped(recordings['unrecorded'])} records."
    hours_left = status["disk"]["hours_left"]
    if hours_left is not None and hours_left < FEW_HOURS and not is_losing:
        yield f"Room for an outage of {hours_left:.1f} hours at this rate; then points are lost. Make room."
    if abs(status["clock"]["offset_seconds"]) > CLOCK_SECONDS:
        yield f"The clock of ODS is {status['clock']['offset_seconds']:+.1f} s off the wall clock."
    yield from _about_pods(status["pods"])


def _about_pods(pods: list[dict[str, Any]]) -> Iterator[str]:
    if not any(pod["connected"] for pod in pods):
        yield "No pod is connected."
    for severity in SEVERITIES:
        if listed := _beyond(pods, severity):
            yield f"Beyond a {severity} limit: {listed}."
    missing = [pod["name"] for pod in pods if pod["expected"] and not pod["connects"]]
    if missing:
        more = f" and {len(missing) - NAMED_PODS} more" if len(missing) > NAMED_PODS else ""
        yield f"Not seen yet: {', '.join(missing[:NAMED_PODS])}{more}."


def _beyond(pods: list[dict[str, Any]], severity: str) -> str:
    """The values beyond their limits, some of them by name; empty where there are none."""
    count = sum(pod["beyond"][severity] for pod in pods)
    told = [
        f"{pod['name']} {name['name']} ({'above' if name['side'] == 'high' else 'below'} {_measured(name)})"
        for pod in pods
        for name in pod["beyond"]["names"]
        if name["severity"] == severity
    ][:NAMED_VALUES]
    more = [f"{count - len(told)} more"] if count > len(told) else []
    return " and ".join([*([", ".join(told)] if told else []), *more])


def _measured(name: Mapping[str, Any]) -> str:
    """The limit with its unit."""
    return f"{name['limit']:.7g} {name['unit']}".rstrip()


def grouped(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def _points(number: int) -> str:
    return f"{grouped(number)} point{'' if number == 1 else 's'}"


def _clock_time(time_ns: int, now_ns: int) -> str:
    """The local time of this machine, with the date where that is another day."""
    then, now = (time.localtime(each_ns // 1_000_000_000) for each_ns in (time_ns, now_ns))
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)
