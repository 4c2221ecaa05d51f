"""A pod that goes on sending, and reads its replies, for as long as a test makes trouble."""

import threading
import time

from harness.oracle import Oracle
from harness.pod_client import PodClient

#: How long the replies to what was sent are waited for.
REPLIES_TIMEOUT_SECONDS = 60.0


class Stream:
    """Sends at a steady rate from `__enter__` to `finish`; then every record has its reply, and the oracle knows it."""

    def __init__(
        self,
        port: int,
        oracle: Oracle,
        *,
        address: str = "127.0.2.1",
        lines_per_second: float = 5000,
        burst_lines: int = 50,
    ) -> None:
        self.pod = PodClient(port, address=address).read_replies()
        self._oracle = oracle
        self._burst_lines = burst_lines
        self._burst_seconds = burst_lines / lines_per_second
        self._first = oracle.sent_count(address)
        self._is_finishing = threading.Event()
        self._failure: Exception | None = None
        self._sender = threading.Thread(target=self._send, name=f"stream of {address}", daemon=True)

    def __enter__(self) -> "Stream":
        self.pod.connect()
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_sending()
        self.pod.close()

    @property
    def sent(self) -> int:
        """How many records were sent so far."""
        return self.pod.lines_sent

    @property
    def replies(self) -> int:
        """How many replies came so far."""
        return len(self.pod.replies)

    def finish(self) -> None:
        """Send no more, and have each reply judged. Raises what a send has raised: it had to wait for a second."""
        self._stop_sending()
        if self._failure is not None:
            raise self._failure
        replies = self.pod.wait_for_replies(self.pod.lines_sent, timeout_seconds=REPLIES_TIMEOUT_SECONDS)
        self._oracle.judge(self.pod.address, replies, first=self._first)

    def longest_wait_for_a_reply_seconds(self) -> float:
        return max(self.pod.reply_latencies_seconds(), default=0.0)

    def _stop_sending(self) -> None:
        self._is_finishing.set()
        self._sender.join(timeout=10)

    def _send(self) -> None:
        due = time.monotonic()
        while not self._is_finishing.wait(max(0.0, due - time.monotonic())):
            due += self._burst_seconds
            lines = self._oracle.next_lines(self.pod.address, self._burst_lines)
            try:
                self.pod.send(b"".join(lines))
            except OSError as error:
                self._failure = error
                return
