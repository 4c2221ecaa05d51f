"""All of ODS but the keeper: `ods worker`, which the keeper has forked, and `ods serve --no-keeper`, which has none."""

from gevent import monkey

monkey.patch_all()  # before anything else imports sockets or threads

import dataclasses  # noqa: E402
import faulthandler  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

import gevent  # noqa: E402

from ods.unwanted import without  # noqa: E402

with without("pandas", "numpy"):  # `influxdb` and `sqlite_utils` would import them: 80 MB, threads, half a second
    from ods.service import Service

from ods import __version__, failpoints, logs, systemd, zygote  # noqa: E402
from ods.descriptor_store import DescriptorStore  # noqa: E402
from ods.errors import SettingsError  # noqa: E402
from ods.keeper_link import Go, KeeperLink  # noqa: E402
from ods.options import parse  # noqa: E402
from ods.settings import Settings  # noqa: E402

log = logging.getLogger(__name__)

#: When the garbage collector looks for cycles: after so many new objects, and how often among older ones. Chunks make
#: none, but a flood makes thousands of objects in each round; at Python's 700 a tenth of the hub's time went there.
GARBAGE = (50_000, 20, 50)


def main(argv: Sequence[str]) -> int:
    """Be the zygote, and in its forks the worker. Returns the exit status.

    `argv` is the channel to the keeper, then that of `ods serve`.
    """
    channel, *options = argv
    try:
        settings = parse(options, os.environ)
    except SettingsError as error:
        print(f"ods: {error}", file=sys.stderr)
        return 2
    listener = settings.listener
    own = zygote.serve(
        int(channel), version=__version__, host=listener.host, port=listener.port, directory=str(settings.directory)
    )
    if own is None:
        return 0
    link = KeeperLink(own)
    link.start()
    go = link.wait_for_go()
    if go is None:
        return 0
    settings = dataclasses.replace(settings, directory=go.directory)
    status = _serve(settings, link, go)
    os._exit(status)  # all is stored and said; to take the interpreter down would keep the successor waiting


def alone(settings: Settings) -> int:
    """Serve without a keeper. Returns the exit status."""
    try:
        return _serve(settings)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # one more must not change the exit status
            signal.signal(number, signal.SIG_IGN)


def _serve(settings: Settings, link: KeeperLink | None = None, go: Go | None = None) -> int:
    gc.set_threshold(*GARBAGE)
    handler = logs.set_up(log_format=settings.log_format, is_verbose=settings.verbose)
    try:
        failpoints.arm(failpoints.of_worker(os.environ, is_first=go is None or go.is_first))
        faulthandler.enable(sys.__stderr__ or 2)  # systemd's watchdog ends with SIGABRT what stands still: say where
        gevent.get_hub().exception_stream = logs.LoggedLines()
        given = systemd.take(os.environ)
        if given.stored:
            held = sum(name.startswith("c") for name, _ in given.stored)
            log.warning("systemd has held %d connections for a keeper; they end, as there is none", held)
            DescriptorStore.of(given).let_go(given.stored)
        service = Service(settings, systemd=given, link=link, go=go)
        gevent.signal_handler(signal.SIGTERM, service.request_stop if link is None else link.hand_over)
        if link is None:
            gevent.signal_handler(signal.SIGINT, service.request_stop)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
                gevent.signal_handler(signal.SIGHUP, service.request_stop)
        return service.run()
    except SettingsError as error:
        handler.flush_for(1.0)
        print(f"ods: {error}", file=sys.stderr)
        return 2
    finally:
        handler.flush_for(1.0)
