"""`ods export` beside a running ODS: recordings and InfluxDB make the same file, which holds what the pods sent."""

import json
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds, run_command
from harness.pod_client import PodClient

PODS = ("127.0.6.1", "127.0.6.2")
COUNT = 3000


@pytest.fixture
def played(ods: OdsProcess) -> OdsProcess:
    """Two pods have sent, and all is stored."""
    for pod in PODS:
        with PodClient(ods.port, address=pod).read_replies() as client:
            client.send_lines([b"POD2name_%d %f\n" % (number % 7, number / 3) for number in range(COUNT)])
            client.send_lines([b'POD1[WARN]  it said "%d", \\ and went\n' % number for number in range(50)])
            client.wait_for_replies(COUNT + 50)
    ods.wait_for_totals(stored=2 * (COUNT + 50), in_flight=0, pending=0)
    return ods


def exported(ods: OdsProcess, influx: InfluxServer, file: Path, *words: str, status: int = 0) -> str:
    """Run the command; returns what it says on stderr."""
    where = ("--directory", str(ods.directory), "--influx-port", str(influx.port), "--influx-name", ods.database)
    done = run_command("export", *where, "-o", str(file), *words, home=ods.folder)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("words", [(), ("--wide",), ("--logs",), ("--pod", PODS[1], "--name", "name_[0-2]")])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_recordings_and_influx_make_the_same_rows(
    played: OdsProcess, influx: InfluxServer, tmp_path: Path, words: tuple[str, ...], ending: str
) -> None:
    of = {source: tmp_path / f"{source}.{ending}" for source in ("recordings", "influx")}
    told = {}
    for source, file in of.items():
        exported(played, influx, file, "--source", source, *words)
        told[source] = json.loads(file.with_name(f"{file.name}.manifest.json").read_text())
    alike = ("rows", "first_ns", "last_ns", "pods", "names", "columns")
    assert [told["recordings"][key] for key in alike] == [told["influx"][key] for key in alike]
    if ending == "csv":
        assert told["recordings"]["sha256"] == told["influx"]["sha256"]
    if not words:
        assert told["influx"]["rows"] == 2 * COUNT
        assert told["influx"]["rows"] == sum(map(len, influx.points(played.database).values()))


def test_influx_that_is_not_there_is_one_line(played: OdsProcess, influx: InfluxServer, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    (told,) = exported(
        played, influx, file, "--source", "influx", "--influx-name", "no such one", status=3
    ).splitlines()
    assert "database not found" in told
    (told,) = exported(played, influx, file, "--source", "influx", "--influx-port", "1", status=3).splitlines()
    assert "refused" in told
    assert not file.exists() and not file.with_name("a.csv.part").exists()


@pytest.mark.parametrize("words", [(), ("--wide",), ("--logs",), ("--pod", PODS[1], "--name", "name_[0-2]")])
def test_the_buffer_makes_the_same_file(
    start_ods: StartOds, own_influx: InfluxServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """While InfluxDB is away, with ODS and without."""
    own_influx.kill()
    ods = start_ods(own_influx)
    for pod in PODS:
        with PodClient(ods.port, address=pod).read_replies() as client:
            client.send_lines([b"POD2name_%d %f\n" % (number % 7, number / 3) for number in range(COUNT)])
            client.send_lines([b'POD1[WARN]  it said "%d", \\ and went\n' % number for number in range(50)])
            client.wait_for_replies(COUNT + 50)
    ods.wait_for_totals(pending=2 * (COUNT + 50), in_flight=0)
    files = [tmp_path / f"{name}.csv" for name in ("recordings", "running", "stopped")]
    exported(ods, own_influx, files[1], "--source", "buffer", *words)
    ods.stop()
    exported(ods, own_influx, files[2], "--source", "buffer", *words)
    exported(ods, own_influx, files[0], *words)
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()
