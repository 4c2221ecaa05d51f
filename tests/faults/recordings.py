"""What ODS had recorded at the moment of a kill: every row with a complete line, in open and closed segments."""

import csv
import gzip
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from faults.oracle import Oracle, Recorded

#: What a segment is called while open, while closed, and when compressed.
ENDINGS = (".csv.open", ".csv", ".csv.gz")


class Recordings:
    """Reads below one data directory what it has not read before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "recordings"
        #: Segments that were seen closed: nothing is added to them any more.
        self._closed: set[Path] = set()

    def read(self, oracle: Oracle) -> Iterator[Recorded]:
        """Every row of a record; what was no record, and torn lines, are left out."""
        for path in sorted(self._directory.glob("*/*")):
            ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
            segment = path.with_name(path.name.removesuffix(ending or ""))
            if ending is None or segment in self._closed:
                continue
            if ending != ".csv.open":
                self._closed.add(segment)
            yield from _recorded(oracle, path, is_data=segment.name.endswith(".data"))


def _recorded(oracle: Oracle, path: Path, *, is_data: bool) -> Iterator[Recorded]:
    pod = urllib.parse.unquote(path.parent.name)
    for row in _complete_rows(path):
        if is_data:
            yield pod, oracle.identify(row[1], float(row[2])), ",".join(row)
        elif row[1] == "log":
            yield pod, oracle.identify_message(row[2]), ",".join(row)


def _complete_rows(path: Path) -> list[list[str]]:
    """All rows but the header, and but one that has no newline."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))[1:]
