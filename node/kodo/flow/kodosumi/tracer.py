"""`Tracer`: how an app written for kodosumi tells what it does, asks people and reads files, on kodo's events.

| in the app | becomes |
|---|---|
| `tracer.markdown`, `text`, `html`, `result` | `result` |
| `tracer.action` | `action` |
| `tracer.debug`, `warning` | `log` |
| `tracer.lock` | a lock, with the form of its `@app.lock`; an answer that its `@app.lease` refuses is denied |
| `tracer.fs()`, below `in/` | the files of the run's inputs |
| `tracer.fs()`, below `out/` | the run's outputs |
"""

from __future__ import annotations

import asyncio
import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodo.flow._runtime.context import Demand
from kodo.flow._runtime.current import current
from kodo.flow._runtime.plain import plain
from kodo.flow.emit import action, emit, result
from kodo.flow.kodosumi import response
from kodo.flow.kodosumi.errors import InputsError
from kodo.flow.kodosumi.files import AsyncFileSystem, SyncFileSystem
from kodo.flow.locks import DeniedError, seconds
from kodo.p2p.errors import UsageError
from kodo.protocol.events import LOCK_VERDICT_S

if TYPE_CHECKING:
    from kodo.flow.kodosumi.entry import App

__all__ = ["Tracer", "call"]

LOCK_EXPIRES_S = 3 * 3600.0
"""Seconds that a lock stays open when the app does not say, as in kodosumi."""

_MAX_TITLE = 500


class Tracer:
    """What an app gets as its `tracer`; every method has a form for sync code, which ends in `_sync`."""

    def __init__(self, app: App | None = None, files: Mapping[str, Path] | None = None):
        self._app = app
        self._files = dict(files or {})

    def __reduce__(self) -> Any:
        # A Ray task may be given a tracer: it makes events there, but has neither forms nor files.
        return type(self), ()

    @property
    def fid(self) -> str | None:
        """The run's id; None outside of a node."""
        return current().fid

    async def markdown(self, *message: str) -> None:
        """Make a result of Markdown."""
        await result(response.Markdown("\n\n".join(message)).to_map())

    def markdown_sync(self, *message: str) -> None:
        """Make a result of Markdown."""
        result(response.Markdown("\n\n".join(message)).to_map())

    async def text(self, *message: str) -> None:
        """Make a result of text."""
        await result(response.Text(*message).to_map())

    def text_sync(self, *message: str) -> None:
        """Make a result of text."""
        result(response.Text(*message).to_map())

    async def html(self, *message: str) -> None:
        """Make a result of HTML."""
        await result(response.HTML(*message).to_map())

    def html_sync(self, *message: str) -> None:
        """Make a result of HTML."""
        result(response.HTML(*message).to_map())

    async def result(self, *message: Any) -> None:
        """Make a result of each value."""
        for each in message:
            await result(_shown(each))

    def result_sync(self, *message: Any) -> None:
        """Make a result of each value."""
        for each in message:
            result(_shown(each))

    async def action(self, *message: Any) -> None:
        """Make an action of each value."""
        for each in message:
            await action(_shown(each))

    def action_sync(self, *message: Any) -> None:
        """Make an action of each value."""
        for each in message:
            action(_shown(each))

    async def debug(self, *message: str) -> None:
        """Log text."""
        await _log("DEBUG", message)

    def debug_sync(self, *message: str) -> None:
        """Log text."""
        _log("DEBUG", message)

    async def warning(self, *message: str, exc_info: bool = False) -> None:
        """Log a warning, with the traceback of what is being handled if asked to."""
        await _log("WARNING", (*message, *([traceback.format_exc()] if exc_info else ())))

    def warning_sync(self, *message: str, exc_info: bool = False) -> None:
        """Log a warning, with the traceback of what is being handled if asked to."""
        _log("WARNING", (*message, *([traceback.format_exc()] if exc_info else ())))

    async def fs(self) -> AsyncFileSystem:
        """Return the run's files."""
        return AsyncFileSystem(self._files)

    def fs_sync(self) -> SyncFileSystem:
        """Return the run's files."""
        return SyncFileSystem(self._files)

    async def lock(self, name: str, data: Any = None, timeout: float | None = None) -> Any:
        """Ask by the form of `@app.lock(name)`; give what its `@app.lease` makes of the answer, or the answer.

        Raises:
            UsageError: the app has no such lock.
            LockExpiredError: nobody answered within `timeout` seconds.
        """
        form = self._app.locks.get(name) if self._app is not None else None
        if self._app is None or form is None:
            raise UsageError(f"there is no @app.lock({name!r}) in the app that launched this")
        made = call(form, data=data, request=self._app.request())
        model = await made if inspect.isawaitable(made) else made
        demand = _demand(name, model, self._lease(name, data), seconds(timeout or LOCK_EXPIRES_S))
        future = await asyncio.to_thread(current().lock, demand)
        return await asyncio.shield(asyncio.wrap_future(future))

    def _lease(self, name: str, data: Any) -> Callable[[Any], Any]:
        app = self._app
        assert app is not None

        def judge(answer: Any) -> Any:
            lease = app.leases.get(name)
            if lease is None:
                return answer
            given = call(lease, inputs=answer, data=data, request=app.request())
            return asyncio.run(_wait(given)) if inspect.isawaitable(given) else given

        return judge


def call(function: Callable[..., Any], **offered: Any) -> Any:
    """Call a function of an app with those of some arguments that it names."""
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in offered.items() if name in names})


def _demand(name: str, model: Any, judge: Callable[[Any], Any], expires_s: float) -> Demand:
    import jsonschema

    schema = model.schema()
    told = schema.get("description", "")
    title = re.search(r"^#+ +(.+)$", told, re.MULTILINE) or re.match(r"(.+)", told)
    if title is not None and title.start() == 0 and len(title[1]) <= _MAX_TITLE:  # it is shown above the form
        rest = told[title.end() :].strip()
        schema = {
            **{key: value for key, value in schema.items() if key != "description"},
            **({"description": rest} if rest else {}),
        }
    validator = jsonschema.Draft202012Validator(schema)

    def accept(candidate: Any) -> tuple[Any, Any]:
        errors = [error.message for error in validator.iter_errors(candidate)]
        if errors:
            raise DeniedError(errors)
        answer = model.values(candidate)
        try:
            return judge(answer), plain(answer)
        except InputsError as error:
            raise DeniedError(error.reasons()) from None

    return Demand(
        title=(title[1] if title else name)[:_MAX_TITLE],
        schema=schema,
        accept=accept,
        expires_s=expires_s,
        verdict_s=LOCK_VERDICT_S,
        default=None,
        has_default=False,
        roles=(),
        users=(),
    )


async def _wait(given: Any) -> Any:
    return await given


def _shown(value: Any) -> Any:
    return value.to_map() if isinstance(value, response.Response) else value


def _log(level: str, message: tuple[str, ...]) -> Any:
    return emit("log", {"level": level, "logger": "kodosumi", "text": "\n".join(map(str, message))})
