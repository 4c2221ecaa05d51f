"""The points that all rows send, as a pod says them and as InfluxDB takes them. Pure.

40 names, values `i * 0.5` as `%f`: what section 12 of the contract measures with.
"""

from collections.abc import Sequence

NAMES = tuple(f"channel_{number:02}" for number in range(40))
FIRST_NS = 1_700_000_000_000_000_000
#: A body of the raw rate.
BODY_POINTS = 5000


def addresses(count: int) -> list[str]:
    """The addresses of so many pods, all on loopback."""
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]


def pod_lines(count: int, *, first: int = 0) -> bytes:
    """Lines of one pod."""
    numbers = range(first, first + count)
    return b"".join([b"POD2%s %f\n" % (NAMES[at % len(NAMES)].encode(), at * 0.5) for at in numbers])


def bodies(count: int, pods: Sequence[str], *, size: int = BODY_POINTS) -> list[bytes]:
    """The same points as line protocol, in bodies of `size`: each pod's in the order of time."""
    made = []
    for begin in range(0, count, size):
        lines = []
        for at in range(begin, min(begin + size, count)):
            pod, number = pods[at % len(pods)], at // len(pods)
            lines.append(f"{NAMES[number % len(NAMES)]},pod={pod} value={number * 0.5!r} {FIRST_NS + at}\n")
        made.append("".join(lines).encode())
    return made
