"""The wire, line by line, and its one law: how TCP cuts the stream changes nothing."""

import itertools
import math
import re
import tracemalloc
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ods import protocol
from ods.data_points import DataPoints
from ods.protocol import (
    MAX_LINE_BYTES,
    Decoder,
    LogMessage,
    NameBook,
    NoRecord,
    readable,
    replies_when_dropped,
    replies_when_kept,
)

CHECKED = settings(deadline=None, max_examples=150)

#: As a real pod sends it: two messages without a newline, and a data point.
GLUED = b"POD1[NOTE]  Connected to 10.0.0.1:7778POD1[INFO]  punching boot_semPOD2accel_x 0.250000\n"


class Point(NamedTuple):
    """A data point, as a row of the columns that the decoder gives."""

    name: str
    sent: str
    value: str


class Heard(NamedTuple):
    """Everything that came of a stream, without any trace of how it was cut."""

    records: list[object]
    replies: bytes
    replies_if_dropped: bytes
    last_words: list[object]
    refused_names: int


def rows(records: Iterable[object]) -> list[object]:
    """Records one by one: adjacent `DataPoints` are the same as one of both."""
    found: list[object] = []
    for record in records:
        if isinstance(record, DataPoints):
            found += itertools.starmap(Point, zip(record.names, record.sent, record.values, strict=True))
        else:
            found.append(record)
    return found


def hear(pieces: Iterable[bytes], *, max_names: int = 10_000) -> Heard:
    """Decode a stream that arrives in these pieces, up to the end of the connection."""
    decoder = Decoder(NameBook(max_names))
    heard = Heard([], b"", b"", [], 0)
    for piece in pieces:
        decoded = decoder.feed(piece)
        heard = heard._replace(
            records=heard.records + rows(decoded.records),
            replies=heard.replies + replies_when_kept(decoded.replies),
            replies_if_dropped=heard.replies_if_dropped + replies_when_dropped(decoded.replies),
        )
    ended = decoder.finish()
    assert ended.replies == [], "the end of a connection is answered"
    return heard._replace(last_words=rows(ended.records), refused_names=decoder._names.refused)


def hear_line(line: bytes) -> tuple[bytes, list[object]]:
    """The one reply to a line, without its newline, and the line's records."""
    heard = hear([line + b"\n"])
    assert heard.last_words == []
    assert heard.replies.count(b"\n") == 1
    return heard.replies[:-1], heard.records


def cut_at(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, *cuts, len(stream)})
    return [stream[begin:end] for begin, end in itertools.pairwise(places)]


def byte_by_byte(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def message(level: str | None, text: str, sent: str | None = None) -> LogMessage:
    return LogMessage(level, text, text if sent is None else sent)


# -- The table: one line, its reply, its records ----------------------------------------------------------------------

GOOD_NUMBERS = {
    "0.500000": "0.5",
    "0": "0.0",
    "-0.000000": "-0.0",
    "+5": "5.0",
    "5.": "5.0",
    ".5": "0.5",
    "-.5": "-0.5",
    "007": "7.0",
    "1e3": "1000.0",
    "1E+3": "1000.0",
    "2.5e-3": "0.0025",
    "1e-999": "0.0",
    "1e308": "1e+308",
    "123456789012345678": "1.2345678901234568e+17",
    "1" * 300: repr(float("1" * 300)),
    "0." + "3" * 1000: repr(1 / 3),
}


@pytest.mark.parametrize(("number", "value"), GOOD_NUMBERS.items(), ids=[key[:24] for key in GOOD_NUMBERS])
def test_a_data_point_is_answered_with_its_value(number: str, value: str) -> None:
    """The reply has Python's `repr` of the float; the record has the number as the pod sent it, too."""
    reply, records = hear_line(b"POD2accel_x " + number.encode())
    assert reply == f"OK: (accel_x,{value})".encode()
    assert records == [Point("accel_x", number, value)]


BAD_NUMBERS = [
    *("nan", "-nan", "NaN", "inf", "-inf", "+inf", "Infinity", "1e999", "-1e999", "1" * 310),
    *("0x1A", "1_000", "1,5", "1.5.2", "--1", "+-1", "+", "-", ".", "e5", ".e5", "1e", "1e+", "1e5.0", "5f", "5 5"),
    *(" 1", "1 x", "1\t", "\t1", "true", "'", "\u0661", "½", "1\x002"),
]


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=[ascii(number[:24]) for number in BAD_NUMBERS])
def test_what_is_no_finite_number_is_bad_data(number: str) -> None:
    line = f"POD2accel_x {number}".encode()
    assert hear_line(line) == (f"ERROR: Bad Value '{number}'".encode(), [NoRecord("invalid", readable(line))])


