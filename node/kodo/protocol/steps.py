"""Work that a value from elsewhere causes, counted: what takes too long is refused, however small the value. Pure.

A step is about half of what jsonschema needs to hold one value against one schema: 5 µs. What is much cheaper than
that (a key looked up, a piece of a text searched) is counted by the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kodo.p2p.errors import KodoError

__all__ = ["CHEAP", "MAX_STEPS", "Steps", "TooComplexError"]

MAX_STEPS = 100_000
"""Steps that one value may cause: about a second. A list of 45,000 numbers still passes."""

CHEAP = 16
"""How many keys or elements that are only looked at make a step."""

_TEXT = 256
"""How many characters do."""


class TooComplexError(KodoError):
    """Judging a value took more steps than it may. `str()` holds nothing of the value."""

    def __init__(self) -> None:
        super().__init__(
            "checking this against its form would take too long: it has too many parts, or fits the form in too many"
            " ways; make it smaller, or send large data as a file"
        )


class Steps:
    """What is left of the steps that one value may cause."""

    __slots__ = ("left",)

    def __init__(self, most: int = MAX_STEPS):
        self.left = most

    def spend(self, steps: int = 1) -> None:
        """Count steps, before they are made.

        Raises:
            TooComplexError: more are made than may be.
        """
        self.left -= steps
        if self.left < 0:
            raise TooComplexError

    def look(self, parts: int) -> None:
        """Count so many parts that are looked at, each in no time to speak of."""
        self.spend(1 + parts // CHEAP)

    def read(self, characters: int) -> None:
        """Count characters of a text that is searched or written."""
        self.spend(1 + characters // _TEXT)

    def write(self, value: Any) -> None:
        """Count what it takes to compare a value as a whole, or to write it as text; ends as soon as the steps do."""
        todo = [value]
        while todo:
            self.look(len(todo))
            parts: list[Any] = []
            for each in todo:
                if isinstance(each, Mapping):
                    parts += each
                    parts += each.values()
                elif isinstance(each, (list, tuple)):
                    parts += each
                elif isinstance(each, (str, bytes)) and len(each) > _TEXT:
                    self.read(len(each))
            todo = parts
