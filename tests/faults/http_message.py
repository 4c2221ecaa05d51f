"""As much of HTTP/1.1 as stands between ODS and InfluxDB: heads, and bodies of a length or in chunks."""

import asyncio
import gzip
import http
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

#: A head longer than this is no head. Bytes.
HEAD_BYTES = 64 * 1024
#: A body is read in pieces of this size. Bytes.
PIECE_BYTES = 4096
#: ODS's own events and its health are written beside the points, and are not counted with them.
EVENTS = (b"ods_event,", b"ods_health,")


@dataclass(frozen=True)
class Message:
    """A request or an answer, as it came."""

    head: bytes
    body: bytes

    @property
    def first_line(self) -> list[str]:
        """As in `POST`, `/write?db=ods`, `HTTP/1.1`."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first_line[1])

    @property
    def is_write(self) -> bool:
        """Of a request."""
        return self.first_line[1].partition("?")[0].endswith("/write")

    def header(self, name: str) -> str:
        """The value of a header, empty where there is none."""
        return header(self.head, name)

    def lines(self) -> list[bytes]:
        """Of a write: its points, neither comments nor ODS's own events."""
        return [line for line in self.plain_body().split(b"\n") if line and not line.startswith((b"#", *EVENTS))]

    def plain_body(self) -> bytes:
        """The body, decompressed. Raises OSError or EOFError where it is not what its head says."""
        return gzip.decompress(self.body) if self.header("Content-Encoding") == "gzip" else self.body


def header(head: bytes, name: str) -> str:
    """The value of a header, empty where there is none."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.decode("latin-1").partition(":")
        if key.strip().lower() == name.lower():
            return value.strip()
    return ""


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Read up to the empty line. Raises IncompleteReadError at the end of the connection."""
    return await reader.readuntil(b"\r\n\r\n")


async def read_body(
    reader: asyncio.StreamReader, size: int, arrived: Callable[[int], Awaitable[None]] | None = None
) -> bytes:
    """Read `size` bytes, and wait for `arrived` after each piece. Raises IncompleteReadError."""
    pieces: list[bytes] = []
    missing = size
    while missing:
        piece = await reader.read(min(missing, PIECE_BYTES if arrived else missing))
        if not piece:
            raise asyncio.IncompleteReadError(b"".join(pieces), size)
        pieces.append(piece)
        missing -= len(piece)
        if arrived:
            await arrived(len(piece))
    return b"".join(pieces)


async def read_answer(reader: asyncio.StreamReader) -> Message:
    """Read an answer whole. Raises IncompleteReadError."""
    head = await read_head(reader)
    if header(head, "Transfer-Encoding").lower() == "chunked":
        return Message(head, await _read_chunks(reader))
    return Message(head, await read_body(reader, int(header(head, "Content-Length") or 0)))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """The chunks as they come, with their sizes."""
    raw = b""
    while True:
        size_line = await reader.readuntil(b"\r\n")
        size = int(size_line.split(b";")[0], 16)
        raw += size_line + await reader.readexactly(size + 2)
        if not size:
            return raw


def answer(status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return an answer as it is sent."""
    phrase = http.HTTPStatus(status).phrase if status in list(http.HTTPStatus) else "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
