"""The manifest beside an export: what was asked for, what came of it, and how to tell that the file is whole. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ods import __version__
from ods.export.tables import Block, Points
from ods.selection import MAX_NS, Selection

#: Changes when a reader of manifests would have to.
FORMAT = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Span:
    """How many rows, and the times of the first and the last, in nanoseconds since 1970."""

    rows: int = 0
    first_ns: int | None = None
    last_ns: int | None = None

    def add(self, rows: int, first_ns: int, last_ns: int) -> None:
        """Add rows between these times."""
        self.rows += rows
        self.first_ns = first_ns if self.first_ns is None else min(self.first_ns, first_ns)
        self.last_ns = last_ns if self.last_ns is None else max(self.last_ns, last_ns)

    def told(self) -> dict[str, object]:
        """For people and for programs."""
        return {
            "rows": self.rows,
            "first": time_text(self.first_ns),
            "last": time_text(self.last_ns),
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
        }


@dataclass(slots=True)
class Account:
    """What was written: all of it, by pod, and by name."""

    whole: Span = field(default_factory=Span)
    pods: dict[str, Span] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)

    def add(self, block: Block, rows: int) -> None:
        """Add a block that became so many rows."""
        first_ns, last_ns = int(block.times[0]), int(block.times[-1])
        self.whole.add(rows, first_ns, last_ns)
        self.pods.setdefault(block.pod, Span()).add(rows, first_ns, last_ns)
        if isinstance(block, Points):
            self.names.update(block.names)


def asked(what: str, selection: Selection, *, is_wide: bool) -> dict[str, object]:
    """What was asked for."""
    return {
        "what": what,
        "layout": "wide" if is_wide else "long",
        "pods": list(selection.pods),
        "names": list(selection.names),
        "from": time_text(selection.from_ns) if selection.from_ns else None,
        "to": time_text(selection.to_ns) if selection.to_ns < MAX_NS else None,
    }


def manifest(
    *,
    file: str,
    file_format: str,
    size_bytes: int,
    sha256: str,
    columns: Sequence[str],
    asked_for: Mapping[str, object],
    account: Account,
    source: Mapping[str, object],
    made_ns: int,
    more: Mapping[str, object],
) -> bytes:
    """As JSON, an object with a key a line."""
    told: dict[str, Any] = {
        "manifest": FORMAT,
        "file": file,
        "format": file_format,
        "bytes": size_bytes,
        "sha256": sha256,
        **account.whole.told(),
        "columns": list(columns),
        "asked": asked_for,
        "source": source,
        "pods": {pod: span.told() for pod, span in sorted(account.pods.items())},
        "names": dict(sorted(account.names.items())),
        **more,
        "made": time_text(made_ns),
        "ods_version": __version__,
    }
    return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()


def time_text(time_ns: int | None) -> str | None:
    """A time as in the files, to the nanosecond."""
    if time_ns is None:
        return None
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"
