"""A run's events for people as plain lines; `live` has what a terminal shows.

Everything shown comes from a node and a flow: it goes through `text` first and is never read as markup.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from kodo.cli.steps import step_text
from kodo.cli.text import compact, human_bytes, human_seconds, human_time, line, lines
from kodo.protocol.events import Event, RunView

__all__ = [
    "Display",
    "JsonDisplay",
    "PlainDisplay",
    "describe",
    "progress_text",
    "shared_with",
    "state_rows",
]


_MESSAGE = frozenset(["additional_kwargs", "response_metadata", "role"])
"""What maps with a `content` have that are messages of LangChain or of OpenAI."""
_MAX_DEPTH = 6
_MAX_ITEMS = 50


def describe(event: Event) -> str:
    """Return what an event says, for people, on one line (the texts of `stdout`, `log` and results may have more)."""
    data = event.data
    match event.event:
        case "progress":
            return progress_text(data)
        case "log":
            return lines(f"{data.get('level', '')} {data.get('logger', '')}: {data.get('text', '')}")
        case "stdout" | "stderr":
            return lines(data.get("text", ""))
        case "lock":
            return line(f"{data.get('title', '')} ({data.get('lid', '')})")
        case "candidate":
            return line(f"{compact(data.get('answer'))} by {data.get('by', '')}")
        case "unlock":
            return compact(data.get("answer"))
        case "unlock-deny":
            reasons = data.get("reasons")
            return line("; ".join(map(str, reasons)) if isinstance(reasons, (list, tuple)) else "")
        case "output":
            return line(f"{data.get('name', '')} ({human_bytes(data.get('size'))})")
        case "final":
            return f"after {human_seconds(data.get('runtime_s'))}"
        case "fatal":
            where = f" ({data['where']})" if data.get("where") else ""
            return line(f"{data.get('type', '')}: {data.get('message', '')}{where}")
        case "wait":
            return line(data.get("text", ""))
        case "flow":
            return line(f"{data.get('name', '')} {data.get('release', '')}")
        case "share":
            return line(f"{data.get('sid', '')}  {_terms(data)}")
        case "action" | "action-error" if (told := step_text(event.event, data)) is not None:
            return told
        case _:
            text = data.get("text")
            return lines(text) if isinstance(text, str) and len(data) == 1 else _facts(data)


def _facts(data: Mapping[str, Any]) -> str:
    """Return data of no known form: its text first, then names and values, those within values as JSON."""
    pairs = ", ".join(f"{name} {compact(_brief(value), 200)}" for name, value in data.items() if name != "text")
    if "text" not in data:
        return line(pairs, 500)
    text = compact(data["text"], 300)
    return line(f"{text} ({pairs})" if pairs else text, 500)


def _brief(value: Any, depth: int = 0) -> Any:
    """Return a value in which messages of models are what they say, or the tools that they call."""
    if depth == _MAX_DEPTH:
        return value
    if isinstance(value, (list, tuple)):
        return [_brief(each, depth + 1) for each in value[:_MAX_ITEMS]]
    if not isinstance(value, Mapping):
        return value
    if "content" in value and not _MESSAGE.isdisjoint(value):
        calls = value.get("tool_calls")
        names = [call.get("name") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
        return value["content"] if value["content"] or not names else {"calls": names}
    return {name: _brief(each, depth + 1) for name, each in value.items()}


def progress_text(data: Mapping[str, Any]) -> str:
    parts = []
    percent = data.get("percent")
    if isinstance(percent, (int, float)):
        parts.append(f"{percent:3.0f} %")
    if data.get("done") is not None:
        total = data.get("total")
        parts.append(line(f"{data['done']}/{total}" if total is not None else data["done"], 60))
    if data.get("text"):
        parts.append(line(data["text"]))
    return " ".join(parts)


def state_rows(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the state of a run for people: what is empty is left out, a list takes a line for each entry."""
    rows: list[tuple[str, str]] = []
    totals = state.get("totals")
    for name, value in state.items():
        if value in (None, [], {}, "") or name == "totals":
            continue
        label = line(name, 40)
        for each in value if isinstance(value, (list, tuple)) and isinstance(value[0], Mapping) else [value]:
            rows.append((label, _state_text(name, each)))
            label = ""
        total = totals.get(name) if isinstance(totals, Mapping) else None
        if isinstance(total, int) and isinstance(value, (list, tuple)) and total > len(value):
            rows.append((label, f"and {total - len(value)} more"))
    return rows


