"""The whole program and its HTTP port: everybody may look, nobody changes anything, and pods notice nothing of it."""

import contextlib
import resource
import socket
import sys
from collections.abc import Callable, Iterator

import pytest
from harness.http_guest import Viewer, connect, has_ended, request, say
from harness.influx_server import InfluxServer
from harness.loopback import http, is_established
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.stream import Stream
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=900), method="signal")

#: The most connections, and the most viewers, that ODS has at a time.
CONNECTIONS, VIEWERS = 200, 64
#: A machine that lets a process open no more files.
FEW_FILES = 1024
PATHS = ("/", "/metrics", "/api/status", "/api/values?pod=127.0.2.1", "/healthz")

_CHANGING = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT")


@contextlib.contextmanager
def undisturbed(ods: OdsProcess, influx: InfluxServer) -> Iterator[Oracle]:
    """A pod sends all the while; none of its sends waits, and each record is answered and stored as it was sent."""
    oracle = Oracle()
    with Stream(ods.port, oracle, lines_per_second=2000, burst_lines=20) as stream:
        stream.pod.wait_for_replies(1)
        yield oracle
        before = stream.replies
        wait_until(lambda: stream.replies > before, timeout_seconds=10, what="a reply to the pod")
        stream.finish()
    ods.wait_until_settled()
    points = influx.points(ods.database)
    oracle.check({(name, pod): rows for (name, pod), rows in points.items() if pod == stream.pod.address})


