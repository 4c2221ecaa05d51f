"""A snapshot as a terminal shows it: colours, a bar for the drain, and as much as its width and height allow.

Foreign text goes in as `Text` alone, never as a string, in which rich would look for markup.
"""

from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ods.status_view.boot import Boot, boot
from ods.status_view.pod_lines import pod_lines
from ods.status_view.reading import Part, clean
from ods.status_view.styles import LEVELS, OF_COUNTER, STALE
from ods.status_view.telling import COUNTERS, Drain, drain, sentence
from ods.status_view.words import UNKNOWN, age, clock_time, count, size, span

#: So many of the run's outages are shown; a program finds all that ODS remembers in the JSON.
SHOWN_OUTAGES = 3
#: The bar is no wider than this. Columns.
BAR_WIDTH = 40
#: The last line of a view that is cut off.
NOT_ALL = "More than fits here: enlarge the terminal, or leave out --watch"
_DIM = Style(dim=True)


class Screen:
    """The view of one snapshot. `stale` says why it is an old one; then nothing on it looks as if it were true now.

    `most_pods` spares the work for what is cut off anyway: a board that is watched has better things to do.
    """

    def __init__(
        self, snapshot: Part, *, source: str, only_boot: bool = False, stale: str = "", most_pods: int | None = None
    ) -> None:
        self._snapshot = snapshot
        self._source = source
        self._only_boot = only_boot
        self._stale = stale
        self._most_pods = most_pods

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._stale:
            yield from self._parts(options.max_width)
            return
        yield banner(self._stale, STALE)
        if self._snapshot:
            old = console.render(Group(*self._parts(options.max_width)), options)
            yield from (Segment(segment.text, _DIM, segment.control) for segment in old)

    def _parts(self, width: int) -> Iterator[RenderableType]:
        told, answer = sentence(self._snapshot), boot(self._snapshot)
        yield _title(self._snapshot, self._source)
        yield banner(told.text, LEVELS.get(told.level, "bold"))
        yield from (_hanging("! ", Text(note, "yellow")) for note in told.notes)
        if self._only_boot or not answer.is_any_connected:
            yield from _boot(answer)
        if not self._only_boot:
            yield Text()
            yield _facts(_told(self._snapshot))
            yield Text()
            yield from pod_lines(self._snapshot, width, most=self._most_pods)


class Fitted:
    """Cut to the height of the terminal, and says so: what does not fit must not be taken for not there."""

    def __init__(self, view: RenderableType) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._view, options.update(height=None), pad=False)
        height = options.height or console.size.height
        if len(lines) > height:
            told = Text(NOT_ALL, "reverse", no_wrap=True, overflow="ellipsis")
            lines = lines[: height - 1] + console.render_lines(told, options.update(height=None), pad=False)
        for line in lines:
            yield from line
            yield Segment.line()


class Bar:
    """The progress of a drain: rich's bar, or one of plain characters where there is no colour."""

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(min(options.max_width, BAR_WIDTH), 3)
        if console.color_system is None or options.ascii_only:
            full = int(self._fraction * (width - 2))
            yield Text(f"[{'#' * full}{'-' * (width - 2 - full)}]")
        else:
            yield ProgressBar(
                total=1.0, completed=self._fraction, width=width, complete_style="cyan", finished_style="cyan"
            )
            yield Segment.line()


def banner(text: str, style: str) -> RenderableType:
    """A sentence over the whole width, in its colour."""
    return Padding(Text(clean(text)), (0, 1), style=style, expand=True)


def _title(snapshot: Part, source: str) -> Text:
    version, uptime = snapshot.text("version") or UNKNOWN, span(snapshot.number("uptime_seconds"))
    return Text(f"ODS {version}, up {uptime}, {clean(source)}", "dim", no_wrap=True, overflow="ellipsis")


def _hanging(mark: str, text: RenderableType) -> Table:
    grid = Table.grid()
    grid.add_column(width=len(mark))
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, "bold yellow"), text)
    return grid


def _facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(label), value)
    return grid


def _boot(shown: Boot) -> Iterator[RenderableType]:
    is_fine = shown.is_any_connected
    yield Text()
    yield Text("Why does the pod not boot?", "bold")
    yield _hanging("> ", Text(shown.conclusion, "" if is_fine else "bold yellow"))
    yield _facts((f"  {label}", Text(text)) for label, text in shown.lines())


