"""`ods quarantine`: what InfluxDB would not take, to be looked at, taken elsewhere, tried again or dropped."""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ods.errors import Unreachable
from ods.quarantine import Page, Selection
from ods.quarantine_access import QuarantineAccess
from ods.settings import default_directory

_EXAMPLES = """examples:
  ods quarantine list
  ods quarantine list --all --name accel_x
  ods quarantine export --output quarantine.csv
  ods quarantine retry --reason 'field type conflict'
  ods quarantine drop --name accel_x --yes

A line is quarantined when InfluxDB will never take it as things are; the reason is InfluxDB's own. Mend the cause
first (for a conflict of field types: drop what is in InfluxDB under that name), then retry: the points go to InfluxDB
again, with their old times, and what it still refuses returns to the quarantine. It does not matter whether ODS runs;
without one, what is retried is sent when it starts.

exit status: 0 done, 1 no line matched or nothing was changed, 2 wrong usage, 3 it could not be done: no ODS answers
and the buffer cannot be opened, or the output cannot be written
"""

DONE, NOTHING, WRONG_USAGE, FAILED = 0, 1, 2, 3
#: What a shell shows for a command ended by Ctrl-C.
INTERRUPTED = 130

#: As many lines can be named at once.
MAX_IDS = 200
#: As many groups are told apart in a summary, for it stands in memory; the rest is one more group.
MAX_GROUPS = 10_000
#: A longer value is cut in the table. Characters.
VALUE_WIDTH = 40

_COLUMNS = ("id", "time_ns", "pod", "database", "name", "value", "reason", "line")

