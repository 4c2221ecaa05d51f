"""`/metrics` of a running ODS: read by promtool, the same as `/api/status`, through an outage and its drain."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from components.snapshots import snapshot
from harness import promtool
from harness.influx_server import InfluxServer
from harness.ledger import FATES
from harness.loopback import http
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(90, long=900), method="signal")

PODS = {"127.0.2.1": "pod-a", "127.0.2.2": "127.0.2.2"}
EXPECTED = ("--pod", "127.0.2.1=pod-a", "--pod", '127.0.2.9=pod "nine"')
PASSWORD = "marked-password-7f3a"
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(ods: OdsProcess) -> bytes:
    code, body = http(f"{ods.url}/metrics", timeout_seconds=10)
    assert code == 200
    return body


def samples(exposition: bytes) -> Samples:
    """Read apart what was answered, with no library's help."""
    found: Samples = {}
    for line in exposition.decode().splitlines():
        if not line.startswith("#"):
            matched = SAMPLE.match(line)
            assert matched, f"no sample: {line!r}"
            name, labels, number = matched.groups()
            series = name, frozenset((key, _plain(text)) for key, text in LABEL.findall(labels or ""))
            assert series not in found, f"told twice: {line!r}"
            found[series] = float(number)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], text)


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def send(ods: OdsProcess, oracle: Oracle, count: int) -> None:
    """Every pod sends so many records, and is answered OK to each."""
    for address, name in PODS.items():
        first = oracle.sent_count(name)
        with PodClient(ods.port, address=address).read_replies() as pod:
            pod.send_lines(oracle.next_lines(name, count))
            oracle.acknowledge(name, pod.wait_for_replies(count), first=first)


def settled(ods: OdsProcess) -> tuple[Mapping[str, Any], Samples]:
    """The status and the metrics of one moment: what counts is the same before and after the scrape."""

    def look() -> tuple[Mapping[str, Any], Samples] | None:
        before, body, after = ods.status(), scrape(ods), ods.status()
        return (after, samples(body)) if counts(before) == counts(after) else None

    return wait_until(look, timeout_seconds=30, what="two status pages with the same counts")


def counts(status: Mapping[str, Any]) -> list[Any]:
    ledgers = [[pod[key] for key in ("name", "received", *FATES, "connections")] for pod in status["pods"]]
    return [status["state"], status["sentence"]["level"], status["totals"], status["outages"]["count"], ledgers]


def check(status: Mapping[str, Any], found: Samples) -> None:
    """Both say the same, and it adds up."""
    for pod in status["pods"]:
        labels = {"pod": pod["name"]}
        fates = {fate: value(found, "ods_records", fate=fate, **labels) for fate in FATES}
        assert fates == {fate: pod[fate] for fate in FATES}
        assert (
            value(found, "ods_records_received_total", **labels) == pod["received"] == sum(map(float, fates.values()))
        )
        for name, key in (
            ("ods_invalid_lines_total", "invalid"),
            ("ods_torn_lines_total", "torn"),
            ("ods_replies_dropped_total", "replies_dropped"),
            ("ods_pod_connections", "connections"),
            ("ods_pod_connects_total", "connects"),
            ("ods_pod_expected", "expected"),
            ("ods_pod_names", "names"),
        ):
            assert value(found, name, **labels) == pod[key], (name, pod["name"])
    for key, count in status["totals"].items():
        if key in FATES:
            told = [number for (name, labels), number in found.items() if ("fate", key) in labels]
            assert sum(told) == count
    assert value(found, "ods_buffer_points") == status["buffer"]["points"] == status["totals"]["pending"]
    assert value(found, "ods_outages_total") == status["outages"]["count"]
    assert value(found, "ods_influx_available") == status["influx"]["available"]
    assert value(found, "ods_state", state=status["state"]) == 1
    assert value(found, "ods_sentence_level", level=status["sentence"]["level"]) == 1
    assert value(found, "ods_largest_backlog_points") == status["largest_backlog"]
    assert value(found, "ods_pods_connected") == sum(pod["connected"] for pod in status["pods"])
    assert value(found, "ods_buffer_limit_bytes") == status["buffer"]["limit_bytes"]


