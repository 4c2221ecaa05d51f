"""What InfluxDB's answers mean (section 7 of the contract), and that no answer at all means anything else.

`ods.influx` runs in a process of its own, patched by gevent as ODS is (`components.influx_caller`).
"""

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from components.answering_server import CLOSE, RESET, SILENCE, TRICKLE, AnsweringServer, answer
from components.influx_caller import RETURNED, InfluxCaller, Outcome
from harness.influx_server import InfluxServer
from harness.loopback import free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ods.settings import InfluxSettings

LINES = "accel_x,pod=a value=1.5 1700000000000000000\n"
WITNESS = b"ods_event witness=1"
PASSWORD = "s3cret-Password"
NOT_FOUND = '{"error":"database not found: \\"ods\\""}'
CREATED = answer(200, '{"results":[{"statement_id":0}]}')


@pytest.fixture(scope="module")
def caller() -> Iterator[InfluxCaller]:
    with InfluxCaller() as caller:
        yield caller


@pytest.fixture(scope="module")
def module_server() -> Iterator[AnsweringServer]:
    with AnsweringServer() as server:
        yield server


@pytest.fixture
def server(module_server: AnsweringServer) -> AnsweringServer:
    module_server.will_answer(answer(204))
    return module_server


def settings_for(port: int, **changes: Any) -> dict[str, Any]:
    made = {"host": "127.0.0.1", "port": port, "user": "root", "password": PASSWORD, "database": "ods"}
    return made | changes


@pytest.fixture
def write(caller: InfluxCaller, server: AnsweringServer) -> Callable[..., Outcome]:
    """Write `LINES` to the server; `constants` shorten the module's patience."""

    def write(lines: str = LINES, *, is_gzip: bool = False, to: dict[str, Any] | None = None, **constants: float):
        outcome = caller.write(lines, settings=to or settings_for(server.port), is_gzip=is_gzip, **constants)
        assert PASSWORD not in outcome.reason + outcome.advice
        assert "\n" not in outcome.reason + outcome.advice
        return outcome

    return write


Write = Callable[..., Outcome]


# The table


def test_204_confirms(write: Write, server: AnsweringServer) -> None:
    """The lines have been posted as they are, once, to the database, in nanoseconds, as the user."""
    assert write() == Outcome(RETURNED)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/write")
    assert (request.parameters["db"], request.parameters["precision"]) == ("ods", "ns")
    assert request.body == LINES.encode()
    assert "content-encoding" not in request.headers
    assert request.headers["authorization"].startswith("Basic ")


def test_gzipped_lines_are_posted_as_they_are(write: Write, server: AnsweringServer) -> None:
    """What the buffer holds is not packed again."""
    assert write(is_gzip=True) == Outcome(RETURNED)
    (request,) = server.requests
    assert request.headers["content-encoding"] == "gzip"
    assert gzip.decompress(request.body) == LINES.encode()


def test_the_path_of_a_reverse_proxy_is_kept_to(write: Write, server: AnsweringServer) -> None:
    """`--influx-path`, with slashes or without."""
    for path in ("db", "/db", "/db/"):
        assert write(to=settings_for(server.port, path=path)) == Outcome(RETURNED)
    assert {request.path for request in server.requests} == {"/db/write"}


@pytest.mark.parametrize(
    ("given", "in_reason", "in_advice"),
    [
        (answer(500, '{"error":"timeout"}'), "HTTP 500 timeout", ""),
        (answer(500, b"\xff\xfe"), "HTTP 500", ""),
        (answer(502, "<html>Bad Gateway</html>"), "HTTP 502", ""),
        (answer(503), "HTTP 503", ""),
        (answer(504), "HTTP 504", ""),
        (answer(599), "HTTP 599", ""),
        (answer(408), "HTTP 408", ""),
        (answer(429, "slow down"), "HTTP 429 slow down", ""),
        (answer(200, "<html>log in to the hotel</html>"), "HTTP 200", "--influx-host"),
        (answer(200, '{"results":[]}'), "HTTP 200", "--influx-host"),
        (answer(201), "HTTP 201", "--influx-host"),
        (answer(304), "HTTP 304", "--influx-host"),
        (answer(401, '{"error":"authorization failed"}'), "authorization failed", "--influx-pass"),
        (answer(403, '{"error":"not authorized"}'), "not authorized", "--influx-user"),
        (answer(404, "404 page not found"), "page not found", "--influx-path"),
        (answer(405), "HTTP 405", ""),
        (answer(410), "HTTP 410", ""),
        (answer(413, '{"error":"Request Entity Too Large"}'), "Too Large", "max-body-size"),
        (answer(418, "teapot"), "teapot", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "", ""),
        (CLOSE, "connection closed without an answer", ""),
        (RESET, "connection reset", ""),
    ],
    ids=repr,
)
def test_every_other_answer_means_unavailable(
    write: Write, server: AnsweringServer, given: bytes | str, in_reason: str, in_advice: str
) -> None:
    """Keep, try again; and where the operator can do something, say what."""
    server.will_answer(given)
    outcome = write()
    assert outcome.name == "Unavailable"
    assert in_reason in outcome.reason
    assert in_advice in outcome.advice
    assert outcome.reason != ""
    assert [request.body for request in server.requests].count(LINES.encode()) == 1, "it must not repeat by itself"


