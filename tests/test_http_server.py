"""What a peer may take of ODS over HTTP: few connections, a short while, few bytes, a small share of the time."""

import contextlib
import errno
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import pytest
from components.http_peer import HttpPeer
from components.hub import fail_when_hung, let_all_run, wait_in_hub
from gevent import socket

from ods import http_connection, http_server
from ods.http_server import HttpServer, limit_of_connections
from ods.pace import Pace, Unbounded

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

#: So small that what it stands for comes at once. Seconds.
AT_ONCE = 0.05


class Site:
    """A server with a small application, which notes what it was asked for."""

    def __init__(self, *, connections: int = 200) -> None:
        self.asked: list[str] = []
        self.pieces: Iterable[bytes] = [b"hello"]
        self.server = HttpServer(("127.0.0.1", 0), self._serve, pace=Unbounded(), connections=connections)
        self.server.start()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if environ["PATH_INFO"] == "/fails":
            raise RuntimeError("a defect")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.pieces if environ["REQUEST_METHOD"] != "HEAD" else []

    def peer(self, **options: Any) -> HttpPeer:
        return HttpPeer(self.server.server_port, **options)

    @property
    def connections(self) -> int:
        return len(self.server._connections)

    @property
    def idle(self) -> int:
        return sum(1 for connection in self.server._connections if connection.idle_since is not None)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.stop(AT_ONCE)


@contextlib.contextmanager
def small_site(connections: int) -> Iterator[Site]:
    site = Site(connections=connections)
    try:
        yield site
    finally:
        site.server.stop(AT_ONCE)


def test_requests_are_answered_one_after_the_other_on_one_connection(site: Site) -> None:
    with site.peer() as peer:
        for path in ("/1", "/2", "/3"):
            assert peer.ask(path)[::2] == (200, b"hello")
        assert peer.ask("/4", method="HEAD")[::2] == (200, b"")
    assert site.asked == ["GET /1", "GET /2", "GET /3", "HEAD /4"]


def test_requests_may_come_all_at_once_or_byte_by_byte(site: Site) -> None:
    with site.peer() as peer:
        peer.say("GET /1 HTTP/1.1\nHost: a\n\n" * 20)
        assert [peer.answer()[0] for _ in range(20)] == [200] * 20
    with site.peer() as peer:
        for byte in b"\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n":
            peer.say(bytes([byte]))
            let_all_run()
        assert peer.answer()[0] == 200


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10])
def test_a_question_may_come_in_two_parts(site: Site, size: int) -> None:
    question = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with site.peer() as peer:
        peer.say(question[:-size])
        wait_in_hub(lambda: [True for c in site.server._connections if len(c._unread) == len(question) - size], "it")
        peer.say(question[-size:])
        assert peer.answer()[0] == 200


def test_every_answer_tells_browsers_what_they_may_not_do_with_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *_: None)
    with site.peer() as peer:
        answers = [peer.ask("/"), peer.ask("/", method="HEAD"), peer.ask("/fails")]
    with site.peer() as peer:
        peer.say("nonsense\n\n")
        answers.append(peer.answer())
    assert [answer[0] for answer in answers] == [200, 200, 500, 400]
    for _, headers, _ in answers:
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /" + "a" * 9000 + " HTTP/1.1\nHost: a\n\n", 414),
        ("GET /" + "a" * 20_000, 431),
        ("GET / HTTP/1.1\nHost: a\nX: " + "a" * 20_000, 431),
        ("GET / HTTP/1.1\nHost: a\n" + "X: 1\n" * 5000, 431),
        ("GET / HTTP/1.1\n" + "X: 1\n" * 101 + "\n", 400),  # more headers than http.client takes
        ("\n" * 33 + "GET / HTTP/1.1\nHost: a\n\n", 431),
        ("\n" * 20_000, 431),
        ("GET / HTTP/1\nHost: a\n\n", 400),
        ("GET / HTTP/x.y\nHost: a\n\n", 400),
        ("GET / HTTP/2.0\nHost: a\n\n", 400),
        ("GET /\n\n", 400),
        ("GET\n\n", 400),
        ("\x16\x03\x01\x02 \x01 \n\n", 400),  # a browser that tries HTTPS
        ("GET / HTTP/1.1\nHost: a\nContent-Length: x\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\nContent-Length: -1\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 2\n\n", 200),
        ("GET / HTTP/1.1\nno header\n\n", 200),
    ],
)
def test_what_is_too_long_or_not_understood_is_answered_closed_and_not_logged(
    site: Site, caplog: pytest.LogCaptureFixture, request_text: str, status: int
) -> None:
    """Anybody can send that; the log is for the operator."""
    with caplog.at_level(logging.INFO), site.peer() as peer:
        with contextlib.suppress(OSError):
            peer.say(request_text)
        assert peer.answer()[0] == status
        if status != 200:
            assert peer.has_ended()
    wait_in_hub(lambda: site.connections == 0, "the end of the connection")
    assert not caplog.records
    with site.peer() as peer:
        assert peer.ask("/")[0] == 200


