"""The rows that the suite prints: one a fault, with what it did to the records, and how long it took."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.pod_client import SEND_TIMEOUT_SECONDS

HEADINGS = (
    "fault",
    "rounds",
    "records",
    "acknowledged",
    "lost",
    "doubled or wrong",
    "longest send, s",
    "to recover, s",
    "remarks",
)
#: The contract's bound for the first write after a fault. Seconds.
PROMPT_SECONDS = 2.0
#: The columns of words; the others are numbers.
TEXTS = ("fault", "remarks")


@dataclass
class Row:
    """What a fault did."""

    fault: str
    rounds: int = 0
    records: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled_or_wrong: int = 0
    longest_send_seconds: float = 0.0
    #: The longest of all rounds; None where there is nothing to recover from.
    recovery_seconds: float | None = None
    remarks: list[str] = field(default_factory=list)
    #: What is wrong besides lost, doubled and wrong records: each in one line.
    failures: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether all is as promised; how long a pod waited aside."""
        return not (self.lost or self.doubled_or_wrong or self.failures)

    @property
    def is_prompt(self) -> bool:
        """Whether no pod's send waited a second."""
        return self.longest_send_seconds < SEND_TIMEOUT_SECONDS

    def fail(self, error: Exception) -> None:
        """Note what went wrong, in one line."""
        self.failures.append(str(error).partition("\n")[0] or repr(error))

    def cells(self) -> list[str]:
        """As text, in the order of the headings."""
        late = self.recovery_seconds is not None and self.recovery_seconds > PROMPT_SECONDS
        marks = [*(["late"] if late else []), *([] if self.is_good and self.is_prompt else ["FAILED"])]
        return [
            self.fault,
            *(f"{count}" for count in (self.rounds, self.records, self.acknowledged, self.lost, self.doubled_or_wrong)),
            f"{self.longest_send_seconds:.3f}",
            "-" if self.recovery_seconds is None else f"{self.recovery_seconds:.2f}",
            "; ".join([*marks, *self.remarks]),
        ]


def plain(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    table = [list(HEADINGS), *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(_aligned(cells, widths)).rstrip() for cells in table)


def failures(rows: Sequence[Row]) -> list[str]:
    """What went wrong besides what the table counts, a line each."""
    return [f"{row.fault}: {failure}" for row in rows for failure in dict.fromkeys(row.failures)]


def markdown(rows: Sequence[Row]) -> str:
    """The table for a page of the documentation."""
    ruler = ["---" if heading in TEXTS else "---:" for heading in HEADINGS]
    table = [list(HEADINGS), ruler, *([cell.replace("|", "\\|") for cell in row.cells()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if heading in TEXTS else cell.rjust(width)
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    ]
