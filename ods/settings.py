"""What the operator has chosen, as small frozen values; each component gets its own. `ods.options` parses them."""

import ipaddress
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ods.sensors import Sensors


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """Where pods connect, and who may."""

    host: str
    port: int
    allow: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSettings:
    """Where InfluxDB is and who ODS is to it."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    ssl: bool = False
    path: str = ""

    @property
    def url(self) -> str:
        """Without secrets, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = f"/{self.path.strip('/')}" if self.path.strip("/") else ""
        return f"{'https' if self.ssl else 'http'}://{host}:{self.port}{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the operator may choose."""

    listener: ListenerSettings
    influx: InfluxSettings
    directory: Path
    #: Names of pods by address.
    pods: Mapping[str, str]
    max_names: int
    #: What is known of the names that pods send; empty where there is no file.
    sensors: Sensors
    buffer_limit_bytes: int
    #: 0 keeps all recordings.
    recordings_limit_bytes: int
    http_host: str
    #: None: no HTTP.
    http_port: int | None
    #: Whether a keeper holds the connections, so that they outlive the process that does the work.
    has_keeper: bool
    log_format: str
    verbose: bool
    config: Path | None
    #: What the operator should hear of before anything else.
    warnings: tuple[str, ...] = ()


def default_config(environment: Mapping[str, str]) -> str | None:
    """`ods.toml` in `$CONFIGURATION_DIRECTORY` (systemd's), where there is one."""
    directory = environment.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    config = Path(directory, "ods.toml")
    return str(config) if directory and os.path.lexists(config) else None


def default_sensors(environment: Mapping[str, str]) -> Path | None:
    """`sensors.toml` in `$CONFIGURATION_DIRECTORY` (systemd's), else in `conf` beside the code; None without either."""
    directory = environment.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    beside = Path(__file__).absolute().parents[1] / "conf" / "sensors.toml"
    candidates = [*([Path(directory, "sensors.toml")] if directory else []), beside]
    return next((path for path in candidates if os.path.lexists(path)), None)


def default_directory(environment: Mapping[str, str]) -> Path:
    """`$ODS_DIRECTORY`, else `$STATE_DIRECTORY` (systemd's), else `ods` in the user's state directory.

    That is XDG's; on macOS, Application Support.
    """
    if named := environment.get("ODS_DIRECTORY"):  # the option of `serve`, which the other commands follow
        return Path(named).expanduser().absolute()
    if given := environment.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    home = Path(environment.get("HOME") or Path("~").expanduser())
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "ods"
    state = environment.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else home / ".local" / "state") / "ods"
