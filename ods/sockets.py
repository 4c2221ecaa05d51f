"""The socket that pods connect to: bound here, or handed over by the service manager, and tuned.

The keeper has it, or an ODS without a keeper; so nothing of gevent is in here.
"""

import logging
import socket
import sys

from ods.errors import SettingsError
from ods.settings import ListenerSettings

log = logging.getLogger(__name__)

#: How many connections may wait to be accepted.
ACCEPT_QUEUE = 1024
#: What the kernel takes in for a connection before its pod has to wait (Linux doubles it, for its own use). Bytes.
#: When it is full, the pod may send again only after nearly all of it was read (the kernel joins what waits to one
#: piece, and frees a piece as a whole), so a large one makes the sends of pods that flood long. A small one makes a pod
#: slow on a network of long delays: this still takes 200 KB/s over 200 ms.
RECEIVE_BUFFER_BYTES = 32 * 1024
#: The largest segment that a pod is told to send: that of Ethernet. On loopback it would be 64 KiB, for which the pod's
#: own kernel takes in 4 MiB, and when they are full lets no send go on before a third of them has been read. Bytes.
SEGMENT_BYTES = 1460


def listening(settings: ListenerSettings, *, inherited: int | None = None) -> socket.socket:
    """The socket that pods connect to, which does not block. Raises SettingsError.

    `inherited` is the file descriptor of one that listens already and stays when ODS ends: pods that connect meanwhile
    are accepted at the next start. It is listened on whatever the settings say.
    """
    host, port = settings.host, settings.port
    try:
        server = _bound(host, port) if inherited is None else socket.socket(fileno=inherited)
        server.setblocking(False)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    if inherited is not None:
        _tune(server)
        used_host, used_port = server.getsockname()[:2]
        if port not in (0, used_port) or host not in ("0.0.0.0", used_host):
            log.warning(
                "the socket that ODS was handed is used: %s port %d; not --host, --port", *(used_host, used_port)
            )
    return server


def _bound(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    server = socket.socket(family, kind, protocol)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _tune(server)
        server.bind(address)
        server.listen(ACCEPT_QUEUE)
    except OSError:
        server.close()
        raise
    return server


def _tune(server: socket.socket) -> None:
    """Set what every connection has from its begin."""
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)]
    if sys.platform == "linux":  # elsewhere it can be set on connections only, where it is too late
        options.append((socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES))
    for option in options:
        try:
            server.setsockopt(*option)
        except OSError as error:  # a socket that was handed over may be of a kind that lacks it
            log.debug("option %d of the socket that pods connect to: %s", option[1], error)
