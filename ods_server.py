#!/usr/bin/env python3
"""Start the OpenLoop Data Shuttle: `./server.py [OPTIONS]` is `ods serve [OPTIONS]`.

Works with any Python 3.11 that has the dependencies, and otherwise with the environment that `make` made beside this
file, so that nobody has to activate anything at the track.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn


def _folder(file: Path) -> Path:
    """The folder of this file, behind `server.py` and other links to it; a link to the folder itself stays one.

    So a version of ODS can be put in the place of another, and `ods restart` finds it.
    """
    while file.is_symlink():
        file = file.parent / file.readlink()
    return file.parent


HERE = _folder(Path(__file__).absolute())
ENVIRONMENT_PYTHON = HERE / ".venv" / "bin" / "python"
DEPENDENCIES = (
    "gevent",
    "influxdb",
    "sqlite_utils",
    "configargparse",
    "prometheus_client",
    "psutil",
    "requests",
    "rich",
)


def main() -> int:
    """Serve, in this interpreter or in the project's own environment. Returns the exit status."""
    if sys.version_info < (3, 11) or any(importlib.util.find_spec(name) is None for name in DEPENDENCIES):
        _serve_in_environment()
    sys.path.insert(0, str(HERE))
    from ods.__main__ import main as ods

    return ods(["serve", *sys.argv[1:]])


def _serve_in_environment() -> NoReturn:
    inside = Path(sys.prefix) == HERE / ".venv"
    if inside or not ENVIRONMENT_PYTHON.exists():
        print(f"ods: its dependencies are not installed; run: make -C {HERE} run", file=sys.stderr)
        sys.exit(2)
    os.execv(ENVIRONMENT_PYTHON, [str(ENVIRONMENT_PYTHON), str(HERE / "ods_server.py"), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
