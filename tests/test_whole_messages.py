"""The whole program and the ends of records: glued, cut, torn, and the last words of a pod.

These tests share one ODS, each test with an address of its own.
"""

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(60, long=120), method="signal")

GLUED = (
    b"POD1[NOTE]  Connected to 10.0.0.1:7778POD1[INFO]  punching boot_semPOD2accel_x 0.250000\n"  # as the pod sends it
)


def test_a_glued_line_cut_anywhere_gives_the_same_records(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient
) -> None:
    """Two messages and a data point, in one line, with one reply, wherever TCP splits it."""
    cuts = range(1, len(GLUED))
    for cut in cuts:
        pod.send(GLUED[:cut])
        pod.wait_until_read()
        assert pod.exchange(GLUED[cut:]) == b"OK: (accel_x,0.25)"
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 3 * len(cuts)), timeout_seconds=10, what="all stored")
    messages = influx.messages("input")[pod.address]
    assert [(level, text) for _, level, text in messages] == [
        ("note", "Connected to 10.0.0.1:7778"),
        ("info", "punching boot_sem"),
    ] * len(cuts)
    points = influx.points("input")["accel_x", pod.address]
    assert [value for _, value in points] == [0.25] * len(cuts)
    times = [time_ns for time_ns, *_ in [*messages, *points]]
    assert len(set(times)) == len(times)


TEXTS = {
    "quotes": b"he said \"go\" and 'stop'",
    "line protocol": b'x,pod=other value=1 1\\n y="z" #',
    "a backslash at its end": b"C:\\",
    "a hash at its begin": b"# 1",
    "umlauts": "Über 300 °C, schnell 🚄".encode(),
    "POD in it": b"POD is POD3, not POD2",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_text_of_a_message_is_stored_as_it_was_sent(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient, text: bytes
) -> None:
    assert pod.exchange(b"POD1[WARN]  " + text + b"\n") == b"OK: LOGGED"
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 1), timeout_seconds=10, what="the message stored")
    assert [row[1:] for row in influx.messages("input")[pod.address]] == [("warn", text.decode())]


def test_invalid_bytes_of_a_message_are_kept_readable(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient
) -> None:
    pod.exchange(b"POD1[WARN]  a\xff\xfeb\n")
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 1), timeout_seconds=10, what="the message stored")
    assert [text for *_, text in influx.messages("input")[pod.address]] == ["a\\xff\\xfeb"]


def test_a_torn_line_is_counted_and_never_stored(shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient) -> None:
    """`POD2accel_x 12` at the end of a connection may have been 1234.5."""
    pod.send(b"POD2accel_y 1\nPOD2accel_x 12")
    pod.finish()
    wait_until(lambda: shared_ods.pod_status(pod.address)["torn"] == 1, timeout_seconds=10, what="a torn line")
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 1), timeout_seconds=10, what="its neighbour stored")
    assert [key for key in influx.points("input") if key[1] == pod.address] == [("accel_y", pod.address)]


def test_a_torn_point_glued_to_a_message_is_never_stored(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient
) -> None:
    pod.send(b"POD1[NOTE]  last wordsPOD2accel_x 12")
    pod.finish()
    wait_until(lambda: shared_ods.pod_status(pod.address)["received"] == 1, timeout_seconds=10, what="the message")
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 1), timeout_seconds=10, what="the message stored")
    assert [key for key in influx.points("input") if key[1] == pod.address] == []
    ((_, level, text),) = influx.messages("input")[pod.address]
    assert (level, text[:10]) == ("note", "last words")


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_last_words_without_a_newline_are_kept(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient, is_reset: bool
) -> None:
    """The last words of a dying pod are unterminated, and are kept as messages."""
    pod.send(b"POD1[ERROR] battery emptyPOD1[FATAL] brakingPOD1[NOTE]  bye")
    pod.wait_until_read()
    pod.reset() if is_reset else pod.finish()
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 3), timeout_seconds=10, what="three messages stored")
    assert [row[1:] for row in influx.messages("input")[pod.address]] == [
        ("error", "battery empty"),
        ("fatal", "braking"),
        ("note", "bye"),
    ]


def test_a_message_shows_before_the_line_that_it_begins_ends(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient
) -> None:
    """A message ends at the next `POD1`: a pod that logs without newlines is not silent until its end."""
    pod.send(b"POD1[NOTE]  onePOD1[NOTE]  twoPOD1[NOTE]  thr")
    wait_until(lambda: shared_ods.stored_pod_status(pod.address, 2), timeout_seconds=10, what="two messages stored")
    assert [text for *_, text in influx.messages("input")[pod.address]] == ["one", "two"]
