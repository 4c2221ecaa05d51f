"""Why does the pod not boot? It waits until ODS accepts its connection, so: what it can connect to, and who tried."""

import ipaddress
from dataclasses import dataclass

from ods.status_view.pods import CONNECTED, LEFT, NEVER_SEEN, Pod, pods
from ods.status_view.reading import Part
from ods.status_view.words import UNKNOWN, clock_time, count, span

#: Who was refused longer ago than this is not the pod that does not boot now. Seconds.
RECENT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Refused:
    """A peer that was turned away."""

    address: str
    count: float | None
    last_ns: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Boot:
    """All that answers the question, with a conclusion in a sentence."""

    conclusion: str
    is_any_connected: bool
    addresses: list[str]
    port: str
    allow: list[str]
    refused: list[Refused]
    never_seen: list[Pod]
    left: list[Pod]
    connected: list[Pod]
    now_ns: float | None

    def lines(self) -> list[tuple[str, str]]:
        """What each thing is, and the thing, for a person."""
        where = [("connect to", f"{address} port {self.port}") for address in self.addresses]
        if not where and self.port != UNKNOWN:
            where = [("connect to", f"port {self.port}; no address of this machine is known")]
        return [
            *where,
            *([("allowed", ", ".join(self.allow) or "every network")] if where else []),
            *(("refused", self._refused(refused)) for refused in self.refused),
            *(("expected" if pod.is_expected else "earlier", self._unseen(pod)) for pod in self.never_seen),
            *(("left", self._left(pod)) for pod in self.left),
            *(("connected", self._connected(pod)) for pod in self.connected),
        ]

    def _refused(self, refused: Refused) -> str:
        times = "once" if refused.count == 1 else f"{count(refused.count)} times"
        reason = f": {refused.reason}" if refused.reason else ""
        return f"{refused.address}, {times}, last at {self._when(refused.last_ns)}{reason}"

    def _left(self, pod: Pod) -> str:
        connected_ns, how = pod.part.number("connected_ns"), f": {pod.left_how}" if pod.left_how else ""
        connected = "" if connected_ns is None else f"connected {clock_time(connected_ns, self.now_ns)}, "
        left = pod.state if pod.since_ns is None else f"left {self._when(pod.since_ns)}"
        return f"{_who(pod)}: {connected}{left}{how}"

    def _unseen(self, pod: Pod) -> str:
        return f"{_who(pod)}: {'never seen in this run' if pod.is_expected else 'not seen in this run'}"

    def _connected(self, pod: Pod) -> str:
        return f"{_who(pod)}: since {self._when(pod.since_ns)}"

    def _when(self, time_ns: float | None) -> str:
        ago = "" if time_ns is None or self.now_ns is None else f" ({span((self.now_ns - time_ns) / 1e9)} ago)"
        return f"{clock_time(time_ns, self.now_ns)}{ago}"


def boot(snapshot: Part) -> Boot:
    """What a snapshot says of it."""
    listening, port = snapshot.part("listening"), snapshot.part("listening").number("port")
    by_state: dict[str, list[Pod]] = {}
    for pod in pods(snapshot):
        by_state.setdefault(pod.state if pod.state in (CONNECTED, NEVER_SEEN) else LEFT, []).append(pod)
    addresses, refused = listening.texts("addresses"), [_refused(part) for part in snapshot.parts("refused")]
    return Boot(
        conclusion=_conclusion(snapshot, addresses, refused, by_state),
        is_any_connected=bool(by_state.get(CONNECTED)),
        addresses=addresses,
        port=UNKNOWN if port is None else str(port),
        allow=listening.texts("allow"),
        refused=refused,
        never_seen=by_state.get(NEVER_SEEN, []),
        left=sorted(by_state.get(LEFT, []), key=lambda pod: -(pod.since_ns or 0)),
        connected=by_state.get(CONNECTED, []),
        now_ns=snapshot.number("time_ns"),
    )


def _refused(part: Part) -> Refused:
    return Refused(part.text("address") or UNKNOWN, part.number("count"), part.number("last_ns"), part.text("reason"))


def _conclusion(snapshot: Part, addresses: list[str], refused: list[Refused], pods: dict[str, list[Pod]]) -> str:
    """What is most likely the matter, in a sentence or two."""
    now_ns = snapshot.number("time_ns")
    connected, left = pods.get(CONNECTED, []), pods.get(LEFT, [])
    if refused and (_is_recent(refused[0], now_ns) or not (connected or left)):
        return _told_refused(refused[0])
    if connected:
        missing = ", ".join(pod.name for pod in pods.get(NEVER_SEEN, []) if pod.is_expected)
        accepted = "1 is" if len(connected) == 1 else f"{len(connected)} are"
        return f"ODS accepts pods, {accepted} connected" + (f"; never seen: {missing}." if missing else ".")
    if addresses and all(_is_loopback(address) for address in addresses):
        return "ODS listens only for this machine itself: start it with --host 0.0.0.0, or with this machine's address."
    if left:
        last = max(left, key=lambda pod: pod.since_ns or 0)
        how = f": {last.left_how}" if last.left_how else ""
        return (
            f"No pod is connected; the last was {last.name}, {last.words(now_ns)}{how}. A pod never reconnects itself."
        )
    if "listening" not in snapshot:
        return "No pod is connected, and this ODS does not tell what it listens on."
    return (
        f"ODS listens, and nobody has tried to connect since it started {span(snapshot.number('uptime_seconds'))} ago. "
        "The pod does not get here: compare the address and port that it is given with those below; "
        "then look at cable, radio link and firewall."
    )


def _told_refused(peer: Refused) -> str:
    reason = f": {peer.reason}" if peer.reason else ""
    return (
        f"{peer.address} tried to connect and was refused{reason}. If that is the pod, give ODS its network by --allow."
    )


def _is_recent(peer: Refused, now_ns: float | None) -> bool:
    return peer.last_ns is None or now_ns is None or now_ns - peer.last_ns < RECENT_SECONDS * 1e9


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _who(pod: Pod) -> str:
    return pod.name if pod.address in ("", pod.name) else f"{pod.name} ({pod.address})"
