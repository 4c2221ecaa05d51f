"""The wire: bytes of a pod to records, and records to replies. Pure: no socket, no clock, no log.

A line is `POD`, a digit and a body. Real pods send log messages without the newline, so that the next record begins in
the middle of the line; hence a line that does not begin with `POD2` may hold several records. The records and replies
do not depend on how TCP cut the stream: any split of the same bytes gives the same.

A chunk in which every line is a well-formed data point is the common case and is matched as a whole; everything else
goes line by line. Both give the same records.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ods.data_points import MAX_NAME_BYTES, NAME, NUMBER, DataPoints, data_points

#: A line, or a message within one, longer than this is not understood. Bytes, without the newline.
MAX_LINE_BYTES = 64 * 1024
#: How much of an overlong line is told back. Bytes.
HEAD_BYTES = 64
#: So many runs of names of a pod are remembered.
MOST_RUNS = 16
#: About the shortest data point. Bytes, with the newline.
SHORT_LINE_BYTES = 8

NOT_STORED = b"ERROR: Not Stored\n"
LOGGED = b"OK: LOGGED\n"

_BLANK = b" \r"

_IS_NAME = re.compile(NAME.encode())
_IS_NUMBER = re.compile(NUMBER.encode())
#: A data point, or what C's printf makes of no number, glued to the end of a log message.
_GLUED = re.compile(rf"POD2({NAME}) ({NUMBER}|-?nan|-?inf)\Z".encode())
#: The same, cut off by the end of the connection anywhere after the name.
_GLUED_TORN = re.compile(rf"POD2{NAME} (?:[+-]?[0-9.]*(?:[eE][+-]?[0-9]*)?|-?(?:nan?|n|inf?|i))\Z".encode())
#: `%-8s` of the level in brackets, as the pod's logging client prints it.
_LEVEL = re.compile(r"\[(?:(DEBUG|ERROR|FATAL)\] ?|(INFO|NOTE|WARN)\] {0,2})")

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09}
_CONTROLS |= {0x0A: "\\n", 0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A log message: its level in lower case (or None), the text without it, and the text as sent."""

    level: str | None
    message: str
    sent: str


@dataclass(frozen=True, slots=True)
class NoRecord:
    """What is no record: `kind` is `invalid` (bad data and what is not understood) or `torn`."""

    kind: str
    sent: str


@dataclass(frozen=True, slots=True)
class MarkText:
    """A mark: no pod sends it, an operator does (`ods mark`)."""

    text: str


Record = DataPoints | LogMessage | NoRecord | MarkText


@dataclass(slots=True)
class Decoded:
    """What a piece of the stream held: the records, and the replies to the lines that ended in it.

    A reply is `(text, lines)`: where `lines` is 0 the text stands; otherwise it answers that many lines with `OK`, and
    each becomes `ERROR: Not Stored` when their points could not be kept.
    """

    records: list[Record] = field(default_factory=list)
    replies: list[tuple[bytes, int]] = field(default_factory=list)


def replies_when_kept(replies: Iterable[tuple[bytes, int]]) -> bytes:
    """The replies to send once every point of theirs is kept."""
    return b"".join([text for text, _ in replies])


def replies_when_dropped(replies: Iterable[tuple[bytes, int]]) -> bytes:
    """The replies to send when no store could take the points."""
    return b"".join([NOT_STORED * lines if lines else text for text, lines in replies])


def readable(raw: bytes) -> str:
    r"""Text as it is stored: UTF-8, with invalid bytes and control characters as `\xNN` and newlines as `\n`."""
    text = raw.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.translate(_CONTROLS)


