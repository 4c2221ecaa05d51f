"""The formats of an export: what a table says is read back by pandas as it was, to the nanosecond and the last bit."""

import io
import math
from collections.abc import Callable, Sequence

import pandas
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods.export.csv_table import LogsCsv, LongCsv, WideCsv
from ods.export.parquet_table import LogsParquet, LongParquet, WideParquet
from ods.export.tables import Block, Messages, Points, Table

BEGIN_NS = 1_790_000_000_000_000_001
Make = Callable[[Callable[[bytes], object]], Table]
Read = Callable[[bytes], pandas.DataFrame]


def written(make: Make, *blocks: Block) -> bytes:
    data = io.BytesIO()
    table = make(data.write)
    assert sum(table.write(block) for block in blocks) == sum(len(block.times) for block in blocks)
    table.close()
    return data.getvalue()


def points(pod: str, first: int, values: Sequence[float]) -> Points:
    times = [str(BEGIN_NS + (first + at) * 1_000_000_007) for at in range(len(values))]
    return Points(pod, times, [f"name_{at % 3}" for at in range(len(values))], list(values))


def from_csv(data: bytes) -> pandas.DataFrame:
    return pandas.read_csv(io.BytesIO(data), parse_dates=["time"])


def from_parquet(data: bytes) -> pandas.DataFrame:
    return pandas.read_parquet(io.BytesIO(data))


def times_ns(frame: pandas.DataFrame) -> list[int]:
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    return [time.value for time in frame["time"]]


LONG = [(LongCsv, from_csv), (lambda write: LongParquet(write, {"ods": "{}"}), from_parquet)]
NAMES = ["name_0", "name_1", "name_2", "name_3"]
WIDE = [
    (lambda write: WideCsv(write, NAMES), from_csv),
    (lambda write: WideParquet(write, NAMES, {}, {"name_0": {"unit": "m"}}), from_parquet),
]
LOGS = [(LogsCsv, from_csv), (lambda write: LogsParquet(write, {}), from_parquet)]
FORMATS = ["csv", "parquet"]


@pytest.mark.parametrize(("make", "read"), LONG, ids=FORMATS)
def test_a_long_table_is_read_back_as_it_was(make: Make, read: Read) -> None:
    values = [0.1, -1e300, 0.0, -0.0, 123456789.123456789, 1.0]
    blocks = [points("10.0.0.1", 0, values), points('a pod, "quoted"', 7, values)]
    frame = read(written(make, *blocks))
    assert list(frame.columns) == ["time", "pod", "name", "value"]
    assert times_ns(frame) == [int(time_ns) for block in blocks for time_ns in block.times]
    assert list(frame["pod"]) == [block.pod for block in blocks for _ in block.times]
    assert list(frame["name"]) == [name for block in blocks for name in block.names]
    assert frame["value"].dtype == float
    assert list(map(repr, map(float, frame["value"]))) == list(map(repr, values * 2))


@pytest.mark.parametrize(("make", "read"), WIDE, ids=FORMATS)
def test_a_wide_table_has_a_column_a_name(make: Make, read: Read) -> None:
    blocks = [points("a", 0, [1.0, 2.0, 3.0, 4.0]), points("b", 9, [5.0])]
    frame = read(written(make, *blocks))
    assert list(frame.columns) == ["time", "pod", *NAMES]
    assert list(frame["name_0"].dropna()) == [1.0, 4.0, 5.0]
    assert list(frame["name_2"].dropna()) == [3.0]
    assert all(map(math.isnan, frame["name_3"]))
    assert frame[NAMES].count(axis=1).tolist() == [1] * 5, "a value in each row, and no more"
    assert list(frame["pod"]) == ["a"] * 4 + ["b"]


@pytest.mark.parametrize(("make", "read"), LOGS, ids=FORMATS)
def test_a_table_of_messages_is_read_back_as_it_was(make: Make, read: Read) -> None:
    messages = ['he said "go"', "a, b", "# no comment", r"two\nlines", "ünïcode"]
    block = Messages("a", points("a", 0, [0.0] * 5).times, ["note", "", "warn", "", "fatal"], messages)
    frame = read(written(make, block))
    assert list(frame["message"]) == messages
    assert [level if isinstance(level, str) else "" for level in frame["level"]] == block.levels
    assert times_ns(frame) == [int(time_ns) for time_ns in block.times]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2**62), st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_any_time_and_value_comes_back(rows: list[tuple[int, float]]) -> None:
    """Those of 1970 too, which a clock without a battery gives. The text is exact, however a reader rounds it."""
    rows.sort()
    block = Points("a", [str(time_ns) for time_ns, _ in rows], ["x"] * len(rows), [value for _, value in rows])
    text, frame = written(LongCsv, block), from_parquet(written(LONG[1][0], block))
    assert times_ns(frame) == [time_ns for time_ns, _ in rows] == times_ns(from_csv(text))
    expected = [repr(value) for _, value in rows]
    assert [repr(float(value)) for value in frame["value"]] == expected
    assert [line.rpartition(",")[2] for line in text.decode().splitlines()[1:]] == expected


def test_names_like_those_of_other_columns_give_way() -> None:
    block = Points("a", [str(BEGIN_NS)], ["pod"], [1.0])
    assert b"time,pod,pod (name)\n" in written(lambda write: WideCsv(write, ["pod"]), block)


def test_row_groups_are_bounded_however_much_there_is() -> None:
    """Or else memory would not be."""
    data = written(LONG[1][0], *[points("a", at * 50_000, [0.5] * 50_000) for at in range(9)])
    groups = pyarrow.parquet.ParquetFile(io.BytesIO(data)).metadata
    assert groups.num_rows == 450_000
    assert max(groups.row_group(at).num_rows for at in range(groups.num_row_groups)) <= 200_000


def test_the_units_stand_in_a_wide_parquet() -> None:
    data = written(WIDE[1][0], points("a", 0, [1.0]))
    assert pyarrow.parquet.read_schema(io.BytesIO(data)).field("name_0").metadata[b"unit"] == b"m"
