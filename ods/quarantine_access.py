"""How a command works on the quarantine, wherever the buffer is open (`ods.buffer_access`)."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ods.buffer import Buffer
from ods.buffer_access import BufferAccess
from ods.quarantine import ACTIONS, CHANGING, Page, Selection

#: For so long a page gives free space back; what is left is given back by the next one, or by ODS. An ODS that is
#: started meanwhile waits for the lock, for a second only. Seconds.
GIVE_BACK_SECONDS = 0.25


class QuarantineAccess:
    """The quarantine of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._access = BufferAccess(directory)

    @property
    def is_running(self) -> bool:
        """Whether an ODS did the last page."""
        return self._access.is_running

    def pages(self, action: str, selection: Selection) -> Iterator[Page]:
        """Do an action (`ods.quarantine.ACTIONS`), a page at a time. Raises Unreachable."""
        while True:
            page = self._page(action, selection)
            yield page
            if page.next_after is None:
                return
            selection = replace(selection, after=page.next_after, until=page.until)

    def _page(self, action: str, selection: Selection) -> Page:
        def do(buffer: Buffer) -> Page:
            page = ACTIONS[action](buffer, selection)
            deadline = time.monotonic() + GIVE_BACK_SECONDS
            while action in CHANGING and page.lines and buffer.give_back() and time.monotonic() < deadline:
                pass
            return page

        path = f"/api/quarantine/{action}?{selection.to_query()}"
        return self._access.page(path, method="POST" if action in CHANGING else "GET", read=Page.from_json, do=do)
