"""The channel between keeper and worker: whole messages, open files with them, in order, and no end ever waits."""

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ods.channel import MESSAGE_BYTES, Channel, ChannelClosed


def new_pair() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ends = new_pair()
    yield ends
    for end in ends:
        end.close()


@given(st.lists(st.dictionaries(st.text(max_size=20), st.integers() | st.text(max_size=200)), max_size=20))
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, int | str]]) -> None:
    one, other = new_pair()
    for message in messages:
        one.send(message)
    assert [other.receive() for _ in messages] == [(message, []) for message in messages]
    assert other.receive() is None
    one.close()
    other.close()


def test_an_open_file_travels_with_its_message_and_is_not_inherited(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    reading, writing = os.pipe()
    one.send({"do": "connection"}, [reading, writing])
    os.close(reading)
    os.close(writing)
    received = other.receive()
    assert received is not None and received[0] == {"do": "connection"}
    got_reading, got_writing = received[1]
    assert not os.get_inheritable(got_reading)
    os.write(got_writing, b"x")
    assert os.read(got_reading, 1) == b"x"
    os.close(got_reading)
    os.close(got_writing)


def test_what_the_other_end_does_not_take_is_sent_later_in_order(pair: tuple[Channel, Channel]) -> None:
    """It may be stopped; thousands of connections wait for it meanwhile."""
    one, other = pair
    for number in range(5000):
        one.send({"number": number})
    assert one.has_unsent
    numbers = []
    while len(numbers) < 5000:
        while (received := other.receive()) is not None:
            numbers.append(received[0]["number"])
        one.flush()
    assert numbers == list(range(5000))


def test_an_end_that_is_gone_is_noticed_after_its_last_words(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    one.send({"say": "closed", "id": 1})
    one.close()
    assert other.receive() == ({"say": "closed", "id": 1}, [])
    with pytest.raises(ChannelClosed):
        other.receive()
    other.send({"do": "all"})  # to nobody
    assert not other.has_unsent


@pytest.mark.parametrize("nonsense", [b"\xff\x00", b"[1]", b"{", b"1", b'"x"', b"{" * MESSAGE_BYTES])
def test_nonsense_is_an_empty_message(nonsense: bytes) -> None:
    raw, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(end)
    raw.send(nonsense)
    assert channel.receive() == ({}, [])
    raw.close()
    channel.close()


def test_a_message_that_is_too_long_is_an_error_of_the_sender(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError, match="bytes"):
        pair[0].send({"text": "x" * MESSAGE_BYTES})
