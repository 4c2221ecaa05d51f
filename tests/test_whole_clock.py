"""The whole program while the wall clock steps: forward, back, and at a start in 1970.

InfluxDB silently overwrites a point of the same series and time, so times must strictly increase for each pod, whatever
the wall clock does: N records sent are N points stored.
"""

import time
from dataclasses import dataclass

import pytest
from harness.influx_server import InfluxServer, Points
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.stepped_clock import SteppedClock
from harness.stream import Stream

pytestmark = pytest.mark.timeout(sized(60, long=300), method="signal")

#: A pod that waits for each reply, so that it is known between which two moments each of its records was received.
CALM = "127.0.3.1"
#: One that does not.
BUSY = "127.0.3.2"
#: Where a board without a battery wakes.
WAKING_NS = 5_000_000_000
#: Two clocks of one machine, of which one is slewed, may be this far apart. ODS takes more for a step. Nanoseconds.
TOLERANCE_NS = 50_000_000

HOUR = 3600.0


@dataclass(frozen=True)
class Phase:
    """Records of the calm pod, with the times between which the right wall clock was when they were received."""

    first: int
    last: int
    began_ns: int
    ended_ns: int
    #: How far ODS's clock has to be ahead of the right one. Seconds.
    ahead_seconds: float


def send_calmly(ods: OdsProcess, oracle: Oracle, *, ahead_seconds: float, count: int = 30) -> Phase:
    """Send records one by one, each answered OK."""
    first, began_ns = oracle.sent_count(CALM), time.time_ns()
    with PodClient(ods.port, address=CALM).read_replies() as pod:
        replies = [pod.exchange(line) for line in oracle.next_lines(CALM, count)]
    oracle.acknowledge(CALM, replies, first=first)
    return Phase(first, oracle.sent_count(CALM) - 1, began_ns, time.time_ns(), ahead_seconds)


def check_times(points: Points, oracle: Oracle, phases: list[Phase]) -> None:
    """Each point of the calm pod carries the time that ODS's clock had when it was received."""
    numbers = {oracle.record(CALM, number): number for number in range(oracle.sent_count(CALM))}
    times = {
        numbers[name, value]: time_ns for (name, pod), rows in points.items() if pod == CALM for time_ns, value in rows
    }
    for phase in phases:
        ahead_ns = round(phase.ahead_seconds * 1e9)
        earliest_ns, latest_ns = phase.began_ns + ahead_ns - TOLERANCE_NS, phase.ended_ns + ahead_ns + TOLERANCE_NS
        strange = [times[number] for number in range(phase.first, phase.last + 1)]
        strange = [time_ns for time_ns in strange if not earliest_ns <= time_ns <= latest_ns]
        assert not strange, f"{len(strange)} times are not in {earliest_ns} to {latest_ns}, first {strange[0]}: {phase}"


@pytest.mark.parametrize("during", ["live-traffic", "an-outage", "a-drain"])
def test_steps_of_the_wall_clock_keep_every_point_apart(
    start_ods: StartOds, own_influx: InfluxServer, stepped_clock: SteppedClock, during: str
) -> None:
    """A step forward moves ODS's clock, a step back does not; both are logged, counted and shown."""
    ods, oracle = start_ods(own_influx, extra_environment=stepped_clock.environment), Oracle()
    with Stream(ods.port, oracle, address=BUSY, lines_per_second=5000, burst_lines=50) as stream:
        phases = [send_calmly(ods, oracle, ahead_seconds=0)]
        if during != "live-traffic":
            own_influx.kill()
            ods.wait_for_status(
                lambda status: status["totals"]["pending"] > sized(3000, long=200_000),
                what="a backlog",
                timeout_seconds=150,
            )
        if during == "a-drain":
            own_influx.start()
        # The wall clock is then ahead by 1, -1, -0.5 and 2 hours; ODS's by:
        for step_hours, ahead_hours in ((1, 1), (-2, 1), (0.5, 1), (2.5, 2)):
            stepped_clock.step(step_hours * HOUR)
            phases.append(send_calmly(ods, oracle, ahead_seconds=ahead_hours * HOUR))
            clock = ods.status()["clock"]
            behind_seconds = ahead_hours * HOUR - stepped_clock.ahead_ns / 1e9
            assert clock["offset_seconds"] == pytest.approx(behind_seconds, abs=TOLERANCE_NS / 1e9)
        assert (clock["steps_forward"], clock["steps_back"]) == (3, 1)
        if during == "an-outage":
            own_influx.start()
        stream.finish()
    ods.wait_until_settled()
    points = own_influx.points(ods.database)
    oracle.check(points)
    check_times(points, oracle, phases)
    assert oracle.refused_count() == 0
    for seconds in (r"\+3600", "-7200", r"\+1800", r"\+9000"):
        assert len(ods.lines_with(rf"warning.*clock.*{seconds}")) == 1, ods.log_tail()


