"""The whole program through outages: InfluxDB killed, frozen and locked, ODS stopped and killed. Nothing is lost."""

import contextlib
import re
import threading
import time

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import IS_LONG, Measured, sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(90, long=900), method="signal")

POD = "127.0.2.1"
#: So many pods at once never stop sending.
FLOODING = 20
#: The size that the buffer's files may have when nothing is in them.
EMPTY_BUFFER_BYTES = 1_000_000


def number(count: int) -> str:
    """Return a pattern for `count` in a log line, with or without separators of thousands."""
    separators = "[ ,_'.]?"
    return rf"\b{f'{count:,}'.replace(',', separators)}\b"


def send_and_acknowledge(ods: OdsProcess, oracle: Oracle, count: int) -> None:
    """Play a pod that sends `count` records, and is answered OK to each."""
    first = oracle.sent_count(POD)
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(oracle.next_lines(POD, count))
        oracle.acknowledge(POD, pod.wait_for_replies(count), first=first)


def wait_until_backfilled(ods: OdsProcess, influx: InfluxServer, oracle: Oracle) -> None:
    """Return when nothing waits any more; InfluxDB must then hold exactly what was sent."""
    ods.wait_until_settled()
    oracle.check(influx.points(ods.database))


def wait_until_small(ods: OdsProcess) -> None:
    """The buffer gives its disk space back after a drain."""
    wait_until(
        lambda: ods.buffer_bytes() < EMPTY_BUFFER_BYTES,
        timeout_seconds=15,
        what="a buffer under 1 MB",
        state=lambda: f"{ods.buffer_bytes()} bytes\n{ods.log_tail()}",
    )