_Group = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Do what was asked. Returns the exit status."""
    given = _parser().parse_args(list(argv))
    access = QuarantineAccess(given.directory or default_directory(os.environ))
    selection = Selection(pod=given.pod, name=given.name, reason=given.reason, ids=tuple(given.id))
    try:
        status: int = given.command(access, selection, given)
        sys.stdout.flush()
    except Unreachable as error:
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        return _fail(f"the output cannot be written: {error}")
    except KeyboardInterrupt:
        _say("stopped; what was done before stays done")
        return INTERRUPTED
    return status


def _list(access: QuarantineAccess, selection: Selection, given: argparse.Namespace) -> int:
    if given.all:
        return _list_lines(access, selection, given)
    groups = _joined(access.pages("summary", selection))
    if not groups:
        return _nothing()
    for text in map(json.dumps, groups) if given.json else _summary_table(groups):
        print(text)
    return DONE


def _list_lines(access: QuarantineAccess, selection: Selection, given: argparse.Namespace) -> int:
    matched = 0
    for page in access.pages("lines", selection):
        if page.lines and not matched and not given.json:
            print(_row("id", "time (UTC)", "pod", "name", "value", "reason"))
        matched += page.lines
        for entry in page.entries:
            print(json.dumps(entry) if given.json else _line(entry))
    return DONE if matched else _nothing()


def _export(access: QuarantineAccess, selection: Selection, given: argparse.Namespace) -> int:
    pages = access.pages("lines", selection)
    page: Page | None = next(pages)  # before the file is touched: it may be there already, and the buffer not
    is_csv = given.format == "csv"
    matched = unreadable = 0
    with nullcontext(sys.stdout.buffer) if given.output is None else given.output.open("wb") as output:
        if is_csv:
            output.write(_csv([_COLUMNS]))
        while page is not None:
            output.write(_csv(_cells(entry) for entry in page.entries) if is_csv else _lines(page.entries))
            matched, unreadable = matched + page.lines, unreadable + page.unreadable
            page = next(pages, None)
        output.flush()
    if unreadable and not is_csv:
        _say(f"left out: {unreadable} that are damaged and no line protocol (--format csv has them)")
    return DONE if matched else _nothing()


def _retry(access: QuarantineAccess, selection: Selection, given: argparse.Namespace) -> int:
    lines, points, unreadable = _changed(access.pages("retry", selection))
    if unreadable:
        _say(f"left alone: {unreadable} that are damaged and no line protocol; export them, or drop them")
    if not lines:
        return NOTHING if unreadable else _nothing()
    when = "" if access.is_running else " when ODS starts"
    print(f"{lines} lines ({points} points) are sent to InfluxDB again{when}; what it refuses comes back")
    return DONE


def _drop(access: QuarantineAccess, selection: Selection, given: argparse.Namespace) -> int:
    if not given.yes:
        if not sys.stdin.isatty():
            _say("drop deletes for good: say --yes, for there is no terminal to ask on")
            return WRONG_USAGE
        confirmed = _confirmed(access, selection)
        if confirmed is None:
            return NOTHING
        selection = confirmed
    lines, points, _ = _changed(access.pages("drop", selection))
    if not lines:
        return _nothing()
    print(f"{lines} lines ({points} points) are dropped")
    return DONE


def _confirmed(access: QuarantineAccess, selection: Selection) -> Selection | None:
    """Ask on the terminal; the answer holds for what there was when it was asked. None: nothing is to be dropped."""
    lines = points = until = 0
    for page in access.pages("summary", selection):
        lines, points, until = lines + page.lines, points + sum(page.points.values()), page.until
    if not lines:
        _nothing()
        return None
    print(f"Delete {lines} lines ({points} points) for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        _say("nothing was dropped")
        return None
    return replace(selection, until=until)


def _changed(pages: Iterator[Page]) -> tuple[int, int, int]:
    """Go through all pages; returns lines, points, and how many were left alone, for they are damaged."""
    lines = points = unreadable = 0
    try:
        for page in pages:
            lines += page.lines
            points += sum(page.points.values())
            unreadable += page.unreadable
    except Unreachable as error:
        raise Unreachable(f"{error}; {lines} lines were done before") from error
    return lines, points, unreadable


def _joined(pages: Iterator[Page]) -> list[_Group]:
    """The groups of all pages, the largest first."""
    groups: dict[tuple[str, str | None, str], _Group] = {}
    for page in pages:
        for group in page.entries:
            key = (group["pod"], group["name"], group["reason"])
            if key not in groups and len(groups) >= MAX_GROUPS:
                key = ("(others)", None, "(several)")
                group |= {"pod": key[0], "name": key[1], "reason": key[2]}
            known = groups.setdefault(key, group)
            if known is not group:
                for count in ("lines", "points"):
                    known[count] += group[count]
                known["first_ns"] = min(known["first_ns"], group["first_ns"])
                known["last_ns"] = max(known["last_ns"], group["last_ns"])
    return sorted(groups.values(), key=lambda group: -int(group["lines"]))


def _summary_table(groups: Sequence[_Group]) -> Iterator[str]:
    rows = [("lines", "pod", "name", "first (UTC)", "last (UTC)", "reason")]
    for group in groups:
        times = _time(group["first_ns"]), _time(group["last_ns"])
        rows.append((str(group["lines"]), _plain(group["pod"]), _name(group), *times, _reason(group)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for lines, *cells, reason in rows:
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join((f"{lines:>{widths[0]}}", *padded, reason))
    lines, points = (sum(group[count] for group in groups) for count in ("lines", "points"))
    yield f"{lines} lines ({points} points) in {len(groups)} groups"


def _line(entry: Mapping[str, Any]) -> str:
    value = f"{entry['points']} points" if entry["unreadable"] else _plain(entry["value"])
    if len(value) > VALUE_WIDTH:
        value = f"{value[: VALUE_WIDTH - 3]}..."
    return _row(str(entry["id"]), _time(entry["time_ns"]), _plain(entry["pod"]), _name(entry), value, _reason(entry))


def _row(line_id: str, time: str, pod: str, name: str, value: str, reason: str) -> str:
    return f"{line_id:>8}  {time:<24}  {pod:<15}  {name:<20}  {value:<12}  {reason}"


def _name(entry: Mapping[str, Any]) -> str:
    return "(damaged)" if entry["unreadable"] else _plain(entry["name"] or "")


def _reason(entry: Mapping[str, Any]) -> str:
    return _plain(f"damaged, kept as it is: {entry['reason']}" if entry["unreadable"] else entry["reason"])


def _cells(entry: Mapping[str, Any]) -> list[Any]:
    return [entry[column] for column in _COLUMNS]


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _lines(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join([f"{entry['line']}\n" for entry in entries if not entry["unreadable"]]).encode()


def _time(time_ns: int) -> str:
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


def _plain(text: str) -> str:
    """Foreign text as a terminal may have it: no control characters."""
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def _nothing() -> int:
    _say("no line in the quarantine matches")
    return NOTHING


def _fail(reason: str) -> int:
    _say(reason)
    return FAILED


def _say(text: str) -> None:
    print(f"ods quarantine: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="ods quarantine",
        description="Work on the points that InfluxDB would not take.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[..., int], description: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=description, description=f"{description.capitalize()}.", epilog=_EXAMPLES, formatter_class=raw
        )
        sub.set_defaults(command=command)
        sub.add_argument("-d", "--directory", type=Path, metavar="DIR", help="ODS's data directory (the default one)")
        sub.add_argument("--pod", metavar="POD", help="only the lines of this pod")
        sub.add_argument("--name", metavar="NAME", help="only those of this name (the measurement)")
        sub.add_argument("--reason", metavar="TEXT", help="only those with this text in their reason")
        sub.add_argument(
            "--id", type=int, nargs="+", action=_Ids, default=[], metavar="ID", help="only these, by what --all shows"
        )
        return sub

    listing = add("list", _list, "show what is in the quarantine")
    listing.add_argument("--all", action="store_true", help="show each line, not each kind of them")
    listing.add_argument("--json", action="store_true", help="print JSON, an object a line")
    export = add("export", _export, "write the lines to a file or to standard output")
    export.add_argument("--format", choices=("csv", "lines"), default="csv", help="CSV (the default) or line protocol")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file (standard output)")
    add("retry", _retry, "send the lines to InfluxDB again")
    drop = add("drop", _drop, "delete the lines for good")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    return parser


class _Ids(argparse.Action):
    """So many that they go into one request."""

    def __call__(self, parser: argparse.ArgumentParser, given: argparse.Namespace, values: Any, *_: Any) -> None:
        if len(values) > MAX_IDS:
            parser.error(f"--id takes {MAX_IDS} at most")
        given.id = values