@pytest.mark.parametrize("given", [answer(500, "engine: no"), answer(502), answer(599), RESET, CLOSE], ids=repr)
def test_a_server_that_fails_over_a_batch_and_takes_another_makes_it_suspect(
    write: Write, server: AnsweringServer, given: bytes | str
) -> None:
    """It may be the batch's fault; no outage, for others pass."""
    server.will_answer(given, answer(204))
    assert write().name == "Suspect"
    assert [request.body for request in server.requests] == [LINES.encode(), WITNESS]


def test_silence_over_a_batch_makes_it_suspect_where_another_is_taken(write: Write, server: AnsweringServer) -> None:
    server.will_answer(SILENCE, answer(204))
    assert write(WRITE_SECONDS=0.2).name == "Suspect"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_says_when_to_come_back_is_not_asked_again(
    write: Write, server: AnsweringServer, status: int
) -> None:
    server.will_answer(answer(status, Retry_After="5"), answer(204))
    assert (write().name, len(server.requests)) == ("Unavailable", 1)


@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_body_that_is_too_large_is_sent_in_halves(write: Write, server: AnsweringServer, is_gzip: bool) -> None:
    lines = "".join(f"m{number} value=1 {number}\n" for number in range(64))
    server.will_answer(answer(413), answer(413), answer(204), answer(204), answer(204))
    assert write(lines, is_gzip=is_gzip).name == RETURNED
    assert b"".join(request.body for request in server.requests[2:]).decode() == lines
    assert [request.body[-1:] for request in server.requests[1:]] == [b"\n"] * 4, "bodies of whole lines"
    assert len(server.requests) == 5


def test_a_line_that_is_too_large_by_itself_is_bad(write: Write, server: AnsweringServer) -> None:
    server.will_answer(answer(413, "too large"), answer(204))
    assert write("m value=1 1\n").name == "Rejected"


def test_a_server_for_which_everything_is_too_large_takes_nothing(write: Write, server: AnsweringServer) -> None:
    server.will_answer(answer(413, "too large"))
    outcome = write()
    assert outcome.name == "Unavailable"
    assert "max-body-size" in outcome.advice