def _state_text(name: str, value: Any) -> str:
    if name in ("created", "modified"):
        return human_time(value) or compact(value)
    if name == "runtime_s":
        return human_seconds(value)
    if not isinstance(value, Mapping):
        return compact(value, 2000)
    if name == "node":
        return line(f"{value.get('name')}  {value.get('peer_id')}")
    if name == "progress":
        return progress_text(value).lstrip()
    if name == "locks":
        return line(f"{value.get('lid')}  {value.get('title')}  (until {human_time(value.get('expires_at'))})")
    if name == "outputs":
        return line(f"{value.get('name')} ({human_bytes(value.get('size'))})")
    if name == "shares":
        return share_text(value)
    if name == "fatal":
        return line(f"{value.get('type')}: {value.get('message')}")
    return compact(value["result"] if name == "final" and "result" in value else value, 2000)


def share_text(share: Mapping[str, Any]) -> str:
    """Return a share for people: what it is now, for whom, and until when."""
    return line(f"{share.get('sid')}  {share.get('state')}  {_terms(share)}")


def _terms(share: Mapping[str, Any]) -> str:
    """Return for whom a share is, what it shows and allows, and until when."""
    until = human_time(share.get("expires_at"))
    return f"{shared_with(share)}  level {share.get('level')} {share.get('mode')}  (until {until})"


def shared_with(share: Mapping[str, Any]) -> str:
    """Return for whom a share is: `link`, or the names of users and roles."""
    to = share.get("to")
    lists = [to.get(kind) for kind in ("users", "roles")] if isinstance(to, Mapping) else []
    names = [name for names in lists if isinstance(names, (list, tuple)) for name in names]
    return "link" if share.get("link") else line(", ".join(map(str, names)))


class Display(Protocol):
    """Shows a run while it goes on; `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event, view: RunView) -> None:
        """Take the next event; `view` includes it already."""
        ...

    def pause(self, lid: str = "") -> AbstractContextManager[None]:
        """Leave the terminal to a form, which shows the title of this lock and what is wrong with an answer."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it wants to know the run's place in the queue."""
        ...

    def queue(self, place: int | None) -> None:
        """Take note of that place; None: it waits no more."""
        ...


class _NoPause(AbstractContextManager[None]):
    def __exit__(self, *_: object) -> None:
        return None


class _Simple:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def pause(self, lid: str = "") -> AbstractContextManager[None]:
        return _NoPause()

    @property
    def waits(self) -> bool:
        return False

    def queue(self, place: int | None) -> None:
        return None


class JsonDisplay(_Simple):
    """One JSON object per event."""

    def __init__(self, fid: str, emit: Callable[[Mapping[str, Any]], None]):
        self._fid = fid
        self._emit = emit

    def show(self, event: Event, view: RunView) -> None:
        self._emit({"fid": self._fid, **event.to_wire()})


class PlainDisplay(_Simple):
    """One line per event, as for a log file."""

    def __init__(self, write: Callable[[str], None]):
        self._write = write

    def show(self, event: Event, view: RunView) -> None:
        at = datetime.datetime.fromtimestamp(_seconds(event.at)).astimezone().strftime("%H:%M:%S")
        text = describe(event).replace("\n", "\n    ")
        self._write(f"{at} {event.seq:>5} {line(event.event, 40):<10} {text}".rstrip())


def _seconds(at: int) -> float:
    return min(max(at / 1000, 0.0), 253_402_214_400.0)  # up to the year 9999: the clock is the node's
