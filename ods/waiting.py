"""What waits in the buffer, to be read by other commands: a page of rows at a time, which changes nothing.

A page is one job of the buffer's thread, and small, so that commits wait for milliseconds only. Rows that come in after
the first page are left out: a reader comes to an end. Those that the drain deletes meanwhile are not there any more.
"""

import base64
import json
from dataclasses import dataclass

from ods.buffer import Buffer
from ods.buffer_tables import highest_id

#: A page is read up to so many rows, and about so many bytes of them.
PAGE_ROWS = 64
PAGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WaitingPage:
    """Rows, as gzip-compressed line protocol by their id; where the whole ends, and where the next page begins."""

    rows: list[tuple[int, bytes]]
    until: int
    next_after: int | None

    def to_json(self) -> bytes:
        """As a JSON object."""
        rows = [(row_id, base64.b64encode(payload).decode()) for row_id, payload in self.rows]
        return json.dumps({"rows": rows, "until": self.until, "next_after": self.next_after}).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> "WaitingPage":
        """Undo `to_json`. Raises ValueError, KeyError or TypeError."""
        given = json.loads(text)
        rows = [(int(row_id), base64.b64decode(payload)) for row_id, payload in given["rows"]]
        return cls(rows, given["until"], given["next_after"])


def waiting(buffer: Buffer, after: int, until: int | None) -> WaitingPage:
    """The rows after this id and up to the other, oldest first. What is no payload is empty."""
    rows: list[tuple[int, bytes]] = []
    size_bytes = 0
    with buffer.file.reading() as db:
        last = highest_id(db) if until is None else until
        query = "SELECT id, payload FROM batches WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        for row_id, payload in db.execute(query, (after, last, PAGE_ROWS)):
            rows.append((row_id, payload if isinstance(payload, bytes) else b""))
            size_bytes += len(rows[-1][1])
            if size_bytes >= PAGE_BYTES:
                break
    is_more = bool(rows) and rows[-1][0] < last
    return WaitingPage(rows, last, rows[-1][0] if is_more else None)
