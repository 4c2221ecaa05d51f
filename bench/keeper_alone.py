"""The keeper by itself, over workers that end and pods that come and go: what it uses must stay as it is."""

import os
import signal
import time

from harness.ods_process import OdsProcess
from harness.wait import wait_until

from bench.figures import Figure, Round
from bench.pods import come_and_go
from bench.processes import Load, used
from bench.rows import Row, Sizes
from bench.stand import Stand, worker_of
from bench.takeovers import let_live
from bench.witnesses import witness

#: Pods that stay, and are handed to each worker.
STAYING = 10
#: For so long the keeper is watched at rest. Seconds.
REST_SECONDS = 2.0
#: Of all at once, so that there are many more files in between.
GROUP = 100
NEXT_SECONDS = 30.0

MOMENTS = ("begin", "middle", "end")
HALVES = ("first half", "second half")


def _measure(stand: Stand, sizes: Sizes, _: int) -> Round:
    measured: dict[str, list[float]] = {}
    with (
        stand.ods(has_keeper=True) as ods,
        Load(witness, ods.port, STAYING) as staying,
        Load(come_and_go, ods.port) as coming,
    ):
        staying.answer()
        coming.answer()
        coming.ask(GROUP)  # the first of all make Python take memory that it keeps
        for at, moment in enumerate(MOMENTS):
            if at:
                measured |= _half(ods, coming, HALVES[at - 1], restarts=sizes.restarts // 2, pods=sizes.pods // 2)
            measured |= _at_rest(ods, moment)
    return measured


def _half(ods: OdsProcess, coming: Load, half: str, *, restarts: int, pods: int) -> Round:
    """Pods first, then restarts: the processor time that one of each takes the keeper."""
    before = _cpu_seconds(ods)
    for begin in range(0, pods, GROUP):
        coming.ask(min(GROUP, pods - begin))
    between = _cpu_seconds(ods)
    for _ in range(restarts):
        _restart(ods)
    after = _cpu_seconds(ods)
    return {
        f"a pod, {half}": [1000 * (between - before) / max(1, pods)],
        f"a restart, {half}": [1000 * (after - between) / max(1, restarts)],
    }


def _restart(ods: OdsProcess) -> None:
    worker = let_live(ods)
    os.kill(worker, signal.SIGKILL)
    wait_until(
        lambda: worker_of(ods) != worker, timeout_seconds=NEXT_SECONDS, what="the next worker", state=ods.log_tail
    )


def _at_rest(ods: OdsProcess, moment: str) -> Round:
    let_live(ods)
    wait_until(ods.answers, timeout_seconds=NEXT_SECONDS, what="the status page", state=ods.log_tail)
    _wait_until_let_go(ods)
    before = _cpu_seconds(ods)
    time.sleep(REST_SECONDS)
    now = used(ods.process_id)
    return {
        f"memory, {moment}": [now.memory_bytes / 2**10],
        f"open files, {moment}": [now.files],
        f"processor at rest, {moment}": [100 * (now.cpu_seconds - before) / REST_SECONDS],
    }


def _wait_until_let_go(ods: OdsProcess) -> None:
    """Return when the keeper holds no more pods than those that stay."""

    def standing() -> int:
        return sum(pod["connections"] for pod in ods.status()["pods"])

    wait_until(lambda: standing() == STAYING, timeout_seconds=NEXT_SECONDS, what="pods to be let go", state=standing)


def _cpu_seconds(ods: OdsProcess) -> float:
    return used(ods.process_id).cpu_seconds


ROWS = [
    Row(
        "keeper alone",
        "its memory, files and processor time over 50 restarts and 1000 pods (--restarts, --pods)",
        (
            *(Figure(f"memory, {moment}", "KiB") for moment in MOMENTS),
            *(Figure(f"open files, {moment}", "files") for moment in MOMENTS),
            *(Figure(f"processor at rest, {moment}", "% of a core") for moment in MOMENTS),
            *(Figure(f"a restart, {half}", "ms of processor") for half in HALVES),
            *(Figure(f"a pod, {half}", "ms of processor") for half in HALVES),
        ),
        _measure,
        is_once=True,
    )
]
