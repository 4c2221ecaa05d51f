"""Several simulated pods at once: who comes from which address, and how they start and stop together."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from ods.simulator.pod import Endpoint, PodReport


class Playable(Protocol):
    """A pod of a simulation."""

    def stop(self) -> None:
        """Send no more; `play` then ends."""

    async def play(self) -> PodReport:
        """Play to the end, once."""


#: Told about each pod as it ends.
Announce = Callable[[PodReport], None]


def resolve(host: str, port: int) -> Endpoint:
    """Where ODS is; OSError when there is no such host. IPv4 comes first, as ODS listens there by default."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = min(found, key=lambda candidate: candidate[0] != socket.AF_INET)
    return Endpoint(family=family, address=address)


def can_choose_sources(endpoint: Endpoint) -> bool:
    """Whether each pod can have an address of its own: only Linux answers for all of 127.0.0.0/8 unasked."""
    is_loopback = endpoint.family == socket.AF_INET and ipaddress.ip_address(str(endpoint.address[0])).is_loopback
    return sys.platform == "linux" and is_loopback


def endpoints_of_pods(endpoint: Endpoint, *, pods: int, first_address: ipaddress.IPv4Address) -> Iterator[Endpoint]:
    """The endpoint of each pod, its source counted up from the first address where that is possible."""
    for index in range(pods):
        source = str(first_address + index) if can_choose_sources(endpoint) else None
        yield replace(endpoint, source=source)


async def play_all(pods: Sequence[Playable], announce: Announce) -> list[PodReport]:
    """Play all pods to their end. Being cancelled (Ctrl-C) stops them early, with their reports."""
    tasks = [asyncio.create_task(_play(pod, announce)) for pod in pods]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for pod in pods:
            pod.stop()
        await asyncio.wait(tasks)
    return [task.result() for task in tasks]


async def _play(pod: Playable, announce: Announce) -> PodReport:
    report = await pod.play()
    announce(report)
    return report
