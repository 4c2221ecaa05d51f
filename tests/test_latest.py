"""The latest values: what the live page shows without InfluxDB, in bounded memory and a bounded share of the time."""

import pytest

from ods import latest
from ods.data_points import DataPoints
from ods.latest import ROWS, LatestValues
from ods.protocol import LogMessage, NoRecord

SECOND_NS = 1_000_000_000


class Bench:
    """Latest values, with the clock in the test's hands."""

    def __init__(self) -> None:
        self.now_ns = 100 * SECOND_NS
        self.values = LatestValues(now_ns=lambda: self.now_ns)

    def take(self, pod: str, **values: float) -> None:
        texts = [repr(float(value)) for value in values.values()]
        self.values.take(pod, [DataPoints(list(values), texts, texts)], [str(self.now_ns)] * len(values))

    def sample(self, seconds: float = 0.5) -> None:
        self.now_ns += int(seconds * SECOND_NS)
        self.values.sample()

    def frame(self, pod: str = "a", *, since: int = 0, match: str = "") -> dict[str, object]:
        return self.values.frame(pod, since=since, match=match)

    def history(self, pod: str = "a", *, match: str = "") -> dict[str, object]:
        return self.values.history(pod, match=match)


def test_a_frame_holds_the_value_as_of_now_and_the_time_of_its_sample() -> None:
    bench = Bench()
    bench.take("a", speed=1, height=5)
    bench.take("a", speed=2)
    bench.sample()
    assert bench.frame()["values"] == {"height": [5.0, bench.now_ns], "speed": [2.0, bench.now_ns]}


def test_a_frame_since_a_tick_holds_only_what_came_after_it() -> None:
    bench = Bench()
    bench.take("a", speed=1, height=5)
    bench.sample()
    seen = bench.frame()["tick"]
    assert isinstance(seen, int)
    bench.take("a", speed=2)
    bench.sample()
    assert list(bench.frame(since=seen)["values"]) == ["speed"]  # type: ignore[call-overload]
    assert list(bench.frame()["values"]) == ["height", "speed"]  # type: ignore[call-overload]


def test_a_history_has_a_place_for_each_sample_and_none_where_nothing_came() -> None:
    bench = Bench()
    for value in (1, None, 3):
        if value is not None:
            bench.take("a", speed=value)
        bench.sample()
    history = bench.history()
    assert history["series"] == {"speed": [1.0, None, 3.0]}
    assert history["times_ns"] == [int((100 + 0.5 * n) * SECOND_NS) for n in (1, 2, 3)]
    assert history["end_ns"] == bench.now_ns


def test_a_value_that_came_late_has_a_history_that_begins_late_and_ends_now() -> None:
    bench = Bench()
    bench.take("a", speed=1)
    bench.sample()
    bench.take("a", speed=1, late=7)
    bench.sample()
    bench.sample()
    assert bench.history()["series"] == {"speed": [1.0, 1.0, None], "late": [7.0, None]}


def test_a_history_goes_back_no_further_than_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "SAMPLES", 10)
    bench = Bench()
    for value in range(25):
        bench.take("a", speed=value)
        bench.sample()
    assert bench.history()["series"] == {"speed": [float(value) for value in range(15, 25)]}
    for _ in range(10):
        bench.sample()
    assert bench.history()["series"] == {"speed": []}


def test_a_gap_longer_than_the_history_leaves_nothing_old_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "SAMPLES", 10)
    bench = Bench()
    for value in range(10):
        bench.take("a", speed=value)
        bench.sample()
    for _ in range(25):
        bench.sample()
    bench.take("a", speed=99)
    bench.sample()
    assert bench.history()["series"] == {"speed": [99.0]}


def test_names_are_matched_by_a_part_in_any_letter_case_and_shown_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latest, "SHOWN_NAMES", 2)
    bench = Bench()
    bench.take("a", accel_x=1, accel_y=2, accel_z=3, speed=4)
    bench.sample()
    frame = bench.frame(match="ACC")
    assert (frame["names"], frame["shown"]) == (3, 2)
    assert list(frame["values"]) == ["accel_x", "accel_y"]  # type: ignore[call-overload]
    assert list(bench.history(match="speed")["series"]) == ["speed"]  # type: ignore[call-overload]


def test_values_beyond_the_histories_are_shown_as_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "MAX_HISTORIES", 1)
    bench = Bench()
    bench.take("a", first=1, second=2)
    bench.sample()
    assert list(bench.frame()["values"]) == ["first", "second"]  # type: ignore[call-overload]
    assert list(bench.history()["series"]) == ["first"]  # type: ignore[call-overload]


