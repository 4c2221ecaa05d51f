"""The status as Prometheus reads it: `/metrics`. Each family is explained, with examples, in `docs/metrics.md`.

A pure function of what it is given, but for what Linux says of this process (`process_*`): all figures of one answer
belong to one moment, and agree with `/api/status`, which is made of the same snapshot. Nothing is kept between two
answers, so that it may be called from any thread.

Prometheus's rules are followed: base units (seconds, bytes), `_total` for what only grows until a restart, and one
family for one thing. What does not apply (the age of the oldest point of an empty buffer) has no sample.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ods.latency import Latency
from ods.ledger import Fate
from ods.sentence import SEVERITIES

#: What is said of it over HTTP: the text format that every Prometheus reads.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATES = ("live", "buffering", "draining")
LEVELS = (*STATES, "losing")
HOUR_SECONDS = 3600


class _Figure(NamedTuple):
    """A number of the snapshot as a family: a counter where its name ends in `_total`, else a gauge."""

    name: str
    #: The keys that lead to it, with dots between.
    path: str
    meaning: str
    #: What the number is multiplied by to be in the base unit.
    factor: float = 1


#: Figures of ODS as a whole.
_WHOLE = (
    _Figure("ods_healthy", "healthy", "Whether points can be kept (1) or not (0)."),
    _Figure("ods_start_time_seconds", "started_ns", "When ODS started, by its own clock, since 1970.", 1e-9),
    _Figure("ods_influx_available", "influx.available", "Whether InfluxDB takes points (1) or is away (0)."),
    _Figure(
        "ods_influx_known", "influx.known", "Whether InfluxDB has been heard of yet; until then it counts as available."
    ),
    _Figure(
        "ods_influx_outage_seconds",
        "influx.outage_seconds",
        "How long InfluxDB has been away; absent while it is there.",
    ),
    _Figure("ods_outages_total", "outages.count", "Outages of InfluxDB that have begun."),
    _Figure("ods_outages_seconds_total", "outages.seconds", "Time without InfluxDB, the present outage included."),
    _Figure("ods_buffer_points", "buffer.points", "Points that wait in the buffer for InfluxDB."),
    _Figure("ods_buffer_bytes", "buffer.bytes", "What the buffer takes on disk."),
    _Figure("ods_buffer_limit_bytes", "buffer.limit_bytes", "What the buffer may take on disk (--buffer-limit)."),
    _Figure("ods_buffer_usable", "buffer.usable", "Whether the buffer takes points (1) or its disk is in trouble (0)."),
    _Figure(
        "ods_buffer_oldest_seconds",
        "buffer.oldest_seconds",
        "Age of the oldest point that waits; absent where none does.",
    ),
    _Figure("ods_largest_backlog_points", "largest_backlog", "The most points that have waited at once in this run."),
    _Figure(
        "ods_drain_points_per_second",
        "buffer.drain_points_per_second",
        "Pace of the drain; absent while nothing is drained.",
    ),
    _Figure(
        "ods_drain_drained_points",
        "buffer.drained_points",
        "Points that this drain has sent; absent while nothing is drained.",
    ),
    _Figure(
        "ods_drain_eta_seconds",
        "buffer.eta_seconds",
        "Time that the drain needs yet at its pace; absent where it has none.",
    ),
    _Figure("ods_worker_restarts_total", "restarts.count", "Restarts of the worker since the start of its keeper."),
    _Figure("ods_connections_refused_total", "refused_total", "Connections refused (--allow)."),
    _Figure("ods_recordings_active", "recordings.recording", "Whether what pods send is recorded (1) or not (0)."),
    _Figure("ods_recordings_bytes", "recordings.bytes", "What the recordings take on disk."),
    _Figure("ods_records_unrecorded_total", "recordings.unrecorded", "Records that are missing from the recordings."),
    _Figure("ods_disk_free_bytes", "disk.free_bytes", "Free disk above the reserve."),
    _Figure("ods_disk_left_seconds", "disk.hours_left", "How long the free disk lasts without InfluxDB.", HOUR_SECONDS),
    _Figure(
        "ods_clock_offset_seconds", "clock.offset_seconds", "How far the times of points are ahead of the wall clock."
    ),
)

#: Figures of each pod, with its name as the label `pod`.
_BY_POD = (
    _Figure("ods_records_received_total", "received", "Good records (points and log messages) received."),
    _Figure("ods_invalid_lines_total", "invalid", "Lines or parts of them that are no record, bad data included."),
    _Figure("ods_torn_lines_total", "torn", "Data lines cut off by the end of their connection."),
    _Figure("ods_replies_dropped_total", "replies_dropped", "Replies dropped because the pod does not read them."),
    _Figure("ods_pod_expected", "expected", "Whether the pod was named by --pod (1)."),
    _Figure("ods_pod_connections", "connections", "Connections of the pod that are open."),
    _Figure("ods_pod_connects_total", "connects", "Connections that the pod has opened."),
    _Figure(
        "ods_pod_last_seen_seconds",
        "last_seen_seconds",
        "Time since the pod sent something; absent where it never did.",
    ),
    _Figure("ods_pod_connected_time_seconds", "connected_ns", "When the pod connected last, since 1970.", 1e-9),
    _Figure(
        "ods_pod_left_time_seconds", "left_ns", "When the pod's last connection that ended did so, since 1970.", 1e-9
    ),
    _Figure("ods_pod_names", "names", "Distinct data names that the pod has used (--max-names)."),
)


def exposition(snapshot: Mapping[str, Any], latencies: Mapping[str, Latency]) -> bytes:
    """What Prometheus is answered: `Status.snapshot()` and `Status.latencies` in its text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(snapshot, latencies))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Snapshot(Collector):
    """The families, of one snapshot."""

    def __init__(self, snapshot: Mapping[str, Any], latencies: Mapping[str, Latency]) -> None:
        self._snapshot = snapshot
        self._latencies = latencies

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        snapshot, pods = self._snapshot, self._snapshot["pods"]
        yield _build(snapshot["version"])
        yield _one_of("ods_state", STATES, snapshot["state"], "Where points go: 1 for the present state.")
        level, meaning = snapshot["sentence"]["level"], "What the status page says in one sentence: 1 for what holds."
        yield _one_of("ods_sentence_level", LEVELS, level, meaning)
        for figure in _WHOLE:
            yield _family(figure, [([], _at(snapshot, figure.path))])
        yield _steps(snapshot["clock"])
        yield _standing_still(snapshot["standing_still"])
        yield _connected(pods)
        names = [_label(pod["name"]) for pod in pods]
        yield _fates(names, pods)
        yield _beyond(names, pods)
        for figure in _BY_POD:
            numbers = [([name], pod[figure.path]) for name, pod in zip(names, pods, strict=True)]
            yield _family(figure, numbers, ["pod"])
        yield from _latency_families(self._latencies)


