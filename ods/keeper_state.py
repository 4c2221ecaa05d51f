"""What a keeper leaves to the next: the files that it holds, by their numbers, and what it knows of each.

A keeper goes on with its own new code by `execve` (`ods.succession`): the process, its number, its children and its
open files stay, everything else is gone but for this. It is written as JSON with a version, so that a keeper which
reads another form than the one before it wrote says so instead of guessing; that is tried before the `execve`, by a
process of the new code. Pure: bytes in, values out.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ods.errors import StateRefused

#: The form of what is written. A keeper that reads another must be started anew, without pods.
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """A pod's connection, by the number that the keeper gave it."""

    number: int
    socket: int
    tape: int | None
    address: tuple[str, int]
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """The worker that serves: its process, and the keeper's end of the channel."""

    process_id: int
    channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperState:
    """All of it. `stored` are the names under which the service manager holds files too."""

    listening: int
    lock: int | None
    #: What no new configuration may change, by option.
    bound: dict[str, Any]
    last_number: int
    connections: tuple[ConnectionState, ...]
    worker: WorkerState
    restarts: dict[str, Any]
    stored: tuple[str, ...] = ()

    @property
    def files(self) -> list[int]:
        """The numbers of all open files that the next keeper is to find."""
        found = [self.listening, self.lock, self.worker.channel]
        for connection in self.connections:
            found += [connection.socket, connection.tape]
        return [file for file in found if file is not None]

    def dump(self) -> bytes:
        """As bytes, for `load`."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, separators=(",", ":")).encode()

    @staticmethod
    def load(data: bytes) -> "KeeperState":
        """What `dump` wrote. Raises StateRefused where it has another form."""
        try:
            given = json.loads(data)
            version = given.pop("version")
            if version != VERSION:
                raise StateRefused(
                    f"the keeper that runs leaves form {version} of its state; this code reads {VERSION}"
                )
            connections = [
                ConnectionState(**{**each, "address": tuple(each["address"])}) for each in given.pop("connections")
            ]
            worker = WorkerState(**given.pop("worker"))
            stored = tuple(given.pop("stored"))
            return KeeperState(connections=tuple(connections), worker=worker, stored=stored, **given)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateRefused(f"what the keeper that runs leaves cannot be read: {error!r}") from error


def differs(own: Mapping[str, object], given: Mapping[str, object]) -> str | None:
    """What of a new configuration a keeper cannot follow: it holds the port, and the lock on the directory."""
    changed = [f"--{name} is {given.get(name)} now" for name, value in own.items() if given.get(name) != value]
    return f"{', '.join(changed)}: that takes a stop and a start of ODS" if changed else None
