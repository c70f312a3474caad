"""A run's events for people: plain lines, or on a terminal a live tree of progress and agents below what scrolls by.

Everything shown comes from a node and a flow: it goes through `text` first and is never read as markup.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from kodo.cli.text import compact, human_bytes, human_seconds, human_time, line, lines
from kodo.protocol.events import Event, RunView

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.tree import Tree

__all__ = [
    "Display",
    "JsonDisplay",
    "LiveDisplay",
    "PlainDisplay",
    "describe",
    "progress_text",
    "shared_with",
    "state_rows",
]

MAX_NODES = 40
"""Steps that the live tree shows at most."""

MAX_NAMES = 5
"""Agents, tasks and tools, of each, that it shows."""

_BELOW = ("progress", "agent", "task", "tool", "inputs", "version", "config", "flow", "final")
"""Events that do not scroll by: the tree shows what they add up to."""


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
        case "flow":
            return line(f"{data.get('name', '')} {data.get('release', '')}")
        case _:
            text = data.get("text")
            return lines(text) if isinstance(text, str) and len(data) == 1 else _facts(data)


def _facts(data: Mapping[str, Any]) -> str:
    """Return data of no known form: its text first, then names and values, those within values as JSON."""
    pairs = ", ".join(f"{name} {compact(value, 200)}" for name, value in data.items() if name != "text")
    if "text" not in data:
        return line(pairs, 500)
    text = compact(data["text"], 300)
    return line(f"{text} ({pairs})" if pairs else text, 500)


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
        return progress_text(value)
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
    level, until = f"level {share.get('level')} {share.get('mode')}", human_time(share.get("expires_at"))
    return line(f"{share.get('sid')}  {share.get('state')}  {shared_with(share)}  {level}  (until {until})")


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

    def pause(self) -> AbstractContextManager[None]:
        """Leave the terminal to a form."""
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

    def pause(self) -> AbstractContextManager[None]:
        return _NoPause()


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


class LiveDisplay:
    """A terminal: results, actions and output scroll by, progress and agents stay below.

    Args:
        console: a rich console.
        title: what is run, and where.
    """

    def __init__(self, console: Console, title: str, *, now: Callable[[], float] = time.monotonic):
        from rich.live import Live

        self._console = console
        self._title = line(title, 200)
        self._now = now
        self._begun = now()
        self._view = RunView()
        self._live: Live = Live(
            console=console, get_renderable=self.render, refresh_per_second=8, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Event, view: RunView) -> None:
        """Take the next event."""
        self._view = view
        if event.event not in _BELOW:
            self._scroll(event)

    def _scroll(self, event: Event) -> None:
        from rich.text import Text

        styles = {
            "result": "green",
            "fatal": "bold red",
            "result-error": "red",
            "action-error": "red",
            "stderr": "dim",
            "log": "dim",
            "lock": "bold yellow",
            "unlock": "yellow",
            "output": "cyan",
        }
        style = styles.get(event.event, "")
        head = "" if event.event in ("stdout", "stderr") else f"{line(event.event, 40)} "
        self._console.print(Text(head + describe(event), style=style), soft_wrap=True)

    def pause(self) -> AbstractContextManager[None]:
        """Take the live part away while a form is filled in."""
        return _Paused(self._live)

    def render(self) -> Tree:
        """Return the live part as it is now."""
        from rich.text import Text
        from rich.tree import Tree

        view = self._view
        passed = human_seconds(self._now() - self._begun)
        tree = Tree(Text(f"{self._title}  {view.state}  {passed}", style="bold"))
        if view.progress is not None and not isinstance(view.progress.get("id"), str):
            tree.add(Text(_bar(view.progress) + progress_text(view.progress)))
        steps = dict(list(view.steps.items())[-MAX_NODES:])
        children: dict[str | None, list[str]] = {}
        for key, step in steps.items():
            parent = step.get("parent")
            known = isinstance(parent, str) and parent in steps and parent != key
            children.setdefault(parent if known else None, []).append(key)
        _grow(tree, None, steps, children)
        for kind, told in (("agent", view.agents), ("task", view.tasks), ("tool", view.tools)):
            for name in _names(told)[-MAX_NAMES:]:
                tree.add(Text(f"{kind} {name}", style="magenta"))
        for lock in list(view.locks.values())[:8]:
            tree.add(Text(f"waits: {line(lock.title, 200)}", style="bold yellow"))
        return tree


def _grow(
    tree: Tree, parent: str | None, steps: Mapping[str, Mapping[str, Any]], children: dict[str | None, list[str]]
) -> None:
    """Hang the steps of `parent` below it, and theirs below them; each is hung up once."""
    from rich.text import Text

    for key in children.pop(parent, []):
        _grow(tree.add(Text(_bar(steps[key]) + progress_text(steps[key]))), key, steps, children)


def _names(told: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of agents, tasks or tools, each once, the one told of last at the end."""
    names: dict[str, None] = {}
    for data in told:
        name = line(data.get("name") or data.get("role") or compact(data, 80), 80)
        names.pop(name, None)
        names[name] = None
    return list(names)


def _bar(data: Mapping[str, Any], width: int = 20) -> str:
    percent = data.get("percent")
    done, total = data.get("done"), data.get("total")
    if percent is None and isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
        percent = 100 * done / total
    if not isinstance(percent, (int, float)) or percent != percent:
        return ""
    full = round(width * min(max(percent, 0), 100) / 100)
    return "━" * full + "╌" * (width - full) + " "


class _Paused(AbstractContextManager[None]):
    def __init__(self, live: Live):
        self._live = live

    def __enter__(self) -> None:
        self._live.stop()

    def __exit__(self, *_: object) -> None:
        self._live.start(refresh=True)