def test_a_history_that_is_empty_by_now_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "MAX_HISTORIES", 1)
    monkeypatch.setattr(latest, "SAMPLES", 10)
    monkeypatch.setattr(latest, "FORGET_TICKS", 5)
    bench = Bench()
    bench.take("a", first=1)
    for _ in range(16):
        bench.sample()
    bench.take("b", second=2)
    bench.sample()
    assert bench.history("b")["series"] == {"second": [2.0]}


def test_pods_that_come_and_go_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "MAX_PODS", 3)
    bench = Bench()
    for pod in ("a", "b", "c"):
        bench.take(pod, speed=1)
        bench.sample()
    bench.take("a", speed=2)  # not silent any more
    bench.sample()
    bench.take("d", speed=1)
    bench.sample()
    seen = [pod for pod in "abcd" if bench.frame(pod)["names"]]
    assert seen == ["a", "c", "d"]


def test_the_last_words_come_newest_first_and_cut() -> None:
    bench = Bench()
    messages = [LogMessage("info", f"message {n} " + "x" * 500, "") for n in range(latest.LOG_MESSAGES + 5)]
    points = DataPoints(["speed"], ["1"], ["1.0"])
    records = [points, NoRecord("invalid", "?"), *messages]
    bench.values.take("a", records, [str(time_ns) for time_ns in range(len(records))])
    words = bench.values.last_words("a", 2)
    assert [word["text"].split(" x")[0] for word in words] == ["message 54", "message 53"]
    assert [word["time_ns"] for word in words] == [len(records) - 1, len(records) - 2]
    assert all(len(word["text"]) == latest.TEXT_CHARACTERS for word in words)
    assert len(bench.frame()["log"]) == latest.LOG_MESSAGES  # type: ignore[arg-type]


def test_a_pod_that_is_not_known_has_no_values() -> None:
    bench = Bench()
    bench.sample()
    assert (bench.frame()["values"], bench.history()["series"], bench.values.last_words("a", 3)) == ({}, {}, [])


def test_sampling_makes_pauses_where_there_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "SLICE_SECONDS", -1.0)
    bench = Bench()
    for pod in ("a", "b", "c"):
        bench.take(pod, speed=1)
    paused: list[None] = []
    bench.values.sample(pause=lambda: paused.append(None))
    assert len(paused) == 3


def test_a_history_by_parts_is_as_of_its_begin_however_slowly_it_is_taken() -> None:
    bench = Bench()
    for value in range(latest.SAMPLES + 10):
        bench.take("a", speed=value, height=-value)
        bench.sample()
    history = bench.history()
    begun, series = bench.values.history_by_parts("a", match="")
    taken = dict([next(series)])
    for value in range(5):
        bench.take("a", speed=value, height=-value)
        bench.sample()
    taken.update(series)
    assert {**begun, "series": taken} == history


def test_a_frame_since_a_tick_does_not_tell_old_messages_again() -> None:
    bench = Bench()
    bench.values.take("a", [LogMessage(None, "old", "")], [str(bench.now_ns)])
    for _ in range(latest.UNDECODED_TICKS + 1):
        bench.sample()
    seen = bench.values.tick
    bench.values.take("a", [LogMessage(None, "new", "")], [str(bench.now_ns - 1)])  # received before the last sample
    told = bench.frame(since=seen)["log"]
    assert [message["text"] for message in told] == ["new"]  # type: ignore[attr-defined]
    assert len(bench.frame(since=0)["log"]) == 2  # type: ignore[arg-type]


def test_what_came_in_small_pieces_is_what_came_in_large_ones() -> None:
    """Of pieces with the same names the last one counts; what came later counts, whichever way it came."""
    bench = Bench()
    for number in range(3 * ROWS):
        bench.values.take_rows("a", "speed,gap", b"1,speed,%d.5\n2,gap,2.50\n" % number)
        bench.values.take_rows("a", "gap", b"3,gap,%d\n" % -number)
        bench.values.take_rows("a", f"name_{number}", b"4,name_%d,7\n" % number)
    bench.take("a", speed=99)
    bench.values.take_rows("a", "height", b"5,height,1.250\n")
    bench.values.sample()
    values = {name: value for name, (value, _) in bench.values.frame("a", since=0, match="")["values"].items()}
    names = {f"name_{number}": 7.0 for number in range(3 * ROWS)}
    assert values == {"speed": 99.0, "gap": 1.0 - 3 * ROWS, "height": 1.25} | names
