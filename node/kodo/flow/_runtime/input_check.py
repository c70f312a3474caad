"""`@flow(check=…)`: the author's own judgement of inputs, before a launch.

`python -m kodo.flow._runtime.input_check` judges once, in a process of its own, since it runs the author's code.
stdin: `{"roots": [folder], "entry": str, "inputs": map}`; stdout: `{"places": [{at, message}]}`, or `{"failed": str}`
when the check itself failed. What it prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from pydantic import ValidationError

from kodo.flow._runtime.context import DONE, Context, Demand, Emitted
from kodo.flow._runtime.current import install
from kodo.flow._runtime.form import InputsError, places_of, reasons_of
from kodo.flow._runtime.kept_code import use_kept_code
from kodo.flow._runtime.load import LoadedFlow, load_entry
from kodo.flow._runtime.sources import enter_scope
from kodo.p2p.errors import UsageError
from kodo.protocol.uploads import wants_files

__all__ = ["MAX_MEMORY_BYTES", "CheckFailedError", "InputCheck", "main"]

MAX_MEMORY_BYTES = 2 << 30
"""Of the process that judges."""

MAX_PLACES, MAX_MESSAGE_CHARACTERS = 20, 300
"""As many faults, and as much of each, as a node names of its own."""

Places = list[dict[str, str]]


class CheckFailedError(Exception):
    """A check ended with another error than `ValueError`, or returned something else than what is wrong."""


class InputCheck:
    """What a flow's author has its inputs judged by, if there is anything.

    Raises:
        UsageError: it names what is no input, or a file.
    """

    def __init__(self, loaded: LoadedFlow, schema: Mapping[str, Any]):
        """Read which inputs the check takes; `schema` is that of the flow."""
        self._loaded = loaded
        self._check = loaded.definition.check
        self._form = loaded.form() if self._check is not None else None
        self._properties: Mapping[str, Any] = schema.get("properties") or {}
        self._files: list[str] = []
        self._names = self._taken(schema) if self._check is not None else []

    def faults(self, inputs: Mapping[str, Any]) -> Places:
        """Return what is wrong with inputs, in the types of the flow too; blocks.

        Raises:
            CheckFailedError: the check itself failed.
        """
        if self._check is None:
            return []
        try:
            arguments = self._arguments(inputs)
        except InputsError as error:
            return _bounded(error.places)
        try:
            said = self._check(**arguments)
            if inspect.isawaitable(said):
                said = asyncio.run(_settled(said))
            return self._places(said)
        except ValueError as error:
            if isinstance(error, ValidationError):  # of a model that the check made
                return _bounded([self._known(place) for place in places_of(error, arguments)])
            return self._places(reasons_of(error))
        except CheckFailedError:
            raise
        except (Exception, SystemExit) as error:
            raise CheckFailedError(f"{type(error).__name__}: {error}{_line_of(error)}"[:1000]) from error

    def _arguments(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self._form is not None:
            judged = {name: value for name, value in inputs.items() if name not in self._files}
            known = frozenset(self._form.names) - set(self._files)
            filled = self._form.only(known).filled(judged)
            return {name: filled[name] for name in self._names}
        defaults = {
            name: self._properties[name]["default"]
            for name in self._names
            if "default" in self._properties.get(name, {})
        }
        return {**defaults, **{name: value for name, value in inputs.items() if name in self._names}}

    def _taken(self, schema: Mapping[str, Any]) -> list[str]:
        """Return the inputs that the check is called with."""
        assert self._check is not None
        known = self._form.names if self._form is not None else list(self._properties)
        files = self._files = [name for name in known if _leads_to_files(self._properties.get(name), schema)]
        try:
            parameters = list(inspect.signature(self._check).parameters.values())
        except (TypeError, ValueError) as error:
            raise UsageError(f"its check cannot be called: {error}") from None
        names: list[str] = []
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                names += [name for name in known if name not in files and name not in names]
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise UsageError(f"its check takes {parameter}, which cannot be given by name")
            elif parameter.name in files:
                raise UsageError(f"its check takes the file {parameter.name!r}; files reach the flow alone")
            elif parameter.name in known:
                names.append(parameter.name)
            elif parameter.default is parameter.empty:
                raise UsageError(f"its check takes {parameter.name!r}, which is no input; there are: {known}")
        return names

    def _places(self, said: Any) -> Places:
        if said is None or said is True:
            return []
        if said is False:
            return [{"at": "", "message": "not accepted"}]
        if isinstance(said, str):
            return _bounded([{"at": "", "message": said}] if said else [])
        if isinstance(said, Mapping):
            return _bounded(
                [self._place(str(name), message) for name, messages in said.items() for message in _texts(messages)]
            )
        return _bounded([{"at": "", "message": message} for message in _texts(said)])

    def _known(self, place: dict[str, str]) -> dict[str, str]:
        """Return a place in the inputs; what a model of the check's own has besides is about the whole."""
        known = self._form.names if self._form is not None else self._properties
        name = place["at"][1:].partition("/")[0]
        return place if name in known or not name else {"at": "", "message": f"{name}: {place['message']}"}

    def _place(self, name: str, message: str) -> dict[str, str]:
        known = self._form.names if self._form is not None else self._properties
        if name.startswith("/") or not name:
            return {"at": name, "message": message}
        if name not in known:
            return {"at": "", "message": f"{name}: {message}"}
        return {"at": "/" + name.replace("~", "~0").replace("/", "~1"), "message": message}


