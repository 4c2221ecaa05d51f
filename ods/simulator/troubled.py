"""A pod with a fault: plays an episode of it again and again while the simulation lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

from ods.simulator.pod import PodReport, SimulatedPod


class TroubledPod:
    """Begins an episode every so many seconds, the first at once; one that takes longer delays the next."""

    def __init__(
        self, *, name: str, episode: Callable[[], Sequence[SimulatedPod]], every_seconds: float, seconds: float
    ) -> None:
        self._name = name
        self._episode = episode
        self._every_seconds = every_seconds
        self._seconds = seconds
        self._connections: Sequence[SimulatedPod] = ()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Begin no further episode, and end this one early."""
        self._stopped.set()
        for connection in self._connections:
            connection.stop()

    async def play(self) -> PodReport:
        """Play all episodes; returns what was sent in them and answered, with the first thing that went wrong."""
        clock = asyncio.get_running_loop().time
        begun, next_at, report = clock(), 0.0, PodReport(name=self._name)
        while next_at < self._seconds and not self._stopped.is_set():
            self._connections = self._episode()
            report = reduce(add, await asyncio.gather(*(each.play() for each in self._connections)), report)
            next_at = max(next_at + self._every_seconds, clock() - begun)
            await self._wait_until(begun + min(next_at, self._seconds))
        return report

    async def _wait_until(self, moment: float) -> None:
        try:
            async with asyncio.timeout_at(moment):
                await self._stopped.wait()
        except TimeoutError:
            return
