"""What a run stands on: a real InfluxDB behind the proxy, and ODS in a folder of its own, watched as it runs."""

import contextlib
import http.client
import itertools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess

from faults.proxy import Proxy

#: How often the ledger is looked at. Seconds.
LOOK_SECONDS = 0.1


class Bench:
    """One InfluxDB for all runs; each run has a proxy, an ODS, a folder and a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.influx = InfluxServer(folder / "influx")
        #: Of the run that is on.
        self.proxy: Proxy
        self._numbers = itertools.count(1)

    def __enter__(self) -> "Bench":
        self.influx.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.influx.kill()

    @contextlib.contextmanager
    def ods(self, name: str) -> Iterator[OdsProcess]:
        """An ODS that is not started yet, behind a proxy of its own. It is killed at the end at the latest."""
        number = next(self._numbers)
        folder = self.folder / f"{number}-{re.sub('[^a-z0-9]+', '-', name.lower())}"
        folder.mkdir(parents=True)
        with Proxy(self.influx.port) as self.proxy:
            ods = OdsProcess(folder, influx_port=self.proxy.port, database=f"faults_{number}")
            try:
                yield ods
            finally:
                ods.kill()
                self.heal()
                (folder / "ods.log").write_text("\n".join([*ods.log, ""]))

    def heal(self) -> float:
        """InfluxDB is there, and the network is well; returns since when. Monotonic clock, seconds."""
        if self.influx.is_running:
            self.influx.resume()
        else:
            self.influx.start()
        return self.proxy.heal()

    def forget(self, ods: OdsProcess) -> None:
        """Nothing was wrong: what it left is not needed."""
        shutil.rmtree(ods.folder, ignore_errors=True)
        self.influx.query(f'DROP DATABASE "{ods.database}"')


class LedgerWatch:
    """Looks at the status page again and again: the ledger must add up every time."""

    def __init__(self, ods: OdsProcess) -> None:
        self.looks = 0
        #: What did not add up, each message once.
        self.found: list[str] = []
        self._ods = ods
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ledger watch", daemon=True)

    def __enter__(self) -> "LedgerWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self._ods.status()
            except AssertionError as error:
                self.found.append(str(error))
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                continue  # it is being killed, or started
            else:
                self.looks += 1
