"""The oracle of the fault suite sees every kind of loss, and the suite's choices and table say what they should."""

import gzip
from pathlib import Path

import pytest
from faults import table
from faults.__main__ import arguments, choice
from faults.oracle import MESSAGE_EVERY, Oracle, Verdict
from faults.recordings import Recordings
from faults.rounds import ANYWHERE, FAILPOINTS, STATES, plan
from faults.suite import LONG_ROUNDS, SHORT_FAULTS, SHORT_ROUNDS, names
from faults.table import Row
from harness.influx_server import Points

POD, OTHER_POD = "127.0.2.1", "127.0.2.2"


def stored(oracle: Oracle, *, without: frozenset[tuple[str, int]] = frozenset()) -> tuple[Points, dict[str, list]]:
    """All that was sent, as InfluxDB has it."""
    points: Points = {}
    messages: dict[str, list] = {pod: [] for pod in oracle.pods}
    for pod in oracle.pods:
        for number in range(oracle.sent_count(pod)):
            if (pod, number) in without:
                continue
            line = oracle._line(pod, number).decode().strip()
            if line.startswith("POD1"):
                messages[pod].append((number + 1, "info", line.removeprefix("POD1[INFO]  ")))
            else:
                name, value = line.removeprefix("POD2").split(" ")
                points.setdefault((name, pod), []).append((number + 1, float(value)))
    return points, messages


@pytest.fixture
def oracle() -> Oracle:
    """Two pods that have sent; the first was answered OK to all but its last ten records."""
    oracle = Oracle([POD, OTHER_POD])
    for pod in oracle.pods:
        lines = oracle.next_lines(pod, 2 * MESSAGE_EVERY)
        assert len([line for line in lines if line.startswith(b"POD1")]) == 2
    oracle.take_replies(POD, [oracle._reply(POD, number) for number in range(2 * MESSAGE_EVERY - 10)], first=0)
    return oracle


def judge(oracle: Oracle, points: Points, messages: dict[str, list], *, is_all_required: bool = True) -> Verdict:
    return oracle.judge(points, messages, is_all_required=is_all_required)


def kinds(verdict: Verdict) -> dict[str, int]:
    return {kind: verdict.count(kind) for kind in ("lost", "unrecovered", "doubled", "wrong") if verdict.count(kind)}


def test_the_oracle_is_content_with_what_was_sent(oracle: Oracle) -> None:
    assert judge(oracle, *stored(oracle)).problems == []
    assert (oracle.sent_count(), oracle.acknowledged_count()) == (4 * MESSAGE_EVERY, 2 * MESSAGE_EVERY - 10)


@pytest.mark.parametrize("number", [3, MESSAGE_EVERY - 1], ids=["data point", "message"])
def test_the_oracle_sees_a_lost_record(oracle: Oracle, number: int) -> None:
    verdict = judge(oracle, *stored(oracle, without=frozenset({(POD, number)})))
    assert kinds(verdict) == {"lost": 1}
    assert f"1 lost of {POD}: records [{number}]" in verdict.describe()[0]


def test_what_was_not_acknowledged_may_be_missing_after_a_kill(oracle: Oracle) -> None:
    last = 2 * MESSAGE_EVERY - 5
    lacking = stored(oracle, without=frozenset({(POD, last), (OTHER_POD, last)}))
    assert kinds(judge(oracle, *lacking, is_all_required=False)) == {}
    assert kinds(judge(oracle, *lacking)) == {"lost": 2}
    lacking_more = stored(oracle, without=frozenset({(POD, 3), (OTHER_POD, 3)}))
    assert kinds(judge(oracle, *lacking_more, is_all_required=False)) == {"lost": 1}, "one was acknowledged"
    oracle.take_recorded([(POD, (POD, last), "")])
    assert kinds(judge(oracle, *lacking, is_all_required=False)) == {"unrecovered": 1}
    assert judge(oracle, *lacking).count("lost", "unrecovered") == 2, "a record is missing once"


