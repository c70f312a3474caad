"""Call a flow, whatever it is: function, coroutine, generator, class or object; every `yield` is a `result`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator, Mapping
from typing import Any

from kodo.flow._runtime.factories import config_names, config_of, is_context
from kodo.flow._runtime.load import LoadedFlow, callable_of
from kodo.flow._runtime.plain import MAX_DEPTH
from kodo.flow.adapters import run_by_adapter, run_later_by_adapter
from kodo.flow.adapters.instrument import instrumented
from kodo.flow.decorator import FLOW_ATTRIBUTE
from kodo.flow.emit import result
from kodo.p2p.errors import UsageError

__all__ = ["invoke"]

MAX_TURNS = 20
"""How often what a flow gave may have to be run before it is a value: a coroutine that gives a crew, and so on."""


def invoke(loaded: LoadedFlow, inputs: Mapping[str, Any]) -> Any:
    """Run the flow to its end in this thread and give its result; an async one gets an event loop of its own.

    A generator's result is what it returns, an async generator's is None. A crew or graph, and one that a function
    returns, is run by its adapter. Coroutines in maps and lists that a flow returns are awaited.

    Raises:
        InputsError: the inputs do not fit the parameters.
        BaseException: whatever the flow raises.
    """
    with instrumented():
        return _invoke(loaded, inputs)


def _invoke(loaded: LoadedFlow, inputs: Mapping[str, Any]) -> Any:
    target = loaded.target() if inspect.isclass(loaded.target) else loaded.target
    adapted = run_by_adapter(target)
    if adapted is not None:
        return adapted(target, inputs)
    factory = loaded.factory()
    if factory is not None:
        return _run_to_the_end(factory.make(inputs), inputs)
    form = loaded.form()
    function, takes_map = callable_of(target)
    if form is None or takes_map:
        return _run_to_the_end(function(dict(inputs)), inputs)
    if not form.names and inputs and inspect.isroutine(target) and not hasattr(target, FLOW_ATTRIBUTE):
        # Nobody could give it these: they are for what it makes, as a function that a `langgraph.json` names.
        return _run_to_the_end(function(), inputs)
    arguments = form.arguments(inputs)
    config = {name: config_of(inputs) for name in config_names(function)}
    value = function(**arguments, **config)
    # A factory: what it makes is run with the inputs that it was given, its own defaults among them.
    given = inspect.signature(function).bind(**arguments, **config)
    given.apply_defaults()
    return _run_to_the_end(value, {name: part for name, part in given.arguments.items() if name not in config})


def _run_to_the_end(value: Any, inputs: Mapping[str, Any]) -> Any:
    """Run what a call gave, until it is a value: what has not run yet is no result."""
    for _ in range(MAX_TURNS):
        adapted = run_by_adapter(value)
        if adapted is not None:
            value = adapted(value, inputs)
        elif is_context(value):
            if hasattr(value, "__aenter__"):
                return asyncio.run(_run_within(value, inputs))
            with value as made:
                return _run_to_the_end(made, inputs)
        elif inspect.isgenerator(value):
            value = _yielded(value)
        elif inspect.isawaitable(value) or hasattr(type(value), "__aiter__"):
            value = asyncio.run(_settle(value))
        else:
            return asyncio.run(_settle_within(value, 0)) if _holds_unrun(value, 0) else value
    raise UsageError(
        f"the flow gave a {type(value).__name__} that has not run, and so on {MAX_TURNS} times: return data"
    )


async def _run_within(context: Any, inputs: Mapping[str, Any]) -> Any:
    """Run what an async context manager gives, while it is open: in its event loop, where the adapter can."""
    async with context as made:
        adapted = run_later_by_adapter(made)
        if adapted is not None:
            return await adapted(made, inputs)
        return await asyncio.to_thread(_run_to_the_end, made, inputs)


def _yielded(items: Generator[Any, Any, Any]) -> Any:
    """Make a result event of each item; gives what the generator returns."""
    while True:
        try:
            item = next(items)
        except StopIteration as end:
            return end.value
        result(item)


async def _settle(value: Any) -> Any:
    """Wait for what async code gave; what it holds belongs to this event loop."""
    while inspect.isawaitable(value):
        value = await value
    if hasattr(type(value), "__aiter__") and run_by_adapter(value) is None:
        async for item in value:
            await result(item)
        return None
    return await _settle_within(value, 0)


def _holds_unrun(value: Any, depth: int) -> bool:
    if isinstance(value, (dict, list, tuple)) and depth < MAX_DEPTH:
        return any(_holds_unrun(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))
    return depth > 0 and (inspect.isawaitable(value) or hasattr(type(value), "__aiter__"))


async def _settle_within(value: Any, depth: int) -> Any:
    """Return maps and lists with coroutines in them awaited, and asynchronous iterators read into lists."""
    if not _holds_unrun(value, depth):
        return value
    if isinstance(value, dict):
        return {key: await _settle_within(part, depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [await _settle_within(part, depth + 1) for part in value]
    while inspect.isawaitable(value):
        value = await value
    if hasattr(type(value), "__aiter__"):
        value = [item async for item in value]
    return await _settle_within(value, depth)
