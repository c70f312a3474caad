"""Figures, their references and the table that shows both."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Series:
    """One quantity, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{_round(self.median)} ({_round(min(self.values))}–{_round(max(self.values))})"


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Row:
    """A figure of ours and, where there is one, its reference and how many times better ours is."""

    figure: str
    unit: str
    ours: Series
    reference: Series | None = None
    reference_name: str = ""
    higher_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, as the median over the pairs that were measured together."""
        if self.reference is None:
            return None
        pairs = zip(self.ours.values, self.reference.values, strict=True)
        return statistics.median(a / b if self.higher_is_better else b / a for a, b in pairs)


@dataclass
class Table:
    """One table; `notes` say what was measured and what is missing."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "rows": [
                {
                    "figure": row.figure,
                    "unit": row.unit,
                    "ours": row.ours.values,
                    "reference": row.reference.values if row.reference else None,
                    "reference_name": row.reference_name,
                    "times_better": row.ratio,
                }
                for row in self.rows
            ],
            "notes": self.notes,
        }

    def to_text(self) -> str:
        heads = ["figure", "ours", "reference", "times better"]
        lines = [
            [
                f"{row.figure} [{row.unit}]",
                str(row.ours),
                f"{row.reference} {row.reference_name}" if row.reference else "–",
                f"{row.ratio:.2f}" if row.ratio is not None else "–",
            ]
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [heads, *lines]
        ]
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}; median (min–max)"
        return "\n".join([f"\n{self.title}: {machine}", *shown, *self.notes])


Measurement = Callable[[], Awaitable[Sequence[float]]]


async def interleave(rounds: int, *measurements: Measurement) -> list[list[Series]]:
    """Take each measurement once unmeasured and then `rounds` times, in turn: A B A B …

    Returns:
        For each measurement, a series for each value that it gives.
    """
    taken: list[list[Sequence[float]]] = [[] for _ in measurements]
    for turn in range(rounds + 1):
        for values, measurement in zip(taken, measurements, strict=True):
            result = await measurement()
            if turn:
                values.append(result)
    return [[Series(tuple(column)) for column in zip(*values, strict=True)] for values in taken]
