"""The ledger's law, held against every status page that a test looks at."""

from typing import Any

#: What a record can have become.
FATES = ("stored", "pending", "quarantined", "dropped", "in_flight")
COUNTERS = ("received", *FATES, "invalid", "torn")

Status = dict[str, Any]


def check_ledger(status: Status) -> None:
    """Raise AssertionError unless every pod's counters, the totals and the buffer's count agree."""
    for counts in (status["totals"], *status["pods"]):
        fates = sum(counts[fate] for fate in FATES)
        assert counts["received"] == fates, f"the ledger does not add up: {counts}"
    for counter in COUNTERS:
        total = sum(pod[counter] for pod in status["pods"])
        assert status["totals"][counter] == total, f"{counter}: {status['totals'][counter]} in all, {total} in the pods"
    assert status["buffer"]["points"] == status["totals"]["pending"], f"buffer and totals differ: {status}"
