"""How a command reaches the buffer: through the ODS that runs, else by opening the file itself.

That is decided for each page anew, and the lock on the data directory is held for one page only: an ODS may start or
stop in the middle, however long a reader of the command's output takes.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from ods.buffer import Buffer
from ods.buffer_file import BufferFile
from ods.control_client import ask
from ods.directory import DataDirectory
from ods.disk import Disk
from ods.errors import BufferUnavailable, SettingsError, Unreachable
from ods.waiting import WaitingPage, waiting

#: How long a running ODS may take for a page, which waits for its disk. Seconds.
ANSWER_SECONDS = 30.0
#: An ODS that starts, or stops, holds the lock while its control socket does not answer; it is asked so often.
ATTEMPTS = 5
#: A command puts nothing new into the buffer.
NO_LIMIT_BYTES = 2**62

T = TypeVar("T")


class BufferAccess:
    """The buffer of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = DataDirectory(directory)
        #: Whether an ODS did the last page.
        self.is_running = False

    def page(self, path: str, *, read: Callable[[bytes], T], do: Callable[[Buffer], T], method: str = "GET") -> T:
        """Ask the ODS for this path and read its answer, or where none runs, do the same here. Raises Unreachable.

        `read` raises ValueError, KeyError or TypeError where it does not understand the answer.
        """
        for _ in range(ATTEMPTS):
            answer = self._answer(path, method)
            if answer is not None:
                self.is_running = True
                return _understood(*answer, read)
            try:
                page = self._do(do)
            except SettingsError as error:
                trouble = error
            else:
                self.is_running = False
                return page
        raise Unreachable(f"{trouble}, but it does not answer on its control socket") from trouble

    def _answer(self, path: str, method: str) -> tuple[int, bytes] | None:
        """What the running ODS answers; None where none listens."""
        try:
            return ask(self._directory.path, path, method=method, timeout_seconds=ANSWER_SECONDS)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the ODS of {self._directory.path} does not answer: {error}") from error

    def _do(self, do: Callable[[Buffer], T]) -> T:
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
            return do(buffer)
        except BufferUnavailable as error:
            raise Unreachable(error.reason) from error
        finally:
            buffer.close()
            self._directory.close()


def waiting_pages(directory: Path) -> Iterator[WaitingPage]:
    """All that waits in the buffer of a data directory now. Raises Unreachable."""
    access = BufferAccess(directory)
    after: int | None = 0
    until: int | None = None
    while after is not None:
        page = _waiting_page(access, after, until)
        yield page
        after, until = page.next_after, page.until


def _waiting_page(access: BufferAccess, after: int, until: int | None) -> WaitingPage:
    query = f"after={after}" + ("" if until is None else f"&until={until}")
    return access.page(
        f"/api/buffer?{query}", read=WaitingPage.from_json, do=lambda buffer: waiting(buffer, after, until)
    )


class _OthersFile(BufferFile):
    """A file that is not this process's to mend: what to do about damage is left to the ODS that owns it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, on_other=lambda: None)

    def move_aside(self, error: Exception) -> NoReturn:
        """Refuse."""
        self.close()
        raise BufferUnavailable(f"{self.path} cannot be read ({error}); ODS saves what it can when it starts")


def _understood(code: int, body: bytes, read: Callable[[bytes], T]) -> T:
    try:
        if code == 200:
            return read(body)
        reason = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        reason = "is it of another version?"
    raise Unreachable(f"ODS answers {code}: {reason}")