@pytest.mark.parametrize("line", [b"POD2accel_x", b"POD2accel_x ", b"POD2accel_x   \r"])
def test_a_data_point_without_a_value_is_bad_data(line: bytes) -> None:
    assert hear_line(line) == (b"ERROR: Bad Value ''", [NoRecord("invalid", "POD2accel_x")])


@pytest.mark.parametrize(
    "name", ["a", "Z", "0", "a" * 63, "A-Z_a.z:0/9", "-", "_", ".", ":", "/", "1.5", "POD2", "nan"]
)
def test_a_name_is_up_to_63_letters_digits_and_signs(name: str) -> None:
    assert hear_line(f"POD2{name} 1".encode()) == (f"OK: ({name},1.0)".encode(), [Point(name, "1", "1.0")])


BAD_NAMES = [
    *(
        b"",
        b"a" * 64,
        b"a,b",
        b"a=b",
        b'a"b',
        b"a\\b",
        b"a#",
        b"a\tb",
        b"a\rb",
        b"a\x00",
        b"a\xff",
        "é".encode(),
        b"a(",
    ),
    b"accel_x;DROP",
]


@pytest.mark.parametrize("end", [b" 1", b" nan"], ids=["number", "nan"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=[ascii(name[:12]) for name in BAD_NAMES])
def test_a_line_with_another_name_is_not_understood(name: bytes, end: bytes) -> None:
    line = b"POD2" + name + end
    assert hear_line(line) == (b"FAIL: " + line, [NoRecord("invalid", readable(line))])


MESSAGES = {
    b"[DEBUG] a": message("debug", "a", "[DEBUG] a"),
    b"[INFO]  a": message("info", "a", "[INFO]  a"),
    b"[NOTE]  a": message("note", "a", "[NOTE]  a"),
    b"[WARN]  a": message("warn", "a", "[WARN]  a"),
    b"[ERROR] a": message("error", "a", "[ERROR] a"),
    b"[FATAL] a": message("fatal", "a", "[FATAL] a"),
    b"[FATAL]   a": message("fatal", "  a", "[FATAL]   a"),
    b"[INFO]": message("info", "", "[INFO]"),
    b"": message(None, ""),
    b"a": message(None, "a"),
    b"[HELLO] a": message(None, "[HELLO] a"),
    b"[info]  a": message(None, "[info]  a"),
    b"a [INFO]  b": message(None, "a [INFO]  b"),
    b"POD is no pod, POD3 neither": message(None, "POD is no pod, POD3 neither"),
    b"see POD2accel_x": message(None, "see POD2accel_x"),
    b"see POD2accel_x 1 there": message(None, "see POD2accel_x 1 there"),
}


@pytest.mark.parametrize(("text", "record"), MESSAGES.items(), ids=[ascii(text[:20]) for text in MESSAGES])
def test_a_log_message_is_logged_with_its_level(text: bytes, record: LogMessage) -> None:
    """The level is lower case and no part of the message; what was sent keeps it."""
    assert hear_line(b"POD1" + text) == (b"OK: LOGGED", [record])


NOT_UNDERSTOOD = [
    *(
        b"",
        b"x",
        b"P",
        b"POD",
        b"POD2",
        b"POD3accel_x 1",
        b"POD0",
        b"pod2accel_x 1",
        b"pod1hello",
        b"accel_x 1",
        b"xPOD2",
    ),
    *(b"OK: LOGGED", b"\x00", b"\xff\xfe", b"\t", b"a\rb", b"POD 2a 1", b"POD2 accel_x 1", "POD²a 1".encode()),
]


@pytest.mark.parametrize("line", NOT_UNDERSTOOD, ids=[ascii(line) for line in NOT_UNDERSTOOD])
def test_anything_else_is_not_understood(line: bytes) -> None:
    assert hear_line(line) == (b"FAIL: " + line, [NoRecord("invalid", readable(line))])


@pytest.mark.parametrize("after", [b"", b"\r", b" ", b" \r", b"\r\r  "])
@pytest.mark.parametrize("before", [b"", b"\r", b" ", b"\r \r"])
@pytest.mark.parametrize("line", [b"POD2accel_x 1", b"POD2accel_x nan", b"POD1[NOTE]  a", b"POD1a POD1b", b"x", b""])
def test_blanks_at_both_ends_of_a_line_mean_nothing(line: bytes, before: bytes, after: bytes) -> None:
    assert hear_line(before + line + after) == hear_line(line)


# -- Several records in one line --------------------------------------------------------------------------------------

GLUED_LINES = {
    b"POD1aPOD1b": (b"OK: LOGGED", [message(None, "a"), message(None, "b")]),
    b"POD1POD1": (b"OK: LOGGED", [message(None, ""), message(None, "")]),
    b"POD1a POD2b 1": (b"OK: (b,1.0)", [message(None, "a "), Point("b", "1", "1.0")]),
    b"POD1POD2b 1": (b"OK: (b,1.0)", [message(None, ""), Point("b", "1", "1.0")]),
    b"POD1[WARN]  aPOD2b 1e3": (b"OK: (b,1000.0)", [message("warn", "a", "[WARN]  a"), Point("b", "1e3", "1000.0")]),
    b"POD1aPOD2b nan": (b"ERROR: Bad Value 'nan'", [message(None, "a"), NoRecord("invalid", "POD2b nan")]),
    b"POD1aPOD2b -nan": (b"ERROR: Bad Value '-nan'", [message(None, "a"), NoRecord("invalid", "POD2b -nan")]),
    b"POD1aPOD2b inf": (b"ERROR: Bad Value 'inf'", [message(None, "a"), NoRecord("invalid", "POD2b inf")]),
    b"POD1aPOD2b -inf": (b"ERROR: Bad Value '-inf'", [message(None, "a"), NoRecord("invalid", "POD2b -inf")]),
    b"POD1aPOD2b 1e999": (b"ERROR: Bad Value '1e999'", [message(None, "a"), NoRecord("invalid", "POD2b 1e999")]),
    b"POD1aPOD2b": (b"OK: LOGGED", [message(None, "aPOD2b")]),
    b"POD1aPOD2b off": (b"OK: LOGGED", [message(None, "aPOD2b off")]),
    b"POD1aPOD2b 1 ": (b"OK: (b,1.0)", [message(None, "a"), Point("b", "1", "1.0")]),
    b"POD1aPOD2b 1POD1c": (b"OK: LOGGED", [message(None, "aPOD2b 1"), message(None, "c")]),
    b"POD1aPOD2b 1POD2c 2": (b"OK: (c,2.0)", [message(None, "aPOD2b 1"), Point("c", "2", "2.0")]),
    b"POD1aPOD2" + b"b" * 64 + b" 1": (b"OK: LOGGED", [message(None, "aPOD2" + "b" * 64 + " 1")]),
    b"rest of a messagePOD2b 1": (b"OK: (b,1.0)", [NoRecord("invalid", "rest of a message"), Point("b", "1", "1.0")]),
    b"restPOD2b nan": (b"ERROR: Bad Value 'nan'", [NoRecord("invalid", "rest"), NoRecord("invalid", "POD2b nan")]),
    b"restPOD1a": (b"OK: LOGGED", [NoRecord("invalid", "rest"), message(None, "a")]),
    b"restPOD1aPOD2b 1": (
        b"OK: (b,1.0)",
        [NoRecord("invalid", "rest"), message(None, "a"), Point("b", "1", "1.0")],
    ),
    b"PODPOD1a": (b"OK: LOGGED", [NoRecord("invalid", "POD"), message(None, "a")]),
    b"POD3POD2b 1": (b"OK: (b,1.0)", [NoRecord("invalid", "POD3"), Point("b", "1", "1.0")]),
    b"POD2b 1POD1a": (b"ERROR: Bad Value '1POD1a'", [NoRecord("invalid", "POD2b 1POD1a")]),
    b"POD2b 1POD2c 2": (b"ERROR: Bad Value '1POD2c 2'", [NoRecord("invalid", "POD2b 1POD2c 2")]),
}


@pytest.mark.parametrize(("line", "outcome"), GLUED_LINES.items(), ids=[ascii(line[:28]) for line in GLUED_LINES])
def test_a_line_that_does_not_begin_with_pod2_may_hold_several_records(
    line: bytes, outcome: tuple[bytes, list[object]]
) -> None:
    """Each `POD1` begins a message, a data point may end the line, and the line's reply is that of its last record."""
    assert hear_line(line) == outcome


@pytest.mark.parametrize("cut", range(1, len(GLUED)))
def test_a_real_pods_glued_line_cut_anywhere_gives_the_same_three_records(cut: int) -> None:
    heard = hear([GLUED[:cut], GLUED[cut:]])
    assert heard.records == [
        message("note", "Connected to 10.0.0.1:7778", "[NOTE]  Connected to 10.0.0.1:7778"),
        message("info", "punching boot_sem", "[INFO]  punching boot_sem"),
        Point("accel_x", "0.250000", "0.25"),
    ]
    assert heard.replies == b"OK: (accel_x,0.25)\n"
    assert heard.last_words == []


def test_a_message_is_a_record_as_soon_as_the_next_one_begins() -> None:
    decoder = Decoder(NameBook(1))
    assert rows(decoder.feed(b"POD1onePOD").records) == []
    assert rows(decoder.feed(b"1twoPOD1thr").records) == [message(None, "one"), message(None, "two")]
    assert rows(decoder.finish().records) == [message(None, "thr")]


def test_replies_come_one_a_line_and_in_order() -> None:
    heard = hear([b"POD2a 1\nPOD2a x\nPOD1m\nwhat\n\nPOD2b 2\nPOD2c 3\n"])
    assert heard.replies.splitlines() == [
        *(b"OK: (a,1.0)", b"ERROR: Bad Value 'x'", b"OK: LOGGED", b"FAIL: what", b"FAIL: ", b"OK: (b,2.0)"),
        b"OK: (c,3.0)",
    ]
    assert heard.replies_if_dropped.splitlines() == [
        *(b"ERROR: Not Stored", b"ERROR: Bad Value 'x'", b"ERROR: Not Stored", b"FAIL: what", b"FAIL: "),
        *(b"ERROR: Not Stored", b"ERROR: Not Stored"),
    ]


# -- The end of a connection ------------------------------------------------------------------------------------------

LAST_WORDS = {
    b"POD2accel_x 12": [NoRecord("torn", "POD2accel_x 12")],
    b"POD2accel_x 12.500000": [NoRecord("torn", "POD2accel_x 12.500000")],
    b"POD2accel_x nan": [NoRecord("torn", "POD2accel_x nan")],
    b"POD2accel_x what": [NoRecord("torn", "POD2accel_x what")],
    b"POD2accel_x ": [NoRecord("torn", "POD2accel_x")],
    b"POD2acc": [NoRecord("torn", "POD2acc")],
    b"POD2": [NoRecord("torn", "POD2")],
    b"PO": [NoRecord("torn", "PO")],
    b"  \rPOD2a 1": [NoRecord("torn", "POD2a 1")],
    b"POD1[FATAL] braking": [message("fatal", "braking", "[FATAL] braking")],
    b"POD1": [message(None, "")],
    b"POD1a\r": [message(None, "a")],
    b"POD1aPOD2b 12": [message(None, "a"), NoRecord("torn", "POD2b 12")],
    b"POD1aPOD2b 12.5": [message(None, "a"), NoRecord("torn", "POD2b 12.5")],
    b"POD1aPOD2b -": [message(None, "a"), NoRecord("torn", "POD2b -")],
    b"POD1aPOD2b 1e": [message(None, "a"), NoRecord("torn", "POD2b 1e")],
    b"POD1aPOD2b -na": [message(None, "a"), NoRecord("torn", "POD2b -na")],
    b"POD1aPOD2b inf": [message(None, "a"), NoRecord("torn", "POD2b inf")],
    b"what": [NoRecord("invalid", "what")],
    b"": [],
    b" \r ": [],
}


@pytest.mark.parametrize(("rest", "records"), LAST_WORDS.items(), ids=[ascii(rest) for rest in LAST_WORDS])
def test_last_words_are_kept_and_a_torn_point_is_never_a_value(rest: bytes, records: list[object]) -> None:
    """`POD2accel_x 12` may have been 1234.5: it is recorded as torn. The last words of a dying pod are a message."""
    heard = hear([b"POD2a 1\n" + rest])
    assert heard.records == [Point("a", "1", "1.0")]
    assert heard.last_words == records
    assert heard.replies == b"OK: (a,1.0)\n"


def test_messages_of_an_unfinished_line_are_kept_once() -> None:
    heard = hear([b"POD1a", b"POD1b", b"POD1c"])
    assert heard.records + heard.last_words == [message(None, "a"), message(None, "b"), message(None, "c")]


def test_after_the_end_nothing_is_left() -> None:
    decoder = Decoder(NameBook(1))
    decoder.feed(b"POD1aPOD1b")
    decoder.finish()
    assert decoder.finish().records == []


# -- Overlong lines ---------------------------------------------------------------------------------------------------

OVERLONG = {
    "text": b"x" * (MAX_LINE_BYTES + 1),
    "a message": b"POD1" + b"x" * (MAX_LINE_BYTES - 3),
    "a number": b"POD2accel_x " + b"1" * MAX_LINE_BYTES,
    "a small number": b"POD2accel_x 0." + b"0" * MAX_LINE_BYTES,
    "a name": b"POD2" + b"a" * MAX_LINE_BYTES + b" 1",
    "NUL bytes": bytes(MAX_LINE_BYTES + 1),
    "a megabyte": b"POD2" + b"z" * 1_000_000,
}


@pytest.mark.parametrize("piece_bytes", [1_000_000_000, 65_536, 4_099])
@pytest.mark.parametrize("line", OVERLONG.values(), ids=OVERLONG.keys())
def test_an_overlong_line_fails_once_at_its_end_and_harms_no_neighbour(line: bytes, piece_bytes: int) -> None:
    """`FAIL: ` with its first 64 bytes."""
    stream = b"POD2a 1\n" + line + b"\nPOD2b 2\n"
    heard = hear(cut_at(stream, range(0, len(stream), piece_bytes)))
    assert heard.replies == b"OK: (a,1.0)\nFAIL: " + line[:64] + b"\nOK: (b,2.0)\n"
    assert heard.records == [
        Point("a", "1", "1.0"),
        NoRecord("invalid", readable(line[:64])),
        Point("b", "2", "2.0"),
    ]


def test_an_overlong_line_is_not_answered_before_its_end() -> None:
    decoder = Decoder(NameBook(1))
    for _ in range(5):
        assert replies_when_kept(decoder.feed(b"x" * MAX_LINE_BYTES).replies) == b""
    assert replies_when_kept(decoder.feed(b"\n").replies) == b"FAIL: " + b"x" * 64 + b"\n"


def test_the_longest_line_is_understood() -> None:
    text = b"x" * (MAX_LINE_BYTES - 4)
    assert hear_line(b"POD1" + text) == (b"OK: LOGGED", [message(None, text.decode())])
    digits = "0." + "5" * (MAX_LINE_BYTES - len("POD2a 0."))
    assert hear_line(b"POD2a " + digits.encode()) == (
        f"OK: (a,{float(digits)!r})".encode(),
        [Point("a", digits, repr(float(digits)))],
    )


@pytest.mark.parametrize("cut", range(-2, 6))
def test_the_longest_message_is_understood_where_the_next_one_is_cut(cut: int) -> None:
    """What follows the last byte that a message may have can be the beginning of the next `POD1`."""
    text = "x" * (MAX_LINE_BYTES - 4)
    stream = f"POD1{text}POD1b\n".encode()
    heard = hear(cut_at(stream, [MAX_LINE_BYTES + cut]))
    assert heard.records == [message(None, text), message(None, "b")]


def test_messages_without_newlines_are_never_an_overlong_line() -> None:
    """A pod that only logs sends one endless line; only a single message can be too long."""
    heard = hear([b"POD1hello" * 20_000 + b"\n"])
    assert heard.records == [message(None, "hello")] * 20_000
    assert heard.replies == b"OK: LOGGED\n"


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "cut after its second message"])
def test_the_first_64_bytes_of_an_overlong_line_are_told_back_however_it_is_cut(pieces: int) -> None:
    stream = b"POD1aPOD1b" + b"x" * MAX_LINE_BYTES + b"\n"
    heard = hear([stream] if pieces == 1 else [stream[:10], stream[10:]])
    assert heard.replies == b"FAIL: " + stream[:64] + b"\n"


