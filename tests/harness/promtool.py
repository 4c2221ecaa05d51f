"""Prometheus's own judge of metrics, rules and configurations: promtool, which Debian's package `prometheus` holds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 60.0


def require() -> None:
    """Skip the test where there is no promtool; fail where the whole check runs."""
    if shutil.which("promtool") is not None:
        return
    advice = "no promtool on this machine: install Debian's package prometheus to have the metrics judged"
    if os.environ.get("CI"):
        pytest.fail(advice, pytrace=False)
    pytest.skip(advice)


def check_metrics(exposition: bytes) -> None:
    """Raise AssertionError unless promtool reads it, and has nothing to remark."""
    _run("check", "metrics", given=exposition, is_silent=True)


def check_rules(path: Path) -> None:
    """Raise AssertionError unless these are rules."""
    _run("check", "rules", str(path))


def check_config(path: Path) -> None:
    """Raise AssertionError unless Prometheus can be started with it."""
    _run("check", "config", str(path))


def run_rule_tests(path: Path) -> None:
    """Raise AssertionError unless the rules do what the file expects of them."""
    _run("test", "rules", str(path))


def _run(*arguments: str, given: bytes = b"", is_silent: bool = False) -> None:
    require()
    done = subprocess.run(
        ["promtool", *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"promtool {' '.join(arguments)} ended with {done.returncode}: {said}"
    assert not (is_silent and said), said
