"""Calls `ods.influx` in a process of its own that gevent has patched, as ODS is: the process of the tests is not.

Run as a program it reads one call a line from stdin and writes its outcome to stdout, both as JSON.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ods

#: How an outcome is called where the method returned.
RETURNED = "returned"


@dataclass(frozen=True)
class Outcome:
    """What a call came to: the name of the exception, or `RETURNED`."""

    name: str
    reason: str = ""
    advice: str = ""
    retry_after_seconds: float = 0.0


class InfluxCaller:
    """The process, with `environment` besides what it needs. One `Influx` a call."""

    def __init__(self, **environment: str) -> None:
        root = Path(ods.__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": f"{root}:{root / 'tests'}", "PATH": ""} | environment,
            text=True,
        )

    def __enter__(self) -> "InfluxCaller":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def write(self, lines: str, *, settings: dict[str, Any], is_gzip: bool = False, **constants: float) -> Outcome:
        """`Influx.write`; `constants` are those of the module, to be shortened for a test."""
        return self._call(method="write", lines=lines, settings=settings, is_gzip=is_gzip, constants=constants)

    def probe(self, *, settings: dict[str, Any], **constants: float) -> Outcome:
        """`Influx.probe`."""
        return self._call(method="probe", settings=settings, constants=constants)

    def _call(self, **call: Any) -> Outcome:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def _made(call: dict[str, Any]) -> Outcome:
    import gzip

    from ods import influx as module
    from ods.errors import Rejected, Suspect, Unavailable

    constants = {"WRITE_SECONDS": 10.0, "WITNESS_SECONDS": 2.5} | call["constants"]
    for name, value in constants.items():
        setattr(module, name, value)
    influx = module.Influx(module.InfluxSettings(**call["settings"]))
    influx.witness = b"ods_event witness=1"
    influx.start()
    try:
        if call["method"] == "probe":
            influx.probe()
        else:
            lines = call["lines"].encode()
            body = gzip.compress(lines) if call["is_gzip"] else lines
            influx.write(body, database=call["settings"]["database"], is_gzip=call["is_gzip"])
    except Unavailable as error:
        return Outcome("Unavailable", error.reason, error.advice, error.retry_after_seconds)
    except (Rejected, Suspect) as error:
        return Outcome(type(error).__name__, error.reason)
    except BaseException as error:  # noqa: BLE001 - the test says what it should have been
        return Outcome(type(error).__name__, repr(error))
    finally:
        influx.stop()
    return Outcome(RETURNED)


def main() -> None:
    """Make one call after the other."""
    from dataclasses import asdict

    for line in sys.stdin:
        print(json.dumps(asdict(_made(json.loads(line)))), flush=True)


if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()
    main()
