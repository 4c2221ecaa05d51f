"""`ods serve`, which is what `./server.py` runs: all of ODS, until it is told to stop."""

from gevent import monkey

monkey.patch_all()  # before anything else imports sockets or threads

import faulthandler  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

import gevent  # noqa: E402

from ods import failpoints, logs, systemd  # noqa: E402
from ods.errors import SettingsError  # noqa: E402
from ods.options import parse  # noqa: E402
from ods.service import Service  # noqa: E402
from ods.settings import Settings  # noqa: E402


def main(argv: Sequence[str]) -> int:
    """Serve. Returns the exit status: 0 stopped, 1 failed, 2 a wrong option."""
    try:
        settings = parse(argv, os.environ)
        failpoints.arm(os.environ.get(failpoints.VARIABLE))
    except SettingsError as error:
        print(f"ods: {error}", file=sys.stderr)
        return 2
    handler = logs.set_up(log_format=settings.log_format, is_verbose=settings.verbose)
    try:
        return _serve(settings)
    except SettingsError as error:
        handler.flush_for(1.0)
        print(f"ods: {error}", file=sys.stderr)
        return 2
    finally:
        handler.flush_for(1.0)


def _serve(settings: Settings) -> int:
    faulthandler.enable(sys.__stderr__ or 2)  # systemd's watchdog ends with SIGABRT what stands still: say where
    _raise_limit_of_files()
    gevent.get_hub().exception_stream = logs.LoggedLines()
    service = Service(settings, systemd=systemd.take(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, service.request_stop)
    return service.run()


def _raise_limit_of_files() -> None:
    """As many open files as the system lets us have: a thousand pods must not meet the usual 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logs.log.debug("limit of open files: %s", error)
