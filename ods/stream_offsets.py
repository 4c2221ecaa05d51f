"""How far a connection has been read and written, as the kernel counts it: exact whenever its reader was killed.

What arrived, less what waits to be read, was read; what was confirmed by the peer and what waits for that, was written.
Linux alone tells both. Urgent data breaks the first; nobody sends ODS any.

The end of a stream counts as one byte more that arrived. Whether it did shows in the state of the connection, but for
one that was reset: its error is another one then. Where a write has taken the error away, the reader's own note of how
far it had come tells (`read_to`); were it killed within that last read too, a byte that never was could be taken for
the last one of the stream.
"""

import errno
import fcntl
import socket
import struct
import termios

#: States of a connection whose peer has ended its side: TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING.
_ENDED = {6, 8, 9, 11}
#: That of one that is gone, as by a reset.
_GONE = 7
#: Where Linux's `struct tcp_info` holds `tcpi_bytes_acked`, followed by `tcpi_bytes_received`. Bytes.
_COUNTS_AT = 120
_INFO_BYTES = _COUNTS_AT + 16


def consumed(sock: socket.socket, read_to: int) -> int:
    """The offset up to which the stream was read; `read_to` is what the reader noted last. Raises OSError."""
    received = _info(sock)[2]
    while True:
        waiting = _waiting(sock, termios.FIONREAD)
        state, _, again = _info(sock)
        if again == received:
            break
        received = again
    offset = received - waiting
    has_ended = state in _ENDED or (state == _GONE and offset > read_to and _had_ended(sock, offset == read_to + 1))
    return offset - has_ended


def written(sock: socket.socket) -> int:
    """The offset up to which replies were given to the kernel. Nobody may write meanwhile. Raises OSError."""
    confirmed = _info(sock)[1]
    while True:
        waiting = _waiting(sock, termios.TIOCOUTQ)
        again = _info(sock)[1]
        if again == confirmed:
            return confirmed + waiting
        confirmed = again


def _had_ended(sock: socket.socket, seems_so: bool) -> bool:
    """Whether a stream that was reset had ended before; `seems_so` where that cannot be known any more."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error == errno.EPIPE or (not error and seems_so)


def _info(sock: socket.socket) -> tuple[int, int, int]:
    """State, bytes confirmed by the peer, bytes received."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO_BYTES:
        raise OSError("this kernel does not count the bytes of a connection")
    confirmed, received = struct.unpack_from("=QQ", info, _COUNTS_AT)
    return info[0], confirmed, received


def _waiting(sock: socket.socket, queue: int) -> int:
    (count,) = struct.unpack("=i", fcntl.ioctl(sock.fileno(), queue, bytes(4)))
    return int(count)
