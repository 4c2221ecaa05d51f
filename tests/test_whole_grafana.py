"""Every query of every dashboard, sent to a real InfluxDB that a real ODS has filled, returns what pods had sent.

Simulated pods make a run, and InfluxDB is away in the middle of it. What they sent is written down on its way to ODS;
the times are those of the recordings. Each query is answered from that too, without InfluxDB, and the answers compared.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness.grafana import ALL, DASHBOARDS, Query, expanded, load, named, panels, queries, variables
from harness.influx_server import InfluxServer
from harness.influxql import Series, answer
from harness.ods_process import OdsProcess
from harness.played_run import NAMES, NASTY_NAME, PODS, RECORDS, STRANGERS, Run, all_points, is_told, play, words_in
from harness.tee import Tee
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(180, method="signal")

PODS_CHOSEN = (["10.0.0.1"], ["127.0.1.1", "pod.a+b"], [ALL])
NAMES_CHOSEN = (["velocity_x"], ["velocity_x", "brake_temperature_1"], [ALL])
INTERVALS = ("100ms", "2s")
MARK = "pressure test 3"

#: Of a simulated pod's names these are in no panel of its run: they are among its values.
NOT_IN_THE_RUN = {"brakes_engaged", "loop_count"}


@pytest.fixture(scope="module")
def run(needs_influx: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of simulated pods and of three that resemble them by name, with an outage in its middle."""
    folder = tmp_path_factory.mktemp("run")
    influx = InfluxServer(folder / "influx")
    names = [word for address, name in NAMES.items() if address != name for word in ("--pod", f"{address}={name}")]
    ods = OdsProcess(folder / "ods", influx_port=influx.port, database="ods", options=names)
    began_ms = int(time.time() * 1000)
    try:
        influx.start()
        ods.start()
        with Tee(ods.port) as tee:
            ods.command("mark", *MARK.split())
            play(influx, ods, tee.port, folder)
            run = Run(influx=influx, ods=ods, sent=tee.sent())
        ods.wait_until_settled()
        wait_until(
            lambda: is_told(run), timeout_seconds=30, what="the last figures", state=lambda: run.health("ods")[-3:]
        )
        run.span_ms = (began_ms - 1000, int(time.time() * 1000) + 1000)
        run.points = all_points(run)
        yield run
        ods.stop()
        assert not ods.tracebacks(), ods.log_tail(200)
    finally:
        ods.kill()
        influx.kill()
        print(ods.log_tail())


def options(run: Run) -> dict[str, list[str]]:
    """What each variable offers."""
    return {"pod": list(NAMES.values()), "name": sorted({point.measurement for point in run.data})}


def sent_to_influx(run: Run, statement: str) -> list[Series]:
    return [
        Series(
            series["name"],
            tuple(series.get("tags", {}).items()),
            tuple(series["columns"]),
            tuple(map(tuple, series["values"])),
        )
        for series in run.influx.query(statement, database=run.ods.database)
    ]


def check(run: Run, query: Query, chosen: Mapping[str, Sequence[str]], interval: str) -> list[Series]:
    """Return what InfluxDB answers. Raises AssertionError unless that is something, and right."""
    dashboard = load(next(path for path in DASHBOARDS if path.stem == query.dashboard))
    text = expanded(
        query.text, dashboard=dashboard, chosen=chosen, options=options(run), span_ms=run.span_ms, interval=interval
    )
    found, expected = sent_to_influx(run, text), answer(text, run.points)
    assert found, f"nothing is found by {text}"
    assert {_key(series) for series in found} == {_key(series) for series in expected}, text
    right = {_key(series): series.rows for series in expected}
    for series in found:
        _check_rows(text, series.rows, right[_key(series)])
    return found


def _key(series: Series) -> tuple[object, ...]:
    return series.name, series.tags, series.columns


