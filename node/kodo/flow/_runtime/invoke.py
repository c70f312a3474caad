"""Call a flow, whatever it is: function, coroutine, generator, class or object; every `yield` is a `result`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from kodo.flow._runtime.load import LoadedFlow, callable_of
from kodo.flow.adapters import run_by_adapter
from kodo.flow.emit import result

__all__ = ["invoke"]


def invoke(loaded: LoadedFlow, inputs: Mapping[str, Any]) -> Any:
    """Run the flow to its end in this thread and give its result; an async one gets an event loop of its own.

    A generator's result is what it returns, an async generator's is None. A crew or graph, and one that a function
    returns, is run by its adapter.

    Raises:
        InputsError: the inputs do not fit the parameters.
        BaseException: whatever the flow raises.
    """
    target = loaded.target() if inspect.isclass(loaded.target) else loaded.target
    adapted = run_by_adapter(target)
    if adapted is not None:
        return adapted(target, inputs)
    form = loaded.form()
    function, takes_map = callable_of(target)
    if form is None or takes_map:
        return _finish(function(dict(inputs)))
    arguments = form.arguments(inputs)
    value = _finish(function(**arguments))
    adapted = run_by_adapter(value)
    if adapted is None:
        return value
    # A factory: what it makes is run with the inputs that it was given, its own defaults among them.
    given = inspect.signature(function).bind(**arguments)
    given.apply_defaults()
    return adapted(value, given.arguments)


def _finish(value: Any) -> Any:
    """Wait for what a call gave."""
    if inspect.isasyncgen(value):
        return asyncio.run(_drain(value))
    if inspect.isawaitable(value):
        return asyncio.run(_await(value))
    if inspect.isgenerator(value):
        while True:
            try:
                item = next(value)
            except StopIteration as end:
                return end.value
            result(item)
    return value


async def _await(value: Any) -> Any:
    return await value


async def _drain(items: Any) -> None:
    async for item in items:
        await result(item)
