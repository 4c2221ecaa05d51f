"""Buffers as runs of ODS leave them: with a backlog, in the states that damage may find them in.

Rows of every size: a few points that share a page with others, bursts and long messages that take a chain of pages.
"""

import contextlib
import gzip
import random
import threading
from dataclasses import dataclass
from pathlib import Path

from components.answering_server import AnsweringServer, Request, answer

from harness.buffer_pages import BufferPages, Fields, Key, copy_buffer, key_of
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess
from harness.oracle import STEP, Oracle, Record
from harness.pod_client import PodClient

#: The database that every buffer's rows are meant for.
DATABASE = "telemetry"
AWAY = answer(503)
TAKEN = answer(204)
#: Requests that are confirmed before InfluxDB goes away again, probes among them.
TAKEN_REQUESTS = 3
BURST_LINES = 5000
MOST_SMALL_LINES = 30
#: Talk between pods that fills pages: random, so that it does not pack.
MESSAGES, MESSAGE_BYTES = 40, 240
#: What InfluxDB will never take, because of a conflict of types.
CONFLICT_LINES = 150
#: Pods besides those whose data is checked: one that talks, and one that ODS never met.
TALKER, STRANGER = "127.0.3.99", "127.0.3.98"
#: More than ODS can read before it is killed.
LOAD_LINES = 40_000


@dataclass(frozen=True)
class Backlog:
    """A buffer, and all that may ever be found in InfluxDB because of it."""

    name: str
    directory: Path
    pages: BufferPages
    oracle: Oracle
    points: dict[Key, Fields]

    @property
    def has_log(self) -> bool:
        return bool(self.pages.log)

    def was_sent(self, key: Key, fields: Fields) -> bool:
        """Whether it is something that pods sent: as the buffer has it, or a data point that was not committed."""
        if key in self.points:
            return self.points[key] == fields
        measurement, pod, _ = key
        value = dict(fields).get("value")
        if not isinstance(value, float | int) or not self.oracle.sent_count(pod):
            return False
        number = round((value - self.oracle.record(pod, 0).value) / STEP)
        return number in range(self.oracle.sent_count(pod)) and self.oracle.record(pod, number) == Record(
            measurement, value
        )