def _check_rows(text: str, rows: Sequence[tuple[Any, ...]], expected: Sequence[tuple[Any, ...]]) -> None:
    times = [row[0] for row in rows]
    assert times == [row[0] for row in expected], text
    # Points of several pods may have one time; then their order is nobody's.
    for row, right in zip(sorted(rows, key=repr), sorted(expected, key=repr), strict=True):
        for cell, value in zip(row, right, strict=True):
            is_number = isinstance(value, float)
            assert cell == (pytest.approx(value, rel=1e-9, abs=1e-12) if is_number else value), f"{text}: {row} {right}"


def choices(query: Query) -> Iterator[dict[str, list[str]]]:
    for pods in PODS_CHOSEN:
        for names in NAMES_CHOSEN if "${name:" in query.text else ([ALL],):
            yield {"pod": pods, "name": names}


def pods_in(found: Sequence[Series]) -> set[str]:
    """The pods that an answer tells of, by its tags or in a column."""
    tagged = {value for series in found for key, value in series.tags if key == "pod"}
    columns = [(series, series.columns.index("pod")) for series in found if "pod" in series.columns]
    return tagged | {row[at] for series, at in columns for row in series.rows}


EVERY_QUERY = [query for path in DASHBOARDS for query in queries(path)]


@pytest.mark.parametrize("query", EVERY_QUERY, ids=str)
def test_a_query_returns_what_was_sent(run: Run, query: Query) -> None:
    """With one pod chosen, with several, with all; averaged over the finest step and over a coarse one."""
    for chosen in choices(query):
        for interval in INTERVALS if "$__interval" in query.text else INTERVALS[:1]:
            found = check(run, query, chosen, interval)
            if chosen["pod"] != [ALL]:
                assert pods_in(found) <= {*chosen["pod"], "ods"}, "a pod that was not chosen"
                is_of_pods = "${pod:" in query.text and pods_in(found)
                assert not is_of_pods or pods_in(found) >= set(chosen["pod"]), "a pod that was chosen is missing"
            if "name" in chosen and chosen["name"] != [ALL] and "${name:" in query.text:
                assert {series.name for series in found} == set(chosen["name"])


@pytest.mark.parametrize(
    "broken",
    [
        'SELECT last("value") FROM "velocityx" WHERE "pod" =~ /^${pod:regex}$/ AND $timeFilter GROUP BY "pod"',
        'SELECT last("values") FROM "velocity_x" WHERE "pod" =~ /^${pod:regex}$/ AND $timeFilter GROUP BY "pod"',
        'SELECT last("value") FROM "velocity_x" WHERE "pad" =~ /^${pod:regex}$/ AND $timeFilter GROUP BY "pod"',
    ],
)
def test_a_query_that_finds_nothing_is_seen(run: Run, broken: str) -> None:
    """Grafana would show an empty panel and say no word."""
    with pytest.raises(AssertionError, match="nothing is found"):
        check(run, Query("pod-run", "broken", broken, "100ms", "time_series"), {"pod": ["10.0.0.1"]}, "100ms")


