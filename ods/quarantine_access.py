"""How a command reaches the quarantine: through the ODS that runs, else by opening the buffer itself.

That is decided for each page anew, and the lock on the data directory is held for one page only: an ODS may start or
stop in the middle, however long a reader of the command's output takes.
"""

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from ods.buffer import Buffer
from ods.buffer_file import BufferFile
from ods.control_client import ask
from ods.directory import DataDirectory
from ods.disk import Disk
from ods.errors import BufferUnavailable, SettingsError, Unreachable
from ods.quarantine import ACTIONS, CHANGING, Page, Selection

#: How long a running ODS may take for a page, which waits for its disk. Seconds.
ANSWER_SECONDS = 30.0
#: An ODS that starts, or stops, holds the lock while its control socket does not answer; it is asked so often.
ATTEMPTS = 5
#: For so long a page gives free space back; what is left is given back by the next one, or by ODS. An ODS that is
#: started meanwhile waits for the lock, for a second only. Seconds.
GIVE_BACK_SECONDS = 0.25
#: A command puts nothing new into the buffer.
NO_LIMIT_BYTES = 2**62


class QuarantineAccess:
    """The quarantine of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = DataDirectory(directory)
        #: Whether an ODS did the last page.
        self.is_running = False

    def pages(self, action: str, selection: Selection) -> Iterator[Page]:
        """Do an action (`ods.quarantine.ACTIONS`), a page at a time. Raises Unreachable."""
        while True:
            page = self._page(action, selection)
            yield page
            if page.next_after is None:
                return
            selection = replace(selection, after=page.next_after, until=page.until)

    def _page(self, action: str, selection: Selection) -> Page:
        for _ in range(ATTEMPTS):
            answer = self._answer(action, selection)
            if answer is not None:
                self.is_running = True
                return _understood(*answer)
            try:
                page = self._open(action, selection)
            except SettingsError as error:
                trouble = error
            else:
                self.is_running = False
                return page
        raise Unreachable(f"{trouble}, but it does not answer on its control socket") from trouble

    def _answer(self, action: str, selection: Selection) -> tuple[int, bytes] | None:
        """What the running ODS answers; None where none listens."""
        method = "POST" if action in CHANGING else "GET"
        path = f"/api/quarantine/{action}?{selection.to_query()}"
        try:
            return ask(self._directory.path, path, method=method, timeout_seconds=ANSWER_SECONDS)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the ODS of {self._directory.path} does not answer: {error}") from error

    def _open(self, action: str, selection: Selection) -> Page:
        """Do a page in this process. Raises SettingsError where an ODS holds the lock."""
        if not self._directory.buffer.exists():
            raise Unreachable(f"there is no buffer in {self._directory.path}: is it the data directory of an ODS?")
        try:
            self._directory.lock()
        except OSError as error:
            raise Unreachable(f"the data directory cannot be used: {error}") from error
        buffer = Buffer(self._directory.buffer, limit_bytes=NO_LIMIT_BYTES, disk=Disk(self._directory.path))
        buffer.file = _OthersFile(self._directory.buffer)
        try:
            page = ACTIONS[action](buffer, selection)
            deadline = time.monotonic() + GIVE_BACK_SECONDS
            while action in CHANGING and page.lines and buffer.give_back() and time.monotonic() < deadline:
                pass
            return page
        except BufferUnavailable as error:
            raise Unreachable(error.reason) from error
        finally:
            buffer.close()
            self._directory.close()


class _OthersFile(BufferFile):
    """A file that is not this process's to mend: what to do about damage is left to the ODS that owns it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, on_other=lambda: None)

    def move_aside(self, error: Exception) -> NoReturn:
        """Refuse."""
        self.close()
        raise BufferUnavailable(f"{self.path} cannot be read ({error}); ODS saves what it can when it starts")


def _understood(code: int, body: bytes) -> Page:
    try:
        if code == 200:
            return Page.from_json(body)
        reason = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        reason = "is it of another version?"
    raise Unreachable(f"ODS answers {code}: {reason}")
