"""The restarts of the worker: how many there were, and what the latest were for."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

#: So many of the latest are told of.
LATEST = 20
#: The cause of a restart that is none of a death; and how the cause begins of one that ends a version's trial.
ASKED_FOR, FAILED = "restart asked for", "the new version failed: "


class Restarts:
    """Kept by the keeper, told to each worker."""

    def __init__(self) -> None:
        self.total = 0
        self._latest: deque[dict[str, Any]] = deque(maxlen=LATEST)
        self._untold = 0

    def add(self, cause: str) -> None:
        """Another worker follows one that ended so."""
        self.total += 1
        self._untold += 1
        self._latest.append({"time_ns": time.time_ns(), "cause": cause})

    def take_over(self, told: Mapping[str, Any]) -> None:
        """Go on from what a keeper before told (`as_dict`)."""
        self.total, self._untold = int(told["total"]), int(told["untold"])
        self._latest.extend(told["latest"])

    def are_told(self) -> None:
        """A worker has started that knows of all of them."""
        self._untold = 0

    def as_dict(self) -> dict[str, Any]:
        """What a worker is told: `untold` of the latest are to be told to the operator."""
        return {"total": self.total, "latest": list(self._latest), "untold": min(self._untold, len(self._latest))}
