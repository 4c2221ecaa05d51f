"""What ODS does for the operator of its machine while it runs, asked for on the control socket alone.

The other commands of ODS reach the buffer by it, for a file has one connection in one process. Whatever may wait for
the disk is a job of the buffer's thread; the ledger moves as soon as the job is done, whether or not anybody still
waits for the answer.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from gevent.event import AsyncResult

from ods import quarantine
from ods.buffer import Buffer
from ods.errors import BufferUnavailable
from ods.keeper_link import KeeperLink
from ods.ledger import Fate, Ledger
from ods.marking import Marking
from ods.marks import mark_text
from ods.quarantine import Page, Selection
from ods.waiting import waiting
from ods.worker import Worker

QUARANTINE = "/api/quarantine/"
RESTART = "/api/restart"
MARK = "/api/mark"
BUFFER = "/api/buffer"

_METHODS = {**dict.fromkeys(quarantine.READING, "GET"), **dict.fromkeys(quarantine.CHANGING, "POST")}
_FATES: Mapping[str, Fate] = {"retry": Fate.PENDING, "drop": Fate.DROPPED}


class Control:
    """Notes marks, and does one page of an action on the quarantine per request.

    `backlog_grew` is told of every change of the quarantine.
    """

    def __init__(
        self,
        *,
        buffer: Buffer,
        buffer_worker: Worker,
        ledger: Ledger,
        marking: Marking | None = None,
        link: KeeperLink | None = None,
        backlog_grew: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._worker = buffer_worker
        self._ledger = ledger
        self._marking = marking
        self._link = link
        self._backlog_grew = backlog_grew

    def answer(self, method: str, path: str, query: str) -> tuple[int, bytes]:
        """The HTTP status and the JSON body for a request to `RESTART`, `MARK` or a path below `QUARANTINE`."""
        if path == RESTART:
            return self._restart(method)
        if path == MARK:
            return self._mark(method, query)
        if path == BUFFER:
            return self._waiting(method, query)
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
        """Answered when another worker is about to take over, or is not going to; GET: whether one is on trial."""
        if method == "GET":
            return 200, json.dumps({"is_on_trial": self._link is not None and self._link.is_on_trial}).encode() + b"\n"
        if method != "POST":
            return 405, _error("restart is asked for by POST")
        if self._link is None:
            return 409, _error("this ODS runs without a keeper (--no-keeper): stop and start it")
        reason = self._link.ask_for_restart()
        return (202, b"{}\n") if reason is None else (409, _error(reason))

    def _waiting(self, method: str, query: str) -> tuple[int, bytes]:
        """A page of what waits in the buffer."""
        if method != "GET":
            return 405, _error("what waits is asked for by GET")
        try:
            given = parse_qs(query)
            after, until = int(given.get("after", ["0"])[-1]), given.get("until")
            page = self._worker.submit(waiting, self._buffer, after, None if until is None else int(until[-1])).get()
        except ValueError as error:
            return 400, _error(str(error))
        except BufferUnavailable as error:
            return 503, _error(error.reason)
        return 200, page.to_json()

    def _mark(self, method: str, query: str) -> tuple[int, bytes]:
        """Answered once a store has the mark, or is not going to have it soon (202)."""
        if method != "POST" or self._marking is None:
            return 405, _error("a mark is noted by POST")
        try:
            text = mark_text(parse_qs(query, errors="strict").get("text", [""])[-1])
        except ValueError as error:
            return 400, _error(str(error))
        noted = self._marking.note(text)
        if noted.fate is Fate.DROPPED:
            return 503, _error("neither InfluxDB nor the buffer takes it; it is at most in the recordings")
        told = {"time_ns": noted.time_ns, "text": text, "fate": noted.fate.value}
        return 202 if noted.fate is Fate.IN_FLIGHT else 200, json.dumps(told).encode() + b"\n"

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