def test_a_refusal_that_comes_before_the_body_is_read_is_heard(write: Write) -> None:
    """A server may answer 413 to the head, and close: sending the rest then fails, and the answer is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with contextlib.suppress(OSError):  # the end of the test
                while True:
                    connection, _address = listener.accept()
                    connection.recv(1000)
                    connection.sendall(answer(413, "too large", Connection="close"))
                    connection.close()

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        outcome = write("m value=1 1" + "0" * 30_000_000 + "\n", to=settings_for(listener.getsockname()[1]))
    assert "413" in outcome.reason


@pytest.mark.parametrize(
    ("given", "in_advice"),
    [
        (answer(404, '{"code":"not found","message":"no dbrp mapping found"}'), "bucket"),  # InfluxDB 2.x
        (answer(422, '{"error":"Adding a new database would exceed limit of 5 databases"}'), "database"),  # 3.x
        (answer(400, '{"error":"cannot write to soft-deleted database \'x\' - ..."}'), "--influx-name"),  # 3.x
        (answer(400, '{"error":"Authorization header was malformed, ..."}'), "--influx-pass"),  # 3.x
    ],
    ids=repr,
)
def test_what_other_servers_say_of_more_than_lines_is_not_held_against_the_lines(
    write: Write, server: AnsweringServer, given: bytes, in_advice: str
) -> None:
    server.will_answer(given)
    outcome = write()
    assert outcome.name == "Unavailable"
    assert in_advice in outcome.advice


@pytest.mark.parametrize("count", [1, 1000], ids=["one", "more than is read"])
def test_the_reason_of_a_bad_line_is_told_as_influxdb_3_has_it(
    write: Write, server: AnsweringServer, count: int
) -> None:
    """Where many lines are bad, the answer that names them all is not read to its end."""
    bad_line = {"original_line": 'a value="}\\""', "line_number": 1, "error_message": "invalid column type"}
    given = {"error": "partial write of line protocol occurred", "data": [bad_line] * count}
    server.will_answer(answer(400, json.dumps(given)))
    assert write().reason == "HTTP 400 partial write of line protocol occurred: invalid column type"


def test_a_server_that_refuses_a_comment_is_asked_with_a_point(caller: InfluxCaller, server: AnsweringServer) -> None:
    """InfluxDB 3.x calls a body of comments empty."""
    server.will_answer(answer(400, '{"error":"incoming write was empty"}'), answer(204))
    assert caller.probe(settings=settings_for(server.port)).name == RETURNED
    assert server.requests[1].body == WITNESS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(write: Write, server: AnsweringServer, status: int) -> None:
    """A captive portal's page would confirm anything: it is unavailable, and points go nowhere else."""
    server.will_answer(answer(status, Location=f"http://127.0.0.1:{server.port}/portal"), answer(204))
    assert write().name == "Unavailable"
    assert [request.path for request in server.requests] == ["/write"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "at_least", "at_most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        (formatdate(time.time() + 10_000, usegmt=True), 1000, 10_000),
        (formatdate(time.time() - 1000, usegmt=True), 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
        ("", 0, 0),
        ("99999999999999999999", 0, 1e30),
        ("Mon, 1 Jan 2024 99999999999999999999:00:00 GMT", 0, 0),
        ("Mon, 99 Foo 99999999999 00:00:00", 0, 0),
    ],
)
def test_retry_after_is_understood(
    write: Write, server: AnsweringServer, status: int, value: str, at_least: float, at_most: float
) -> None:
    """Seconds or a date; nonsense is none."""
    server.will_answer(answer(status, Retry_After=value))
    outcome = write()
    assert outcome.name == "Unavailable", outcome
    assert at_least <= outcome.retry_after_seconds <= at_most


@pytest.mark.parametrize("hours", [-100, 0, 100])
def test_a_date_to_retry_after_is_that_of_the_servers_clock(write: Write, server: AnsweringServer, hours: int) -> None:
    """The clock of this machine may stand at any time."""
    now = time.time() + hours * 3600
    date, retry_after = formatdate(now, usegmt=True), formatdate(now + 20, usegmt=True)
    server.will_answer(answer(503, Retry_After=retry_after, Date=date))
    assert write().retry_after_seconds == 20


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "error", ["partial write: field type conflict dropped=1", "unable to parse 'x': missing fields"]
)
def test_bad_lines_are_rejected(write: Write, server: AnsweringServer, status: int, error: str) -> None:
    """With the server's reason, whichever way it says it."""
    server.will_answer(answer(status, f'{{"error":"{error}"}}'))
    assert write() == Outcome("Rejected", f"HTTP {status} {error}")
    server.will_answer(answer(status, "", X_Influxdb_Error=error))
    assert write() == Outcome("Rejected", f"HTTP {status} {error}")


# The database


def test_a_missing_database_is_created_and_written_to(write: Write, server: AnsweringServer) -> None:
    """404 "database not found": create it, try again."""
    server.will_answer(answer(404, NOT_FOUND), CREATED, answer(204))
    assert write() == Outcome(RETURNED)
    assert [request.path for request in server.requests] == ["/write", "/query", "/write"]
    assert server.requests[1].parameters["q"] == 'CREATE DATABASE "ods"'
    assert server.requests[2].body == LINES.encode()


def test_the_name_of_the_database_is_quoted(write: Write, server: AnsweringServer) -> None:
    """Whatever it is called."""
    server.will_answer(answer(404, NOT_FOUND), CREATED, answer(204))
    assert write(to=settings_for(server.port, database='a "b" \\ c')) == Outcome(RETURNED)
    assert server.requests[1].parameters["q"] == 'CREATE DATABASE "a \\"b\\" \\\\ c"'
    assert server.requests[2].parameters["db"] == 'a "b" \\ c'


