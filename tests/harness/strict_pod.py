"""Pods as strict as a real one: they never read, never reconnect, and brake when sends fail.

The pod's own logging client gives each send a second; after four that failed it declares Emergency, and its run ends.
"""

import contextlib
import random
import socket
import struct
import threading
import time

from harness.loopback import unread_bytes
from harness.oracle import Oracle
from harness.wait import wait_until

SEND_TIMEOUT_SECONDS = 1.0
#: So many failed sends are an Emergency.
EMERGENCY_SENDS = 4
#: State of a connection in Linux's TCP_INFO.
ESTABLISHED = 1


class StrictPod:
    """One pod, sending at a steady rate until it is told to stop, cut into pieces anywhere."""

    def __init__(
        self, port: int, address: str, oracle: Oracle, *, records_per_second: float, burst_records: int
    ) -> None:
        self.address = address
        self.failed_sends = 0
        self.longest_send_seconds = 0.0
        self.is_in_emergency = False
        self._port = port
        self._oracle = oracle
        self._pause_seconds = burst_records / records_per_second
        self._burst_records = burst_records
        self._random = random.Random(address)
        self._socket = socket.socket()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pod {address}", daemon=True)

    def start(self) -> None:
        self._socket.settimeout(SEND_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.bind((self.address, 0))
        self._socket.connect(("127.0.0.1", self._port))
        self._thread.start()

    def stop(self) -> None:
        """Send no more; the connection stands."""
        self._stopping.set()
        self._thread.join()

    @property
    def stands(self) -> bool:
        """Whether its one connection is as it was at the begin."""
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED

    def wait_until_read(self) -> None:
        """Return when ODS has read everything."""
        port = self._socket.getsockname()[1]
        wait_until(
            lambda: unread_bytes(server_port=self._port, client_port=port) == 0, timeout_seconds=30, what="ODS to read"
        )

    def close(self) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            data = b"".join(self._oracle.next_lines(self.address, self._burst_records))
            cut = self._random.randrange(1, len(data))
            if not (self._send(data[:cut]) and self._send(data[cut:])):
                return
            due += self._pause_seconds
            self._stopping.wait(max(0.0, due - time.monotonic()))

    def _send(self, data: bytes) -> bool:
        """Send all of it, in one try after the other; false is the end of the run."""
        view = memoryview(data)
        while view:
            began = time.monotonic()
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                self.failed_sends += 1
                self.is_in_emergency = self.failed_sends >= EMERGENCY_SENDS
            except OSError:
                self.is_in_emergency = True
            self.longest_send_seconds = max(self.longest_send_seconds, time.monotonic() - began)
            if self.is_in_emergency:
                return False
        return True


class Fleet:
    """Strict pods, all at once. Use it as a context manager; `finish` before its end judges the run."""

    def __init__(self, port: int, oracle: Oracle, *, pods: int, records_per_second: float = 200) -> None:
        self.pods = [
            StrictPod(port, f"127.0.3.{number}", oracle, records_per_second=records_per_second, burst_records=10)
            for number in range(1, pods + 1)
        ]

    def __enter__(self) -> "Fleet":
        for pod in self.pods:
            pod.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.close()

    def finish(self) -> None:
        """Stop, and return when ODS has read all. Raises AssertionError where a pod has braked, or was cut off."""
        for pod in self.pods:
            pod.stop()
        braked = [(pod.address, pod.failed_sends) for pod in self.pods if pod.is_in_emergency]
        assert not braked, f"Emergency: {braked}"
        assert all(pod.stands for pod in self.pods), "a pod's connection has ended"
        for pod in self.pods:
            pod.wait_until_read()

    @property
    def longest_send_seconds(self) -> float:
        return max(pod.longest_send_seconds for pod in self.pods)
