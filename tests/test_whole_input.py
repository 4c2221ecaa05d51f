"""The whole program and everything that comes over the wire: each line its reply, and no neighbour harmed.

These tests share one ODS, each test with an address of its own.
"""

import re
from typing import NamedTuple

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(60, long=120), method="signal")

LONGEST_LINE_BYTES = 64 * 1024


class Line(NamedTuple):
    """A line, a pattern for the whole reply to it, and what it counts as in the ledger."""

    sent: bytes
    reply: str
    received: int = 0
    invalid: int = 1


def good(sent: bytes, reply: str, *, invalid: int = 0, received: int = 1) -> Line:
    return Line(sent, re.escape(reply), received, invalid)


def bad_value(sent: bytes, value: str) -> Line:
    return Line(sent, re.escape(f"ERROR: Bad Value '{value}'"))


def not_understood(sent: bytes) -> Line:
    return Line(sent, re.escape(f"FAIL: {sent.strip().decode()}"))


LINES = {
    "a data point": good(b"POD2accel_x 0.500000", "OK: (accel_x,0.5)"),
    "an integer": good(b"POD2accel_x 7", "OK: (accel_x,7.0)"),
    "a sign": good(b"POD2accel_x -7", "OK: (accel_x,-7.0)"),
    "a plus": good(b"POD2accel_x +7.", "OK: (accel_x,7.0)"),
    "no digit before the point": good(b"POD2accel_x .5", "OK: (accel_x,0.5)"),
    "an exponent": good(b"POD2accel_x 1e-3", "OK: (accel_x,0.001)"),
    "a large float": good(b"POD2accel_x 1e22", "OK: (accel_x,1e+22)"),
    "negative zero": good(b"POD2accel_x -0.000000", "OK: (accel_x,-0.0)"),
    "the longest name": good(b"POD2" + b"n" * 63 + b" 1", f"OK: ({'n' * 63},1.0)"),
    "every character of a name": good(b"POD2Az09_.:/- 1", "OK: (Az09_.:/-,1.0)"),
    "spaces and a carriage return around it": good(b"  POD2accel_x 1.5 \r", "OK: (accel_x,1.5)"),
    "nan": bad_value(b"POD2accel_x nan", "nan"),
    "minus nan": bad_value(b"POD2accel_x -nan", "-nan"),
    "inf": bad_value(b"POD2accel_x inf", "inf"),
    "minus inf": bad_value(b"POD2accel_x -inf", "-inf"),
    "a hexadecimal number": bad_value(b"POD2accel_x 0x1A", "0x1A"),
    "an underscore in a number": bad_value(b"POD2accel_x 1_000", "1_000"),
    "a number beyond a float": bad_value(b"POD2accel_x 1e999", "1e999"),
    "two numbers": bad_value(b"POD2accel_x 1 2", "1 2"),
    "a word": bad_value(b"POD2accel_x fast", "fast"),
    "a quote": bad_value(b"POD2accel_x '", "'"),
    "a unit": bad_value(b"POD2accel_x 1i", "1i"),
    "no value": bad_value(b"POD2accel_x", ""),
    "no value after the space": bad_value(b"POD2accel_x ", ""),
    "digits of another script": Line(b"POD2accel_x \xd9\xa1", "ERROR: Bad Value '.*'"),
    "no name": not_understood(b"POD2 5"),
    "nothing after the kind": Line(b"POD2", r"FAIL: POD2|ERROR: Bad Value ''"),
    "a name too long": not_understood(b"POD2" + b"n" * 64 + b" 1"),
    "a star in a name": not_understood(b"POD2accel*x 1"),
    "a comma in a name": not_understood(b"POD2accel,pod=other 1"),
    "a quote in a name": not_understood(b'POD2"accel" 1'),
    "a hash for a name": not_understood(b"POD2#accel 1"),
    "the empty line": not_understood(b""),
    "spaces alone": not_understood(b"   "),
    "no record": not_understood(b"hello"),
    "an unknown kind": not_understood(b"POD3accel_x 1"),
    "no kind": not_understood(b"POD"),
    "lower case": not_understood(b"pod2accel_x 1"),
    "line protocol": not_understood(b"accel_x,pod=other value=1 1"),
    "HTTP": not_understood(b"GET / HTTP/1.1"),
    "a NUL byte in a value": Line(b"POD2accel_x 1\0", r"ERROR: Bad Value '1.*'"),
    "a NUL byte in a name": Line(b"POD2acc\0el 1", r"FAIL: POD2acc.*"),
    "invalid UTF-8 in a name": Line(b"POD2acc\xffel 1", r"FAIL: POD2acc.*"),
    "control characters": Line(b"\x01\x02\x1b[31m", r"FAIL: .*"),
    "any bytes": Line(bytes(byte for byte in range(256) if byte != 10), r"FAIL: .*"),
    "a log message": good(b"POD1[INFO]  punching boot_sem", "OK: LOGGED"),
    "a log message with bytes of every kind": good(b"POD1\x00\xff\xfe\xc3 \x1b[31m", "OK: LOGGED"),
    "a message glued to a message": good(b"POD1[NOTE]  onePOD1[INFO]  two", "OK: LOGGED", received=2),
    "a point glued to a message": good(b"POD1[NOTE]  onePOD2accel_x 2.5", "OK: (accel_x,2.5)", received=2),
    "a point glued to the rest of a message": good(b"rest of itPOD2accel_x 2.5", "OK: (accel_x,2.5)", invalid=1),
    "a message glued to what is none": good(b"garbagePOD1[NOTE]  one", "OK: LOGGED", invalid=1),
    "nan glued to a message": Line(b"POD1onePOD2accel_x nan", r"ERROR: Bad Value 'nan'", received=1),
    "text in a message that looks like a point": good(b"POD1see POD2accel_x fast", "OK: LOGGED"),
    "a line over 64 KiB": Line(b"x" * (LONGEST_LINE_BYTES + 1), "FAIL: " + "x" * 64),
    "a data line over 64 KiB": Line(b"POD2accel_x " + b"1" * 10**6, "FAIL: POD2accel_x 1{52}"),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_every_line_gets_its_reply_and_harms_no_neighbour(
    shared_ods: OdsProcess, influx: InfluxServer, pod: PodClient, line: Line
) -> None:
    """In order, on a connection that stays open, between neighbours that are stored."""
    pod.send(b"POD2before 1\n" + line.sent + b"\nPOD2after 2\n")
    before, reply, after = pod.wait_for_replies(3)[:3]
    assert (before, after) == (b"OK: (before,1.0)", b"OK: (after,2.0)")
    assert re.fullmatch(line.reply, reply.decode(errors="replace"), re.DOTALL), reply[:200]
    assert pod.exchange(b"POD2after 3\n") == b"OK: (after,3.0)"
    status = wait_until(
        lambda: shared_ods.stored_pod_status(pod.address, 3 + line.received),
        timeout_seconds=10,
        what="the records stored",
    )
    assert (status["invalid"], status["torn"], status["quarantined"]) == (line.invalid, 0, 0)
    points = influx.points("input")
    assert [value for _, value in points["before", pod.address]] == [1]
    assert [value for _, value in points["after", pod.address]] == [2, 3]
    assert not [key for key in points if key[1] == "other"]


def test_a_pod_that_sends_nothing_but_rubbish_is_answered_line_by_line(shared_ods: OdsProcess, pod: PodClient) -> None:
    lines = [line for line in LINES.values() if b"x" * 64 not in line.sent and b"1" * 64 not in line.sent] * 20
    pod.send_lines([line.sent + b"\n" for line in lines])
    for line, reply in zip(lines, pod.wait_for_replies(len(lines)), strict=True):
        assert re.fullmatch(line.reply, reply.decode(errors="replace"), re.DOTALL), (line.sent, reply)
    counts = shared_ods.pod_status(pod.address)
    assert counts["invalid"] == sum(line.invalid for line in lines)
    assert counts["received"] == sum(line.received for line in lines)


def test_names_beyond_the_cap_are_not_understood(start_ods: StartOds, influx: InfluxServer) -> None:
    """The names that a pod has used already stay good, other pods have their own, and the warning comes once a pod."""
    ods = start_ods(influx, "--max-names", "3")
    with PodClient(ods.port).read_replies() as pod, PodClient(ods.port, address="127.0.2.2").read_replies() as other:
        replies = [pod.exchange(b"POD2name_%d 1\n" % number) for number in range(10)]
        assert replies == [b"OK: (name_%d,1.0)" % number for number in range(3)] + [
            b"FAIL: POD2name_%d 1" % number for number in range(3, 10)
        ]
        assert pod.exchange(b"POD2name_2 5\n") == b"OK: (name_2,5.0)"
        assert pod.exchange(b"POD1still there\n") == b"OK: LOGGED"
        assert other.exchange(b"POD2name_9 1\n") == b"OK: (name_9,1.0)"
    status = ods.wait_for_totals(received=6, stored=6, invalid=7)
    assert {pod["name"]: pod["invalid"] for pod in status["pods"]} == {"127.0.2.1": 7, "127.0.2.2": 0}
    assert len(ods.lines_with(r"127\.0\.2\.1.*names|names.*127\.0\.2\.1")) == 1, ods.log_tail()