@pytest.mark.parametrize(
    "refusal",
    [
        answer(403, '{"error":"error authorizing query"}'),
        answer(401, '{"error":"no"}'),
        answer(404, "404 page not found"),
        answer(200, "<html>no InfluxDB</html>"),
        answer(400, '{"error":"error parsing query"}'),
        answer(500),
        answer(204),
        CLOSE,
    ],
    ids=repr,
)
def test_a_database_that_cannot_be_created_is_told(write: Write, server: AnsweringServer, refusal: bytes) -> None:
    """Keep, and tell: it is no fault of the lines."""
    server.will_answer(answer(404, NOT_FOUND), refusal, answer(404, NOT_FOUND))
    outcome = write()
    assert outcome.name == "Unavailable", outcome


def test_the_operator_hears_how_to_create_the_database(write: Write, server: AnsweringServer) -> None:
    """In the words of InfluxDB's own tool."""
    server.will_answer(answer(404, NOT_FOUND), answer(403, '{"error":"not allowed"}'))
    outcome = write()
    assert "not allowed" in outcome.reason
    assert "CREATE DATABASE" in outcome.advice


def test_a_database_that_stays_missing_is_unavailable(write: Write, server: AnsweringServer) -> None:
    """A server that says it was created and then that it is not there (a proxy, a cluster): keep, try again."""
    server.will_answer(answer(404, NOT_FOUND), CREATED, answer(404, NOT_FOUND))
    assert write().name == "Unavailable"


# No answer


def test_a_refused_connection_is_unavailable(write: Write) -> None:
    """In words, without the nesting of the libraries."""
    assert write(to=settings_for(free_port())) == Outcome("Unavailable", "connection refused")


def test_a_name_that_cannot_be_resolved_is_unavailable(write: Write) -> None:
    """An InfluxDB on a network that comes and goes."""
    for host in ("no-such-host.invalid", "a" * 70, "a..b", "münchen.invalid"):
        outcome = write(to=settings_for(8086, host=host))
        assert outcome.name == "Unavailable", outcome


@pytest.mark.parametrize("given", [SILENCE, TRICKLE])
def test_an_answer_that_does_not_end_is_unavailable(write: Write, server: AnsweringServer, given: str) -> None:
    """No request takes longer than its limit, be the server silent or endlessly talking."""
    server.will_answer(given)
    outcome = write(WRITE_SECONDS=0.3)
    assert outcome.name == "Unavailable", outcome
    assert "no answer within" in outcome.reason


def test_an_answer_that_is_cut_is_unavailable(write: Write, server: AnsweringServer) -> None:
    """The connection breaks in the middle of the body."""
    server.will_answer(b"HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: 1000\r\n\r\nhalf")
    assert write().name == "Unavailable"


# Whatever is answered


@pytest.mark.parametrize(
    "given",
    [
        answer(500, "text", Content_Type="text/plain; charset=idna"),
        answer(500, "text", Content_Type="text/plain; charset=undefined"),
        answer(500, "text", Content_Type="text/plain; charset=hex"),
        answer(500, "text", Content_Type="text/plain; charset=no-such-thing"),
        answer(500, "text", Content_Type="application/x-msgpack"),
        answer(204, Content_Type="application/x-msgpack"),
        answer(500, "this is not gzip", Content_Encoding="gzip"),
        answer(400, "this is not deflate", Content_Encoding="deflate"),
        answer(500, "[" * 200_000),
        answer(500, '{"error":' * 50_000),
        answer(500, '{"error":{"error":["x"]}}'),
        answer(500, "null"),
        answer(500, "7"),
        answer(500, "9" * 10_000),
        answer(500, "x" * 1_000_000),
        b"HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 204 OK\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: many\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 500 X\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://[broken\r\nContent-Length: 0\r\n\r\n",
        b"\x00" * 1000,
    ],
    ids=lambda given: repr(given[:70]),
)
def test_nonsense_is_one_of_the_outcomes(write: Write, server: AnsweringServer, given: bytes) -> None:
    """Nothing that another machine says may come up as another exception: that would end ODS."""
    server.will_answer(given)
    outcome = write(WRITE_SECONDS=0.5)
    assert outcome.name in ("Unavailable", "Rejected", RETURNED), outcome
    assert len(outcome.reason) < 500


