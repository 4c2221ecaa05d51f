"""The parts of `ods replay`: batches that know where they end, the note of an interrupted one, lines in order."""

import gzip
import json
from collections import Counter
from pathlib import Path

import gevent
import pytest

from ods.errors import Rejected, SettingsError, Suspect, Unavailable
from ods.recorded import Tally, find
from ods.recording import HEADERS
from ods.replay.batches import BATCH_LINES, Batch, Position, batches, first_ns
from ods.replay.meter import Meter
from ods.replay.state import Span, StateFile, default_path
from ods.replay.timeline import timeline
from ods.replay.to_influx import Outcome, ToInflux
from ods.selection import Selection
from ods.settings import InfluxSettings

BEGIN_NS = 1_790_000_000_000_000_000
NAME = "20260921-141320.000000000.{}.csv"


def write(directory: Path, pod: str, kind: str, rows: list[str]) -> None:
    folder = directory / "recordings" / pod
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME.format(kind)).write_bytes(HEADERS[kind] + "".join(f"{row}\n" for row in rows).encode())


def opened(directory: Path) -> tuple[list[object], Meter]:
    segments = find(directory, Selection())
    return segments, Meter(segments, Selection(), Tally())  # type: ignore[return-value]


def all_batches(directory: Path, **options: object) -> list[Batch]:
    segments, meter = opened(directory)
    return list(batches(segments, meter, **options))  # type: ignore[arg-type]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A long segment and two short ones."""
    write(tmp_path, "a", "data", [f"{BEGIN_NS + number},x,{number}" for number in range(BATCH_LINES + 3)])
    write(
        tmp_path,
        "a",
        "log",
        [
            f'{BEGIN_NS + 1},log,"[NOTE]  ""begin"""',
            f'{BEGIN_NS + 1},invalid,"hello"',
            f'{BEGIN_NS + 2},torn,"POD2x 1"',
            f'{BEGIN_NS + 9},mark,"test"',
        ],
    )
    write(tmp_path, "b", "data", [f"{BEGIN_NS - 5},x,1"])
    return tmp_path


def test_short_segments_share_a_batch_and_each_says_where_it_ends(directory: Path) -> None:
    first, second = all_batches(directory)
    assert (first.points, first.end) == (BATCH_LINES, Position(BEGIN_NS, "a", "data", BATCH_LINES))
    assert (second.points, dict(second.left_out)) == (3 + 2 + 1, {"invalid": 1, "torn": 1})
    assert second.end == Position(BEGIN_NS, "b", "data", 1)
    assert first.lines.splitlines()[0] == b"x,pod=a value=0.0 %d" % BEGIN_NS
    assert second.lines.splitlines()[3:] == [
        b'pod_log,level=note,pod=a message="\\"begin\\"" %d' % (BEGIN_NS + 1),
        b'ods_event,event=mark,pod=a detail="test" %d' % (BEGIN_NS + 9),
        b"x,pod=b value=1.0 %d" % (BEGIN_NS - 5),
    ]


def test_a_segment_goes_on_after_a_position_in_it(directory: Path) -> None:
    segments, meter = opened(directory)
    (batch,) = batches(segments[:1], meter, after=Position(BEGIN_NS, "a", "data", BATCH_LINES + 1))  # type: ignore[arg-type]
    assert (batch.points, meter.skipped) == (2, BATCH_LINES + 1)


def test_times_are_shifted(directory: Path) -> None:
    *_, last = all_batches(directory, shift_ns=5)
    assert last.lines.splitlines()[-1] == b"x,pod=b value=1.0 %d" % BEGIN_NS
    segments, meter = opened(directory)
    assert first_ns(segments, meter) == BEGIN_NS - 5  # type: ignore[arg-type]


def test_a_pod_sends_its_data_and_its_messages_in_the_order_of_time(directory: Path) -> None:
    segments, meter = opened(directory)
    lines = list(timeline([one for one in segments if one.pod == "a"], meter))  # type: ignore[attr-defined]
    assert [time_ns for time_ns, _ in lines] == sorted(time_ns for time_ns, _ in lines)
    assert [line for _, line in lines[:6]] == [
        b"POD2x 0\n",
        b"POD2x 1\n",
        b'POD1[NOTE]  "begin"\n',
        b"hello\n",
        b"POD2x 2\n",
        None,
    ]
    assert meter.done >= meter.total / 2


# -- The note of a replay that was interrupted

QUESTION = {"pods": ["a"], "from": "-10m"}
SPAN, POSITION = Span(1, 2, 3, 4), Position(BEGIN_NS, "a", "data", 7)


def note(path: Path, warnings: list[str] | None = None, **question: object) -> StateFile:
    return StateFile(path, QUESTION | question, warn=(warnings if warnings is not None else []).append)


def test_a_note_is_read_back_and_removed(tmp_path: Path) -> None:
    path = default_path(tmp_path / "new", QUESTION)
    note(path).note(SPAN, POSITION)
    assert note(path).load() == (SPAN, POSITION)
    note(path).remove()
    note(path).remove()
    assert note(path).load() is None


