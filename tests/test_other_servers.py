"""One contract for the real InfluxDB 1.x and for what stands in for 2.x and 3.x: what ODS relies on in each of them.

Where they differ, the test says how, by the server's kind: a stand-in that gives the answer of another one fails.
"""

import base64
import gzip
import http.client
import itertools
import json
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from harness.influx_server import InfluxServer, Points
from harness.other_servers import InfluxThree, InfluxTwo

USER, PASSWORD, TOKEN = "root", "s3cret", "a-token-of-2-or-3=="
TIME_NS = 1_700_000_000_000_000_000
#: Ready-made line protocol in three rows.
ROWS = [f"accel_{axis},pod=pod_1 value={number}.5 {TIME_NS + number}" for number, axis in enumerate("xyz")]
STORED: Points = {(f"accel_{axis}", "pod_1"): [(TIME_NS + number, number + 0.5)] for number, axis in enumerate("xyz")}

_numbers = itertools.count(1)


class Answered(NamedTuple):
    """What came back."""

    status: int
    body: bytes

    @property
    def reason(self) -> str:
        """What it says is wrong, wherever the server puts it."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return self.body.decode()
        return " ".join(str(content[key]) for key in ("error", "message", "data") if key in content)


class Subject:
    """A server, its kind ("1.x", "2.x", "3.x"), and one kept-alive connection to it, as ODS has one."""

    def __init__(self, kind: str, server: InfluxServer | InfluxTwo | InfluxThree) -> None:
        self.kind = kind
        self.server = server
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        #: A user and a password, or a token in its place: ODS sends both alike.
        self.credentials = (USER, TOKEN if kind == "3.x" else PASSWORD)

    def post(
        self, path: str, body: bytes, *, credentials: tuple[str, str] | None = None, is_gzip: bool = False
    ) -> Answered:
        user, password = credentials or self.credentials
        headers = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
        if is_gzip:
            headers["Content-Encoding"] = "gzip"
        self.connection.request("POST", path, body, headers)
        response = self.connection.getresponse()
        return Answered(response.status, response.read())

    def write(
        self,
        database: str,
        lines: str | bytes,
        *,
        credentials: tuple[str, str] | None = None,
        is_gzip: bool = False,
    ) -> Answered:
        body = lines if isinstance(lines, bytes) else lines.encode()
        path = f"/write?db={database}&precision=ns"
        return self.post(path, body, credentials=credentials, is_gzip=is_gzip)

    def new_database(self) -> str:
        """A database that can be written to, empty."""
        name = f"contract_{next(_numbers)}"
        if isinstance(self.server, InfluxServer):
            self.server.create_database(name)
        elif isinstance(self.server, InfluxTwo):
            self.server.mapped.add(name)
        return name


@pytest.fixture(scope="module", params=["1.x", "2.x", "3.x"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    if request.param == "1.x":
        request.getfixturevalue("influx")  # asks for an influxd on this machine
        real = InfluxServer(tmp_path_factory.mktemp("locked"), auth_enabled=True)
        try:
            real.start()
            real.create_administrator(USER, PASSWORD)
            yield Subject("1.x", real)
        finally:
            real.kill()
        return
    with InfluxTwo() if request.param == "2.x" else InfluxThree() as server:
        if isinstance(server, InfluxTwo):
            server.users[USER] = PASSWORD
            server.tokens.add(TOKEN)
        elif isinstance(server, InfluxThree):
            server.token = TOKEN
        yield Subject(request.param, server)


def test_a_write_is_confirmed_by_204_and_stored(subject: Subject) -> None:
    database = subject.new_database()
    assert subject.write(database, "\n".join(ROWS)) == (204, b"")
    assert subject.server.points(database) == STORED


def test_a_point_written_again_is_the_same_point(subject: Subject) -> None:
    database = subject.new_database()
    for _ in range(2):
        assert subject.write(database, "\n".join([*ROWS, ""])).status == 204
    assert subject.server.points(database) == STORED


def test_gzip_members_joined_are_one_body(subject: Subject) -> None:
    database = subject.new_database()
    body = b"".join(gzip.compress(f"{row}\n".encode()) for row in ROWS)
    assert subject.write(database, body, is_gzip=True).status == 204
    assert subject.server.points(database) == STORED


def test_half_a_gzip_member_is_never_confirmed(subject: Subject) -> None:
    """1.x and 3.x blame the sender, 2.x itself."""
    body = gzip.compress("\n".join(ROWS).encode())[:-20]
    answered = subject.write(subject.new_database(), body, is_gzip=True)
    assert answered.status == {"1.x": 400, "2.x": 500, "3.x": 400}[subject.kind]


@pytest.mark.parametrize("body", ["# is anybody there\n", ""], ids=["comment", "nothing"])
def test_a_body_without_a_point_stores_nothing(subject: Subject, body: str) -> None:
    """3.x has no use for it, and says so. Who asks by a comment must not take that for bad lines."""
    database = subject.new_database()
    answered = subject.write(database, body)
    if subject.kind == "3.x":
        assert answered == (400, b"incoming write was empty")
    else:
        assert answered.status == 204
    assert not subject.server.points(database)


def test_one_line_that_is_none_is_named_and_its_neighbours_can_be_stored(subject: Subject) -> None:
    """1.x and 3.x store the others at once, 2.x none; all of them take the others when they come alone."""
    database = subject.new_database()
    answered = subject.write(database, "\n".join([ROWS[0], "nonsense", *ROWS[1:]]))
    assert answered.status == 400
    assert "nonsense" in answered.reason
    assert subject.server.points(database) == ({} if subject.kind == "2.x" else STORED)
    assert subject.write(database, "\n".join(ROWS)).status == 204
    assert subject.server.points(database) == STORED


def test_a_field_of_another_type_is_named_and_its_neighbours_are_stored(subject: Subject) -> None:
    database = subject.new_database()
    assert subject.write(database, f'accel_x,pod=other value="text" {TIME_NS}').status == 204
    answered = subject.write(database, "\n".join(ROWS))
    assert answered.status == {"1.x": 400, "2.x": 422, "3.x": 400}[subject.kind]
    assert "partial write" in answered.reason
    sign = "invalid column type for column 'value'" if subject.kind == "3.x" else "field type conflict"
    assert sign in answered.reason
    points = {key: rows for key, rows in subject.server.points(database).items() if key[1] != "other"}
    assert points == {key: rows for key, rows in STORED.items() if key[0] != "accel_x"}


def test_a_point_that_is_too_old_is_told_and_a_newer_one_is_stored(subject: Subject) -> None:
    """In other words each: those of 2.x are those of the latest 1.x too. 3.x looks at no point's age."""
    if isinstance(subject.server, InfluxThree):
        pytest.skip("3.x stores it")
    database, now_ns = subject.new_database(), time.time_ns()
    if isinstance(subject.server, InfluxServer):
        subject.server.query(f'ALTER RETENTION POLICY autogen ON "{database}" DURATION 2h SHARD DURATION 1h')
    else:
        subject.server.not_before_ns = now_ns - 7200 * 10**9
    try:
        answered = subject.write(database, f"{ROWS[0]}\naccel_y,pod=pod_1 value=1 {now_ns}")
    finally:
        if isinstance(subject.server, InfluxTwo):
            subject.server.not_before_ns = 0
    assert answered.status == {"1.x": 400, "2.x": 422}[subject.kind]
    assert "partial write" in answered.reason
    assert {"1.x": "beyond retention policy", "2.x": "outside retention policy"}[subject.kind] in answered.reason
    assert subject.server.points(database) == {("accel_y", "pod_1"): [(now_ns, 1.0)]}


