"""The faults of simulated pods: each is what it is called, and what it says that ODS is to count is what ODS counts."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ods.commands.simulate import main
from ods.data_points import DataPoints
from ods.protocol import Decoded, Decoder, LogMessage, NameBook, NoRecord, replies_when_kept
from ods.sensors import Sensors
from ods.simulator.faults import FAULTS, LONG_NAME, RAMP_NAME, ramp
from ods.simulator.odd_lines import ODD_LINES, TORN, bad_run
from ods.simulator.pod import PodReport
from ods.simulator.records import OddLine
from ods.simulator.replies import ReplyChecker, ReplyCounts

SENSORS = Path(__file__).parent.parent / "conf" / "sensors.toml"


def counted(decoded: Decoded) -> dict[str, int]:
    """What the ledger would count."""
    found = {"data_points": 0, "log_messages": 0, "invalid": 0, "torn": 0}
    for record in decoded.records:
        if isinstance(record, DataPoints):
            found["data_points"] += len(record)
        elif isinstance(record, LogMessage):
            found["log_messages"] += 1
        elif isinstance(record, NoRecord):
            found[record.kind] += 1
    return found


@pytest.mark.parametrize("line", ODD_LINES, ids=lambda line: repr(line.wire[:40]))
def test_an_odd_line_is_what_the_protocol_makes_of_it(line: OddLine) -> None:
    decoded = Decoder(NameBook(10)).feed(line.wire)
    assert replies_when_kept(decoded.replies) == line.reply + b"\n"
    expected = {"data_points": line.data_points, "log_messages": line.log_messages, "invalid": line.invalid, "torn": 0}
    assert counted(decoded) == expected


def test_the_last_words_are_a_torn_line() -> None:
    decoder = Decoder(NameBook(10))
    assert not decoder.feed(TORN).records
    assert counted(decoder.finish()) == {"data_points": 0, "log_messages": 0, "invalid": 0, "torn": 1}


def test_every_kind_of_bad_line_has_good_ones_around_it() -> None:
    assert [record for record in bad_run() if isinstance(record, OddLine)] == list(ODD_LINES)
    assert not any(isinstance(record, OddLine) for record in bad_run()[1::2])


def test_a_ramp_goes_up_once_and_comes_back() -> None:
    values = [point.value for point in ramp()]
    top = values.index(max(values))
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert {point.name for point in ramp()} == {RAMP_NAME}


def test_a_ramp_crosses_the_limits_of_the_sensor_file_and_begins_and_ends_inside() -> None:
    sensor = Sensors.load(SENSORS).of(RAMP_NAME)
    assert sensor is not None and sensor.warning_high is not None and sensor.danger_high is not None
    values = [point.value for point in ramp()]
    assert values[0] == values[-1] < sensor.warning_high / 2
    assert max(values) > sensor.danger_high > sensor.warning_high


def test_the_name_that_fills_the_replies_is_as_long_as_names_may_be() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.:/-]{63}", LONG_NAME)


def test_a_bad_line_is_to_be_told_to_be_bad() -> None:
    odd, glued = OddLine(b"hello\n", b"FAIL: hello", invalid=1), OddLine(b"xPOD2a 1\n", b"OK: (a,1.0)", data_points=1)
    for replies, counts in (
        (b"FAIL: hello\nOK: (a,1.0)\n", ReplyCounts(rejected=1, acknowledged=1)),
        (b"FAIL: hello\nERROR: Not Stored\n", ReplyCounts(rejected=1, refused=1)),
        (b"OK: LOGGED\n", ReplyCounts(wrong=1, unanswered=1)),
        (b"FAIL: hullo\n", ReplyCounts(wrong=1, unanswered=1)),
    ):
        checker = ReplyChecker()
        checker.expect(odd)
        checker.expect(glued)
        checker.receive(replies)
        assert checker.counts() == counts
        assert checker.is_waiting == bool(counts.unanswered)


def test_two_reports_make_one() -> None:
    one = PodReport(name="a", data_points=1, torn=1, replies=ReplyCounts(acknowledged=1), failure="gone")
    other = PodReport(name="b", invalid=2, longest_send_seconds=0.5, first_wrong="x", failure="later")
    assert one + other == PodReport(
        name="a",
        data_points=1,
        invalid=2,
        torn=1,
        longest_send_seconds=0.5,
        replies=ReplyCounts(acknowledged=1),
        first_wrong="x",
        failure="gone",
    )
    assert (other + one).replies == one.replies


# -- On the wire ------------------------------------------------------------------------------------------------------


class Server:
    """Answers each connection as ODS would, with ODS's own decoder, and notes how it ended."""

    def __init__(self) -> None:
        self.endings: list[tuple[bool, bytes]] = []  # whether it was reset, and its last bytes
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def settle(self) -> None:
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        decoder, last = Decoder(NameBook(100)), b""
        try:
            with connection:
                while data := connection.recv(65_536):
                    last = (last + data)[-len(TORN) :]
                    connection.sendall(replies_when_kept(decoder.feed(data).replies))
            self.endings.append((False, last))
        except ConnectionError:
            self.endings.append((True, last))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def simulate(server: Server, *options: str) -> int:
    status = main(["--port", str(server.port), "--rate", "20", "--seconds", "0.5", *options])
    server.settle()
    return status


def test_an_unplugged_pod_is_reset_in_the_middle_of_a_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(server, "--fault", "unplug") == 0
    assert (True, TORN) in server.endings
    assert "(unplug): sent 100 records (100 data points, 0 log messages), 0 invalid, 1 torn" in capsys.readouterr().out


def test_what_an_unplugged_pod_sent_arrives_also_where_it_reads_no_replies(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(server, "--fault", "unplug", "--ignore-replies") == 0
    assert (True, TORN) in server.endings
    assert "1 torn, replies not read" in capsys.readouterr().out


def test_a_storm_is_many_connections(server: Server) -> None:
    assert simulate(server, "--fault", "reconnect-storm") == 0
    assert server.connections == 1 + 50
    assert sum(was_reset for was_reset, _ in server.endings) >= 20


def test_a_fault_is_played_again_and_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fault", "bad-lines", "--fault-every", "0.1", "--fault", "bad-lines", "--seconds", "2"]
    assert simulate(server, *options) == 0
    assert server.connections > 2
    assert capsys.readouterr().out.count("(bad-lines)") == 1, "the same kind given twice is one"


def test_a_wrong_answer_to_a_bad_line_is_a_failure(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ods.protocol.HEAD_BYTES", 63)
    assert simulate(server, "--fault", "bad-lines") == 1
    assert "wrong 1" in capsys.readouterr().out


def test_without_a_server_each_fault_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert main(["--port", str(port), "--seconds", "0.1", "--fault", "all"]) == 1
    told = capsys.readouterr().err
    assert all(f"({kind}): connection refused" in told for kind in FAULTS)


@pytest.mark.parametrize("options", [["--fault", "nonsense"], ["--fault-every", "0"], ["--fault"]])
def test_a_wrong_option_is_refused_in_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_pods_with_faults_take_the_addresses_that_follow(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--first-address", "127.255.255.255", "--fault", "limit"])
    assert "leave 127.0.0.0/8" in capsys.readouterr().err
