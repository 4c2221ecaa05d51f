"""What waits in the buffer is read a page at a time, and nothing of it changes."""

from pathlib import Path

import pytest

import ods.waiting
from ods.buffer import Buffer
from ods.buffer_access import waiting_pages
from ods.disk import Disk
from ods.export.from_buffer import BufferSource
from ods.export.tables import DATA, Points
from ods.selection import Selection
from ods.waiting import WaitingPage, waiting


def test_pages_hold_what_waits_at_the_first_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ods.waiting, "PAGE_ROWS", 2)
    buffer = Buffer(tmp_path / "buffer.db", limit_bytes=2**30, disk=Disk(tmp_path))
    for time_ns in (5, 3, 4):
        buffer.append(b"x,pod=a value=-0.0 %d\n" % time_ns, database="ods", pods={"a": 1}, first_ns=time_ns)
    first = waiting(buffer, 0, None)
    assert WaitingPage.from_json(first.to_json()) == first
    assert ([row_id for row_id, _ in first.rows], first.until, first.next_after) == ([1, 2], 3, 2)
    buffer.append(b"x,pod=a value=1.0 9\n", database="ods", pods={"a": 1}, first_ns=9)
    last = waiting(buffer, 2, first.until)
    assert ([row_id for row_id, _ in last.rows], last.next_after) == ([3], None)
    buffer.close()
    source = BufferSource(lambda: waiting_pages(tmp_path), str(tmp_path))
    (block,) = source.blocks(DATA, Selection())
    assert isinstance(block, Points)
    assert (block.times, [repr(value) for value in block.values]) == (
        ["3", "4", "5", "9"],
        ["-0.0", "-0.0", "-0.0", "1.0"],
    )