class NameBook:
    """The distinct names that a pod has used, capped, so that a million names cannot fill any memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self._known: set[str] = set()
        #: Names that were all admitted, as they were sent lately.
        self._runs: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def has_any(self, names: Iterable[str]) -> bool:
        """Whether any of these was used."""
        return not self._known.isdisjoint(names)

    def admit_all(self, names: Iterable[str]) -> bool:
        """Take all of these names, or none of them where they do not all fit."""
        if self._known.issuperset(names):
            return True
        new = set(names) - self._known
        if len(self._known) + len(new) > self.limit:
            return False
        self._known |= new
        return True

    def admit_run(self, names: str) -> bool:
        """The same of names that a pod has sent one after the other, with commas between; quick where it does so again.

        A pod sends the same values in the same order, again and again.
        """
        if names in self._runs:
            return True
        if not self.admit_all(names.split(",")):
            return False
        if len(self._runs) >= MOST_RUNS:
            self._runs.clear()
        self._runs.add(names)
        return True

    def refuses(self, name: str) -> bool:
        """Whether this name would be one too many; counted where it is."""
        refused = name not in self._known and len(self._known) >= self.limit
        self.refused += refused
        return refused


class Decoder:
    """The bytes of one connection, in order, to records. Holds the unfinished line between two calls."""

    def __init__(self, names: NameBook) -> None:
        self._names = names
        self._rest = b""
        #: The first bytes of what has been taken off the unfinished line already, where anything has.
        self._taken = b""
        self._overlong = False

    def feed(self, data: bytes) -> Decoded:
        """The records and replies that are complete with these bytes."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        decoded = self._feed_lines(data[:end]) if end else Decoded()
        self._rest = data[end:]
        self._take_finished_messages(decoded)
        return decoded

    def feed_data_points(self, data: bytes) -> Decoded | None:
        """As `feed` where these bytes end a line and each line is a good data point: one, for each newline.

        Otherwise None, and nothing is fed.
        """
        if self._taken or self._overlong or not data.endswith(b"\n"):
            return None
        decoded = self._all_data_points(self._rest + data)
        if decoded is not None:
            self._rest = b""
        return decoded

    @property
    def is_at_begin(self) -> bool:
        """Whether the next byte begins a line."""
        return not (self._rest or self._taken or self._overlong)

    @property
    def rest_bytes(self) -> int:
        """How much is held of the unfinished line."""
        return len(self._rest)

    @property
    def line(self) -> tuple[bytes, bool]:
        """What a decoder has to know that is to go on from the begin of what this one holds; see `begin_in`."""
        return self._taken, self._overlong

    def begin_in(self, taken: bytes, is_overlong: bool) -> None:
        """Begin in the middle of a line, as a decoder stood whose `line` was this. Then feed it what that one held."""
        self._taken, self._overlong = taken, is_overlong

    def is_fast(self, data: bytes) -> bool:
        """Whether `feed` is quick with these bytes, as far as can be told from how their lines begin."""
        lines = data.count(b"\n")
        return data.count(b"\nPOD2") + 1 >= lines and lines * SHORT_LINE_BYTES <= len(data)

    def finish(self) -> Decoded:
        """What the end of the connection makes of the unfinished line: messages are kept, a data line is torn."""
        decoded = Decoded()
        line = self._rest.rstrip(_BLANK)
        if self._overlong:
            _Line(decoded, self._names).overlong(self._taken)
        elif not self._taken and (line.startswith(b"POD2") or (line and b"POD2".startswith(line))):
            decoded.records.append(NoRecord("torn", readable(line)))
        elif line:
            glued = _GLUED_TORN.search(line)
            if text := line[: glued.start()] if glued else line:
                _Line(decoded, self._names).text(text)
            if glued:
                decoded.records.append(NoRecord("torn", readable(glued[0])))
        decoded.replies.clear()
        self._rest, self._taken, self._overlong = b"", b"", False
        return decoded

    def _feed_lines(self, lines: bytes) -> Decoded:
        if not self._taken and not self._overlong:
            decoded = self._all_data_points(lines)
            if decoded is not None:
                return decoded
        decoded = Decoded()
        for line in lines[:-1].split(b"\n"):
            self._line(line, decoded)
        return decoded

    def _all_data_points(self, lines: bytes) -> Decoded | None:
        """The common case, a chunk at a time; None where any line is anything but a good data point."""
        points = data_points(lines)
        if points is None or _may_be_overlong(lines, points) or not self._names.admit_all(points.names):
            return None
        return Decoded([points], [("".join(each_ok(points)).encode(), len(points))])

    def _line(self, line: bytes, decoded: Decoded) -> None:
        """One line, or what is left of it after the messages that were taken off it."""
        if not self._taken:
            line = line.lstrip(_BLANK)
        to = _Line(decoded, self._names)
        head = (self._taken + line[:HEAD_BYTES])[:HEAD_BYTES]
        is_data = not self._taken and line.startswith(b"POD2")
        last = line if is_data or self._overlong else self._take_messages(line, to)
        if self._overlong or last is None or len(last) > MAX_LINE_BYTES:
            to.overlong(head)
        elif is_data:
            to.data(last.rstrip(_BLANK))
        else:
            to.end(last.rstrip(_BLANK))
        self._taken, self._overlong = b"", False

    def _take_finished_messages(self, decoded: Decoded) -> None:
        """Take off the unfinished line each message that the next one has ended."""
        if self._overlong:
            self._rest = b""
            return
        if not self._taken:
            self._rest = self._rest.lstrip(_BLANK)
        last: bytes | None = self._rest
        if self._taken or not self._rest.startswith(b"POD2"):
            last = self._take_messages(self._rest, _Line(decoded, self._names))
        # The last three bytes may yet turn out to be the beginning of the next message.
        if last is None or len(last) > MAX_LINE_BYTES + 3:
            last, self._overlong = b"", True
        off = self._rest[: len(self._rest) - len(last)]
        self._taken = (self._taken + off[:HEAD_BYTES])[:HEAD_BYTES]
        self._rest = last

    def _take_messages(self, line: bytes, to: "_Line") -> bytes | None:
        """Take off a line all that a `POD1` has ended; what is left, or None where a message is overlong."""
        start = 0
        while (following := line.find(b"POD1", start + 1)) != -1:
            if following - start > MAX_LINE_BYTES:
                return None
            to.text(line[start:following])
            start = following
        return line[start:]


