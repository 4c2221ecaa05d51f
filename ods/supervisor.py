"""Watches over the greenlets that ODS runs by: one that dies unexpectedly takes the service down, loudly.

A server that accepts pods and does nothing with what they send would be worse than none.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

log = logging.getLogger(__name__)


class Supervisor:
    """Spawns named greenlets, and knows when one has failed."""

    def __init__(self) -> None:
        self._greenlets: set[gevent.Greenlet] = set()
        self.ended = Event()
        self.has_failed = False

    def spawn(self, name: str, function: Callable[..., Any], *args: Any) -> gevent.Greenlet:
        """Run a function in a greenlet of this name; what it raises ends the service."""
        greenlet = gevent.Greenlet(function, *args)
        greenlet.name = name
        greenlet.link(self._ended)
        self._greenlets.add(greenlet)
        greenlet.start()
        return greenlet

    def stop(self) -> None:
        """End every greenlet that still runs."""
        with contextlib.suppress(gevent.Timeout):
            gevent.killall(list(self._greenlets), block=True, timeout=1.0)

    def _ended(self, greenlet: gevent.Greenlet) -> None:
        self._greenlets.discard(greenlet)
        if not greenlet.successful() and not isinstance(greenlet.exception, gevent.GreenletExit):
            self.fail(greenlet.name, greenlet.exception)

    def fail(self, name: str, error: BaseException | None) -> None:
        """End the service: something that it runs by has failed."""
        log.critical("%s has failed: %r; ODS stops", name, error, exc_info=error)
        self.has_failed = True
        self.ended.set()
