"""What was asked for, as small values; where the two kinds of replay begin."""

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ods.marks import marks
from ods.pods import ODS
from ods.recorded import Segment, Tally, find
from ods.recording import folder_name
from ods.selection import Marked, Selection, read
from ods.settings import InfluxSettings


class Shown(Protocol):
    """Where progress and warnings go (`ods.commands.progress_bar`)."""

    def show(self, *, done: float, total: float, count: int, note: str = "") -> None:
        """So much is done."""

    def say(self, text: str) -> None:
        """A line for a person."""


@dataclass(frozen=True, slots=True)
class IntoInflux:
    """Back into InfluxDB; `redate` is when the first row is to be of."""

    is_resumed: bool
    state: Path | None
    redate: str | None


@dataclass(frozen=True, slots=True)
class AsPods:
    """To a server; `speed` times as fast as it was, infinite for as fast as it takes it."""

    host: str
    port: int
    speed: float
    is_loop: bool
    first_address: ipaddress.IPv4Address


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be replayed, and where. `given` has the options of the selection."""

    given: argparse.Namespace
    directory: Path
    influx: InfluxSettings
    paths: Sequence[Path]
    target: IntoInflux | AsPods

    def selection(self) -> Selection:
        """Raises SettingsError."""
        return read(self.given, self.marks)

    def marks(self) -> Sequence[Marked]:
        """The marks beside the recordings that are replayed."""
        for folder in dict.fromkeys(_folder_of_pods(path) for path in (*self.paths, self.directory)):
            if found := marks(folder):
                return found
        return []

    def segments(self, selection: Selection) -> list[Segment]:
        """What is there of it. Raises SettingsError."""
        return find(self.paths or self.directory, selection)


def _folder_of_pods(path: Path) -> Path:
    """The folder that holds the folders of all pods, where this is what is to be read."""
    if (path / "recordings").is_dir():
        return path / "recordings"
    path = path.absolute() if path.is_dir() else path.absolute().parent
    return path if (path / folder_name(ODS)).is_dir() else path.parent


def as_told(tally: Tally) -> list[str]:
    """The lines of a summary that say what was read; what follows adds up to it."""
    lines = [f"{tally.read:>14,}  rows read"]
    if tally.unreadable_rows or tally.unreadable_files:
        lines.append(f"{tally.unreadable_rows:>14,}  rows not readable, besides {tally.unreadable_files} damaged files")
    return [*lines, f"{tally.read - tally.selected:>14,}  not selected"]