def test_ods_serves_and_buffers_without_influx(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """ODS always accepts: it starts and says OK without any InfluxDB, and backfills when there is one."""
    own_influx.kill()
    ods = start_ods(own_influx)
    oracle = Oracle()
    send_and_acknowledge(ods, oracle, 1000)
    status = ods.wait_for_totals(received=1000, pending=1000, stored=0)
    assert (status["state"], status["influx"]["available"], ods.healthz()) == ("buffering", False, 200)
    assert status["influx"]["last_error"]
    own_influx.start()
    wait_until_backfilled(ods, own_influx, oracle)
    ods.wait_for_status(lambda status: status["state"] == "live", what="the state to be live")


def test_everything_arrives_though_influx_is_killed_and_ods_restarted_in_the_outage(
    start_ods: StartOds, own_influx: InfluxServer, measured: Measured
) -> None:
    """With the times of reception; the drain starts by itself, reports, and leaves an empty, small buffer."""
    ods, oracle = start_ods(own_influx), Oracle()
    lines = oracle.next_lines(POD, sized(20_000, long=400_000))
    with PodClient(ods.port).read_replies() as pod:
        run = threading.Thread(
            target=pod.send_at_rate, args=(lines,), kwargs={"lines_per_second": 10_000, "burst_lines": 50}
        )
        run.start()
        pod.wait_for_replies(len(lines) // 2)
        own_influx.kill()
        run.join()
        oracle.acknowledge(POD, pod.wait_for_replies(len(lines)))
    pending = ods.wait_for_status(lambda status: status["totals"]["in_flight"] == 0, what="nothing in flight")
    assert pending["state"] == "buffering"
    assert pending["totals"]["pending"] + pending["totals"]["stored"] == len(lines)

    ods.restart()
    again = ods.status()["totals"]
    assert again["received"] == again["pending"] == pending["totals"]["pending"], "what the buffer holds counts again"
    send_and_acknowledge(ods, oracle, 2000)
    waiting = ods.wait_for_status(lambda status: status["totals"]["in_flight"] == 0, what="nothing in flight")
    answered_ns = time.time_ns()

    own_influx.start()
    returned = time.monotonic()
    ods.wait_for_status(lambda status: status["totals"]["stored"] > 0, what="the drain to start")
    seconds = time.monotonic() - returned
    measured(f"drain seen {seconds:.2f} s after InfluxDB's return")
    assert seconds < 2 or not IS_LONG
    count = number(waiting["totals"]["pending"])
    report = ods.wait_for_line(rf"backfilled.*{count}|{count}.*backfilled")
    assert "quarantined" in report and "outage" in report

    wait_until_backfilled(ods, own_influx, oracle)
    assert max(rows[-1][0] for rows in own_influx.points(ods.database).values()) < answered_ns + 500_000_000
    assert ods.status()["buffer"]["oldest_seconds"] is None
    wait_until_small(ods)
    assert ods.totals() == ods.totals() | {"received": waiting["totals"]["received"], "quarantined": 0, "dropped": 0}


def test_live_points_go_straight_to_influx_beside_the_drain(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """Two outages, with points before, in and after each: nothing lost, doubled or reordered."""
    ods, oracle = start_ods(own_influx), Oracle()
    for _ in range(2):
        send_and_acknowledge(ods, oracle, 500)
        own_influx.kill()
        send_and_acknowledge(ods, oracle, sized(20_000, long=500_000))
        own_influx.start()
        send_and_acknowledge(ods, oracle, 500)
    wait_until_backfilled(ods, own_influx, oracle)


@pytest.mark.parametrize("is_influx_up", [False, True], ids=["in-an-outage", "beside-influx"])
def test_what_was_answered_ok_survives_kill_9_of_ods(
    start_ods: StartOds, own_influx: InfluxServer, is_influx_up: bool
) -> None:
    """Killed under load again and again; what was sent and not answered may be there or not, but never twice."""
    ods, oracle = start_ods(own_influx), Oracle()
    if not is_influx_up:
        own_influx.kill()
    for life in range(sized(3, long=20)):
        first = oracle.sent_count(POD)
        lines = oracle.next_lines(POD, sized(30_000, long=100_000))
        with PodClient(ods.port).read_replies() as pod:
            run = threading.Thread(target=_send_until_refused, args=(pod, lines))
            run.start()
            pod.wait_for_replies(1000 * (life + 1))
            ods.kill()
            run.join()
            assert pod.has_ended.wait(10)
            oracle.acknowledge(POD, pod.replies, first=first)
        ods.start()
    assert oracle.acknowledged_count() >= 3000
    if not is_influx_up:
        own_influx.start()
    ods.wait_until_settled()
    oracle.check(own_influx.points(ods.database), only_acknowledged=True)


def _send_until_refused(pod: PodClient, lines: list[bytes]) -> None:
    try:
        pod.send_lines(lines)
    except (ConnectionError, TimeoutError):  # killed: that is the end of this pod
        return


def test_a_drain_cut_off_by_kill_9_goes_on_at_the_next_start(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """A crash in the middle repeats at most the batch in hand, and a repeated point is the same point."""
    own_influx.kill()
    ods, oracle = start_ods(own_influx), Oracle()
    send_and_acknowledge(ods, oracle, sized(60_000, long=1_000_000))
    own_influx.start()
    ods.wait_for_status(lambda status: status["totals"]["stored"] > 0, what="the drain to be under way")
    ods.kill()
    ods.start()
    wait_until_backfilled(ods, own_influx, oracle)
    wait_until_small(ods)


def test_a_frozen_influx_is_an_outage_that_ends_by_itself(start_ods: StartOds, own_influx: InfluxServer) -> None:
    ods, oracle = start_ods(own_influx), Oracle()
    send_and_acknowledge(ods, oracle, 500)
    own_influx.pause()
    send_and_acknowledge(ods, oracle, 5000)
    ods.wait_for_status(lambda status: status["totals"]["pending"] == 5000, what="all of it to be pending")
    own_influx.resume()
    wait_until_backfilled(ods, own_influx, oracle)


def wait_until_refused_again(influx: InfluxServer, ods: OdsProcess) -> None:
    """Return when InfluxDB has refused ODS twice more."""
    enough = influx.refused_logins() + 2
    wait_until(
        lambda: influx.refused_logins() >= enough,
        timeout_seconds=20,
        what="InfluxDB to refuse ODS again",
        state=ods.log_tail,
    )


def test_a_slow_influx_is_no_outage(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """What it does not confirm soon is answered from the buffer while the request runs on; its late 204 is enough."""
    ods, oracle = start_ods(own_influx), Oracle()
    first, second = oracle.next_lines(POD, 2)
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(first)
        ods.wait_for_totals(stored=1, pending=0)
        own_influx.pause()
        oracle.acknowledge(POD, [pod.exchange(second, timeout_seconds=9)], first=1)
        status = ods.status()
        assert (status["influx"]["available"], status["totals"]["pending"]) == (True, 1), ods.log_tail()
        own_influx.resume()
        ods.wait_for_totals(stored=2, pending=0)
    oracle.check(own_influx.points(ods.database))
    assert not ods.lines_with("unavailable")


def test_a_wrong_password_loses_nothing_and_is_told_once(start_ods: StartOds, locked_influx: InfluxServer) -> None:
    """401 is no fault of the points: they are kept, none is quarantined, and one line says what to do."""
    ods = start_ods(locked_influx, "--influx-user", "root", "--influx-pass", "the-wrong-password")
    oracle = Oracle()
    for _ in range(3):
        send_and_acknowledge(ods, oracle, 1000)
        wait_until_refused_again(locked_influx, ods)
    status = ods.wait_for_totals(received=3000, pending=3000, stored=0, quarantined=0, dropped=0)
    assert status["influx"]["available"] is False
    assert re.search(r"401|password|authori[sz]", status["influx"]["last_error"], re.IGNORECASE)
    causes = ods.lines_with(r"\b(warning|error)\b.*(401|password|authori[sz])")
    assert len(causes) == 1, f"one line that names the cause\n{ods.log_tail()}"

    ods.stop()
    ods.options[-1] = "the-right-password"
    ods.start()
    wait_until_backfilled(ods, locked_influx, oracle)
    assert ods.totals()["quarantined"] == ods.totals()["dropped"] == 0
    assert not [line for line in ods.log if "the-wrong-password" in line or "the-right-password" in line]


def test_the_last_line_tells_how_many_points_wait(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """SIGTERM ends ODS within five seconds and with 0; what waits is sent at the next start."""
    own_influx.kill()
    ods, oracle = start_ods(own_influx), Oracle()
    send_and_acknowledge(ods, oracle, 237)
    ods.stop()
    assert re.search(r"\b237\b", ods.log[-1]), ods.log_tail()
    own_influx.start()
    ods.start()
    wait_until_backfilled(ods, own_influx, oracle)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["beside-influx", "beside-a-frozen-influx"])
def test_ods_stopped_under_load_keeps_what_it_has_read(
    start_ods: StartOds, own_influx: InfluxServer, is_frozen: bool
) -> None:
    """The end in good order stores what was read, answered or not. What was not read, the kernel resets."""
    ods, oracle = start_ods(own_influx), Oracle()
    if is_frozen:
        own_influx.pause()
    lines = oracle.next_lines(POD, 100_000)
    with PodClient(ods.port).read_replies() as pod:
        run = threading.Thread(target=_send_until_refused, args=(pod, lines))
        run.start()
        pod.wait_for_replies(2000)
        ods.stop()
        run.join()
        assert pod.has_ended.wait(10)
        oracle.acknowledge(POD, pod.replies)
    own_influx.resume()
    ods.start()
    ods.wait_until_settled()
    oracle.check(own_influx.points(ods.database), only_acknowledged=pod.was_reset or pod.lines_sent < len(lines))


def test_ods_stops_in_time_while_many_pods_flood(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """Five seconds, however many pods never stop sending: what each is still read for does not add up."""
    ods = start_ods(own_influx)
    flood = b"POD2accel_x 1.5\n" * 4000
    with contextlib.ExitStack() as connected:
        addresses = [f"127.0.2.{number}" for number in range(1, FLOODING + 1)]
        pods = [connected.enter_context(PodClient(ods.port, address=address)) for address in addresses]
        runs = [threading.Thread(target=_flood_until_refused, args=(pod, flood)) for pod in pods]
        for run in runs:
            run.start()
        ods.wait_for_status(
            lambda status: len([pod for pod in status["pods"] if pod["received"]]) == FLOODING,
            what="points of every pod",
        )
        ods.stop()
        for run in runs:
            run.join()


def _flood_until_refused(pod: PodClient, data: bytes) -> None:
    """It reads no reply, and does not brake: a send that ODS does not take for a second is begun anew."""
    while True:
        try:
            pod.send(data)
        except TimeoutError:
            continue
        except OSError:
            return


def test_ods_stopped_beside_a_frozen_influx_stores_all_that_it_has_read(
    start_ods: StartOds, own_influx: InfluxServer
) -> None:
    """Answered or not: what ODS has taken out of the socket is not lost by an end in good order."""
    ods, oracle = start_ods(own_influx), Oracle()
    send_and_acknowledge(ods, oracle, 100)
    ods.wait_for_totals(stored=100)
    own_influx.pause()
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(oracle.next_lines(POD, 50_000))
        pod.wait_until_read()
        ods.stop()
    own_influx.resume()
    ods.start()
    wait_until_backfilled(ods, own_influx, oracle)
