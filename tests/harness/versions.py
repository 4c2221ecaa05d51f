"""Versions of ODS in folders of their own, for tests of upgrades."""

import shutil
from pathlib import Path

from harness.ods_process import REPOSITORY


class Versions:
    """Copies of ODS in folders of their own, and the link by which it is started: where that leads is what counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.link = folder / "ods"

    def add(self, version: str, *, changed: str = "", module: str = "service") -> None:
        """Make a copy with this version; `changed` is appended to a module, by default one that the worker imports."""
        copy = self._folder / version
        copy.mkdir(parents=True)
        shutil.copy(REPOSITORY / "ods_server.py", copy)
        shutil.copytree(REPOSITORY / "ods", copy / "ods", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "ods" / "__init__.py").write_text(f'__version__ = "{version}"\n')
        with (copy / "ods" / f"{module}.py").open("a") as file:
            file.write(changed)

    def use(self, version: str) -> None:
        """Have the link lead to this version."""
        new = self._folder / "new-link"
        new.symlink_to(version)
        new.rename(self.link)
