"""What ODS tells of itself, by every way in which it does, brought into one form so that they can be held together."""

import json
import re
import shlex
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

from harness.ledger import COUNTERS, Status
from harness.loopback import http
from harness.ods_process import OdsProcess, run_command

Counts = dict[str, int]

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
#: One sample of Prometheus's text format: its name, its labels, its number.
_SAMPLE = re.compile(r"^(ods_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Told(NamedTuple):
    """How things are, as one of the ways tells it. What it does not tell of is None."""

    level: str | None
    totals: Counts
    pods: dict[str, Counts] | None
    pending_in_buffer: int | None
    largest_backlog: int | None


def by_api(ods: OdsProcess) -> Told:
    return _of_snapshot(ods.status())


def by_feed(ods: OdsProcess) -> Told:
    """The second `status` that a page is sent: the first may be what other pages were told a moment before."""
    with _opener.open(f"{ods.url}/events", timeout=10) as events:
        event, told = "", []
        for line in events:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            event = value if name == "event" else event
            if name == "data" and event == "status":
                told.append(value)
            if len(told) == 2:
                return _of_snapshot(json.loads(told[1]))
    raise AssertionError("the feed ended without a status")


def by_command_json(ods: OdsProcess) -> Told:
    return _of_snapshot(json.loads(_command(ods, "--json")))


def by_command_lines(ods: OdsProcess) -> Told:
    """What `ods status` prints into a pipe."""
    labelled = [line.partition(": ") for line in _command(ods).splitlines()]
    lines = [(label, _pairs(text)) for label, _, text in labelled]
    found = dict(lines)
    return Told(
        level=next(text.partition(":")[0] for label, _, text in labelled if label == "sentence"),
        totals=_counts(found["totals"]),
        pods={pairs["name"]: _counts(pairs) for label, pairs in lines if label == "pod"},
        pending_in_buffer=int(found["buffer"]["points"]),
        largest_backlog=int(found["outages"]["largest_backlog"]),
    )


def by_command_picture(ods: OdsProcess) -> Told:
    """What `ods status` shows on a terminal, which is a wide one without colours."""
    variables = {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "300", "TERM": "xterm"}
    shown = _command(ods, variables=variables)
    (records,) = re.findall(r"^Records +(.*)$", shown, re.MULTILINE)
    (largest,) = re.findall(r"largest backlog ([\d ]+) points", shown) or ["0"]
    pending = re.findall(r"^Buffer +([\d ]+) points wait", shown, re.MULTILINE) or ["0"]
    return Told(
        level=None,
        totals=dict.fromkeys(COUNTERS, 0) | _told_counts(records),
        pods=None,
        pending_in_buffer=_number(pending[0]),
        largest_backlog=_number(largest),
    )


def by_metrics(ods: OdsProcess) -> Told:
    """What Prometheus scrapes."""
    code, body = http(f"{ods.url}/metrics", timeout_seconds=10)
    assert code == 200, body
    pods: dict[str, Counts] = {}
    single: dict[str, float] = {}
    levels = []
    for name, text, number in _SAMPLE.findall(body.decode()):
        labels = dict(_LABEL.findall(text))
        if name == "ods_sentence_level" and float(number):
            levels.append(labels["level"])
        elif name == "ods_records":
            pods.setdefault(labels["pod"], {})[labels["fate"]] = int(float(number))
        elif counter := re.fullmatch(r"ods_records_(received)_total|ods_(invalid|torn)_lines_total", name):
            pods.setdefault(labels["pod"], {})[counter[1] or counter[2]] = int(float(number))
        elif not labels:
            single[name] = float(number)
    (level,) = levels
    return Told(
        level=level,
        totals={counter: sum(counts[counter] for counts in pods.values()) for counter in COUNTERS},
        pods=pods,
        pending_in_buffer=int(single["ods_buffer_points"]),
        largest_backlog=int(single["ods_largest_backlog_points"]),
    )


def by_report(ods: OdsProcess) -> Told:
    """What an ODS that was stopped has said of its run."""
    pods = {}
    for line in ods.lines_with(r"  pod \S+: \d+ received"):
        name, text = re.findall(r"  pod (\S+): (.*)$", line)[0]
        pods[name] = dict.fromkeys(COUNTERS, 0) | _told_counts(text)
    (largest,) = re.findall(r"largest backlog: (\d+) points", "\n".join(ods.life_log))
    totals = {counter: sum(counts[counter] for counts in pods.values()) for counter in COUNTERS}
    return Told(None, totals, pods, None, int(largest))


#: All of a running ODS.
WAYS: dict[str, Callable[[OdsProcess], Told]] = {
    "the feed of the page": by_feed,
    "/metrics": by_metrics,
    "ods status --json": by_command_json,
    "ods status in a pipe": by_command_lines,
    "ods status on a terminal": by_command_picture,
}


def _command(ods: OdsProcess, *options: str, variables: dict[str, str] | None = None) -> str:
    """What `ods status` prints; its exit status says the same as `/healthz`."""
    done = run_command(
        "status", "--directory", str(ods.directory), *options, home=ods.folder, extra_environment=variables
    )
    assert (done.returncode, done.stderr) == (0 if ods.healthz() == 200 else 1, ""), done
    return done.stdout


def _of_snapshot(status: Status) -> Told:
    return Told(
        level=status["sentence"]["level"],
        totals=_counts(status["totals"]),
        pods={pod["name"]: _counts(pod) for pod in status["pods"]},
        pending_in_buffer=status["buffer"]["points"],
        largest_backlog=status["largest_backlog"],
    )


def _counts(found: dict[str, str] | Status) -> Counts:
    return {counter: int(found[counter]) for counter in COUNTERS}


def _pairs(text: str) -> dict[str, str]:
    """`key=value key="a value"`."""
    with_equals = [word for word in _split(text) if "=" in word]
    return {key: value for key, _, value in (word.partition("=") for word in with_equals)}


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a sentence, with an apostrophe
        return []


def _told_counts(text: str) -> Counts:
    """`1 234 received: 1 200 stored, 34 pending` as numbers."""
    found = re.findall(r"(\d[\d ]*) (received|stored|pending|in flight|quarantined|dropped|invalid|torn)\b", text)
    return {counter.replace(" ", "_"): _number(number) for number, counter in found}


def _number(text: str) -> int:
    return int(text.replace(" ", ""))
