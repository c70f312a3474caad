"""Agent frameworks, instrumented from outside: what they run becomes events without a change to their code.

An adapter's module is imported only when something of its framework is run, so none has to be installed.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

__all__ = ["is_adapted", "is_crew_class", "run_by_adapter", "run_later_by_adapter", "schema_by_adapter"]

_ADAPTERS: Mapping[tuple[str, str], str] = {
    ("agents", "AgentBase"): "kodo.flow.adapters.openai_agents",
    ("burr", "Application"): "kodo.flow.adapters.burr",
    ("crewai", "BaseAgent"): "kodo.flow.adapters.crewai",
    ("crewai", "Crew"): "kodo.flow.adapters.crewai",
    ("crewai", "Flow"): "kodo.flow.adapters.crewai",
    ("crewai", "StreamingOutputBase"): "kodo.flow.adapters.crewai",
    ("kodo", "Entry"): "kodo.flow.adapters.kodosumi",
    ("langchain_core", "Runnable"): "kodo.flow.adapters.runnable",
    ("langgraph", "Pregel"): "kodo.flow.adapters.langgraph",
    ("langgraph", "StateGraph"): "kodo.flow.adapters.langgraph",
    ("pydantic_ai", "AbstractAgent"): "kodo.flow.adapters.pydantic_ai",
    ("workflows", "Workflow"): "kodo.flow.adapters.llama_index",
}
"""Package and class of what an adapter runs. It is known by these names, so that nothing is imported to find out."""


def run_by_adapter(target: Any) -> Callable[[Any, Mapping[str, Any]], Any] | None:
    """Return what runs an object of an agent framework with a map of inputs; None for any other object."""
    module = _module_for(target)
    if module is None:
        return None
    run: Callable[[Any, Mapping[str, Any]], Any] = importlib.import_module(module).run
    return run


def run_later_by_adapter(target: Any) -> Callable[[Any, Mapping[str, Any]], Coroutine[Any, Any, Any]] | None:
    """Return what runs such an object in the event loop that there is; None where its adapter has one of its own."""
    module = _module_for(target)
    later: Callable[[Any, Mapping[str, Any]], Coroutine[Any, Any, Any]] | None = (
        getattr(importlib.import_module(module), "run_later", None) if module is not None else None
    )
    return later


def schema_by_adapter(target: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of such an object's inputs, as far as it says; None when nothing is known of them."""
    module = _module_of(target) if inspect.isclass(target) else _module_for(target)
    if module is None:
        return None
    schema: dict[str, Any] | None = importlib.import_module(module).schema(target)
    return schema


def is_crew_class(target: Any) -> bool:
    """Return whether something is a class with `@CrewBase`, of which `crew()` makes a crew."""
    return inspect.isclass(target) and getattr(target, "is_crew_class", False) is True


def is_adapted(kind: type) -> bool:
    """Return whether objects of a class are run by an adapter."""
    return _module_of(kind) is not None


def _module_for(target: Any) -> str | None:
    return _module_of(type(target))


def _module_of(kind: type) -> str | None:
    if is_crew_class(kind):
        return "kodo.flow.adapters.crewai"
    for base in kind.__mro__:
        found = _ADAPTERS.get((base.__module__.partition(".")[0], base.__name__))
        if found:
            return found
    return None
