"""What InfluxDB holds comes whole and in the order of time, however it lies in time."""

from typing import Any

import pytest
from harness.influx_server import InfluxServer

import ods.export.from_influx
from ods.export.from_influx import InfluxDb
from ods.export.tables import DATA
from ods.selection import Selection
from ods.settings import InfluxSettings

BEGIN_NS = 1_790_000_000_000_000_000
DAY_NS = 86_400_000_000_000
#: A burst in which hundreds of points lie within microseconds, a week of nothing, and a trickle.
TIMES = [BEGIN_NS + at for at in range(400)] + [BEGIN_NS + 7 * DAY_NS + at * 1_000_000_000 for at in range(300)]


def test_spans_that_hold_too_much_are_cut_and_no_row_is_lost(
    influx: InfluxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ods.export.from_influx, "SPAN_ROWS", 20)
    monkeypatch.setattr(ods.export.from_influx, "MAX_SPAN_ROWS", 50)
    monkeypatch.setattr(ods.export.from_influx, "BLOCK_ROWS", 30)
    held: list[int] = []
    rows_of = InfluxDb._rows

    def spied(self: InfluxDb, *arguments: Any, **keywords: Any) -> Any:
        rows = rows_of(self, *arguments, **keywords)
        held.append(-1 if rows is None else len(rows))
        return rows

    monkeypatch.setattr(InfluxDb, "_rows", spied)
    influx.create_database("spans")
    lines = [f"name_{at % 5},pod=a\\ pod's value={at / 3!r} {time_ns}" for at, time_ns in enumerate(TIMES)]
    influx.write("spans", "\n".join([*lines, f'text,pod=a\\ pod\'s value="none" {BEGIN_NS + 7}']))
    settings = InfluxSettings(host="127.0.0.1", port=influx.port, user="root", password="root", database="spans")
    source = InfluxDb(settings)
    blocks = list(source.blocks(DATA, Selection()))
    assert {block.pod for block in blocks} == {"a pod's"}
    assert max(len(block.times) for block in blocks) <= 30
    assert [int(time_ns) for block in blocks for time_ns in block.times] == TIMES
    assert [value for block in blocks for value in block.values] == [at / 3 for at in range(len(TIMES))]
    assert -1 in held and max(held) <= 50, "so many rows stand in memory at most"
    assert not list(source.blocks(DATA, Selection(names=("text",)))) and not source.is_whole, "no number, and told of"


def test_a_negative_zero_keeps_its_sign(influx: InfluxServer) -> None:
    """Or the same points made another file, and another checksum, than from the recordings."""
    influx.create_database("signs")
    influx.write("signs", "\n".join(f"name,pod=p value={text} {at + 1}" for at, text in enumerate(("-0", "0", "-1.5"))))
    settings = InfluxSettings(host="127.0.0.1", port=influx.port, user="root", password="root", database="signs")
    blocks = list(InfluxDb(settings).blocks(DATA, Selection()))
    assert [repr(value) for block in blocks for value in block.values] == ["-0.0", "0.0", "-1.5"]
