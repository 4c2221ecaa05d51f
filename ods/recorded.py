"""Finds what the recordings hold and reads it, also while an ODS writes them: for what is done after a run.

A piece at a time, so that the size of a recording is no matter. A segment that is damaged, or was deleted meanwhile, is
told of once and counted; the others are read all the same. It knows nothing of what becomes of the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

from ods.errors import SettingsError
from ods.playback import play
from ods.recording import Row, pod_of_folder, segment_begin
from ods.segment_files import COMPRESSED, OPEN, has_end
from ods.selection import Selection

#: A row may stand before rows that are so much earlier: batches do not come in the order of their first records, and
#: what there was no memory for comes first. Nanoseconds.
DISORDER_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the recordings: the pod, the kind (`data`, `log`), and about when it begins."""

    path: Path
    pod: str
    kind: str
    begin_ns: int


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of one pod and kind."""

    pod: str
    kind: str
    rows: list[Row]


@dataclass(slots=True)
class Tally:
    """What was read, in rows; `read = selected + the others`. What could not be read is told to `warn`."""

    warn: Callable[[str], None] = field(default=lambda text: None)
    read: int = 0
    selected: int = 0
    unreadable_rows: int = 0
    unreadable_files: int = 0

    def miss(self, segment: Segment, error: Exception) -> None:
        """A segment cannot be read, or not to its end."""
        self.unreadable_files += 1
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.warn(f"{segment.path} cannot be read to its end: {reason.removeprefix(f'{segment.path}: ')}")


def find(where: Path | Sequence[Path], selection: Selection) -> list[Segment]:
    """The segments that may hold what is selected, in the order of their begin.

    `where`: a data directory, its folder of recordings, a pod's folder, or segments. Raises SettingsError where there
    is nothing of the kind; an empty list is a data directory that holds nothing of what is selected.
    """
    found: dict[tuple[Path, str], Segment] = {}
    for path in [where] if isinstance(where, Path) else where:
        for segment in _below(path):
            # One that is closed while this looks, or whose compressing a crash has cut off, is there twice.
            found[segment.path.parent.resolve(), _base(segment.path.name)] = segment
    chosen = [segment for segment in found.values() if _may_hold(segment, selection)]
    chosen.sort(key=lambda segment: (segment.pod, segment.kind, segment.begin_ns))
    kept: list[Segment] = []
    for _, same in groupby(chosen, key=lambda segment: (segment.pod, segment.kind)):
        kept += _that_last_until(list(same), selection.from_ns)
    return sorted(kept, key=lambda segment: (segment.begin_ns, segment.pod, segment.kind))


def read(
    segment: Segment, selection: Selection, tally: Tally, *, piece_bytes: int | None = None
) -> Iterator[list[Row]]:
    """What is selected of a segment, in pieces of some thousand rows, as they stand in it."""
    after_ns = selection.from_ns - 1 - DISORDER_NS if selection.from_ns else -1
    path = segment.path
    try:
        if path.suffix == OPEN and not path.exists():
            path = path.with_suffix("")  # closed since, and where it is compressed too, `play` knows
        for piece in play(path, after_ns=after_ns, piece_bytes=piece_bytes):
            rows = selection.of(segment.kind, piece.rows)
            tally.read += len(piece.rows)
            tally.unreadable_rows += piece.unreadable
            if rows:
                tally.selected += len(rows)
                yield rows
    except (OSError, ValueError) as error:
        tally.miss(segment, error)


def rows(segments: Iterable[Segment], selection: Selection, tally: Tally) -> Iterator[Part]:
    """What is selected of these segments: one pod and kind after the other, each in the order of time.

    What came out of order is put in order as far as it is not off by more than a piece.
    """
    ordered = sorted(segments, key=lambda segment: (segment.pod, segment.kind, segment.begin_ns))
    for (pod, kind), same in groupby(ordered, key=lambda segment: (segment.pod, segment.kind)):
        pieces = (piece for segment in same for piece in read(segment, selection, tally))
        for piece in in_order(pieces):
            yield Part(pod, kind, piece)


def in_order(pieces: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """The same rows in the order of time; one piece is held back, for what follows may be a little earlier."""
    held: list[Row] = []
    for piece in filter(None, pieces):
        piece = sorted(piece, key=_time_ns)  # they nearly always are, and then this is quick
        if held and _time_ns(piece[0]) < _time_ns(held[-1]):
            merged = sorted(held + piece, key=_time_ns)
            held, piece = merged[: len(held)], merged[len(held) :]
        if held:
            yield held
        held = piece
    if held:
        yield held


def _time_ns(row: Row) -> int:
    return int(row[0])


def _below(path: Path) -> Iterator[Segment]:
    """All segments of a data directory, a folder of recordings, a pod's folder, or the one that this is."""
    try:
        if not path.is_dir():
            yield _the(path)
            return
        recordings = path / "recordings"
        folders = [recordings] if recordings.is_dir() else [path]
        for folder in (*folders, *(inner for inner in sorted(folders[0].iterdir()) if inner.is_dir())):
            yield from _in(folder)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error


def _the(path: Path) -> Segment:
    """Raises SettingsError where a path is no segment."""
    if not path.exists():
        raise SettingsError(f"{path}: no such file or folder")
    try:
        return _segment(path)
    except ValueError as error:
        raise SettingsError(f"{path} is no recording: {error}") from error


def _in(folder: Path) -> Iterator[Segment]:
    """The segments right in a folder, the state that lasts longest last; other files are none of its concern."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: (path.suffix == COMPRESSED, path.suffix != OPEN, path))
    except NotADirectoryError:
        return
    for path in paths:
        try:
            segment = _segment(path)
        except ValueError:
            continue
        if has_end(segment.path):
            yield segment


def _segment(path: Path) -> Segment:
    begin_ns, kind = segment_begin(path.name)
    return Segment(path, pod_of_folder(path.absolute().parent.name), kind, begin_ns)


def _base(name: str) -> str:
    """The name of a segment, whatever state it is in."""
    return name.removesuffix(COMPRESSED).removesuffix(OPEN)


def _may_hold(segment: Segment, selection: Selection) -> bool:
    is_too_late = segment.begin_ns - DISORDER_NS >= selection.to_ns
    return selection.has_pod(segment.pod) and not is_too_late and (segment.kind == "data" or selection.has_logs)


def _that_last_until(segments: Sequence[Segment], from_ns: int) -> list[Segment]:
    """Without those that end before; each lasts until the next of its pod and kind begins, whatever the clock did."""
    lasting = [one for one, following in pairwise(segments) if following.begin_ns + DISORDER_NS > from_ns]
    return [*lasting, segments[-1]]