class _NoRun(Context):
    """What emitters find in a check: there is no run yet."""

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        """Drop an event."""
        return DONE

    def lock(self, demand: Demand) -> Future[Any]:
        """Refuse a lock."""
        raise UsageError("a check cannot ask questions: there is no run yet")

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        """Refuse an output."""
        raise UsageError("a check cannot write outputs: there is no run yet")

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        """Refuse memories and delegation."""
        raise UsageError(f"a check cannot use {op}: there is no run yet")


async def _settled(said: Any) -> Any:
    return await said


def _texts(said: Any) -> list[str]:
    if said is None or said == "":
        return []
    if isinstance(said, str):
        return [said]
    if isinstance(said, (list, tuple, set, frozenset)) and all(isinstance(each, str) for each in said):
        return [each for each in said if each]
    raise CheckFailedError(f"it returned {type(said).__name__}; return a map of names to what is wrong with each")


def _bounded(places: Sequence[Mapping[str, str]]) -> Places:
    return [
        {"at": place["at"][:MAX_MESSAGE_CHARACTERS], "message": place["message"][:MAX_MESSAGE_CHARACTERS]}
        for place in places[:MAX_PLACES]
    ]


def _leads_to_files(field: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a field, or what it refers to, has a place for a file."""
    todo, seen = [field], {""}
    while todo:
        part = todo.pop()
        if wants_files(part):
            return True
        names = set(re.findall(r"#/(?:\$defs|definitions)/([^\"]+)", json.dumps(part, default=str))) - seen
        seen |= names
        todo += [schema.get(place, {}).get(name) for place in ("$defs", "definitions") for name in names]
    return False


def _line_of(error: BaseException) -> str:
    trace = traceback.extract_tb(error.__traceback__)
    return f" ({os.path.basename(trace[-1].filename)}:{trace[-1].lineno})" if trace else ""


def _judge(request: Mapping[str, Any]) -> dict[str, Any]:
    install(_NoRun())
    enter_scope([str(root) for root in request["roots"]])
    if request.get("code"):
        use_kept_code(str(request["code"]))
    try:
        loaded = load_entry(str(request["entry"]))
        return {"places": InputCheck(loaded, loaded.inputs_schema()).faults(request["inputs"])}
    except CheckFailedError as error:
        return {"failed": str(error)}
    except (Exception, SystemExit) as error:  # user code, as when it is imported
        return {"failed": f"{type(error).__name__}: {error}{_line_of(error)}"[:1000]}


def main() -> None:
    """Read the request from stdin, write the answer to stdout."""
    import resource

    request = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)  # what user code prints, by whatever way, must not mix with the answer
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = sys.stderr
    for kind, most in ((resource.RLIMIT_DATA, MAX_MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
    text = json.dumps(_judge(request), ensure_ascii=True)
    with os.fdopen(answer, "w") as file:
        file.write(text)
    os._exit(0)  # threads that user code left running must not keep this process alive


if __name__ == "__main__":
    main()