def test_a_note_is_not_written_for_every_batch(tmp_path: Path) -> None:
    state = note(tmp_path / "note")
    state.note(SPAN, POSITION)
    later = POSITION._replace(rows=8)
    state.note(SPAN, later)
    assert note(tmp_path / "note").load() == (SPAN, POSITION)
    state.note(SPAN, later, at_once=True)
    assert note(tmp_path / "note").load() == (SPAN, later)


def test_the_note_of_another_replay_is_refused(tmp_path: Path) -> None:
    note(tmp_path / "note").note(SPAN, POSITION)
    with pytest.raises(SettingsError, match="of another replay"):
        note(tmp_path / "note", pods=["b"]).load()
    assert default_path(tmp_path, QUESTION) != default_path(tmp_path, QUESTION | {"pods": ["b"]})


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"span": {}}', json.dumps({"span": {"from_ns": 1}, "position": [1]})]
)
def test_a_damaged_note_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "note").write_text(text)
    with pytest.raises(SettingsError, match="cannot be read"):
        note(tmp_path / "note").load()


def test_a_note_that_cannot_be_written_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    warnings: list[str] = []
    state = note(tmp_path / "file" / "note", warnings)
    for _ in range(2):
        state.note(SPAN, POSITION, at_once=True)
    assert len(warnings) == 1 and warnings[0].startswith("--resume will not go on from here")


# -- Writing


class FakeInflux:
    """Answers writes with what it was told to, then confirms."""

    def __init__(self, *answers: Exception | None) -> None:
        self.settings = InfluxSettings(host="h", port=1, user="u", password="p", database="d")
        self.answers = list(answers)
        self.writes = 0
        self.probes: list[Exception | None] = []

    def write(self, lines: bytes, *, database: str, is_gzip: bool) -> None:
        self.writes += 1
        gevent.sleep(0)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    def probe(self) -> None:
        answer = self.probes.pop(0) if self.probes else None
        if answer is not None:
            raise answer


def batch(rows: int, *lines: str) -> Batch:

    return Batch("".join(f"{line}\n" for line in lines).encode(), len(lines), Counter(), POSITION._replace(rows=rows))


def written(influx: FakeInflux, *given: Batch) -> tuple[Outcome, list[str], list[int]]:
    said: list[str] = []
    ends: list[int] = []
    writer = ToInflux(influx, say=said.append, confirmed=lambda outcome: ends.append(outcome.end.rows))  # type: ignore
    assert writer.run(given)
    return writer.outcome, said, ends


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ods.replay.to_influx.WAIT_SECONDS", 0.01)
    monkeypatch.setattr("ods.replay.to_influx.SUSPECT_SECONDS", 0.0)


A, B, C = (f"x,pod={pod} value=1.0 1" for pod in "abc")


def test_what_is_done_is_told_in_order_though_answers_are_not() -> None:
    """The first batch is answered last: until then nothing is done."""
    influx = FakeInflux(Unavailable("away"))
    outcome, said, ends = written(influx, batch(1, A), batch(2, B), batch(3, C))
    assert ends == [1, 2, 3]
    assert (outcome.stored, outcome.refused) == (3, 0)
    assert len(said) == 2 and "away" in said[0] and "again" in said[1]


def test_a_batch_over_which_the_server_fails_alone_is_searched_for_its_bad_lines() -> None:
    """The whole three times, then each series by itself: the second is the one."""
    suspect = Suspect("panic")
    influx = FakeInflux(*[suspect] * 3, *[suspect] * 3, None, *[suspect] * 3)
    outcome, said, _ = written(influx, batch(1, A, B))
    assert (outcome.stored, outcome.refused) == (1, 1)
    assert "refuses a line for good: panic" in said[0] and B in said[0]


def test_a_server_that_takes_nothing_is_not_taken_for_bad_lines() -> None:
    rejected = Rejected("bad")
    influx = FakeInflux(rejected, rejected)
    influx.probes = [Unavailable("read only")]
    outcome, said, _ = written(influx, batch(1, A))
    assert (outcome.stored, outcome.refused) == (1, 0)
    assert "read only" in said[0]


def test_it_stops_though_nobody_answers() -> None:
    influx = FakeInflux(*[Unavailable("away")] * 10_000)
    writer = ToInflux(influx, say=lambda text: None, confirmed=lambda outcome: None)  # type: ignore[arg-type]
    gevent.spawn_later(0.05, writer.stop)
    assert not writer.run([batch(number, A) for number in range(5)])
    assert writer.outcome == Outcome()


class OneWaits(FakeInflux):
    """Takes every batch but that of pod a."""

    def write(self, lines: bytes, *, database: str, is_gzip: bool) -> None:
        super().write(lines, database=database, is_gzip=is_gzip)
        if b"pod=a" in gzip.decompress(lines):
            raise Unavailable("away")


def test_what_follows_a_batch_that_waits_is_not_done_before_it() -> None:
    """Else a replay that is interrupted then would go on after a gap."""
    influx = OneWaits()
    writer = ToInflux(influx, say=lambda text: None, confirmed=lambda outcome: None)  # type: ignore[arg-type]
    gevent.spawn_later(0.05, writer.stop)
    assert not writer.run([batch(1, A), batch(2, B)])
    assert influx.writes >= 2
    assert writer.outcome == Outcome()