def test_the_metrics_follow_a_run_through_an_outage(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """Live, buffering, drained: promtool reads each answer, and each is what the status page says."""
    ods, oracle = start_ods(own_influx, *EXPECTED, "--influx-pass", PASSWORD), Oracle()
    send(ods, oracle, 300)
    with PodClient(ods.port, address="127.0.2.2").read_replies() as pod:
        pod.exchange(b"no record\n")
        pod.exchange(b"POD2accel_x nan\n")
        pod.send(b"POD2accel_x 12")
        pod.finish()
    ods.wait_for_totals(stored=600, invalid=2, torn=1)
    status, live = settled(ods)
    check(status, live)
    assert value(live, "ods_state", state="live") == 1
    assert value(live, "ods_pod_expected", pod='pod "nine"') == 1
    assert value(live, "ods_influx_outage_seconds") is None
    assert value(live, "ods_store_latency_seconds_count", store="influx")
    assert value(live, "ods_reply_latency_seconds_count")
    promtool.check_metrics(scrape(ods))

    own_influx.kill()
    send(ods, oracle, 200)
    ods.wait_for_totals(pending=400, in_flight=0)
    status, buffering = settled(ods)
    check(status, buffering)
    assert value(buffering, "ods_state", state="buffering") == value(buffering, "ods_outages_total") == 1
    assert value(buffering, "ods_store_latency_seconds_count", store="buffer")
    assert (value(buffering, "ods_buffer_oldest_seconds") or 0) > 0
    assert (value(buffering, "ods_influx_outage_seconds") or 0) > 0
    promtool.check_metrics(scrape(ods))

    own_influx.start()
    ods.wait_until_settled()
    ods.wait_for_status(lambda status: status["state"] == "live", what="the state to be live")
    status, drained = settled(ods)
    check(status, drained)
    assert value(drained, "ods_buffer_oldest_seconds") is None
    assert value(drained, "ods_largest_backlog_points") == 400
    assert (value(drained, "ods_outages_seconds_total") or 0) > 0
    promtool.check_metrics(scrape(ods))
    check_growth(live, buffering, drained)
    oracle.check(own_influx.points(ods.database))


def check_growth(*scrapes: Samples) -> None:
    """What is called a counter never falls."""
    for before, after in itertools.pairwise(scrapes):
        for (name, labels), number in before.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                assert after[name, labels] >= number, name


def test_the_drain_is_told_while_it_lasts(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """What is drained and what is left make up the whole of it, but for what was sent and is not deleted yet."""
    own_influx.kill()
    ods, oracle = start_ods(own_influx), Oracle()
    send(ods, oracle, sized(50_000, long=500_000))
    own_influx.start()
    drain = wait_until(lambda: drain_of(samples(scrape(ods))), timeout_seconds=30, what="a drain")
    drained, left, rate = drain
    assert 0 < drained <= oracle.sent_count() <= drained + left
    assert rate > 0
    ods.wait_until_settled()
    ods.wait_for_status(lambda status: status["state"] == "live", what="the drain to end")
    found = samples(scrape(ods))
    assert drain_of(found) is None
    assert value(found, "ods_buffer_points") == 0


def drain_of(found: Samples) -> tuple[float, float, float] | None:
    """The points drained and left, and the pace; None where nothing was drained yet, or is any more."""
    drained, left = value(found, "ods_drain_drained_points"), value(found, "ods_buffer_points")
    rate = value(found, "ods_drain_points_per_second")
    return None if not drained or left is None or rate is None else (drained, left, rate)


def test_no_secret_comes_out(start_ods: StartOds, locked_influx: InfluxServer) -> None:
    """Not even where InfluxDB refuses it, and a pod says it."""
    ods = start_ods(locked_influx, "--influx-pass", PASSWORD)
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD1[INFO]  %s\n" % PASSWORD.encode())
        pod.exchange(b"POD2%s 1\n" % PASSWORD.encode())
    ods.wait_for_status(lambda status: not status["influx"]["available"], what="InfluxDB to refuse the password")
    assert PASSWORD.encode() not in scrape(ods)


#: What only an ODS tells whose worker was started anew (`test_whole_keeper.py`).
WITH_A_KEEPER = {".restarts.latest.time_ns", ".restarts.latest.cause"}


def test_the_snapshot_of_the_other_tests_is_what_ods_says(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """Every key of a real status is in the one made by hand, which the metrics are held against; and the reverse."""
    own_influx.kill()
    ods = start_ods(own_influx, "--allow", "127.0.2.1")
    with (
        PodClient(ods.port).read_replies() as pod,
        PodClient(ods.port, address="127.0.2.2").read_replies() as stranger,
    ):
        pod.exchange(b"POD1[INFO]  hello\n")
        pod.exchange(b"POD2brake_temperature_1 320\n")  # beyond its limit in conf/sensors.toml
        assert stranger.has_ended.wait(10)
        status = ods.wait_for_status(lambda status: bool(status["outages"]["latest"]), what="an outage")
    assert set(keys(status)) == set(keys(snapshot())) - WITH_A_KEEPER


def keys(node: Any, path: str = "") -> Iterator[str]:
    """The path of each key; the members of a list share theirs."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield f"{path}.{key}"
            yield from keys(child, f"{path}.{key}")
    elif isinstance(node, list):
        for child in node:
            yield from keys(child, path)
