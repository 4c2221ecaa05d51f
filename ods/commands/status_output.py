"""Where `ods status` writes: a terminal gets a picture, a pipe gets lines, and programs get JSON."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from ods.status_view import plain
from ods.status_view.reading import Part
from ods.status_view.screen import Fitted, Screen

Snapshot = Mapping[str, Any]


class Follow(Protocol):
    """What is shown again and again. `trouble` says why the snapshot, where there is one, is an old one."""

    def show(self, snapshot: Snapshot, source: str, *, trouble: str = "") -> None: ...

    def refresh(self) -> None:
        """Draw what is shown once more: the terminal may have another size now."""


class Output:
    """Standard output, as what it is. `only_boot` shows why a pod does not boot, and nothing else."""

    def __init__(self, *, is_json: bool, only_boot: bool, environment: Mapping[str, str] = os.environ) -> None:
        self._is_json = is_json
        self._only_boot = only_boot
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # an old locale is no reason to fail
        self._console = _console(environment)
        self._is_picture = self._console.is_terminal and not self._console.is_dumb_terminal and not is_json

    def show(self, snapshot: Snapshot, source: str) -> None:
        """Once."""
        if self._is_json:
            _print(_json(snapshot, indent=2))
        elif self._is_picture:
            self._console.print(Screen(Part(snapshot), source=source, only_boot=self._only_boot))
        else:
            _print("\n".join(plain.lines(Part(snapshot), source=source, only_boot=self._only_boot)))

    @contextmanager
    def following(self) -> Iterator[Follow]:
        """Again and again: on a terminal in the same place, else below each other."""
        if not (self._is_picture and sys.stdout.isatty()):
            yield _Below(is_json=self._is_json, only_boot=self._only_boot)
            return
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            yield _InPlace(live, only_boot=self._only_boot)


class _Below:
    def __init__(self, *, is_json: bool, only_boot: bool) -> None:
        self._is_json = is_json
        self._only_boot = only_boot

    def show(self, snapshot: Snapshot, source: str, *, trouble: str = "") -> None:
        if self._is_json:
            _print(_json({"error": trouble} if trouble else snapshot))
        else:
            _print(self._line(Part(snapshot), trouble))

    def refresh(self) -> None:
        """Lines stay as they are."""

    def _line(self, snapshot: Part, trouble: str) -> str:
        if trouble:
            return plain.trouble_line(trouble, time.time_ns())
        return plain.one_line(snapshot, only_boot=self._only_boot)


class _InPlace:
    def __init__(self, live: Live, *, only_boot: bool) -> None:
        self._live = live
        self._only_boot = only_boot

    def show(self, snapshot: Snapshot, source: str, *, trouble: str = "") -> None:
        view = Screen(
            Part(snapshot),
            source=source,
            only_boot=self._only_boot,
            stale=trouble,
            most_pods=self._live.console.height,
        )
        self._live.update(Fitted(view), refresh=True)

    def refresh(self) -> None:
        self._live.refresh()


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Called where the error is handled: it is for the command to say what it means."""
        raise  # noqa: PLE0704


def _console(environment: Mapping[str, str]) -> Console:
    """Without colour where it is not wanted (https://no-color.org), and never with a meaning for foreign text."""
    color = None if environment.get("NO_COLOR") else "auto"
    return _Console(color_system=color, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]


def _json(snapshot: Snapshot, *, indent: int | None = None) -> str:
    """ASCII alone, and none of it a control character."""
    return json.dumps(snapshot, indent=indent).replace("\x7f", "\\u007f")


def _print(text: str) -> None:
    print(text, flush=True)
