"""What the keeper says with its worker and its zygote: small messages, with open files, over a pair of sockets.

A message is one packet (AF_UNIX, SOCK_SEQPACKET) with one JSON object; files travel beside it (SCM_RIGHTS). The ends
may be of different versions for a while, so what a message holds besides what is looked for is passed over.

    keeper -> zygote  {"do": "fork"}             have a worker forked; with its end of its own channel
    zygote -> keeper  {"say": "ready", ...}      what can be told before it touches anything: workers can be forked
                      {"say": "forked", ...}     there is a worker
                      {"say": "not forked", ...} there is none, and why
    keeper -> worker  {"do": "go", ...}          begin; with the lock on the data directory and the log's file
                      {"do": "connection", ...}  take this connection; with its socket and its tape
                      {"do": "all"}              those were the connections that stood already
                      {"do": "hand over"}        settle what was read, and end; the pods stay
                      {"do": "stop", ...}        end in good order, and ODS with it
                      {"do": "beat"}             the keeper has heard a beat: it does not stand still
                      {"do": "refused", ...}     the restart that was asked for is not done, and why
                      {"do": "accepted"}         the trial of this version is over
    worker -> keeper  {"say": "serving"}         it has started
                      {"say": "beat"}            its hub turns
                      {"say": "entered", ...}    a new connection is known, and its begin told of
                      {"say": "closed", ...}     a connection has ended, and nothing of it is in flight
                      {"say": "restart"}         the operator asks for a new worker

Promises never to wait, at either end: what cannot be sent now is kept and sent later, in order.
"""

import _socket
import array
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

#: The most that a message may have. Bytes, files.
MESSAGE_BYTES = 60 * 1024
MOST_FILES = 4
#: These mean that it can be sent later. The last: more files travel than the system lets its user have open.
_LATER = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EINTR}

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other end is gone."""


class Channel:
    """One end of it."""

    def __init__(self, sock: _socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()

    def fileno(self) -> int:
        """To be waited for: there is something to be received, or room for what is unsent."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` is to be called again."""
        return bool(self._unsent)

    def send(self, message: Message, files: Sequence[int] = ()) -> None:
        """Send now or later; until then the files must stay open. To an end that is gone nothing is sent."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MESSAGE_BYTES or len(files) > MOST_FILES:
            raise ValueError(f"a message of {len(data)} bytes with {len(files)} files")
        self._unsent.append((data, tuple(files)))
        self.flush()

    def flush(self) -> None:
        """Send what goes."""
        while self._unsent:
            data, files = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
            try:
                self._socket.sendmsg([data], rights)
            except OSError as error:
                if error.errno in _LATER:
                    return
                self._unsent.clear()  # the other end is gone: that is seen by whoever receives
                return
            self._unsent.popleft()

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message with its files, None where there is none yet. Raises ChannelClosed.

        What is no JSON object comes as an empty message: an end that has gone mad must not take the other with it.
        """
        size_bytes = socket.CMSG_SPACE(MOST_FILES * array.array("i").itemsize)
        try:
            data, rights, _, _ = self._socket.recvmsg(MESSAGE_BYTES, size_bytes, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ChannelClosed from error
        files = _files(rights)
        if not data:
            _close(files)
            raise ChannelClosed
        return _parsed(data), files

    def close(self) -> None:
        """Close this end. May be called twice."""
        self._unsent.clear()
        self._socket.close()


def _files(rights: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def _parsed(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)
