"""What ODS says of its run when it is stopped: each pod's records and fates, the outages, the largest backlog."""

import time
from collections.abc import Iterator, Mapping, Sequence

from ods.availability import Outage
from ods.ledger import Counts


def report(
    *,
    seconds: float,
    pods: Mapping[str, Counts],
    outages: Sequence[Outage],
    outages_before: int,
    largest_backlog: int,
    restarts: int = 0,
    restarted_for: Sequence[str] = (),
) -> Iterator[str]:
    """The lines of the report, for a run that took so many seconds.

    `outages` are those that are remembered, `outages_before` how many came before them. `restarted_for` are the causes
    of the latest restarts of the worker.
    """
    yield f"report of the run, which took {duration(seconds)}:"
    for name, counts in sorted(pods.items()):
        yield f"  pod {name}: {_fates(counts)}"
    if not outages:
        yield "  InfluxDB was never seen to be away"
    elif outages_before:
        yield f"  {outages_before} outages before these"
    for outage in outages:
        yield f"  outage {_span(outage)}: {outage.reason}{_drained(outage)}"
    yield f"  largest backlog: {largest_backlog} points"
    if restarts:
        causes = ", ".join(dict.fromkeys(restarted_for))
        yield f"  the worker was started anew {restarts} times; these are the figures since then. Causes: {causes}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _fates(counts: Counts) -> str:
    kept = f"{counts.stored} stored, {counts.pending} pending, {counts.quarantined} quarantined"
    return f"{counts.received} received: {kept}, {counts.dropped} dropped; {counts.invalid} invalid, {counts.torn} torn"


def _span(outage: Outage) -> str:
    if outage.ended is None:
        return f"from {_utc(outage.began_ns)}, not over"
    ended_ns = outage.began_ns + int((outage.ended - outage.began) * 1e9)
    return f"from {_utc(outage.began_ns)} to {_utc(ended_ns)} ({outage.ended - outage.began:.1f} s)"


def _drained(outage: Outage) -> str:
    if outage.ended is None:
        return ""
    if outage.drained is None:
        return "; its backlog was not drained"
    return f"; drained {outage.drained - outage.ended:.1f} s later"


def _utc(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_ns // 1_000_000_000))
