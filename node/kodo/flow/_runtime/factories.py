"""Functions that make what is run: a crew, a graph, a chain. How they are known, and what they are called with.

| parameters | called with | the form is |
|---|---|---|
| none | nothing | that of what it makes |
| `config`, a `RunnableConfig` or without a hint | what of the inputs is config | that of what it makes |
| `inputs`, a map or without a hint | all inputs | that of what it makes from none |
| any others | each by its name, and `config` as above | that of these parameters |

A factory may be async, and a function with `@contextmanager` or `@asynccontextmanager`: what it makes is run within.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kodo.flow._runtime.current import fid
from kodo.flow._runtime.form import hints_of
from kodo.flow.adapters import is_adapted, schema_by_adapter
from kodo.p2p.errors import UsageError

__all__ = ["Factory", "config_names", "config_of", "factory_of", "is_context", "schema_made"]

_YIELDED = (AsyncIterator, Iterator)
_CONTEXTLIB = contextlib.contextmanager.__code__.co_filename


@dataclass(frozen=True, slots=True)
class Factory:
    """A function, and those of its parameters that its caller does not fill in one by one.

    Attributes:
        function: the function.
        config: the names of parameters that take the config.
        inputs: the name of the parameter that takes all inputs; empty: there is none.
    """

    function: Callable[..., Any]
    config: tuple[str, ...] = ()
    inputs: str = ""

    def make(self, inputs: Mapping[str, Any]) -> Any:
        """Call it: what it makes is yet to be run."""
        given: dict[str, Any] = {name: config_of(inputs) for name in self.config}
        if self.inputs:
            given[self.inputs] = dict(inputs)
        return self.function(**given)


def factory_of(target: Any) -> Factory | None:
    """Return a function as a factory, when all its parameters are such as nobody fills in; None for anything else.

    Raises:
        UsageError: it wants what only the server of its framework has.
    """
    if not inspect.isroutine(target) or inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        return None
    try:
        hints, parameters = hints_of(target), inspect.signature(target).parameters
    except (NameError, TypeError, ValueError):
        return None
    says = _is_made(hints.get("return"), _is_managed(target))
    config = config_names(target)
    rest = [name for name in parameters if name not in config]
    takes = rest[0] if says and rest == ["inputs"] and _is_map(hints.get("inputs", dict)) else ""
    if takes:
        rest = []
    is_one = says or bool(config) or _is_managed(target)
    return Factory(target, config, takes) if is_one and not rest else None


def config_names(function: Any) -> tuple[str, ...]:
    """Return the parameters of a function that take the config.

    Raises:
        UsageError: one takes what only the server of its framework has.
    """
    try:
        hints, parameters = hints_of(function), inspect.signature(function).parameters
    except (NameError, TypeError, ValueError):
        return ()
    for name in parameters:
        if _is_named(hints.get(name), "ServerRuntime", "_ServerRuntimeBase", "_ExecutionRuntime"):
            raise UsageError(
                f"{getattr(function, '__qualname__', function)}() takes a ServerRuntime, which only LangGraph's own "
                "server has: take `config: RunnableConfig`, or no parameter"
            )
    managed = _is_managed(function)
    unhinted = managed or _is_made(hints.get("return"), managed)
    return tuple(
        name
        for name, each in parameters.items()
        if _is_named(hints.get(name), "RunnableConfig")
        or (name == "config" and each.annotation is each.empty and unhinted)
    )


def config_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of some inputs is the config of a graph, as its framework has it."""
    said = inputs.get("configurable")
    configurable = dict(said) if isinstance(said, Mapping) else {}
    thread = inputs.get("thread") or fid()
    if thread:
        configurable["thread_id"] = str(thread)
    limit = inputs.get("recursion_limit")
    return {"configurable": configurable, "tags": [], "metadata": {}, **({"recursion_limit": limit} if limit else {})}


def is_context(value: Any) -> bool:
    """Return whether a value is what a function with `@contextmanager` or `@asynccontextmanager` gives."""
    return type(value).__module__ == "contextlib" and hasattr(value, "gen")


def schema_made(factory: Factory) -> dict[str, Any] | None:
    """Return the form of what a factory makes; None where it cannot make it here, as without its model's key."""
    with contextlib.suppress(Exception):
        made = factory.make({})
        if inspect.isawaitable(made) or hasattr(made, "__aenter__"):
            return asyncio.run(_schema_made_later(made))
        if is_context(made):
            with made as held:
                return schema_by_adapter(held)
        return schema_by_adapter(made)
    return None


async def _schema_made_later(made: Any) -> dict[str, Any] | None:
    if inspect.isawaitable(made):
        made = await made
    if is_context(made) and hasattr(made, "__aenter__"):
        async with made as held:
            return schema_by_adapter(held)
    return schema_by_adapter(made)


def _is_made(hint: Any, managed: bool) -> bool:
    """Return whether a hint of what a function gives, or yields to `with`, says that an adapter runs it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if managed and inspect.isclass(origin) and issubclass(origin, _YIELDED) and arguments:
        return _is_made(arguments[0], False)
    made = origin or hint
    return inspect.isclass(made) and is_adapted(made)


def _is_managed(function: Any) -> bool:
    inner = getattr(function, "__wrapped__", None)
    made = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
    return made and getattr(function, "__code__", None) is not None and function.__code__.co_filename == _CONTEXTLIB


def _is_map(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return origin is Any or (inspect.isclass(origin) and issubclass(origin, Mapping))


def _is_named(hint: Any, *names: str) -> bool:
    parts = [hint, typing.get_origin(hint), *typing.get_args(hint)]
    return any(getattr(part, "__name__", None) in names for part in parts)
