"""Stands between pods and ODS, and writes down what each pod sent: what a test compares with was not told by ODS."""

import contextlib
import socket
import threading
from collections import defaultdict

from harness.wait import wait_until

PIECE_BYTES = 65536
#: How long a pod's connection may last; a thread that waits longer has lost its pod.
PATIENCE_SECONDS = 120.0


class Tee:
    """Passes on every byte, from the address that the pod has itself. Use it as a context manager."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sent: dict[str, list[bytes]] = defaultdict(list)
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> "Tee":
        threading.Thread(target=self._accept, name="tee", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def sent(self) -> dict[str, bytes]:
        """Return what each address has sent, once every connection so far has ended."""
        wait_until(
            lambda: not any(thread.is_alive() for thread in self._threads),
            timeout_seconds=PATIENCE_SECONDS,
            what="the pods to leave",
        )
        return {address: b"".join(pieces) for address, pieces in self._sent.items()}

    def _accept(self) -> None:
        while True:
            try:
                pod, (address, _) = self._listener.accept()
            except OSError:
                return
            ods = socket.create_connection(("127.0.0.1", self._target), source_address=(address, 0))
            for source, target, pieces in ((pod, ods, self._sent[address]), (ods, pod, None)):
                thread = threading.Thread(target=_pass_on, args=(source, target, pieces), name=address, daemon=True)
                self._threads.append(thread)
                thread.start()


def _pass_on(source: socket.socket, target: socket.socket, pieces: list[bytes] | None) -> None:
    """Until the source ends; then the target's side of it ends too."""
    source.settimeout(PATIENCE_SECONDS)
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE_BYTES):
            if pieces is not None:
                pieces.append(data)
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
