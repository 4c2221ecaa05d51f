"""How many points go through ODS, and what a point costs: with the keeper, without it, and InfluxDB by itself."""

import time

from bench import backlogs, pods, raw
from bench.figures import Figure, Ratio, Round
from bench.processes import Load
from bench.rows import Row, Sizes, mode_name, modes
from bench.stand import Stand, cpu_seconds

#: Pods that flood.
PODS = 4
TRICKLE_PER_SECOND = 1000.0
STORED_SECONDS = 60.0
DRAIN_SECONDS = 120.0
#: How long a trickle runs before it is measured: what starts is done by then. Seconds.
WARM_SECONDS = 0.5

RAW = "raw"


def _measure_raw(stand: Stand, sizes: Sizes, _: int) -> Round:
    with (
        stand.database() as database,
        Load(raw.post, stand.influx.port, database, PODS, sizes.points) as load,
    ):
        load.answer()
        return {RAW: [load.ask("post")]}


def _to_influx(stand: Stand, sizes: Sizes, number: int) -> Round:
    """Until InfluxDB has confirmed every point, and every pod has its replies."""
    measured = {}
    for has_keeper in modes(number):
        with stand.ods(has_keeper=has_keeper) as ods, Load(pods.flood, ods.port, PODS, sizes.points) as load:
            load.answer()
            began, _ = load.ask("flood")
            ods.wait_for_totals(stored=sizes.points, in_flight=0, timeout_seconds=STORED_SECONDS)
            measured[mode_name(has_keeper)] = [sizes.points / (time.monotonic() - began)]
    return measured


def _to_buffer(stand: Stand, sizes: Sizes, number: int) -> Round:
    """Until every pod has its replies: a reply says that its point is committed."""
    measured = {}
    for has_keeper in modes(number):
        ods_of = stand.ods(has_keeper=has_keeper, has_influx=False)
        with ods_of as ods, Load(pods.flood, ods.port, PODS, sizes.points) as load:
            load.answer()
            began, replied = load.ask("flood")
            ods.wait_for_totals(pending=sizes.points, in_flight=0)
            measured[mode_name(has_keeper)] = [sizes.points / (replied - began)]
            ods.stop()
            measured[ON_DISK] = [ods.buffer_bytes() / sizes.points]
    return measured


def _drain(stand: Stand, sizes: Sizes, number: int) -> Round:
    """From the first request to the empty buffer, as ODS says it."""
    measured = {}
    kinds = [(LARGE, backlogs.LARGE_ROW_POINTS), (SMALL, backlogs.SMALL_ROW_POINTS)]
    for name, row_points in kinds if number % 2 == 0 else reversed(kinds):
        with stand.process(has_keeper=True) as ods:
            ods.start()
            ods.stop()
            backlogs.fill(ods, sizes.points, row_points)
            ods.start()
            said = ods.wait_for_line(r"drain: done, \d+ points backfilled", timeout_seconds=DRAIN_SECONDS)
            ods.wait_for_totals(pending=0, stored=sizes.points)
            measured[name] = [float(said.partition("(")[2].split()[0])]
            ods.stop()
    return measured


def _one_by_one(stand: Stand, sizes: Sizes, number: int) -> Round:
    """Lines a second of a pod that waits for each reply, and posts a second of one point each."""
    measured = {}
    for has_keeper in modes(number):
        with stand.ods(has_keeper=has_keeper) as ods, Load(pods.wait_for_each, ods.port) as load:
            load.answer()
            measured[mode_name(has_keeper)] = [load.ask(sizes.seconds)]
    with stand.database() as database, Load(raw.post_single, stand.influx.port, database) as load:
        load.answer()
        measured[SINGLE] = [load.ask(sizes.seconds)]
    return measured


def _trickle(stand: Stand, sizes: Sizes, number: int) -> Round:
    """Processor time, in percent of a core, of keeper and worker together and of the keeper alone."""
    measured = {}
    for has_keeper in modes(number):
        with stand.ods(has_keeper=has_keeper) as ods, Load(pods.trickle, ods.port, TRICKLE_PER_SECOND) as load:
            load.answer()
            time.sleep(WARM_SECONDS)
            began, before = time.monotonic(), cpu_seconds(ods)
            time.sleep(sizes.seconds)
            took, after = time.monotonic() - began, cpu_seconds(ods)
            measured[mode_name(has_keeper)] = [100 * (after[0] - before[0]) / took]
            if has_keeper:
                measured[ALONE] = [100 * (after[1] - before[1]) / took]
    return measured


KEEPER, NO_KEEPER = mode_name(True), mode_name(False)
SINGLE = "posts of one point"
ALONE = "the keeper alone"
ON_DISK = "on disk"
LARGE, SMALL = "large rows", "small rows"
COMPARED = Ratio("keeper / no keeper", KEEPER, NO_KEEPER)


def _both(unit: str) -> tuple[Figure, Figure]:
    return Figure(KEEPER, unit), Figure(NO_KEEPER, unit)


ROWS = [
    Row(RAW, "line protocol in bodies of 5000, posted to InfluxDB", (Figure(RAW, "points/s"),), _measure_raw),
    Row(
        "to InfluxDB",
        "a flood of 4 pods, each point confirmed and replied to",
        _both("points/s"),
        _to_influx,
        (COMPARED, Ratio("keeper / raw", KEEPER, RAW, "0.7"), Ratio("no keeper / raw", NO_KEEPER, RAW, "0.7")),
        needs=(RAW,),
    ),
    Row(
        "to the buffer",
        "the same with InfluxDB away, each point committed and replied to",
        (*_both("points/s"), Figure(ON_DISK, "bytes/point", "8")),
        _to_buffer,
        (COMPARED, Ratio("keeper / raw", KEEPER, RAW, "0.9"), Ratio("no keeper / raw", NO_KEEPER, RAW, "0.9")),
        needs=(RAW,),
    ),
    Row(
        "drain",
        "of a backlog in rows of 5000 points, and in rows of 100, as 1000 points a second leave them",
        (Figure(LARGE, "points/s"), Figure(SMALL, "points/s")),
        _drain,
        (
            Ratio("large / raw", LARGE, RAW, "0.85"),
            Ratio("small / raw", SMALL, RAW),
            Ratio("small / large", SMALL, LARGE),
        ),
        needs=(RAW,),
    ),
    Row(
        "one by one",
        "one pod that waits for each reply, beside posts of one point each",
        (*_both("lines/s"), Figure(SINGLE, "posts/s")),
        _one_by_one,
        (
            COMPARED,
            Ratio("keeper / posts", KEEPER, SINGLE, "0.5"),
            Ratio("no keeper / posts", NO_KEEPER, SINGLE, "0.5"),
        ),
    ),
    Row(
        "trickle",
        "1000 points a second, one at a time: processor time (under 10 % of a core)",
        (*(Figure(name, "% of a core", "10") for name in (KEEPER, NO_KEEPER)), Figure(ALONE, "% of a core")),
        _trickle,
        (COMPARED,),
    ),
]
