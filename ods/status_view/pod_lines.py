"""The pods on a terminal: a line each with its figures in columns, or a block each where columns do not fit.

Which of the two it is hangs on widths alone, never on which counters happen to be zero now: a view that is watched must
not jump between them.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from ods.status_view.pods import CONNECTED, NEVER_SEEN, Pod, pods
from ods.status_view.reading import Part
from ods.status_view.styles import OF_COUNTER, OF_LOG, OF_STATE
from ods.status_view.words import age, clock_time, count

#: A longer name of a pod is cut in its column. Columns.
NAME_WIDTH = 20
_GAP = "  "
_HEAD = ("name", "state", "a second", "seen ago", "received", "stored")
#: So many columns, from the first, are aligned to the left.
_LEFT = 2
#: Told of a pod below its line, where they are not zero.
_SOMETIMES = ("pending", "quarantined", "dropped", "invalid", "torn")


def pod_lines(snapshot: Part, width: int, *, most: int | None = None) -> Iterator[Text]:
    """The pods, `most` at most, each with how it left and its latest log message."""
    shown, now_ns = pods(snapshot), snapshot.number("time_ns")
    connected = sum(pod.state == CONNECTED for pod in shown)
    yield Text(f"Pods: {count(len(shown))}, {count(connected)} connected", "bold")
    rows = [_cells(pod, now_ns) for pod in shown]
    widths = [max(cell_len(row[column]) for row in [_HEAD, *rows]) for column in range(len(_HEAD))]
    is_wide = sum(widths) + len(_GAP) * (len(widths) - 1) <= width
    if shown and is_wide:
        yield _columns(_HEAD, widths, ["dim"] * len(_HEAD))
    for pod, cells in list(zip(shown, rows, strict=True))[:most]:
        styles = ["bold", OF_STATE.get(pod.state, ""), *[""] * (len(_HEAD) - _LEFT)]
        yield _columns(cells, widths, styles) if is_wide else _block(pod, cells)
        yield from _below(pod, now_ns)


def _cells(pod: Pod, now_ns: float | None) -> tuple[str, ...]:
    name = Text(pod.name)
    name.truncate(NAME_WIDTH, overflow="ellipsis")
    seen = pod.part.number("last_seen_seconds")
    rate = "" if pod.state == NEVER_SEEN else count(pod.part.number("points_per_second"))
    counts = (count(pod.part.number(counter)) for counter in ("received", "stored"))
    return name.plain, pod.words(now_ns), rate, "" if seen is None else age(seen), *counts


def _columns(cells: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> Text:
    row = Text(no_wrap=True, overflow="ellipsis")
    for column, (cell, width, style) in enumerate(zip(cells, widths, styles, strict=True)):
        room = " " * (width - cell_len(cell))
        row.append(_GAP if column else "")
        row.append(f"{cell}{room}" if column < _LEFT else f"{room}{cell}", style)
    return row


def _block(pod: Pod, cells: Sequence[str]) -> Text:
    _, state, rate, seen, received, stored = cells
    block = Text.assemble((pod.name, "bold"), "  ", (state, OF_STATE.get(pod.state, "")), overflow="fold")
    pace = [*([f"{rate} a second"] if rate else []), *([f"seen {seen} ago"] if seen else [])]
    block.append(f"\n  {', '.join(pace)}" if pace else "")
    return block.append(f"\n  {received} received, {stored} stored")


def _below(pod: Pod, now_ns: float | None) -> Iterator[Text]:
    counts = [(name, pod.part.number(name)) for name in _SOMETIMES]
    if any(counted for _, counted in counts):
        told = [(f"{count(counted)} {name}", OF_COUNTER[name]) for name, counted in counts if counted]
        yield Text("  ").append(Text(", ").join([Text(text, style) for text, style in told]))
    if pod.left_how:
        yield _one_line(f"left: {pod.left_how}", "yellow")
    for entry in pod.entries[:1]:
        level = f"{entry.level.upper() if entry.level.isalpha() else entry.level} " if entry.level else ""
        yield _one_line(f"{clock_time(entry.time_ns, now_ns)} {level}{entry.text}", OF_LOG.get(entry.level, ""))


def _one_line(text: str, style: str) -> Text:
    return Text(f"  {text}", style, no_wrap=True, overflow="ellipsis")
