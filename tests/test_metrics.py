"""The status as Prometheus reads it: complete, adding up, escaped, and documented."""

import json
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from components.snapshots import pod, snapshot
from harness import promtool
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from ods.latency import Latency
from ods.ledger import Fate
from ods.metrics import CONTENT_TYPE, exposition

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PROMETHEUS = ROOT / "conf" / "prometheus"
RULE_TESTS = ROOT / "tests" / "prometheus" / "ods.rules.test.yml"

#: Numbers of the status that have no family of their own, and what is asked instead.
LEFT_OUT = {
    "uptime_seconds": "time() - ods_start_time_seconds",
    "time_ns": "Prometheus notes the time of each sample",
    "influx.outage_began_ns": "time() - ods_influx_outage_seconds",
    "buffer.drain_total_points": "ods_drain_drained_points + ods_buffer_points",
    **{
        f"totals.{key}": "the sum over all pods"
        for key in ("received", "stored", "pending", "in_flight", "quarantined", "dropped", "invalid", "torn")
    },
    **{f"outages.latest.{key}": "a list of the last few" for key in ("began_ns", "ended_ns", "seconds", "drained_ns")},
    "restarts.latest.time_ns": "a list of the last few",
    **{f"refused.{key}": "a list of the last few" for key in ("count", "last_ns")},
    "listening.port": "a setting",
    "pods.points_per_second": "rate(ods_records_received_total[1m])",
    "pods.log.time_ns": "a list of the last few",
    "pods.beyond.names.limit": "ods_names_beyond_limits counts them",
    "pods.beyond.names.since_ns": "ods_names_beyond_limits counts them",
}
#: What the status says in words and the metrics repeat.
SAID = {"version", "state", "sentence.level", "standing_still", "pods.name"}
#: A text of the status that must not come out.
MARK = "MARKED-SECRET"

#: The text format has no line breaks of its own but the newline; surrogates are what is no UTF-8 in a name.
NAMES = st.text(st.characters(), min_size=1, max_size=20)
SECONDS = st.floats(0, 1000)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def latencies(**seconds: list[float]) -> dict[str, Latency]:
    made = {key: Latency() for key in ("store_influx", "store_buffer", "reply")}
    for key, durations in seconds.items():
        for duration in durations:
            made[key].observe(duration)
    return made


def own_text(status: Mapping[str, Any]) -> str:
    """What is told of this status, without what Linux tells of the process."""
    lines = exposition(status, latencies()).decode().splitlines(keepends=True)
    return "".join(line for line in lines if "process_" not in line)


