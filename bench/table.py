"""The table that is printed: a line a figure and a ratio, with its smallest, middle and largest value."""

from collections.abc import Mapping, Sequence

from bench.figures import Summary

HEADINGS = ("row", "figure", "unit", "min", "median", "max", "values", "reach")
#: The columns of words; the others are numbers.
TEXTS = ("row", "figure", "unit")

#: The lines of each row, by its name.
Lines = Mapping[str, Sequence[Summary]]


def plain(lines: Lines) -> str:
    """The table for a terminal."""
    table = [list(HEADINGS), *_cells(lines)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(_aligned(cells, widths)).rstrip() for cells in table)


def markdown(lines: Lines) -> str:
    """The table for a page of the documentation."""
    ruler = ["---" if heading in TEXTS else "---:" for heading in HEADINGS]
    table = [list(HEADINGS), ruler, *_cells(lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def number(value: float) -> str:
    """With as many digits as mean something."""
    if abs(value) >= 1000:
        return f"{value:_.0f}".replace("_", " ")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cells(lines: Lines) -> list[list[str]]:
    return [
        [row if at == 0 else "", *_line(summary)]
        for row, summaries in lines.items()
        for at, summary in enumerate(summaries)
    ]


def _line(line: Summary) -> list[str]:
    values = [number(value) for value in (line.smallest, line.middle, line.largest)]
    return [line.name, line.unit, *values, str(line.count), line.reach]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if heading in TEXTS else cell.rjust(width)
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    ]
