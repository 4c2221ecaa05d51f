"""How the commands of ODS speak with the ODS that runs: HTTP on the control socket in its data directory."""

import http.client
import os
import socket
from pathlib import Path

from ods.directory import DataDirectory

#: How long to wait for an answer. Seconds.
TIMEOUT_SECONDS = 5.0


def ask(
    directory: Path, path: str, *, method: str = "GET", timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[int, bytes]:
    """The HTTP status and the body that the ODS of this directory answers. Raises OSError or HTTPException."""
    connection = _UnixConnection(directory, timeout_seconds)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, directory: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._directory = DataDirectory(directory)

    def connect(self) -> None:
        address, folder = self._directory.control_address()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(address)
        finally:
            if folder is not None:
                os.close(folder)
