"""Programs of other people that a test needs: where one is missing the test is skipped, and says so."""

import os
import shutil

import pytest


def require(program: str, *, package: str) -> str:
    """Return the path of a program. Where it is missing the test is skipped, and fails where all is to be tested."""
    path = shutil.which(program)
    if path is not None:
        return path
    advice = f"no {program} on this machine: install Debian's package {package} to run this test"
    if os.environ.get("CI"):
        pytest.fail(advice, pytrace=False)
    pytest.skip(advice)
