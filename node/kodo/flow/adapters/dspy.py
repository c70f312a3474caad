"""DSPy: what its modules, models and tools do, by its own callbacks, wherever a flow runs them.

| in DSPy | becomes |
|---|---|
| a module that no other one runs, an evaluation or an optimizer starts and ends | `action` with its class's `name` |
| a request to a model starts and ends | `action` with `model`, at the end with the tokens used |
| a tool is called | `action` with `tool`, its arguments and what it gave |
| one of them fails | `action-error` |

Prompts and answers of models are not told. Callbacks of the flow's author stay in use.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kodo.flow.adapters.telling import Span, Teller

__all__ = ["Listener", "instrument"]

MAX_SPANS = 2000
"""What is told of one run at most: an optimizer calls its program thousands of times."""


@contextmanager
def instrument() -> Iterator[None]:
    """Report what DSPy does within the block."""
    active = importlib.import_module("dspy.utils.callback_context").ACTIVE_CALL_ID
    kind: Any = type(importlib.import_module("dspy").settings)
    listener, get = Listener(active.get), kind.get

    def get_and_listen(self: Any, key: str, default: Any = None) -> Any:
        found = get(self, key, default)
        return [*(found or ()), listener] if key == "callbacks" else found

    kind.get = get_and_listen
    try:
        yield
    finally:
        kind.get = get


class Listener:
    """A callback of DSPy. Called in any thread.

    Args:
        parent: gives the id of the call within which one starts.
    """

    def __init__(self, parent: Any, teller: Teller | None = None):
        self._parent = parent
        self._teller = teller or Teller()
        self._guard = threading.Lock()
        self._open: dict[str, tuple[Span | None, str, Any]] = {}  # by call: what is told, the outermost module, whose
        self._told = 0

    def __getattr__(self, name: str) -> Any:
        """Return what takes a kind of call of which nothing is told."""
        if name.startswith("on_"):
            return self._pass if name.endswith("_start") else self._passed
        raise AttributeError(name)

    def _pass(self, call_id: str, instance: Any, inputs: Any) -> None:
        self._begin(call_id, instance, self._outermost(), {})

    def _passed(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._end(call_id, exception)

    def on_module_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        """Take a module; one within another is told of by what it asks and calls."""
        outermost = self._outermost()
        name = type(instance).__name__
        self._begin(call_id, instance, outermost or name, {} if outermost else {"name": name})

    on_evaluate_start = on_compile_start = on_module_start

    def on_lm_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        """Take a request to a model."""
        options = getattr(instance, "kwargs", None)
        if isinstance(options, dict):
            self._teller.hide(
                *(value for name, value in options.items() if name.endswith(("key", "token", "secret")))
            )
        agent = self._outermost()
        self._begin(call_id, instance, agent, {"model": _model_of(instance), "agent": agent})

    def on_tool_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        """Take a call of a tool."""
        given = inputs.get("kwargs", inputs)
        agent = self._outermost()
        about = {"tool": str(getattr(instance, "name", "tool")), "arguments": given, "agent": agent}
        self._begin(call_id, instance, agent, about)

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Take the end of a module."""
        self._end(call_id, exception)

    on_evaluate_end = on_compile_end = on_module_end

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Take the end of a request."""
        _, _, instance = self._open.get(call_id, (None, "", None))
        self._end(call_id, exception, usage=_usage_of(instance))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Take the end of a call."""
        self._end(call_id, exception, output=outputs)

    def _outermost(self) -> str:
        _, name, _ = self._open.get(self._parent() or "", (None, "", None))
        return name

    def _begin(self, call_id: str, instance: Any, outermost: str, about: Mapping[str, Any]) -> None:
        with self._guard:
            told = bool(about) and self._told < MAX_SPANS
            self._told += told
        span = self._teller.span(**{key: value for key, value in about.items() if value != ""}) if told else None
        self._open[call_id] = (span, outermost, instance)

    def _end(self, call_id: str, exception: BaseException | None, **data: Any) -> None:
        span, _, _ = self._open.pop(call_id, (None, "", None))
        if span is None:
            return
        if exception is not None:
            span.fail(exception)
        else:
            span.end(**data)


def _model_of(instance: Any) -> str:
    """Return a model's name, without the provider by which it is asked."""
    name = str(getattr(instance, "model", type(instance).__name__))
    return name.partition("/")[2] or name


def _usage_of(instance: Any) -> dict[str, Any] | None:
    """Return the tokens of the latest request; one from DSPy's cache used none."""
    history = getattr(instance, "history", None)
    usage = history[-1].get("usage") if isinstance(history, list) and history else None
    kept = ("prompt_tokens", "completion_tokens", "total_tokens")
    found = (
        {name: usage[name] for name in kept if isinstance(usage.get(name), int)} if isinstance(usage, dict) else {}
    )
    return found or None
