"""What the control socket does for the other commands of ODS, and that nothing of it can be done on the network."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gevent
import pytest
from components.hub import fail_when_hung, wait_in_hub

from ods.buffer import Buffer
from ods.control import Control
from ods.control_client import ask
from ods.directory import DataDirectory
from ods.errors import BufferUnavailable
from ods.latest import LatestValues
from ods.ledger import Fate, Ledger
from ods.marking import Noted
from ods.quarantine import Page
from ods.rows import BadLine
from ods.sensors import Sensors
from ods.web import Web
from ods.worker import Worker

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class FakeDisk:
    """A disk without end."""

    def free_for_buffer_bytes(self) -> int:
        return 2**40


class FakeStatus:
    """A status that has little to say."""

    def snapshot(self) -> dict[str, Any]:
        return {"state": "live"}

    def is_healthy(self) -> bool:
        return True


class Quarantine:
    """The components under test, wired as in `ods.service`, with lines of two pods in the quarantine."""

    def __init__(self, folder: Path) -> None:
        self.worker = Worker("buffer")
        self.buffer = Buffer(folder / "buffer.db", limit_bytes=2**30, disk=FakeDisk())  # type: ignore[arg-type]
        self.ledger = Ledger()
        self.grown = 0
        self.control = Control(
            buffer=self.buffer, buffer_worker=self.worker, ledger=self.ledger, backlog_grew=self._grew
        )
        self.worker.start()
        self.worker.run(self._fill)
        self.ledger.begin_with(Fate.QUARANTINED, self.worker.run(self.buffer.totals)["quarantined"])

    def _grew(self) -> None:
        self.grown += 1

    def _fill(self) -> None:
        self.buffer.append(b"x", database="ods", pods={"a": 3, "b": 2}, first_ns=1, rejected="HTTP 400")
        row = self.buffer.rejected()
        assert row is not None
        pods = ["a", "a", "a", "b", "b"]
        bad = [BadLine(pod, n, f"x,pod={pod} value={n}.0 {n}", "conflict", 1) for n, pod in enumerate(pods)]
        self.buffer.quarantine(row, bad)

    def stop(self) -> None:
        self.worker.run(self.buffer.close)
        self.worker.stop()

    def ask(self, method: str, action: str, query: str = "") -> tuple[int, dict[str, Any]]:
        status, body = self.control.answer(method, f"/api/quarantine/{action}", query)
        return status, json.loads(body)

    def counts(self, pod: str) -> dict[str, int]:
        """The counts of a pod that are not 0; they add up."""
        counts = self.ledger.of(pod)
        assert counts.add_up()
        named = {fate.value: getattr(counts, fate.value) for fate in Fate}
        return {name: count for name, count in named.items() if count}


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    quarantine = Quarantine(tmp_path)
    yield quarantine
    totals = quarantine.worker.run(quarantine.buffer.totals)
    for fate, points in totals.items():
        assert points == {pod: n for pod in ("a", "b") if (n := getattr(quarantine.ledger.of(pod), fate))}, fate
    quarantine.stop()


def test_reading_changes_nothing(quarantine: Quarantine) -> None:
    status, page = quarantine.ask("GET", "lines", "pod=a")
    assert (status, [entry["time_ns"] for entry in page["entries"]]) == (200, [0, 1, 2])
    status, page = quarantine.ask("GET", "summary")
    assert (status, [group["lines"] for group in page["entries"]]) == (200, [3, 2])
    assert (quarantine.counts("a"), quarantine.grown) == ({"quarantined": 3}, 0)


def test_what_is_retried_is_pending_and_the_drain_is_told(quarantine: Quarantine) -> None:
    status, page = quarantine.ask("POST", "retry", "pod=a")
    assert (status, page["lines"], page["points"]) == (200, 3, {"a": 3})
    assert (quarantine.counts("a"), quarantine.counts("b")) == ({"pending": 3}, {"quarantined": 2})
    assert quarantine.grown == 1


def test_what_is_dropped_is_counted_as_dropped(quarantine: Quarantine) -> None:
    """It was acknowledged, and its operator gave it up: it stays among what was received."""
    status, page = quarantine.ask("POST", "drop", "id=1&id=4")
    assert (status, page["lines"], page["points"]) == (200, 2, {"a": 1, "b": 1})
    assert quarantine.counts("a") == {"quarantined": 2, "dropped": 1}
    assert quarantine.counts("b") == {"quarantined": 1, "dropped": 1}


def test_a_change_that_nobody_waits_for_any_more_is_still_counted(quarantine: Quarantine) -> None:
    """A command that is interrupted, and an ODS that is told to stop, end the request, not the job."""
    request = gevent.spawn(quarantine.ask, "POST", "retry")
    gevent.sleep(0)
    request.kill()
    wait_in_hub(lambda: quarantine.grown, "the end of the job")
    assert quarantine.counts("a") == {"pending": 3}


@pytest.mark.parametrize(
    ("method", "action", "query", "status"),
    [
        ("GET", "retry", "", 405),
        ("GET", "drop", "", 405),
        ("HEAD", "lines", "", 405),
        ("POST", "lines", "", 405),
        ("POST", "", "", 404),
        ("POST", "retry/", "", 404),
        ("POST", "drop", "pods=a", 400),
        ("POST", "retry", "id=x", 400),
    ],
)
def test_a_request_that_is_not_understood_changes_nothing(
    quarantine: Quarantine, method: str, action: str, query: str, status: int
) -> None:
    code, answer = quarantine.ask(method, action, query)
    assert (code, bool(answer["error"])) == (status, True)
    assert (quarantine.counts("a"), quarantine.grown) == ({"quarantined": 3}, 0)


def test_a_buffer_that_is_not_available_is_told(quarantine: Quarantine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BufferUnavailable("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(quarantine.buffer, "take_out", fail)
        assert quarantine.ask("POST", "retry") == (503, {"error": "the disk is gone"})
    assert (quarantine.counts("a"), quarantine.grown) == ({"quarantined": 3}, 0)


@pytest.fixture
def web(quarantine: Quarantine, tmp_path: Path) -> Iterator[Web]:
    web = Web(
        status=FakeStatus(),  # type: ignore[arg-type]
        latest=LatestValues(now_ns=time.time_ns),
        sensors=Sensors(),
        control=quarantine.control,
        directory=DataDirectory(tmp_path),
        host="127.0.0.1",
        port=0,
    )
    web.bind()
    web.start()
    yield web
    web.stop()


def natively(job: Any, *args: Any, **kwargs: Any) -> Any:
    """Let a thread do what would hold up the hub."""
    return gevent.get_hub().threadpool.apply(job, args, kwargs)


def ask_on_network(web: Web, method: str, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_control_socket_serves_the_quarantine_and_the_status(
    web: Web, quarantine: Quarantine, tmp_path: Path
) -> None:
    status, body = natively(ask, tmp_path, "/api/quarantine/lines?pod=b")
    assert (status, Page.from_json(body).points) == (200, {"b": 2})
    status, body = natively(ask, tmp_path, "/api/quarantine/retry?pod=b", method="POST")
    assert (status, Page.from_json(body).points) == (200, {"b": 2})
    assert natively(ask, tmp_path, "/api/status")[0] == 200
    assert natively(ask, tmp_path, "/api/nothing")[0] == 404
    assert quarantine.counts("b") == {"pending": 2}


def test_only_its_own_user_may_open_the_control_socket(web: Web, tmp_path: Path) -> None:
    assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("action", ["lines", "summary", "retry", "drop"])
def test_the_network_is_given_nothing_of_the_quarantine(web: Web, quarantine: Quarantine, action: str) -> None:
    """What a pod's network can reach is read-only, and holds no text that anyone wrote."""
    assert natively(ask_on_network, web, "GET", f"/api/quarantine/{action}") == 404
    assert natively(ask_on_network, web, "POST", f"/api/quarantine/{action}") == 405
    assert natively(ask_on_network, web, "POST", "/api/mark?text=a") == 405
    assert natively(ask_on_network, web, "GET", "/api/status") == 200
    assert quarantine.counts("a") == {"quarantined": 3}


