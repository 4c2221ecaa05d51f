"""The status over HTTP: what is answered where, once for many, and to whom."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from components.http_peer import HttpPeer
from components.hub import fail_when_hung, wait_in_hub

from ods import answers, assets, feed, http_server
from ods.control_client import ask
from ods.data_points import DataPoints
from ods.directory import DataDirectory
from ods.errors import SettingsError
from ods.latest import LatestValues
from ods.sensors import Sensor, Sensors
from ods.web import Web

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


SENSORS = Sensors({"accel_x": Sensor(label="Beschleunigung, längs", unit="m/s²", danger_high=20.0)})


class FakeStatus:
    """A status that counts how often it was asked for."""

    def __init__(self) -> None:
        self.made = 0
        self.latencies: dict[str, Any] = {}
        self.is_well = True

    def snapshot(self) -> dict[str, Any]:
        self.made += 1
        return {"state": "live", "made": self.made}

    def is_healthy(self) -> bool:
        return self.is_well


class FakeControl:
    """A control that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, method: str, path: str, query: str) -> tuple[int, bytes]:
        self.asked.append(f"{method} {path}?{query}")
        return 200, b"{}\n"


class Site:
    """A web with fakes behind it."""

    def __init__(self, directory: Path, *, port: int | None = 0, host: str = "127.0.0.1") -> None:
        self.status = FakeStatus()
        self.control = FakeControl()
        self.latest = LatestValues(now_ns=time.time_ns)
        self.web = Web(
            status=self.status,  # type: ignore[arg-type]
            latest=self.latest,
            sensors=SENSORS,
            control=self.control,  # type: ignore[arg-type]
            directory=DataDirectory(directory),
            host=host,
            port=port,
        )
        self.web.bind()
        self.web.start()

    def peer(self) -> HttpPeer:
        assert self.web.port is not None
        return HttpPeer(self.web.port)

    def ask(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        with self.peer() as peer:
            return peer.ask(path, *headers, method=method)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>ODS</title>")
    (folder / "main.js").write_text("look()")
    monkeypatch.setattr(assets.read_assets, "__defaults__", (folder,))
    return folder


@pytest.fixture
def site(tmp_path: Path, page: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.web.stop()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/index.html", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/api/status", "application/json"),
        ("/api/values?pod=a", "application/json"),
        ("/api/sensors", "application/json"),
        ("/healthz", "text/plain; charset=utf-8"),
    ],
)
def test_each_path_has_its_kind_of_answer_and_head_has_the_same_without_the_body(
    site: Site, path: str, kind: str
) -> None:
    status, headers, body = site.ask(path)
    assert (status, headers["content-type"], bool(body)) == (200, kind, True)
    with site.peer() as peer:
        status, headers, _ = peer.ask(path, method="HEAD")
        assert (status, headers["content-type"]) == (200, kind)
        assert peer.ask(path)[0] == 200  # where the answer before it had a body, this would begin with that


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/api", "/api/", "/api/quarantine/summary", "/page/", "/page/none.js", "/page", "//"),
        *("/page/../web.py", "/page/%2e%2e/web.py", "/page//etc/passwd", "/%00", "/page/\\..\\web.py", "http://a/"),
    ],
)
def test_there_is_nothing_else(site: Site, path: str) -> None:
    assert site.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE", "get"])