texts = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20).filter(lambda text: "\x85" not in text)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    status=st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    body=st.binary(max_size=50),
    content_type=texts.map(lambda text: f"text/plain; charset={text}"),
    encoding=st.sampled_from(["identity", "gzip", "deflate", "br", "zstd", "nonsense"]),
    retry_after=texts,
)
def test_any_answer_is_one_of_the_outcomes(
    caller: InfluxCaller,
    module_server: AnsweringServer,
    status: int,
    body: bytes,
    content_type: str,
    encoding: str,
    retry_after: str,
) -> None:
    """Whatever the status, the headers and the body: unavailable or rejected, and never confirmed without a 204."""
    headers = {"Content_Type": content_type, "Content_Encoding": encoding, "Retry_After": retry_after}
    module_server.will_answer(answer(status, body, **headers))
    outcome = caller.write(LINES, settings=settings_for(module_server.port))
    allowed = {"Unavailable", "Rejected"} if status in (400, 422) else {"Unavailable"}
    assert outcome.name in allowed, outcome


@pytest.mark.parametrize("password", ["with spaces : and @", "pässword", "пароль", "密码", "x" * 1000, ""])
def test_any_password_can_be_used(write: Write, server: AnsweringServer, password: str) -> None:
    """As UTF-8, which is what InfluxDB takes it for."""
    import base64

    assert write(to=settings_for(server.port, password=password)) == Outcome(RETURNED)
    sent = base64.b64decode(server.requests[0].headers["authorization"].removeprefix("Basic "))
    assert sent.decode() == f"root:{password}"


@pytest.mark.parametrize("status", [302, 400, 401, 404, 500, 503])
def test_credentials_that_the_server_repeats_are_not_told(write: Write, server: AnsweringServer, status: int) -> None:
    """A proxy that explains a refusal may quote the request; the fixture looks for the password itself."""
    import base64

    credentials = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
    quoted = f"no: Authorization: Basic {credentials} ({PASSWORD})"
    for refusal in (answer(status, quoted), answer(status, json.dumps({"error": quoted}))):
        server.will_answer(refusal)
        outcome = write()
        assert credentials not in outcome.reason
        assert "no: Authorization: Basic *** (***)" in outcome.reason


def test_credentials_are_not_told_where_the_database_cannot_be_created(write: Write, server: AnsweringServer) -> None:
    """That is another library's error."""
    server.will_answer(answer(404, NOT_FOUND), answer(403, json.dumps({"error": f"no: {PASSWORD}"})))
    assert "no: ***" in write().reason


def test_any_password_can_create_the_database(write: Write, server: AnsweringServer) -> None:
    """The same user creates it as writes to it."""
    server.will_answer(answer(404, NOT_FOUND), CREATED, answer(204))
    assert write(to=settings_for(server.port, password="пароль")) == Outcome(RETURNED)
    assert len({request.headers["authorization"] for request in server.requests}) == 1


def test_no_proxy_stands_between(server: AnsweringServer) -> None:
    """Whatever the environment of the machine says: neither for writes nor for the making of the database."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    server.will_answer(answer(404, NOT_FOUND), CREATED, answer(204))
    with InfluxCaller(http_proxy=nowhere, HTTP_PROXY=nowhere, all_proxy=nowhere) as caller:
        assert caller.write(LINES, settings=settings_for(server.port)) == Outcome(RETURNED)


# The probe


def test_a_probe_returns_when_a_write_would_be_taken(caller: InfluxCaller, server: AnsweringServer) -> None:
    """It asks by the way that a write takes, and stores nothing: a comment is no line."""
    assert caller.probe(settings=settings_for(server.port)) == Outcome(RETURNED)
    (request,) = server.requests
    assert (request.path, request.parameters["db"]) == ("/write", "ods")
    assert request.body.startswith(b"#")


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413, 422, 429, 500, 503])
def test_a_probe_raises_when_a_write_would_not_be_taken(
    caller: InfluxCaller, server: AnsweringServer, status: int
) -> None:
    """Always Unavailable: there is no line that could be bad."""
    server.will_answer(answer(status, "no"))
    outcome = caller.probe(settings=settings_for(server.port))
    assert (outcome.name, PASSWORD in outcome.reason) == ("Unavailable", False)


def test_a_probe_of_a_silent_server_ends_soon(caller: InfluxCaller, server: AnsweringServer) -> None:
    """It must not hide that InfluxDB is back: its own limit is shorter than a write's."""
    server.will_answer(SILENCE)
    outcome = caller.probe(settings=settings_for(server.port), PROBE_SECONDS=0.2)
    assert outcome.name == "Unavailable"


