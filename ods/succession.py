"""The keeper goes on with its own code as it is now: the same process, number, children and open files (`execve`).

A keeper that could not go on would end the run of every pod. So a process of the new code is started first, the probe:
it has to import all that a keeper needs, to read the options, and to read what this keeper would leave to it
(`ods.keeper_state`). Only where it did, and has other code than this keeper runs, the keeper becomes the new one, in a
quiet moment. The worker goes on meanwhile: its channel stays, and so do the pods' connections; those that come
wait in the kernel for the 0.2 s that it takes.
"""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ods.keeper_state import KeeperState
from ods.zygote_process import code_in

log = logging.getLogger(__name__)

#: The command that a keeper becomes; before the options come the file of the state, and for a probe `--try`.
COMMAND = (sys.executable, "-P", "-m", "ods", "keeper")
#: How long a probe may take. Seconds.
PROBE_SECONDS = 10.0
#: The most of its words that is read. Bytes.
SAID_BYTES = 64 * 1024
#: These wait until the new keeper can act on them.
HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: These are not the keeper's for as long as it lives: which of them are imported depends on how it was started.
_PASSED_OVER = ("ods.__main__", "ods.commands.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe came to: refused with a reason, or the code that it has."""

    reason: str = ""
    code: str = ""


def code() -> str:
    """What tells the code that this process runs, and its Python, from any other."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix}".encode())
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if (name == "ods" or name.startswith("ods.")) and not name.startswith(_PASSED_OVER) and file:
            digest.update(name.encode() + b"\0" + Path(file).read_bytes())
    return digest.hexdigest()


class Probe:
    """A process of the new code that tries what this keeper would leave to it. Raises OSError."""

    def __init__(self, state: KeeperState, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._began_at = time.monotonic()
        self._is_late = False
        self._said = os.memfd_create("ods-probe")
        left = leave(state)
        try:
            self._process = subprocess.Popen(
                [*COMMAND, "--try", str(left), *argv],
                env=code_in(environment),
                pass_fds=[left],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        except OSError:
            os.close(self._said)
            raise
        finally:
            os.close(left)

    @property
    def process_id(self) -> int:
        """Of a process that is this one's child."""
        return self._process.pid

    def look(self, now: float) -> Verdict | None:
        """What it came to, once it has; it is not waited for longer than it may take. Then it is over."""
        status = self._process.poll()
        if status is None:
            if now - self._began_at > PROBE_SECONDS and not self._is_late:
                self._is_late = True
                self._process.kill()
            return None
        said = os.pread(self._said, SAID_BYTES, 0).decode("utf-8", "replace").strip().splitlines()
        os.close(self._said)
        last = said[-1].strip() if said else ""
        if self._is_late:
            return Verdict(reason=f"its keeper was not ready in {PROBE_SECONDS:g} s")
        if status:
            return Verdict(reason=f"its keeper fails with status {status}" + (f" ({last})" if last else ""))
        return _verdict(last)


def _verdict(said: str) -> Verdict:
    try:
        return Verdict(code=str(json.loads(said)["code"]))
    except (ValueError, KeyError, TypeError):
        return Verdict(reason=f"its keeper says {said!r}")


def leave(state: KeeperState) -> int:
    """A file in memory that holds the state."""
    file = os.memfd_create("ods-keeper")
    data = memoryview(state.dump())
    while data:
        data = data[os.write(file, data) :]
    return file


def read(file: int) -> bytes:
    """What is in such a file. Raises OSError."""
    return os.pread(file, os.fstat(file).st_size, 0)


class Succession:
    """Of one keeper: whether its code is tried, or is to be taken anew."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = argv
        self._environment = environment
        self._code = code()
        self._probe: Probe | None = None
        #: Whether there is new code, which was tried, and is to be used in the next quiet moment.
        self.is_due = False

    @property
    def is_trying(self) -> bool:
        """Whether a probe is under way."""
        return self._probe is not None

    @property
    def processes(self) -> set[int]:
        """The children of this process that are this one's to look after."""
        return set() if self._probe is None else {self._probe.process_id}

    def try_out(self, state: KeeperState) -> None:
        """Begin to try the code as it is now. Raises OSError."""
        self.is_due = False
        self._probe = Probe(state, self._argv, self._environment)

    def look(self, now: float) -> Verdict | None:
        """What the probe came to, once; then new code is due unless `forget` is called."""
        verdict = None if self._probe is None else self._probe.look(now)
        if verdict is not None:
            self._probe = None
            self.is_due = not verdict.reason and verdict.code != self._code
        return verdict

    def forget(self) -> None:
        """The restart that this belonged to is refused: the keeper stays what it is."""
        self.is_due = False

    def succeed(self, state: KeeperState) -> None:
        """Become the new keeper. Returns only where that could not be done, which is said, and nothing has changed."""
        self.is_due = False
        left = leave(state)
        files = [left, *state.files]
        log.info("keeper: its own code is taken anew; %d connections stay", len(state.connections))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        try:
            for file in files:
                os.set_inheritable(file, True)  # none is given to any other process: from here on none is started
            os.execve(COMMAND[0], [*COMMAND, str(left), *self._argv], code_in(self._environment))
        except OSError as error:
            log.error("keeper: it could not take its own code anew, and goes on as it was: %s", error)
        for file in files:
            os.set_inheritable(file, False)
        os.close(left)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
