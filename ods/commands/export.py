"""`ods export`: what was kept as a table, for pandas, a spreadsheet or any other program."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ods.command_options import CommandParser, add_influx_arguments, settings_of
from ods.commands.export_progress import Progress
from ods.errors import InfluxError, OdsError, SettingsError, Unavailable
from ods.export.from_influx import InfluxDb
from ods.export.from_recordings import Recordings
from ods.export.job import CSV, MANIFEST, PARQUET, Outcome, Wanted, make
from ods.export.manifest import time_text
from ods.export.tables import DATA, LOGS, Source
from ods.marks import marks
from ods.pods import ODS
from ods.selection import WHEN_HELP, add_arguments, read
from ods.settings import Settings
from ods.unwanted import without

with without("pandas", "numpy"):  # `sqlite_utils` would import them: 80 MB
    from ods.buffer_access import waiting_pages
    from ods.export.from_buffer import BufferSource

_EXAMPLES = f"""examples:
  ods export -o run.csv
  ods export --pod 127.0.1.1 --name 'accel_*' --from -10m -o accel.csv.gz
  ods export --wide -o run.parquet
  ods export --logs -o log.csv
  ods export --source influx | head
  ods export --source buffer --name 'accel_*' -o waiting.csv

{WHEN_HELP}
The table is long: time, pod, name, value, a row a data point; pod by pod, each in the order of time. With --wide
names are columns. Times are UTC, to the nanosecond:

  pandas.read_csv("run.csv", parse_dates=["time"])
  pandas.read_parquet("run.parquet")

The same points make the same file from each source. Beside it FILE{MANIFEST} says what it holds, how many rows, from
when to when, and its checksum (SHA-256). The file has its name only once it is whole.

exit status: 0 done, 1 nothing matched and no file was written, 2 wrong usage, 3 it could not be done, 4 done, but a
part of the source could not be read (it is named on stderr, or counted in the manifest)
"""

DONE, NOTHING, WRONG_USAGE, FAILED, NOT_WHOLE = 0, 1, 2, 3, 4
#: What a shell shows for a command ended by Ctrl-C.
INTERRUPTED = 130

#: The folder of the recordings in a data directory.
RECORDINGS = "recordings"
SOURCES = ("recordings", "influx", "buffer")
#: The format that the end of a file's name tells.
_ENDINGS = {".csv": CSV, ".csv.gz": CSV, ".parquet": PARQUET, ".pq": PARQUET}


def main(argv: Sequence[str]) -> int:
    """Do what was asked. Returns the exit status."""
    given = _parser().parse_args(list(argv))
    try:
        settings = settings_of(given, os.environ)
        wanted, source = _wanted(given, settings), _source(given, settings)
        with Progress(source) as progress:
            outcome = make(wanted, source, sys.stdout.buffer, progress.add)
        sys.stdout.flush()
    except SettingsError as error:
        return _fail(str(error), WRONG_USAGE)
    except InfluxError as error:
        advice = f"; {error.advice}" if isinstance(error, Unavailable) and error.advice else ""
        return _fail(f"InfluxDB at {settings.influx.url}: {error.reason}{advice}")
    except OdsError as error:
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        return _fail(f"{error.filename or given.output or 'standard output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("stopped; no file was written", INTERRUPTED)
    return _tell(wanted, source, outcome)


def _tell(wanted: Wanted, source: Source, outcome: Outcome) -> int:
    whole = outcome.account.whole
    if outcome.left_out:
        _say(f"left out: {outcome.left_out} points of names that came up meanwhile; export again to have them")
    if not whole.rows:
        return _fail("nothing matches", NOTHING)
    if wanted.output is not None:
        _say(f"{wanted.output}: {whole.rows} rows, {time_text(whole.first_ns)} to {time_text(whole.last_ns)}")
    return DONE if source.is_whole and not outcome.left_out else NOT_WHOLE


def _wanted(given: argparse.Namespace, settings: Settings) -> Wanted:
    output = None if given.output in (None, Path("-")) else given.output
    ending = next((ending for ending in _ENDINGS if output and output.name.endswith(ending)), "")
    file_format = given.format or _ENDINGS.get(ending, CSV)
    if ending and file_format != _ENDINGS[ending]:
        raise SettingsError(f"--format {file_format} does not go with the name of {output}")
    if given.logs and (given.wide or given.name):
        raise SettingsError("--logs goes with neither --wide nor --name: log messages have no name")
    _check_format(file_format, output)
    marked = marks(_recordings_folder(given, settings), on_unreadable=_say)
    return Wanted(
        what=LOGS if given.logs else DATA,
        selection=read(given, lambda: marked),
        file_format=file_format,
        is_wide=given.wide,
        is_compressed=ending.endswith(".gz"),
        output=output,
        manifest=given.manifest or (output and output.with_name(output.name + MANIFEST)),
        sensors=settings.sensors,
        is_commented=given.comments,
        marks=marked,
    )


def _recordings_folder(given: argparse.Namespace, settings: Settings) -> Path:
    """Where the marks are, which belong to no pod: beside what is exported, where recordings are named."""
    if not given.recordings:
        return settings.directory / RECORDINGS
    named: Path = given.recordings[0].absolute()
    if (named / RECORDINGS).is_dir():
        return named / RECORDINGS
    return next((folder for folder in (named, *named.parents[:2]) if (folder / ODS).is_dir()), named)


def _check_format(file_format: str, output: Path | None) -> None:
    if file_format == PARQUET and importlib.util.find_spec("pyarrow") is None:
        raise SettingsError("Parquet needs pyarrow, an extra of ODS: install it with pip install 'pyarrow>=15,<27'")
    if file_format == PARQUET and output is None and sys.stdout.isatty():
        raise SettingsError("Parquet is nothing for a terminal: name a file with -o FILE")


def _source(given: argparse.Namespace, settings: Settings) -> Source:
    if given.recordings and given.source != SOURCES[0]:
        raise SettingsError(f"{given.recordings[0]}: recordings are named, and --source {given.source} too")
    if given.source == "influx":
        return InfluxDb(settings.influx)
    if given.source == "buffer":
        return BufferSource(lambda: waiting_pages(settings.directory), str(settings.directory.absolute()))
    return Recordings(given.recordings or settings.directory, warn=_say)


def _fail(reason: str, status: int = FAILED) -> int:
    _say(reason)
    return status


def _say(text: str) -> None:
    print(f"ods export: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="ods export",
        description="Export telemetry as a table, from the recordings, the buffer or InfluxDB, to CSV or Parquet.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("recordings", nargs="*", type=Path, metavar="PATH", help="recordings: files or folders (those of DIR)")
    add("-d", "--directory", type=Path, metavar="DIR", help="ODS's data directory (the default one)")
    add("--source", choices=SOURCES, default=SOURCES[0], help="where to take it from (recordings)")
    add("-o", "--output", type=Path, metavar="FILE", help=".csv, .csv.gz or .parquet (standard output)")
    add("--format", choices=(CSV, PARQUET), help="the format (by the name of FILE, else csv)")
    add("--wide", action="store_true", help="a column a name")
    add("--logs", action="store_true", help="log messages: time, pod, level, message")
    add("--manifest", type=Path, metavar="FILE", help=f"where to write the manifest (FILE{MANIFEST})")
    add("--comments", action="store_true", help="begin a CSV file with labels and units, in lines that begin with #")
    add("--sensors", metavar="FILE", help="the sensor file with the labels and units (that of serve)")
    add_arguments(parser)
    add_influx_arguments(parser)
    return parser
