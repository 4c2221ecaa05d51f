"""The whole program beside InfluxDB 2.x and 3.x, as `harness.other_servers` stands in for them.

The same promises as beside InfluxDB 1.x: nothing lost, nothing stored twice or changed, no good neighbour blocked, and
the operator told what is wrong and what to do.
"""

import itertools
import time
from collections.abc import Iterator

import pytest
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.other_servers import InfluxThree, InfluxTwo, OtherServer
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(90, long=300), method="signal")

POD = "127.0.2.1"
USER, PASSWORD, TOKEN = "root", "s3cret-Password", "s3cret-Token-of-88-characters=="
#: The first database that a test asks for, and what the options call it.
DATABASE = "pods"
CREDENTIALS = ("--influx-user", USER, "--influx-pass")
RETRY_AFTER_SECONDS = 2


@pytest.fixture
def two() -> Iterator[InfluxTwo]:
    """An InfluxDB 2.x with a user of the 1.x kind, a token, and a bucket for `DATABASE`."""
    with InfluxTwo() as server:
        server.users[USER] = PASSWORD
        server.tokens.add(TOKEN)
        server.mapped.add(DATABASE)
        yield server


@pytest.fixture
def three() -> Iterator[InfluxThree]:
    """An InfluxDB 3.x with a token."""
    with InfluxThree() as server:
        server.token = TOKEN
        yield server


@pytest.fixture(params=["2.x", "3.x"])
def server(request: pytest.FixtureRequest) -> OtherServer:
    """One, then the other."""
    found: OtherServer = request.getfixturevalue({"2.x": "two", "3.x": "three"}[request.param])
    return found


def start(start_ods: StartOds, server: OtherServer, *options: str, secret: str = TOKEN) -> OdsProcess:
    """Start an ODS that writes to `DATABASE`, with a token in the place of the password."""
    name = "any" if secret == TOKEN else USER
    return start_ods(server, "--influx-name", DATABASE, "--influx-user", name, "--influx-pass", secret, *options)


def send_and_acknowledge(ods: OdsProcess, oracle: Oracle, count: int) -> None:
    """Play a pod that sends `count` records, and is answered OK to each."""
    first = oracle.sent_count(POD)
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(oracle.next_lines(POD, count))
        oracle.acknowledge(POD, pod.wait_for_replies(count), first=first)


def wait_until_all_is_there(ods: OdsProcess, server: OtherServer, oracle: Oracle) -> None:
    """Return when nothing waits any more; the server must then hold exactly what was sent."""
    ods.wait_until_settled()
    oracle.check(server.points(DATABASE))
    assert ods.totals()["quarantined"] == ods.totals()["dropped"] == 0


def assert_no_secret_was_logged(ods: OdsProcess) -> None:
    assert not [line for line in ods.log if PASSWORD in line or TOKEN in line]


@pytest.mark.parametrize(("kind", "secret"), [("two", PASSWORD), ("two", TOKEN), ("three", TOKEN)])
def test_points_and_messages_arrive(
    start_ods: StartOds, kind: str, secret: str, request: pytest.FixtureRequest
) -> None:
    """2.x takes the password of a user of the 1.x kind, or a token in its place; 3.x a token."""
    server: OtherServer = request.getfixturevalue(kind)
    ods, oracle = start(start_ods, server, secret=secret), Oracle()
    send_and_acknowledge(ods, oracle, 2000)
    with PodClient(ods.port).read_replies() as pod:
        pod.send(b'POD1[NOTE]  a "quoted" = text, with \\ and \xff in it\nPOD1no level\n')
        pod.wait_for_replies(2)
    wait_until_all_is_there(ods, server, oracle)
    assert [row[1:] for row in server.messages(DATABASE)[POD]] == [
        ("note", 'a "quoted" = text, with \\ and \\xff in it'),
        ("", "no level"),
    ]
    assert_no_secret_was_logged(ods)


def test_an_outage_is_drained(start_ods: StartOds, server: OtherServer) -> None:
    """What asks whether it is back must not take 3.x's answer to an empty write for an outage without end."""
    ods, oracle = start(start_ods, server), Oracle()
    send_and_acknowledge(ods, oracle, 500)
    server.kill()
    send_and_acknowledge(ods, oracle, sized(20_000, long=300_000))
    server.start()
    wait_until_all_is_there(ods, server, oracle)