def test_the_oracle_sees_a_doubled_record(oracle: Oracle) -> None:
    points, messages = stored(oracle)
    name = next(iter(points))
    points[name].append((10**9, points[name][-1][1]))
    assert kinds(judge(oracle, points, messages)) == {"doubled": 1}
    points, messages = stored(oracle)
    messages[POD].append((10**9, *messages[POD][-1][1:]))
    assert kinds(judge(oracle, points, messages)) == {"doubled": 1}


def test_the_oracle_sees_a_changed_value(oracle: Oracle) -> None:
    points, messages = stored(oracle)
    (name, rows) = next(iter(points.items()))
    points[name] = [(rows[0][0], rows[0][1] + 0.25), *rows[1:]]
    assert kinds(judge(oracle, points, messages)) == {"lost": 1, "wrong": 1}


def test_the_oracle_sees_a_record_under_another_name_pod_or_text(oracle: Oracle) -> None:
    points, messages = stored(oracle)
    points["accel_x", POD], points["accel_y", POD] = points["accel_y", POD], points["accel_x", POD]
    assert judge(oracle, points, messages).count("wrong") > 10
    points, messages = stored(oracle)
    points["accel_x", OTHER_POD] += points.pop(("accel_x", POD))
    assert judge(oracle, points, messages).count("wrong") > 5
    points, messages = stored(oracle)
    messages[POD][0] = (messages[POD][0][0], "info", messages[POD][0][2] + "0")
    messages[POD][1] = (messages[POD][1][0], "warn", messages[POD][1][2])
    assert kinds(judge(oracle, points, messages)) == {"lost": 2, "wrong": 2}


def test_the_oracle_sees_a_record_with_the_time_of_another(oracle: Oracle) -> None:
    points, messages = stored(oracle)
    points["accel_y", POD][0] = (points["accel_x", POD][0][0], points["accel_y", POD][0][1])
    assert kinds(judge(oracle, points, messages)) == {"wrong": 1}


def test_the_oracle_sees_a_wrong_reply(oracle: Oracle) -> None:
    oracle.take_replies(OTHER_POD, [oracle._reply(OTHER_POD, 1)], first=0)
    assert kinds(judge(oracle, *stored(oracle))) == {"wrong": 1}


def test_a_record_that_ods_refused_is_not_lost(oracle: Oracle) -> None:
    oracle.take_replies(OTHER_POD, [b"ERROR: Not Stored"], first=0)
    assert kinds(judge(oracle, *stored(oracle, without=frozenset({(OTHER_POD, 0)})))) == {}


def test_a_loss_is_told_by_the_stretch_in_which_its_record_was_sent() -> None:
    oracle = Oracle([POD])
    stretches = []
    for _ in range(3):
        stretches.append(oracle.begin_stretch())
        oracle.next_lines(POD, 10)
        oracle.end_stretch(stretches[-1])
    verdict = judge(oracle, *stored(oracle, without=frozenset({(POD, 10), (POD, 19), (POD, 20)})))
    assert [verdict.within(stretch).count("lost") for stretch in stretches] == [0, 2, 1]
    assert [stretch.count() for stretch in stretches] == [10, 10, 10]
    assert [stretch.count({POD: {10, 11, 29}}) for stretch in stretches] == [0, 2, 1]


