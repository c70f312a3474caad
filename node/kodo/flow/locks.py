"""Locks: a flow asks a human, or a peer, and goes on with the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from kodo.flow._runtime.context import Demand
from kodo.flow._runtime.current import current
from kodo.flow._runtime.pending import Pending
from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import UsageError
from kodo.protocol.secrets import asks_secrets
from kodo.protocol.texts import several
from kodo.settings.units import parse_seconds

__all__ = ["DeniedError", "acceptor", "lock", "seconds"]

_NOTHING: Any = object()


class DeniedError(ValueError):
    """A candidate that is not accepted; `reasons` say why."""

    def __init__(self, reasons: str | Iterable[str]):
        self.reasons = [str(reason) for reason in several(reasons)]
        super().__init__("; ".join(self.reasons))


def seconds(duration: float | str | timedelta) -> float:
    """Read a duration: seconds, a `timedelta`, or text as `90s`, `5m`, `18h`, `7d`.

    Raises:
        UsageError: it is not a positive duration.
    """
    said = duration.total_seconds() if isinstance(duration, timedelta) else parse_seconds(duration)
    value = float(said) if isinstance(said, (int, float)) else -1.0
    if not 0 < value < 1e9:
        raise UsageError(f"{duration!r} is not a duration; write seconds, or text such as 90s, 5m, 18h or 7d")
    return value


def lock(
    title: str,
    answer: Any = bool,
    *,
    default: Any = _NOTHING,
    expires: float | str | timedelta = "18h",
    verdict: float | str | timedelta = 60,
    roles: str | Iterable[str] = (),
    users: str | Iterable[str] = (),
    check: Callable[[Any], Any] | None = None,
) -> Any:
    """Ask for an answer and wait for it; awaited in async flows, a plain blocking call in sync ones.

    Args:
        title: what the human reads.
        answer: what is asked for: a pydantic model or any other type, or a JSON Schema as a map. It makes the form.
        default: the answer when nobody gives one in time. Without it the run ends with `fatal` then.
        expires: how long the lock stays open: seconds or text as `18h`.
        verdict: how long `check` may take for one candidate.
        roles: a role, or several of which one may answer; users: a user, or several, who may answer. Neither: whoever
            may answer locks of this run.
        check: called with each candidate, in a thread of its own: gives the reasons against it (text or several);
            nothing, None or True accepts it.

    Returns:
        The accepted answer, as the type asked for; in an async flow by awaiting. A wait that is cancelled leaves
        the lock open.

    Raises:
        LockExpiredError: nobody answered in time, and there is no default.
    """
    schema, accept = acceptor(answer, check)
    if default is not _NOTHING and asks_secrets(schema):
        raise UsageError("a lock that asks for secrets has no default: everybody who sees the lock would see it")
    demand = Demand(
        title=title,
        schema=schema,
        accept=accept,
        expires_s=seconds(expires),
        verdict_s=seconds(verdict),
        default=None if default is _NOTHING else default,
        has_default=default is not _NOTHING,
        roles=several(roles),
        users=several(users),
    )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return current().lock(demand).result()
    return Pending(f"lock({title!r})", lambda: _wait(demand))


async def _wait(demand: Demand) -> Any:
    future = await asyncio.to_thread(current().lock, demand)
    return await asyncio.shield(asyncio.wrap_future(future))


def acceptor(answer: Any, check: Callable[[Any], Any] | None) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Return the JSON Schema of an answer, and what makes a candidate the answer and its JSON-like form.

    Args:
        answer, check: as of `lock`. What is not accepted raises `ValueError`.
    """
    if isinstance(answer, dict):
        validate = _schema_validator(answer)
        schema = answer

        def dump(value: Any) -> Any:
            return plain(value)
    else:
        from pydantic import TypeAdapter

        adapter: TypeAdapter[Any] = TypeAdapter(answer)
        schema = adapter.json_schema()
        validate = adapter.validate_python

        def dump(value: Any) -> Any:
            return adapter.dump_python(value, mode="json")

    def accept(candidate: Any) -> tuple[Any, Any]:
        value = validate(candidate)
        reasons = check(value) if check is not None else None
        if reasons is False:
            raise DeniedError("not accepted")
        if reasons and reasons is not True:
            raise DeniedError(reasons)
        return value, dump(value)

    return schema, accept


def _schema_validator(schema: dict[str, Any]) -> Callable[[Any], Any]:
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"the lock's JSON Schema is not valid: {error.message}") from error
    validator = jsonschema.Draft202012Validator(schema)

    discreet = asks_secrets(schema)

    def validate(candidate: Any) -> Any:
        found = list(validator.iter_errors(candidate))
        # A message repeats the value, which may be a secret.
        errors = [f"it does not fit: {error.validator}" if discreet else error.message for error in found]
        if errors:
            raise DeniedError(errors)
        return candidate

    return validate