def test_ods_started_without_it_drains(start_ods: StartOds, server: OtherServer) -> None:
    server.kill()
    ods, oracle = start(start_ods, server), Oracle()
    send_and_acknowledge(ods, oracle, 1000)
    server.start()
    wait_until_all_is_there(ods, server, oracle)


@pytest.mark.parametrize("secret", ["wrong", "one:two"], ids=["wrong", "with-a-colon"])
def test_a_wrong_token_loses_nothing_and_is_told_once(start_ods: StartOds, server: OtherServer, secret: str) -> None:
    """Also where 3.x calls it a bad request, because it cannot read a password with a colon."""
    ods, oracle = start(start_ods, server, secret=secret), Oracle()
    for _ in range(3):
        send_and_acknowledge(ods, oracle, 300)
        wait_for_refusals(ods, server, count=2)
    status = ods.wait_for_totals(received=900, pending=900, stored=0, quarantined=0, dropped=0)
    assert status["influx"]["available"] is False
    told = ods.lines_with(r"\b(warning|error)\b.*--influx-pass")
    assert len(told) == 1, f"one line that says what to do\n{ods.log_tail()}"
    ods.stop()
    ods.options[ods.options.index("--influx-pass") + 1] = TOKEN
    ods.options[ods.options.index("--influx-user") + 1] = "any"
    ods.start()
    wait_until_all_is_there(ods, server, oracle)
    assert_no_secret_was_logged(ods)


def test_a_token_that_becomes_valid_needs_no_restart(start_ods: StartOds, two: InfluxTwo) -> None:
    two.tokens.clear()
    ods, oracle = start(start_ods, two), Oracle()
    send_and_acknowledge(ods, oracle, 300)
    wait_for_refusals(ods, two, count=2)
    two.tokens.add(TOKEN)
    wait_until_all_is_there(ods, two, oracle)


def wait_for_refusals(ods: OdsProcess, server: OtherServer, *, count: int) -> None:
    """Return when so many more requests were refused."""
    enough = refusals(server) + count
    wait_until(lambda: refusals(server) >= enough, timeout_seconds=20, what="ODS to be refused", state=ods.log_tail)


def refusals(server: OtherServer) -> int:
    return len([exchange for exchange in server.exchanges if exchange.status >= 400])


def test_bad_lines_are_quarantined_and_their_neighbours_stored(start_ods: StartOds, server: OtherServer) -> None:
    """The reason that is told is the server's own, for the line, also where it names more lines than ODS reads."""
    server.write(DATABASE, f'accel_x,pod=other value="text" {time.time_ns()}')
    ods, count = start(start_ods, server), 500
    with PodClient(ods.port).read_replies() as pod:
        for number in range(count):
            pod.send(b"POD2accel_x %d\nPOD2accel_y %d\n" % (number, number))
        assert all(reply.startswith(b"OK: ") for reply in pod.wait_for_replies(2 * count))
    ods.wait_for_totals(received=2 * count, quarantined=count, stored=count, pending=0, dropped=0)
    points = server.points(DATABASE)
    assert [value for _, value in points["accel_y", POD]] == list(range(count))
    assert ("accel_x", POD) not in points
    ods.wait_for_line(r"quarantined: a point of accel_x,[^{]*(field type conflict|invalid column type)")


def test_a_whole_series_of_bad_lines_takes_few_requests(start_ods: StartOds, server: OtherServer) -> None:
    """As beside 1.x: each line of it is not asked about."""
    server.kill()
    ods, count = start(start_ods, server), 1000
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines([b"POD2accel_x %d\nPOD2accel_y %d\n" % (number, number) for number in range(count)])
        pod.wait_for_replies(2 * count)
    server.write(DATABASE, f'accel_x,pod=other value="text" {time.time_ns()}')
    server.start()
    ods.wait_for_totals(quarantined=count, stored=count, pending=0)
    assert len(server.exchanges) < count / 4


