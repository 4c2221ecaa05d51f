"""One connection between its bytes and the stores: in order, counted, timed, and answered once settled."""

import csv
import logging
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods import together
from ods.admission import Admission
from ods.chunk import Chunk, settle
from ods.clock import Clock
from ods.intake import (
    CAREFUL_BYTES,
    DECODE_BYTES,
    DECODE_READS,
    DENSE_BYTES,
    REFUSALS_BYTES,
    STREAMING_SECONDS,
    TURNAROUND_SECONDS,
    Intake,
)
from ods.latency import Latency
from ods.latest import LatestValues
from ods.ledger import Counts, Fate, Ledger
from ods.limit_watch import LimitWatch
from ods.line_protocol import time_of
from ods.pods import Pods
from ods.sensors import Sensors
from ods.tape import SPARE_NOTES

NOW_NS = 1_790_000_000_000_000_000
#: Fates with which a point is kept.
KEPT = (Fate.STORED, Fate.PENDING, Fate.QUARANTINED)
NOT_STORED = b"ERROR: Not Stored\n"


@dataclass
class Bench:
    """An intake with everything around it in the test's hands."""

    max_names: int = 100
    limit_bytes: int = 10**9
    forwarded: list[Chunk] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    expected: list[Intake] = field(default_factory=list)
    expected_bytes: int = 0
    urgent: list[bool] = field(default_factory=list)
    now_ns: int = NOW_NS
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self.admission = Admission(limit_bytes=self.limit_bytes, pause_bytes=10**12)
        self.pods = Pods({"10.0.0.20": "a"}, max_names=self.max_names)
        self.clock = Clock(wall_ns=lambda: self.now_ns, monotonic_ns=lambda: self.now_ns)
        self.limits = LimitWatch(Sensors(), emit=lambda *event: None, now_ns=lambda: 0)
        self.latest = LatestValues(now_ns=lambda: self.now_ns)
        self.replying = Latency()
        self.intake = self.connect()

    def connect(self) -> Intake:
        """One more connection of the same pod."""
        return Intake(
            pod=self.pods.at("10.0.0.20"),
            clock=self.clock,
            ledger=self.ledger,
            admission=self.admission,
            onward=self,
            reply=self.replies.append,
            latest=self.latest,
            limits=self.limits,
            replying=self.replying,
        )

    def put(self, chunk: Chunk) -> None:
        """Take a chunk over, in the batcher's place."""
        self.forwarded.append(chunk)

    def expect(self, intake: Intake, size_bytes: int, *, urgent: bool) -> None:
        """Be told, in the batcher's place, of bytes that wait to be decoded."""
        self.expected_bytes += size_bytes
        self.urgent.append(urgent)
        if intake not in self.expected:
            self.expected.append(intake)

    def begin_batch(self) -> None:
        """Have decoded what was read, as a batch does that begins."""
        expected, self.expected, self.expected_bytes = self.expected, [], 0
        together.flush(expected)

    def receive(self, data: bytes) -> Chunk:
        """Take in bytes that hold records, and return the chunk that came of them."""
        count = len(self.forwarded)
        self.intake.receive(data)
        self.begin_batch()
        assert len(self.forwarded) == count + 1
        return self.forwarded[-1]

    @property
    def counts(self) -> Counts:
        return self.ledger.of("a")

    @property
    def replied(self) -> bytes:
        return b"".join(self.replies)


def rows_of(recorded: bytes) -> list[list[str]]:
    return list(csv.reader(recorded.decode().splitlines()))


# -- What a chunk holds -----------------------------------------------------------------------------------------------


