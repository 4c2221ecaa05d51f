"""A batch: the chunks that are recorded and stored together, and what has to be known of them as one."""

from collections.abc import Sequence

from ods.chunk import Chunk, settle
from ods.ledger import Fate


class Batch:
    """Chunks in their order of arrival, sealed."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks: Sequence[Chunk] = chunks
        self.fate = Fate.IN_FLIGHT
        self.lines = b"".join([chunk.lines for chunk in chunks])
        self.first_ns = min([chunk.first_ns for chunk in chunks])
        #: When the oldest of it was read. Monotonic clock, seconds.
        self.read_at = min([chunk.received_at for chunk in chunks])
        #: Points by pod, as the ledger counts them.
        self.pods: dict[str, int] = {}
        for chunk in chunks:
            if chunk.points:
                self.pods[chunk.pod] = self.pods.get(chunk.pod, 0) + chunk.points

    def forget(self) -> None:
        """Let go of the bytes, which nobody needs any more."""
        self.chunks, self.lines = (), b""

    def settle(self, fate: Fate) -> None:
        """Say of every chunk what became of it."""
        self.fate = fate
        settle(self.chunks, fate)
