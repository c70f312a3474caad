"""What the adapters share: events that fit and hold no keys, tokens in pieces of bounded rate, the forms of locks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kodo.flow._runtime.context import Emitted
from kodo.flow.adapters.truncate import fit
from kodo.flow.emit import emit

__all__ = ["MAX_TITLE", "Deltas", "Span", "Teller", "approval_of", "environment_keys", "prompt_of", "prompt_schema"]

MAX_TITLE = 500
"""Characters of a lock's title."""

DELTA_SECONDS = 0.5
"""Text that a model writes is told at most as often as this, of each source."""

DELTA_CHARACTERS = 4000
"""As much text is told at once, however soon after the last."""

_HIDDEN = "[key]"
_LEAST_KEY = 6


def environment_keys() -> set[str]:
    """Return the keys in the environment: values of `*_API_KEY`, `*_TOKEN` and `*_SECRET`."""
    return {value for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN", "_SECRET"))}


class Teller:
    """Makes events of what a framework says, without the keys that it may use."""

    def __init__(self, keys: frozenset[str] = frozenset()):
        self._keys: list[str] = []
        self._known: set[tuple[str, Any]] = set()
        self.hide(*environment_keys(), *keys)

    def hide(self, *keys: Any) -> None:
        """Cut some more keys out of what is told from now on; what is too short to be one is passed over."""
        found = {key for key in keys if isinstance(key, str) and len(key) >= _LEAST_KEY}
        self._keys = sorted({*self._keys, *found}, key=len, reverse=True)

    def safe(self, value: Any) -> Any:
        """Return `value` without keys in its texts."""
        if isinstance(value, str):
            for key in self._keys:
                value = value.replace(key, _HIDDEN)
            return value
        if isinstance(value, dict):
            return {self.safe(name): self.safe(part) for name, part in value.items()}
        return [self.safe(part) for part in value] if isinstance(value, list) else value

    def say(self, event: str, /, **data: Any) -> Emitted:
        """Make an event of those data that are not None."""
        return emit(event, self.safe(fit({name: value for name, value in data.items() if value is not None})))

    def announce(self, event: str, name: str, /, **data: Any) -> None:
        """Report once who takes part: an `agent` or a `tool`."""
        if (event, name) not in self._known:
            self._known.add((event, name))
            self.say(event, name=name, **data)

    def span(self, **about: Any) -> Span:
        """Report that something starts, as an `action`."""
        return Span(self, about)


class Span:
    """Something that takes its time: an `action` when it starts and one when it ends, or an `action-error`."""

    def __init__(self, teller: Teller, about: Mapping[str, Any]):
        self._teller, self._about, self._started = teller, dict(about), time.monotonic()
        teller.say("action", **{**self._about, "phase": "start"})

    def end(self, **data: Any) -> None:
        """Report that it ended well."""
        self._teller.say("action", **{**self._about_the_end(), "phase": "end", **data})

    def fail(self, error: BaseException | str, **data: Any) -> None:
        """Report that it failed."""
        kind = None if isinstance(error, str) else type(error).__name__
        told = {"type": kind, "message": str(error)[:8000]}
        self._teller.say("action-error", **{**self._about_the_end(), **told, **data})

    def _about_the_end(self) -> dict[str, Any]:
        named = {name: value for name, value in self._about.items() if name != "arguments"}
        return {**named, "runtime_s": round(time.monotonic() - self._started, 6)}


class Deltas:
    """Text as a model writes it: `action` events with `phase: "text"`, of each source at a bounded rate."""

    def __init__(self, teller: Teller, clock: Callable[[], float] = time.monotonic):
        self._teller, self._clock = teller, clock
        self._guard = threading.Lock()
        self._texts: dict[tuple[tuple[str, Any], ...], tuple[str, float]] = {}

    def feed(self, text: str, /, **about: Any) -> None:
        """Take some more text of a source."""
        now, source = self._clock(), tuple(sorted(about.items()))
        with self._guard:
            held, since = self._texts.get(source, ("", now))
            held += text
            due = now - since >= DELTA_SECONDS or len(held) >= DELTA_CHARACTERS
            self._texts[source] = ("", now) if due else (held, since)
        if due:
            self._teller.say("action", **about, phase="text", text=held)

    def flush(self) -> None:
        """Report all that is held."""
        with self._guard:
            held, self._texts = self._texts, {}
        for source, (text, _) in held.items():
            if text:
                self._teller.say("action", **dict(source), phase="text", text=text)


def approval_of(
    tool: str, arguments: Any, *, about: str = "", decisions: tuple[str, ...] = ("approve", "edit", "reject")
) -> tuple[str, dict[str, Any]]:
    """Return the title and form of a lock by which a person decides about a call of a tool.

    Args:
        tool: its name.
        arguments: what it would be called with, which a person may edit.
        about: what a person should know.
        decisions: which are allowed, of `approve`, `edit`, `reject` and `answer`.
    """
    texts = {
        "reject": "why not, when rejected",
        "answer": "the answer to give in the place of the tool's",
    }
    properties: dict[str, Any] = {"decision": {"title": "Decision", "type": "string", "enum": list(decisions)}}
    if "edit" in decisions:
        editable = fit(arguments) if isinstance(arguments, dict) else {}
        properties["arguments"] = {
            "title": "Arguments",
            "type": "object",
            "default": editable,
            "description": "What the tool is called with, when edited.",
        }
    told = [texts[each] for each in decisions if each in texts]
    if told:
        sentence = "; ".join(told)
        properties["message"] = {
            "title": "Message",
            "type": "string",
            "description": f"{sentence[0].upper()}{sentence[1:]}.",
        }
    shown = "" if "edit" in decisions and isinstance(arguments, dict) else f"Arguments: {fit(arguments)}"
    description = "\n\n".join(part for part in (about, shown) if part)
    form = {"type": "object", "properties": properties, "required": ["decision"], "additionalProperties": False}
    return f"Call {tool}?"[:MAX_TITLE], {**form, **({"description": description} if description else {})}


def prompt_schema() -> dict[str, Any]:
    """Return the form of what takes one text."""
    prompt = {"title": "Prompt", "type": "string", "format": "textarea"}
    return {"type": "object", "properties": {"prompt": prompt}, "required": ["prompt"], "additionalProperties": False}


def prompt_of(inputs: Mapping[str, Any]) -> str:
    """Return inputs as one text: `prompt`, or the only input, or all of them with their names."""
    if "prompt" in inputs:
        return str(inputs["prompt"])
    if len(inputs) == 1:
        return str(next(iter(inputs.values())))
    return "\n".join(f"{name}: {value}" for name, value in inputs.items())
