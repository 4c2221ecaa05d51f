"""What a simulation says: a line for each trouble as it happens, and at its end what was sent and answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from ods.simulator.pod import PodReport
from ods.simulator.replies import ReplyCounts

#: More pods than these get no line of their own.
PODS_LISTED = 10
#: A real pod fails a send that waits this long, and stops its run after four of them.
REAL_SEND_TIMEOUT_SECONDS = 1.0


def troubles(report: PodReport) -> Iterator[str]:
    """One line for each thing that an operator should look at, told when the pod ends."""
    if report.failure:
        records = report.data_points + report.log_messages
        yield f"{report.name}: {report.failure}" + (f", after {records} records" if records else "")
    if report.first_wrong:
        yield f"{report.name}: wrong {report.first_wrong}"


def summary_lines(reports: Sequence[PodReport], *, elapsed_seconds: float) -> Iterator[str]:
    """A line for each of a few pods, and one for all."""
    if 1 < len(reports) <= PODS_LISTED:
        yield from (f"{report.name}: {_account(report)}" for report in reports)
    total = total_of(reports)
    yield f"{total.name} in {elapsed_seconds:.1f} s: {_account(total)}"
    if total.longest_send_seconds >= REAL_SEND_TIMEOUT_SECONDS:
        yield f"A real pod fails a send that waits for {REAL_SEND_TIMEOUT_SECONDS:g} s."


def total_of(reports: Sequence[PodReport]) -> PodReport:
    """All pods as if they were one."""
    nothing = PodReport(name=f"total of {len(reports)} pod{'s' if len(reports) != 1 else ''}")
    return replace(reduce(add, reports, nothing), failure="", first_wrong="")


def _account(report: PodReport) -> str:
    records = report.data_points + report.log_messages
    sent = f"sent {records} records ({report.data_points} data points, {report.log_messages} log messages)"
    bad = f", {report.invalid} invalid, {report.torn} torn" if report.invalid or report.torn else ""
    return f"{sent}{bad}, {_answers(report.replies)}, longest send {report.longest_send_seconds:.3f} s"


def _answers(replies: ReplyCounts | None) -> str:
    if replies is None:
        return "replies not read"
    rejected = f"told to be bad {replies.rejected}, " if replies.rejected else ""
    return (
        f"acknowledged {replies.acknowledged}, {rejected}refused {replies.refused}, "
        f"wrong {replies.wrong}, unanswered {replies.unanswered}"
    )
