"""How long pods wait when the worker ends: from the signal to the replies of the next one."""

import signal
import time
from functools import partial
from statistics import median

from harness.ods_process import OdsProcess

from bench.figures import Figure, Round
from bench.processes import Load, age_seconds
from bench.rows import Row, Sizes
from bench.stand import Stand, worker_of
from bench.witnesses import witness

#: A worker that has lived less than a second is replaced after a pause. These live so long before they end. Seconds.
LIFE_SECONDS = 1.5

FIRST = Figure("first pod is answered after", "s")
MIDDLE = Figure("median pod is answered after", "s")
ONLY = Figure("the pod is answered after", "s")
LAST = Figure("last pod is answered after", "s")


def _rows(name: str, about: str, number: signal.Signals, fleets: tuple[int, ...], *, is_slow: bool) -> list[Row]:
    return [
        Row(
            f"{name}, {pods} pod{'s' if pods > 1 else ''}",
            about,
            (ONLY,) if pods == 1 else (FIRST, MIDDLE, LAST),
            partial(_measure, number, pods, is_slow),
        )
        for pods in fleets
    ]


def _measure(number: signal.Signals, pods: int, is_slow: bool, stand: Stand, sizes: Sizes, _: int) -> Round:
    measured: dict[str, list[float]] = {figure.name: [] for figure in (ONLY, FIRST, MIDDLE, LAST)}
    with stand.ods(has_keeper=True) as ods, Load(witness, ods.port, pods) as load:
        load.answer()
        for _ in range(1 if is_slow else sizes.kills):
            waited = load.ask(let_live(ods), number)
            measured[ONLY.name].append(waited[0])
            measured[FIRST.name].append(min(waited))
            measured[MIDDLE.name].append(median(waited))
            measured[LAST.name].append(max(waited))
    return measured


def let_live(ods: OdsProcess) -> int:
    """Return the worker once it has lived long enough to be replaced at once, and has its pods."""
    worker = worker_of(ods)
    time.sleep(max(0.0, LIFE_SECONDS - age_seconds(worker)))
    return worker


ROWS = [
    *_rows("kill -9", "the worker is killed, with pods connected", signal.SIGKILL, (1, 100, 1000), is_slow=False),
    *_rows("hang", "the worker is stopped (SIGSTOP), as one that hangs", signal.SIGSTOP, (1, 100), is_slow=True),
]
