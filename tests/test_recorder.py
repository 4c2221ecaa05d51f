"""The recorder: whatever the disk does, records are written down where they can be, and ODS goes on."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from components.hub import fail_when_hung, wait_in_hub

from ods.chunk import Chunk
from ods.recorder import Recorder
from ods.supervisor import Supervisor

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class FakeDisk:
    """A disk with room."""

    def free_for_recordings_bytes(self) -> int:
        return 2**40


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """With a law: nothing fails unexpectedly."""
    supervisor = Supervisor()
    yield supervisor
    supervisor.stop()
    assert not supervisor.has_failed


def chunk() -> Chunk:
    return Chunk(pod="a", points=1, data_rows=b"1,x,1\r\n", first_ns=1, last_ns=1, received_at=0.0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_a_folder_that_cannot_be_listed_is_told_of_and_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """What the run before has left stays uncompressed there; what comes is recorded."""

    def refuse(directory: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr("ods.recorder.left_to_compress", refuse)
    recorder = Recorder(
        directory=tmp_path,
        disk=FakeDisk(),  # type: ignore[arg-type]
        limit_bytes=0,
        confirmed_before_ns=lambda: 0,
    )
    recorder.start(supervisor)
    wait_in_hub(lambda: warnings(caplog), "the warning")
    (warning,) = warnings(caplog)
    assert "Permission denied" in warning
    recorder.record([chunk()])
    recorder.stop(10.0)
    assert recorder.unrecorded == 0
    assert [path.suffix for path in tmp_path.glob("*/*")] == [".gz"], "a segment is not compressed as it should be"
