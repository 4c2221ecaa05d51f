"""What InfluxDB's answers mean, and what went wrong where there was none. Pure, but for the date of a `Retry-After`.

Statuses and texts are those of InfluxDB 1.6 to 1.12, 2.x (2.9.1) and 3.x (3.10.1), and of VictoriaMetrics 1.79.
"""

import json
import re
import time
from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime

from ods.errors import InfluxError, Rejected, Unavailable
from ods.influx_http import ANSWER_BYTES, Answer

_CREDENTIALS_ADVICE = "check --influx-user and --influx-pass (or --influx-pass-file)"


class DatabaseMissing(Unavailable):
    """404, and the body says that it is the database."""


class Failed(Unavailable):
    """The server failed, or was not heard of again, over a batch that had reached it: it may be the batch's fault."""


class TooLarge(Unavailable):
    """413: the body is larger than the server takes."""


#: What a 404 says of a missing database: InfluxDB 1.x; 2.x, which maps a database to a bucket.
_MISSING = ("database not found", "no dbrp mapping found", "bucket not found")
#: A 400 or 422 of InfluxDB 3.x that is not about lines: too many databases, a deleted one, credentials with a colon.
_NOT_ABOUT_LINES = {
    "would exceed limit of": "delete a database, or raise its limit",
    "soft-deleted database": "name another database (--influx-name), or bring that one back",
    "Authorization header was malformed": _CREDENTIALS_ADVICE,
}
#: The answer of InfluxDB 3.x as far as its first bad line: where there are many, it is too long to be read to its end.
_BAD_LINE = re.compile(r'\{"error":\s*"[^"]*",\s*"data":\s*\[\{(?:[^"}]|"(?:[^"\\]|\\.)*")*')


def meaning_of(answer: Answer, *, secrets: Sequence[str] = ()) -> InfluxError:
    """What an answer other than 204 means. A server, or what stands in front of it, may repeat `secrets` in it."""
    status, reason = answer.status, _reason(answer, secrets)
    if status == 404 and any(sign in reason for sign in _MISSING):
        return DatabaseMissing(reason)
    if status in (400, 422):
        for sign, advice in _NOT_ABOUT_LINES.items():
            if sign in reason:
                return Unavailable(reason, advice=advice)
    if status in (400, 422):
        return Rejected(reason)
    if status in (401, 403):
        return Unavailable(f"it refuses the user or the password: {reason}", advice=_CREDENTIALS_ADVICE)
    if status == 413:
        return TooLarge(reason, advice="raise max-body-size in InfluxDB's configuration")
    if status < 400 or status == 404:
        return Unavailable(reason, advice="check --influx-host, --influx-port and --influx-path: is this an InfluxDB?")
    retry_after_seconds = _retry_after_seconds(answer)
    if status >= 500 and not retry_after_seconds:
        return Failed(reason)
    return Unavailable(reason, retry_after_seconds=retry_after_seconds)


def _reason(answer: Answer, secrets: Sequence[str]) -> str:
    """One line for a person."""
    text = answer.headers.get("X-Influxdb-Error") or _said(answer.body.decode("utf-8", "backslashreplace"))
    text = _without(secrets, text)
    return f"HTTP {answer.status} {' '.join(text.split())[:300]}".strip()


def _said(body: str) -> str:
    """What is wrong, out of an answer's body: JSON, or plain text."""
    first = _BAD_LINE.match(body) if len(body) >= ANSWER_BYTES else None
    try:
        decoded = json.loads(f"{first[0]}}}]}}" if first else body)
        text = str(decoded.get("error") or decoded.get("message") or body)
        if isinstance(lines := decoded.get("data"), list):  # InfluxDB 3.x: what is wrong, line by line
            text = f"{text}: {lines[0]['error_message']}"
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return body
    return text


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _retry_after_seconds(answer: Answer) -> float:
    value = answer.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    try:  # the server's own clock tells it best: this machine's may be in 1970
        return max(0.0, (date - parsedate_to_datetime(answer.headers.get("Date", ""))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return _seconds_until(date)


def _seconds_until(date: datetime) -> float:
    try:
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return 0.0


def in_words(error: BaseException, *, secrets: Sequence[str] = ()) -> str:
    """What went wrong below HTTP, without the nesting of the libraries."""
    text = _without(secrets, str(error))
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "its name cannot be resolved"),
        ("codec failed", "its name cannot be resolved"),
        ("nodename nor servname", "its name cannot be resolved"),
        ("Temporary failure in name resolution", "its name cannot be resolved"),
        ("No route to host", "no route to host"),
        ("Network is unreachable", "network is unreachable"),
        ("timed out", "no answer in time"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
        ("reset by peer", "connection reset"),
        ("closed connection without response", "connection closed without an answer"),
        ("Connection aborted", "connection closed without an answer"),
        ("Broken pipe", "connection closed without an answer"),
    ):
        if sign in text:
            return words
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"
