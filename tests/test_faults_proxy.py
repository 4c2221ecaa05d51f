"""The proxy of the fault suite fails as it says, and knows what passed."""

import gzip
import http.client
import socket
import time
from collections.abc import Iterator

import pytest
from components.answering_server import AnsweringServer, answer
from faults.behaviours import Answer, Behaviour, Blackhole, Cut, Delay, Refuse, Reset, Throttle, Unreachable
from faults.proxy import Proxy
from harness.loopback import http as get
from harness.wait import wait_until

WRITE = "/write?db=ods&precision=ns"
BODY = b"accel_x,pod=1 value=1 1\naccel_y,pod=1 value=2 2\n"
#: An answer that takes longer than this is none.
PATIENCE_SECONDS = 0.3


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with AnsweringServer() as server:
        yield server


@pytest.fixture
def proxy(server: AnsweringServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[http.client.HTTPConnection]:
    """A connection that is kept alive, and was used already."""
    connection = connect(proxy)
    assert write(connection) == 204
    yield connection
    connection.close()


def connect(proxy: Proxy) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)


def write(connection: http.client.HTTPConnection, body: bytes = BODY, **headers: str) -> int:
    """Write on a connection that is kept alive; return the status."""
    connection.request("POST", WRITE, body, {key.replace("_", "-"): value for key, value in headers.items()})
    with connection.getresponse() as response:
        response.read()
        return response.status


def assert_no_answer(connection: http.client.HTTPConnection, body: bytes = BODY) -> None:
    if connection.sock is not None:
        connection.sock.settimeout(PATIENCE_SECONDS)
    connection.timeout = PATIENCE_SECONDS
    with pytest.raises(TimeoutError):
        write(connection, body)


def test_a_write_passes_and_its_points_are_counted(proxy: Proxy, server: AnsweringServer) -> None:
    """Compressed or not; comments and ODS's own events are no points; the connection is kept."""
    connection = connect(proxy)
    own_port = None
    for body in (BODY, b"# is anybody there\n", b'ods_event,pod=ods detail="" 3\n' + BODY):
        assert write(connection, body) == 204
        assert connection.sock.getsockname()[1] == (own_port := own_port or connection.sock.getsockname()[1])
    assert write(connection, gzip.compress(BODY) + gzip.compress(BODY), Content_Encoding="gzip") == 204
    assert [request.body for request in server.requests][:2] == [BODY, b"# is anybody there\n"]
    assert (proxy.points_written, proxy.requests["204"]) == (8, 4)
    assert [confirmed.points for confirmed in proxy.confirmed] == [2, 2, 4]


def test_a_write_that_the_server_refuses_is_passed_back_and_not_counted(proxy: Proxy, server: AnsweringServer) -> None:
    server.answers = [answer(400, "unable to parse"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    server.answers[1] += b"3\r\n{}\n\r\n0\r\n\r\n"
    connection = connect(proxy)
    assert write(connection) == 400
    assert (proxy.points_written, proxy.confirmed) == (0, [])
    connection.request("POST", "/query", b"q=SHOW+DATABASES")
    assert connection.getresponse().read() == b"{}\n"


def test_a_refusing_proxy_resets_what_is_open_and_lets_nobody_in(
    proxy: Proxy, client: http.client.HTTPConnection
) -> None:
    proxy.behave(Refuse())
    with pytest.raises(ConnectionError):
        write(client)
    with pytest.raises(ConnectionRefusedError):
        write(connect(proxy))
    healed_at = proxy.heal()
    assert proxy.first_confirmed(healed_at) is None
    assert write(connect(proxy)) == 204
    assert (proxy.first_confirmed(healed_at) or 0.0) >= healed_at


@pytest.mark.parametrize("behaviour", [Unreachable(), Blackhole()])
def test_a_connection_that_went_dead_stays_dead_and_a_new_one_works(
    proxy: Proxy, client: http.client.HTTPConnection, behaviour: Behaviour
) -> None:
    proxy.behave(behaviour)
    during = connect(proxy)
    assert_no_answer(during)
    proxy.heal()
    assert write(connect(proxy)) == 204
    assert_no_answer(client)
    during.close()


def test_an_unreachable_proxy_does_not_even_refuse(proxy: Proxy) -> None:
    proxy.behave(Unreachable())
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_SECONDS)


def test_a_reset_comes_in_the_middle_of_a_body(
    proxy: Proxy, client: http.client.HTTPConnection, server: AnsweringServer
) -> None:
    proxy.behave(Reset())
    with pytest.raises(ConnectionError):
        write(client, BODY * 100_000)
    assert (len(server.requests), proxy.requests["reset"]) == (1, 1)


def test_a_cut_write_is_stored_and_its_answer_is_lost(
    proxy: Proxy, client: http.client.HTTPConnection, server: AnsweringServer
) -> None:
    proxy.behave(Cut())
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        write(client)
    assert (len(server.requests), proxy.points_written, len(proxy.confirmed)) == (2, 4, 1)


def test_a_delayed_answer_comes_after_the_server_has_stored(
    proxy: Proxy, client: http.client.HTTPConnection, server: AnsweringServer
) -> None:
    proxy.behave(Delay(PATIENCE_SECONDS))
    client.request("POST", WRITE, BODY)
    began = time.monotonic()
    wait_until(lambda: len(server.requests) == 2, timeout_seconds=5, what="the server to get it")
    assert client.getresponse().status == 204
    assert time.monotonic() - began >= PATIENCE_SECONDS / 2


def test_a_throttled_link_takes_its_time_until_it_is_healed(proxy: Proxy, client: http.client.HTTPConnection) -> None:
    proxy.behave(Throttle(10_000.0))
    began = time.monotonic()
    assert write(client, BODY * 50) == 204
    assert time.monotonic() - began >= len(BODY) * 50 / 10_000 * 0.9
    proxy.behave(Throttle(1.0))
    client.request("POST", WRITE, BODY * 50)
    proxy.heal()
    assert client.getresponse().status == 204


def test_any_answer_is_given_with_its_headers(proxy: Proxy, client: http.client.HTTPConnection) -> None:
    proxy.behave(Answer(503, b"later", (("Retry-After", "7"),)))
    began = time.monotonic()
    client.request("POST", WRITE, BODY)
    response = client.getresponse()
    assert (response.status, response.getheader("Retry-After"), response.read()) == (503, "7", b"later")
    assert proxy.retry_at >= began + 7
    proxy.heal()
    assert write(client) == 204


def test_an_answer_can_concern_large_writes_or_some_points_alone(
    proxy: Proxy, client: http.client.HTTPConnection
) -> None:
    proxy.behave(Answer(413, above_bytes=len(BODY)))
    assert (write(client, BODY + b"\n"), write(client)) == (413, 204)
    proxy.behave(Answer(400, containing=b"accel_y,"))
    assert write(client) == write(client, gzip.compress(BODY), Content_Encoding="gzip") == 400
    assert write(client, BODY.replace(b"accel_y", b"accel_z")) == 204
    assert get(f"http://127.0.0.1:{proxy.port}/ping")[0] == 204