def test_a_chunk_holds_every_record_encoded_for_each_of_its_readers() -> None:
    chunk = Bench().receive(b"POD2x 1.50\nPOD1[NOTE]  hi\nPOD2y nan\nPOD2z 3\n")
    assert chunk.lines.decode() == (
        f"x,pod=a value=1.5 {NOW_NS}\n"
        f'pod_log,level=note,pod=a message="hi" {NOW_NS + 1}\n'
        f"z,pod=a value=3.0 {NOW_NS + 3}\n"
    )
    assert rows_of(chunk.data_rows) == [[str(NOW_NS), "x", "1.50"], [str(NOW_NS + 3), "z", "3"]]
    assert rows_of(chunk.log_rows) == [
        [str(NOW_NS + 1), "log", "[NOTE]  hi"],
        [str(NOW_NS + 2), "invalid", "POD2y nan"],
    ]
    assert (chunk.pod, chunk.points, chunk.first_ns, chunk.last_ns) == ("a", 3, NOW_NS, NOW_NS + 3)
    assert chunk.fate is Fate.IN_FLIGHT


def test_a_large_read_is_decoded_by_itself_at_once() -> None:
    """It is nothing to be put together with what others sent; a small one is."""
    bench = Bench()
    bench.intake.receive(b"POD2x 1.5\n" * (DECODE_BYTES // 10 + 1))
    assert (len(bench.forwarded), bench.expected_bytes) == (1, 0)
    bench.intake.receive(b"POD2x 1.5\n")
    assert (len(bench.forwarded), bench.expected_bytes) == (1, 10)


def test_bytes_that_end_no_record_make_no_chunk() -> None:
    bench = Bench()
    bench.intake.receive(b"POD2x 1")
    bench.begin_batch()
    bench.intake.receive(b".5")
    bench.begin_batch()
    assert bench.forwarded == []
    assert bench.intake.is_settled
    assert bench.receive(b"\n").points == 1


def test_many_tiny_reads_are_decoded_before_their_notes_fill_a_tape() -> None:
    bench = Bench()
    for _ in range(DECODE_READS - 1):
        bench.intake.receive(b"\n")
    assert not bench.forwarded
    bench.intake.receive(b"\n")
    assert len(bench.forwarded) == 1
    assert DECODE_READS < SPARE_NOTES


def test_a_torn_line_is_recorded_and_counted_and_no_point() -> None:
    bench = Bench()
    bench.intake.receive(b"POD2x 12")
    bench.intake.finish()
    (chunk,) = bench.forwarded
    assert (chunk.lines, chunk.points, chunk.replies) == (b"", 0, [])
    assert rows_of(chunk.log_rows) == [[str(NOW_NS), "torn", "POD2x 12"]]
    assert bench.counts == Counts(torn=1)


def test_last_words_are_a_point() -> None:
    bench = Bench()
    bench.intake.receive(b"POD1[FATAL] braking")
    bench.intake.finish()
    assert bench.forwarded[-1].lines.startswith(b'pod_log,level=fatal,pod=a message="braking"')
    assert bench.counts == Counts(received=1, in_flight=1)


def test_an_end_without_a_rest_makes_no_chunk() -> None:
    bench = Bench()
    bench.intake.finish()
    assert bench.forwarded == []


def test_points_and_what_was_no_record_are_counted() -> None:
    bench = Bench()
    bench.receive(b"POD2x 1\nPOD2x 2\nPOD2x z\nwhat\nPOD1aPOD1b\n")
    assert bench.counts == Counts(received=4, in_flight=4, invalid=2)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=1, max_size=20))
def test_times_of_a_pod_strictly_increase_over_all_of_its_connections(bursts: list[tuple[bool, int]]) -> None:
    """The clock stands still here: a burst has nanoseconds of its own."""
    bench = Bench()
    connections = (bench.intake, bench.connect())
    for is_second, count in bursts:
        connections[is_second].receive(b"POD2x 1\nPOD1m\nbad\n" * count)
    bench.begin_batch()
    lines = b"".join([chunk.lines for chunk in bench.forwarded]).decode().splitlines()
    times = [time_of(line) for line in lines]
    assert times == sorted(set(times))
    for before, after in zip(bench.forwarded, bench.forwarded[1:], strict=False):
        assert before.first_ns <= before.last_ns < after.first_ns


