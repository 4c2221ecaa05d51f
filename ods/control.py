"""What ODS does for the operator of its machine while it runs, asked for on the control socket alone.

The other commands of ODS reach the buffer by it, for a file has one connection in one process. Whatever may wait for
the disk is a job of the buffer's thread; the ledger moves as soon as the job is done, whether or not anybody still
waits for the answer.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from gevent.event import AsyncResult

from ods import quarantine
from ods.buffer import Buffer
from ods.errors import BufferUnavailable
from ods.keeper_link import KeeperLink
from ods.ledger import Fate, Ledger
from ods.quarantine import Page, Selection
from ods.worker import Worker

QUARANTINE = "/api/quarantine/"
RESTART = "/api/restart"

_METHODS = {**dict.fromkeys(quarantine.READING, "GET"), **dict.fromkeys(quarantine.CHANGING, "POST")}
_FATES: Mapping[str, Fate] = {"retry": Fate.PENDING, "drop": Fate.DROPPED}


class Control:
    """Does one page of an action on the quarantine per request. `backlog_grew` is told of every change."""

    def __init__(
        self,
        *,
        buffer: Buffer,
        buffer_worker: Worker,
        ledger: Ledger,
        link: KeeperLink | None = None,
        backlog_grew: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._worker = buffer_worker
        self._ledger = ledger
        self._link = link
        self._backlog_grew = backlog_grew

    def answer(self, method: str, path: str, query: str) -> tuple[int, bytes]:
        """The HTTP status and the JSON body for a request to `RESTART` or to a path below `QUARANTINE`."""
        if path == RESTART:
            return self._restart(method)
        action = path.removeprefix(QUARANTINE)
        if action not in _METHODS:
            return 404, _error(f"there are {', '.join(_METHODS)}")
        if method != _METHODS[action]:
            return 405, _error(f"{action} is asked for by {_METHODS[action]}")
        try:
            done = self._worker.submit(self._page, action, Selection.from_query(query))
        except ValueError as error:
            return 400, _error(str(error))
        done.rawlink(lambda done: self._count(action, done))
        try:
            return 200, done.get()[1]
        except BufferUnavailable as error:
            return 503, _error(error.reason)

    def _restart(self, method: str) -> tuple[int, bytes]:
        """Answered when another worker is about to take over, or is not going to."""
        if method != "POST":
            return 405, _error("restart is asked for by POST")
        if self._link is None:
            return 409, _error("this ODS runs without a keeper (--no-keeper): stop and start it")
        reason = self._link.ask_for_restart()
        return (202, b"{}\n") if reason is None else (409, _error(reason))

    def _page(self, action: str, selection: Selection) -> tuple[Page, bytes]:
        """On the buffer's thread."""
        page = quarantine.ACTIONS[action](self._buffer, selection)
        return page, page.to_json()

    def _count(self, action: str, done: AsyncResult) -> None:
        if action in _FATES and done.successful() and done.value[0].lines:
            self._ledger.move(done.value[0].points, Fate.QUARANTINED, _FATES[action])
            self._backlog_grew()


def _error(reason: str) -> bytes:
    error: dict[str, Any] = {"error": reason}
    return json.dumps(error).encode() + b"\n"