class _Line:
    """Adds the records and the reply of one line to what is decoded."""

    def __init__(self, decoded: Decoded, names: NameBook) -> None:
        self._decoded = decoded
        self._names = names

    def data(self, line: bytes) -> None:
        """A line, or the end of one, that begins with `POD2`."""
        name, _, number = line[4:].partition(b" ")
        value = float(number) if _IS_NUMBER.fullmatch(number) else math.nan
        if not _IS_NAME.fullmatch(name) or self._names.refuses(name.decode()):
            self._no_record(line, b"FAIL: " + line)
        elif not math.isfinite(value):
            self._no_record(line, b"ERROR: Bad Value '" + number + b"'")
        else:
            self._point(name.decode(), number.decode(), repr(value))

    def text(self, text: bytes) -> None:
        """A message, or what comes before the first one; more of the line follows it."""
        if text.startswith(b"POD1"):
            self._decoded.records.append(log_message(readable(text[4:])))
        else:
            self._decoded.records.append(NoRecord("invalid", readable(text)))

    def end(self, line: bytes) -> None:
        """The end of a line, which does not begin with `POD2`: its reply is that of its last record."""
        glued = _GLUED.search(line)
        text = line[: glued.start()] if glued else line
        if text or not glued:
            self.text(text)
        if glued:
            self.data(glued[0])
        elif text.startswith(b"POD1"):
            self._decoded.replies.append((LOGGED, 1))
        else:
            self._decoded.replies.append((b"FAIL: " + text + b"\n", 0))

    def overlong(self, head: bytes) -> None:
        """A line that is too long to be understood."""
        self._no_record(head, b"FAIL: " + head)

    def _point(self, name: str, sent: str, value: str) -> None:
        self._names.admit_all((name,))
        records = self._decoded.records
        if not (records and isinstance(records[-1], DataPoints)):
            records.append(DataPoints([], [], []))
        points = records[-1]
        assert isinstance(points, DataPoints)
        points.names.append(name)
        points.sent.append(sent)
        points.values.append(value)
        self._decoded.replies.append((f"OK: ({name},{value})\n".encode(), 1))

    def _no_record(self, line: bytes, reply: bytes) -> None:
        self._decoded.records.append(NoRecord("invalid", readable(line)))
        self._decoded.replies.append((reply + b"\n", 0))


def _may_be_overlong(lines: bytes, points: DataPoints) -> bool:
    most = MAX_LINE_BYTES - len("POD2 ") - MAX_NAME_BYTES
    return len(lines) > MAX_LINE_BYTES and max(map(len, points.sent)) > most


def each_ok(points: DataPoints) -> list[str]:
    """The reply to each line of these that is kept."""
    return [f"OK: ({name},{value})\n" for name, value in zip(points.names, points.values, strict=True)]


def log_message(text: str) -> LogMessage:
    """The log message that was sent as this `readable` text."""
    level = _LEVEL.match(text)
    if level is None:
        return LogMessage(None, text, text)
    return LogMessage((level[1] or level[2]).lower(), text[level.end() :], text)