def test_recordings_are_read_however_far_they_are_closed(oracle: Oracle, tmp_path: Path) -> None:
    """Each row once; a last row without its newline was not recorded."""
    folder = tmp_path / "recordings" / POD
    folder.mkdir(parents=True)
    rows = [oracle._line(POD, number).decode().removeprefix("POD2").replace(" ", ",") for number in range(6)]
    data = [f"{number},{row}" for number, row in enumerate(rows)]
    (folder / "1.data.csv.gz").write_bytes(gzip.compress(("time_ns,name,value\n" + data[0]).encode()))
    (folder / "2.data.csv").write_text("time_ns,name,value\n" + data[1] + data[2])
    (folder / "3.data.csv.open").write_text("time_ns,name,value\n" + data[3] + data[4].strip())
    message = oracle._line(POD, MESSAGE_EVERY - 1).decode().removeprefix("POD1").strip()
    (folder / "3.log.csv.open").write_text(f'time_ns,kind,text\n9,log,"{message}"\n9,torn,"POD2acc"\n')
    recordings = Recordings(tmp_path)
    oracle.take_recorded(recordings.read(oracle))
    assert oracle.recorded[POD] == {0, 1, 2, 3, MESSAGE_EVERY - 1}
    (folder / "3.data.csv.open").rename(folder / "3.data.csv")
    (folder / "3.log.csv.open").unlink()
    again = list(recordings.read(oracle))
    assert [identity for _, identity, _ in again] == [(POD, 3)], "what was seen closed is not read again"


def test_the_oracle_sees_a_row_of_a_recording_that_was_never_sent(oracle: Oracle, tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / POD
    folder.mkdir(parents=True)
    (folder / "1.data.csv.open").write_text("time_ns,name,value\n1,accel_x,0.25\n2,accel_y,0.0\n")
    oracle.take_recorded(Recordings(tmp_path).read(oracle))
    assert kinds(judge(oracle, *stored(oracle))) == {"wrong": 2}


def test_a_seed_repeats_the_rounds() -> None:
    """Each round by its own number, so that a few of many can be repeated."""
    assert [plan("7", number) for number in range(50)] == [plan("7", number) for number in range(50)]
    assert [plan("7", number) for number in range(50)] != [plan("8", number) for number in range(50)]


def test_half_of_the_kills_are_at_fail_points_each_in_every_state_of_influx() -> None:
    kills = [plan("7", number) for number in range(72)]
    assert len([kill for kill in kills if kill.place == ANYWHERE]) == 36
    places = {(kill.place, kill.state) for kill in kills}
    assert places == {(place, state) for place in (*FAILPOINTS, ANYWHERE) for state in STATES}


def test_the_table_shows_what_failed() -> None:
    good = Row("refused, 3 s", rounds=3, records=1000, acknowledged=700, recovery_seconds=0.5)
    bad = Row("a|b", lost=2, longest_send_seconds=1.5, recovery_seconds=2.5, failures=["as it was"])
    assert (good.is_good, good.is_prompt, bad.is_good, bad.is_prompt) == (True, True, False, False)
    header, first, second = table.plain([good, bad]).splitlines()
    assert header.index("acknowledged") + len("acknowledged") == first.index("700") + 3
    assert second.endswith("late; FAILED")
    assert table.failures([good, bad]) == ["a|b: as it was"]
    header, ruler, first, second = table.markdown([good, bad]).splitlines()
    assert {line.replace("\\|", "").count("|") for line in (header, ruler, first, second)} == {10}


@pytest.mark.parametrize("row", [Row("lost", lost=1), Row("wrong", doubled_or_wrong=1), Row("other", failures=["x"])])
def test_nothing_that_went_wrong_is_good(row: Row) -> None:
    assert not row.is_good


def test_every_name_can_be_asked_for() -> None:
    assert len(set(names())) == len(names())
    assert {"refused", "kill at committed", "kill anywhere", *SHORT_FAULTS} <= set(names())


def test_what_is_asked_for_is_what_is_run() -> None:
    everything = choice(arguments([]))
    assert all(everything.includes(name) for name in names())
    assert (len(everything.kills()), everything.lengths()) == (LONG_ROUNDS, [(3.0, 3), (30.0, 1)])
    some = choice(arguments(["--only", "kill at read", "--seed", "7", "--from-round", "12", "--rounds", "24"]))
    assert [kill.number for kill in some.kills()] == [12, 24]
    assert some.kills()[0] == plan("7", 12)
    short = choice(arguments(["--short"]))
    assert [name for name in names() if short.includes(name) and not name.startswith(("kill", "slow"))]
    assert (len(short.kills()), short.lengths()) == (SHORT_ROUNDS, [(1.0, 1)])
