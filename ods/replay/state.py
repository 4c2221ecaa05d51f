"""The note by which an interrupted replay goes on: what was asked for, and how far InfluxDB has confirmed it.

Written whole or not at all, a few times a second; what it is behind is sent once more, which changes nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ods.errors import SettingsError
from ods.replay.batches import Position

#: It is written so often at most. Seconds.
EVERY_SECONDS = 0.5
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Span:
    """When the replay was begun, and what words like `-10m` and `now` meant then. Nanoseconds."""

    begun_ns: int
    from_ns: int
    to_ns: int
    shift_ns: int


class StateFile:
    """The note of one replay. `question` is what tells it from others, as it was typed; `warn` hears of a bad disk."""

    def __init__(self, path: Path, question: Mapping[str, Any], *, warn: Callable[[str], None]) -> None:
        self.path = path
        self._question = dict(question)
        self._warn = warn
        self._is_warned = False
        self._written_at = float("-inf")

    def load(self) -> tuple[Span, Position] | None:
        """How far an interrupted replay came; None where none was. Raises SettingsError where that was another one."""
        try:
            noted = json.loads(self.path.read_bytes())
            span, position = Span(**noted["span"]), Position(*noted["position"])
            is_same = noted["version"] == _VERSION and noted["question"] == self._question
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"--resume: {self.path} cannot be read ({error}); leave --resume out") from error
        if not is_same:
            raise SettingsError(
                f"--resume: {self.path} is of another replay (other options); leave --resume out to begin anew"
            )
        return span, position

    def note(self, span: Span, position: Position, *, at_once: bool = False) -> None:
        """Note how far it came."""
        now = time.monotonic()
        if not at_once and now - self._written_at < EVERY_SECONDS:
            return
        self._written_at = now
        noted = {"version": _VERSION, "question": self._question, "span": asdict(span), "position": position}
        unfinished = self.path.with_name(f"{self.path.name}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(noted), encoding="utf-8")
            unfinished.replace(self.path)
        except OSError as error:
            if not self._is_warned:
                self._is_warned = True
                self._warn(f"--resume will not go on from here: {self.path}: {error.strerror or error}")

    def remove(self) -> None:
        """It is done."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{self.path}: {error.strerror or error}")


def default_path(directory: Path, question: Mapping[str, Any]) -> Path:
    """A file of its own for each replay that is asked for."""
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    return directory / f"replay-{digest[:12]}.json"
