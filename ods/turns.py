"""Turns at reading: the pods that send much are read one after the other, a few milliseconds in each round of the hub.

gevent runs everything that is ready before it looks at the sockets again. With fifty pods that flood, each read and
decoded whenever it is readable, such a round would last a second; and it takes a few rounds until a batch is stored, a
reply is sent, a pod is accepted. So the pods that send much wait here, in order. One that sends little does not: it is
read by the poller (`ods.poller`).
"""

import time
from collections import deque

import gevent
from gevent.hub import Waiter

#: For how long turns are given in one round. Seconds.
ROUND_SECONDS = 0.005


class Turns:
    """Gives turns in the order in which they were asked for; belongs to the hub."""

    def __init__(self) -> None:
        self._waiting: deque[Waiter[None]] = deque()
        self._timer = gevent.get_hub().loop.timer(0.0)

    def wait(self) -> None:
        """Wait for a turn, in the next round of the hub or a later one."""
        waiter: Waiter[None] = Waiter()
        self._waiting.append(waiter)
        if not self._timer.active:
            self._timer.start(self._give)
        waiter.get()

    def _give(self) -> None:
        """One round, in which nobody has two turns."""
        self._timer.stop()
        deadline = time.monotonic() + ROUND_SECONDS
        for _ in range(len(self._waiting)):
            # The pod's greenlet runs now, until it waits again, here or for something else.
            self._waiting.popleft().switch(None)
            if time.monotonic() >= deadline:
                break
        if self._waiting and not self._timer.active:
            self._timer.start(self._give)
