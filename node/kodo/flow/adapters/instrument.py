"""Instrument agent frameworks for as long as a flow runs: wherever it uses them, also deep in a function.

A framework that is imported already is instrumented at once, any other when the flow imports it. Nothing is imported
to find out.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from kodo.flow.emit import emit

__all__ = ["instrumented"]

_FRAMEWORKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "agents": ("openai_agents", ("set_trace_processors", "RunState")),
    "crewai": ("crewai", ("Crew", "Flow")),
    "dspy": ("dspy", ("Module", "Predict", "settings")),
    "langgraph.pregel": ("langgraph_watch", ("Pregel",)),
    "opentelemetry.trace": ("genai_spans", ("set_tracer_provider", "TracerProvider")),
    "pydantic_ai": ("pydantic_ai", ("Agent",)),
    "workflows": ("llama_index", ("Workflow", "step", "catch_error")),
}
"""By module: the adapter, and names that tell the framework from an author's own module called like it."""

_open = contextlib.ExitStack()
"""What the newest block has instrumented."""


@contextlib.contextmanager
def instrumented() -> Iterator[None]:
    """Instrument what is imported, and what will be within the block.

    A block that has not ended is over once the next one begins: a flow that hangs in a test would else be told of
    together with those after it.
    """
    global _open
    _open.close()
    with contextlib.ExitStack() as stack:
        _open = stack
        finder = _Finder(stack)
        stack.callback(sys.meta_path.remove, finder)
        sys.meta_path.insert(0, finder)
        for name in _FRAMEWORKS:
            if name in sys.modules:
                _instrument(stack, name, sys.modules[name])
        yield


def _instrument(stack: contextlib.ExitStack, name: str, module: ModuleType) -> None:
    adapter, names = _FRAMEWORKS[name]
    if not all(hasattr(module, each) for each in names):
        return
    try:
        instrument: Any = importlib.import_module(f"kodo.flow.adapters.{adapter}").instrument
        stack.enter_context(instrument())
    except Exception as error:  # another version of the framework: the flow can run without being told of
        text = f"what {name} does cannot be shown: {type(error).__name__}: {error}"
        emit("log", {"level": "WARNING", "logger": "kodo.flow", "text": text})


class _Finder(MetaPathFinder):
    """Notices the import of frameworks."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack
        self._looking: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _FRAMEWORKS or name in self._looking:
            return None
        self._looking.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(name)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            execute(module)
            _instrument(self._stack, name, module)

        loader.exec_module = exec_module  # of this import's own loader
        return spec
