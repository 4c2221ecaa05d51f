"""Ways in which the files of a buffer are damaged, each at random by a generator that repeats it.

Each is given the directory and, where it needs one, the directory of another buffer, and says what it did. What another
has taken away before is no reason to fail.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from harness.buffer_pages import FRAME_BYTES, LOG, LOG_HEADER_BYTES, MAIN, PAGE_BYTES

#: What SQLite's header takes up of the first page.
MAIN_HEADER_BYTES = 100
VERSION_AT = 60
#: What disks write at once.
SECTOR_BYTES = 512
MOST_BITS = 20
MOST_GARBAGE_BYTES = 300_000


@dataclass(frozen=True)
class Damaging:
    """One way. `needs_log`: it means something only where the buffer has a log."""

    name: str
    inflict: Callable[[Path, Path, Random], str]
    needs_log: bool = False


def _no_damage(directory: Path, other: Path, random: Random) -> str:
    return "nothing"


def _flip_bits(name: str) -> Callable[[Path, Path, Random], str]:
    def inflict(directory: Path, other: Path, random: Random) -> str:
        data = _read(directory / name)
        places = [random.randrange(8 * len(data)) for _ in range(random.randint(1, MOST_BITS)) if data]
        for place in places:
            data[place // 8] ^= 1 << place % 8
        return _write(directory / name, data, f"flipped bits {places}")

    return inflict


def _overwrite_page(name: str, *, is_zeroed: bool) -> Callable[[Path, Path, Random], str]:
    """A page as SQLite has it, or, since those of a log stand askew, as the disk has it."""

    def inflict(directory: Path, other: Path, random: Random) -> str:
        data = _read(directory / name)
        if not data:
            return f"{name} was empty"
        first, step = (
            random.choice([(0, PAGE_BYTES), (LOG_HEADER_BYTES, FRAME_BYTES)]) if name == LOG else (0, PAGE_BYTES)
        )
        begin = min(random.randrange(first, max(first + 1, len(data)), step), len(data) - 1)
        size = min(PAGE_BYTES, len(data) - begin)
        data[begin : begin + size] = bytes(size) if is_zeroed else random.randbytes(size)
        return _write(directory / name, data, f"overwrote {size} bytes at {begin}")

    return inflict


def _cut(name: str) -> Callable[[Path, Path, Random], str]:
    """Anywhere, or where a disk cuts."""

    def inflict(directory: Path, other: Path, random: Random) -> str:
        data = _read(directory / name)
        size = random.randrange(len(data) + 1)
        size -= size % random.choice([1, SECTOR_BYTES, PAGE_BYTES])
        return _write(directory / name, data[:size], f"cut to {size} of {len(data)} bytes")

    return inflict


def _destroy_header(name: str, most_bytes: int) -> Callable[[Path, Path, Random], str]:
    def inflict(directory: Path, other: Path, random: Random) -> str:
        data = _read(directory / name)
        size = min(len(data), random.randint(16, most_bytes))
        data[:size] = random.choice([bytes(size), random.randbytes(size)])
        return _write(directory / name, data, f"destroyed the first {size} bytes")

    return inflict


def _remove(name: str) -> Callable[[Path, Path, Random], str]:
    def inflict(directory: Path, other: Path, random: Random) -> str:
        (directory / name).unlink(missing_ok=True)
        return f"{name}: gone"

    return inflict


def _give_foreign_log(directory: Path, other: Path, random: Random) -> str:
    return _write(directory / LOG, _read(other / LOG), f"that of {other.name}")


def _replace(directory: Path, other: Path, random: Random) -> str:
    size = random.randint(1, MOST_GARBAGE_BYTES)
    text = (b"No SQLite file, but what somebody saved here.\r\n" * (size // 40 + 1))[:size]
    return _write(
        directory / MAIN, bytearray(random.choice([text, random.randbytes(size)])), f"{size} bytes, no SQLite"
    )


def _give_newer_version(directory: Path, other: Path, random: Random) -> str:
    """As a newer ODS would leave it; or the number alone, which is all that is left to do where SQLite cannot."""
    version = random.randint(2, 1000)
    if random.random() < 0.5:
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(directory / MAIN)) as db:
            db.execute("ALTER TABLE batches ADD COLUMN newer TEXT")
            db.execute(f"PRAGMA user_version = {version}")
            return f"{MAIN}: version {version}, with a new column"
    data = _read(directory / MAIN)
    data[VERSION_AT : VERSION_AT + 4] = version.to_bytes(4) if len(data) >= MAIN_HEADER_BYTES else b""
    return _write(directory / MAIN, data, f"version {version}")


def _empty(name: str) -> Callable[[Path, Path, Random], str]:
    def inflict(directory: Path, other: Path, random: Random) -> str:
        return _write(directory / name, bytearray(), "emptied")

    return inflict


def _spoil_shared_memory(directory: Path, other: Path, random: Random) -> str:
    size = random.choice([1, 100, 32768, 65536])
    return _write(directory / f"{MAIN}-shm", bytearray(random.randbytes(size)), f"{size} bytes of garbage")


def _read(path: Path) -> bytearray:
    return bytearray(path.read_bytes()) if path.exists() else bytearray()


def _write(path: Path, data: bytearray, what: str) -> str:
    path.write_bytes(data)
    return f"{path.name}: {what}"


FOREIGN_LOG = Damaging("foreign log", _give_foreign_log)
NO_DAMAGE = Damaging("no damage", _no_damage)
DAMAGES = (
    Damaging("bits flipped", _flip_bits(MAIN)),
    Damaging("bits flipped in the log", _flip_bits(LOG), needs_log=True),
    Damaging("a page zeroed", _overwrite_page(MAIN, is_zeroed=True)),
    Damaging("a page of the log zeroed", _overwrite_page(LOG, is_zeroed=True), needs_log=True),
    Damaging("a page of garbage", _overwrite_page(MAIN, is_zeroed=False)),
    Damaging("a page of garbage in the log", _overwrite_page(LOG, is_zeroed=False), needs_log=True),
    Damaging("cut", _cut(MAIN)),
    Damaging("log cut", _cut(LOG), needs_log=True),
    Damaging("header destroyed", _destroy_header(MAIN, MAIN_HEADER_BYTES)),
    Damaging("header of the log destroyed", _destroy_header(LOG, LOG_HEADER_BYTES), needs_log=True),
    Damaging("log missing", _remove(LOG), needs_log=True),
    Damaging("file missing", _remove(MAIN), needs_log=True),
    FOREIGN_LOG,
    Damaging("no SQLite file", _replace),
    Damaging("newer version", _give_newer_version),
    Damaging("file empty", _empty(MAIN)),
    Damaging("garbage as -shm", _spoil_shared_memory),
)
