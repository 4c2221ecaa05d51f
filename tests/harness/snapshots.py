"""Snapshots of ODS made by hand: what `/api/status` answers in each state."""

import copy
from typing import Any

Snapshot = dict[str, Any]

NOW_NS = 1_763_900_000_000_000_000
SECOND_NS = 1_000_000_000
COUNTERS = ("received", "stored", "pending", "in_flight", "quarantined", "dropped", "invalid", "torn")


def counts(**given: int) -> dict[str, int]:
    """Counters that add up: what is given no other fate is stored."""
    all_of_them = dict.fromkeys(COUNTERS, 0) | given
    elsewhere = sum(all_of_them[fate] for fate in ("pending", "in_flight", "quarantined", "dropped"))
    return all_of_them | {"stored": all_of_them["received"] - elsewhere}


def pod(name: str, *, connected: bool = True, seconds_ago: float = 100, **given: Any) -> Snapshot:
    """A pod that connected, or left, so long ago."""
    then_ns = NOW_NS - int(seconds_ago * SECOND_NS)
    made = {
        "name": name,
        "address": "10.0.0.12",
        "connected": connected,
        "expected": False,
        "connections": int(connected),
        "connects": 1,
        "connected_ns": then_ns if connected else then_ns - 60 * SECOND_NS,
        "left_ns": None if connected else then_ns,
        "left_how": None if connected else "reset by the pod",
        "last_seen_seconds": 0.1 if connected else seconds_ago,
        "points_per_second": 1234.5 if connected else 0.0,
        "replies_dropped": 0,
        "names": 16,
        "beyond": {"warning": 0, "danger": 0, "names": []},
        "log": [{"time_ns": then_ns, "level": "info", "text": "Pushing"}],
    }
    return made | counts(received=1000) | given


def never_seen(name: str) -> Snapshot:
    """A pod that `--pod` names."""
    nothing = {"connects": 0, "connected_ns": None, "left_ns": None, "left_how": None, "last_seen_seconds": None}
    return pod(name, connected=False, expected=True, names=0, log=[]) | nothing | counts()


def live(*pods: Snapshot) -> Snapshot:
    """Everything is well. Totals are those of the pods."""
    return {
        "healthy": True,
        "version": "0.1.0",
        "uptime_seconds": 3725.0,
        "state": "live",
        "sentence": {"level": "live", "text": "Live: every point is in InfluxDB.", "notes": []},
        "time_ns": NOW_NS,
        "started_ns": NOW_NS - 3725 * SECOND_NS,
        "influx": {
            "url": "http://localhost:8086",
            "database": "ods",
            "available": True,
            "known": True,
            "last_error": None,
            "outage_seconds": None,
            "outage_began_ns": None,
        },
        "buffer": {
            "points": 0,
            "bytes": 40_960,
            "limit_bytes": 10 * 2**30,
            "oldest_seconds": None,
            "drain_points_per_second": None,
            "eta_seconds": None,
            "drained_points": None,
            "drain_total_points": None,
        },
        "outages": {"count": 0, "seconds": 0.0, "latest": []},
        "largest_backlog": 0,
        "disk": {"free_bytes": 12_300_000_000, "hours_left": 57.0},
        "recordings": {"recording": True, "unrecorded": 0, "bytes": 1_234_567},
        "clock": {"offset_seconds": 0.0, "steps_forward": 0, "steps_back": 0},
        "standing_still": [],
        "listening": {"addresses": ["10.0.0.1", "192.168.1.4"], "port": 7778, "allow": ["10.0.0.0/24"]},
        "refused": [],
        "refused_total": 0,
        "totals": {counter: sum(pod[counter] for pod in pods) for counter in COUNTERS},
        "pods": list(pods),
    }


def buffering(points: int = 12_345) -> Snapshot:
    """InfluxDB is away since 72 s."""
    made = live(pod("pod-a") | counts(received=20_000, pending=points))
    text = f"Buffering since 14:02:11: InfluxDB is away, and {points} points wait safely on this machine's disk."
    began_ns = NOW_NS - 72 * SECOND_NS
    made |= {"state": "buffering", "sentence": {"level": "buffering", "text": text, "notes": ["Disk for 57 hours."]}}
    outage = {
        "available": False,
        "last_error": "connection refused",
        "outage_seconds": 72.4,
        "outage_began_ns": began_ns,
    }
    made["influx"] |= outage
    made["buffer"] |= {"points": points, "bytes": 1_200_000, "oldest_seconds": 72.0}
    latest = {
        "began_ns": began_ns,
        "ended_ns": None,
        "seconds": 72.4,
        "reason": "connection refused",
        "drained_ns": None,
    }
    return made | {"outages": {"count": 1, "seconds": 72.4, "latest": [latest]}, "largest_backlog": points}


def draining(drained: int = 31_000, points: int = 19_000) -> Snapshot:
    """InfluxDB is back."""
    made = live(pod("pod-a") | counts(received=60_000, pending=points))
    text = f"Draining: {points} points to go, done in 0:00:04."
    made |= {"state": "draining", "sentence": {"level": "draining", "text": text, "notes": []}}
    made["buffer"] |= {
        "points": points,
        "drained_points": drained,
        "drain_total_points": drained + points,
        "drain_points_per_second": 5000.0,
        "eta_seconds": 3.8,
    }
    return made


def losing() -> Snapshot:
    """Neither store takes points."""
    made = buffering()
    made["pods"][0] |= counts(received=20_000, pending=12_345, dropped=1234)
    made["totals"] |= counts(received=20_000, pending=12_345, dropped=1234)
    text = "Losing data: neither InfluxDB nor the buffer takes points; 1234 are lost."
    return made | {"healthy": False, "sentence": {"level": "losing", "text": text, "notes": []}}


def of_an_older_ods() -> Snapshot:
    """As ODS told it before it had a sentence."""
    made = copy.deepcopy(live(pod("pod-a")))
    for key in ("sentence", "time_ns", "started_ns", "outages", "largest_backlog", "disk", "listening", "refused"):
        del made[key]
    for key in ("expected", "connections", "connects", "connected_ns", "left_ns", "left_how", "names", "log"):
        del made["pods"][0][key]
    return made