@pytest.mark.parametrize("path", ["/", "/api/status", "/events", "/api/quarantine/retry", "/nothing"])
def test_nothing_can_be_changed_on_the_network(site: Site, method: str, path: str) -> None:
    status, headers, _ = site.ask(path, method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert not site.control.asked


def test_the_page_is_sent_again_only_where_it_has_changed(site: Site) -> None:
    _, headers, _ = site.ask("/")
    assert headers["cache-control"] == "no-cache"
    status, again, body = site.ask("/", f"If-None-Match: {headers['etag']}")
    assert (status, again["etag"], body) == (304, headers["etag"], b"")
    assert site.ask("/", f'If-None-Match: "other", W/{headers["etag"]}')[0] == 304
    assert site.ask("/", 'If-None-Match: "other"')[0] == 200


def test_the_page_is_in_memory(site: Site, page: Path) -> None:
    (page / "index.html").unlink()
    assert site.ask("/")[0] == 200


def test_figures_are_never_taken_from_a_cache(site: Site) -> None:
    for path in ("/api/status", "/api/values?pod=a", "/healthz"):
        assert site.ask(path)[1]["cache-control"] == "no-store"


def test_the_status_is_as_of_the_question_and_made_once_for_all_who_asked_before(site: Site) -> None:
    assert [json.loads(site.ask("/api/status")[2])["made"] for _ in range(3)] == [1, 2, 3]
    peers = [site.peer() for _ in range(20)]
    site.web._pace.begin_turn()  # all of them wait for their turn
    for peer in peers:
        peer.say("GET /api/status HTTP/1.1\nHost: a\n\n")
    wait_in_hub(lambda: all(not c.idle_since for c in site.web._server._connections), "the questions")  # type: ignore[union-attr]
    gevent.sleep(0.01)
    site.web._pace.end_turn()
    assert {json.loads(peer.answer()[2])["made"] for peer in peers} == {4}
    for peer in peers:
        peer.socket.close()


def test_healthz_says_whether_points_can_be_kept(site: Site) -> None:
    assert site.ask("/healthz")[0] == 200
    site.status.is_well = False
    assert site.ask("/healthz")[0] == 503


def test_metrics_are_made_of_the_status_away_from_the_hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, made = threading.get_ident(), []

    def exposition(snapshot: dict[str, Any], latencies: dict[str, Any]) -> bytes:
        made.append((snapshot["made"], latencies, threading.get_ident() == hub))
        return b"ods_healthy 1\n"

    monkeypatch.setattr(answers.metrics, "exposition", exposition)
    status, headers, body = site.ask("/metrics")
    assert (status, headers["content-type"], body) == (200, answers.metrics.CONTENT_TYPE, b"ods_healthy 1\n")
    assert made == [(1, {}, False)]


def test_the_values_of_a_pod_come_with_their_history(site: Site) -> None:
    site.latest.take("pod ä", [DataPoints(["accel_x", "speed"], ["1.5", "2.5"], ["1.5", "2.5"])], ["1", "2"])
    site.latest.sample()
    for query in ("pod=pod%20%C3%A4&match=SPE", "match=spe&pod=pod+%C3%A4"):
        status, _, body = site.ask(f"/api/values?{query}")
        values = json.loads(body)
        assert (status, list(values["history"]["series"]), list(values["frame"]["values"])) == (
            200,
            ["speed"],
            ["speed"],
        )
    with site.peer() as peer:
        peer.say("GET /api/values?pod=pod+ä HTTP/1.1\nHost: a\n\n")
        assert list(json.loads(peer.answer()[2])["frame"]["values"]) == ["accel_x", "speed"]
    assert json.loads(site.ask("/api/values?pod=none")[2])["frame"]["values"] == {}


@pytest.mark.parametrize("query", ["", "?", "?match=a", "?pods=a", "?" + "&".join("a=1" for _ in range(2000))])
def test_values_are_those_of_a_pod(site: Site, query: str) -> None:
    assert site.ask(f"/api/values{query}")[0] == 400


@pytest.mark.parametrize("query", ["pod=%ff%fe", "pod=" + "a" * 5000, "pod=a;b", "pod=%", "pod=&match=", "pod=a&pod=b"])
def test_any_query_is_answered(site: Site, query: str) -> None:
    assert site.ask(f"/api/values?{query}")[0] == 200


def test_events_are_told_as_they_happen(site: Site) -> None:
    with site.peer() as peer:
        peer.say("GET /events?pod=a HTTP/1.1\nHost: a\n\n")
        status, headers = peer.head()
        assert (status, headers["content-type"], headers["cache-control"]) == (200, "text/event-stream", "no-store")
        names = [name for name, _ in peer.events_until("values")]
        assert names == ["history", "status", "values"]


def test_one_viewer_too_many_is_told_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "VIEWERS", 2)
    peers = [site.peer() for _ in range(3)]
    for peer, expected in zip(peers, (200, 200, 503), strict=True):
        peer.say("GET /events HTTP/1.1\nHost: a\n\n")
        assert peer.head()[0] == expected
    assert site.ask("/api/status")[0] == 200
    peers[0].socket.close()
    wait_in_hub(lambda: not site.web._feed.is_full, "room for one more")
    with site.peer() as further:
        further.say("GET /events HTTP/1.1\nHost: a\n\n")
        assert further.head()[0] == 200
    for peer in peers:
        peer.socket.close()


