"""Whether ODS answers what it must: one reply a line, in the order of the lines.

A pod's line ends with a data point (log messages are glued in front of one and get no reply of their own), so each
data point sent is one reply expected, and `expected = acknowledged + rejected + refused + wrong + unanswered`, but for
replies that nothing was sent for: those are wrong too. Rejected are bad lines that were told to be so, as they must.
Pure: bytes come in, counts come out.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from ods.simulator.records import DataPoint, Line, OddLine

REFUSAL = b"ERROR: Not Stored"
_ACKNOWLEDGEMENT = re.compile(rb"OK: \(([^ ,]+),([^ ,_)]+)\)")


@dataclass(frozen=True, kw_only=True)
class ReplyCounts:
    """What became of the lines that a pod sent."""

    acknowledged: int = 0
    refused: int = 0
    wrong: int = 0
    unanswered: int = 0
    rejected: int = 0

    def __add__(self, other: ReplyCounts) -> ReplyCounts:
        return ReplyCounts(
            acknowledged=self.acknowledged + other.acknowledged,
            refused=self.refused + other.refused,
            wrong=self.wrong + other.wrong,
            unanswered=self.unanswered + other.unanswered,
            rejected=self.rejected + other.rejected,
        )

    @property
    def is_all_acknowledged(self) -> bool:
        return not (self.refused or self.wrong or self.unanswered)


class ReplyChecker:
    """Compares the replies of one connection with the lines that were sent on it."""

    def __init__(self) -> None:
        self._expected: deque[Line] = deque()
        self._unfinished = b""
        self._acknowledged = 0
        self._refused = 0
        self._wrong = 0
        self._rejected = 0
        #: What was wrong first, in words; empty while nothing is.
        self.first_wrong = ""
        self.received_bytes = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a reply is still owed."""
        return bool(self._expected)

    def expect(self, line: Line) -> None:
        """Note a line; to be called before it is sent, as its reply may be quicker than the sender."""
        self._expected.append(line)

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
            rejected=self._rejected,
        )

    def _check(self, reply: bytes) -> None:
        line = self._expected.popleft() if self._expected else None
        if line is not None and is_right(reply, line):
            is_kept = reply.startswith(b"OK")
            self._acknowledged += is_kept
            self._rejected += not is_kept
        elif line is not None and reply == REFUSAL:
            self._refused += 1
        else:
            self._wrong += 1
            sent = line.wire[:200] if line is not None else "nothing"
            self.first_wrong = self.first_wrong or f"reply {reply[:200]!r} to {sent!r}"


def is_right(reply: bytes, line: Line) -> bool:
    """Whether this is the reply that the line is owed."""
    return reply == line.reply if isinstance(line, OddLine) else is_acknowledgement(reply, line)


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
