"""A replay into InfluxDB, from its begin to its summary. Needs gevent's patched sockets (`ods.commands.replay`)."""

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gevent

from ods.errors import Unavailable
from ods.influx import Influx
from ods.recorded import Segment, Tally
from ods.replay.batches import Batch, Position, batches, first_ns
from ods.replay.meter import Meter
from ods.replay.request import IntoInflux, Request, Shown, as_told
from ods.replay.state import Span, StateFile, default_path
from ods.replay.to_influx import Outcome, ToInflux
from ods.selection import Selection, when
from ods.settings import InfluxSettings

#: A FAT card cuts the times of files to two seconds. Nanoseconds.
FAT_NS = 2_000_000_000
#: How long an answer is waited for after an interrupt. Seconds.
LAST_SECONDS = 2.0

DONE, INCOMPLETE, INTERRUPTED = 0, 1, 130


def replay(request: Request, shown: Shown) -> tuple[list[str], int]:
    """Replay; returns the summary and the exit status.

    Raises SettingsError for what was asked wrongly, Unavailable where InfluxDB needs an operator.
    """
    influx = Influx(request.influx)
    influx.start()
    try:
        return _Replay(request, shown, influx).run()
    finally:
        influx.stop()


class _Replay:
    def __init__(self, request: Request, shown: Shown, influx: Influx) -> None:
        assert isinstance(request.target, IntoInflux)
        self._request = request
        self._target = request.target
        self._shown = shown
        self._influx = influx
        self._writer = ToInflux(influx, say=shown.say, confirmed=self._confirmed)
        question = _question(request, influx.settings)
        path = self._target.state or default_path(request.directory, question)
        self._state = StateFile(path, question, warn=shown.say)
        self._span = Span(0, 0, 0, 0)
        self._after: Position | None = None
        self._tally = Tally(shown.say)
        self._segments: list[Segment] = []
        self._meter = Meter([], Selection(), self._tally)

    def run(self) -> tuple[list[str], int]:
        selection = self._selection()
        self._segments = self._request.segments(selection)
        if not self._segments:
            self._shown.say("the recordings hold nothing of what is selected")
            return [], INCOMPLETE
        self._meter = Meter(self._segments, selection, self._tally)
        begun = time.monotonic()
        is_done = self._write_until_stopped()
        lines = self._summary(time.monotonic() - begun, is_done=is_done)
        return lines, self._status() if is_done else INTERRUPTED

    def _status(self) -> int:
        tally = self._tally
        is_lost = self._writer.outcome.refused or tally.unreadable_rows or tally.unreadable_files
        return INCOMPLETE if is_lost or not (tally.selected or self._after) else DONE

    def _selection(self) -> Selection:
        """What is selected now, or was when a replay that goes on was begun."""
        selection = self._request.selection()
        noted = self._state.load() if self._target.is_resumed else None
        if noted is None:
            if self._target.is_resumed:
                self._shown.say("no such replay was interrupted; this begins with the first row")
            self._span = Span(time.time_ns(), selection.from_ns, selection.to_ns, self._shift_ns(selection))
            return selection
        self._span, self._after = noted
        return replace(selection, from_ns=self._span.from_ns, to_ns=self._span.to_ns)

    def _shift_ns(self, selection: Selection) -> int:
        if self._target.redate is None:
            return 0
        now_ns = time.time_ns()
        is_now = self._target.redate == "now"
        begin_ns = now_ns if is_now else when("--redate", self._target.redate, self._request.marks, now_ns)
        segments = self._request.segments(selection)
        found_ns = first_ns(segments, Meter(segments, selection, Tally()))
        return 0 if found_ns is None else begin_ns - found_ns

    def _write_until_stopped(self) -> bool:
        """Whether everything was written. Raises Unavailable.

        In a greenlet of its own, which an interrupt ends soon wherever it waits.
        """
        job = gevent.spawn(self._write)

        def stop() -> None:
            self._writer.stop()
            gevent.spawn_later(LAST_SECONDS, job.kill, block=False)

        handlers = [gevent.signal_handler(number, stop) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            ended = job.get()  # a GreenletExit where it was killed
        finally:
            for handler in handlers:
                handler.cancel()
            if self._writer.outcome.end is not None:
                self._state.note(self._span, self._writer.outcome.end, at_once=True)
        if isinstance(ended, Unavailable):
            raise ended
        return ended is True

    def _write(self) -> bool | Unavailable:
        try:
            self._writer.find()
        except Unavailable as error:  # raised here, gevent would print where it comes from
            return error
        return self._writer.run(self._batches())

    def _batches(self) -> Iterator[Batch]:
        segments = self._segments
        if self._after is not None:
            segments = [one for one in segments if not self._is_done(one, self._after)]
        return batches(segments, self._meter, shift_ns=self._span.shift_ns, after=self._after)

    def _is_done(self, segment: Segment, after: Position) -> bool:
        """Whether it was replayed before the interrupt; one to which ODS has added rows since is replayed anew."""
        try:
            is_grown = segment.path.stat().st_mtime_ns + FAT_NS >= self._span.begun_ns
        except OSError:
            is_grown = True
        is_done = (segment.begin_ns, segment.pod, segment.kind) < after.segment and not is_grown
        if is_done:
            self._meter.skip(segment)
        return is_done

    def _confirmed(self, outcome: Outcome) -> None:
        if outcome.end is not None:
            self._state.note(self._span, outcome.end)
        self._shown.show(done=self._meter.done, total=self._meter.total, count=outcome.stored)

    def _summary(self, seconds: float, *, is_done: bool) -> list[str]:
        outcome, tally = self._writer.outcome, self._tally
        lines = [
            *as_told(tally),
            f"{outcome.stored:>14,}  stored: InfluxDB has confirmed them",
            f"{outcome.refused:>14,}  refused by InfluxDB for good",
            f"{outcome.left_out['invalid']:>14,}  invalid input of a pod, which is no point",
            f"{outcome.left_out['torn']:>14,}  torn by the end of a connection, which are no points",
        ]
        if self._meter.skipped:
            lines.append(f"{self._meter.skipped:>14,}  done before the interrupt")
        if is_done:
            self._state.remove()
        else:
            settled = outcome.stored + outcome.refused + outcome.left_out.total()
            unsent = tally.selected - self._meter.skipped - settled
            lines.append(f"{unsent:>14,}  read and not stored; --resume goes on")
        settings = self._influx.settings
        where = f"{settings.url}, database {settings.database!r}"
        rate = outcome.stored / seconds if seconds else 0.0
        how = "replayed" if is_done else "stopped: replayed"
        return [f"{how} into {where}, {seconds:.1f} s, {rate:,.0f} a second", *lines]


def _question(request: Request, influx: InfluxSettings) -> dict[str, object]:
    """What tells one replay from another, as it was typed."""
    given = request.given
    where: Sequence[Path] = request.paths or [request.directory]
    assert isinstance(request.target, IntoInflux)
    return {
        "recordings": [str(path.absolute()) for path in where],
        "pods": given.pod,
        "names": given.name,
        "from": given.from_when,
        "to": given.to_when,
        "redate": request.target.redate,
        "influx": f"{influx.url} {influx.database}",
    }
