"""What is fuzzed: one target for each parser of bytes and texts that come from elsewhere.

A target makes inputs from a seed and reads them. A reader takes an input, or refuses it by an error that it names;
anything else it raises is a fault, and so is work that grows faster than the input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["VECTORS", "Difference", "Target", "all_targets", "hexes", "vectors"]

VECTORS = Path(__file__).parents[1] / "vectors"


class Difference(AssertionError):
    """Two ways to read the same input do not give the same."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        name: as it is shown and asked for.
        make: gives an input.
        start: gives what reads inputs: all of one batch, so that a state may build up.
        refuses: the errors by which an input may be refused.
        steps: bytecodes that a byte of an input may cost.
        free: bytecodes that an input may cost whatever its length: a handshake, a schema of schemas.
        grows: whether inputs are bytes or texts of which a piece may be repeated to see what length costs.
    """

    name: str
    make: Callable[[Random], Any]
    start: Callable[[], Callable[[Any], object]]
    refuses: tuple[type[Exception], ...] = (ValueError,)
    steps: int = 300
    free: int = 20_000
    grows: bool = True


def vectors(name: str) -> Any:
    """Read the golden vectors of one format."""
    return json.loads((VECTORS / f"{name}.json").read_text())


def hexes(value: Any) -> list[bytes]:
    """Give every text in `value` that is bytes in hexadecimal, at any depth."""
    return list(_hexes(value))


def _hexes(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _hexes(each)
    elif isinstance(value, list):
        for each in value:
            yield from _hexes(each)
    elif isinstance(value, str) and value and len(value) % 2 == 0:
        try:
            yield bytes.fromhex(value)[: 8 << 10]
        except ValueError:
            return


def all_targets() -> list[Target]:
    """Give every target, those of the wire first."""
    from tests.fuzz import text_targets, transport_targets, value_targets, wire_targets

    modules = (wire_targets, transport_targets, text_targets, value_targets)
    return [target for module in modules for target in module.targets()]