def test_a_viewer_does_not_give_way_to_idle_connections(site: Site) -> None:
    with site.peer() as viewer:
        viewer.say("GET /events HTTP/1.1\nHost: a\n\n")
        viewer.head()
        idle = [site.peer() for _ in range(http_server.CONNECTIONS + 50)]
        viewer.events_until("status")
        assert site.ask("/api/status")[0] == 200
        for peer in idle:
            peer.socket.close()


def test_a_foreign_name_is_sent_away_before_anything_is_looked_at(site: Site) -> None:
    with site.peer() as peer:
        peer.say("GET /api/status HTTP/1.1\nHost: evil.example.com\n\n")
        assert peer.answer()[0] == 421
    assert site.ask("/api/status", "Origin: http://evil.example.com")[0] == 403
    assert site.ask("/events", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors")[0] == 403
    assert site.status.made == 0


def natively(job: Any, *arguments: Any, **options: Any) -> Any:
    """Let a thread do what would hold up the hub."""
    return gevent.get_hub().threadpool.apply(job, arguments, options)


def test_the_control_socket_serves_all_of_it_and_what_changes_something(site: Site, tmp_path: Path) -> None:
    for path in ("/", "/page/main.js", "/api/status", "/api/values?pod=a", "/healthz"):
        assert natively(ask, tmp_path, path)[0] == 200
    assert natively(ask, tmp_path, "/api/quarantine/retry?pod=a", method="POST")[0] == 200
    assert site.control.asked == ["POST /api/quarantine/retry?pod=a"]
    assert natively(ask, tmp_path, "/api/status", method="POST")[0] == 405


def test_the_control_socket_answers_however_busy_the_network_keeps_the_other(site: Site, tmp_path: Path) -> None:
    site.web._pace.spent(3600)
    assert natively(ask, tmp_path, "/api/status")[0] == 200


def test_without_a_port_the_control_socket_alone_is_served(tmp_path: Path, page: Path) -> None:
    site = Site(tmp_path, port=None)
    assert (site.web.port, site.web.urls) == (None, [])
    assert natively(ask, tmp_path, "/api/status")[0] == 200
    site.web.stop()


def test_a_port_that_is_in_use_is_told_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 127\.0\.0\.1 port"):
        Site(tmp_path, port=site.web.port)


@pytest.mark.parametrize(("host", "last"), [("0.0.0.0", "http://127.0.0.1"), ("127.0.0.2", "http://127.0.0.2")])
def test_it_tells_where_the_page_is_found(tmp_path: Path, page: Path, host: str, last: str) -> None:
    site = Site(tmp_path, host=host)
    assert site.web.urls[-1] == f"{last}:{site.web.port}/"
    site.web.stop()


def test_stop_ends_all_viewers_and_may_be_called_twice(site: Site) -> None:
    with site.peer() as viewer, site.peer() as idle:
        viewer.say("GET /events HTTP/1.1\nHost: a\n\n")
        viewer.head()
        site.web.stop()
        site.web.stop()
        assert viewer.has_ended()
        assert idle.has_ended()