def _build(version: str) -> Metric:
    family = GaugeMetricFamily(
        "ods_build_info", "The version of ODS and of Python; always 1.", labels=["version", "python"]
    )
    family.add_metric([version, platform.python_version()], 1)
    return family


def _one_of(name: str, values: Sequence[str], present: str, meaning: str) -> Metric:
    """1 for what is present and 0 for the rest. The label is the last word of the name."""
    numbers = [([value], value == present) for value in values]
    return _family(_Figure(name, "", meaning), numbers, [name.rpartition("_")[2]])


def _steps(clock: Mapping[str, Any]) -> Metric:
    figure = _Figure("ods_clock_steps_total", "", "Steps of the wall clock that were seen.")
    return _family(figure, [([way], clock[f"steps_{way}"]) for way in ("forward", "back")], ["direction"])


def _standing_still(parts: Sequence[str]) -> Metric:
    figure = _Figure(
        "ods_standing_still", "", "Parts of ODS that have work and do none of it (1); absent where all do."
    )
    return _family(figure, [([part], 1) for part in parts], ["part"])


def _connected(pods: Sequence[Mapping[str, Any]]) -> Metric:
    return GaugeMetricFamily(
        "ods_pods_connected", "Pods that are connected.", sum(bool(pod["connected"]) for pod in pods)
    )


def _fates(names: Sequence[str], pods: Sequence[Mapping[str, Any]]) -> Metric:
    """A gauge: a record moves from fate to fate, at times also back from `stored`; the sum is what was received."""
    meaning = "What became of the records received: their sum over all fates is ods_records_received_total."
    numbers = [([name, fate.value], pod[fate.value]) for name, pod in zip(names, pods, strict=True) for fate in Fate]
    return _family(_Figure("ods_records", "", meaning), numbers, ["pod", "fate"])


def _beyond(names: Sequence[str], pods: Sequence[Mapping[str, Any]]) -> Metric:
    figure = _Figure("ods_names_beyond_limits", "", "Names whose value is beyond its limit in the sensor file.")
    numbers = [
        ([name, severity], pod["beyond"][severity])
        for name, pod in zip(names, pods, strict=True)
        for severity in SEVERITIES
    ]
    return _family(figure, numbers, ["pod", "severity"])


def _latency_families(latencies: Mapping[str, Latency]) -> Iterator[Metric]:
    storing = HistogramMetricFamily(
        "ods_store_latency_seconds",
        "From the first read of a batch until it is stored (influx) or pending (buffer).",
        labels=["store"],
    )
    for store in ("influx", "buffer"):
        latency = latencies[f"store_{store}"]
        storing.add_metric([store], _buckets(latency), latency.sum_seconds)
    yield storing
    replying = latencies["reply"]
    meaning = "From a read until its replies are handed to the connection."
    yield HistogramMetricFamily("ods_reply_latency_seconds", meaning, _buckets(replying), replying.sum_seconds)


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    bounds = [*map(str, latency.BOUNDS_SECONDS), "+Inf"]
    return list(zip(bounds, accumulate(latency.counts), strict=True))


def _family(figure: _Figure, numbers: Sequence[tuple[list[str], Any]], labels: Sequence[str] = ()) -> Metric:
    """The numbers with their label values; what is null has no sample."""
    kind = CounterMetricFamily if figure.name.endswith("_total") else GaugeMetricFamily
    family = kind(figure.name, figure.meaning, labels=labels)
    for values, number in numbers:
        if number is not None:
            family.add_metric(values, number * figure.factor)
    return family


def _at(snapshot: Mapping[str, Any], path: str) -> Any:
    value: Any = snapshot
    for key in path.split("."):
        value = value[key]
    return value


def _label(name: str) -> str:
    """A pod's name as UTF-8 can hold it; what the text format would misread is escaped by the library."""
    return name.encode("utf-8", "backslashreplace").decode()
