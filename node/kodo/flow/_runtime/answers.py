"""What agent frameworks give at the end of a run, as what was asked for: their answer, without how it came about.

Their own objects hold the whole conversation, with the instructions of agents: that is in the events, as far as it is
meant to be seen, and no part of a result. They are known by the names of their classes, so that nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

__all__ = ["answer_of"]


def _first(*names: str) -> Callable[[Any], Any]:
    """Return what gives the first of some attributes that has a value."""

    def of(value: Any) -> Any:
        found = [getattr(value, name, None) for name in names]
        return next((each for each in found if each is not None), None)

    return of


def _said(value: Any) -> Any:
    return value.structured_response or str(value)


_ANSWERS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("agents", "RunResultBase"): _first("final_output"),
    ("crewai", "CrewOutput"): _first("pydantic", "json_dict", "raw"),
    ("crewai", "LiteAgentOutput"): _first("pydantic", "raw"),
    ("crewai", "TaskOutput"): _first("pydantic", "json_dict", "raw"),
    ("dspy", "Example"): lambda value: dict(value.items()),
    ("llama_index", "AgentOutput"): _said,
    ("pydantic_ai", "AgentRunResult"): _first("output"),
}
"""By package and class, also of a base class: a prediction of DSPy is an example."""


def answer_of(value: Any, names: Collection[tuple[str, str]]) -> tuple[Any] | None:
    """Return the answer that an object of these classes holds, by itself; None of any other object."""
    for each in names:
        if each in _ANSWERS:
            return (_ANSWERS[each](value),)
    return None
