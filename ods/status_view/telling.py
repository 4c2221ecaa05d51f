"""What a snapshot says as a whole: its sentence, and how far a drain is. An ODS that tells no sentence gets one."""

from dataclasses import dataclass

from ods.status_view.reading import Part

#: The levels of a sentence, and what is said at each of an ODS that says nothing itself.
SENTENCES = {
    "live": "Live: every point is in InfluxDB.",
    "buffering": "Buffering: InfluxDB is away, and points wait safely on this machine's disk.",
    "draining": "Draining: InfluxDB is back, and takes what has waited.",
    "losing": "Losing data: neither InfluxDB nor the buffer takes points.",
}
COUNTERS = ("received", "stored", "pending", "in_flight", "quarantined", "dropped", "invalid", "torn")


@dataclass(frozen=True, slots=True)
class Sentence:
    """`level` is a key of `SENTENCES`, or what a newer ODS calls it."""

    level: str
    text: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Drain:
    """How far a drain is; what is not known is None."""

    done: float | None
    total: float | None
    points_per_second: float | None
    eta_seconds: float | None

    @property
    def fraction(self) -> float | None:
        """From 0 to 1."""
        if self.done is None or not self.total:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)


def sentence(snapshot: Part) -> Sentence:
    """The one plain sentence. That points are dropped outweighs what else is said."""
    told = snapshot.part("sentence")
    level, text, notes = told.text("level"), told.text("text"), told.texts("notes")
    if snapshot.flag("healthy") is False and level != "losing":
        level, text = "losing", ""
    level = level or snapshot.text("state") or "unknown"
    return Sentence(level, text or SENTENCES.get(level, "This ODS does not say how it is."), notes)


def drain(snapshot: Part) -> Drain | None:
    """The drain; None where there is none."""
    buffer = snapshot.part("buffer")
    done, total = buffer.number("drained_points"), buffer.number("drain_total_points")
    rate, eta = buffer.number("drain_points_per_second"), buffer.number("eta_seconds")
    if snapshot.text("state") != "draining" and total is None:
        return None
    return Drain(done, total, rate, eta)