@pytest.mark.parametrize(
    ("is_killed", "is_influx_up"),
    [
        pytest.param(True, True, id="after-a-kill-beside-influx"),
        pytest.param(False, False, id="after-a-stop-in-an-outage"),
    ],
)
def test_a_start_in_1970_continues_from_the_run_before(
    start_ods: StartOds, own_influx: InfluxServer, stepped_clock: SteppedClock, is_killed: bool, is_influx_up: bool
) -> None:
    """It warns, and overwrites nothing; when the wall clock is set, ODS's clock is right again."""
    ods, oracle = start_ods(own_influx, extra_environment=stepped_clock.environment), Oracle()
    phases = [send_calmly(ods, oracle, ahead_seconds=0)]
    if not is_influx_up:
        own_influx.kill()
    with Stream(ods.port, oracle, address=BUSY) as stream:
        ods.wait_for_status(lambda status: status["totals"]["received"] > 3000, what="points of the run before")
        stream.finish()
    ods.wait_for_status(lambda status: status["totals"]["in_flight"] == 0, what="nothing in flight")
    if is_killed:
        ods.kill()
    else:
        ods.stop()

    stepped_clock.step((WAKING_NS - time.time_ns()) / 1e9)
    ods.start()
    assert ods.lines_with("warning.*clock")
    with Stream(ods.port, oracle, address=BUSY) as stream:
        send_calmly(ods, oracle, ahead_seconds=0)  # from the last time noted on, so a little behind or ahead
        stream.finish()
    stepped_clock.step(-stepped_clock.ahead_ns / 1e9 + HOUR)  # set, an hour fast
    with Stream(ods.port, oracle, address=BUSY) as stream:
        phases.append(send_calmly(ods, oracle, ahead_seconds=HOUR))
        stream.finish()
    assert ods.status()["clock"]["steps_forward"] == 1
    if not is_influx_up:
        own_influx.start()
    ods.wait_until_settled()
    points = own_influx.points(ods.database)
    oracle.check(points)
    check_times(points, oracle, phases)


def test_a_first_start_in_1970_is_served_like_any_other(
    start_ods: StartOds, own_influx: InfluxServer, stepped_clock: SteppedClock
) -> None:
    """There is no better time to be had; once the wall clock is set, times go on from there."""
    stepped_clock.step((WAKING_NS - time.time_ns()) / 1e9)
    waking_seconds = stepped_clock.ahead_ns / 1e9
    ods, oracle = start_ods(own_influx, extra_environment=stepped_clock.environment), Oracle()
    phases = [send_calmly(ods, oracle, ahead_seconds=waking_seconds)]
    stepped_clock.step(-waking_seconds)
    phases.append(send_calmly(ods, oracle, ahead_seconds=0))
    ods.wait_until_settled()
    points = own_influx.points(ods.database)
    oracle.check(points)
    check_times(points, oracle, phases)
