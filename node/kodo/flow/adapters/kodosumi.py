"""kodosumi: an `@app.enter` of an unchanged app as a flow.

Its form is the entry's `Model`. A run calls the entry, which judges its inputs and gives a `Launch`, and then what
that names, with a `Tracer`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from kodo.flow._runtime.current import current
from kodo.flow._runtime.form import InputsError as WrongInputsError
from kodo.flow.adapters import is_crew_class, run_by_adapter
from kodo.flow.emit import emit
from kodo.flow.kodosumi.entry import Entry, Launch
from kodo.flow.kodosumi.errors import InputsError
from kodo.flow.kodosumi.response import Response
from kodo.flow.kodosumi.tracer import Tracer, call
from kodo.p2p.errors import NotFoundError, UsageError

__all__ = ["faults", "run", "schema"]


def schema(entry: Entry) -> dict[str, Any]:
    """Return the JSON Schema of an entry's form."""
    return entry.model.schema()


def run(entry: Entry, inputs: Mapping[str, Any]) -> Any:
    """Run an entry, and what it launches, to the end.

    Raises:
        InputsError: the entry refuses the inputs.
        UsageError: it launches nothing, or what cannot be run.
        Exception: whatever it raises.
    """
    launch = _settled(_entered(entry, inputs))
    if not isinstance(launch, Launch):
        raise UsageError(f"{entry.function.__name__} gave no Launch(request, …), so there is nothing to run")
    about = {"summary": launch.summary, "description": launch.description}
    if any(about.values()):
        emit("config", {name: text for name, text in about.items() if text})
    target = _resolved(launch.entry_point)
    if is_crew_class(target):
        target = target()
    adapted = run_by_adapter(target)
    if adapted is not None:
        return adapted(target, _as_map(launch.inputs))
    if not callable(target):
        raise UsageError(
            f"{launch.entry_point} of a Launch is a {type(target).__name__}, neither a function nor a crew"
        )
    tracer = Tracer(entry.app, entry.model.files(inputs))
    return _result(_settled(call(target, inputs=launch.inputs, tracer=tracer)))


def faults(entry: Entry, inputs: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what an entry finds wrong with inputs, by field, before a launch; what it launches is not run.

    An entry that fails in another way is left to the run, which tells it.
    """
    try:
        _settled(call(entry.function, inputs=entry.model.values(inputs), request=entry.app.request()))
    except InputsError as error:
        return error.by_field()
    except Exception:  # of the app's
        return {}
    return {}


def _entered(entry: Entry, inputs: Mapping[str, Any]) -> Any:
    try:
        return _settled(call(entry.function, inputs=entry.model.values(inputs), request=entry.app.request()))
    except InputsError as error:
        raise WrongInputsError("; ".join(error.reasons())).with_traceback(error.__traceback__) from None


def _settled(value: Any) -> Any:
    return asyncio.run(_wait(value)) if inspect.isawaitable(value) else value


async def _wait(value: Any) -> Any:
    return await value


def _resolved(point: Any) -> Any:
    if not isinstance(point, str):
        return point
    module, _, name = point.partition(":") if ":" in point else point.rpartition(".")
    try:
        target: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            advice = "let `roots` of the scope file name the folder that has it"
            raise NotFoundError(f"a Launch names {point!r}, and there is no module {error.name}: {advice}") from None
        raise
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise NotFoundError(f"a Launch names {point!r}, and the module {module} has no {part}") from None
    return target


def _as_map(inputs: Any) -> Mapping[str, Any]:
    if hasattr(inputs, "model_dump"):
        inputs = inputs.model_dump()
    return inputs if isinstance(inputs, Mapping) else {}


def _result(value: Any) -> Any:
    if not isinstance(value, Response):
        return value
    if value.kind == "html":
        return {"output": current().write_output("final.html", value.body, "text/html")["name"]}
    return value.body
