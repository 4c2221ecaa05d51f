"""How a line of the log looks: for people, for programs (JSON), and for systemd's journal.

The keeper and the worker both log, to one stderr; nothing of gevent is in here.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping

#: systemd's name for where stderr goes, where that is the journal: its device and inode.
JOURNAL_VARIABLE = "JOURNAL_STREAM"
#: The priorities of syslog, by which the journal marks, filters and colours lines; that of INFO for what is in between.
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class PlainFormatter(logging.Formatter):
    """Time (UTC), level, message; the traceback, if any, follows on lines of its own."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-8s %(message)s", "%Y-%m-%dT%H:%M:%S")


class JournalFormatter(logging.Formatter):
    """Level and message, for a journal that keeps the time itself; each line begins with its priority (`<6>`)."""

    def __init__(self) -> None:
        super().__init__("%(levelname)-8s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; those of its traceback have its priority too."""
        priority = f"<{PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])}>"
        return "\n".join(priority + line for line in super().format(record).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def goes_to_journal(environment: Mapping[str, str], file: int) -> bool:
    """Whether an open file is the journal's, as `JOURNAL_STREAM` tells; stderr may have been redirected since."""
    try:
        found = os.fstat(file)
    except OSError:
        return False
    return environment.get(JOURNAL_VARIABLE) == f"{found.st_dev}:{found.st_ino}"


def formatter(log_format: str) -> logging.Formatter:
    """That of `--log-format`, or that of the journal where stderr leads there."""
    if log_format == "json":
        return JsonFormatter()
    is_journal = sys.__stderr__ is not None and goes_to_journal(os.environ, sys.__stderr__.fileno())
    return JournalFormatter() if is_journal else PlainFormatter()