@contextlib.contextmanager
def guests(port: int, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections to the port, each of which has said this."""
    with contextlib.ExitStack() as opened:
        found = []
        for _ in range(count):
            guest = opened.enter_context(connect(port))
            with contextlib.suppress(ConnectionError):
                guest.sendall(said)
            found.append(guest)
        yield found


@pytest.mark.parametrize("path", [*PATHS, "/events", "/api/quarantine/retry", "/nothing"])
@pytest.mark.parametrize("method", _CHANGING)
def test_nothing_over_http_changes_anything(shared_ods: OdsProcess, method: str, path: str) -> None:
    before = shared_ods.totals()
    assert say(shared_ods.http_port, request(path, method=method))[0] == 405
    assert say(shared_ods.http_port, request(path, "Content-Length: 2", method=method) + b"{}")[0] == 405
    assert shared_ods.totals() == before


@pytest.mark.parametrize("path", PATHS)
def test_whoever_reaches_the_port_may_look(shared_ods: OdsProcess, path: str) -> None:
    status, body = say(shared_ods.http_port, request(path, "Connection: close"))
    assert (status, bool(body)) == (200, True)
    status, body = say(shared_ods.http_port, request(path, "Connection: close", method="HEAD"))
    assert (status, body) == (200, b"")


@pytest.mark.parametrize("path", [*PATHS, "/events", "/nothing"])
def test_a_page_of_another_site_may_not(shared_ods: OdsProcess, path: str) -> None:
    port = shared_ods.http_port
    assert say(port, request(path, host="evil.example.com"))[0] == 421
    assert say(port, request(path, "Origin: http://evil.example.com"))[0] == 403
    assert say(port, request(path, "Origin: null"))[0] == 403
    assert say(port, request(path, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"))[0] == 403
    assert say(port, request(path, host="a b"))[0] == 400


def own_address() -> str | None:
    """An address of this machine that is not loopback; None where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


def test_another_machine_finds_the_page_by_address_and_by_name_where_the_operator_says_so(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no network")
    ods = start_ods(influx, "--http-host", "0.0.0.0")
    ods.wait_for_line(rf"status: http://{address}:{ods.http_port}/$")
    for host in (f"{address}:{ods.http_port}", f"ods.track.example:{ods.http_port}", "laptop"):
        assert say(ods.http_port, request("/api/status", host=host), host=address)[0] == 200
    origin = f"Origin: http://ods.track.example:{ods.http_port}"
    host = f"ods.track.example:{ods.http_port}"
    assert say(ods.http_port, request("/api/status", origin, host=host), host=address)[0] == 200
    assert say(ods.http_port, request("/api/status", "Origin: http://evil.example"), host=address)[0] == 403
    assert say(ods.http_port, request("/api/status", host="ods.track.example"))[0] == 421


def test_nobody_else_reaches_the_page_unless_the_operator_says_so(shared_ods: OdsProcess) -> None:
    shared_ods.wait_for_line(rf"status: http://127\.0\.0\.1:{shared_ods.http_port}/$")
    address = own_address()
    if address is None:
        pytest.skip("this machine has no network")
    with pytest.raises(ConnectionRefusedError):
        connect(shared_ods.http_port, host=address)


HUGE: dict[str, Callable[[], tuple[bytes, set[int]]]] = {
    "request line": lambda: (b"GET /" + b"a" * 50_000_000, {0, 414, 431}),
    "header": lambda: (request("/", "X: " + "a" * 50_000_000), {0, 431}),
    "headers": lambda: (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 5_000_000, {0, 431}),
    "body": lambda: (request("/", "Content-Length: 10000000000", method="POST") + b"a" * 50_000_000, {0, 405}),
    "body in chunks": lambda: (
        request("/", "Transfer-Encoding: chunked", method="POST") + b"1000\r\n" + b"a" * 50_000_000,
        {0, 405},
    ),
    "noise": lambda: (bytes(range(256)) * 100_000, {0, 400, 431}),
    "empty lines": lambda: (b"\r\n" * 20_000_000, {0, 431}),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_huge_request_is_not_taken_in(shared_ods: OdsProcess, influx: InfluxServer, what: str) -> None:
    """The answer, where the other side still takes it in, comes long before the end of the request."""
    data, statuses = HUGE[what]()
    before = shared_ods.memory_bytes() if sys.platform == "linux" else 0
    with connect(shared_ods.http_port) as guest:
        guest.settimeout(40)
        with contextlib.suppress(ConnectionError):
            guest.sendall(data)
        with contextlib.suppress(ConnectionError):
            answer = guest.recv(65536)
            assert (int(answer.split()[1]) if answer else 0) in statuses
    after = shared_ods.memory_bytes() if sys.platform == "linux" else 0
    assert after - before < 20_000_000
    assert shared_ods.healthz() == 200


def test_what_nobody_understands_is_answered_and_is_no_news_for_the_operator(shared_ods: OdsProcess) -> None:
    lines = len(shared_ods.log)
    for said in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 200):
        assert say(shared_ods.http_port, said + b"\r\n")[0] == 400
    assert shared_ods.log[lines:] == []


def few_files(ods: OdsProcess) -> None:
    """Let ODS open no more than `FEW_FILES` from now on, and the tests as many as they may."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("the limit of another process's files cannot be set on this system")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * FEW_FILES:
        pytest.skip(f"this machine lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, 3 * FEW_FILES), hard))
    resource.prlimit(ods.process_id, resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: ", request("/api/status")], ids=["idle", "begun", "asked"]
)
def test_a_thousand_connections_that_only_take_room_leave_it_to_the_pods(
    start_ods: StartOds, influx: InfluxServer, said: bytes
) -> None:
    """Seven hundred pods still find a place on a machine on which a process may open 1024 files."""
    ods = start_ods(influx)
    few_files(ods)
    with undisturbed(ods, influx), guests(ods.http_port, 1000, said) as crowd:
        assert ods.healthz() == 200
        pods = [PodClient(ods.port, address=f"127.0.5.{number % 250 + 1}") for number in range(700)]
        with contextlib.ExitStack() as connected:
            for pod in pods:
                connected.enter_context(pod)
            wait_until(
                lambda: sum(pod["connections"] for pod in ods.status()["pods"]) == 701,
                timeout_seconds=30,
                what="a place for each pod",
            )
            assert ods.status()["state"] == "live"
            if said != request("/api/status"):
                assert sum(1 for guest in crowd if not has_ended(guest)) <= CONNECTIONS
        ods.wait_for_status(lambda status: sum(p["connections"] for p in status["pods"]) == 1, what="the pods to leave")
        totals = ods.totals()
        assert totals["invalid"] == totals["dropped"] == 0
    ods.stop()


def test_slow_questions_do_not_keep_others_from_asking(start_ods: StartOds, influx: InfluxServer) -> None:
    """Two hundred that begin a request and go on with it forever, byte by byte."""
    ods = start_ods(influx)
    with undisturbed(ods, influx), guests(ods.http_port, CONNECTIONS, b"GET / HTTP/1.1\r\n") as slow:
        for _ in range(10):
            for guest in slow:
                with contextlib.suppress(OSError):
                    guest.sendall(b"X")
            assert ods.healthz() == 200
        assert ods.status()["totals"]["dropped"] == 0


def test_a_viewer_sees_what_happens_and_comes_back_after_a_restart(
    start_ods: StartOds, own_influx: InfluxServer
) -> None:
    ods = start_ods(own_influx)
    with Viewer(ods.http_port, "?pod=127.0.2.1") as viewer, PodClient(ods.port).read_replies() as pod:
        viewer.wait_for("status")
        assert viewer.events[0][0] == "history"
        pod.exchange(b"POD2accel_x 1.5\n")
        pod.exchange(b"POD1[NOTE]  hello\n")
        wait_until(
            lambda: any(d["values"].get("accel_x", [0])[0] == 1.5 for name, d in viewer.events if name == "values"),
            timeout_seconds=30,
            what="the value",
        )
        own_influx.kill()
        pod.exchange(b"POD2accel_x 2.5\n")
        wait_until(lambda: viewer.latest.get("state") == "buffering", timeout_seconds=30, what="the outage")
        pod.close()
        ods.restart()
        count = viewer.count("history")
        viewer.wait_for("history", max(2, count))
        wait_until(
            lambda: viewer.latest.get("uptime_seconds", 1e9) < ods.status()["uptime_seconds"],
            timeout_seconds=30,
            what="a status of the new run",
        )
        own_influx.start()
        totals = ods.wait_for_totals(received=1, stored=1)["totals"]
        wait_until(lambda: viewer.latest.get("totals") == totals, timeout_seconds=60, what="the same figures")
        ods.stop()


def test_so_many_may_look_and_one_more_is_told_so(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx)
    with undisturbed(ods, influx), contextlib.ExitStack() as looking:
        viewers = [looking.enter_context(Viewer(ods.http_port, comes_back=False)) for _ in range(VIEWERS)]
        for viewer in viewers:
            viewer.wait_for("status", 2)
        with guests(ods.http_port, 300):  # those who look do not give way to those who do nothing
            assert say(ods.http_port, request("/events"))[0] == 503
            counts = [viewer.count("status") for viewer in viewers]
            for viewer, count in zip(viewers, counts, strict=True):
                viewer.wait_for("status", count + 1)
        assert http(f"{ods.url}/api/status")[0] == 200
        viewers[0].__exit__()
        wait_until(
            lambda: say(ods.http_port, request("/events"))[0] == 200, timeout_seconds=10, what="room for one more"
        )
    ods.stop()


def test_ods_stops_in_time_whoever_looks(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx)
    with contextlib.ExitStack() as looking, guests(ods.http_port, 50), guests(ods.http_port, 20, request("/events")):
        viewers = [Viewer(ods.http_port, "?pod=127.0.2.1", comes_back=False) for _ in range(20)]
        for viewer in viewers:
            looking.enter_context(viewer)
        for viewer in viewers:
            viewer.wait_for("values")
        ods.stop()


def test_a_viewer_that_never_reads_is_let_go_and_keeps_nobody_waiting(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    """With hundreds of values that change all the time, its connection is soon full."""
    if sys.platform != "linux":
        pytest.skip("whether a connection is still there is not told by this system")
    ods = start_ods(influx)
    names = [f"value_{number:04}" for number in range(sized(300, long=4000))]
    with (
        undisturbed(ods, influx),
        PodClient(ods.port, address="127.0.2.2").read_replies() as pod,
        connect(ods.http_port, receive_buffer_bytes=4096) as deaf,
        Viewer(ods.http_port, "?pod=127.0.2.2") as viewer,
    ):
        deaf.sendall(request("/events?pod=127.0.2.2"))
        viewer.wait_for("values")

        def is_let_go() -> bool:
            number = pod.lines_sent
            pod.send_lines([b"POD2%s %d.5\n" % (name.encode(), number) for name in names])
            return not is_established(server_port=ods.http_port, client_port=deaf.getsockname()[1])

        wait_until(is_let_go, timeout_seconds=90, what="the end of the one that does not read")
        viewer.wait_for("values", viewer.count("values") + 1)
        pod.wait_for_replies(pod.lines_sent)
    assert ods.status()["totals"]["dropped"] == 0
