"""A wall clock that steps, for one process, while it runs. Its monotonic clock goes on."""

from pathlib import Path

from harness.preload import SharedPage


class SteppedClock:
    """The wall clock of one process; it is right until `step`."""

    def __init__(self, library: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._library = library
        self._page = SharedPage(folder / "stepped_clock.page", code="q")

    @property
    def environment(self) -> dict[str, str]:
        """What the process is to be started with."""
        return {"LD_PRELOAD": str(self._library), "STEPPED_CLOCK_PAGE": str(self._page.path)}

    @property
    def ahead_ns(self) -> int:
        """How far it is ahead of the real clock; negative where it is behind."""
        return self._page[0]

    def step(self, seconds: float) -> None:
        """Step forward, or with a negative number back."""
        self._page[0] += round(seconds * 1e9)
