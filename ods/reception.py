"""Receives pods at the door: gives each connection its intake, and tells of who comes, leaves or is turned away.

Connections that another process has served before are taken over first, all of them, and what it left on their tapes is
repeated before anything else is read: so that no record is given a time before one that a pod has had already.
"""

import logging
from collections.abc import Callable, Mapping, Set
from operator import itemgetter

import gevent

from ods.admission import Admission
from ods.batcher import Batcher
from ods.chunk import Chunk
from ods.clock import Clock
from ods.connection import Connection
from ods.events import Events
from ods.intake import Intake
from ods.latency import Latency
from ods.latest import LatestValues
from ods.ledger import Fate, Ledger
from ods.limit_watch import LimitWatch
from ods.pods import Pod, Pods
from ods.recorder import Recorder
from ods.refusals import Refusals

log = logging.getLogger(__name__)

#: How many reads are repeated before others have their turn: a few milliseconds' work.
REPEATED_AT_ONCE = 4


class Reception:
    """What the listener reports to."""

    def __init__(
        self,
        *,
        pods: Pods,
        clock: Clock,
        ledger: Ledger,
        admission: Admission,
        batcher: Batcher,
        recorder: Recorder,
        events: Events,
        latest: LatestValues,
        limits: LimitWatch,
    ) -> None:
        self._pods = pods
        self._clock = clock
        self._ledger = ledger
        self._admission = admission
        self._batcher = batcher
        self._recorder = recorder
        self._events = events
        #: Those of the connections that stand, and those of ended ones in which something is in flight.
        self._intakes: set[Intake] = set()
        self._latest = latest
        self._limits = limits
        #: From each read to its reply.
        self.replying = Latency()
        #: Connections that were taken over, whose tapes are not repeated yet.
        self._taken_over: list[tuple[Connection, Intake]] = []
        self.refusals = Refusals()

    def enter(self, address: str, connection: Connection, *, is_new: bool = True) -> Intake:
        """A pod has connected; or, where it is not new, another process has served it before (see `resume`)."""
        pod = self._pods.at(address)
        connection.prepare(lambda replies: _count_dropped(pod, replies))
        connection.take_over()
        # One that was read from is not new, whatever was told of it before the process before had to end.
        is_new = is_new and (connection.tape is None or not connection.tape.read_to)
        pod.enter(self._clock.now_ns(), is_new=is_new)
        self._admission.enter()
        if is_new:
            log.info("pod %s connected%s", pod.name, "" if pod.name == address else f" from {address}")
            self._events.emit(pod, "connected", address)
        intake = Intake(
            pod=pod,
            clock=self._clock,
            ledger=self._ledger,
            admission=self._admission,
            onward=self,
            reply=connection.reply,
            latest=self._latest,
            limits=self._limits,
            replying=self.replying,
            tape=connection.tape,
        )
        self._intakes.add(intake)
        if not is_new:
            self._taken_over.append((connection, intake))
        return intake

    def resume(self, find_recorded: Callable[[Mapping[str, int]], Mapping[str, Set[int]]]) -> None:
        """Repeat the tapes of all connections that were taken over. To be called before any of them is served.

        `find_recorded` is given each pod's first time that is to be repeated, and returns the times from there on that
        the recordings hold.
        """
        taken_over, self._taken_over = self._taken_over, []
        # Two connections of one pod had their times by turns: the rows of a recording are in the order of theirs.
        left = sorted(
            [(note.first_ns, note, intake) for _, intake in taken_over for note in intake.begin_repeating()],
            key=itemgetter(0),
        )
        since: dict[str, int] = {}
        for first_ns, _, intake in left:
            since.setdefault(intake.pod.name, first_ns)
        recorded = find_recorded(since) if since else {}
        for number, (_, note, intake) in enumerate(left, 1):
            intake.repeat(note, recorded.get(intake.pod.name, frozenset()))
            if not number % REPEATED_AT_ONCE:
                gevent.sleep(0)
        for connection, intake in taken_over:
            connection.go_on_with(intake.end_repeating())
            if (latest_ns := intake.pod.latest_ns) > self._clock.now_ns():
                self._clock.continue_from(latest_ns)
        if taken_over:
            log.info("%d connections were taken over, with %d reads to be repeated", len(taken_over), len(left))

    def leave(self, address: str, how: str) -> None:
        """A pod's connection has ended."""
        pod = self._pods.at(address)
        pod.leave(self._clock.now_ns(), how)
        self._admission.leave()
        counts = self._ledger.of(pod.name)
        log.info(
            "pod %s disconnected: %s; %d received, %d invalid, %d torn so far",
            *(pod.name, how, counts.received, counts.invalid, counts.torn),
        )
        self._events.emit(pod, "disconnected", how)

    def refused(self, address: str) -> None:
        """A peer outside the allowed networks was turned away."""
        reason = "it is in no network given by --allow; such a pod may boot, and brakes at its first sends"
        if self.refusals.note(address, reason, self._clock.now_ns()):
            log.warning("refused %s: %s", address, reason)

    def oldest_ns(self) -> int | None:
        """A time at or before the reception time of every record without a fate; None where there is no such record."""
        self._intakes -= {intake for intake in self._intakes if intake.is_finished and intake.is_settled}
        return min((time_ns for intake in self._intakes if (time_ns := intake.oldest_ns) is not None), default=None)

    def expect(self, intake: Intake, size_bytes: int, *, urgent: bool) -> None:
        """Small reads wait to be decoded; see `Batcher.expect`."""
        self._batcher.expect(intake, size_bytes, urgent=urgent)

    def put(self, chunk: Chunk) -> None:
        """Pass a chunk on: to be stored, or, where it was refused, to be written down at least."""
        if chunk.fate is Fate.IN_FLIGHT:
            self._batcher.put(chunk)
        else:
            self._recorder.submit([chunk])


def _count_dropped(pod: Pod, replies: int) -> None:
    if not pod.replies_dropped:
        log.info("pod %s does not read its replies; those beyond 1 MiB are dropped", pod.name)
    pod.replies_dropped += replies
