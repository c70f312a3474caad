"""Steps of agents for people: a tool, a model or an agent that starts and ends, as adapters of `kodo.flow` tell.

    Writer: lookup(word="star") → meaning of star (0.0 s)
    Writer: small, 12 + 2 tokens (1.4 s)

Everything shown comes from a node and a flow: it goes through `text` first and is never read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kodo.cli.text import compact, human_seconds, line

__all__ = ["Steps", "step_text"]

MAX_OPEN = 100
"""Steps that are under way, of which the start is remembered."""

_SUBJECTS = ("tool", "model", "name", "event", "node")
_MAX_TEXT = 500


def step_text(event: str, data: Mapping[str, Any]) -> str | None:
    """Return what the data of an `action` or `action-error` say about a step; None where they are about none."""
    subject = _subject(data)
    if subject is None:
        return None
    agent = data.get("agent")
    of = f"{line(agent, 60)}: " if isinstance(agent, str) and agent else ""
    head = f"{of}{line(subject, 100)}{_arguments(data)}"
    if event == "action-error":
        kind = f"{data['type']}: " if isinstance(data.get("type"), str) else ""
        return line(f"{head} failed: {kind}{data.get('message', '')}", _MAX_TEXT)
    match data.get("phase"):
        case "start":
            return line(f"{head} …", _MAX_TEXT)
        case "text":
            return line(f"{head}: {data.get('text', '')}", _MAX_TEXT)
        case "end":
            waits = data.get("deferred") is True
            return line(f"{head}{' waits for a decision' if waits else _outcome(data)}", _MAX_TEXT)
    return None


class Steps:
    """The steps that are under way, by what started: an end is shown together with its start's arguments."""

    def __init__(self) -> None:
        self._open: dict[str, list[Mapping[str, Any]]] = {}

    def take(self, event: str, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Read what is told of a step; return what is to be shown of it now, None at its start."""
        subject = _subject(data)
        if subject is None or data.get("phase") == "text":
            return data
        key = compact([subject, data.get("agent")])
        if event == "action" and data.get("phase") == "start":
            if sum(map(len, self._open.values())) < MAX_OPEN:
                self._open.setdefault(key, []).append(data)
                return None
            return data
        started = self._open.get(key, [])
        begun = started.pop() if started else {}
        if not started:
            self._open.pop(key, None)
        return {**({"arguments": begun["arguments"]} if "arguments" in begun else {}), **data}

    def under_way(self) -> list[str]:
        """Return what is under way, the newest last."""
        return [text for each in self._open.values() for data in each if (text := step_text("action", data))]


def _subject(data: Mapping[str, Any]) -> str | None:
    if "phase" not in data and "message" not in data:
        return None
    found = next((data[name] for name in _SUBJECTS if name in data), None)
    return found if isinstance(found, str) and found else None


def _arguments(data: Mapping[str, Any]) -> str:
    given = data.get("arguments")
    if isinstance(given, Mapping):
        return f"({', '.join(f'{line(name, 40)}={_value(value, 60)}' for name, value in list(given.items())[:10])})"
    return f"({_value(given, 120)})" if given not in (None, "") else ""


def _outcome(data: Mapping[str, Any]) -> str:
    output, usage = data.get("output"), data.get("usage")
    told = f" → {line(output, 200) if isinstance(output, str) else compact(output, 200)}" if output else ""
    if isinstance(usage, Mapping):
        counts = [usage.get(f"{side}_tokens", usage.get(f"{other}_tokens")) for side, other in _TOKENS]
        if all(isinstance(count, int) for count in counts):
            told += f", {counts[0]} + {counts[1]} tokens"
    seconds = data.get("runtime_s")
    return f"{told} ({human_seconds(seconds)})" if seconds is not None else told or " done"


_TOKENS = (("input", "prompt"), ("output", "completion"))
"""Of a model's usage: what it read and what it wrote, in either of two spellings."""


def _value(value: Any, most: int) -> str:
    return f'"{line(value, most)}"' if isinstance(value, str) else compact(value, most)
