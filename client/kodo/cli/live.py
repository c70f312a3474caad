"""A run on a terminal: what happened scrolls by, and below it stays how far the run is.

    ▤ report.md (12 kB)                                  scrolls by: a sign and a colour for each kind of event
     package  files  lines                               results with the same names grow as one table
     json         5   1316
    ● Code Atlas on flows.example.com  running  42 s     stays: the run, its state, how long, by which way
    ├── ━━━━━━━━╌╌╌╌  40 % reading json                  its progress, as a tree
    └── ? Which packages?                                what waits for a person
    17 lines of log (--logs shows them)

Everything shown comes from a node and a flow: it goes through `text` first and is never read as markup.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kodo.cli.display import describe, progress_text
from kodo.cli.steps import Steps
from kodo.cli.terminal import forget_typed, unseen_typing
from kodo.cli.text import compact, human_seconds, line, lines, short
from kodo.protocol.events import Event, RunState, RunView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.tree import Tree

__all__ = ["LiveDisplay", "console_of", "show_result"]

MAX_NODES = 40
"""Steps that the tree shows at most."""

MAX_NAMES = 5
"""Agents, tasks and tools, of each, that it shows."""

MAX_ROWS = 200
"""Rows of a table of results, after which another one begins."""

MAX_COLUMNS = 8

SHOWN_ROWS = 10
"""Rows that a table shows while it grows."""

NARROW = 80
"""Columns of a terminal below which bars are half as long."""

_FOLDED = ("log", "stdout", "stderr")

_BELOW = ("progress", "agent", "task", "tool", "inputs", "version", "config", "flow", "final", "candidate")
"""Events that do not scroll by: what stays shows what they add up to."""

_KINDS: Mapping[str, tuple[str, str, str]] = {
    "result": ("◆", "*", "green"),
    "result-error": ("✗", "x", "red"),
    "action": ("›", ">", "blue"),
    "action-error": ("✗", "x", "red"),
    "output": ("▤", "+", "cyan"),
    "lock": ("?", "?", "bold yellow"),
    "unlock": ("✓", "v", "yellow"),
    "unlock-deny": ("✗", "x", "yellow"),
    "unlock-timeout": ("✗", "x", "yellow"),
    "lock-timeout": ("✗", "x", "yellow"),
    "fatal": ("✗", "x", "bold red"),
    "wait": ("◌", "o", "yellow"),
    "kill": ("■", "#", "red"),
    "log": ("·", ".", "dim"),
    "stdout": (" ", " ", "dim"),
    "stderr": (" ", " ", "dim"),
}
"""By event: its sign, the sign where the terminal takes ASCII alone, and its style."""

_STATES: Mapping[str, tuple[str, str, str]] = {
    "queued": ("◌", "o", "dim"),
    "running": ("●", "*", "blue"),
    "locked": ("?", "?", "yellow"),
    "done": ("✓", "v", "green"),
    "error": ("✗", "x", "red"),
}


def console_of(*, stderr: bool = False) -> Console:
    """Return the terminal; without colours where `NO_COLOR` is set."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def show_result(console: Console, result: object) -> None:
    """Show what a run returned: Markdown as it is meant, anything else as JSON. Links are not made to be clicked."""
    from rich.markdown import Markdown
    from rich.text import Text

    if isinstance(result, str):
        console.print(Markdown(lines(result), hyperlinks=False))
    else:
        from kodo.cli.text import pretty_json

        console.print(Text(pretty_json(result)))


