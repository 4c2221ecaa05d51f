"""The simulated pod: its run, its bytes, its judgement of replies, its manners on the wire, its command line.

The server here is a fake that answers as the contract says, line by line, for these tests only; that ODS answers the
same is shown by the whole-program tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ods.commands.simulate import main
from ods.simulator.fleet import can_choose_sources, resolve
from ods.simulator.pod import Endpoint, Pacing, PodReport, SimulatedPod
from ods.simulator.records import DataPoint, LogMessage, RunPlan, records_of_pod
from ods.simulator.replies import ReplyChecker, ReplyCounts
from ods.simulator.run_profile import TUBE_METRES, State, motion_at, readings_at

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="pods have addresses of their own only on Linux")

GLUED_POINT = re.compile(rb"POD2([A-Za-z0-9_.:/-]{1,63}) ([+-]?\d+(?:\.\d*)?)$")
REPOSITORY = Path(__file__).parent.parent


def answer_like_ods(line: bytes) -> bytes:
    """The reply to a line that ends in a data point; the simulator sends no others."""
    match = GLUED_POINT.search(line)
    if match is None:
        return b"FAIL: " + line + b"\n"
    return b"OK: (%s,%s)\n" % (match[1], repr(float(match[2])).encode())


class FakeOds:
    """Accepts pods, keeps what they send by peer address, and answers each line with `answer` (None: never)."""

    def __init__(self, answer: Callable[[bytes], bytes] | None = answer_like_ods) -> None:
        self.answer = answer
        self.is_dropping_replies = False
        self.close_after_lines: int | None = None
        self.received: dict[str, bytearray] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FakeOds:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.settle()

    def settle(self) -> None:
        """Wait until each connection was read to its end."""
        for thread in self._threads[1:]:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, address = self._listener.accept()
                self._start(self._serve, connection, address[0])

    def _serve(self, connection: socket.socket, peer: str) -> None:
        owed = b""
        lines = 0
        with connection, connection.makefile("rb") as stream:
            for line in stream:
                self.received.setdefault(peer, bytearray()).extend(line)
                lines += 1
                if self.answer is not None and line.endswith(b"\n"):
                    owed += self.answer(line[:-1])
                if self.close_after_lines is None:
                    owed = self._reply(connection, owed)
                elif lines == self.close_after_lines:
                    # All in one piece: what still waits to be sent would be lost when the close resets the connection.
                    self._reply(connection, owed)
                    return

    def _reply(self, connection: socket.socket, replies: bytes) -> bytes:
        # A pod that is gone ends the replies, never the reading.
        with contextlib.suppress(OSError):
            if self.is_dropping_replies:
                connection.send(replies, socket.MSG_DONTWAIT)
            else:
                connection.sendall(replies)
        return b""


@pytest.fixture
def ods() -> Iterator[FakeOds]:
    with FakeOds() as server:
        yield server


def a_plan(*, rate: float = 1000, seconds: float = 1, seed: int = 0, target: str = "127.0.0.1:7778") -> RunPlan:
    return RunPlan(target=target, rate=rate, seconds=seconds, seed=seed)


def wire_of(plan: RunPlan, pod_index: int = 0) -> bytes:
    return b"".join(record.wire for record in records_of_pod(plan, pod_index))


def a_pod(ods: FakeOds, plan: RunPlan, *, patience_seconds: float = 10, reads: bool = True) -> SimulatedPod:
    return SimulatedPod(
        name="pod",
        endpoint=Endpoint(family=socket.AF_INET, address=("127.0.0.1", ods.port)),
        records=records_of_pod(plan, 0),
        pacing=Pacing(rate=plan.rate, seconds=plan.seconds, burst=10),
        is_reading_replies=reads,
        patience_seconds=patience_seconds,
    )


def play_one(ods: FakeOds, *, records: int = 300, patience_seconds: float = 10, reads: bool = True) -> PodReport:
    plan = a_plan(rate=records * 100, seconds=0.01)
    return asyncio.run(a_pod(ods, plan, patience_seconds=patience_seconds, reads=reads).play())


# The run


def test_the_states_follow_each_other_as_in_a_run() -> None:
    states = [motion_at(second, duration_seconds=60).state for second in range(61)]
    assert states == sorted(states)
    assert set(states) == set(State)


@pytest.mark.parametrize("duration_seconds", [0.5, 10.0, 60.0, 3600.0])
def test_position_speed_and_acceleration_belong_together(duration_seconds: float) -> None:
    step = duration_seconds / 10_000
    moments = [motion_at(index * step, duration_seconds=duration_seconds) for index in range(10_001)]
    top = max(moment.speed for moment in moments)
    for before, after in pairwise(moments):
        assert after.position - before.position == pytest.approx(step * before.speed, abs=2e-3 * step * top)
        assert after.speed - before.speed == pytest.approx(step * before.acceleration, abs=2e-3 * top)


@pytest.mark.parametrize("duration_seconds", [0.5, 10.0, 60.0, 3600.0])
def test_the_pod_stands_at_both_ends_of_a_run_and_stays_in_the_tube(duration_seconds: float) -> None:
    begin, end = (motion_at(moment, duration_seconds=duration_seconds) for moment in (0.0, duration_seconds))
    assert (begin.position, begin.speed) == (0.0, 0.0)
    assert end.speed == pytest.approx(0.0, abs=1e-9)
    assert 0 < end.position <= TUBE_METRES * (1 + 1e-9)


@given(st.floats(-10, 1000), st.floats(0.1, 900), st.floats(-1, 1))
def test_every_reading_is_a_finite_number_under_a_lawful_name(elapsed: float, duration: float, noise: float) -> None:
    readings = readings_at(elapsed, duration_seconds=duration, noise=lambda: noise)
    assert 30 <= len(readings) <= 40
    assert all(math.isfinite(reading) for reading in readings.values())
    assert all(re.fullmatch(r"[a-z0-9_]{1,63}", name) for name in readings)


def test_the_state_is_the_first_reading_and_an_integer() -> None:
    name, reading = next(iter(readings_at(59.0, duration_seconds=60, noise=lambda: 0.0).items()))
    assert (name, reading, type(reading)) == ("state", State.BRAKING, int)


# The records


def test_a_record_has_the_bytes_of_a_real_pod() -> None:
    assert DataPoint("accel_x", "0.250000").wire == b"POD2accel_x 0.250000\n"
    assert LogMessage("NOTE", "Connected to 10.0.0.1:7778").wire == b"POD1[NOTE]  Connected to 10.0.0.1:7778"
    assert LogMessage("DEBUG", "x").wire == b"POD1[DEBUG] x"


def test_the_first_records_are_glued_as_a_real_pod_glues_them() -> None:
    plan = a_plan(target="10.0.0.1:7778")
    assert wire_of(plan).startswith(b"POD1[NOTE]  Connected to 10.0.0.1:7778POD1[INFO]  punching boot_semPOD2state 0\n")


def test_a_run_begins_and_ends_with_a_log_message_and_its_last_words_are_unterminated() -> None:
    records = list(records_of_pod(a_plan(), 0))
    assert isinstance(records[0], LogMessage)
    assert isinstance(records[-1], LogMessage)
    assert not wire_of(a_plan()).endswith(b"\n")


@pytest.mark.parametrize(("rate", "seconds"), [(1000, 1.0), (100, 0.01), (3, 1.0), (0.1, 1.0), (7.5, 13.0)])
def test_a_run_has_as_many_records_as_rate_and_seconds_say(rate: float, seconds: float) -> None:
    records = list(records_of_pod(a_plan(rate=rate, seconds=seconds), 0))
    assert len(records) == max(1, round(rate * seconds))
    assert any(isinstance(record, DataPoint) for record in records)


def test_integers_are_sent_as_integers_and_floats_with_six_digits() -> None:
    integers = {"state", "stripe_count", "brakes_engaged", "loop_count"}
    for record in records_of_pod(a_plan(), 0):
        if isinstance(record, DataPoint):
            assert re.fullmatch(r"\d+" if record.name in integers else r"-?\d+\.\d{6}", record.number), record
            assert record.value == float(record.number)


def test_every_line_ends_in_a_data_point_and_no_text_hides_a_record() -> None:
    plan = a_plan()
    points = [record for record in records_of_pod(plan, 0) if isinstance(record, DataPoint)]
    lines = wire_of(plan).split(b"\n")[:-1]
    assert [line[line.rindex(b"POD2") :] + b"\n" for line in lines] == [point.wire for point in points]
    for record in records_of_pod(plan, 0):
        if isinstance(record, LogMessage):
            assert not re.search(r"POD\d|\n|^\s|\s$", record.text)
            assert len(record.wire) <= 512


def test_the_same_seed_gives_the_same_records_and_another_seed_or_pod_does_not() -> None:
    assert wire_of(a_plan(seed=7)) == wire_of(a_plan(seed=7))
    assert wire_of(a_plan(seed=7)) != wire_of(a_plan(seed=8))
    assert wire_of(a_plan(seed=7), pod_index=0) != wire_of(a_plan(seed=7), pod_index=1)


def test_a_pod_without_pacing_plays_one_run_after_the_other() -> None:
    plan = a_plan(rate=0, seconds=0.1)
    records = list(islice(records_of_pod(plan, 0), 2 * plan.records_per_run))
    connected = [index for index, record in enumerate(records) if record.wire.startswith(b"POD1[NOTE]  Connected")]
    assert connected == [0, plan.records_per_run]


# The judgement of replies

POINTS = (DataPoint("a", "0.500000"), DataPoint("b", "12"), DataPoint("c", "-0.000000"))
GOOD_REPLIES = b"OK: (a,0.5)\nOK: (b,12.0)\nOK: (c,-0.0)\n"


def judge(replies: bytes) -> ReplyCounts:
    checker = ReplyChecker()
    for point in POINTS:
        checker.expect(point)
    checker.receive(replies)
    return checker.counts()


@given(st.sets(st.integers(0, len(GOOD_REPLIES))))
def test_replies_count_the_same_however_they_are_split(cuts: set[int]) -> None:
    checker = ReplyChecker()
    for point in POINTS:
        checker.expect(point)
    borders = [0, *sorted(cuts), len(GOOD_REPLIES)]
    for begin, end in pairwise(borders):
        checker.receive(GOOD_REPLIES[begin:end])
    assert checker.counts() == ReplyCounts(acknowledged=3)


def test_a_reply_with_the_same_float_in_other_digits_is_an_acknowledgement() -> None:
    assert judge(b"OK: (a,5e-1)\n") == ReplyCounts(acknowledged=1, unanswered=2)


@pytest.mark.parametrize(
    "reply",
    [
        b"OK: (a,0.50001)",
        b"OK: (b,0.5)",
        b"OK: (a,0.5) ",
        b"OK: (a,nan)",
        b"OK: (a,x)",
        b"OK: LOGGED",
        b"FAIL: POD2a 0.500000",
        b"ERROR: Bad Value '0.500000'",
        b"",
        b"\xff",
    ],
)
def test_any_other_reply_is_wrong(reply: bytes) -> None:
    assert judge(reply + b"\n") == ReplyCounts(wrong=1, unanswered=2)


def test_a_refusal_is_counted_as_such() -> None:
    assert judge(b"OK: (a,0.5)\nERROR: Not Stored\n") == ReplyCounts(acknowledged=1, refused=1, unanswered=1)


def test_a_reply_without_its_newline_is_no_reply_yet() -> None:
    assert judge(b"OK: (a,0.5)") == ReplyCounts(unanswered=3)


@pytest.mark.parametrize("surplus", [b"OK: LOGGED\n", b"ERROR: Not Stored\n", b"OK: (c,-0.0)\n"])
def test_a_reply_that_nothing_was_sent_for_is_wrong(surplus: bytes) -> None:
    assert judge(GOOD_REPLIES + surplus) == ReplyCounts(acknowledged=3, wrong=1)


def test_the_first_wrong_reply_is_kept_with_what_it_answered() -> None:
    checker = ReplyChecker()
    checker.expect(POINTS[0])
    checker.receive(b"OK: (a,0.6)\nOK: (z,1.0)\n")
    assert checker.first_wrong == r"reply b'OK: (a,0.6)' to b'POD2a 0.500000\n'"


# The manners on the wire


def test_a_pod_sends_exactly_its_records_and_counts_them(ods: FakeOds) -> None:
    report = play_one(ods, records=300)
    ods.settle()
    assert ods.received["127.0.0.1"] == wire_of(a_plan(rate=30_000, seconds=0.01))
    assert report.data_points + report.log_messages == 300
    assert report.replies == ReplyCounts(acknowledged=report.data_points)
    assert report.is_clean


def test_a_pod_that_ignores_replies_delivers_everything_before_it_leaves(ods: FakeOds) -> None:
    ods.is_dropping_replies = True
    report = play_one(ods, records=20_000, reads=False)
    ods.settle()
    assert ods.received["127.0.0.1"] == wire_of(a_plan(rate=2_000_000, seconds=0.01))
    assert report.replies is None
    assert report.is_clean


def test_lines_that_are_never_answered_are_counted_as_unanswered() -> None:
    with FakeOds(answer=None) as ods:
        report = play_one(ods)
    assert report.replies == ReplyCounts(unanswered=report.data_points)
    assert not report.is_clean


def test_a_server_that_answers_nothing_and_never_closes_is_waited_for_only_so_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ods = FakeOds()
        ods.port = silent.getsockname()[1]
        report = play_one(ods, records=30, patience_seconds=0.05)
    assert report.replies == ReplyCounts(unanswered=report.data_points)


def test_a_send_that_nobody_takes_is_given_up_and_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ods = FakeOds()
        ods.port = silent.getsockname()[1]
        report = play_one(ods, records=1_000_000, patience_seconds=0.05, reads=False)
    assert report.failure == "ODS took nothing for 0.05 s"
    assert report.longest_send_seconds >= 0.05


def test_replies_that_came_before_a_connection_broke_count(ods: FakeOds, monkeypatch: pytest.MonkeyPatch) -> None:
    # Replies that are read in small pieces are still in the socket when the next send fails.
    monkeypatch.setattr("ods.simulator.pod._RECEIVE_BYTES", 7)
    ods.close_after_lines = 50
    report = play_one(ods, records=3000)
    assert report.failure
    assert report.replies == ReplyCounts(acknowledged=50, unanswered=report.data_points - 50)


def test_a_server_that_closes_in_the_middle_of_a_run_is_told(ods: FakeOds) -> None:
    plan = a_plan(rate=1, seconds=100_000)
    first_burst = list(islice(records_of_pod(plan, 0), 10))
    lines = sum(isinstance(record, DataPoint) for record in first_burst)
    ods.close_after_lines = lines
    report = asyncio.run(a_pod(ods, plan).play())
    assert report.failure == "ODS closed the connection"
    assert report.replies == ReplyCounts(acknowledged=lines)
    assert not report.is_clean


def test_a_connection_that_is_refused_is_told() -> None:
    ods = FakeOds()
    with ods:
        pass
    assert play_one(ods).failure == "connection refused"


def test_a_pod_that_is_stopped_leaves_in_order(ods: FakeOds) -> None:
    async def play_and_stop() -> PodReport:
        pod = a_pod(ods, a_plan(rate=10, seconds=1000))
        playing = asyncio.create_task(pod.play())
        while not ods.received.get("127.0.0.1", bytearray()).endswith(b"\n"):
            await asyncio.sleep(0.005)
        pod.stop()
        return await playing

    report = asyncio.run(play_and_stop())
    assert report.data_points + report.log_messages == 10
    assert report.is_clean


# The command line


def simulate(*arguments: str) -> list[str]:
    program = "import sys; from ods.commands.simulate import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", program, *arguments]


def run_arguments(ods: FakeOds, *more: str) -> list[str]:
    return ["--port", str(ods.port), "--rate", "5000", "--seconds", "0.1", *more]


def test_a_clean_simulation_says_what_was_sent_and_acknowledged(
    ods: FakeOds, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run_arguments(ods)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"total of 1 pod in \S+ s: sent 500 records \(486 data points, 14 log messages\), "
        r"acknowledged 486, refused 0, wrong 0, unanswered 0, longest send \d+\.\d{3} s",
        line,
    )


@only_linux
def test_each_pod_comes_from_its_own_address_with_its_own_values(
    ods: FakeOds, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run_arguments(ods, "--pods", "3", "--seed", "5", "--first-address", "127.0.2.254")) == 0
    ods.settle()
    plan = a_plan(rate=5000, seconds=0.1, seed=5, target=f"127.0.0.1:{ods.port}")
    addresses = ["127.0.2.254", "127.0.2.255", "127.0.3.0"]
    assert ods.received == {address: wire_of(plan, index) for index, address in enumerate(addresses)}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == addresses
    assert "total of 3 pods" in lines[-1]
    assert "sent 1500 records" in lines[-1]


def test_a_system_without_addresses_to_choose_is_told_in_one_line(
    ods: FakeOds, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ods.simulator.fleet.sys.platform", "darwin")
    assert main(run_arguments(ods, "--pods", "2")) == 0
    assert list(ods.received) == ["127.0.0.1"]
    assert capsys.readouterr().err.count("no addresses of their own") == 1


def test_sources_are_chosen_only_towards_a_loopback_address() -> None:
    assert not can_choose_sources(Endpoint(family=socket.AF_INET, address=("192.0.2.1", 7778)))
    assert can_choose_sources(resolve("localhost", 7778)) == (sys.platform == "linux")


def test_ignored_replies_are_not_judged(ods: FakeOds, capsys: pytest.CaptureFixture[str]) -> None:
    ods.answer = lambda line: b"nonsense\n"
    assert main(run_arguments(ods, "--ignore-replies")) == 0
    assert "replies not read" in capsys.readouterr().out


def test_as_fast_as_it_can_ends_after_its_seconds(ods: FakeOds, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(ods.port), "--rate", "0", "--seconds", "0.05"]) == 0
    assert "refused 0, wrong 0, unanswered 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "told"),
    [(b"ERROR: Not Stored\n", "acknowledged 0, refused 486"), (b"OK: LOGGED\n", "refused 0, wrong 486")],
)
def test_a_refused_or_wrong_reply_is_status_1(
    ods: FakeOds, capsys: pytest.CaptureFixture[str], answer: bytes, told: str
) -> None:
    ods.answer = lambda line: answer
    assert main(run_arguments(ods)) == 1
    assert told in capsys.readouterr().out


def test_a_refused_connection_is_one_line_a_pod_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    ods = FakeOds()
    with ods:
        pass
    assert main(run_arguments(ods, "--pods", "2")) == 1
    assert capsys.readouterr().err.count("connection refused") == 2


def test_a_pod_that_cannot_come_leaves_the_others_alone(ods: FakeOds, capsys: pytest.CaptureFixture[str]) -> None:
    async def nowhere(self: SimulatedPod, connection: socket.socket) -> None:
        if self._name.endswith("2"):
            raise ConnectionRefusedError(111, "refused")
        await connect(self, connection)

    connect = SimulatedPod._connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedPod, "_connect", nowhere)
        assert main(run_arguments(ods, "--pods", "3")) == 1
    captured = capsys.readouterr()
    assert captured.err.count("connection refused") == 1
    assert "sent 1000 records" in captured.out.splitlines()[-1]


def test_an_unknown_host_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main(["--host", "nowhere.invalid"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "ods simulate: cannot find the host 'nowhere.invalid': Name or service not known\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "0"],
        ["--port", "x"],
        ["--pods", "0"],
        ["--rate", "-1"],
        ["--rate", "inf"],
        ["--seconds", "0"],
        ["--burst", "1.5"],
        ["--seed", "x"],
        ["--first-address", "10.0.0.1"],
        ["--first-address", "127.1"],
        ["--pods", "2", "--first-address", "127.255.255.255"],
        ["--nonsense"],
        ["surplus"],
    ],
)
def test_a_bad_option_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        main(arguments)
    assert exit_of.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_the_example_in_the_help_is_a_command_that_parses(ods: FakeOds, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        main(["--help"])
    assert exit_of.value.code == 0
    example, *with_faults = re.findall(r"^  ods simulate (--.*)$", capsys.readouterr().out, re.MULTILINE)
    assert with_faults and all("--fault" in line for line in with_faults), "a real ODS is needed for these"
    assert main([*example.split(), "--seconds", "0.05", "--port", str(ods.port)]) == 0


def test_an_interrupt_ends_the_run_early_with_its_summary(ods: FakeOds) -> None:
    arguments = simulate("--port", str(ods.port), "--rate", "100", "--seconds", "1000")
    with subprocess.Popen(
        arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        waiting = threading.Event()
        while not ods.received and process.poll() is None:
            waiting.wait(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert re.search(r"sent \d+ records .* wrong 0, unanswered 0", out)
    assert "Traceback" not in err


def test_a_reader_of_its_output_that_goes_away_does_no_harm(ods: FakeOds) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            simulate(*run_arguments(ods)),
            cwd=REPOSITORY,
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    finally:
        os.close(write_end)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
