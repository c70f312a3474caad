"""What calls of DSPy become, as its callbacks are told of them; DSPy itself is not needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kodo.flow.adapters import dspy
from kodo.flow.adapters.dspy import Listener
from kodo.testing import run

KEY = "sk-canary-5a7d0e92"


class ReAct:
    """A module."""


class Predict:
    """A module within it."""


LM = SimpleNamespace(
    model="openai/small",
    kwargs={"api_key": KEY, "temperature": 0},
    history=[{"usage": {"prompt_tokens": 3, "x": None}}],
)
LOOKUP = SimpleNamespace(name="lookup")


def told(*calls: tuple[str, Any, str, Any, BaseException | None], **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of nested calls: kind, caller, id, result and error of each."""

    def flow() -> None:
        within: list[str] = []
        listener = Listener(lambda: within[-1] if within else None)
        for kind, instance, call_id, _, _ in calls:
            inputs = {"kwargs": {"word": f"star {KEY}"}}
            getattr(listener, f"on_{kind}_start")(call_id=call_id, instance=instance, inputs=inputs)
            within.append(call_id)
        for kind, _, call_id, output, error in reversed(calls):
            getattr(listener, f"on_{kind}_end")(call_id=call_id, outputs=output, exception=error)

    return [(event.event, event.data) for event in run(flow).events]


def test_models_and_tools_are_told_with_the_outermost_module_and_without_prompts_or_keys() -> None:
    module, inner = ("module", ReAct(), "1", "an answer", None), ("module", Predict(), "2", "an answer", None)
    events = told(module, inner, ("adapter_format", None, "3", "a prompt", None), ("lm", LM, "4", ["a text"], None))
    about = {"model": "small", "agent": "ReAct"}
    assert [({**data, "runtime_s": 0} if "runtime_s" in data else data) for _, data in events] == [
        {"name": "ReAct", "phase": "start"},
        {**about, "phase": "start"},
        {**about, "phase": "end", "usage": {"prompt_tokens": 3}, "runtime_s": 0},
        {"name": "ReAct", "phase": "end", "runtime_s": 0},
    ]
    events = told(module, ("lm", LM, "2", [], None), ("tool", LOOKUP, "3", f"said {KEY}", None))
    assert events[2][1] == {"tool": "lookup", "arguments": {"word": "star [key]"}, "agent": "ReAct", "phase": "start"}
    assert KEY not in str(events)


def test_what_fails_is_told_at_each_level() -> None:
    error = ValueError("no such word")
    events = told(("module", ReAct(), "1", None, error), ("tool", LOOKUP, "2", None, error))
    assert [(event, data.get("tool"), data.get("message")) for event, data in events[2:]] == [
        ("action-error", "lookup", "no such word"),
        ("action-error", None, "no such word"),
    ]


def test_of_one_run_so_many_calls_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dspy, "MAX_SPANS", 2)
    events = told(*(("tool", LOOKUP, str(number), None, None) for number in range(5)))
    assert len(events) == 4