def test_the_wrong_password_is_401_and_stores_nothing(subject: Subject) -> None:
    database = subject.new_database()
    answered = subject.write(database, "\n".join(ROWS), credentials=(USER, "wrong"))
    assert answered.status == 401
    assert {"1.x": "authorization failed", "2.x": "unauthorized access", "3.x": "not authenticated"}[
        subject.kind
    ] in answered.reason
    assert not subject.server.points(database)


def test_a_token_is_taken_for_a_password(subject: Subject) -> None:
    """2.x: of a user that is none; 3.x: whoever the user is; 1.x knows no tokens."""
    database = subject.new_database()
    answered = subject.write(database, "\n".join(ROWS), credentials=("ods", TOKEN))
    assert answered.status == {"1.x": 401, "2.x": 204, "3.x": 204}[subject.kind]


def test_a_password_with_a_colon(subject: Subject) -> None:
    """3.x cannot read it, and calls that a bad request."""
    answered = subject.write(subject.new_database(), "\n".join(ROWS), credentials=(USER, "one:two"))
    assert answered.status == {"1.x": 401, "2.x": 401, "3.x": 400}[subject.kind]
    assert subject.kind != "3.x" or "Authorization header" in answered.reason


def test_a_missing_database(subject: Subject) -> None:
    """1.x: 404, and it can be created; 2.x: 404 with other words, and it cannot; 3.x makes it."""
    database = f"missing_{next(_numbers)}"
    answered = subject.write(database, "\n".join(ROWS))
    if subject.kind == "3.x":
        assert answered.status == 204
        assert subject.server.points(database) == STORED
        return
    assert answered.status == 404
    assert {"1.x": "database not found", "2.x": "no dbrp mapping found"}[subject.kind] in answered.reason
    created = subject.post(f"/query?q=CREATE+DATABASE+%22{database}%22", b"")
    assert created.status == 200
    assert ("error" in json.loads(created.body)["results"][0]) == (subject.kind == "2.x")
    assert subject.write(database, "\n".join(ROWS)).status == {"1.x": 204, "2.x": 404}[subject.kind]
