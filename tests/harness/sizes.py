"""How large the tests are: sized for the suite, or for the long run that `ODS_TEST_LONG=1` asks for."""

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Whether the long run was asked for. Only it asserts the contract's bounds on time.
IS_LONG = os.environ.get("ODS_TEST_LONG") == "1"

#: What the fixture `measured` gives: it notes a figure for the summary at the end of the run.
Measured = Callable[[str], None]


def sized(suite: T, *, long: T) -> T:
    """Return `suite`, or `long` in the long run."""
    return long if IS_LONG else suite
