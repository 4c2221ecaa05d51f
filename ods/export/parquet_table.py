"""Tables as Parquet, by `pyarrow`, which is an extra of ODS: the only module that imports it.

Times are `timestamp[ns, UTC]`, pods, names and levels are dictionaries (pandas: categories), values doubles; a cell
without a value is null. Rows are gathered until they make a row group of some size, since each has its own statistics
by which a reader finds a span of time, and a file of many small ones is slow to read.
"""

from collections.abc import Mapping, Sequence

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from ods.export.csv_table import POD, TIME, Write, column
from ods.export.tables import Block, Messages, Points

#: A row group is written when it has so many cells; with many columns it has fewer rows. What a file must know of each
#: group and column stays in memory until its end, so that they must not be small either. Cells.
GROUP_CELLS = 2_500_000
MIN_GROUP_ROWS, MAX_GROUP_ROWS = 5_000, 200_000

_TIME = pyarrow.timestamp("ns", tz="UTC")
_WORDS = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
_VALUE = pyarrow.float64()


class _Parquet:
    """What the tables have in common: the file, the row groups, the columns that each begins with."""

    def __init__(self, write: Write, fields: Sequence[pyarrow.Field], metadata: Mapping[str, str]) -> None:
        leading = [pyarrow.field(TIME, _TIME, nullable=False), pyarrow.field(POD, _WORDS, nullable=False)]
        self._schema = pyarrow.schema([*leading, *fields], metadata=dict(metadata))
        self.columns: Sequence[str] = self._schema.names
        self._group_rows = min(MAX_GROUP_ROWS, max(MIN_GROUP_ROWS, GROUP_CELLS // len(self.columns)))
        self._waiting: list[pyarrow.RecordBatch] = []
        self._waiting_rows = 0
        self._writer = pyarrow.parquet.ParquetWriter(
            pyarrow.PythonFile(_File(write), mode="w"),
            self._schema,
            compression="zstd",
            use_dictionary=[field.name for field in self._schema if field.type == _WORDS],
            write_statistics=[TIME, POD],  # those of a thousand columns stay in memory until the end
            column_encoding={TIME: "DELTA_BINARY_PACKED"},
        )

    def close(self) -> None:
        """Write the last row group and the end of the file."""
        self._write_group()
        self._writer.close()

    def _add(self, block: Block, arrays: Sequence[pyarrow.Array]) -> int:
        rows = len(block.times)
        times = pyarrow.array(list(map(int, block.times)), pyarrow.int64()).cast(_TIME)
        pods = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [block.pod])
        self._waiting.append(pyarrow.RecordBatch.from_arrays([times, pods, *arrays], schema=self._schema))
        self._waiting_rows += rows
        if self._waiting_rows >= self._group_rows:
            self._write_group()
        return rows

    def _write_group(self) -> None:
        if self._waiting:
            table = pyarrow.Table.from_batches(self._waiting).unify_dictionaries()
            self._waiting, self._waiting_rows = [], 0
            self._writer.write_table(table, row_group_size=MAX_GROUP_ROWS)


class LongParquet(_Parquet):
    """A row a data point: time, pod, name, value."""

    def __init__(self, write: Write, metadata: Mapping[str, str]) -> None:
        name, value = pyarrow.field("name", _WORDS, nullable=False), pyarrow.field("value", _VALUE, nullable=False)
        super().__init__(write, [name, value], metadata)

    def write(self, block: Block) -> int:
        """Write a block of points."""
        assert isinstance(block, Points)
        return self._add(block, [_words(block.names), pyarrow.array(block.values, _VALUE)])


class WideParquet(_Parquet):
    """A row a data point, and a column a name, of which one is filled."""

    def __init__(
        self, write: Write, names: Sequence[str], metadata: Mapping[str, str], of_names: Mapping[str, Mapping[str, str]]
    ) -> None:
        """`of_names`: what is to be said of a column, by name."""
        self._names = names
        self._nothing = pyarrow.nulls(0, _VALUE)
        fields = [pyarrow.field(column(name), _VALUE, metadata=of_names.get(name)) for name in names]
        super().__init__(write, fields, metadata)

    def write(self, block: Block) -> int:
        """Write a block of points, all of names that have a column."""
        assert isinstance(block, Points)
        rows, compute = len(block.times), pyarrow.compute
        if len(self._nothing) < rows:
            self._nothing = pyarrow.nulls(rows, _VALUE)
        nothing, none = self._nothing.slice(0, rows), pyarrow.scalar(None, _VALUE)
        names, values = _words(block.names), pyarrow.array(block.values, _VALUE)
        at = {name.as_py(): index for index, name in enumerate(names.dictionary)}
        columns = [
            compute.if_else(compute.equal(names.indices, at[name]), values, none) if name in at else nothing
            for name in self._names
        ]
        return self._add(block, columns)


class LogsParquet(_Parquet):
    """A row a log message: time, pod, level (null where it has none), message."""

    def __init__(self, write: Write, metadata: Mapping[str, str]) -> None:
        message = pyarrow.field("message", pyarrow.string(), nullable=False)
        super().__init__(write, [pyarrow.field("level", _WORDS), message], metadata)

    def write(self, block: Block) -> int:
        """Write a block of messages."""
        assert isinstance(block, Messages)
        return self._add(block, [_words([level or None for level in block.levels]), pyarrow.array(block.messages)])


class _File:
    """A file that only grows, as `pyarrow` wants one."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._at = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _words(words: Sequence[str | None]) -> pyarrow.DictionaryArray:
    return pyarrow.array(words, pyarrow.string()).dictionary_encode()
