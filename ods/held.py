"""The connections that the keeper holds: a duplicate of each pod's socket, and its tape. It reads from neither."""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ods.channel import Channel
from ods.tape import Tape

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Connection:
    socket: int
    tape: int | None
    address: tuple[str, int]
    #: Whether no worker has said that it knows of it.
    is_new: bool = True


class Held:
    """All of them, each by a number of its own; at most so many `tapes`, as pods come first where files are few."""

    def __init__(self, *, tapes: int) -> None:
        self._most_tapes = tapes
        self._connections: dict[int, _Connection] = {}
        self._last = 0
        self._is_tapeless_said = False

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[int]:
        return iter(self._connections)

    def add(self, sock: socket.socket, peer: tuple[str, int]) -> int:
        """Hold a new connection; returns its number."""
        self._last += 1
        self._connections[self._last] = _Connection(sock.detach(), self._tape(), (peer[0], peer[1]))
        return self._last

    def hand(self, number: int, channel: Channel) -> None:
        """Hand a duplicate of it to a worker."""
        held = self._connections[number]
        files = [held.socket] if held.tape is None else [held.socket, held.tape]
        message = {"do": "connection", "id": number, "address": held.address, "is_new": held.is_new}
        channel.send(message, files)

    def entered(self, number: int) -> None:
        """A worker knows of it."""
        if number in self._connections:
            self._connections[number].is_new = False

    def close(self, number: int) -> None:
        """Let go of one that has ended."""
        held = self._connections.pop(number, None)
        if held is not None:
            os.close(held.socket)
            if held.tape is not None:
                os.close(held.tape)

    def _tape(self) -> int | None:
        """A tape; where there is no memory for one, or no file to spare, a connection does without."""
        reason: object = "few files may be open"
        if len(self._connections) < self._most_tapes:
            try:
                return Tape.make()
            except OSError as error:
                reason = error
        if not self._is_tapeless_said:
            self._is_tapeless_said = True
            log.error("a connection has no tape: %s; what it has in flight is lost if the worker dies", reason)
        return None
