"""A callable's return hint as JSON Schema, in the form in which results are stored."""

from __future__ import annotations

import inspect
import json
import typing
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import PydanticJsonSchemaWarning

from kodo.flow._runtime.form import hints_of, of_this_python
from kodo.flow._runtime.plain import plain
from kodo.flow.adapters import is_adapted

__all__ = ["returned_schema"]

_UNTOLD = (Any, object, inspect.Signature.empty)
_NO_VALUES = (AsyncGenerator, AsyncIterable, Iterator)
"""What such a function returns is read item by item, or not a result at all."""


def returned_schema(function: Callable[..., Any], limit: int) -> dict[str, Any]:
    """Return the JSON Schema of what a function's hint says that it returns; empty where nothing is known.

    A hint is a promise that Python does not hold anybody to, so one that has no schema is no error.

    Args:
        limit: characters of the schema as JSON; of a longer one nothing is told.
    """
    try:
        hint = _value_of(hints_of(function).get("return", Any))
        if hint in _UNTOLD or _is_run(hint):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
            # By names of fields: so models are dumped, unless they say otherwise.
            adapter: TypeAdapter[Any] = TypeAdapter(of_this_python(hint))
            schema: dict[str, Any] = plain(adapter.json_schema(mode="serialization", by_alias=False))
    except Exception:  # a class of the author's may raise anything when it is asked for its schema
        return {}
    return schema if len(json.dumps(schema)) <= limit else {}


def _value_of(hint: Any) -> Any:
    """Return the type of the result: what a coroutine gives, and what a generator returns at its end."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Awaitable, Coroutine) and arguments:
        return _value_of(arguments[-1])
    if origin is Generator and len(arguments) == 3:
        return arguments[2]
    return Any if (origin or hint) in (*_NO_VALUES, Generator, Awaitable, Coroutine) else hint


def _is_run(hint: Any) -> bool:
    """Return whether what is returned is run, as a crew that a function makes: the result is another."""
    return any(is_adapted(part) for part in (hint, *typing.get_args(hint)) if inspect.isclass(part))
