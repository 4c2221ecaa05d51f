"""A run to look at afterwards: simulated pods, an outage in the middle, and every point that there is to be of it.

What pods sent is written down on its way to ODS; the times are those of the recordings.
"""

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.influx_server import InfluxServer
from harness.influxql import Point
from harness.ods_process import OdsProcess, run_command
from harness.pod_client import PodClient

PODS = 3
RECORDS_PER_SECOND, SECONDS = 300, 16
#: How long InfluxDB is away: ODS looks at its own figures every 5 seconds. Seconds, by the clock of ODS.
AWAY_SECONDS = 6.0

#: Pods by their addresses. Two have names that a regular expression would read otherwise, and would find in others'.
NAMES = {
    "127.0.1.1": "127.0.1.1",
    "127.0.1.2": "pod.a+b",
    "127.0.1.3": "10.0.0.1",
    "127.0.7.1": "10x0y0z1",
    "127.0.7.2": "podxaab",
    "127.0.7.3": "10.0.0.11",
}
STRANGERS = [address for address in NAMES if address.startswith("127.0.7")]
#: What a pod may call a value, and another name that a regular expression would find in its place.
NASTY_NAME, LOOK_ALIKE = "a/b:c.d-e", "a/b:cxd-e"
STRANGERS_NAMES = ("velocity_x", "state", NASTY_NAME, LOOK_ALIKE)
STRANGERS_SWEEPS = 40

#: All that is sent, a message of each stranger included.
RECORDS = PODS * RECORDS_PER_SECOND * SECONDS + len(STRANGERS) * (STRANGERS_SWEEPS * len(STRANGERS_NAMES) + 1)

_RECORD = re.compile(
    rb"POD2(?P<name>\S+) (?P<number>\S+)\n|POD1\[(?P<level>\w+)\] +(?P<text>[^\n]+?)(?:\n|(?=POD[12])|\Z)"
)


@dataclass(kw_only=True)
class Run:
    """A run that is over, and all there is to know of it."""

    influx: InfluxServer
    ods: OdsProcess
    sent: dict[str, bytes]
    span_ms: tuple[int, int] = (0, 0)
    #: Every point that there is to be, by measurement.
    points: dict[str, list[Point]] = field(default_factory=dict)

    @property
    def data(self) -> list[Point]:
        return [point for of_name in self.points.values() for point in of_name if "value" in point.fields]

    def stored(self, measurement: str) -> list[Point]:
        """What InfluxDB has of one of ODS's own measurements."""
        found = []
        for series in self.influx.query(f"SELECT * FROM {measurement}", database=self.ods.database):
            for time_ns, *cells in series["values"]:
                named_cells = dict(zip(series["columns"][1:], cells, strict=True))
                tags = {key: named_cells.pop(key) for key in ("pod", "event") if key in named_cells}
                found.append(Point(measurement, time_ns, tags, {k: v for k, v in named_cells.items() if v is not None}))
        return found

    def health(self, pod: str) -> list[Mapping[str, Any]]:
        """The figures of a pod, or of `ods`, in the order of time."""
        points = sorted(self.stored("ods_health"), key=lambda point: point.time_ns)
        return [point.fields for point in points if point.tags["pod"] == pod]


def play(influx: InfluxServer, ods: OdsProcess, port: int, folder: Path) -> None:
    """Let all pods send to this port, and take InfluxDB away for a while; returns when the last pod has left."""
    simulation = ["simulate", "--port", str(port), "--pods", str(PODS), "--seed", "7"]
    simulation += ["--rate", str(RECORDS_PER_SECOND), "--seconds", str(SECONDS)]
    with ThreadPoolExecutor(1) as pool:
        played = pool.submit(run_command, *simulation, home=folder)
        for address in STRANGERS:
            with PodClient(port, address=address) as pod:
                numbered = [(name, number) for number in range(STRANGERS_SWEEPS) for name in STRANGERS_NAMES]
                pod.send_lines([b"POD2%s %d\n" % (name.encode(), number) for name, number in numbered])
                pod.send(b"POD1[NOTE]  I am not who you think\n")
                pod.finish()
        _be_away(influx, ods)
    assert played.result().returncode == 0, played.result().stderr


def _be_away(influx: InfluxServer, ods: OdsProcess) -> None:
    ods.wait_for_status(lambda status: status["totals"]["stored"] >= RECORDS / 10, what="some stored points")
    influx.kill()
    away = ods.wait_for_status(lambda status: status["state"] == "buffering", what="the outage")
    end_seconds = away["uptime_seconds"] + AWAY_SECONDS
    ods.wait_for_status(lambda status: status["uptime_seconds"] > end_seconds, what="some seconds of outage")
    influx.start()


def is_told(run: Run) -> bool:
    """Whether ODS has written its last figures, and that nothing comes any more."""
    told, totals = run.health("ods")[-1], run.ods.totals()
    return told["points_per_second"] == 0 and all(told[key] == totals[key] for key in totals)


def all_points(run: Run) -> dict[str, list[Point]]:
    """What was sent, with the times of the recordings, which hold the same in the same order; and ODS's own points."""
    found = {"ods_event": run.stored("ods_event"), "ods_health": run.stored("ods_health")}
    for address, sent in run.sent.items():
        for point in _points_of(run.ods, NAMES[address], sent):
            found.setdefault(point.measurement, []).append(point)
    return found


def _points_of(ods: OdsProcess, pod: str, sent: bytes) -> Iterator[Point]:
    records = list(_RECORD.finditer(sent))
    assert b"".join(record[0] for record in records) == sent, f"{pod}: some of what was sent is not understood"
    data = [(record["name"].decode(), record["number"].decode()) for record in records if record["name"]]
    rows = _recorded(ods, pod, "data")
    assert [(name, number) for _, name, number in rows] == data, f"{pod}: the recording is not what was sent"
    for time_ns, name, number in rows:
        yield Point(name, int(time_ns), {"pod": pod}, {"value": float(number)})
    messages = [record for record in records if record["text"]]
    for (time_ns, _, _), record in zip(_recorded(ods, pod, "log"), messages, strict=True):
        tags = {"pod": pod, "level": record["level"].decode().lower()}
        yield Point("pod_log", int(time_ns), tags, {"message": record["text"].decode()})


def words_in(sent: bytes) -> list[str]:
    """The log messages among what a pod sent, without their levels."""
    return [record["text"].decode() for record in _RECORD.finditer(sent) if record["text"]]


def _recorded(ods: OdsProcess, pod: str, kind: str) -> list[list[str]]:
    rows: list[list[str]] = []
    (folder,) = [path for path in (ods.directory / "recordings").iterdir() if unquote(path.name) == pod]
    for path in sorted(folder.glob(f"*.{kind}.csv*")):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8") as file:
            rows += list(csv.reader(file))[1:]
    return rows
