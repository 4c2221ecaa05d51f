"""The errors of ODS, by what the caller may do about them.

OdsError
├── SettingsError          an option is wrong: say so in one line and stop (exit status 2)
├── Unreachable            no ODS answers a command, nor can its file be opened: say so in one line and stop
├── InfluxError            a batch was not confirmed
│   ├── Unavailable        keep the batch, try again, tell the operator
│   ├── Suspect            keep the batch, go on with others; when it fails again, look for bad lines in it
│   └── Rejected           some lines of the batch are bad: find them, quarantine them, store the rest
├── BufferUnavailable      the batch was not committed
│   └── BufferFull         there is no room for it; what is in the buffer is safe
├── TapeRefused            a connection's tape cannot be used: go on from where the kernel is
└── StateRefused           a keeper cannot go on with what another left: leave that one as it is
"""


class OdsError(Exception):
    """Anything that ODS itself has to say."""


class SettingsError(OdsError):
    """An option has a value that cannot be used."""


class Unreachable(OdsError):
    """A command can reach the buffer neither through a running ODS nor by itself."""


class InfluxError(OdsError):
    """A batch was not confirmed by InfluxDB."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unavailable(InfluxError):
    """InfluxDB cannot take anything now; the same batch may be confirmed later.

    `reason` is one line for a person, `advice` what that person can do about it (empty where waiting is all there is
    to do), `retry_after_seconds` what the server asked for.
    """

    def __init__(self, reason: str, *, advice: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.advice = advice
        self.retry_after_seconds = retry_after_seconds


class Suspect(InfluxError):
    """InfluxDB failed over this batch (5xx, a reset, silence) and confirmed another write right afterwards."""


class Rejected(InfluxError):
    """InfluxDB read the batch and will never take some of its lines (400, 422)."""


class BufferUnavailable(OdsError):
    """The buffer could not commit; `reason` is one line for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BufferFull(BufferUnavailable):
    """The buffer's limit, or the reserve of free disk, is reached."""


class TapeRefused(OdsError):
    """What a worker before left of a connection is nothing that could be gone on with."""


class StateRefused(OdsError):
    """What a keeper would leave to this one is nothing that it could go on with."""
