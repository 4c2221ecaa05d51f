"""A replay to a server as if the pods were there: all of them at once, from its begin to its summary."""

import asyncio
import contextlib
import ipaddress
import math
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice

from ods import playback
from ods.errors import SettingsError
from ods.pods import ODS
from ods.recorded import Segment, Tally
from ods.replay.meter import Meter
from ods.replay.player import Pace, Player, Report
from ods.replay.request import AsPods, Request, Shown, as_told
from ods.replay.timeline import TimedLine, timeline
from ods.selection import Selection
from ods.simulator.fleet import can_choose_sources, resolve
from ods.simulator.pod import Endpoint

#: How often progress is looked at. Seconds.
SHOW_SECONDS = 0.2
#: So many pods' failures are told one by one.
TOLD_FAILURES = 10
#: All pods are read at once: what they may have read of their recordings together, and one at least. Bytes.
READ_BYTES, PIECE_BYTES = 16 * 1024 * 1024, 8 * 1024

DONE, INCOMPLETE, INTERRUPTED = 0, 1, 130


@dataclass(slots=True)
class _Totals:
    """All passes together."""

    passes: int = 0
    sent: int = 0
    left_out: int = 0
    failures: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        self.sent += report.sent
        self.left_out += report.left_out
        self.failures += bool(report.failure)
        self.answers.update(report.answers)

    @property
    def unanswered(self) -> int:
        return self.sent - self.answers.total()


def replay(request: Request, shown: Shown) -> tuple[list[str], int]:
    """Replay; returns the summary and the exit status. Raises SettingsError for what was asked wrongly, and OSError."""
    target = request.target
    assert isinstance(target, AsPods)
    try:
        endpoint = resolve(target.host, target.port)
    except (OSError, UnicodeError) as error:
        raise OSError(f"cannot find {target.host!r}: {getattr(error, 'strerror', None) or error}") from error
    _raise_limit_of_files()
    return asyncio.run(_Replay(request, target, endpoint, shown).run())