class Maker:
    """Makes a backlog in lives of ODS, with an InfluxDB that is away, answers a few requests, or is real."""

    def __init__(self, name: str, folder: Path, pods: list[str], *, small_rows: int, bursts: int) -> None:
        self.name = name
        self.oracle = Oracle()
        #: What an InfluxDB that was there for a moment has taken: from the buffer, and past it.
        self._drained: list[bytes] = []
        self._taken: dict[Key, Fields] = {}
        self._folder = folder
        self._directory = folder / "data"
        self._pods = pods
        self._small_rows = small_rows
        self._bursts = bursts
        self._random = random.Random(name)
        self._lives = 0
        self._processes: list[OdsProcess] = []

    def stopped(self) -> None:
        """Ended in good order: no log is left."""
        with AnsweringServer() as server:
            server.will_answer(AWAY)
            ods = self._start(server.port)
            self._play(ods)
            ods.stop()

    def killed(self) -> None:
        """Begun in good order, then killed under load: the newest rows stand in the log alone."""
        with AnsweringServer() as server:
            server.will_answer(AWAY)
            ods = self._start(server.port)
            self._play(ods)
            ods.restart()
            self._play(ods)
            self._kill_under_load(ods)

    def drained_in_part(self) -> None:
        """Killed when InfluxDB had taken some of it and gone away again: pages are free, and hold what is drained."""
        with AnsweringServer() as server:
            server.will_answer(AWAY)
            ods = self._start(server.port)
            self._play(ods)
            ods.restart()
            self._play(ods)
            server.will_answer(*[TAKEN] * TAKEN_REQUESTS, AWAY)
            ods.wait_for_status(
                lambda status: status["totals"]["stored"] > 0 and not status["influx"]["available"],
                what="a drain that was cut off",
            )
            self._drained += [line for request in server.requests[:TAKEN_REQUESTS] for line in _lines(request)]
            self._play(ods, small_rows=self._small_rows // 4, bursts=0)  # leaves free pages free
            ods.kill()

    def quarantined(self, influx: InfluxServer) -> None:
        """With lines that InfluxDB has refused, and a backlog behind them."""
        influx.create_database(DATABASE)
        influx.write(DATABASE, f'accel_x,pod={STRANGER} value="text"')
        ods = self._start(influx.port)
        with PodClient(ods.port, address=TALKER).read_replies() as pod:
            pod.send(b"".join(b"POD2accel_x %d\nPOD2accel_y %d\n" % (at, at) for at in range(CONFLICT_LINES)))
            pod.wait_for_replies(2 * CONFLICT_LINES)
        ods.wait_for_totals(quarantined=CONFLICT_LINES, pending=0, in_flight=0)
        ods.stop()
        self._taken |= {key: fields for key, fields in points_in(influx, DATABASE).items() if key[1] != STRANGER}
        self.stopped()

    def finish(self, influx: InfluxServer) -> Backlog:
        """What was made; its lines are written to InfluxDB and read again, as ODS will have to."""
        directory = self._folder / self.name
        directory.mkdir()
        copy_buffer(self._directory, directory)
        pages = BufferPages.read(directory, self._folder / "scratch")
        lines = [*self._drained, *(line for batch in pages.batches for line in batch.lines)]
        influx.create_database(self.name)
        influx.write(self.name, b"\n".join(lines).decode())
        points = points_in(influx, self.name)
        assert set(points) == set(map(key_of, lines)), "each line is a point"
        self.oracle.check(influx.points(self.name), only_acknowledged=True)
        influx.query(f'DROP DATABASE "{self.name}"')
        return Backlog(self.name, directory, pages, self.oracle, points | self._taken)

    def _start(self, influx_port: int) -> OdsProcess:
        self._lives += 1
        folder = self._folder / f"life-{self._lives}"
        ods = OdsProcess(folder, influx_port=influx_port, database=DATABASE, directory=self._directory)
        self._processes.append(ods)
        ods.start()
        return ods

    def end(self) -> None:
        """Nothing that was started is left."""
        for ods in self._processes:
            ods.kill()

    def _play(self, ods: OdsProcess, *, small_rows: int | None = None, bursts: int | None = None) -> None:
        """Small rows of several pods in turn, with bursts and long messages between them."""
        small_rows = self._small_rows if small_rows is None else small_rows
        bursts = self._bursts if bursts is None else bursts
        burst_at = {small_rows * burst // bursts for burst in range(bursts)}
        with contextlib.ExitStack() as connected:
            pods = {
                address: connected.enter_context(PodClient(ods.port, address=address).read_replies())
                for address in [*self._pods, TALKER]
            }
            for number in range(small_rows):
                address = self._pods[number % len(self._pods)]
                self._send(pods[address], self._random.randint(1, MOST_SMALL_LINES))
                if number in burst_at:
                    self._send(pods[address], BURST_LINES)
                    self._talk(pods[TALKER])

    def _send(self, pod: PodClient, count: int) -> None:
        first, answered = self.oracle.sent_count(pod.address), len(pod.replies)
        pod.send_lines(self.oracle.next_lines(pod.address, count))
        self.oracle.acknowledge(pod.address, pod.wait_for_replies(answered + count)[answered:], first=first)

    def _talk(self, pod: PodClient) -> None:
        answered = len(pod.replies)
        texts = [self._random.randbytes(MESSAGE_BYTES).hex().encode() for _ in range(MESSAGES)]
        pod.send_lines([b"POD1[NOTE]  %s\n" % text for text in texts])
        assert set(pod.wait_for_replies(answered + MESSAGES)[answered:]) == {b"OK: LOGGED"}

    def _kill_under_load(self, ods: OdsProcess) -> None:
        address = self._pods[0]
        first = self.oracle.sent_count(address)
        with PodClient(ods.port, address=address).read_replies() as pod:
            run = threading.Thread(target=_send_until_refused, args=(pod, self.oracle.next_lines(address, LOAD_LINES)))
            run.start()
            pod.wait_for_replies(1)
            ods.kill()
            run.join()
            assert pod.has_ended.wait(10)
            self.oracle.acknowledge(address, pod.replies, first=first)


def points_in(influx: InfluxServer, database: str) -> dict[Key, Fields]:
    """All that a database holds."""
    points: dict[Key, Fields] = {}
    for series in influx.query("SELECT * FROM /.*/", database=database):
        columns = series["columns"]
        for row in series["values"]:
            values = dict(zip(columns, row, strict=True))
            key = series["name"], values.pop("pod"), values.pop("time")
            points[key] = tuple(item for item in values.items() if item[1] is not None)
    return points


def _send_until_refused(pod: PodClient, lines: list[bytes]) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):  # killed: that is the end of this pod
        pod.send_lines(lines)


def _lines(request: Request) -> list[bytes]:
    """The points of a write; there are none in the question whether one would be taken."""
    is_packed = request.headers.get("content-encoding") == "gzip"
    body = gzip.decompress(request.body) if is_packed else request.body
    return (
        [line for line in body.splitlines() if line and not line.startswith(b"#")] if request.path == "/write" else []
    )