@pytest.mark.parametrize(
    "headers", ["Content-Length: 10000000000", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_a_body_is_not_read(site: Site, method: str, headers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like one more request in it is none, and there is no waiting for its end."""
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", AT_ONCE)
    with site.peer() as peer:
        peer.say(f"{method} /first HTTP/1.1\nHost: a\n{headers}\n\nGET /second HTTP/1.1\nHost: a\n\n")
        assert peer.answer()[0] == 200
        with contextlib.suppress(ConnectionError):
            for _ in range(300):
                peer.say(b"x" * 65536)  # raises as soon as the connection is closed
            raise AssertionError("it reads on and on")
    assert site.asked == [f"{method} /first"]


def test_one_that_expects_to_be_asked_for_its_body_is_given_its_answer(site: Site) -> None:
    with site.peer() as peer:
        peer.say("POST / HTTP/1.1\nHost: a\nContent-Length: 10\nExpect: 100-continue\n\n")
        assert peer.answer()[0] == 200
        assert peer.has_ended()


def test_a_connection_that_asks_nothing_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", AT_ONCE)
    with site.peer() as fresh, site.peer() as used:
        assert fresh.has_ended()
        used = site.peer()
        assert used.ask("/")[0] == 200
        assert used.has_ended()
        used.socket.close()
    wait_in_hub(lambda: site.connections == 0, "the end of the connections")


def test_a_question_that_never_ends_is_closed_however_busily_it_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a head runs from its first byte on, and is not begun again by each header."""
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 10 * AT_ONCE)
    with site.peer() as peer:
        peer.say("GET / HTTP/1.1\n")
        with contextlib.suppress(OSError):
            while True:
                peer.say("X: 1\n")
                gevent.sleep(AT_ONCE)
    assert not site.asked


def test_one_that_does_not_take_its_answer_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no defect, and the log says nothing of it."""
    told: list[Any] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *what: told.append(what))
    monkeypatch.setattr(http_connection, "STALL_SECONDS", AT_ONCE)
    site.pieces = [b"x" * 50_000_000]
    with site.peer(receive_buffer_bytes=4096) as peer:
        peer.say("GET / HTTP/1.1\nHost: a\n\n")
        wait_in_hub(lambda: site.asked, "the request")
        wait_in_hub(lambda: site.connections == 0, "the end of the connection")
    assert not told


def test_one_that_takes_its_answer_drop_by_drop_is_closed_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "ANSWER_SECONDS", 10 * AT_ONCE)
    site.pieces = [b"x" * 50_000_000]
    with site.peer(receive_buffer_bytes=4096) as peer:
        peer.say("GET / HTTP/1.1\nHost: a\n\n")
        while True:
            if not peer.socket.recv(1000) or site.connections == 0:
                break
            gevent.sleep(0.001)


def test_one_more_than_the_most_takes_the_place_of_the_idlest() -> None:
    with small_site(connections=30) as site:
        peers = [site.peer() for _ in range(15)]
        for peer in peers:
            assert peer.ask("/")[0] == 200
        assert peers[0].ask("/")[0] == 200  # so that it is not the idlest
        further = [site.peer() for _ in range(100)]
        with site.peer() as last:
            assert last.ask("/")[0] == 200
        wait_in_hub(lambda: site.connections <= 30 - http_server.ACCEPTS, "the end of the idlest")
        for peer in [*peers, *further[:70]]:
            assert peer.has_ended()
        for peer in [*peers, *further]:
            peer.socket.close()


def test_the_bound_of_connections_holds_at_every_moment_and_those_that_are_served_stay() -> None:
    begun = gevent.event.Event()

    def endless() -> Iterator[bytes]:
        yield b"begun"
        begun.wait()
        yield b"ended"

    with small_site(connections=20) as site:
        site.pieces = endless()
        with site.peer() as viewer:
            viewer.say("GET / HTTP/1.1\nHost: a\n\n")
            viewer.head()
            assert viewer.chunk() == b"begun"
            peers = []
            for _ in range(200):
                peers.append(site.peer())
                assert site.connections <= 20
                let_all_run()
                assert site.connections <= 20
            begun.set()
            assert viewer.chunk() == b"ended"
        for peer in peers:
            peer.socket.close()


def test_where_all_are_served_one_more_is_closed_at_once() -> None:
    done = gevent.event.Event()

    class Waiting:
        def __iter__(self) -> Iterator[bytes]:
            done.wait()
            yield b"done"

    with small_site(connections=15) as site:
        site.pieces = Waiting()
        peers: list[HttpPeer] = []
        for number in range(1, 16):
            peers.append(site.peer())
            peers[-1].say("GET / HTTP/1.1\nHost: a\n\n")
            wait_in_hub(lambda number=number: len(site.asked) == number, "the request")  # type: ignore[misc]
        with site.peer() as excess:
            assert excess.has_ended()
        done.set()
        assert [peer.answer()[2] for peer in peers] == [b"done"] * 15
        for peer in peers:
            peer.socket.close()


def test_few_open_files_are_left_to_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 200), (10**6, 200), (256, 51), (20, 11)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert limit_of_connections() == most
    monkeypatch.setattr("resource.getrlimit", lambda _: (http_server.resource.RLIM_INFINITY,) * 2)
    assert limit_of_connections() == 200


def test_a_system_without_file_descriptors_is_asked_again_later(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "OUT_OF_FILES_SECONDS", AT_ONCE)
    failures: list[Any] = [OSError(errno.EMFILE, "too many open files")] * 3
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *what: failures.append(what))
    accept = http_server.WSGIServer.do_read

    def fail_at_first(server: Any) -> Any:
        if failures:
            raise failures.pop()
        return accept(server)

    monkeypatch.setattr(http_server.WSGIServer, "do_read", fail_at_first)
    with site.peer() as peer:
        assert peer.ask("/")[0] == 200
    assert not failures
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


def test_a_defect_in_an_answer_ends_that_answer_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *what: told.append(what))
    with site.peer() as peer:
        assert peer.ask("/fails")[0] == 500
    assert told
    with site.peer() as peer:
        assert peer.ask("/")[0] == 200


def test_whoever_asks_without_pause_waits_for_his_turn(site: Site) -> None:
    """However many ask, requests take no more of the hub's time than their share."""
    now = [0.0]
    site.server.pace = Pace(share=0.05, burst_seconds=1.0, clock=lambda: now[0])
    with site.peer() as peer:
        assert peer.ask("/")[0] == 200
        site.server.pace.spent(10.0)
        peer.say("GET / HTTP/1.1\nHost: a\n\n")
        wait_in_hub(lambda: not site.idle, "the question")
        let_all_run()
        assert len(site.asked) == 1


def test_whoever_connects_without_pause_waits_too(site: Site) -> None:
    now = [0.0]
    site.server.pace = Pace(share=0.05, burst_seconds=1.0, clock=lambda: now[0])
    site.server.pace.spent(10.0)
    with site.peer():
        let_all_run()
        assert site.connections == 0


def test_stop_ends_all_connections_whatever_they_do(site: Site) -> None:
    site.pieces = (b"piece" for _ in iter(lambda: gevent.sleep(0.01), 1))
    with site.peer() as idle, site.peer() as begun, site.peer() as served, site.peer(receive_buffer_bytes=4096) as deaf:
        begun.say("GET / HT")
        for peer in (served, deaf):
            peer.say("GET / HTTP/1.1\nHost: a\n\n")
        wait_in_hub(lambda: len(site.asked) == 2, "the requests")
        site.server.stop(AT_ONCE)
        for peer in (idle, begun, served, deaf):
            assert peer.has_ended()
    assert site.connections == 0
    with pytest.raises(OSError):
        site.peer()


def test_a_start_does_not_ask_the_network_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any) -> Any:
        raise AssertionError("the DNS may take long to answer")

    monkeypatch.setattr(socket, "getfqdn", ask)
    Site().server.stop(AT_ONCE)
