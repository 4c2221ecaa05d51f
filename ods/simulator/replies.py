"""Whether ODS answers what it must: one reply a line, in the order of the lines.

A pod's line ends with a data point (log messages are glued in front of one and get no reply of their own), so each
data point sent is one reply expected, and `expected = acknowledged + refused + wrong + unanswered`, but for replies
that nothing was sent for: those are wrong too. Pure: bytes come in, counts come out.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from ods.simulator.records import DataPoint

REFUSAL = b"ERROR: Not Stored"
_ACKNOWLEDGEMENT = re.compile(rb"OK: \(([^ ,]+),([^ ,_)]+)\)")


@dataclass(frozen=True, kw_only=True)
class ReplyCounts:
    """What became of the lines that a pod sent."""

    acknowledged: int = 0
    refused: int = 0
    wrong: int = 0
    unanswered: int = 0

    def __add__(self, other: ReplyCounts) -> ReplyCounts:
        return ReplyCounts(
            acknowledged=self.acknowledged + other.acknowledged,
            refused=self.refused + other.refused,
            wrong=self.wrong + other.wrong,
            unanswered=self.unanswered + other.unanswered,
        )

    @property
    def is_all_acknowledged(self) -> bool:
        return not (self.refused or self.wrong or self.unanswered)


class ReplyChecker:
    """Compares the replies of one connection with the data points that were sent on it."""

    def __init__(self) -> None:
        self._expected: deque[DataPoint] = deque()
        self._unfinished = b""
        self._acknowledged = 0
        self._refused = 0
        self._wrong = 0
        #: What was wrong first, in words; empty while nothing is.
        self.first_wrong = ""
        self.received_bytes = 0

    def expect(self, point: DataPoint) -> None:
        """Note a data point; to be called before it is sent, as its reply may be quicker than the sender."""
        self._expected.append(point)

    def receive(self, chunk: bytes) -> None:
        """Take what arrived, however it was split."""
        self.received_bytes += len(chunk)
        *replies, self._unfinished = (self._unfinished + chunk).split(b"\n")
        for reply in replies:
            self._check(reply)

    def counts(self) -> ReplyCounts:
        return ReplyCounts(
            acknowledged=self._acknowledged,
            refused=self._refused,
            wrong=self._wrong,
            unanswered=len(self._expected),
        )

    def _check(self, reply: bytes) -> None:
        point = self._expected.popleft() if self._expected else None
        if point is not None and is_acknowledgement(reply, point):
            self._acknowledged += 1
        elif point is not None and reply == REFUSAL:
            self._refused += 1
        else:
            self._wrong += 1
            sent = point.wire if point is not None else "nothing"
            self.first_wrong = self.first_wrong or f"reply {reply[:200]!r} to {sent!r}"


def is_acknowledgement(reply: bytes, point: DataPoint) -> bool:
    """Whether the reply says OK to this very point; its value must be the same float."""
    if reply == f"OK: ({point.name},{point.value!r})".encode():
        return True
    match = _ACKNOWLEDGEMENT.fullmatch(reply)
    if match is None or match[1] != point.name.encode():
        return False
    try:
        return float(match[2]) == point.value
    except ValueError:
        return False