# -- What several reads brought ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [b"POD2x 3\n", b"POD1m\n"], ids=["only data points", "a message among them"])
def test_small_reads_become_one_chunk_and_each_record_keeps_the_time_of_its_read(last: bytes) -> None:
    """A record is received when its last byte is."""
    bench = Bench()
    for step, data in enumerate([b"POD2x 1\nPOD2", b"x 2\n", last]):
        bench.now_ns = NOW_NS + 1000 * step
        bench.intake.receive(data)
    assert not bench.intake.is_settled
    bench.now_ns = NOW_NS + 9000
    bench.begin_batch()
    (chunk,) = bench.forwarded
    assert [time_of(line) - NOW_NS for line in chunk.lines.decode().splitlines()] == [0, 1000, 2000]


def test_much_is_decoded_without_waiting_for_a_batch() -> None:
    bench = Bench()
    bench.intake.receive(b"POD2x 1\n" * (DECODE_BYTES // 8))
    assert [chunk.points for chunk in bench.forwarded] == [DECODE_BYTES // 8]


PIECES = [
    b"POD2x 1\n",
    b"POD2y 2.5\n",
    b"POD2x ",
    b"nan\n",
    b"POD1",
    b"m",
    b"\n",
    b"POD2",
    b" ",
    b"7\r\n",
    b"POD1aPOD2x 3\n",
]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.booleans()), max_size=25))
def test_when_batches_begin_changes_nothing_but_the_chunks(reads: list[tuple[bytes, bool]]) -> None:
    """Lines, rows and replies are those of the whole stream in one read, whatever was decoded together."""
    whole, bench = Bench(), Bench()
    whole.intake.receive(b"".join([data for data, _ in reads]))
    for data, begins_batch in reads:
        bench.intake.receive(data)
        if begins_batch:
            bench.begin_batch()
    outcomes = []
    for one in (whole, bench):
        one.intake.finish()
        settle(one.forwarded, Fate.STORED)
        columns = [(chunk.lines, chunk.data_rows, chunk.log_rows) for chunk in one.forwarded]
        outcomes.append(([b"".join(column) for column in zip(*columns, strict=True)], one.replied, one.counts))
    assert outcomes[0] == outcomes[1]


def taken(bench: Bench, data: bytes) -> list[int]:
    """Give a large read to the intake as a connection does; returns the sizes of the pieces that it took."""
    sizes = []
    while data:
        rest = bench.intake.receive(data)
        assert data.endswith(rest)
        sizes.append(len(data) - len(rest))
        assert sizes[-1] > 0
        data = rest
    return sizes


def outcome(bench: Bench) -> tuple[list[bytes], bytes, Counts]:
    """Lines, rows and replies of all that was received, and what was counted."""
    bench.intake.finish()
    settle(bench.forwarded, Fate.STORED)
    columns = [(chunk.lines, chunk.data_rows, chunk.log_rows) for chunk in bench.forwarded]
    return [b"".join(column) for column in zip(*columns, strict=True)], bench.replied, bench.counts


def test_a_large_read_of_good_data_points_is_taken_whole() -> None:
    """It is decoded fast: the shortest of lines, and those cut at both ends by TCP."""
    for data in (b"POD2x 1\n" * 8000, b"x_accel 1.5\n" + b"POD2accel_x 1.5\n" * 4000 + b"POD2acc"):
        assert taken(Bench(), data) == [len(data)]


@pytest.mark.parametrize(
    "data",
    [b"\n" * 50_000, b"POD1m\n" * 8000, b"what\n" * 8000, b"POD2x 1\n" * 4000 + b"\n" * 20_000, b"POD2\n" * 8000],
    ids=["newlines", "messages", "not understood", "newlines after data points", "no names"],
)
def test_a_large_read_of_anything_else_is_taken_in_pieces(data: bytes) -> None:
    """Decoding it takes ten times as long, or more: no pod's input may hold up the others for that long."""
    sizes = taken(Bench(), data)
    assert max(sizes) <= CAREFUL_BYTES
    assert sum(sizes) == len(data)