# -- Marks ------------------------------------------------------------------------------------------------------------


class FakeMarking:
    """Gives every mark the same fate, and keeps its text."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.texts: list[str] = []

    def note(self, text: str) -> Noted:
        self.texts.append(text)
        return Noted(1_790_000_000_123_456_789, self.fate)


def ask_to_mark(fate: Fate, query: str, method: str = "POST") -> tuple[int, dict[str, Any], list[str]]:
    marking = FakeMarking(fate)
    control = Control(
        buffer=None,  # type: ignore[arg-type]
        buffer_worker=None,  # type: ignore[arg-type]
        ledger=Ledger(),
        marking=marking,  # type: ignore[arg-type]
        backlog_grew=lambda: None,
    )
    status, body = control.answer(method, "/api/mark", query)
    return status, json.loads(body), marking.texts


@pytest.mark.parametrize(
    ("fate", "status"), [(Fate.STORED, 200), (Fate.PENDING, 200), (Fate.QUARANTINED, 200), (Fate.IN_FLIGHT, 202)]
)
def test_a_mark_is_answered_with_its_time_and_its_fate(fate: Fate, status: int) -> None:
    told = {"time_ns": 1_790_000_000_123_456_789, "text": "a & b, ü", "fate": fate.value}
    assert ask_to_mark(fate, urlencode({"text": " a & b, ü "})) == (status, told, ["a & b, ü"])


def test_a_mark_that_no_store_takes_is_told_to_be_lost() -> None:
    status, told, _ = ask_to_mark(Fate.DROPPED, "text=a")
    assert status == 503
    assert "neither" in told["error"]


@pytest.mark.parametrize("query", ["", "text=", "text=%0a", "text=a%0ab", "text=%ff", "other=a", "text=" + "a" * 513])
def test_what_is_no_text_is_not_noted(query: str) -> None:
    status, told, noted = ask_to_mark(Fate.STORED, query)
    assert (status, noted) == (400, [])
    assert told["error"]


def test_to_look_notes_nothing() -> None:
    status, _, noted = ask_to_mark(Fate.STORED, "text=a", method="GET")
    assert (status, noted) == (405, [])