def samples(status: Mapping[str, Any], measured: Mapping[str, Latency] | None = None) -> Samples:
    families = text_string_to_metric_families(exposition(status, measured or latencies()).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def families() -> dict[str, str]:
    """The kind of every family."""
    text = exposition(snapshot(), latencies()).decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """Each leaf of a status: its path (a list's members have one), its holder, its key there, its value."""
    inside = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in list(inside):
        name = path if isinstance(node, list) else f"{path}.{key}".lstrip(".")
        if isinstance(child, dict | list):
            yield from leaves(child, name)
        else:
            yield name, node, key, child


def changed(leaf: Any) -> Any:
    """Another value; a nanosecond more would be lost among the seconds since 1970."""
    return not leaf if isinstance(leaf, bool) else leaf + 1_000_000


def test_every_number_of_the_status_is_told_or_left_out_for_a_reason() -> None:
    """To change it changes the answer."""
    before, told, silent = own_text(snapshot()), set(), set()
    for number, (path, *_, leaf) in enumerate(leaves(snapshot())):
        if not isinstance(leaf, int | float):
            continue
        status = snapshot()
        _, holder, key, _ = list(leaves(status))[number]
        holder[key] = changed(leaf)
        (told if own_text(status) != before else silent).add(path)
    assert silent == set(LEFT_OUT)
    assert not told & silent


def test_no_text_comes_out_but_what_is_said_of_the_state_and_the_names() -> None:
    """A password that found its way into an error or a log message stays there."""
    status = snapshot()
    for path, holder, key, leaf in list(leaves(status)):
        if isinstance(leaf, str) and path not in SAID:
            holder[key] = MARK
    assert MARK in str(status)
    assert MARK not in exposition(status, latencies()).decode()


def test_figures_come_out_as_they_went_in_and_in_base_units() -> None:
    found, status = samples(snapshot()), snapshot()
    assert value(found, "ods_build_info", version="1.2.3", python=platform.python_version()) == 1
    assert value(found, "ods_buffer_points") == 700
    assert value(found, "ods_disk_left_seconds") == 23.5 * 3600
    assert value(found, "ods_start_time_seconds") == pytest.approx(status["started_ns"] / 1e9)
    assert value(found, "ods_clock_steps_total", direction="forward") == 1
    assert value(found, "ods_clock_steps_total", direction="back") == 2
    assert value(found, "ods_standing_still", part="drain") == 1
    assert value(found, "ods_records", pod="pod-a", fate="quarantined") == 90
    assert value(found, "ods_pod_expected", pod="pod-a") == 1


def test_what_does_not_apply_has_no_sample() -> None:
    status = snapshot(pods=[pod(last_seen_seconds=None, left_ns=None)], standing_still=[])
    nothing = {"oldest_seconds": None, "drain_points_per_second": None, "eta_seconds": None, "drained_points": None}
    status["buffer"].update(nothing)
    status["influx"]["outage_seconds"] = status["disk"]["free_bytes"] = status["disk"]["hours_left"] = None
    status["recordings"]["bytes"] = None
    names = {name for name, _ in samples(snapshot())} - {name for name, _ in samples(status)}
    assert names == {
        *("ods_buffer_oldest_seconds", "ods_drain_points_per_second", "ods_drain_eta_seconds"),
        *("ods_drain_drained_points", "ods_influx_outage_seconds", "ods_disk_free_bytes", "ods_disk_left_seconds"),
        *("ods_recordings_bytes", "ods_standing_still", "ods_pod_last_seen_seconds", "ods_pod_left_time_seconds"),
    }
    promtool.check_metrics(exposition(status, latencies()))


def test_an_ods_that_knows_no_pod_is_told_of() -> None:
    found = samples(snapshot(pods=[]))
    assert value(found, "ods_pods_connected") == 0
    assert not [name for name, labels in found if "pod" in dict(labels)]


@pytest.mark.parametrize("level", ["live", "buffering", "draining", "losing"])
def test_exactly_one_state_and_one_level_hold(level: str) -> None:
    state = "live" if level == "losing" else level
    found = samples(snapshot(state=state, sentence={"level": level, "text": "", "notes": []}))
    for name, label, present in (("ods_state", "state", state), ("ods_sentence_level", "level", level)):
        holding = {dict(labels)[label]: value for (each, labels), value in found.items() if each == name}
        assert [key for key, value in holding.items() if value] == [present]
        assert set(holding.values()) == {0, 1}


@given(st.lists(st.fixed_dictionaries({fate.value: st.integers(0, 2**53) for fate in Fate}), max_size=4))
def test_the_fates_of_a_pod_add_up_to_what_it_sent(fates: list[dict[str, int]]) -> None:
    pods = [pod(f"pod-{number}", received=sum(each.values()), **each) for number, each in enumerate(fates)]
    found = samples(snapshot(pods=pods))
    for each in pods:
        told = [value(found, "ods_records", pod=each["name"], fate=fate.value) for fate in Fate]
        received = value(found, "ods_records_received_total", pod=each["name"])
        assert received == pytest.approx(sum(each for each in told if each is not None), rel=1e-15)


@given(st.lists(NAMES, unique_by=lambda name: name.encode(errors="backslashreplace"), max_size=5))
def test_any_name_of_a_pod_comes_out_whole(names: list[str]) -> None:
    """Quotes, newlines and backslashes cannot forge a sample; what is no UTF-8 is shown as it is written in Python."""
    found = samples(snapshot(pods=[pod(name) for name in names]))
    told = [dict(labels)["pod"] for name, labels in found if name == "ods_records_received_total"]
    assert sorted(told) == sorted(name.encode(errors="backslashreplace").decode() for name in names)


def test_prometheus_itself_reads_hostile_names() -> None:
    names = ['a"} 1\nods_healthy 0', "\\", 'back\\"slash', "größe \N{ROCKET}", "tab\t, brace}", "\udcff"]
    promtool.check_metrics(exposition(snapshot(pods=[pod(name) for name in names]), latencies()))


@given(st.lists(SECONDS), st.lists(SECONDS), st.lists(SECONDS))
def test_histograms_are_cumulative_and_count_all(influx: list[float], buffer: list[float], reply: list[float]) -> None:
    found = samples(snapshot(), latencies(store_influx=influx, store_buffer=buffer, reply=reply))
    for name, labels, durations in (
        ("ods_store_latency_seconds", {"store": "influx"}, influx),
        ("ods_store_latency_seconds", {"store": "buffer"}, buffer),
        ("ods_reply_latency_seconds", {}, reply),
    ):
        for bound in Latency.BOUNDS_SECONDS:
            within = sum(each <= bound for each in durations)
            assert value(found, f"{name}_bucket", le=str(bound), **labels) == within
        assert value(found, f"{name}_bucket", le="+Inf", **labels) == len(durations)
        assert value(found, f"{name}_count", **labels) == len(durations)
        assert value(found, f"{name}_sum", **labels) == pytest.approx(sum(durations))


def test_nothing_is_changed_and_nothing_is_kept() -> None:
    """The same is told again; the library's registry of the process holds nothing of ODS."""
    status = snapshot()
    assert own_text(status) == own_text(status)
    assert status == snapshot()
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("ods_")]


