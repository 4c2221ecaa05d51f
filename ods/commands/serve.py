"""`ods serve`, which is what `./server.py` runs: all of ODS, until it is told to stop.

This process becomes the keeper (`ods.keeper`), so nothing of gevent is imported; or it becomes all of ODS, where
`--no-keeper` says so, and where the system is not Linux.
"""

import importlib
import logging
import os
import resource
import sys
from collections.abc import Sequence

from ods import failpoints, keeper_log, systemd
from ods.descriptor_store import DescriptorStore
from ods.directory import DataDirectory
from ods.errors import SettingsError
from ods.keeper import Keeper
from ods.options import parse
from ods.settings import Settings
from ods.sockets import listening

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Serve. Returns the exit status: 0 stopped, 1 failed, 2 a wrong option."""
    _open_standard_files()
    try:
        settings = parse(argv, os.environ)
        failpoints.check(os.environ.get(failpoints.VARIABLE))
        _raise_limit_of_files()
        if settings.has_keeper and _can_keep():
            return _keep(settings, argv)
    except SettingsError as error:
        print(f"ods: {error}", file=sys.stderr)
        return 2
    status: int = importlib.import_module("ods.commands.worker").alone(settings)
    return status


def _keep(settings: Settings, argv: Sequence[str]) -> int:
    """Be the keeper. Raises SettingsError."""
    keeper_log.set_up(log_format=settings.log_format, is_verbose=settings.verbose)
    environment = systemd.for_worker(os.environ)
    given = systemd.take(os.environ)
    store = DescriptorStore.of(given)
    directory = DataDirectory(settings.directory)
    directory.open()
    try:
        with listening(settings.listener, inherited=given.pods_socket) as server:
            found = store.take_up(given.stored)
            if found:
                log.info("keeper: %d connections that systemd has held are taken up", len(found))
            return Keeper(
                settings,
                argv,
                environment,
                listening=server,
                directory=directory,
                store=store,
                connections=found,
            ).run()
    finally:
        directory.close()


def _can_keep() -> bool:
    """Whether the system has what the keeper needs: Linux, and no sandbox that forbids it. Says so where not."""
    try:
        for file in (os.pidfd_open(os.getpid()), os.memfd_create("ods-try")):
            os.close(file)
    except (AttributeError, OSError) as error:
        print(f"ods: no keeper here, so pods would notice the end of ODS: {error}", file=sys.stderr)
        return False
    return True


def _open_standard_files() -> None:
    """Where stdin, stdout or stderr is closed, no other file must get its number: what is logged would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, which is this


def _raise_limit_of_files() -> None:
    """As many open files as the system lets us have: a thousand pods must not meet the usual 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return  # what it was is what there is
