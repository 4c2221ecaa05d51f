"""Reads a snapshot that may lack anything and may hold anything.

What is missing, or is not what it should be, is None (or empty), so that an older or newer ODS can be looked at. Text
is made harmless here, in the one way by which it gets out: what a pod says must not move a cursor, colour or ring.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

#: A larger number than any that ODS counts or any time that it tells is damage.
LIMIT = 2**63


def clean(text: str) -> str:
    """Foreign text as a terminal may have it: nothing invisible, and every space a plain one."""
    return "".join([c if c.isprintable() else _visible(c) for c in text])


def _visible(character: str) -> str:
    is_space = unicodedata.category(character) == "Zs"
    return " " if is_space else character.encode("unicode_escape").decode()


class Part:
    """A JSON object, read with care."""

    def __init__(self, value: object) -> None:
        self._value: Mapping[str, Any] = value if isinstance(value, Mapping) else {}

    def __bool__(self) -> bool:
        return bool(self._value)

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def part(self, name: str) -> "Part":
        """The object of this name; an empty one where there is none."""
        return Part(self._value.get(name))

    def parts(self, name: str) -> list["Part"]:
        """The objects in the list of this name."""
        return [Part(value) for value in self._list(name) if isinstance(value, Mapping)]

    def number(self, name: str) -> float | None:
        """The number of this name, an int where it is one."""
        value = self._value.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if -LIMIT < value < LIMIT else None

    def flag(self, name: str) -> bool | None:
        """The truth of this name."""
        value = self._value.get(name)
        return value if isinstance(value, bool) else None

    def text(self, name: str) -> str:
        """The text of this name, harmless; empty where there is none."""
        value = self._value.get(name)
        return clean(value) if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        """The texts in the list of this name, harmless."""
        return [clean(value) for value in self._list(name) if isinstance(value, str)]

    def _list(self, name: str) -> list[Any]:
        value = self._value.get(name)
        return value if isinstance(value, list) else []
