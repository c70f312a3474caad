"""A flow that runs as plain Python, outside of a node: events are printed, locks are asked on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from kodo.flow._runtime.context import DONE, Context, Demand, Emitted, LockExpiredError
from kodo.flow._runtime.files import media_type_of, write_file
from kodo.flow._runtime.local_memory import LocalMemory
from kodo.protocol.flow_limits import check_output

__all__ = ["OUTPUT_FOLDER", "ConsoleContext"]

OUTPUT_FOLDER = "outputs"
"""Outputs are written below this folder of the working directory; one that is there is replaced."""


class ConsoleContext(Context):
    """Prints one readable line per event to stdout; outputs land in `./outputs`.

    Memories are empty when the process starts, and lie in a temporary folder that goes with it.
    """

    def __init__(self) -> None:
        self._memory = LocalMemory()

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        print(f"[{event}] {_line(event, data)}", flush=True)
        return DONE

    def lock(self, demand: Demand) -> Future[Any]:
        """Ask on the terminal; without one the default is taken.

        Raises (by the future):
            LockExpiredError: there is neither a terminal nor a default.
        """
        demand.event("")  # what a node would refuse is refused here too
        future: Future[Any] = Future()
        try:
            future.set_result(self._ask(demand))
        except (LockExpiredError, KeyboardInterrupt) as error:
            future.set_exception(error)
        return future

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        media_type = media_type or media_type_of(name)
        check_output(name, media_type)
        path = Path(OUTPUT_FOLDER, name)
        manifest = write_file(path, source)
        data = {
            "name": name,
            "size": manifest.size,
            "sha256": manifest.sha256.hex(),
            "media_type": media_type,
        }
        print(f"[output] {path} ({manifest.size} bytes)", flush=True)
        return data

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        return self._memory.ask(op, args)

    def forget(self) -> None:
        """Remove the memories from the disk; done by itself when the process ends."""
        self._memory.forget()

    def _ask(self, demand: Demand) -> Any:
        print(f"[lock] {demand.title}", flush=True)
        if not sys.stdin.isatty():
            if demand.has_default:
                return demand.default
            raise LockExpiredError(f"the lock {demand.title!r} has no default, and there is no terminal to ask on")
        fields = demand.schema.get("properties")
        hint = f" JSON with {', '.join(fields)}" if fields else ""
        while True:
            try:
                text = input(f"answer{hint}{' (empty: the default)' if demand.has_default else ''}: ")
            except EOFError:
                text = ""
            if not text and demand.has_default:
                return demand.default
            try:
                return demand.accept(_parse(text))[0]
            except ValueError as error:
                print(f"[unlock-deny] {error}", flush=True)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _line(event: str, data: dict[str, Any]) -> str:
    if event == "progress":
        percent = data.get("percent")
        parts = [f"{percent:g}%" if percent is not None else "", str(data.get("text") or "")]
        if "done" in data:
            parts.append(f"({data['done']}/{data.get('total', '?')})")
        return " ".join(part for part in parts if part)
    if list(data) == ["text"]:
        return str(data["text"])
    return json.dumps(data, ensure_ascii=False, default=str)
