"""Receives pods at the door: gives each connection its intake, and tells of who comes, leaves or is turned away."""

import logging
from collections.abc import Callable

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
from ods.pods import Pod, Pods
from ods.recorder import Recorder
from ods.refusals import Refusals

log = logging.getLogger(__name__)


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
        #: From each read to its reply.
        self.replying = Latency()
        self.refusals = Refusals()

    def enter(self, address: str, connection: Connection) -> Intake:
        """A pod has connected."""
        pod = self._pods.at(address)
        pod.enter(self._clock.now_ns())
        connection.prepare(lambda replies: _count_dropped(pod, replies))
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
            replying=self.replying,
        )
        self._intakes.add(intake)
        return intake

    def leave(self, address: str, how: str) -> None:
        """A pod's connection has ended."""
        pod = self._pods.at(address)
        pod.leave(self._clock.now_ns(), how)
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

    def expect(self, flush: Callable[[], None], *, urgent: bool) -> None:
        """Small reads wait to be decoded; see `Batcher.expect`."""
        self._batcher.expect(flush, urgent=urgent)

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
