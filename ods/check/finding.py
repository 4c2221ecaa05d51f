"""What a check has found: how it is, in words, and what to do about it."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing is: as it should be; worth knowing; or such that the run would suffer."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result. `advice` is empty where there is nothing to do."""

    state: State
    what: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def ok(what: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(State.OK, what, found)


def warning(what: str, found: str, advice: str) -> Finding:
    """It is worth knowing, and does not keep ODS from doing its work."""
    return Finding(State.WARNING, what, found, advice)


def failed(what: str, found: str, advice: str) -> Finding:
    """It has to be mended before the run."""
    return Finding(State.FAILED, what, found, advice)
