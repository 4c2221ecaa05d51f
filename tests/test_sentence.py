"""The one sentence that says whether telemetry is safe, and what it notes besides."""

import time
from typing import Any

import pytest

from ods.sentence import grouped, sentence

NOW_NS = 1_790_000_000_000_000_000


def pod(name: str, **changes: Any) -> dict[str, Any]:
    """A pod that is expected and connected, with nothing beyond its limits."""
    return {"name": name, "connected": True, "expected": True, "connects": 1, "beyond": beyond(), **changes}


def beyond(**counts: int) -> dict[str, Any]:
    """So many names above the limit of each severity, all of them listed."""
    limits = {"danger": 20.0, "warning": 12.5}
    names = [
        {"name": f"accel_{number}", "severity": severity, "side": "high", "limit": limits[severity], "unit": "m/s²"}
        for severity, count in counts.items()
        for number in range(count)
    ]
    return {"danger": 0, "warning": 0, **counts, "names": names}


def status(**changes: Any) -> dict[str, Any]:
    """The status of an ODS where all is well; `influx__available=False` changes `influx.available`."""
    told: dict[str, Any] = {
        "state": "live",
        "time_ns": NOW_NS,
        "influx": {
            "url": "http://db:8086",
            "known": True,
            "available": True,
            "last_error": None,
            "outage_began_ns": None,
        },
        "buffer": {"points": 0, "usable": True, "oldest_seconds": None, "eta_seconds": None},
        "totals": {"quarantined": 0},
        "standing_still": [],
        "recordings": {"recording": True, "unrecorded": 0},
        "disk": {"hours_left": 100.0},
        "clock": {"offset_seconds": 0.0},
        "pods": [pod("pod-a")],
    }
    for key, value in changes.items():
        group, _, leaf = key.partition("__")
        if leaf:
            told[group][leaf] = value
        else:
            told[group] = value
    return told


def away(**changes: Any) -> dict[str, Any]:
    began_ns = NOW_NS - 60 * 10**9
    gone = {"influx__available": False, "influx__last_error": "refused", "influx__outage_began_ns": began_ns}
    return status(state="buffering", **gone, **changes)


def test_where_all_is_well_it_is_live_and_notes_nothing() -> None:
    assert sentence(status(), lost=0, is_losing=False) == {
        "level": "live",
        "text": "Live: points go straight to InfluxDB.",
        "notes": [],
    }


def test_before_anything_was_sent_it_promises_nothing() -> None:
    assert "nothing has been sent" in sentence(status(influx__known=False), lost=0, is_losing=False)["text"]


def test_buffering_says_since_when_how_much_and_why() -> None:
    told = sentence(away(buffer__points=12345), lost=0, is_losing=False)
    since = time.strftime("%H:%M:%S", time.localtime(NOW_NS // 10**9 - 60))
    assert told["level"] == "buffering"
    assert f"Buffering since {since}: InfluxDB is away; 12 345 points wait safely" in told["text"]
    assert told["notes"] == ["InfluxDB at http://db:8086: refused"]


def test_an_outage_of_another_day_is_told_with_its_date() -> None:
    began_ns = NOW_NS - 3 * 86400 * 10**9
    told = sentence(away() | {"influx": away()["influx"] | {"outage_began_ns": began_ns}}, lost=0, is_losing=False)
    assert time.strftime("since %Y-%m-%d", time.localtime(began_ns // 10**9)) in told["text"]


def test_draining_says_how_much_is_left_and_how_long_it_takes() -> None:
    told = sentence(status(state="draining", buffer__points=5000, buffer__eta_seconds=12.2), lost=0, is_losing=False)
    assert told["text"] == "Draining: 5 000 points to go, done in 0:00:12."
    unknown = sentence(status(state="draining", buffer__points=1), lost=0, is_losing=False)
    assert unknown["text"] == "Draining: 1 point to go."


@pytest.mark.parametrize(("told", "reason"), [(away(), "neither InfluxDB nor"), (status(), "more comes in")])
def test_losing_beats_every_state_and_says_why(told: dict[str, Any], reason: str) -> None:
    said = sentence(told, lost=1234, is_losing=True)
    assert said["level"] == "losing"
    assert reason in said["text"]
    assert "1 234 points are lost" in said["text"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"totals__quarantined": 1}, "In quarantine: 1 point;"),
        ({"buffer__usable": False}, "The buffer takes nothing"),
        ({"standing_still": ["drain"]}, "Stands still: drain."),
        ({"recordings__recording": False}, "Recordings are stopped"),
        ({"recordings__unrecorded": 7}, "Missing from the recordings: 7 records."),
        ({"disk__hours_left": 1.25}, "Room for an outage of 1.2 hours"),
        ({"clock__offset_seconds": 86400.0}, "The clock of ODS is +86400.0 s off"),
        ({"pods": []}, "No pod is connected."),
        ({"pods": [pod("b", connected=False, connects=0)]}, "Not seen yet: b."),
        ({"pods": [pod("b", beyond=beyond(danger=1))]}, "Beyond a danger limit: b accel_0 (above 20 m/s²)."),
        (
            {"pods": [pod("b", beyond=beyond(warning=4)), pod("c", beyond=beyond(warning=2, danger=3))]},
            "Beyond a warning limit: b accel_0 (above 12.5 m/s²), b accel_1 (above 12.5 m/s²), "
            "b accel_2 (above 12.5 m/s²), b accel_3 (above 12.5 m/s²), c accel_0 (above 12.5 m/s²) and 1 more.",
        ),
    ],
)
def test_what_asks_for_attention_is_noted(changes: dict[str, Any], note: str) -> None:
    assert any(note in each for each in sentence(status(**changes), lost=0, is_losing=False)["notes"])


def test_what_was_lost_earlier_in_the_run_is_noted() -> None:
    assert sentence(status(), lost=3, is_losing=False)["notes"] == ["Lost in this run: 3 points."]


def test_points_that_wait_beside_a_live_influxdb_are_told() -> None:
    told = sentence(status(buffer__points=10, buffer__oldest_seconds=30.0), lost=0, is_losing=False)
    assert "10 points still wait" in told["text"]
    passing = sentence(status(buffer__points=10, buffer__oldest_seconds=0.3), lost=0, is_losing=False)
    assert "wait" not in passing["text"]


def test_thousands_stand_apart() -> None:
    assert [grouped(number) for number in (0, 999, 1000, 1234567)] == ["0", "999", "1 000", "1 234 567"]
