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
    whole: list[Intake] = []
    read: list[bytes] = []
    for intake in intakes:
        lines = intake.whole_lines
        if lines is None:
            intake.flush()
        else:
            whole.append(intake)
            read.append(lines)
    if len(whole) < 2 or not _flush_as_one(whole, read):
        for intake in whole:
            intake.flush()


def _flush_as_one(intakes: list[Intake], read: list[bytes]) -> bool:
    """Decode at once; False where some of it is no good data point, or a name too many, and nothing was done."""
    points = data_points(b"".join(read))
    if points is None:
        return False
    parts = list(pairwise(accumulate([lines.count(b"\n") for lines in read], initial=0)))
    names = [",".join(points.names[begin:end]) for begin, end in parts]
    if not all(intake.admits(of_part) for intake, of_part in zip(intakes, names, strict=True)):
        return False
    times: list[str] = []
    tags: list[str] = []
    spans: list[tuple[int, int]] = []
    for intake, (begin, end) in zip(intakes, parts, strict=True):
        spans.append(intake.take_read_times(times))
        tags += [intake.pod.tag] * (end - begin)
    lines, rows, replies = each_data_line(points, tags, times), each_data_row(points, times), each_ok(points)
    for intake, (begin, end), of_part, span in zip(intakes, parts, names, spans, strict=True):
        encoded = Encoded("".join(lines[begin:end]).encode(), "".join(rows[begin:end]).encode(), b"", end - begin)
        intake.pass_on(encoded, "".join(replies[begin:end]).encode(), of_part, *span)
        if intake.is_watched:
            intake.watch(points.part(begin, end), times[begin:end])
    return True