@pytest.mark.parametrize("filler", [b"x", b"POD1", b" ", b"\x00", b"POD2"])
def test_an_endless_line_does_not_grow_memory(filler: bytes) -> None:
    decoder = Decoder(NameBook(1))
    piece = filler * (65_536 // len(filler))
    tracemalloc.start()
    try:
        for _ in range(4):
            decoder.feed(piece)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(8):
            decoder.feed(piece)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4 * MAX_LINE_BYTES, "eight times as much was fed"


# -- Names ------------------------------------------------------------------------------------------------------------


def test_a_name_beyond_the_cap_is_not_understood_and_known_names_go_on() -> None:
    heard = hear([b"POD2a 1\nPOD2b 1\nPOD2c 1\nPOD2a 2\nPOD2c 2\nPOD2b 2\n"], max_names=2)
    assert heard.replies.splitlines() == [
        *(b"OK: (a,1.0)", b"OK: (b,1.0)", b"FAIL: POD2c 1", b"OK: (a,2.0)", b"FAIL: POD2c 2", b"OK: (b,2.0)"),
    ]
    assert heard.refused_names == 2


def test_a_glued_name_beyond_the_cap_is_not_understood_and_its_message_is_kept() -> None:
    heard = hear([b"POD2a 1\nPOD1mPOD2b 1\n"], max_names=1)
    assert heard.records == [Point("a", "1", "1.0"), message(None, "m"), NoRecord("invalid", "POD2b 1")]
    assert heard.replies == b"OK: (a,1.0)\nFAIL: POD2b 1\n"


def test_bad_data_takes_no_name() -> None:
    heard = hear([b"POD2a nan\nPOD2b x\nPOD2c 1\n"], max_names=1)
    assert heard.records[-1] == Point("c", "1", "1.0")


def test_two_connections_of_a_pod_share_its_names() -> None:
    names = NameBook(1)
    Decoder(names).feed(b"POD2a 1\n")
    assert replies_when_kept(Decoder(names).feed(b"POD2b 1\nPOD2a 1\n").replies) == b"FAIL: POD2b 1\nOK: (a,1.0)\n"


def test_a_million_names_are_not_remembered() -> None:
    names = NameBook(100)
    decoder = Decoder(names)
    for begin in range(0, 100_000, 1000):
        decoder.feed(b"".join([b"POD2n%d 1\n" % number for number in range(begin, begin + 1000)]))
    assert (len(names), names.refused) == (100, 99_900)


def test_names_are_taken_all_or_none() -> None:
    names = NameBook(2)
    assert names.admit_all(["a"])
    assert not names.admit_all(["b", "c"])
    assert len(names) == 1
    assert names.admit_all(["a", "b", "a"])
    assert names.admit_all([])


# -- Text -------------------------------------------------------------------------------------------------------------

TEXTS = {
    b"plain": "plain",
    "Über 300 °C 🚄".encode(): "Über 300 °C 🚄",
    b"a\xff\xfeb": "a\\xff\\xfeb",
    b"cut \xf0\x9f\x9a": "cut \\xf0\\x9f\\x9a",
    b"\xed\xa0\x80": "\\xed\\xa0\\x80",
    b"a\x00b": "a\\x00b",
    b"a\x1b[31m": "a\\x1b[31m",
    b"a\x7f": "a\\x7f",
    "a\x85\x9f".encode(): "a\\x85\\x9f",
    b"a\rb": "a\\rb",
    b"a\nb": "a\\nb",
    b"a\tb": "a\tb",
    "a\u2028b\u2029".encode(): "a\\u2028b\\u2029",
    b"C:\\n": "C:\\n",
}


@pytest.mark.parametrize(("raw", "text"), TEXTS.items(), ids=[ascii(raw) for raw in TEXTS])
def test_text_is_stored_readable(raw: bytes, text: str) -> None:
    r"""Invalid bytes and control characters as `\xNN`, newlines as `\n`."""
    assert readable(raw) == text


@CHECKED
@given(st.binary(max_size=60))
def test_readable_text_is_one_line_that_encodes(raw: bytes) -> None:
    text = readable(raw)
    text.encode()
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", text)
    assert text.splitlines() in ([], [text])


# -- Any split of any stream ------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(b"POD1", b"POD2", b"POD2a ", b"POD", b"PO", b"P", b"1", b"2", b"POD3", b"\n", b"\n", b"\r\n", b"\r", b" ", b"  "),
    *(
        b"accel_x",
        b"accel_x 0.25",
        b" 1",
        b" 1.5e3",
        b" nan",
        b" -nan",
        b"inf",
        b" -inf",
        b" 1e999",
        b" 0x1A",
        b"-",
        b".",
    ),
    *(b"[NOTE]  ", b"[INFO]  boot", b"[ERROR] ", b"1" * 30, b"a" * 63, b"\x00", b"\xff", b"\xc3", b"\xa9", b"\t", b"'"),
    *(b"POD2a 1\n", b"POD2b 2.500000\n", b"POD2c -3\n", b"POD2d nan\n", b"POD2a 1e308\n", b"POD1[WARN]  hot\n"),
    *(b"POD1[NOTE]  to 10.0.0.1:7778", b"POD2a 1POD2b 2\n"),
]
pod_like = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map(b"".join)
anything = st.binary(max_size=80)
mixed = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=4)), max_size=24).map(b"".join)
streams = st.one_of(pod_like, anything, mixed)
caps = st.sampled_from([1, 2, 3, 10_000])


