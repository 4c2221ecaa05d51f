"""The points at which ODS can be told to kill itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from ods import failpoints
from ods.errors import SettingsError

ROOT = Path(__file__).parents[1]


def reach(given: str, *names: str) -> int:
    """Arm a point in a process of its own and reach these; returns how that ended: -9 where it was killed."""
    program = f"from ods.failpoints import arm, reach; arm({given!r}); [reach(name) for name in {names!r}]"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode


def test_the_process_is_killed_the_first_time_that_it_reaches_the_point() -> None:
    assert reach("recorded", "read", "recorded") == -9


def test_with_a_count_it_is_killed_that_time() -> None:
    assert reach("recorded:3", "recorded", "recorded") == 0
    assert reach("recorded:3", "recorded", "recorded", "recorded") == -9


def test_nothing_happens_where_none_is_armed() -> None:
    assert reach("", *failpoints.POINTS) == 0


@pytest.mark.parametrize("given", ["nowhere", "read:0", "read:-1", "read:x", ":1"])
def test_a_point_that_does_not_exist_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="ODS_FAILPOINT"):
        failpoints.arm(given)


@pytest.mark.parametrize("name", failpoints.POINTS)
def test_every_point_is_reached_somewhere(name: str) -> None:
    assert [path for path in (ROOT / "ods").glob("*.py") if f'failpoints.reach("{name}")' in path.read_text()]
