"""Makes one export: reads the source, writes the table, at the end the manifest. Nothing is left of one that fails."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ods import __version__
from ods.errors import SettingsError
from ods.export.csv_table import LogsCsv, LongCsv, WideCsv
from ods.export.manifest import Account, asked, manifest, time_text
from ods.export.output import Output, write_whole
from ods.export.tables import DATA, Block, Points, Source, Table
from ods.marks import Mark
from ods.selection import Selection
from ods.sensors import Sensor, Sensors

#: How the manifest of a file is called.
MANIFEST = ".manifest.json"
CSV, PARQUET = "csv", "parquet"
#: So many columns make a table that no program likes to open.
MAX_COLUMNS = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be made."""

    what: str
    selection: Selection
    file_format: str
    is_wide: bool
    is_compressed: bool
    #: None: to standard output.
    output: Path | None
    manifest: Path | None
    #: What is known of names, for the manifest and for what a format can hold of it.
    sensors: Sensors = field(default_factory=Sensors)
    #: Whether a CSV file begins with comments that tell the labels and units.
    is_commented: bool = False
    #: The moments that operators noted.
    marks: Sequence[Mark] = ()


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    account: Account
    size_bytes: int = 0
    sha256: str = ""
    #: Points of names that came up after the columns were counted.
    left_out: int = 0


def make(wanted: Wanted, source: Source, stdout: BinaryIO, on_progress: Callable[[int], None]) -> Outcome:
    """Make it; `on_progress` is told of the rows that were read. Raises OdsError and OSError."""
    names = _names(wanted, source, on_progress) if wanted.is_wide else []
    output = Output(wanted.output, stdout, is_compressed=wanted.is_compressed)
    outcome, columns = Outcome(Account()), set(names)
    output.open()
    try:
        table = _table(wanted, names, output)
        for block in source.blocks(wanted.what, wanted.selection):
            on_progress(len(block.times))
            known = _known(block, columns) if wanted.is_wide else block
            outcome.left_out += len(block.times) - len(known.times)
            if known.times:
                outcome.account.add(known, table.write(known))
        table.close()
        output.finish()
        outcome.size_bytes, outcome.sha256 = output.size_bytes, output.sha256
        if outcome.account.whole.rows or not output.is_file:
            _keep(wanted, output, table, outcome, source)
    finally:
        output.discard()
    return outcome


def _keep(wanted: Wanted, output: Output, table: Table, outcome: Outcome, source: Source) -> None:
    """The manifest of a file that was there before goes first: at no time does one belong to another file."""
    if wanted.manifest is not None:
        wanted.manifest.unlink(missing_ok=True)
    output.keep()
    if wanted.manifest is not None:
        write_whole(wanted.manifest, _manifest(wanted, table, outcome, source))


def _manifest(wanted: Wanted, table: Table, outcome: Outcome, source: Source) -> bytes:
    return manifest(
        file=wanted.output.name if wanted.output else "-",
        file_format=f"{wanted.file_format}.gz" if wanted.is_compressed else wanted.file_format,
        size_bytes=outcome.size_bytes,
        sha256=outcome.sha256,
        columns=table.columns,
        asked_for=asked(wanted.what, wanted.selection, is_wide=wanted.is_wide),
        account=outcome.account,
        source=dict(source.told()) | {"is_whole": source.is_whole, "left_out": outcome.left_out},
        made_ns=time.time_ns(),
        more={"sensors": _sensors(wanted, outcome.account.names), "marks": _marks(wanted)},
    )


def _sensors(wanted: Wanted, names: Iterable[str]) -> dict[str, object]:
    """What is known of these names."""
    return {name: sensor.as_dict() for name in names if (sensor := wanted.sensors.of(name)) is not None}


def _marks(wanted: Wanted) -> list[dict[str, object]]:
    """The marks within the span that was asked for."""
    return [
        {"number": mark.number, "time": time_text(mark.time_ns), "time_ns": mark.time_ns, "text": mark.text}
        for mark in wanted.marks
        if wanted.selection.has_time(mark.time_ns)
    ]


def _names(wanted: Wanted, source: Source, on_progress: Callable[[int], None]) -> list[str]:
    """The names that get a column: reading once to know them takes no memory, as gathering all rows would."""
    names: set[str] = set()
    for block in source.blocks(wanted.what, wanted.selection):
        assert isinstance(block, Points)
        names.update(block.names)
        on_progress(len(block.times))
        if len(names) > MAX_COLUMNS:
            raise SettingsError(f"--wide: there are more than {MAX_COLUMNS} names; choose some with --name")
    return sorted(names)


def _known(block: Block, names: AbstractSet[str]) -> Block:
    """The part of a block of points that has columns."""
    assert isinstance(block, Points)
    if names >= set(block.names):
        return block
    at = [index for index, name in enumerate(block.names) if name in names]
    times, values = [block.times[index] for index in at], [block.values[index] for index in at]
    return Points(block.pod, times, [block.names[index] for index in at], values)


def _table(wanted: Wanted, names: Sequence[str], output: Output) -> Table:
    if wanted.file_format == PARQUET:
        return _parquet(wanted, names, output)
    if wanted.is_commented:
        known = {name: sensor for name, sensor in wanted.sensors.by_name.items() if _has_column(wanted, names, name)}
        output.write("".join([_comment(name, sensor) for name, sensor in known.items()]).encode())
    if wanted.what != DATA:
        return LogsCsv(output.write)
    return WideCsv(output.write, names) if wanted.is_wide else LongCsv(output.write)


def _has_column(wanted: Wanted, names: Sequence[str], name: str) -> bool:
    return name in names if wanted.is_wide else wanted.selection.has_name(name)


def _comment(name: str, sensor: Sensor) -> str:
    return f"# {name}: {sensor.label}{f' [{sensor.unit}]' if sensor.unit else ''}\n"


def _parquet(wanted: Wanted, names: Sequence[str], output: Output) -> Table:
    # Imported here: it is an extra, and takes half a second.
    from ods.export.parquet_table import LogsParquet, LongParquet, WideParquet

    known = names if wanted.is_wide else [name for name in wanted.sensors.by_name if wanted.selection.has_name(name)]
    told = {
        "ods_version": __version__,
        "asked": asked(wanted.what, wanted.selection, is_wide=wanted.is_wide),
        "sensors": _sensors(wanted, known),
        "marks": _marks(wanted),
    }
    metadata = {"ods": json.dumps(told, ensure_ascii=False)}
    if wanted.what != DATA:
        return LogsParquet(output.write, metadata)
    if not wanted.is_wide:
        return LongParquet(output.write, metadata)
    of_names = {name: {"label": one.label, "unit": one.unit} for name in names if (one := wanted.sensors.of(name))}
    return WideParquet(output.write, names, metadata, of_names)
