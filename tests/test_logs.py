"""The log: a line a message, plain or JSON, and nobody is held up by who reads it."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import ods
from ods.log_lines import JournalFormatter, JsonFormatter, PlainFormatter
from ods.logs import LoggedLines

#: Sets the log up as the program does, then does what the test says.
PROGRAM = """
import logging, os, sys, threading
from ods import logs
handler = logs.set_up(log_format=sys.argv[1], is_verbose=sys.argv[2] == "verbose")
log = logging.getLogger("ods.test")
"""


def run(body: str, *, log_format: str = "plain", verbose: bool = False) -> list[str]:
    """Run a program with a log of its own; returns the lines on its stderr."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + body + "\nhandler.flush_for(10)", log_format, "verbose" if verbose else ""],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    return ended.stderr.splitlines()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(ods.__file__).parents[1])}


def record(message: str, *arguments: object, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("ods.store", level, "store.py", 1, message, arguments, None)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    return made


def test_a_plain_line_has_time_level_and_message() -> None:
    """Time in UTC, so that logs of two machines can be laid side by side."""
    line = PlainFormatter().format(record("stored %d points", 3, level=logging.WARNING))
    assert line == "2023-11-14T22:13:20.250Z WARNING  stored 3 points"


def test_a_line_for_the_journal_has_a_priority_and_no_time() -> None:
    """The journal keeps the time, and shows, filters and colours by the priority; of each line, as it splits them."""
    formatter = JournalFormatter()
    levels = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL]
    lines = [formatter.format(record("stored %d\npoints", 3, level=level)).splitlines() for level in levels]
    assert lines[2] == ["<4>WARNING  stored 3", "<4>points"]
    assert [line[:3] for pair in lines for line in pair] == [
        f"<{priority}>" for priority in (7, 7, 6, 6, 4, 4, 3, 3, 2, 2)
    ]


def test_a_json_line_is_one_object() -> None:
    """With the same time; foreign text keeps to its line."""
    line = JsonFormatter().format(record("said %s", 'ä "quoted"\nand more'))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "ods.store",
        "message": 'said ä "quoted"\nand more',
    }


def test_a_json_line_holds_its_traceback() -> None:
    """On the same line."""
    try:
        raise ValueError("broken")
    except ValueError:
        failed = record("failed", level=logging.ERROR)
        failed.exc_info = sys.exc_info()
    line = JsonFormatter().format(failed)
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_lines_go_to_stderr_in_order() -> None:
    """All of them, before the program ends."""
    lines = run("for number in range(500): log.info('line %d', number)")
    assert [line.rpartition("INFO     ")[2] for line in lines] == [f"line {number}" for number in range(500)]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", lines[0])


@pytest.mark.parametrize(
    ("log_format", "expected"), [("plain", "<4>WARNING  odd"), ("json", '{"time'), ("elsewhere", "20")]
)
def test_the_journal_is_known_by_its_device_and_inode(log_format: str, expected: str) -> None:
    """JSON stays what it is, and so does the plain log of an ODS whose stderr does not lead to the journal any more."""
    journal, stderr = socket.socketpair()
    with journal, stderr:
        found = os.fstat(stderr.fileno())
        inode = found.st_ino + (log_format == "elsewhere")
        subprocess.run(
            [sys.executable, "-c", PROGRAM + "log.warning('odd')\nhandler.flush_for(10)", log_format, ""],
            env=environment() | {"JOURNAL_STREAM": f"{found.st_dev}:{inode}"},
            stderr=stderr,
            timeout=30,
            check=True,
        )
        assert journal.recv(4096).decode().startswith(expected)


def test_json_lines_go_to_stderr() -> None:
    """Each can be parsed, broken text included."""
    lines = run("log.warning('caf\\udce9 %s', 'ü')", log_format="json")
    assert [json.loads(line)["level"] for line in lines] == ["warning"]


@pytest.mark.parametrize("verbose", [False, True])
def test_details_are_logged_only_when_verbose(verbose: bool) -> None:
    """DEBUG of ODS with --verbose; libraries are heard from WARNING on."""
    body = "log.debug('detail'); logging.getLogger('other').info('chatter'); logging.getLogger('other').warning('odd')"
    lines = run(body, verbose=verbose)
    assert [line.split()[-1] for line in lines] == (["detail", "odd"] if verbose else ["odd"])


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_program() -> None:
    """A terminal that is held must not stop a pod; the lines that did not fit are counted once it is read again."""
    body = """
pipe, there = os.pipe()
os.dup2(there, 2)
for number in range(logs.WAITING_LINES + 5000):
    log.info("line %d %s", number, "x" * 100)
os.write(1, b"not held up\\n")
text, has_ended = b"", False
while not text.endswith(b"the end\\n"):
    text += os.read(pipe, 1 << 20)
    if b"line 9999 " in text and not has_ended:
        has_ended = True
        log.info("the end")
assert b"lines could not be written)" in text
os.write(1, b"told\\n")
"""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + body, "plain", ""],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout.splitlines() == ["not held up", "told"]


def test_a_closed_stderr_does_not_hold_up_the_program() -> None:
    """There is no place left to say it: the program goes on."""
    body = """
there = os.pipe()
os.dup2(there[1], 2)
os.close(there[0]); os.close(there[1])
for number in range(100):
    log.info("line %d", number)
handler.flush_for(10)
os.write(1, b"alive\\n")
"""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + body, "plain", ""],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout == "alive\n"


def test_what_gevent_says_becomes_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """However it is cut into writes."""
    stream = LoggedLines()
    for piece in ("Trace", "back\n  one", "\nValueError", ": x\n"):
        stream.write(piece)
    assert caplog.messages == ["Traceback", "  one", "ValueError: x"]


def test_who_logs_gives_no_turn_away() -> None:
    """Not even where a native thread is about to log: what a greenlet does between two lines stays one piece."""
    body = """
import gevent, time
from gevent import monkey
held, sleep = monkey.get_original("_thread", "allocate_lock")(), monkey.get_original("time", "sleep")
held.acquire()

def hold():
    with handler.lock:
        held.release()
        sleep(0.1)

monkey.get_original("_thread", "start_new_thread")(hold, ())
held.acquire()
others = []
gevent.spawn(others.append, "another greenlet")
log.info("the first")
assert others == [], others
def in_the_hub():
    log.info("from the hub")
    others.append("the hub")
monkey.get_original("_thread", "start_new_thread")(hold, ())
held.acquire()
gevent.get_hub().loop.run_callback(in_the_hub)
gevent.sleep(0.01)
assert "the hub" in others
"""
    patched = "from gevent import monkey\nmonkey.patch_all()\n"
    ended = subprocess.run(
        [sys.executable, "-c", patched + PROGRAM + body + "\nhandler.flush_for(10)", "plain", ""],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert [line.rpartition(" ")[2] for line in ended.stderr.splitlines()] == ["first", "hub"]