@st.composite
def streams_and_cuts(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    stream = draw(streams)
    return stream, draw(st.lists(st.integers(0, len(stream)), max_size=12))


@CHECKED
@given(streams_and_cuts(), caps)
@example((GLUED, [3, 40, 80]), 1)
@example((b"POD2a 1\nPOD2b 2\nPOD2a 3\n", [12]), 1)
@example((b"POD2a 1\r\nPOD2b nan\r\n", [8, 9]), 1)
def test_any_split_of_any_stream_gives_the_same_records_and_replies(
    stream_and_cuts: tuple[bytes, list[int]], max_names: int
) -> None:
    stream, cuts = stream_and_cuts
    assert hear(cut_at(stream, cuts), max_names=max_names) == hear([stream], max_names=max_names)


@CHECKED
@given(streams_and_cuts(), st.integers(0, 12), st.integers(16, 48))
@example((b"POD1aPOD1b" + b"x" * 80 + b"\n", [10]), 12, 40)
def test_any_split_of_overlong_lines_gives_the_same_records_and_replies(
    stream_and_cuts: tuple[bytes, list[int]], head_bytes: int, max_line_bytes: int
) -> None:
    """The limits are made small, so that short streams meet them at every place."""
    stream, cuts = stream_and_cuts
    with mock.patch.multiple(protocol, MAX_LINE_BYTES=max_line_bytes, HEAD_BYTES=head_bytes):
        whole = hear([stream])
        assert hear(cut_at(stream, cuts)) == whole
        assert hear(byte_by_byte(stream)) == whole


@CHECKED
@given(streams, streams, caps)
@example(b"POD2a", b" 1\nPOD2b 2\n", 2)
@example(b"POD1m", b"POD2a 1\n", 1)
def test_what_is_fed_as_data_points_is_what_feed_would_make_of_it(begin: bytes, data: bytes, max_names: int) -> None:
    """Or nothing is fed; where it is, each newline is a data point."""
    quick, usual = Decoder(NameBook(max_names)), Decoder(NameBook(max_names))
    quick.feed(begin)
    usual.feed(begin)
    decoded = quick.feed_data_points(data)
    if decoded is None:
        decoded = quick.feed(data)
    else:
        assert len(rows(decoded.records)) == data.count(b"\n")
    expected = usual.feed(data)
    assert rows(decoded.records) == rows(expected.records)
    assert replies_when_kept(decoded.replies) == replies_when_kept(expected.replies)
    assert rows(quick.feed(b"\nPOD2a 1\n").records) == rows(usual.feed(b"\nPOD2a 1\n").records)
    assert len(quick._names) == len(usual._names)


@CHECKED
@given(streams, caps)
def test_a_whole_chunk_and_its_bytes_one_by_one_give_the_same(stream: bytes, max_names: int) -> None:
    """The fast way (a chunk at a time) and the careful way (a line at a time) differ in nothing but speed."""
    assert hear(byte_by_byte(stream), max_names=max_names) == hear([stream], max_names=max_names)


names = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.:/-", min_size=1, max_size=63)
#: As `%f` prints them, and with more and fewer digits than it does: zeros before, behind and within.
plain_numbers = st.from_regex(r"\A-?0{0,2}[0-9]{1,10}\.0{0,5}[0-9]{0,6}0{0,5}\Z")
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: f"{value:f}"),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**63), 2**63).map(str),
    st.from_regex(r"\A[+-]?([0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9})([eE][+-]?[0-9]{1,2})?\Z"),
    plain_numbers,
)