def test_names_are_taken_as_they_are_and_not_as_patterns(run: Run) -> None:
    """Each of these is sent by all strangers, and found with one chosen; so is a name with a slash and a dot."""
    (curves,) = [query for query in EVERY_QUERY if query.place.startswith("4 Chosen names")]
    found = check(run, curves, {"pod": [ALL], "name": [NASTY_NAME]}, "100ms")
    assert {series.name for series in found} == {NASTY_NAME}
    assert pods_in(found) == {NAMES[address] for address in STRANGERS}
    found = check(run, curves, {"pod": ["10.0.0.11", "podxaab"], "name": [NASTY_NAME, "state"]}, "100ms")
    assert pods_in(found) == {"10.0.0.11", "podxaab"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_the_variables_offer_every_pod_and_every_name(run: Run, path: Path) -> None:
    dashboard = load(path)
    for chosen in PODS_CHOSEN:
        pods = NAMES.values() if chosen == [ALL] else chosen
        expected = {
            "pod": set(NAMES.values()),
            "name": {point.measurement for point in run.data if point.tags["pod"] in pods},
        }
        for name, variable in variables(dashboard).items():
            text = expanded(variable["query"], dashboard=dashboard, chosen={"pod": chosen}, options=options(run))
            first, *_ = sent_to_influx(run, text)  # some versions of Grafana read no further
            offered = {str(row[-1]) for row in first.rows}
            if variable["regex"]:
                offered = {value for value in offered if re.search(variable["regex"].strip("/"), value)}
            assert offered == expected[name], text


def test_a_run_is_told_by_its_dashboard(run: Run) -> None:
    """Every name of a simulated pod is in some panel, its last speed is the speed, its words are the log."""
    pod = "pod.a+b"
    own = [point for point in run.data if point.tags["pod"] == pod]
    shown, speed, log = set(), None, None
    for query in (each for each in EVERY_QUERY if each.dashboard == "pod-run"):
        found = check(run, query, {"pod": [pod]}, "100ms")
        shown |= {series.name for series in found}
        speed = found[0].rows[0][1] if "Speed" in query.place else speed
        log = found[0] if "Log" in query.place else log
    assert shown - {"pod_log", "ods_event"} == {point.measurement for point in own} - NOT_IN_THE_RUN
    assert speed == max((p for p in own if p.measurement == "velocity_x"), key=lambda p: p.time_ns).fields["value"]
    assert log is not None
    said = words_in(run.sent["127.0.1.2"])
    assert [row[log.columns.index("message")] for row in log.rows] == said[::-1]
    assert "standstill, closing telemetry" in said


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_mark_is_shown_by_every_dashboard_once_whatever_pod_is_chosen(run: Run, path: Path) -> None:
    """By an annotation of its own, in a colour of its own: among the connections of many pods nobody would see it."""
    found = {
        query.place: [
            row for series in check(run, query, {"pod": ["10.0.0.1"], "name": [ALL]}, "") for row in series.rows
        ]
        for query in queries(path)
        if query.result_format == "annotation"
    }
    assert [place for place, rows in found.items() for row in rows if MARK in row] == ["Marks"]


def test_series_are_told_apart_by_their_aliases(run: Run) -> None:
    """Two curves of one panel never have one name, whatever is chosen."""
    for path in DASHBOARDS:
        for panel in panels(load(path)):
            called: list[str] = []
            for query in (each for each in queries(path) if each.place.startswith(f"{panel['id']} ") and each.alias):
                name = ["velocity_x"] if "repeat" in panel else [ALL]
                for series in check(run, query, {"pod": [ALL], "name": name}, "2s"):
                    columns = series.columns[1:]
                    tags = dict(series.tags)
                    called += [named(query.alias, measurement=series.name, tags=tags, column=each) for each in columns]
            assert len(set(called)) == len(called), f"{path.stem} {panel['title']}"


def test_the_run_is_what_it_was_meant_to_be(run: Run) -> None:
    """Pods came and went, and InfluxDB was away: nothing here was compared with nothing."""
    events = [point.tags["event"] for point in sorted(run.points["ods_event"], key=lambda point: point.time_ns)]
    assert events[0] == "started"
    assert events.count("outage_begun") == events.count("outage_ended") == 1
    assert events.count("connected") == events.count("disconnected") == len(NAMES)
    assert len(run.data) + len(run.points["pod_log"]) == run.ods.totals()["stored"]
    assert run.ods.totals()["stored"] == RECORDS


def test_the_health_in_influxdb_is_that_of_the_status(run: Run) -> None:
    status = run.ods.status()
    told = run.health("ods")
    assert {key: told[-1][key] for key in status["totals"]} == status["totals"]
    assert told[-1]["available"] == 1
    assert told[-1]["pods_connected"] == 0
    assert told[-1]["recordings_bytes"] > 0 and told[-1]["disk_free_bytes"] > 0
    for pod in status["pods"]:
        last = run.health(pod["name"])[-1]
        assert {key: last[key] for key in last} == {key: pod[key] for key in last}, pod["name"]


def test_an_outage_can_be_seen_in_the_health_once_it_is_over(run: Run) -> None:
    """What ODS had to tell of it waited in the buffer with the telemetry."""
    away = [told for told in run.health("ods") if not told["available"]]
    assert max(told["pending"] for told in away) > 0
    assert max(told["buffer_oldest_seconds"] for told in away) > 0
    assert max(told["pods_connected"] for told in away) == PODS