def _told(snapshot: Part) -> Iterator[tuple[str, RenderableType]]:
    yield "InfluxDB", _influx(snapshot.part("influx"))
    yield "Buffer", _buffer(snapshot.part("buffer"))
    if (under_way := drain(snapshot)) is not None:
        yield "Drain", _drain(under_way)
    yield "Records", _records(snapshot.part("totals"))
    if snapshot.part("disk"):
        yield "Disk", _disk(snapshot.part("disk"))
    if snapshot.part("recordings"):
        yield "Recordings", _recordings(snapshot.part("recordings"))
    if snapshot.part("outages"):
        yield "Outages", _outages(snapshot)
    if "sentence" not in snapshot and (names := snapshot.texts("standing_still")):
        yield "Stands still", Text(", ".join(names), "yellow")


def _influx(influx: Part) -> Text:
    where = f"{influx.text('url')}, database {influx.text('database')}"
    if influx.flag("available"):
        state = "available" if influx.flag("known") is not False else "not tried yet"
        return Text.assemble((state, "green"), f", {where}")
    if influx.flag("available") is None:
        return Text(UNKNOWN)
    away = f"away for {span(influx.number('outage_seconds'))}"
    reason = f": {influx.text('last_error')}" if influx.text("last_error") else ""
    return Text.assemble((f"{away}{reason}", "yellow"), f"\n{where}")


def _buffer(buffer: Part) -> Text:
    limit = buffer.number("limit_bytes")
    room = size(buffer.number("bytes")) + ("" if limit is None else f" of {size(limit)}")
    if not buffer.number("points"):
        return Text(f"empty, {room}")
    oldest = buffer.number("oldest_seconds")
    waits = "" if oldest is None else f", the oldest for {span(oldest)}"
    return Text(f"{count(buffer.number('points'))} points wait in {room}{waits}")


def _drain(under_way: Drain) -> RenderableType:
    rate, eta = count(under_way.points_per_second), span(under_way.eta_seconds)
    pace = Text(f"{rate} a second, {eta} left", "cyan")
    if under_way.fraction is None:
        return pace
    done = f"{int(under_way.fraction * 100)} %, {count(under_way.done)} of {count(under_way.total)} points, "
    return Group(Bar(under_way.fraction), Text.assemble((done, "cyan"), pace))


def _records(totals: Part) -> Text:
    text = Text()
    for counter in COUNTERS:
        number = totals.number(counter)
        if counter == "in_flight" and not number:
            continue
        text.append("" if counter == "received" else ": " if counter == "stored" else ", ")
        text.append(f"{count(number)} {counter.replace('_', ' ')}", OF_COUNTER.get(counter, "") if number else "")
    return text


def _disk(disk: Part) -> Text:
    hours = disk.number("hours_left")
    lasts = "" if hours is None else f", lasts {age(hours * 3600) if hours < 1 else f'{count(hours)} hours'}"
    return Text(f"{size(disk.number('free_bytes'))} free{lasts}", "yellow" if hours is not None and hours < 1 else "")


def _recordings(recordings: Part) -> Text:
    unrecorded, used = recordings.number("unrecorded"), recordings.number("bytes")
    text = Text("recording" if recordings.flag("recording") else "paused")
    if not recordings.flag("recording"):
        text.stylize("yellow")
    text.append("" if used is None else f", {size(used)}")
    if unrecorded:
        text.append(f", {count(unrecorded)} records were not recorded", "yellow")
    return text


def _outages(snapshot: Part) -> Text:
    outages, now_ns = snapshot.part("outages"), snapshot.number("time_ns")
    largest, text = snapshot.number("largest_backlog"), Text("none in this run")
    if outages.number("count"):
        in_all = f"{span(outages.number('seconds'))} in all"
        text = Text(f"{count(outages.number('count'))} in this run, {in_all}")
    text.append(f", largest backlog {count(largest)} points" if largest else "")
    for outage in outages.parts("latest")[:SHOWN_OUTAGES]:
        text.append(f"\n{_outage(outage, now_ns)}", "dim")
    return text


def _outage(outage: Part, now_ns: float | None) -> str:
    ended_ns, drained_ns = outage.number("ended_ns"), outage.number("drained_ns")
    until = "not over" if ended_ns is None else f"to {clock_time(ended_ns, now_ns)}"
    span_of_it = f"{clock_time(outage.number('began_ns'), now_ns)} {until} ({span(outage.number('seconds'))})"
    drained = ""
    if ended_ns is not None and drained_ns is not None:
        drained = f"; drained in {span((drained_ns - ended_ns) / 1e9)}"
    return f"{span_of_it}: {outage.text('reason')}{drained}"
