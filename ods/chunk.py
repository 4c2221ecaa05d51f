"""The unit that travels: what one read of one pod's connection held, encoded once, from intake to store.

A chunk carries bytes, not points: line protocol for InfluxDB and the buffer, rows for the recording, replies for the
pod. Whoever decides its fate says so by `settle`, once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ods.ledger import Fate
from ods.tape import Mark


@dataclass(slots=True, kw_only=True, eq=False)
class Chunk:
    """Encoded records of one pod. `points` counts those of the ledger; `lines` may hold events besides."""

    pod: str
    points: int
    lines: bytes = b""
    data_rows: bytes = b""
    log_rows: bytes = b""
    first_ns: int
    last_ns: int
    #: As `ods.protocol.Decoded.replies`.
    replies: list[tuple[bytes, int]] = field(default_factory=list)
    #: When the first of it was read. Monotonic clock, seconds.
    received_at: float
    #: Called when this chunk, and perhaps others with the same function, are settled.
    on_settled: Callable[[], None] | None = None
    #: Where in its connection's stream it can be begun again after this chunk; None where there is no tape.
    mark: Mark | None = None
    fate: Fate = Fate.IN_FLIGHT
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = len(self.lines) + len(self.data_rows) + len(self.log_rows)
        for text, _ in self.replies:
            self.size_bytes += len(text)


def settle(chunks: Iterable[Chunk], fate: Fate) -> None:
    """Say what became of these chunks; each function that waits for some of them is called once."""
    waiting: dict[Callable[[], None], None] = {}
    for chunk in chunks:
        chunk.fate = fate
        if chunk.on_settled is not None:
            waiting[chunk.on_settled] = None
    for on_settled in waiting:
        on_settled()
