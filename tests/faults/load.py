"""Pods under a fault: one that reads its replies, one that waits for each, and one as real pods are, which reads none.

They send without end, until they are told to stop or ODS is gone. As a real pod's, their sends time out after a second;
one that does is noted, and that pod sends no more.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.ods_process import OdsProcess
from harness.pod_client import SEND_TIMEOUT_SECONDS, PodClient
from harness.wait import wait_until

from faults.oracle import Oracle

#: How long ODS may take to listen. Seconds.
CONNECT_SECONDS = 20.0
#: How long a pod that waits for each reply waits for one. Seconds.
REPLY_SECONDS = 30.0


@dataclass(frozen=True)
class Kind:
    """How a pod behaves: bursts of so many lines, so many times a second."""

    address: str
    burst_lines: int
    bursts_per_second: float
    reads_replies: bool = True
    #: Whether it sends its next burst only once all was answered.
    waits_for_replies: bool = False

    def times(self, factor: int) -> "Kind":
        """The same pod with larger bursts, unless it waits for each reply."""
        return self if self.waits_for_replies else replace(self, burst_lines=self.burst_lines * factor)


#: The pods of the cells and of the kills.
PODS = (
    Kind("127.0.2.1", burst_lines=20, bursts_per_second=20),
    Kind("127.0.2.2", burst_lines=1, bursts_per_second=50, waits_for_replies=True),
    Kind("127.0.2.3", burst_lines=20, bursts_per_second=20, reads_replies=False),
)


class Load:
    """All pods of one life of ODS. `stop` takes in what they were answered."""

    def __init__(self, ods: OdsProcess, oracle: Oracle, kinds: Sequence[Kind] = PODS) -> None:
        self._senders = [_Sender(ods, oracle, kind) for kind in kinds]

    @property
    def longest_send_seconds(self) -> float:
        """The longest that a send of one of them waited."""
        return max(sender.client.longest_send_seconds for sender in self._senders)

    @property
    def latencies_seconds(self) -> list[float]:
        """From a line's send to its reply, for all pods that read replies."""
        return [latency for sender in self._senders for latency in sender.client.reply_latencies_seconds()]

    @property
    def troubles(self) -> list[str]:
        """Why pods gave up."""
        return [sender.trouble for sender in self._senders if sender.trouble]

    def start(self) -> None:
        """Begin to send, from when ODS listens."""
        for sender in self._senders:
            sender.start()

    def stop_sending(self) -> None:
        """The pods send no more, and stay connected. May be called twice."""
        for sender in self._senders:
            sender.stopped.set()
        for sender in self._senders:
            sender.join()

    def wait_for_replies(self) -> None:
        """Return when all is answered. Raises AssertionError where it is not."""
        for sender in self._senders:
            if sender.kind.reads_replies:
                sender.client.wait_for_replies(sender.client.lines_sent, timeout_seconds=REPLY_SECONDS)

    def stop(self) -> None:
        """End the connections. May be called twice."""
        self.stop_sending()
        for sender in self._senders:
            sender.close()


class _Sender(threading.Thread):
    """A pod."""

    def __init__(self, ods: OdsProcess, oracle: Oracle, kind: Kind) -> None:
        super().__init__(name=f"pod {kind.address}", daemon=True)
        self.kind = kind
        self.stopped = threading.Event()
        #: Why it sends no more, where that is the fault of ODS.
        self.trouble = ""
        self.client = PodClient(ods.port, address=kind.address)
        self._ods = ods
        self._oracle = oracle
        self._first = oracle.sent_count(kind.address)
        self._is_connected = self._is_closed = False

    def run(self) -> None:
        try:
            if self._connect():
                self._send()
        except ConnectionError:
            return  # ODS was killed
        except TimeoutError:
            self.trouble = f"a send of {self.kind.address} waited {SEND_TIMEOUT_SECONDS:g} s: the pod brakes"
        except AssertionError as error:
            self.trouble = str(error)

    def close(self) -> None:
        """End the connection, take in its replies."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_connected and self.kind.reads_replies and not self._ods.is_running:
            self.client.has_ended.wait(SEND_TIMEOUT_SECONDS)  # what ODS had sent before it was killed is still read
        self.client.close()
        self._oracle.take_replies(self.kind.address, self.client.replies, first=self._first)

    def _connect(self) -> bool:
        """Try until ODS listens; whether it did before the end."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self.stopped.is_set() and time.monotonic() < deadline:
            try:
                self.client.connect()
            except OSError:
                self.client = PodClient(self._ods.port, address=self.kind.address)
                self.stopped.wait(0.02)
            else:
                self._is_connected = True
                if self.kind.reads_replies:
                    self.client.read_replies()
                return True
        return False

    def _send(self) -> None:
        kind, client = self.kind, self.client
        began, bursts = time.monotonic(), 0
        while not self.stopped.wait(max(0.0, began + bursts / kind.bursts_per_second - time.monotonic())):
            client.send(b"".join(self._oracle.next_lines(kind.address, kind.burst_lines)))
            bursts += 1
            if kind.waits_for_replies:
                self._wait_for_replies()

    def _wait_for_replies(self) -> None:
        wait_until(
            lambda: len(self.client.replies) >= self.client.lines_sent or self.client.has_ended.is_set(),
            timeout_seconds=REPLY_SECONDS,
            what=f"the replies to {self.kind.address}",
        )
