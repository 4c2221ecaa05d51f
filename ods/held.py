"""The connections that the keeper holds: a duplicate of each pod's socket, and its tape. It reads from neither.

Where the service manager holds files too (`ods.descriptor_store`), it is given them all.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ods import tape_owner
from ods.channel import Channel
from ods.descriptor_store import DescriptorStore
from ods.keeper_state import ConnectionState
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

    def __init__(self, *, tapes: int, store: DescriptorStore | None = None) -> None:
        self._most_tapes = tapes
        self._store = store or DescriptorStore(None)
        self._connections: dict[int, _Connection] = {}
        #: The last number that was given.
        self.last = 0
        self._is_tapeless_said = False

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[int]:
        return iter(self._connections)

    def add(self, sock: socket.socket, peer: tuple[str, int]) -> int:
        """Hold a new connection; returns its number."""
        self.last += 1
        held = _Connection(sock.detach(), self._tape(), (peer[0], peer[1]))
        self._connections[self.last] = held
        _note_owner(held)
        self._give_to_store(self.last)
        return self.last

    def take_over(self, connections: Iterable[ConnectionState], *, last: int = 0) -> None:
        """Hold those that a keeper before has left, under their numbers."""
        for each in connections:
            self._connections[each.number] = _Connection(each.socket, each.tape, each.address, each.is_new)
            self._give_to_store(each.number)
            last = max(last, each.number)
        self.last = max(self.last, last)

    def state(self) -> tuple[ConnectionState, ...]:
        """All that the next keeper needs to know of them."""
        return tuple(
            ConnectionState(number=number, socket=each.socket, tape=each.tape, address=each.address, is_new=each.is_new)
            for number, each in self._connections.items()
        )

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
            _note_owner(self._connections[number])

    def close(self, number: int) -> None:
        """Let go of one that has ended."""
        held = self._connections.pop(number, None)
        if held is not None:
            self._store.remove("c", number)
            os.close(held.socket)
            if held.tape is not None:
                self._store.remove("t", number)
                os.close(held.tape)

    def _give_to_store(self, number: int) -> None:
        held = self._connections[number]
        self._store.put("c", number, held.socket)
        if held.tape is not None:
            self._store.put("t", number, held.tape)

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


def _note_owner(held: _Connection) -> None:
    if held.tape is not None:
        with contextlib.suppress(OSError):  # no memory is left for it; while the keeper lives nobody needs it
            tape_owner.write(held.tape, held.address[0], is_entered=not held.is_new)
