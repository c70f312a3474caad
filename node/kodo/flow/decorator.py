"""`@flow` marks what a node can offer; `@event` makes events of any function's calls."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar, overload

from kodo.flow._runtime.current import current
from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import UsageError
from kodo.protocol.texts import several

__all__ = ["FLOWS_ATTRIBUTE", "FLOW_ATTRIBUTE", "FOLDER", "FlowDefinition", "event", "flow"]

FLOW_ATTRIBUTE = "__kodo_flow__"
"""Where the decorator leaves its definition."""

FLOWS_ATTRIBUTE = "__kodo_flows__"
"""A method of what holds several flows, as an app: it yields `(name, flow)`, a name being where in it the flow is."""

MAX_ARGUMENT_CHARACTERS = 2000
"""Longer arguments are cut in the events that `@event` makes."""

FOLDER = "folder"
"""Of `outputs`: all files that a run leaves in its folder are outputs."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class FlowDefinition:
    """What an author says of a flow; empty text: not said.

    Attributes:
        name: shown to people; may change.
        author: a mail address, usually.
        organization: who stands behind it.
        release: a version.
        description: one line; the docstring's first by default.
        published: ISO date of this release; a date without a time zone is UTC.
        tags: words to find it by.
        resources: what it asks of Ray: `num_cpus`, `num_gpus`, `memory_mb`, `runtime_env`.
        outputs: `folder` makes outputs of all files that a run leaves in its working folder.
        check: judges inputs before a launch; see `flow`.

    Raises:
        UsageError: `outputs` is neither empty nor `folder`.
    """

    name: str = ""
    author: str = ""
    organization: str = ""
    release: str = ""
    description: str = ""
    published: str | date = ""
    tags: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    outputs: str = ""
    check: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if self.outputs not in ("", FOLDER):
            raise UsageError(
                f"outputs={self.outputs!r} of a flow is not known; write outputs={FOLDER!r} or leave it out"
            )
        object.__setattr__(self, "tags", several(self.tags))


@overload
def flow(target: F, /) -> F: ...


@overload
def flow(
    *,
    name: str = "",
    author: str = "",
    organization: str = "",
    release: str = "",
    description: str = "",
    published: str | date = "",
    tags: str | Iterable[str] = (),
    resources: Mapping[str, Any] | None = None,
    outputs: str = "",
    check: Callable[..., Any] | None = None,
) -> Callable[[F], F]: ...


def flow(
    target: Any = None,
    /,
    *,
    name: str = "",
    author: str = "",
    organization: str = "",
    release: str = "",
    description: str = "",
    published: str | date = "",
    tags: str | Iterable[str] = (),
    resources: Mapping[str, Any] | None = None,
    outputs: str = "",
    check: Callable[..., Any] | None = None,
) -> Any:
    """Mark a function, generator or class as a flow. It stays what it was: call it as plain Python to test it.

    Hints and defaults of its parameters make the form that its users fill in. With `outputs="folder"` all files that
    a run leaves in its working folder are outputs; without, a `log` event names them, and they go with the run.

    `check` is called before a launch with those parameters that it names itself, as the flow would get them. It
    returns a map of names to what is wrong with each (a text or several), or a text about the whole; it may raise
    `ValueError` instead, and be async. Nothing, None or True accepts the inputs. Nodes call it in a process of its
    own, within 20 s and 2 GiB, and refuse the launch when it fails. It gets no files.
    """

    def mark(function: F) -> F:
        lines = (inspect.getdoc(function) or "").strip().splitlines()
        definition = FlowDefinition(
            name=name or function.__name__,
            author=author,
            organization=organization,
            release=release,
            description=description or (lines[0] if lines else ""),
            published=published,
            tags=several(tags),
            resources=dict(resources or {}),
            outputs=outputs,
            check=check,
        )
        setattr(function, FLOW_ATTRIBUTE, definition)
        return function

    return mark if target is None else mark(target)


@overload
def event(target: F, /) -> F: ...


@overload
def event(*, name: str = ...) -> Callable[[F], F]: ...


def event(target: Any = None, /, *, name: str = "") -> Any:
    """Make an `action` event when the function starts and one when it ends, or an `action-error` when it raises.

    `{name, phase: "start", arguments}` and `{name, phase: "end", runtime_s}`. Works on sync and async functions and
    generators, on methods (class and static ones too) and on any other callable, as a `functools.partial`.
    """

    def wrap(function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(wrap(function.__func__))
        plain_one = inspect.isroutine(function) or isinstance(function, (type, functools.partial))
        called = function if plain_one else type(function).__call__
        title = name or _title(function)
        signature = _signature(function)

        if inspect.isasyncgenfunction(called):

            @_like(function)
            async def iterate_async(*args: Any, **kwargs: Any) -> Any:
                with _Span(title, signature, args, kwargs):
                    # A generator's own end, also by `aclose`, is the end of what it wraps.
                    async with contextlib.aclosing(function(*args, **kwargs)) as items:
                        async for item in items:
                            yield item

            return iterate_async

        if inspect.isgeneratorfunction(called):

            @_like(function)
            def iterate(*args: Any, **kwargs: Any) -> Any:
                with _Span(title, signature, args, kwargs):
                    return (yield from function(*args, **kwargs))

            return iterate

        if inspect.iscoroutinefunction(called):

            @_like(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with _Span(title, signature, args, kwargs):
                    return await function(*args, **kwargs)

            return call_async

        @_like(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _Span(title, signature, args, kwargs):
                return function(*args, **kwargs)

        return call

    return wrap if target is None else wrap(target)


def _like(function: Any) -> Callable[[Any], Any]:
    """Make a wrapper look like what it wraps; a callback may be an object without a name."""
    return functools.wraps(
        function, assigned=[name for name in functools.WRAPPER_ASSIGNMENTS if hasattr(function, name)]
    )


def _title(function: Any) -> str:
    if isinstance(function, functools.partial):
        return _title(function.func)
    return str(getattr(function, "__qualname__", type(function).__qualname__)).replace("<locals>.", "")


def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some written in C have none
        return None


class _Span:
    """The events of one call."""

    def __init__(self, name: str, signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self._name = name
        self._started = time.monotonic()
        try:
            arguments = signature.bind(*args, **kwargs).arguments if signature else {}
        except TypeError:  # the call itself is about to say so
            arguments = {}
        shown = {key: _short(value) for key, value in arguments.items() if key not in ("self", "cls")}
        current().emit("action", {"name": name, "phase": "start", "arguments": shown})

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        data: dict[str, Any] = {"name": self._name, "runtime_s": round(time.monotonic() - self._started, 6)}
        if error is None or isinstance(error, GeneratorExit):  # whoever iterated had enough
            current().emit("action", {**data, "phase": "end"})
        else:
            current().emit("action-error", {**data, "type": type(error).__name__, "message": str(error)[:10_000]})


def _short(value: Any) -> Any:
    value = plain(value)
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= MAX_ARGUMENT_CHARACTERS else text[:MAX_ARGUMENT_CHARACTERS] + "…"
