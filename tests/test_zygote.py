"""What workers are forked from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the keeper is for Linux")


def test_what_is_forked_has_one_thread_no_hub_and_nothing_that_is_not_used() -> None:
    """Also where pandas is installed, which two libraries would import, with threads of its own."""
    program = """
import json, os, sys
import ods.commands.worker
from gevent._hub_local import get_hub_if_exists
from ods import zygote
zygote.be_alone()
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "has_hub": get_hub_if_exists() is not None,
    "unwanted": sorted({"pandas", "numpy"} & set(sys.modules)),
}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"threads": 1, "has_hub": False, "unwanted": []}