def test_promtool_has_nothing_to_remark() -> None:
    promtool.check_metrics(exposition(snapshot(), latencies(reply=[0.1])))
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_names_begin_as_the_contract_says_and_tell_counters() -> None:
    for name, kind in families().items():
        assert name.startswith(("ods_", "process_"))
        assert (kind == "counter") == name.endswith("_total")


def documented() -> dict[str, str]:
    """Each family of the document, with its kind."""
    return dict(re.findall(r"^\| `((?:ods|process)_\w+)(?:\{[\w, ]+\})?` \| (\w+)", DOCUMENT, re.MULTILINE))


def examples() -> list[str]:
    """The PromQL of the document: what the tables and the list of questions show."""
    rows = [line.split(" | ") for line in DOCUMENT.splitlines() if re.match(r"\| `(ods|process)_", line)]
    blocks = re.findall(r"^```promql\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    shown = [query for row in rows for query in re.findall(r"`([^`]+)`", row[3])]
    return shown + [query for block in blocks for query in block.strip().split("\n\n")]


def alerts() -> dict[str, str]:
    """The text of each alert, by its name."""
    _, *parts = re.split(r"^ +- alert: ", (PROMETHEUS / "ods.rules.yml").read_text(), flags=re.MULTILINE)
    return {name: rest for name, _, rest in (part.partition("\n") for part in parts)}


def asked() -> list[str]:
    """Every expression that is shown or alerted on."""
    return [*examples(), "\n".join(alerts().values())]


def test_every_family_is_documented_with_its_kind() -> None:
    assert documented() == families()


def test_every_family_has_an_example() -> None:
    text = "\n".join(examples())
    assert not [name for name in families() if not re.search(rf"\b{name}(_bucket|_count|_sum)?\b", text)]


def test_examples_and_alerts_ask_for_what_is_there() -> None:
    known = {name for name, _ in samples(snapshot())}
    used = {name for query in asked() for name in re.findall(r"\b(?:ods|process)_\w+", query)}
    assert used <= known


def test_examples_are_promql(tmp_path: Path) -> None:
    rules = [{"record": f"example_{number}", "expr": query} for number, query in enumerate(examples())]
    path = tmp_path / "examples.yml"
    path.write_text(json.dumps({"groups": [{"name": "examples", "rules": rules}]}))  # which is YAML as well
    promtool.check_rules(path)


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    promtool.check_rules(PROMETHEUS / "ods.rules.yml")
    promtool.check_config(PROMETHEUS / "prometheus.yml")


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    promtool.run_rule_tests(RULE_TESTS)


def test_every_alert_says_what_to_do_and_is_tested_and_documented() -> None:
    assert alerts()
    for name, text in alerts().items():
        assert re.search(r"^ +severity: (critical|warning|info)$", text, re.MULTILINE), name
        assert "summary: " in text and "action: " in text, name
        assert f"alertname: {name}\n" in RULE_TESTS.read_text(), f"{name} is not tested"
        assert f"`{name}`" in DOCUMENT, f"{name} is not documented"
