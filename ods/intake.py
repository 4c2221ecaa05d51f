"""Between a connection and the stores: bytes are decoded, given their times, encoded once, and answered in order.

One `Intake` a connection. It knows no socket: bytes come in by `receive`, replies go out by the function it was given.
What small reads brought is decoded together, with what other pods sent too (`ods.together`), when there is much of it
or the next batch begins, each record with the time at which its own read received it. The replies to a chunk are sent
when the chunk and all before it are settled.

With a tape (`ods.tape`) each piece is noted with its times before anything is done with its records, and what is
settled is marked. A successor of a process that died repeats the rest, with the times that it had.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Protocol

from ods.admission import Admission
from ods.chunk import Chunk
from ods.clock import Clock
from ods.data_points import DataPoints
from ods.encoder import Encoded, count, encode
from ods.latency import Latency
from ods.latest import LatestValues
from ods.ledger import Fate, Ledger
from ods.limit_watch import LimitWatch
from ods.places import Places
from ods.pods import Pod
from ods.protocol import Decoded, Decoder, NoRecord, replies_when_dropped, replies_when_kept
from ods.repeating import without
from ods.tape import SPARE_NOTES, Note, Tape

log = logging.getLogger(__name__)

#: What was read is decoded at the latest when it is this much. Bytes.
DECODE_BYTES = 4 * 1024
#: Or when it is so many reads: each may take a note of a tape.
DECODE_READS = SPARE_NOTES // 2
#: So much of what is not all good data points is decoded at a time: it takes ten times as long. Bytes.
CAREFUL_BYTES = 4 * 1024
#: And so much where the lines are many and short.
DENSE_BYTES = 1024
DENSE_LINES = 256
#: A pod whose next line follows its reply within this time seems to wait for its replies. Seconds.
TURNAROUND_SECONDS = 0.025
#: Refusals of more than this do not wait behind what is in flight; they are not sent. Bytes.
REFUSALS_BYTES = 1024 * 1024
#: How long a pod that was seen not to wait is taken to be one that never does. Seconds.
STREAMING_SECONDS = 1.0
#: How long what a pod sends is decoded by itself after some of it was anything but whole lines of data. Seconds.
ALONE_SECONDS = 1.0


class Onward(Protocol):
    """Where chunks go (`ods.reception`)."""

    def put(self, chunk: Chunk) -> None:
        """Take a chunk over, settled already or still to be."""

    def expect(self, intake: "Intake", size_bytes: int, *, urgent: bool) -> None:
        """Have an intake flushed before the next batch begins, or as soon as much waits; it will `put`.

        `size_bytes`: what it has just read and does not decode by itself. `urgent`: its pod seems to wait.
        """


class Intake:
    """What ODS knows of one connection besides its socket."""

    def __init__(
        self,
        *,
        pod: Pod,
        clock: Clock,
        ledger: Ledger,
        admission: Admission,
        onward: Onward,
        reply: Callable[[bytes], None],
        latest: LatestValues,
        limits: LimitWatch,
        replying: Latency,
        tape: Tape | None = None,
    ) -> None:
        self.pod = pod
        self._clock = clock
        self._ledger = ledger
        self._admission = admission
        self._onward = onward
        self._reply = reply
        self._latest = latest
        self._limits = limits
        self._replying = replying
        self._decoder = Decoder(pod.names)
        self._places = Places(self._decoder, tape)
        #: Reads that are not decoded yet, with the times at which they were received.
        self._reads: list[bytes] = []
        self._read_times_ns: list[int] = []
        self._read_bytes = 0
        self._read_at = 0.0
        #: Until when what it reads is not decoded together with what others have. Monotonic clock, seconds.
        self._alone_until = float("-inf")
        #: Whether a line came while one waited to be decoded: this pod does not wait for its replies.
        self._is_streaming = False
        self._unsettled: deque[Chunk] = deque()
        self._refusals_bytes = 0
        self._streaming_until = 0.0
        self._replied_at = float("-inf")
        #: One method for all chunks: each access of it makes another, which lives as long as the chunk.
        self._on_settled = self._reply_to_settled
        #: Whether the connection has ended and nothing more will come in.
        self.is_finished = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing of this connection is in flight."""
        return not self._unsettled and not self._reads

    @property
    def oldest_ns(self) -> int | None:
        """A time at or before the reception time of everything here that has no fate yet; None where all is settled."""
        if self._unsettled:
            return self._unsettled[0].first_ns
        return self._read_times_ns[0] if self._read_times_ns else None

    @property
    def is_to_pause(self) -> bool:
        """Whether nothing should be read now, because more comes in than the stores take."""
        return self._admission.is_to_pause(self.pod.name)

    @property
    def most_bytes(self) -> int:
        """How much should be read at once."""
        return self._admission.read_bytes

    def pause(self, wait_for_turn: Callable[[], None]) -> None:
        """Wait for a turn with room, for a moment at most (`ods.admission`)."""
        self._admission.pause(self.pod.name, wait_for_turn)

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the pod in; returns those to be given again in the next turn of the hub. Never waits.

        A large piece is taken whole where it can be decoded fast, so that no pod's input holds up another pod.
        """
        if len(data) > CAREFUL_BYTES and not self._decoder.is_fast(data):
            is_dense = data.count(b"\n", 0, CAREFUL_BYTES) > DENSE_LINES
            size_bytes = DENSE_BYTES if is_dense else CAREFUL_BYTES
            self._join(data[:size_bytes])
            self.flush()
            return data[size_bytes:]
        self._join(data)
        return b""

    def _join(self, data: bytes) -> None:
        self._read_times_ns.append(self._clock.now_ns())
        self._read_bytes += len(data)
        is_urgent = False
        if self._reads:  # they wait to be decoded already
            self._is_streaming = self._is_streaming or b"\n" in self._reads[0]
        else:
            self._read_at = time.monotonic()
            is_urgent = self._seems_to_wait(self._read_at)
        self._reads.append(data)
        is_much = self._read_bytes >= DECODE_BYTES or len(self._reads) >= DECODE_READS
        self._onward.expect(self, 0 if is_much else len(data), urgent=is_urgent)
        if is_much:
            self.flush()

    def finish(self) -> None:
        """The connection has ended: keep its last words, note a torn line."""
        self.flush()
        decoded = self._decoder.finish()
        times = self._give_times(0, self._clock.now_ns(), count(decoded.records), is_last=True)
        self._take(decoded, list(map(str, times)))
        self.is_finished = True
        self._places.mark(self._unsettled)

    def begin_repeating(self) -> list[Note]:
        """Go back to what the process before had not settled; returns what of it had times, to be repeated in order."""
        return self._places.go_back()

    def repeat(self, note: Note, recorded: Set[int]) -> None:
        """Take in a piece anew, with the times that it had.

        Of what was recorded at one of these times only the reply is given on: the recovery sees to the rest.
        """
        decoded = self._decoder.feed(self._places.read_again(note))
        if note.is_last:  # what was fed is the line that the end of the connection cut off
            decoded = self._decoder.finish()
        times = list(map(str, self.pod.repeat_times(note.first_ns, count(decoded.records))))
        self._read_at = time.monotonic()
        self._take(*without(decoded, times, recorded), note.first_ns)
        self._places.mark(self._unsettled)

    def end_repeating(self) -> bytes:
        """What was read besides, to be received as if it were new."""
        return self._places.left_to_read()

    def flush(self) -> None:
        """Decode what was read, and pass it on."""
        if not self._reads:
            return
        times: list[str] = []
        decoded = self._decoder.feed_data_points(self._read_lines)
        if decoded is not None:
            self.take_read_times(times)
        else:
            self._alone_until = self._read_at + ALONE_SECONDS
            decoded = Decoded()
            for data, time_ns in self._taken_reads():
                piece = self._decoder.feed(data)
                decoded.records += piece.records
                decoded.replies += piece.replies
                times += map(str, self._give_times(len(data), time_ns, count(piece.records)))
        self._take(decoded, times)
        self._places.mark(self._unsettled)

    # -- What was read, for `ods.together` to decode it with what others have read

    @property
    def whole_lines(self) -> bytes | None:
        """What was read, if that is whole lines, and all that came lately was good data points."""
        if not self._reads or self._read_at < self._alone_until or not self._decoder.is_at_begin:
            return None
        lines = self._read_lines
        return lines if lines.endswith(b"\n") else None

    def admits(self, names: str) -> bool:
        """Whether the pod may use the names of these lines: in their order, with commas between."""
        return self.pod.names.admit_run(names)

    def take_read_times(self, times: list[str]) -> tuple[int, int]:
        """What was read is good data points, and decoded by somebody: give each its time, at the end of this list.

        Returns the first and the last of them, in nanoseconds.
        """
        given = [self._give_times(len(data), time_ns, data.count(b"\n")) for data, time_ns in self._taken_reads()]
        if len(given) > 1:
            given = [each for each in given if each]  # of a read in which no line ended there is none
        for each in given:
            times += map(str, each)
        return given[0].start, given[-1].stop - 1

    def pass_on(self, encoded: Encoded, reply: bytes, names: str, first_ns: int, last_ns: int) -> None:
        """What was read is data points of these names and times: their encoded form, and the reply to them."""
        self._latest.take_rows(self.pod.name, names, encoded.data_rows)
        self._ledger.receive(self.pod.name, encoded.points)
        self._put(self._chunk(encoded, [(reply, encoded.points)], first_ns, last_ns))
        self._places.mark(self._unsettled)

    @property
    def is_watched(self) -> bool:
        """Whether any name that its pod has used has limits; then `watch` is to be told of what was passed on."""
        return self._limits.watches(self.pod)

    def watch(self, points: DataPoints, times: Sequence[str]) -> None:
        """See whether any of these crosses its limits."""
        self._limits.take(self.pod, (points,), times)

    @property
    def _read_lines(self) -> bytes:
        """What was read and waits to be decoded."""
        return self._reads[0] if len(self._reads) == 1 else b"".join(self._reads)

    def _taken_reads(self) -> list[tuple[bytes, int]]:
        """What was read, with its times, which nobody needs to take any more."""
        reads, times_ns = self._reads, self._read_times_ns
        self._reads, self._read_times_ns, self._read_bytes = [], [], 0
        self.pod.last_seen = time.monotonic()
        return list(zip(reads, times_ns, strict=True))

    def _give_times(self, size_bytes: int, time_ns: int, records: int, *, is_last: bool = False) -> range:
        """Times for the records of the next so many bytes, noted before anything is done with them."""
        times = self.pod.take_times(time_ns, records)
        self._places.note(size_bytes, times, is_last=is_last)
        return times

    def _take(self, decoded: Decoded, times: Sequence[str], first_ns: int = 0) -> None:
        """Pass records on; where none are left of those that there were, the replies with the time of the first."""
        if not decoded.records and not decoded.replies:
            return
        if decoded.records:
            self._latest.take(self.pod.name, decoded.records, times)
        encoded = encode(decoded.records, self.pod.tag, times)
        self._count(decoded, encoded.points)
        begin_ns, end_ns = (int(times[0]), int(times[-1])) if times else (first_ns, first_ns)
        self._put(self._chunk(encoded, decoded.replies, begin_ns, end_ns))
        self._limits.take(self.pod, decoded.records, times)

    def _put(self, chunk: Chunk) -> None:
        self._unsettled.append(chunk)
        if self._admission.admit(self.pod.name, chunk.size_bytes):
            self._onward.put(chunk)
        else:
            self._refuse(chunk)

    def _refuse(self, chunk: Chunk) -> None:
        """There is no memory for it: what is left of it is its replies, and not too many of those."""
        self._ledger.lose({chunk.pod: chunk.points}, Fate.IN_FLIGHT)
        chunk.fate, chunk.size_bytes = Fate.DROPPED, 0  # nothing to be released
        self._onward.put(chunk)
        replies = replies_when_dropped(chunk.replies)
        if self._refusals_bytes + len(replies) > REFUSALS_BYTES:
            self.pod.replies_dropped += replies.count(b"\n")
            replies = b""
        self._refusals_bytes += len(replies)
        chunk.lines = chunk.data_rows = chunk.log_rows = b""
        chunk.replies = [(replies, 0)]
        self._unsettled.pop()
        before = self._unsettled[-1] if self._unsettled else chunk
        if before.fate is Fate.DROPPED and not before.size_bytes and before is not chunk:
            if replies:
                before.replies.append((replies, 0))
        else:
            self._unsettled.append(chunk)
        self._reply_to_settled()

    def _chunk(self, encoded: Encoded, replies: list[tuple[bytes, int]], first_ns: int, last_ns: int) -> Chunk:
        return Chunk(
            pod=self.pod.name,
            points=encoded.points,
            lines=encoded.lines,
            data_rows=encoded.data_rows,
            log_rows=encoded.log_rows,
            first_ns=first_ns,
            last_ns=last_ns,
            replies=replies,
            received_at=self._read_at,
            on_settled=self._on_settled,
        )

    def _seems_to_wait(self, now: float) -> bool:
        """Whether the pod waits for each reply: nothing of it is in flight and it follows its last reply at once."""
        if self._unsettled or self._is_streaming:
            self._is_streaming = False
            self._streaming_until = now + STREAMING_SECONDS
        return now >= self._streaming_until and now - self._replied_at < TURNAROUND_SECONDS

    def _count(self, decoded: Decoded, points: int) -> None:
        counts = self._ledger.receive(self.pod.name, points)
        for record in decoded.records:
            if isinstance(record, NoRecord):
                counts.torn += record.kind == "torn"
                counts.invalid += record.kind == "invalid"
        if self.pod.names.refused and not self.pod.warned_of_names:
            self.pod.warned_of_names = True
            limit = self.pod.names.limit
            log.warning("pod %s uses more than %d names; further ones are refused (--max-names)", self.pod.name, limit)

    def _reply_to_settled(self) -> None:
        replies, now, mark = [], time.monotonic(), None
        while self._unsettled and self._unsettled[0].fate is not Fate.IN_FLIGHT:
            done = self._unsettled.popleft()
            self._replying.observe(now - done.received_at)
            if done.size_bytes:
                self._admission.release(done.pod, done.size_bytes)
            mark = done.mark or mark
            dropped = done.fate is Fate.DROPPED
            replies.append(replies_when_dropped(done.replies) if dropped else replies_when_kept(done.replies))
        if not self._unsettled:
            self._refusals_bytes = 0
        if replies:
            self._replied_at = now
            self._reply(b"".join(replies))
        self._places.settle(mark)