def test_a_large_read_of_short_lines_is_taken_in_smaller_pieces() -> None:
    """It is the lines that take time: newlines alone are a thousand in a kilobyte."""
    assert DENSE_BYTES < CAREFUL_BYTES
    sizes = taken(Bench(), b"\n" * 50_000)
    assert max(sizes[:-1]) <= DENSE_BYTES


def test_a_small_read_is_taken_whole_whatever_it_holds() -> None:
    """The common case of a log message does not wait for another turn of the hub."""
    assert taken(Bench(), b"\n" * CAREFUL_BYTES) == [CAREFUL_BYTES]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 12)), min_size=1, max_size=25), st.integers(1, 64))
def test_what_is_taken_in_pieces_gives_the_same_as_at_once(reads: list[tuple[bytes, int]], careful_bytes: int) -> None:
    """No record is lost, doubled, torn or answered otherwise, wherever the pieces are cut."""
    data = b"".join([piece * count for piece, count in reads])
    whole, bench = Bench(), Bench()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ods.intake.CAREFUL_BYTES", len(data))
        assert taken(whole, data) == [len(data)]
        patch.setattr("ods.intake.CAREFUL_BYTES", careful_bytes)
        taken(bench, data)
    assert outcome(bench) == outcome(whole)


# -- Replies ----------------------------------------------------------------------------------------------------------


def test_replies_wait_until_the_chunk_is_settled() -> None:
    bench = Bench()
    chunk = bench.receive(b"POD2x 1\n")
    assert bench.replies == []
    assert not bench.intake.is_settled
    settle([chunk], Fate.STORED)
    assert bench.replies == [b"OK: (x,1.0)\n"]
    assert bench.intake.is_settled


def test_replies_to_chunks_that_are_settled_out_of_order_are_in_order() -> None:
    bench = Bench()
    first, second, third = (bench.receive(b"POD2x %d\n" % number) for number in (1, 2, 3))
    settle([third], Fate.STORED)
    settle([second], Fate.PENDING)
    assert bench.replies == []
    settle([first], Fate.STORED)
    assert bench.replied == b"OK: (x,1.0)\nOK: (x,2.0)\nOK: (x,3.0)\n"


def test_a_dropped_chunk_is_refused_for_exactly_its_lines_with_points() -> None:
    bench = Bench()
    chunk = bench.receive(b"POD2x 1\nPOD2x nan\nPOD1m\n\nwhat\nPOD1aPOD2y inf\nPOD1aPOD2y 2\n")
    settle([chunk], Fate.DROPPED)
    assert bench.replied.splitlines(keepends=True) == [
        *(NOT_STORED, b"ERROR: Bad Value 'nan'\n", NOT_STORED, b"FAIL: \n", b"FAIL: what\n"),
        *(b"ERROR: Bad Value 'inf'\n", NOT_STORED),
    ]


@pytest.mark.parametrize("fate", KEPT)
def test_every_fate_that_keeps_a_point_is_answered_ok(fate: Fate) -> None:
    bench = Bench()
    settle([bench.receive(b"POD2x 1\nPOD1m\n")], fate)
    assert bench.replied == b"OK: (x,1.0)\nOK: LOGGED\n"


def test_a_chunk_of_no_points_waits_its_turn_too() -> None:
    bench = Bench()
    first, second = bench.receive(b"POD2x 1\n"), bench.receive(b"what\n")
    settle([second], Fate.STORED)
    assert bench.replies == []
    settle([first], Fate.STORED)
    assert bench.replied == b"OK: (x,1.0)\nFAIL: what\n"


def test_chunks_that_are_settled_as_one_batch_are_answered_at_once() -> None:
    """One write to the socket for each connection, not one for each chunk."""
    bench = Bench()
    other = bench.connect()
    for number in (1, 2):
        bench.receive(b"POD2x %d\n" % number)
        other.receive(b"POD2y %d\n" % number)
        bench.begin_batch()
    settle(bench.forwarded, Fate.STORED)
    assert bench.replies == [b"OK: (x,1.0)\nOK: (x,2.0)\n", b"OK: (y,1.0)\nOK: (y,2.0)\n"]