@CHECKED
@given(st.lists(st.tuples(names, numbers), min_size=1, max_size=30), st.booleans())
def test_every_good_point_is_kept_as_sent_and_as_its_float(points: Sequence[tuple[str, str]], is_careful: bool) -> None:
    stream = "".join([f"POD2{name} {number}\n" for name, number in points]).encode()
    heard = hear(byte_by_byte(stream) if is_careful else [stream])
    assert heard.records == [(name, number, repr(float(number))) for name, number in points]
    assert heard.replies == "".join([f"OK: ({name},{float(number)!r})\n" for name, number in points]).encode()


@CHECKED
@given(st.lists(plain_numbers, min_size=1, max_size=30))
@example(["0.000100", "0.0001", "-0.00010"])
@example(["0.000099"])
@example(["-0.000001"])
@example(["0.00001"])
@example(["0.000000", "-0.0", "0.0000", "100.000000", "999999999.999999"])
@example(["123456789012345.6", "1234567890123456.7"])
@example(["1."])
@example(["00.5"])
def test_a_plain_decimal_has_the_value_of_its_float(decimals: list[str]) -> None:
    """One of up to 15 digits is cut to it, without a float."""
    heard = hear(["".join([f"POD2a {number}\n" for number in decimals]).encode()])
    assert [value for _, _, value in heard.records] == [repr(float(number)) for number in decimals]


