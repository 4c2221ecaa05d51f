"""The keeper, where it takes its own code anew: `ods keeper FILE OPTIONS`, which a keeper becomes (`ods.succession`).

FILE holds what the keeper before left (`ods.keeper_state`), OPTIONS are those of `ods serve`. With `--try` before them
nothing is done but to see whether this code could go on with it; then it says which code it is.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence

from ods import keeper_log, systemd
from ods.descriptor_store import DescriptorStore
from ods.directory import DataDirectory
from ods.errors import SettingsError, StateRefused
from ods.keeper import Keeper, bound_by
from ods.keeper_state import KeeperState, differs
from ods.options import parse
from ods.settings import Settings
from ods.succession import code, read


def main(argv: Sequence[str]) -> int:
    """Go on. Returns the exit status."""
    is_probe = argv[0] == "--try"
    file, *options = argv[is_probe:]
    try:
        state = KeeperState.load(read(int(file)))
        os.close(int(file))
        if is_probe:
            return _probe(state, options)
        return _go_on(state, options)
    except (SettingsError, StateRefused, OSError) as error:
        print(f"ods: {error}", file=sys.stderr)
        return 2


def _probe(state: KeeperState, options: Sequence[str]) -> int:
    """Say whether this code and the configuration as it is now could go on. Raises SettingsError."""
    if (reason := differs(state.bound, bound_by(parse(options, os.environ)))) is not None:
        raise SettingsError(reason)
    print(json.dumps({"code": code()}))
    return 0


def _go_on(state: KeeperState, options: Sequence[str]) -> int:
    """Be the keeper. Raises OSError."""
    settings = _settings(state, options)
    keeper_log.set_up(log_format=settings.log_format, is_verbose=settings.verbose)
    environment = systemd.for_worker(os.environ)
    given = systemd.take(os.environ)
    store = DescriptorStore.of(given, names=state.stored)
    directory = DataDirectory(settings.directory)
    if state.lock is not None:
        directory.adopt(state.lock)
    with socket.socket(fileno=state.listening) as server:
        server.setblocking(False)
        keeper = Keeper(settings, options, environment, listening=server, directory=directory, store=store)
        keeper.go_on_from(state)
        return keeper.run()


def _settings(state: KeeperState, options: Sequence[str]) -> Settings:
    """The options; where they have become wrong since they were tried, what matters of them, for it is too late."""
    try:
        settings = parse(options, os.environ)
    except SettingsError as error:
        print(f"ods: {error}", file=sys.stderr)
    else:
        if differs(state.bound, bound_by(settings)) is None:
            return settings
    return parse([f"--{name}={value}" for name, value in state.bound.items()], {})