LINES = {
    b"POD2x 1\n": (b"OK: (x,1.0)\n", NOT_STORED),
    b"POD1m\n": (b"OK: LOGGED\n", NOT_STORED),
    b"POD1mPOD2y 2\n": (b"OK: (y,2.0)\n", NOT_STORED),
    b"POD2x nan\n": (b"ERROR: Bad Value 'nan'\n", b"ERROR: Bad Value 'nan'\n"),
    b"what\n": (b"FAIL: what\n", b"FAIL: what\n"),
}
chunks_and_fates = st.lists(
    st.tuples(st.lists(st.sampled_from(list(LINES)), min_size=1, max_size=4), st.sampled_from((*KEPT, Fate.DROPPED))),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=150)
@given(chunks_and_fates, st.randoms(use_true_random=False))
def test_in_whatever_order_chunks_are_settled_each_line_has_its_reply_in_its_place(chunks, random) -> None:
    bench = Bench()
    order = [(bench.receive(b"".join(lines)), fate) for lines, fate in chunks]
    random.shuffle(order)
    expected = b"".join([LINES[line][fate is Fate.DROPPED] for lines, fate in chunks for line in lines])
    for chunk, fate in order:
        settle([chunk], fate)
        assert expected.startswith(bench.replied), "a reply came before one that is to precede it"
    assert bench.replied == expected
    assert bench.intake.is_settled
    assert bench.admission.in_flight_bytes == 0


# -- The limit of memory ----------------------------------------------------------------------------------------------


def test_what_is_in_flight_is_admitted_and_released() -> None:
    bench = Bench()
    chunk = bench.receive(b"POD2x 1\nPOD1m\nwhat\n")
    assert bench.admission.in_flight_bytes == chunk.size_bytes > len(chunk.lines)
    settle([chunk], Fate.STORED)
    assert bench.admission.in_flight_bytes == 0


def test_a_chunk_beyond_the_limit_is_dropped_counted_and_refused() -> None:
    """Still forwarded: the recording keeps it where the disk allows."""
    bench = Bench(limit_bytes=0)
    chunk = bench.receive(b"POD2x 1\nwhat\nPOD1m\n")
    assert chunk.fate is Fate.DROPPED
    assert bench.replied == NOT_STORED + b"FAIL: what\n" + NOT_STORED
    assert bench.counts == Counts(received=2, dropped=2, invalid=1)
    assert bench.admission.in_flight_bytes == 0
    assert bench.intake.is_settled


def test_a_refused_chunk_is_answered_after_those_before_it() -> None:
    bench = Bench(limit_bytes=200)
    first = bench.receive(b"POD2x 1\n")
    second = bench.receive(b"POD2x 2\n" * 50)
    assert (first.fate, second.fate) == (Fate.IN_FLIGHT, Fate.DROPPED)
    assert bench.replies == []
    settle([first], Fate.STORED)
    assert bench.replied == b"OK: (x,1.0)\n" + NOT_STORED * 50
    assert bench.counts.add_up()


def test_a_refused_chunk_does_not_keep_its_bytes() -> None:
    """Behind one that is in flight it waits for its turn to be answered: there is no memory for more than that."""
    bench = Bench(limit_bytes=200)
    first = bench.receive(b"POD2x 1\n")
    refused = [bench.receive(b"POD2accel_x 1.25\nPOD1a message of some length\n" * 20) for _ in range(10)]
    for chunk in refused:
        assert (chunk.lines, chunk.data_rows, chunk.log_rows) == (b"", b"", b"")
    assert len(bench.intake._unsettled) == 2, "a chunk is kept for each that was refused"
    assert bench.replies == []
    settle([first], Fate.STORED)
    assert bench.replied == b"OK: (x,1.0)\n" + NOT_STORED * 400
    assert bench.counts == Counts(received=401, stored=0, dropped=400, in_flight=1)  # the store would move that one
    assert bench.intake.is_settled