def test_a_probe_creates_the_database(caller: InfluxCaller, server: AnsweringServer) -> None:
    """So that the first row of a backlog finds it."""
    server.will_answer(answer(404, NOT_FOUND), CREATED)
    assert caller.probe(settings=settings_for(server.port)) == Outcome(RETURNED)


# One contract for the server of these tests and for a real InfluxDB


@pytest.fixture(params=["the tests' server", "a real InfluxDB"])
def taking(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Settings for a server without the database; `then` is what the tests' own server answers."""

    def prepared(*then: bytes, database: str) -> dict[str, Any]:
        if request.param == "a real InfluxDB":
            real: InfluxServer = request.getfixturevalue("influx")
            return settings_for(real.port, database=database)
        server: AnsweringServer = request.getfixturevalue("server")
        server.will_answer(*then)
        return settings_for(server.port, database=database)

    return prepared


Taking = Callable[..., dict[str, Any]]
MISSING = answer(404, NOT_FOUND)
PARTIAL = answer(400, '{"error":"partial write: field type conflict: input field dropped=1"}')


def test_contract_a_missing_database_is_created_by_a_write(write: Write, taking: Taking) -> None:
    """404, then created, then 204; and 204 from then on, gzipped too."""
    to = taking(MISSING, CREATED, answer(204), database="by a \"write\" 'x'")
    for is_gzip in (False, True):
        assert write(to=to, is_gzip=is_gzip) == Outcome(RETURNED)


def test_contract_a_missing_database_is_created_by_a_probe(caller: InfluxCaller, write: Write, taking: Taking) -> None:
    """404, then created; the write that follows is taken."""
    to = taking(MISSING, CREATED, answer(204), database="by_a_probe")
    assert caller.probe(settings=to) == Outcome(RETURNED)
    assert caller.probe(settings=to) == Outcome(RETURNED)
    assert write(to=to) == Outcome(RETURNED)


def test_contract_a_field_of_the_wrong_type_is_rejected(write: Write, taking: Taking) -> None:
    """400 partial write."""
    to = taking(answer(204), PARTIAL, database="partial")
    if "by" not in to["database"]:
        write("made,pod=a value=1.0 1\n", to=taking(MISSING, CREATED, answer(204), PARTIAL, database="partial"))
    outcome = write('made,pod=a value="text" 2\nother,pod=a value=2.0 3\n', to=to)
    assert outcome.name == "Rejected"
    assert "partial write: field type conflict" in outcome.reason


def test_contract_a_line_that_is_none_is_rejected(write: Write, taking: Taking) -> None:
    """400 unable to parse."""
    unable = answer(400, '{"error":"unable to parse \'nonsense\': missing fields"}')
    to = taking(MISSING, CREATED, unable, database="unable")
    outcome = write("nonsense\n" + LINES, to=to)
    assert outcome.name == "Rejected"
    assert "unable to parse" in outcome.reason


def test_a_real_influx_holds_what_was_confirmed(caller: InfluxCaller, influx: InfluxServer) -> None:
    """Exact, to the nanosecond; a probe leaves nothing."""
    to = settings_for(influx.port, database="holds")
    assert caller.write("b,pod=x value=0.1 1700000000000000001\n", settings=to, is_gzip=True) == Outcome(RETURNED)
    assert caller.probe(settings=to) == Outcome(RETURNED)
    assert influx.points("holds") == {("b", "x"): [(1700000000000000001, 0.1)]}


def test_a_real_influx_with_passwords(caller: InfluxCaller, locked_influx: InfluxServer) -> None:
    """401 tells what to do; the right password is taken."""
    to = settings_for(locked_influx.port, password="wrong-Password")
    for outcome in (caller.write(LINES, settings=to), caller.probe(settings=to)):
        assert outcome.name == "Unavailable"
        assert "--influx-pass" in outcome.advice
        assert "wrong-Password" not in outcome.reason
    to["password"] = locked_influx.password
    assert caller.write(LINES, settings=to) == Outcome(RETURNED)


def test_the_url_for_people_holds_no_secret() -> None:
    """It is shown on status pages and in logs."""
    made = InfluxSettings(host="::1", port=8086, user="u", password=PASSWORD, database="d", ssl=True, path="/db/")
    assert made.url == "https://[::1]:8086/db"
