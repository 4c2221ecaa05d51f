"""The zygote: a process that has imported ODS and read its options, from which the keeper has each worker forked.

So a worker that follows one that died begins within milliseconds, however often that happens: nothing is imported, and
no file of code or configuration is read again. It is of the version and the configuration that ran before it, whatever
was pulled or edited in the meantime; those are taken at `ods restart`, which starts another zygote.

Of a process with threads, a fork takes one along, and the rest as it happens to be. So this process has one thread and
no hub of gevent; each worker makes its own. It touches no data, and listens to nobody but the keeper.

A worker is forked twice: the process between the two ends at once, so that the worker becomes a child of the keeper,
which sees it die and what of.
"""

import _socket
import contextlib
import gc
import os
import select
from pathlib import Path
from typing import Any

import gevent
from gevent import monkey

from ods.channel import Channel, ChannelClosed

#: What gevent has put others in the place of: these would make a hub.
_poll = monkey.get_original("select", "poll")
_fork = monkey.get_original("os", "fork")
_waitpid = monkey.get_original("os", "waitpid")


def serve(channel: int, **told: Any) -> int | None:
    """Fork a worker each time that the keeper asks for one. `told` is what it compares before the first.

    Returns in each worker, with the channel that is its own; and, when the keeper is gone or needs no more workers, in
    this process, with None.
    """
    be_alone()
    _name("ods-zygote")
    keeper, poll = Channel(_socket.socket(fileno=channel)), _poll()
    poll.register(channel, select.POLLIN)
    keeper.send({"say": "ready", **told})
    while True:
        poll.poll()
        try:
            while (received := keeper.receive()) is not None:
                message, files = received
                if message.get("do") == "fork" and files and _is_worker(keeper):
                    keeper.close()
                    _name("ods-worker")
                    return files[0]
                for file in files:
                    os.close(file)
        except ChannelClosed:
            return None


def be_alone() -> None:
    """Let go of the hub that an import has made, and share the memory of what was imported with all workers."""
    gevent.get_hub().destroy(destroy_loop=True)
    gc.collect()
    gc.freeze()


def _is_worker(keeper: Channel) -> bool:
    """Fork a worker, and tell of it. Returns whether this process is the worker."""
    ours, theirs = os.pipe()
    try:
        between = _fork()
    except OSError as error:
        os.close(ours)
        os.close(theirs)
        keeper.send({"say": "not forked", "reason": str(error)})
        return False
    if not between:
        os.close(ours)
        return _is_second(theirs)
    os.close(theirs)
    told = os.read(ours, 100).decode()
    os.close(ours)
    _waitpid(between, 0)
    keeper.send({"say": "forked", "id": int(told)} if told.isdecimal() else {"say": "not forked", "reason": told})
    return False


def _is_second(told: int) -> bool:
    """In the process between: fork once more, tell the worker's number, and end. Returns in the worker, with True."""
    try:
        worker = _fork()
    except OSError as error:
        os.write(told, str(error).encode()[:100])
        os._exit(1)
    if worker:
        os.write(told, str(worker).encode())
        os._exit(0)
    os.close(told)
    return True


def _name(name: str) -> None:
    """What `ps` and `top` call this process, which all began as one program."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)