def test_refusals_that_are_not_sent_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the stores stand still and a pod goes on sending."""
    monkeypatch.setattr("ods.intake.REFUSALS_BYTES", 1000)
    bench = Bench(limit_bytes=200)
    bench.receive(b"POD2x 1\n")
    for _ in range(200):
        bench.receive(b"POD2x 2\n" * 50)
    (_, refused) = bench.intake._unsettled
    assert len(refused.replies) <= 2
    assert bench.intake.pod.replies_dropped >= 199 * 50 - 1000 // len(NOT_STORED)


def test_a_refused_chunk_is_whole_for_the_recording() -> None:
    """It is written down before its bytes are let go."""
    bench, rows = Bench(limit_bytes=0), []
    bench.put = lambda chunk: rows.append((chunk.fate, chunk.lines, chunk.data_rows, chunk.log_rows))  # type: ignore[method-assign]
    bench.intake.receive(b"POD2x 1\nPOD1m\n")
    bench.begin_batch()
    ((fate, lines, data_rows, log_rows),) = rows
    assert fate is Fate.DROPPED
    assert lines.startswith(b"x,pod=a value=1.0 ")
    assert (rows_of(data_rows), rows_of(log_rows)) == ([[str(NOW_NS), "x", "1"]], [[str(NOW_NS + 1), "log", "m"]])


def test_refusals_are_answered_in_order_among_those_in_flight() -> None:
    """Each line its reply, in its place: of those kept, of those refused at once, and of those dropped later."""
    bench = Bench(limit_bytes=400)
    large = b"POD2x 9\nwhat\n" * 30
    kept, _, _, dropped, _ = (bench.receive(data) for data in (b"POD2x 1\n", large, large, b"POD2x 2\n", large))
    assert (kept.fate, dropped.fate) == (Fate.IN_FLIGHT, Fate.IN_FLIGHT)
    refusals = (NOT_STORED + b"FAIL: what\n") * 30
    settle([dropped], Fate.DROPPED)
    assert bench.replies == []
    settle([kept], Fate.PENDING)
    assert bench.replied == b"OK: (x,1.0)\n" + refusals * 2 + NOT_STORED + refusals
    assert bench.intake.is_settled
    assert bench.admission.in_flight_bytes == 0


def test_refusals_that_wait_are_bounded_and_those_beyond_are_counted() -> None:
    """1 MiB a connection; the next ones are answered again once what was in flight is settled."""
    assert REFUSALS_BYTES == 1024 * 1024
    bench = Bench(limit_bytes=200)
    lines_each, first = 1000, bench.receive(b"POD2x 1\n")
    fitting = REFUSALS_BYTES // (lines_each * len(NOT_STORED))
    for _ in range(fitting + 3):
        bench.receive(b"POD2x 2\n" * lines_each)
    assert bench.intake.pod.replies_dropped == 3 * lines_each
    settle([first], Fate.STORED)
    assert bench.replied == b"OK: (x,1.0)\n" + NOT_STORED * lines_each * fitting
    assert bench.counts.dropped == lines_each * (fitting + 3)
    bench.replies.clear()
    bench.receive(b"POD2x 3\n" * lines_each)
    assert bench.replied == NOT_STORED * lines_each
    assert bench.intake.pod.replies_dropped == 3 * lines_each


# -- Who waits for replies --------------------------------------------------------------------------------------------


@pytest.fixture
def elapsed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The monotonic clock of the intake, moved by the test."""
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("ods.intake.time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def test_a_pod_that_sends_on_after_its_reply_is_urgent(elapsed: SimpleNamespace) -> None:
    bench = Bench()
    settle([bench.receive(b"POD2x 1\n")], Fate.STORED)
    for _ in range(3):
        elapsed.seconds += TURNAROUND_SECONDS / 2
        chunk = bench.receive(b"POD2x 1\n")
        assert bench.urgent[-1]
        settle([chunk], Fate.STORED)


def test_a_first_record_is_not_urgent(elapsed: SimpleNamespace) -> None:
    bench = Bench()
    bench.receive(b"POD2x 1\n")
    assert bench.urgent == [False]


def test_a_pod_that_comes_back_later_is_not_urgent(elapsed: SimpleNamespace) -> None:
    bench = Bench()
    settle([bench.receive(b"POD2x 1\n")], Fate.STORED)
    elapsed.seconds += TURNAROUND_SECONDS * 2
    bench.receive(b"POD2x 1\n")
    assert not bench.urgent[-1]


def test_a_pod_that_did_not_wait_is_not_urgent_for_a_while(elapsed: SimpleNamespace) -> None:
    bench = Bench()
    first, second = bench.receive(b"POD2x 1\n"), bench.receive(b"POD2x 2\n")
    assert not bench.urgent[-1]
    settle([first], Fate.STORED)
    settle([second], Fate.STORED)
    elapsed.seconds += TURNAROUND_SECONDS / 2
    third = bench.receive(b"POD2x 3\n")
    assert not bench.urgent[-1]
    elapsed.seconds += STREAMING_SECONDS * 2
    settle([third], Fate.STORED)
    bench.receive(b"POD2x 4\n")
    assert bench.urgent[-1]


# -- The pod ----------------------------------------------------------------------------------------------------------


def test_the_pod_was_seen_when_it_sent_a_record(elapsed: SimpleNamespace) -> None:
    bench = Bench()
    assert bench.intake.pod.last_seen is None
    chunk = bench.receive(b"what\n")
    assert bench.intake.pod.last_seen == chunk.received_at == elapsed.seconds


def test_too_many_names_are_warned_of_once_a_pod(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(max_names=2)
    with caplog.at_level(logging.WARNING, "ods"):
        bench.receive(b"POD2x 1\nPOD2y 1\n")
        assert caplog.messages == []
        bench.receive(b"POD2z 1\n")
        bench.receive(b"POD2v 1\n")
        bench.connect().receive(b"POD2w 1\n")
        bench.begin_batch()
    assert caplog.messages == ["pod a uses more than 2 names; further ones are refused (--max-names)"]
    assert bench.counts.invalid == 3


# -- How far a connection is settled ----------------------------------------------------------------------------------


def test_what_was_read_is_unsettled_from_its_reading_to_its_fate() -> None:
    bench = Bench()
    assert bench.intake.oldest_ns is None
    bench.intake.receive(b"POD2x 1\n")
    bench.now_ns += 1000
    bench.intake.receive(b"POD2x 2\n")
    assert bench.intake.oldest_ns == NOW_NS, "it is not decoded yet"
    bench.begin_batch()
    assert bench.intake.oldest_ns == NOW_NS
    bench.now_ns += 1000
    second = bench.receive(b"POD2x 3\n")
    settle([second], Fate.STORED)
    assert bench.intake.oldest_ns == NOW_NS, "the first is in flight still"
    settle(bench.forwarded[:1], Fate.PENDING)
    assert bench.intake.oldest_ns is None


def test_what_is_refused_for_want_of_memory_is_settled() -> None:
    bench = Bench(limit_bytes=1)
    bench.receive(b"POD2x 1\n")
    assert bench.counts.dropped == 1
    assert bench.intake.oldest_ns is None


def test_no_record_gets_a_time_before_what_is_unsettled() -> None:
    """Though the pod's times run ahead of the clock: a second connection has used the next nanoseconds."""
    bench = Bench()
    bench.receive(b"POD2x 1\n" * 50)
    other = bench.connect()
    other.receive(b"POD2x 1\n")
    assert other.oldest_ns == NOW_NS
    bench.begin_batch()
    assert bench.forwarded[-1].first_ns == other.oldest_ns == NOW_NS + 50


def test_a_connection_that_has_ended_says_so() -> None:
    bench = Bench()
    assert not bench.intake.is_finished
    bench.intake.finish()
    assert bench.intake.is_finished