class LiveDisplay:
    """Shows a run on a terminal.

    Args:
        console: a rich console.
        title: what the run is called until its flow is known.
        place: the node; None where the run is on this machine alone.
        logs: whether what a flow logs and prints is shown, not only counted.
        wide: nothing is cut where the line ends.
        route: gives the way that the session takes.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        *,
        place: str | None = None,
        logs: bool = False,
        wide: bool = False,
        route: Callable[[], str | None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ):
        self._console = console
        self._title = line(title, 200)
        self._node = "" if place is None else f" on {line(place, 200) if wide else short(place)}"
        self._logs = logs
        self._wide = wide
        self._route = route
        self._now = now
        self._heard = now()
        self._view = RunView()
        self._started = False
        self._place: int | None = None
        self._folded = 0
        self._rows: list[dict[str, Any]] = []
        self._steps = Steps()
        self._titles: dict[str, Event] = {}
        """Locks that came, and whose titles nobody has shown yet: a form does, if somebody is asked here."""
        self._asked: str | None = None
        self._quiet = contextlib.ExitStack()
        self._plain = not (console.encoding or "").lower().startswith("utf")
        self._live = self._make_live()

    def _make_live(self) -> Live:
        from rich.live import Live

        return Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
        )

    def _start(self) -> None:
        # What is typed now would move the live part, which then leaves some of itself behind.
        self._quiet.enter_context(unseen_typing())
        try:
            self._live.start(refresh=True)
        except BaseException:
            self._quiet.close()
            raise

    def _stop(self) -> None:
        try:
            self._live.stop()
        finally:
            self._quiet.close()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._end_table()
        for lid in list(self._titles):
            self._show_title(lid)
        if self._view.state.over:
            self._console.print(self._header(), no_wrap=True, overflow="ellipsis")
        if self._folded:
            self._console.print(self._footer())

    @property
    def waits(self) -> bool:
        """Whether nothing has come of the flow yet: it may wait for its turn."""
        return not self._started and not self._view.state.over

    def queue(self, place: int | None) -> None:
        """Take note of the run's place in the queue of its node."""
        self._place = place

    def show(self, event: Event, view: RunView) -> None:
        """Take the next event."""
        self._view = view
        self._heard = self._now()
        self._started |= event.event not in ("inputs", "version", "flow")
        if event.event in _FOLDED and not self._logs:
            self._folded += 1
        elif event.event == "result" and _is_row(event.data):
            self._add_row(event.data)
        elif event.event in ("action", "action-error"):
            told = self._steps.take(event.event, event.data)
            if told is not None:  # what starts is shown below until it ends
                self._end_table()
                self._scroll(event._replace(data=dict(told)))
        elif event.event == "lock":
            self._titles[str(event.data.get("lid"))] = event
        elif event.event not in _BELOW:
            self._end_table()
            lid = str(event.data.get("lid"))
            self._show_title(lid)
            if event.event != "unlock-deny" or lid != self._asked:
                self._scroll(event)

    @contextlib.contextmanager
    def pause(self, lid: str = "") -> Iterator[None]:
        """Take the live part away while a form is filled in; see `Display.pause`. A form may follow within."""
        self._end_table()
        self._titles.pop(lid, None)
        before, self._asked = self._asked, lid
        if before is None:
            self._stop()
            forget_typed()
        try:
            yield
        finally:
            self._asked = before
            if before is None:
                # A new one: the old one would draw over the form, where it stood itself.
                self._live = self._make_live()
                self._start()

    def _show_title(self, lid: str) -> None:
        if lid in self._titles:
            self._scroll(self._titles.pop(lid))

    def render(self) -> RenderableType:
        """Return what stays as it is now."""
        from rich.console import Group

        parts: list[RenderableType] = [self._table(SHOWN_ROWS)] if self._rows else []
        parts.append(self._tree())
        if self._folded:
            parts.append(self._footer())
        return Group(*parts)

    def _scroll(self, event: Event) -> None:
        from rich.text import Text

        sign, plain, style = _KINDS.get(event.event, ("·", ".", ""))
        known = event.event in _KINDS
        name = "" if known and event.event not in ("fatal", "kill") else f"{line(event.event, 40)}: "
        told = line(event.data.get("title", "")) if event.event == "lock" and not self._wide else describe(event)
        text = told.replace("\n", "\n  ")
        self._console.print(Text(f"{plain if self._plain else sign} {name}{text}".rstrip(), style=style))

    # results with the same names

    def _add_row(self, data: Mapping[str, Any]) -> None:
        if self._rows and (self._rows[0].keys() != data.keys() or len(self._rows) == MAX_ROWS):
            self._end_table()
        self._rows.append(dict(data))

    def _end_table(self) -> None:
        rows = self._rows
        if rows:
            self._console.print(self._table(len(rows)))
            self._rows = []

    def _table(self, latest: int) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        rows = self._rows[-latest:]
        earlier = len(self._rows) - len(rows)
        caption = Text(f"and {earlier} earlier", style="dim") if earlier else None
        table = Table(box=SIMPLE_HEAD, header_style="green", caption=caption, caption_justify="left", pad_edge=False)
        numbers = {name for name in rows[0] if all(isinstance(row[name], (int, float)) for row in rows)}
        taken = sum(max(len(line(name, 40)), *(len(compact(row[name])) for row in rows)) for name in numbers)
        texts = max(len(rows[0]) - len(numbers), 1)
        # Texts are what gives way: a number that is cut says something else.
        room = max((self._console.width - taken - 3 * len(rows[0]) - 1) // texts, 4)
        for name in rows[0]:
            table.add_column(
                Text(line(name, 40)),
                justify="right" if name in numbers else "left",
                overflow="fold" if self._wide else "ellipsis",
                no_wrap=not self._wide,
                max_width=None if name in numbers or self._wide else room,
            )
        for row in rows:
            table.add_row(*(Text(compact(value, 2000 if self._wide else 200)) for value in row.values()))
        return table

    # what stays

    def _state(self) -> str:
        if self._view.state is not RunState.PENDING:
            return str(self._view.state)
        return "queued" if self.waits and self._place is not None else "running"

    def _passed(self) -> float:
        """Return for how many seconds the run has gone on: by its node's clock up to the latest event."""
        view = self._view
        told = max(view.modified - view.created, 0) / 1000
        return told if view.state.over else told + self._now() - self._heard

    def _header(self) -> RenderableType:
        from rich.text import Text

        state = self._state()
        sign, plain, style = _STATES[state]
        place = f" ({self._place})" if state == "queued" else ""
        passed = human_seconds(self._passed())
        told = [f"{state}{place}", passed, line(self._route() or "", 20)]
        # The title gives way where the line is too short.
        room = self._console.width - len("  ".join(filter(None, told))) - 5
        title = line(self._view.flow.get("name") or self._title, 200) + self._node
        title = title if self._wide or len(title) <= room else title[: max(room - 1, 8)] + "…"
        header = Text(f"{plain if self._plain else sign} ", style=style)
        header.append(title, style="bold")
        header.append(f"  {told[0]}", style=style)
        header.append("".join(f"  {each}" for each in told[1:] if each), style="dim")
        return header

    def _footer(self) -> RenderableType:
        from rich.text import Text

        count = "1 line" if self._folded == 1 else f"{self._folded} lines"
        return Text(f"{count} of log and output (--logs shows them)", style="dim")

    def _tree(self) -> Tree:
        from rich.text import Text
        from rich.tree import Tree

        view = self._view
        tree = Tree(self._header(), guide_style="dim")
        width = 20 if self._console.width >= NARROW else 10

        def label(step: Mapping[str, Any]) -> Text:
            text = Text(_bar(step, width, plain=self._plain), style="blue", no_wrap=True, overflow="ellipsis")
            return text.append(progress_text(step), style="default")

        if view.progress is not None and not isinstance(view.progress.get("id"), str):
            tree.add(label(view.progress))
        steps = dict(list(view.steps.items())[-MAX_NODES:])
        children: dict[str | None, list[str]] = {}
        for key, step in steps.items():
            parent = step.get("parent")
            known = isinstance(parent, str) and parent in steps and parent != key
            children.setdefault(parent if known else None, []).append(key)
        _grow(tree, None, steps, children, label)
        for kind, told in (("agent", view.agents), ("task", view.tasks), ("tool", view.tools)):
            for name in _names(told)[-MAX_NAMES:]:
                tree.add(Text(f"{kind} {name}", style="magenta", no_wrap=True, overflow="ellipsis"))
        for told_step in self._steps.under_way()[-MAX_NAMES:]:
            tree.add(Text(told_step, style="blue", no_wrap=True, overflow="ellipsis"))
        # Not those that a form asks for in a moment: nobody shall answer before it is there.
        waiting = [lock for lid, lock in view.locks.items() if lid not in self._titles]
        for lock in waiting[:8]:
            tree.add(Text(f"? {line(lock.title, 200)}", style="bold yellow"))
        return tree


def _is_row(data: Mapping[str, Any]) -> bool:
    """Return whether a result is a row of a table: a few names, each with something short."""
    short_ones = all(value is None or isinstance(value, (str, int, float)) for value in data.values())
    return 2 <= len(data) <= MAX_COLUMNS and short_ones


def _grow(
    tree: Tree,
    parent: str | None,
    steps: Mapping[str, Mapping[str, Any]],
    children: dict[str | None, list[str]],
    label: Callable[[Mapping[str, Any]], RenderableType],
) -> None:
    """Hang the steps of `parent` below it, and theirs below them; each is hung up once."""
    for key in children.pop(parent, []):
        _grow(tree.add(label(steps[key])), key, steps, children, label)


def _names(told: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of agents, tasks or tools, each once, the one told of last at the end."""
    names: dict[str, None] = {}
    for data in told:
        name = line(data.get("name") or data.get("role") or compact(data, 80), 80)
        names.pop(name, None)
        names[name] = None
    return list(names)


def _bar(data: Mapping[str, Any], width: int, *, plain: bool) -> str:
    percent = data.get("percent")
    done, total = data.get("done"), data.get("total")
    if percent is None and isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
        percent = 100 * done / total
    if not isinstance(percent, (int, float)) or percent != percent:
        return ""
    full = round(width * min(max(percent, 0), 100) / 100)
    return ("#" if plain else "━") * full + ("." if plain else "╌") * (width - full) + " "
