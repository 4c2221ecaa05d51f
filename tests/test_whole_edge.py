"""The edge, where pods connect: whatever comes in there, ODS's memory stays bounded and no other pod notices it.

Beside each of these stands a neighbour, a pod that waits for every reply. The suite measures how soon it is answered;
the long run holds a bound.
"""

import contextlib
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import NAMES, Oracle
from harness.pod_client import PodClient
from harness.sizes import IS_LONG, Measured, sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(90, long=900), method="signal")

POD = "127.0.2.1"
NEIGHBOUR = "127.0.2.200"
MIB = 2**20

#: What ODS may grow by under anything: what is in flight (64 MiB), as much again for what that is made from, and for
#: each pod that does not read them a MiB of replies.
GROWTH_BYTES = 128 * MIB
REPLIES_BYTES = MIB
#: Between two lines of a neighbour, and between two looks at ODS's memory.
NEIGHBOUR_SECONDS, LOOK_SECONDS = 0.02, 0.05
#: How soon a neighbour is answered: the part of its replies, and the bound for them in the long run.
REPLY_PART, REPLY_SECONDS = 0.99, 0.5
#: Linux's socket option that lets a socket go without a word to its peer (CRIU's; for root only).
TCP_REPAIR = 19

#: Pods that send at the same moment, and how many lines each of them.
AT_ONCE, AT_ONCE_LINES = 2000, 500
SILENT = sized(500, long=1000)
STORMY = ("127.0.2.2", "127.0.2.3", "127.0.2.4")
STORM_SECONDS = sized(4.0, long=60.0)
ENDLESS_BYTES = sized(20, long=200) * MIB
FLOODING = sized(10, long=50)
#: In lines as long as they may be, much more than kernels take in for a pod.
FLOOD_LINES = sized(40_000, long=200_000)
NAMES_CAP = 2000
RUBBISH_LINES = sized(3000, long=100_000)


@contextlib.contextmanager
def beside_a_neighbour(ods: OdsProcess, oracle: Oracle, measured: Measured) -> Iterator[PodClient]:
    """Play a neighbour meanwhile, and look at ODS's memory; each reply is what the contract says."""
    is_over = threading.Event()
    memory = [ods.memory_bytes()]
    failures: list[BaseException] = []

    def talk(pod: PodClient) -> None:
        try:
            while not is_over.wait(NEIGHBOUR_SECONDS):
                first = oracle.sent_count(NEIGHBOUR)
                (line,) = oracle.next_lines(NEIGHBOUR, 1)
                oracle.acknowledge(NEIGHBOUR, [pod.exchange(line)], first=first)
        except (AssertionError, OSError) as failure:
            failures.append(failure)

    def look() -> None:
        while not is_over.wait(LOOK_SECONDS):
            memory.append(ods.memory_bytes())

    with PodClient(ods.port, address=NEIGHBOUR).read_replies() as pod:
        threads = [threading.Thread(target=talk, args=(pod,)), threading.Thread(target=look)]
        for thread in threads:
            thread.start()
        try:
            yield pod
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert not failures, f"the neighbour: {failures}\n{ods.log_tail()}"
        latencies = sorted(pod.reply_latencies_seconds())
    median, late = (latencies[int(part * (len(latencies) - 1))] for part in (0.5, REPLY_PART))
    measured(
        f"neighbour's {len(latencies)} replies within {median * 1000:.0f} ms (50 %), "
        f"{late * 1000:.0f} ms ({REPLY_PART:.0%}), {latencies[-1] * 1000:.0f} ms (all); "
        f"ODS's memory {memory[0] / MIB:.0f}, at most {max(memory) / MIB:.0f} MiB"
    )
    assert max(memory) - memory[0] < GROWTH_BYTES + FLOODING * REPLIES_BYTES
    assert late < REPLY_SECONDS or not IS_LONG


def open_files(ods: OdsProcess) -> int:
    """Return how many file descriptors ODS has, from Linux's /proc."""
    return len(list(Path(f"/proc/{ods.working_id}/fd").iterdir()))


def counted(ods: OdsProcess, pod: str, counter: str) -> int:
    """Return what /api/status says of a pod; 0 before it has come."""
    return next((int(counts[counter]) for counts in ods.status()["pods"] if counts["name"] == pod), 0)


