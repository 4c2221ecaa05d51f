"""Runs of pods as the tests of what an operator sees need them: simulated ones, backlogs, and more than can be kept."""

import contextlib
import secrets
import subprocess
import sys
from collections.abc import Iterator

from harness.ods_process import REPOSITORY, OdsProcess, environment
from harness.pod_client import PodClient

#: The address of a pod that only fills the buffer.
FILLER = "127.0.1.9"
#: Random text, which does not pack. Messages at once, and the bytes of one.
MESSAGES, MESSAGE_BYTES = 200, 240


@contextlib.contextmanager
def simulated_run(ods: OdsProcess, *, pods: int = 2, rate: int = 400, seconds: int = 600) -> Iterator[None]:
    """Let simulated pods, from 127.0.1.1 on, make a run; it is cut short at the end of the block."""
    words = ("--port", ods.port, "--pods", pods, "--rate", rate, "--seconds", seconds, "--first-address", "127.0.1.1")
    run = subprocess.Popen(
        [sys.executable, "-m", "ods", "simulate", *map(str, words)],
        cwd=REPOSITORY,
        env=environment(ods.folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        run.terminate()
        run.wait(20)


def send(pod: PodClient, *lines: bytes) -> None:
    """Send lines, and return when all of them are answered."""
    answered = len(pod.replies)
    pod.send_lines([line + b"\n" for line in lines])
    pod.wait_for_replies(answered + len(lines))


def fill_buffer(ods: OdsProcess, count: int) -> None:
    """Leave a backlog, of names and values that change."""
    with PodClient(ods.port, address=FILLER).read_replies() as pod:
        pod.send_lines([b"POD2level_%d %f\n" % (number % 40, number * 0.5) for number in range(count)])
        pod.wait_for_replies(count, timeout_seconds=60)


def lose_points(ods: OdsProcess) -> None:
    """Send more than the buffer takes."""
    with PodClient(ods.port, address=FILLER).read_replies() as pod:
        while b"ERROR: Not Stored" not in pod.replies:
            send(pod, *[b"POD1[NOTE]  %s" % secrets.token_hex(MESSAGE_BYTES).encode() for _ in range(MESSAGES)])