class _Replay:
    def __init__(self, request: Request, target: AsPods, endpoint: Endpoint, shown: Shown) -> None:
        self._request = request
        self._target = target
        self._endpoint = endpoint
        self._shown = shown
        self._stopped = asyncio.Event()
        self._tally = Tally(shown.say)
        self._totals = _Totals()
        self._meter = Meter([], Selection(), self._tally)
        self._players: list[Player] = []

    async def run(self) -> tuple[list[str], int]:
        """Play, again and again where that is asked for; returns the summary and the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped.set)
        begun = time.monotonic()
        selection = self._request.selection()
        while True:
            by_pod = _by_pod(self._request.segments(selection))
            if not by_pod and not self._totals.passes:
                self._shown.say("the recordings hold nothing of what is selected that a pod could have sent")
                return [], INCOMPLETE
            sent = self._totals.sent
            await self._pass(by_pod, selection)
            is_over = self._totals.failures or self._totals.sent == sent
            if self._stopped.is_set() or not self._target.is_loop or is_over:
                break
        return self._summary(time.monotonic() - begun), self._status()

    def _status(self) -> int:
        totals, tally = self._totals, self._tally
        if self._stopped.is_set():
            return INTERRUPTED
        is_lost = totals.unanswered or totals.answers["not stored"] or totals.failures or not totals.sent
        return INCOMPLETE if is_lost or tally.unreadable_rows or tally.unreadable_files else DONE

    async def _pass(self, by_pod: Mapping[str, Sequence[Segment]], selection: Selection) -> None:
        """Play the recordings once."""
        if not self._totals.passes and len(by_pod) > 1 and not can_choose_sources(self._endpoint):
            self._shown.say(
                "pods have no addresses of their own (only on Linux, to a loopback address): the server sees one pod"
            )
        piece_bytes = max(PIECE_BYTES, min(playback.PIECE_BYTES, READ_BYTES // max(1, len(by_pod))))
        self._meter = Meter(list(chain(*by_pod.values())), selection, self._tally, piece_bytes=piece_bytes)
        endpoints = self._endpoints(list(by_pod))
        begins = {pod: _peeked(timeline(segments, self._meter)) for pod, segments in by_pod.items()}
        pace = Pace(min((begin[0] for begin in begins.values() if begin is not None), default=0), self._target.speed)
        self._players = [
            Player(pod, begin[1], endpoints[pod], self._stopped) for pod, begin in begins.items() if begin is not None
        ]
        showing = asyncio.create_task(self._show())
        try:
            reports = await asyncio.gather(*(player.play(pace) for player in self._players))
        finally:
            showing.cancel()
        self._players = []
        self._take(reports)

    def _take(self, reports: Sequence[Report]) -> None:
        self._totals.passes += 1
        for report in reports:
            self._totals.add(report)
            if report.failure and self._totals.failures <= TOLD_FAILURES:
                self._shown.say(f"pod {report.pod}: {report.failure}")

    def _endpoints(self, pods: Sequence[str]) -> dict[str, Endpoint]:
        """A pod that had an address of loopback has it again; the others are counted up."""
        if not can_choose_sources(self._endpoint):
            return dict.fromkeys(pods, self._endpoint)
        own = {pod for pod in pods if _is_loopback(pod)}
        others = [pod for pod in pods if pod not in own]
        counted = (str(self._target.first_address + number) for number in count())
        free = list(islice((address for address in counted if address not in own), len(others)))
        if not all(map(_is_loopback, free)):
            raise SettingsError(f"--first-address: {len(pods)} addresses from there leave 127.0.0.0/8")
        sources = {pod: pod for pod in own} | dict(zip(others, free, strict=True))
        return {pod: replace(self._endpoint, source=sources[pod]) for pod in pods}

    async def _show(self) -> None:
        while True:
            sent = self._totals.sent + sum(player.report.sent for player in self._players)
            note = f"pass {self._totals.passes + 1}" if self._target.is_loop else ""
            self._shown.show(done=self._meter.done, total=self._meter.total, count=sent, note=note)
            await asyncio.sleep(SHOW_SECONDS)

    def _summary(self, seconds: float) -> list[str]:
        totals, tally, answers = self._totals, self._tally, self._totals.answers
        how = "stopped: replayed" if self._stopped.is_set() else "replayed"
        passes = f", {totals.passes} times" if self._target.is_loop else ""
        speed = "as fast as it goes" if math.isinf(self._target.speed) else f"{self._target.speed:g} times as fast"
        unsent = tally.selected - totals.sent - totals.left_out
        lines = [
            f"{how} to {self._target.host}:{self._target.port}{passes}, {speed}, {seconds:.1f} s",
            *as_told(tally),
            f"{totals.left_out:>14,}  torn lines and marks, which cannot be sent",
            *([f"{unsent:>14,}  read and not sent"] if unsent else []),
            f"{totals.sent:>14,}  lines sent, of these:",
            f"{answers['OK']:>16,}  answered OK",
            f"{answers['ERROR']:>16,}  answered ERROR: bad value",
            f"{answers['FAIL']:>16,}  answered FAIL: not understood",
            f"{answers['not stored']:>16,}  answered ERROR: Not Stored",
            f"{totals.unanswered:>16,}  not answered",
        ]
        if answers["strange"]:
            lines.insert(-1, f"{answers['strange']:>16,}  answered something else: is this an ODS?")
        return lines


def _by_pod(segments: Sequence[Segment]) -> dict[str, list[Segment]]:
    """What ODS has noted of itself was sent by no pod."""
    found: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.pod != ODS:
            found.setdefault(segment.pod, []).append(segment)
    return found


def _peeked(lines: Iterator[TimedLine]) -> tuple[int, Iterator[TimedLine]] | None:
    """When the first line was received, and all of them; None where there is none."""
    first = next(lines, None)
    return None if first is None else (first[0], chain([first], lines))


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        return False


def _raise_limit_of_files() -> None:
    """A pod takes three: its connection, and its two segments."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
