"""What the proxy can do to a request: plain values, to be switched while requests are under way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """Everything goes to the server and back."""


@dataclass(frozen=True)
class Refuse:
    """Nobody listens, and the connections that were open are reset: the server's process is gone."""


@dataclass(frozen=True)
class Unreachable:
    """No new connection is answered, or even refused; those that were open go dead for good: the cable is out."""


@dataclass(frozen=True)
class Blackhole:
    """Connections are accepted, requests swallowed; those that saw it stay dead for good."""


@dataclass(frozen=True)
class Reset:
    """The connection is reset when half of a request's body has arrived."""


@dataclass(frozen=True)
class Cut:
    """The server stores the write and answers it; the connection is closed before the answer is passed on."""


@dataclass(frozen=True)
class Delay:
    """Each answer comes so much later. The server has stored the write long before."""

    seconds: float


@dataclass(frozen=True)
class Throttle:
    """All requests together travel at this rate. Bytes a second."""

    bytes_per_second: float


@dataclass(frozen=True)
class Answer:
    """The request is not passed on, but answered here.

    With `above_bytes` or `containing` only a write of a larger body, or of one that has these bytes once decompressed.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    above_bytes: int = 0
    containing: bytes = b""

    @property
    def is_selective(self) -> bool:
        """Whether some requests pass."""
        return bool(self.above_bytes or self.containing)

    @property
    def retry_after_seconds(self) -> float:
        """What `Retry-After` says; 0 where it says nothing."""
        return float(dict(self.headers).get("Retry-After", 0))


Behaviour = Pass | Refuse | Unreachable | Blackhole | Reset | Cut | Delay | Throttle | Answer
