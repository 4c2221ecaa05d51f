"""`ods simulate`: pods for trying things, when no pod is at hand.

It sends what pods send, checks what ODS answers, and says at its end whether every line was acknowledged: exit
status 0 when it was, 1 when not, 2 for a bad option. The summary goes to stdout, everything else to stderr. Faults are
played by pods of their own, beside those of the run, which must not suffer.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NoReturn

from ods.simulator.faults import FAULTS, Origin
from ods.simulator.fleet import Playable, can_choose_sources, endpoints_of_pods, play_all, resolve
from ods.simulator.pod import Endpoint, Pacing, PodReport, SimulatedPod
from ods.simulator.records import RunPlan, records_of_pod
from ods.simulator.summary import summary_lines, troubles
from ods.simulator.troubled import TroubledPod

#: A real pod sends its records in bursts of tens.
DEFAULT_BURST = 20
#: How often a fault is played. Seconds.
FAULT_EVERY_SECONDS = 5.0
ALL = "all"
_KINDS = "\n".join(f"  {name:<16} {fault.meaning}" for name, fault in FAULTS.items())
_EXAMPLES = f"""\
examples:
  ods simulate --pods 4 --rate 1000 --seconds 10
  ods simulate --fault unplug --fault bad-lines --seconds 30
  ods simulate --fault all --fault-every 10 --seconds 60

Each --fault is played by a pod of its own, at the addresses that follow those of the others. Real pods never connect
again; one with a fault does, as if it had got a new run. The kinds:

{_KINDS}

exit status: 0 every line was answered as it must be, 1 not so, 2 wrong usage
"""


def main(argv: Sequence[str]) -> int:
    """Play the simulation that the options describe; returns the exit status."""
    options = _parse(argv)
    try:
        endpoint = resolve(options.host, options.port)
    except (OSError, UnicodeError) as error:
        _say(f"cannot find the host {options.host!r}: {getattr(error, 'strerror', None) or error}")
        return 1
    _introduce(options, endpoint)
    begun = time.monotonic()
    try:
        reports = asyncio.run(play_all(_pods(options, endpoint), _announce))
    except KeyboardInterrupt:
        _say("stopped without a summary")
        return 130
    _print_lines(summary_lines(reports, elapsed_seconds=time.monotonic() - begun))
    return 0 if all(report.is_clean for report in reports) else 1


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _OneLineParser(
        prog="ods simulate",
        description="Plays a run of a hyperloop pod to ODS: boot, ready, pushing, coasting, braking.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where ODS is (default %(default)s)")
    add("-p", "--port", type=_port, default=7778, help="its port for pods (default %(default)s)")
    add("--pods", type=_count, default=1, metavar="N", help="pods at once (default %(default)s)")
    add(
        "--rate",
        type=_rate,
        default=100.0,
        metavar="RECORDS_PER_SECOND",
        help="records a second of each pod, log messages included; 0: as fast as it can (default %(default)g)",
    )
    add("--seconds", type=_seconds, default=60.0, metavar="S", help="length of the run (default %(default)g)")
    add("--ignore-replies", action="store_true", help="never read a reply, like a real pod")
    add("--burst", type=_count, default=DEFAULT_BURST, metavar="N", help="records sent at once (default %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="the same seed gives the same records (default %(default)s)")
    add(
        "--first-address",
        type=_loopback_address,
        default="127.0.1.1",
        metavar="ADDRESS",
        help="the first pod's own address, counted up for the others; Linux only (default %(default)s)",
    )
    add(
        "--fault", action="append", default=[], choices=(*FAULTS, ALL), metavar="KIND", help="play this too (see below)"
    )
    add(
        "--fault-every",
        type=_seconds,
        default=FAULT_EVERY_SECONDS,
        metavar="S",
        help="from the begin of a fault to the next of its kind (default %(default)g)",
    )
    options = parser.parse_args(argv)
    options.fault = list(FAULTS) if ALL in options.fault else list(dict.fromkeys(options.fault))
    addresses = options.pods + len(options.fault)
    if not _is_loopback(int(options.first_address) + addresses - 1):
        parser.error(f"argument --pods: {addresses} addresses from {options.first_address} leave 127.0.0.0/8")
    return options


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _rate(text: str) -> float:
    rate = _finite(text)
    if rate < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return rate


def _seconds(text: str) -> float:
    seconds = _finite(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return seconds


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _loopback_address(text: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address") from error
    if not address.is_loopback:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 127.0.0.0/8")
    return address


def _is_loopback(number: int) -> bool:
    return number < 2**32 and ipaddress.IPv4Address(number).is_loopback


def _introduce(options: argparse.Namespace, endpoint: Endpoint) -> None:
    pods = "1 pod sends" if options.pods == 1 else f"{options.pods} pods send"
    rate = f"{options.rate:g} records a second each" if options.rate else "as fast as possible"
    _say(f"{pods} to {options.host}:{options.port}, {rate}, for {options.seconds:g} s")
    if options.fault:
        _say(f"beside them, every {options.fault_every:g} s: {', '.join(options.fault)}")
    if not can_choose_sources(endpoint):
        _say("pods have no addresses of their own (only on Linux, to a loopback address): ODS sees them as one pod")


def _pods(options: argparse.Namespace, endpoint: Endpoint) -> list[Playable]:
    count = options.pods + len(options.fault)
    endpoints = list(endpoints_of_pods(endpoint, pods=count, first_address=options.first_address))
    return [*_sound_pods(options, endpoints[: options.pods]), *_troubled_pods(options, endpoints[options.pods :])]


def _troubled_pods(options: argparse.Namespace, endpoints: Sequence[Endpoint]) -> Iterator[TroubledPod]:
    for kind, endpoint in zip(options.fault, endpoints, strict=True):
        name = f"{endpoint.source} ({kind})" if endpoint.source else kind
        origin = Origin(name=name, endpoint=endpoint, is_reading_replies=not options.ignore_replies, seed=options.seed)
        yield TroubledPod(
            name=name,
            episode=partial(FAULTS[kind].episode, origin),
            every_seconds=options.fault_every,
            seconds=options.seconds,
        )


def _sound_pods(options: argparse.Namespace, endpoints: Sequence[Endpoint]) -> list[SimulatedPod]:
    target = f"{options.host}:{options.port}"
    plan = RunPlan(target=target, rate=options.rate, seconds=options.seconds, seed=options.seed)
    pacing = Pacing(rate=options.rate, seconds=options.seconds, burst=options.burst)
    return [
        SimulatedPod(
            name=own.source or f"pod {index + 1}",
            endpoint=own,
            records=records_of_pod(plan, index),
            pacing=pacing,
            is_reading_replies=not options.ignore_replies,
        )
        for index, own in enumerate(endpoints)
    ]


def _announce(report: PodReport) -> None:
    for line in troubles(report):
        _say(line)


def _say(line: str) -> None:
    print(f"ods simulate: {line}", file=sys.stderr, flush=True)


def _print_lines(lines: Iterable[str]) -> None:
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on; without this the interpreter would fail once more when it flushes at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