@pytest.fixture
def many_files() -> Iterator[None]:
    """The test itself holds a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_silent_connections_disturb_nobody_and_leave_nothing_behind(ods: OdsProcess, measured: Measured) -> None:
    """Many pods that connect and say nothing: the others are served, and when they go, all that they held goes too."""
    oracle = Oracle()
    files = open_files(ods)
    with beside_a_neighbour(ods, oracle, measured):
        with contextlib.ExitStack() as silent:
            for number in range(SILENT):
                address = f"127.0.{10 + number // 250}.{1 + number % 250}"
                silent.enter_context(PodClient(ods.port, address=address))
            ods.wait_for_status(
                lambda status: sum(pod["connected"] for pod in status["pods"]) == SILENT + 1, what="every connection"
            )
            assert open_files(ods) >= files + SILENT
        ods.wait_for_status(lambda status: sum(pod["connected"] for pod in status["pods"]) == 1, what="their end")
    wait_until(lambda: open_files(ods) <= files + 8, timeout_seconds=10, what="their file descriptors closed")
    ods.wait_for_totals(received=oracle.sent_count(), stored=oracle.sent_count())


@pytest.mark.usefixtures("many_files")
def test_what_two_thousand_pods_send_in_one_instant_is_kept(ods: OdsProcess) -> None:
    """All of it together is more than may be in flight; TCP holds what is not read yet."""
    lines = b"".join([b"POD2channel_%d %f\n" % (number % 4, number * 0.5) for number in range(AT_ONCE_LINES)])
    with contextlib.ExitStack() as pods:
        sockets = []
        for number in range(AT_ONCE):
            sock = pods.enter_context(socket.socket())
            sock.bind((f"127.0.{10 + number // 250}.{1 + number % 250}", 0))
            sock.connect(("127.0.0.1", ods.port))
            sockets.append(sock)
        ods.wait_for_status(lambda status: sum(pod["connected"] for pod in status["pods"]) == AT_ONCE, what="all pods")
        for sock in sockets:
            sock.sendall(lines)
        sent = AT_ONCE * AT_ONCE_LINES
        ods.wait_for_totals(received=sent, stored=sent, dropped=0, timeout_seconds=60)


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("ss"), reason="needs Linux's ss")
def test_every_connection_is_probed_while_its_pod_is_silent(ods: OdsProcess) -> None:
    """Keepalive as the kernel sees it: a pod that vanished is found out, within half a minute."""
    with PodClient(ods.port, address=POD) as pod:
        pod.send(b"POD2x 1\n")
        ods.wait_for_totals(stored=1)
        timer = wait_until(
            lambda: re.search(r"timer:\(keepalive,[^)]*\)", connections_of(ods, POD)),
            timeout_seconds=10,
            what="keepalive on the connection",
            state=lambda: connections_of(ods, POD),
        )
        assert "min" not in timer[0], "the kernel's own two hours"


def connections_of(ods: OdsProcess, address: str) -> str:
    """Return what `ss` says of ODS's ends of a pod's connections."""
    command = ["ss", "--tcp", "--no-header", "--numeric", "--options", "state", "established"]
    command += ["src", f"127.0.0.1:{ods.port}", "dst", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def test_a_pod_that_vanished_without_a_word_is_found_out(
    ods: OdsProcess, influx: InfluxServer, measured: Measured
) -> None:
    """A half-open connection: its unfinished line is torn, it is no longer connected, and it can come again at once."""
    oracle = Oracle()
    with beside_a_neighbour(ods, oracle, measured):
        with PodClient(ods.port, address=POD) as pod:
            pod.send(b"".join(oracle.next_lines(POD, 10)) + b"POD2accel_x 12")
            # Stored is answered: a reply that came later would be met with a reset.
            wait_until(lambda: counted(ods, POD, "stored") == 10, timeout_seconds=10, what="its lines stored")
            pod.wait_until_read()
            try:
                pod._socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            except OSError as error:
                pytest.skip(f"a socket can't be let go silently here: {error}")
        assert counted(ods, POD, "connected"), "it has said that it goes: this test shows nothing"
        with PodClient(ods.port, address=POD).read_replies() as again:
            oracle.acknowledge(POD, [again.exchange(line) for line in oracle.next_lines(POD, 10)], first=10)
            wait_until(lambda: counted(ods, POD, "torn") == 1, timeout_seconds=40, what="its end noticed")
            assert counted(ods, POD, "connected"), "the second connection of the pod went with the first"
        wait_until(lambda: not counted(ods, POD, "connected"), timeout_seconds=10, what="the end of the pod")
    ods.wait_for_totals(stored=oracle.sent_count(), in_flight=0)
    oracle.check(influx.points(ods.database))


def test_a_storm_of_connections_loses_nothing_and_leaves_nothing_behind(
    ods: OdsProcess, influx: InfluxServer, measured: Measured
) -> None:
    """Hundreds of connections a second that come, say something or nothing, and go in every manner."""
    oracle = Oracle()
    files, memory = open_files(ods), ods.memory_bytes()
    until = time.monotonic() + STORM_SECONDS
    connections: dict[str, int] = dict.fromkeys(STORMY, 0)
    sent: dict[str, list[float]] = {address: [] for address in STORMY}

    def storm(address: str) -> None:
        manners = random.Random(address)
        while time.monotonic() < until:
            with PodClient(ods.port, address=address) as pod:
                connections[address] += 1
                manner = manners.choice(("silent", "reset", "torn", "patient", "hasty"))
                if manner == "reset":
                    pod.reset()
                elif manner == "torn":
                    pod.send(b"POD2storm 12")
                elif manner != "silent":
                    pod.send(b"POD2storm %d\n" % len(sent[address]))
                    sent[address].append(float(len(sent[address])))
                if manner == "patient":
                    pod.finish()

    threads = [threading.Thread(target=storm, args=(address,)) for address in STORMY]
    with beside_a_neighbour(ods, oracle, measured), PodClient(ods.port, address=POD).read_replies() as steady:
        for thread in threads:
            thread.start()
        lines = oracle.next_lines(POD, int(1000 * STORM_SECONDS))
        steady.send_at_rate(lines, lines_per_second=1000, burst_lines=10)
        for thread in threads:
            thread.join()
        oracle.acknowledge(POD, steady.wait_for_replies(len(lines)))
    measured(
        f"{sum(connections.values()) / STORM_SECONDS:.0f} connections a second, "
        f"longest send beside them {steady.longest_send_seconds * 1000:.0f} ms"
    )
    ods.wait_for_status(lambda status: not any(pod["connected"] for pod in status["pods"]), what="the end of all")
    total = oracle.sent_count() + sum(map(len, sent.values()))
    status = ods.wait_for_totals(received=total, stored=total)
    assert status["totals"]["torn"] > 0, "nobody went in the middle of a line: this test shows nothing"
    points = influx.points(ods.database)
    # Two connections of one pod may be read in any order.
    assert {address: sorted(value for _, value in points.pop(("storm", address))) for address in STORMY} == sent
    oracle.check(points)
    wait_until(lambda: open_files(ods) <= files + 8, timeout_seconds=10, what="the file descriptors closed")
    assert ods.memory_bytes() - memory < GROWTH_BYTES / 4


def test_a_line_without_end_takes_no_memory(ods: OdsProcess, measured: Measured) -> None:
    """It is not understood, once, when it ends at last; what follows it is."""
    oracle = Oracle()
    memory = ods.memory_bytes()
    with beside_a_neighbour(ods, oracle, measured), PodClient(ods.port, address=POD).read_replies() as pod:
        for _ in range(ENDLESS_BYTES // 65536):
            pod.send(b"POD2endless " + b"7" * 65524)
        assert not pod.replies
        assert ods.memory_bytes() - memory < 32 * MIB
        pod.send(b"\n")
        pod.send(b"POD2x 1\n")
        assert pod.wait_for_replies(2) == [b"FAIL: POD2endless " + b"7" * 52, b"OK: (x,1.0)"]
    status = ods.wait_for_totals(received=oracle.sent_count() + 1, stored=oracle.sent_count() + 1)
    assert status["totals"]["invalid"] == 1


def test_a_pod_that_sends_a_byte_at_a_time_is_understood(
    ods: OdsProcess, influx: InfluxServer, measured: Measured
) -> None:
    """Each line is stored once it is whole, as if it had come in one piece."""
    oracle = Oracle()
    with beside_a_neighbour(ods, oracle, measured), PodClient(ods.port, address=POD).read_replies() as pod:
        for number in range(sized(5, long=50)):
            (line,) = oracle.next_lines(POD, 1)
            for at in range(len(line)):
                pod.send(line[at : at + 1])
                pod.wait_until_read()
            oracle.acknowledge(POD, pod.wait_for_replies(number + 1)[number:], first=number)
    ods.wait_for_totals(received=oracle.sent_count(), stored=oracle.sent_count())
    oracle.check(influx.points(ods.database))


def test_a_pod_at_a_hundred_times_the_rate_of_the_others_leaves_them_theirs(
    ods: OdsProcess, influx: InfluxServer, measured: Measured
) -> None:
    """None of them waits a second with a send, each line is answered, and everything is stored."""
    oracle = Oracle()
    seconds = sized(4, long=60)
    rates = {POD: 20_000, "127.0.2.2": 200, "127.0.2.3": 200, "127.0.2.4": 200}
    lines = {address: oracle.next_lines(address, rate * seconds) for address, rate in rates.items()}
    with contextlib.ExitStack() as stack:
        stack.enter_context(beside_a_neighbour(ods, oracle, measured))
        pods = {address: stack.enter_context(PodClient(ods.port, address=address).read_replies()) for address in rates}
        runs = [
            threading.Thread(
                target=pods[address].send_at_rate,
                args=(lines[address],),
                kwargs={"lines_per_second": rate, "burst_lines": max(1, rate // 200)},
            )
            for address, rate in rates.items()
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        for address, pod in pods.items():
            oracle.acknowledge(address, pod.wait_for_replies(len(lines[address])))
    late = {address: sorted(pod.reply_latencies_seconds())[int(0.99 * rates[address])] for address, pod in pods.items()}
    measured(
        f"longest send {max(pod.longest_send_seconds for pod in pods.values()) * 1000:.0f} ms, replies (99 %) within "
        + ", ".join(f"{rates[address]}/s {seconds * 1000:.0f} ms" for address, seconds in late.items())
    )
    ods.wait_for_totals(received=oracle.sent_count(), stored=oracle.sent_count())
    oracle.check(influx.points(ods.database))


@pytest.mark.parametrize("state", ["up", "frozen"])
def test_pods_that_flood_together_are_slowed_down_and_lose_nothing(
    start_ods: StartOds, own_influx: InfluxServer, measured: Measured, state: str
) -> None:
    """They get what the stores can take, in equal parts; nobody's points are dropped, and nobody else notices."""
    ods, oracle = start_ods(own_influx), Oracle()
    if state == "frozen":
        own_influx.pause()
    blocks = [b"".join(b"POD2flood_%057d %d\n" % (number % 40, number) for number in range(200))] * (FLOOD_LINES // 200)
    longest: list[float] = []

    def flood(pod: PodClient) -> None:
        """It does not brake: what is measured is how long a send waits in all."""
        pod._socket.settimeout(60)
        for block in blocks:
            pod.send(block)
        pod.finish()
        longest.append(pod.longest_send_seconds)

    with beside_a_neighbour(ods, oracle, measured), contextlib.ExitStack() as stack:
        pods = [stack.enter_context(PodClient(ods.port, address=f"127.0.3.{number + 1}")) for number in range(FLOODING)]
        runs = [threading.Thread(target=flood, args=(pod,)) for pod in pods]
        began = time.monotonic()
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        seconds = time.monotonic() - began
    total = FLOODING * FLOOD_LINES
    measured(f"{FLOODING} pods, {total / seconds / 1000:.0f} 000 lines/s, longest send {max(longest) * 1000:.0f} ms")
    own_influx.resume()
    status = ods.wait_until_settled(timeout_seconds=sized(60, long=300))
    assert status["totals"]["stored"] == status["totals"]["received"] == total + oracle.sent_count()
    assert {pod["stored"] for pod in status["pods"] if pod["name"].startswith("127.0.3.")} == {FLOOD_LINES}
    assert status["totals"]["dropped"] == 0


def test_a_flood_of_names_is_capped_for_each_pod(start_ods: StartOds, influx: InfluxServer, measured: Measured) -> None:
    """Each pod may use so many; further ones take no memory, are not understood, and are warned of once."""
    ods, oracle = start_ods(influx, "--max-names", str(NAMES_CAP)), Oracle()
    many = {POD: sized(60_000, long=1_000_000)}
    many |= {f"127.0.4.{number}": NAMES_CAP * 2 for number in range(1, sized(10, long=100))}
    with beside_a_neighbour(ods, oracle, measured):
        for address, count in many.items():
            with PodClient(ods.port, address=address) as pod:
                pod.send_lines([b"POD2%s.%d 1\n" % (b"n" * (number % 50), number) for number in range(count)])
                pod.finish()
    ods.wait_for_totals(
        received=NAMES_CAP * len(many) + oracle.sent_count(),
        stored=NAMES_CAP * len(many) + oracle.sent_count(),
        invalid=sum(many.values()) - NAMES_CAP * len(many),
    )
    assert len(ods.lines_with(r"--max-names")) == len(many)
    points = influx.points(ods.database)
    of_pods = [pod for _, pod in points]
    assert {pod: of_pods.count(pod) for pod in many} == dict.fromkeys(many, NAMES_CAP)
    oracle.check({key: rows for key, rows in points.items() if key[1] == NEIGHBOUR})


@pytest.mark.parametrize("seed", range(sized(1, long=10)))
def test_anything_between_good_records_leaves_them_exact(
    ods: OdsProcess, influx: InfluxServer, measured: Measured, seed: int
) -> None:
    """Random names, values, messages and bytes, cut anywhere: each line has its reply, each good record its point."""
    oracle, chance = Oracle(), random.Random(seed)
    addresses = [POD, "127.0.2.2", "127.0.2.3"]
    streams = {address: anything(oracle, address, chance) for address in addresses}
    with contextlib.ExitStack() as stack:
        stack.enter_context(beside_a_neighbour(ods, oracle, measured))
        pods = {
            address: stack.enter_context(PodClient(ods.port, address=address).read_replies()) for address in addresses
        }
        runs = [
            threading.Thread(target=send_cut_anywhere, args=(pods[address], stream, random.Random(seed)))
            for address, (stream, _) in streams.items()
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        for address, pod in pods.items():
            lines = streams[address][0].count(b"\n")
            replies = pod.wait_for_replies(lines)
            assert len(replies) == lines
            oracle.acknowledge(address, [replies[number] for number in streams[address][1]])
    totals = ods.wait_for_status(
        lambda status: status["totals"]["stored"] == status["totals"]["received"], what="everything stored"
    )["totals"]
    assert totals["quarantined"] == totals["dropped"] == 0
    assert totals["invalid"] > 0
    points = influx.points(ods.database)
    oracle.check({key: rows for key, rows in points.items() if key[0] in NAMES})
    stored = sum(map(len, points.values())) + sum(map(len, influx.messages(ods.database).values()))
    assert stored == totals["received"], "what the ledger calls stored is not what InfluxDB holds"


def anything(oracle: Oracle, address: str, chance: random.Random) -> tuple[bytes, list[int]]:
    """Return a stream of rubbish with good records between, and the numbers of their lines."""
    pieces: list[bytes] = []
    good: list[int] = []
    lines = 0
    for _ in range(RUBBISH_LINES):
        rubbish = random_line(chance) + b"\n"
        good.append(lines + rubbish.count(b"\n"))
        lines = good[-1] + 1
        pieces += [rubbish, *oracle.next_lines(address, 1)]
    return b"".join(pieces), good


def random_line(chance: random.Random) -> bytes:
    """Return something that a broken pod might send; newlines within it make it several lines."""
    noise = chance.randbytes(chance.choice((0, 1, 3, 20, 200)))
    text = bytes(chance.choices(b"abz AZ09_.:/-+eE'\"\\,= \t\r\0{}#\xff\xc3\xa4POD12", k=chance.randrange(60)))
    return chance.choice(
        (
            b"POD2" + noise + b" 1.5",
            b"POD2rubbish " + noise,
            b"POD2rubbish " + text,
            b"POD2" + text + b" 2",
            b"POD1" + noise,
            b"POD1[WARN]  " + text + b"POD1" + text,
            noise,
            text,
            b"POD2" * chance.randrange(20),
            b"x" * chance.choice((65_535, 65_537, 10)),
        )
    )


def send_cut_anywhere(pod: PodClient, stream: bytes, chance: random.Random) -> None:
    at = 0
    while at < len(stream):
        size = chance.choice((1, 7, 100, 4096, 20_000))
        pod.send(stream[at : at + size])
        at += size
