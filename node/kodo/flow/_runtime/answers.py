"""What agent frameworks give at the end of a run, as what was asked for: their answer, without how it came about.

Their own objects hold the whole conversation, with the instructions of agents: that is in the events, as far as it is
meant to be seen, and no part of a result. They are known by the names of their classes, so that nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from kodo.p2p.errors import UsageError

__all__ = ["answer_of"]


_NO_ANSWER: Any = object()


def _first(*names: str) -> Callable[[Any], Any]:
    """Return what gives the first of some attributes that has a value; other versions of a package may have none."""

    def of(value: Any) -> Any:
        found = [getattr(value, name) for name in names if hasattr(value, name)]
        return next((each for each in found if each is not None), None) if found else _NO_ANSWER

    return of


def _of_agents(value: Any) -> Any:
    if value.final_output is None and getattr(value, "is_complete", True) is False:
        raise UsageError("its agents have not run to their end: read its `stream_events()` to the end first")
    return value.final_output


def _said(value: Any) -> Any:
    return getattr(value, "structured_response", None) or str(value)


_ANSWERS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("agents", "RunResultBase"): _of_agents,
    ("crewai", "CrewOutput"): _first("pydantic", "json_dict", "raw"),
    ("crewai", "LiteAgentOutput"): _first("pydantic", "raw"),
    ("crewai", "TaskOutput"): _first("pydantic", "json_dict", "raw"),
    ("dspy", "Example"): lambda value: dict(value.items()),
    ("llama_index", "AgentOutput"): _said,
    ("pydantic_ai", "AgentRunResult"): _first("output"),
}
"""By package and class, also of a base class: a prediction of DSPy is an example."""


def answer_of(value: Any, names: Collection[tuple[str, str]]) -> tuple[Any] | None:
    """Return the answer that an object of these classes holds, by itself; None of any other object.

    Raises:
        UsageError: it is of what has not run to its end.
    """
    for each in names:
        if each in _ANSWERS:
            answer = _ANSWERS[each](value)
            return None if answer is _NO_ANSWER else (answer,)
    return None