def test_a_backlog_that_is_partly_too_old_takes_few_requests(start_ods: StartOds, two: InfluxTwo) -> None:
    """In the words of 2.x and of the latest 1.x: what is too old is quarantined, all that is not is stored."""
    two.kill()
    ods, count = start(start_ods, two), 1000
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines([b"POD2accel_x %d\nPOD2accel_y %d\n" % (number, number) for number in range(count)])
        pod.wait_for_replies(2 * count)
        two.not_before_ns = time.time_ns()
        pod.send_lines([b"POD2accel_y %d\n" % number for number in range(count, 2 * count)])
        pod.wait_for_replies(3 * count)
    two.start()
    ods.wait_for_totals(quarantined=2 * count, stored=count, pending=0)
    assert [value for _, value in two.points(DATABASE)["accel_y", POD]] == list(range(count, 2 * count))
    assert len(two.exchanges) < count / 4


def test_a_database_that_2_x_does_not_map_is_told_and_everything_kept(start_ods: StartOds, two: InfluxTwo) -> None:
    """ODS cannot create it. The operator hears its name and what to make; once it is made, all arrives."""
    two.mapped.clear()
    ods, oracle = start(start_ods, two), Oracle()
    send_and_acknowledge(ods, oracle, 1000)
    wait_for_refusals(ods, two, count=2)
    ods.wait_for_totals(pending=1000, stored=0, quarantined=0, dropped=0)
    assert len(ods.lines_with(rf"\b(warning|error)\b.*'{DATABASE}'.*bucket")) == 1, ods.log_tail()
    two.mapped.add(DATABASE)
    wait_until_all_is_there(ods, two, oracle)


def test_a_database_too_many_for_3_x_is_told_and_everything_kept(start_ods: StartOds, three: InfluxThree) -> None:
    """It says so with 422, as it does of bad lines: none of these is one."""
    three.limit_databases = 0
    ods, oracle = start(start_ods, three), Oracle()
    send_and_acknowledge(ods, oracle, 1000)
    wait_for_refusals(ods, three, count=2)
    ods.wait_for_totals(pending=1000, stored=0, quarantined=0, dropped=0)
    assert len(ods.lines_with(r"\b(warning|error)\b.*exceed limit of 0 databases.*delete a database")) == 1, (
        ods.log_tail()
    )
    assert not ods.lines_with("--influx-path"), "it is an InfluxDB"
    three.limit_databases = 1
    wait_until_all_is_there(ods, three, oracle)


def test_a_server_that_asks_for_time_is_given_it(start_ods: StartOds, server: OtherServer) -> None:
    """429 with `Retry-After`, as InfluxDB Cloud answers beyond its rate: nothing is asked before that time."""
    ods, oracle = start(start_ods, server), Oracle()
    send_and_acknowledge(ods, oracle, 1)
    ods.wait_for_totals(stored=1, pending=0)
    server.refuse(429, b'{"code":"too many requests","message":"rate limit"}', Retry_After=str(RETRY_AFTER_SECONDS))
    before = len(server.exchanges)
    send_and_acknowledge(ods, oracle, 1)
    wait_until(lambda: len(server.exchanges) >= before + 3, timeout_seconds=30, what="three requests")
    times = [exchange.at for exchange in server.exchanges[before : before + 3]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap > RETRY_AFTER_SECONDS - 0.1 for gap in gaps), gaps
    server.accept()
    wait_until_all_is_there(ods, server, oracle)


def test_what_is_too_large_is_sent_in_smaller_pieces(start_ods: StartOds, server: OtherServer) -> None:
    """413 comes on the announced length alone, and the connection is closed with the body unread."""
    server.kill()
    ods, oracle = start(start_ods, server), Oracle()
    send_and_acknowledge(ods, oracle, sized(20_000, long=300_000))
    server.limit_bytes = 50_000
    server.start()
    wait_until_all_is_there(ods, server, oracle)
    assert 413 in [exchange.status for exchange in server.exchanges]


def test_3_x_confirms_once_a_second_and_that_is_no_outage(start_ods: StartOds, three: InfluxThree) -> None:
    """It waits for its log to be flushed; what ODS keeps meanwhile is sent once."""
    three.flush_seconds = 1.0
    ods, oracle = start(start_ods, three), Oracle()
    with PodClient(ods.port).read_replies() as pod:
        lines = oracle.next_lines(POD, 3000)
        pod.send_at_rate(lines, lines_per_second=1000, burst_lines=10)
        oracle.acknowledge(POD, pod.wait_for_replies(len(lines)))
    wait_until_all_is_there(ods, three, oracle)
    assert not ods.lines_with("unavailable"), ods.log_tail()
