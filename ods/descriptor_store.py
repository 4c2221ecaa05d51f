"""systemd's file descriptor store: it holds the pods' connections and their tapes too, so that they outlive the keeper.

sd_notify(3), `FDSTORE=1`: a service gives systemd duplicates of its files, by names; when it is started again, however
it ended, it is handed them (sd_listen_fds(3)). When the service is stopped and not started again, systemd closes them.
The unit says how many it takes (`FileDescriptorStoreMax=`), later versions of systemd tell it in `$FDSTORE`. Another
service manager, or a unit that takes none, passes over what it is told here.

A connection is `c` with its number, its tape `t` with the same. Never waits: what systemd does not take at once is
told later, in order; of a connection that has ended before it was told of, nothing is told.
"""

import array
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence

from ods import tape_owner
from ods.keeper_state import ConnectionState
from ods.systemd import Systemd

log = logging.getLogger(__name__)

#: As many as the unit has systemd take (`conf/systemd/ods.service`): two for each pod.
MOST = 8192


class DescriptorStore:
    """What systemd holds for the keeper. `address` is that of systemd, None where there is none: then nothing is."""

    def __init__(self, address: str | None, *, names: Iterable[str] = (), most: int = MOST) -> None:
        self._address = address if most else None
        self._most = most
        #: Everything that was, or is to be, given to systemd.
        self._names = set(names)
        self._unsaid: deque[tuple[str, int | None]] = deque()
        self._teller: socket.socket | None = None
        self._is_full_said = False

    @staticmethod
    def of(given: Systemd, *, names: Iterable[str] = ()) -> "DescriptorStore":
        """That of the systemd which started this process."""
        most = MOST if given.most_stored is None else given.most_stored
        return DescriptorStore(given.notify_address, names=names, most=most)

    @property
    def is_there(self) -> bool:
        """Whether connections outlive this process."""
        return self._address is not None

    @property
    def has_unsaid(self) -> bool:
        """Whether `flush` is to be called again."""
        return bool(self._unsaid)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what systemd holds."""
        return tuple(sorted(self._names))

    def put(self, kind: str, number: int, file: int) -> None:
        """Have systemd hold a file, now or later; until it is removed the file must stay open."""
        name = f"{kind}{number}"
        if self._address is None or name in self._names:
            return
        if len(self._names) >= self._most:
            if not self._is_full_said:
                self._is_full_said = True
                log.warning("systemd holds %d files for ODS; further connections end if the keeper dies", self._most)
            return
        self._names.add(name)
        self._unsaid.append((name, file))
        self.flush()

    def take_up(self, stored: Sequence[tuple[str, int]]) -> list[ConnectionState]:
        """The connections among what systemd has held for a keeper that is gone; it lets go of what is of no use."""
        files: dict[str, dict[int, int]] = {"c": {}, "t": {}}
        useless = []
        for name, file in stored:
            self._names.add(name)
            kind, number = name[:1], int(name[1:])
            if number in files[kind]:
                useless.append((name, file))  # no keeper gives a name twice
            else:
                files[kind][number] = file
        found = []
        for number, file in sorted(files["c"].items()):
            tape = files["t"].pop(number, None)
            if (connection := _connection(number, file, tape)) is not None:
                found.append(connection)
            else:
                useless += [(f"c{number}", file)] + ([] if tape is None else [(f"t{number}", tape)])
        useless += [(f"t{number}", tape) for number, tape in files["t"].items()]
        self.let_go(useless)
        return found

    def let_go(self, stored: Sequence[tuple[str, int]]) -> None:
        """Close what systemd has handed over, and have it let go of it too; where no keeper takes it up."""
        for name, file in stored:
            os.close(file)
            self._names.discard(name)
            if self._address is not None:
                self._unsaid.append((name, None))
        self.flush()

    def remove(self, kind: str, number: int) -> None:
        """Have systemd let go of it."""
        name = f"{kind}{number}"
        if name not in self._names:
            return
        self._names.discard(name)
        before = len(self._unsaid)
        self._unsaid = deque(each for each in self._unsaid if each[0] != name) if before else self._unsaid
        if len(self._unsaid) == before:
            self._unsaid.append((name, None))
        self.flush()

    def flush(self) -> None:
        """Tell what can be told."""
        while self._unsaid and self._address is not None:
            name, file = self._unsaid[0]
            try:
                self._tell(name, file)
            except BlockingIOError:
                return
            except OSError as error:  # nobody is there any more, or never was
                log.debug("systemd: not told of %s: %s", name, error)
            self._unsaid.popleft()

    def _tell(self, name: str, file: int | None) -> None:
        """One datagram, at once or not at all. Raises OSError."""
        if self._teller is None:
            self._teller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._teller.setblocking(False)
        address = str(self._address)
        address = "\0" + address[1:] if address.startswith("@") else address
        if file is None:
            self._teller.sendmsg([f"FDSTOREREMOVE=1\nFDNAME={name}".encode()], [], 0, address)
            return
        # FDPOLL=0: what a pod sent before it reset its connection is still to be read from it.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
        self._teller.sendmsg([f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}".encode()], rights, 0, address)


def _connection(number: int, file: int, tape: int | None) -> ConnectionState | None:
    """What is known of a connection; None where not even whose it is."""
    address, is_entered, port = None, True, 0
    try:
        address, is_entered = (None, True) if tape is None else tape_owner.read(tape)
    except OSError as error:
        log.debug("tape %d: %s", number, error)
    try:
        with socket.socket(fileno=os.dup(file)) as held:
            address, port = held.getpeername()[:2]
    except OSError as error:  # it was reset; the tape tells whose it was
        log.debug("connection %d: %s", number, error)
    if address is None:
        return None
    return ConnectionState(number=number, socket=file, tape=tape, address=(address, port), is_new=not is_entered)
