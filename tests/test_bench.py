"""`make bench` works: its statistics, its table, its choices, and a row in the shortest form. No figure is judged."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from harness.sizes import sized

from bench import growth, machine, points, table, throughput
from bench.__main__ import arguments, main, sizes
from bench.figures import Figure, Ratio, Round, Summary, summaries
from bench.rows import SHORT, Row, Sizes
from bench.stand import Stand
from bench.suite import ROWS, Suite, chosen

pytestmark = pytest.mark.timeout(150, method="signal")

FAST, SLOW = Figure("fast", "points/s"), Figure("slow", "points/s")


def row(name: str, *rounds: Round, needs: Sequence[str] = (), is_once: bool = False) -> Row:
    """One that measures what it is told; a round that is not there fails."""

    def measure(stand: Stand, sizes: Sizes, number: int) -> Round:
        if number >= len(rounds):
            raise AssertionError("not measured\nand why")
        return rounds[number]

    return Row(name, "", (FAST, SLOW), measure, (Ratio("ratio", "fast", "slow", "0.7"),), tuple(needs), is_once)


# -- Statistics -------------------------------------------------------------------------------------------------------


def test_a_figure_has_its_smallest_middle_and_largest_value_of_all_rounds() -> None:
    (line,) = summaries([FAST], [], [{"fast": [3.0, 1.0]}, {"fast": [10.0]}])
    assert line == Summary("fast", "points/s", 3, smallest=1.0, middle=3.0, largest=10.0)


def test_a_ratio_is_of_values_of_one_round() -> None:
    rounds = [{"fast": [1.0], "slow": [2.0]}, {"fast": [90.0], "slow": [100.0]}, {"fast": [3.0], "slow": [4.0]}]
    (line,) = summaries([], [Ratio("ratio", "fast", "slow", "0.7")], rounds)
    assert (line.smallest, line.middle, line.largest, line.count, line.reach) == (0.5, 0.75, 0.9, 3, "0.7")


def test_what_was_not_measured_is_not_in_the_table() -> None:
    ratio = Ratio("ratio", "fast", "slow")
    assert [line.name for line in summaries([FAST, SLOW], [ratio], [{"fast": [1.0]}])] == ["fast"]
    assert not summaries([], [ratio], [{"fast": [1.0], "slow": [0.0]}])


# -- The table --------------------------------------------------------------------------------------------------------

LINES = {
    "one": [
        Summary("fast", "points/s", 5, 123_456.7, 234_567.8, 345_678.9),
        Summary("of raw", "ratio", 5, 0.5, 0.6, 1, "0.7"),
    ],
    "another": [Summary("fast", "s", 1, 12.34, 123.4, 0.001)],
}


def test_the_plain_table_stands_in_columns() -> None:
    heading, first, second, third = table.plain(LINES).splitlines()
    assert heading.split() == ["row", "figure", "unit", "min", "median", "max", "values", "reach"]
    assert first.split() == ["one", "fast", "points/s", "123", "457", "234", "568", "345", "679", "5"]
    assert second.split() == ["of", "raw", "ratio", "0.50", "0.60", "1.00", "5", "0.7"]
    assert third.split() == ["another", "fast", "s", "12.3", "123", "0.00", "1"]
    assert {line[heading.index("figure") - 1] for line in (first, second, third)} == {" "}


def test_the_table_of_markdown_has_a_ruler_and_as_many_cells_everywhere() -> None:
    lines = table.markdown(LINES).splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {len(table.HEADINGS) + 1}
    assert set(lines[1]) <= set("|-: ")


# -- Choices ----------------------------------------------------------------------------------------------------------


def test_what_a_row_is_compared_to_is_measured_with_it() -> None:
    assert [row.name for row in chosen(["to the BUFFER"])] == ["raw", "to the buffer"]
    assert chosen([]) == list(ROWS)
    assert not chosen(["no such row"])


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len({row.name for row in ROWS}) == len(ROWS)
    assert all(line.startswith(row.name) and row.about in line for line, row in zip(listed, ROWS, strict=True))


def test_a_name_that_no_row_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no such row"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sizes_are_those_of_the_form_unless_told() -> None:
    assert sizes(arguments([])) == Sizes()
    assert sizes(arguments(["--short"])) == SHORT
    given = sizes(arguments(["--short", "--restarts", "1000", "--pods", "10000"]))
    assert (given.restarts, given.pods, given.points) == (1000, 10_000, SHORT.points)


def test_every_ratio_is_of_figures_that_are_measured() -> None:
    """Of the row itself, or of one that it names."""
    of = {row.name: {figure.name for figure in row.figures} for row in ROWS}
    for row in ROWS:
        known = of[row.name].union(*(of[name] for name in row.needs))
        assert {name for ratio in row.ratios for name in (ratio.of, ratio.by)} <= known, row.name


# -- The run ----------------------------------------------------------------------------------------------------------


def test_rows_are_measured_in_turn_and_what_fails_does_not_end_the_run(tmp_path: Path) -> None:
    bad = row("bad", {"fast": [1.0]})
    other = row("other", {"slow": [2.0]}, {"slow": [4.0]})
    once = row("once", {"slow": [9.0]}, is_once=True)
    compared = row("compared", {"fast": [1.0]}, {"fast": [1.0]}, needs=["other"])
    suite = Suite([bad, other, once, compared], SHORT)
    suite.run(Stand(tmp_path), rounds=2)
    lines = suite.lines()
    assert [(failure.row, failure.reason) for failure in suite.failures] == [("bad", "not measured")]
    assert [(line.name, line.count) for line in lines["bad"]] == [("fast", 1)]
    assert [(line.name, line.count) for line in lines["once"]] == [("slow", 1)]
    assert [(line.name, line.smallest, line.largest) for line in lines["compared"] if line.unit == "ratio"] == [
        ("ratio", 0.25, 0.5)
    ]


def test_the_raw_points_are_those_that_pods_send() -> None:
    """The same names and values, as often."""
    (body,) = points.bodies(100, ["a"])
    posted = [(line.partition(b",")[0], float(line.split()[1].partition(b"=")[2])) for line in body.splitlines()]
    sent = [line.removeprefix(b"POD2").split() for line in points.pod_lines(100).splitlines()]
    assert posted == [(name, float(value)) for name, value in sent]


def test_the_machine_and_the_versions_are_told() -> None:
    told = "\n".join(machine.told())
    assert "cores" in told and "load at begin" in told and "ODS: 0" in told and "gevent" in told


@pytest.mark.parametrize(
    "names",
    sized(
        [["one by one"], ["drain"], ["start"]],
        long=[["kill -9, 1 pod"], *([row.name] for row in (*throughput.ROWS, *growth.ROWS) if row.name != "raw")],
    ),
    ids=lambda names: names[0],
)
def test_a_row_is_measured(
    needs_influx: None, names: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the shortest form: of the figures it says only that they are there."""
    tiny = Sizes(
        points=20_000,
        seconds=0.2,
        kills=1,
        restarts=2,
        pods=4,
        fleet=4,
        fleets=(1, 10),
        minute_points=400,
        waiting_points=2_000_000,
    )
    monkeypatch.setattr("bench.__main__.SHORT", tiny)
    options = [word for name in names for word in ("--only", name)]
    assert main(["--short", "--markdown", *options]) == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    (measured,) = [row for row in chosen(names) if row.name in names]
    of_other_fleets = {figure.name for figure in growth.of_fleets(set(growth.FLEETS) - set(tiny.fleets))}
    for expected in (
        measured.name,
        *(figure.name for figure in measured.figures if figure.name not in of_other_fleets),
    ):
        assert f"| {expected} |" in printed
