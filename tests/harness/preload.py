"""Small libraries in C that stand before the C library of one process, steered by the test through a shared page."""

import mmap
import shutil
import subprocess
import sys
from pathlib import Path

_SOURCES = Path(__file__).parent


def lacking() -> str:
    """What this machine lacks to build and preload such a library, as advice; empty where it lacks nothing."""
    if sys.platform != "linux":
        return "faults are injected with LD_PRELOAD, on Linux only"
    if shutil.which("cc") is None:
        return "no C compiler on this machine: install Debian's packages gcc and libc6-dev to inject faults"
    return ""


def build(name: str, folder: Path) -> Path:
    """Compile `name`.c of this folder into `folder`; returns the library. Raises CalledProcessError."""
    library = folder / f"{name}.so"
    source = _SOURCES / f"{name}.c"
    subprocess.run(["cc", "-std=gnu11", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class SharedPage:
    """Integers that the test and the preloaded library both see. `code` is a struct code: `i` or `q`."""

    def __init__(self, path: Path, *, code: str) -> None:
        self.path = path
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._values = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("B").cast(code)

    def __getitem__(self, index: int) -> int:
        return int(self._values[index])

    def __setitem__(self, index: int, value: int) -> None:
        self._values[index] = value
