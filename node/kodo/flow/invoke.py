"""Call a flow, whatever it is: function, coroutine, generator, class or object; every `yield` is a `result`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from kodo.flow.emit import result
from kodo.flow.load import LoadedFlow, callable_of

__all__ = ["invoke"]


def invoke(loaded: LoadedFlow, inputs: Mapping[str, Any]) -> Any:
    """Run the flow to its end in this thread and give its result; an async one gets an event loop of its own.

    A generator's result is what it returns, an async generator's is None.

    Raises:
        InputsError: the inputs do not fit the parameters.
        BaseException: whatever the flow raises.
    """
    form = loaded.form()
    target = loaded.target() if inspect.isclass(loaded.target) else loaded.target
    function, takes_map = callable_of(target)
    value = function(dict(inputs)) if form is None or takes_map else function(**form.arguments(inputs))
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
