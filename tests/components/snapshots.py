"""A status snapshot made by hand, in which everything has a value: what `ods.status` can say, all at once."""

from typing import Any

SECOND_NS = 1_000_000_000
BEGAN_NS = 1_763_900_000 * SECOND_NS
POD = "pod-a"


def pod(name: str = POD, **changes: Any) -> dict[str, Any]:
    """What the snapshot says of a pod."""
    return {
        "name": name,
        "address": "10.0.0.20",
        "expected": True,
        "connected": True,
        "connections": 2,
        "connects": 5,
        "connected_ns": BEGAN_NS + 60 * SECOND_NS,
        "left_ns": BEGAN_NS + 50 * SECOND_NS,
        "left_how": "closed",
        "last_seen_seconds": 0.25,
        "points_per_second": 812.5,
        "replies_dropped": 13,
        "names": 42,
        "received": 5000,
        "stored": 4000,
        "pending": 700,
        "in_flight": 200,
        "quarantined": 90,
        "dropped": 10,
        "invalid": 7,
        "torn": 3,
        "beyond": {
            "warning": 2,
            "danger": 1,
            "names": [
                {
                    "name": "accel_x",
                    "severity": "danger",
                    "side": "high",
                    "limit": 20.0,
                    "unit": "m/s²",
                    "since_ns": BEGAN_NS,
                    "cleared_ns": None,
                }
            ],
        },
        "log": [{"time_ns": BEGAN_NS, "level": "info", "text": "punching boot_sem"}],
        **changes,
    }


def snapshot(**changes: Any) -> dict[str, Any]:
    """A whole snapshot; `changes` replace its parts."""
    outage = {
        "began_ns": BEGAN_NS + SECOND_NS,
        "ended_ns": BEGAN_NS + 3 * SECOND_NS,
        "seconds": 2.0,
        "reason": "refused",
        "drained_ns": BEGAN_NS + 4 * SECOND_NS,
    }
    return {
        "version": "1.2.3",
        "time_ns": BEGAN_NS + 100 * SECOND_NS,
        "started_ns": BEGAN_NS,
        "uptime_seconds": 100.0,
        "healthy": True,
        "state": "draining",
        "influx": {
            "url": "http://127.0.0.1:8086",
            "database": "ods",
            "known": True,
            "available": True,
            "last_error": "refused",
            "outage_seconds": 1.5,
            "outage_began_ns": BEGAN_NS + 98 * SECOND_NS,
        },
        "buffer": {
            "points": 700,
            "bytes": 65_536,
            "limit_bytes": 10_737_418_240,
            "usable": True,
            "oldest_seconds": 31.5,
            "drain_points_per_second": 20_000.5,
            "eta_seconds": 0.5,
            "drained_points": 300,
            "drain_total_points": 1000,
        },
        "totals": {key: pod()[key] for key in TOTALS},
        "largest_backlog": 9000,
        "outages": {"count": 2, "seconds": 3.5, "latest": [outage]},
        "clock": {"offset_seconds": 0.125, "steps_forward": 1, "steps_back": 2},
        "restarts": {"count": 3, "latest": [{"time_ns": BEGAN_NS, "cause": "SIGKILL"}]},
        "standing_still": ["drain"],
        "recordings": {"recording": True, "unrecorded": 4, "bytes": 123_456},
        "disk": {"free_bytes": 5_000_000_000, "hours_left": 23.5},
        "listening": {"addresses": ["10.0.0.1"], "port": 7778, "allow": ["10.0.0.0/24"]},
        "refused": [{"address": "10.9.9.9", "reason": "not allowed", "count": 6, "last_ns": BEGAN_NS}],
        "refused_total": 8,
        "pods": [pod()],
        "sentence": {"level": "draining", "text": "Draining: 700 points to go.", "notes": ["Look after the disk."]},
        **changes,
    }


TOTALS = ("received", "stored", "pending", "in_flight", "quarantined", "dropped", "invalid", "torn")
