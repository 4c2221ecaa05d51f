"""Small reads of many pods, decoded as one piece.

A thousand pods that send a hundred lines a second in bursts of ten are ten thousand reads a second, and to match, cut
and encode each by itself takes some seventh more. So the reads that wait are put one after the other; where that makes
well-formed data lines and nothing else, they are decoded and encoded at once, and each intake gets its part. What is
not, each intake decodes by itself. The chunks are the same either way (a property test holds that).
"""

from collections.abc import Iterable
from itertools import accumulate, pairwise

from ods.data_points import data_points
from ods.encoder import Encoded
from ods.intake import Intake
from ods.line_protocol import each_data_line
from ods.protocol import each_ok
from ods.recording import each_data_row


def flush(intakes: Iterable[Intake]) -> None:
    """Have all of these decode what they have read, and pass it on."""
    whole = []
    for intake in intakes:
        if intake.has_whole_lines:
            whole.append(intake)
        else:
            intake.flush()
    if len(whole) < 2 or not _flush_as_one(whole):
        for intake in whole:
            intake.flush()


def _flush_as_one(intakes: list[Intake]) -> bool:
    """Decode at once; False where some of it is no good data point, or a name too many, and nothing was done."""
    read = [intake.read_lines for intake in intakes]
    points = data_points(b"".join(read))
    if points is None:
        return False
    parts = list(pairwise(accumulate([lines.count(b"\n") for lines in read], initial=0)))
    if not all(intake.admits(points.names[begin:end]) for intake, (begin, end) in zip(intakes, parts, strict=True)):
        return False
    times: list[str] = []
    tags: list[str] = []
    for intake, (begin, end) in zip(intakes, parts, strict=True):
        times += intake.take_read_times()
        tags += [intake.pod.tag] * (end - begin)
    lines, rows, replies = each_data_line(points, tags, times), each_data_row(points, times), each_ok(points)
    for intake, (begin, end) in zip(intakes, parts, strict=True):
        encoded = Encoded("".join(lines[begin:end]).encode(), "".join(rows[begin:end]).encode(), b"", end - begin)
        reply = "".join(replies[begin:end]).encode()
        intake.pass_on(points, begin, end, times[begin:end], encoded, reply)
    return True