@CHECKED
@given(streams)
def test_every_line_gets_exactly_one_reply_kept_or_dropped(stream: bytes) -> None:
    heard = hear([stream])
    assert heard.replies.count(b"\n") == stream.count(b"\n")
    assert heard.replies_if_dropped.count(b"\n") == stream.count(b"\n")


@CHECKED
@given(streams)
def test_nothing_but_a_finite_number_ever_becomes_a_point(stream: bytes) -> None:
    heard = hear([stream])
    for record in [*heard.records, *heard.last_words]:
        if isinstance(record, Point):
            assert re.fullmatch(r"[A-Za-z0-9_.:/-]{1,63}", record.name)
            assert math.isfinite(float(record.value)) and repr(float(record.sent)) == record.value
    assert not any(isinstance(record, Point) for record in heard.last_words)


@CHECKED
@given(streams)
def test_a_line_never_touches_its_neighbours(stream: bytes) -> None:
    """Whatever a whole line is, the points before and after it are what they would be without it."""
    line = stream.replace(b"\n", b"") + b"\n"
    heard = hear([b"POD2before 1\n" + line + b"POD2after 2\n"])
    assert heard.records[0] == Point("before", "1", "1.0")
    assert heard.records[-1] == Point("after", "2", "2.0")
    assert heard.replies.startswith(b"OK: (before,1.0)\n") and heard.replies.endswith(b"\nOK: (after,2.0)\n")
    assert heard.last_words == []
