"""A person answers a run's open locks through the host: which are asked, how, and what becomes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kodo.client.run import Run
from kodo.mcp.forms import Form, flat_form
from kodo.mcp.host import Host, Question, Reply
from kodo.mcp.page import lock_page
from kodo.mcp.runs import Lock, Runs, Standing, run_ref
from kodo.mcp.texts import one_line
from kodo.p2p.errors import CallError, DeadlineError, KodoError, NetworkError

__all__ = ["Asking", "PageOf", "form_of"]

PageOf = Callable[[Run], Awaitable[str | None]]
"""Returns the address of a run's page, where the user's browser may see it."""

MAX_ASKED = 5
"""How often one call asks about one lock, at most."""

ANSWER_SECONDS = 45.0
"""How long a verdict is waited for; the flow may take longer, and the run shows then what came of it."""


@dataclass(slots=True)
class Asking:
    """The questions of one call.

    Attributes:
        left: locks that the person left open: they are not asked about again.
        waiting: locks that are answered elsewhere, and that are waited for.
        notes: what to tell of the answers.
    """

    runs: Runs
    run: Run
    host: Host
    page_of: PageOf
    left: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    _asked: dict[str, int] = field(default_factory=dict)

    async def questions(self, standing: Standing) -> dict[str, Question]:
        """Return by lid what the host can ask about now."""
        found = {}
        for each in standing.locks:
            lid = each.lock.lid
            if each.mine and each.lock.candidate is None and lid not in self.left | self.waiting:
                question = await self._question(standing, each)
                if question is not None:
                    found[lid] = question
        return found

    async def _question(self, standing: Standing, each: Lock) -> Question | None:
        key = each.lock.lid if not each.denials else f"{each.lock.lid}.{each.denials}"
        message = _message(standing, each)
        form = form_of(each)
        if form is not None:
            return Question(key, message, form.schema) if self.host.forms else None
        page = await self.page_of(self.run) if self.host.urls else None
        if page is None:
            return None
        words = f"{message} Answer it on kodo's own page: it asks for what no chat should see."
        return Question(key, words, url=lock_page(page, each.lock.lid))

    async def ask(self, standing: Standing, questions: Mapping[str, Question]) -> None:
        """Ask about one lock by a request of the server's own, and take the reply; answered elsewhere, it ends."""
        lid, question = next(iter(questions.items()))
        self._asked[lid] = self._asked.get(lid, 0) + 1
        reply = await self._reply(question, lid)
        if reply is None:
            self.notes.append("A question was answered elsewhere before it was answered here.")
        else:
            await self.take(standing, {question.key: reply})
        if self._asked[lid] >= MAX_ASKED:
            self.left.add(lid)

    async def _reply(self, question: Question, lid: str) -> Reply | None:
        """Return the reply; None when the lock is closed before it comes."""
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(self.host.ask(question))
            closing = tasks.create_task(self._until_closed(lid))
            await asyncio.wait({asking, closing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (asking, closing):
                task.cancel()
        return None if asking.cancelled() else asking.result()

    async def _until_closed(self, lid: str) -> None:
        while True:
            try:
                standing = await self.runs.watch(
                    self.run,
                    3600.0,
                    self.host.progress,
                    stop=lambda standing: all(each.lock.lid != lid for each in standing.locks),
                )
            except KodoError:
                standing = None
            if standing is not None and not standing.lost and all(e.lock.lid != lid for e in standing.locks):
                return
            await asyncio.sleep(1)

    async def take(self, standing: Standing, replies: Mapping[str, Reply]) -> None:
        """Take replies by their questions' keys; those to what is not open as it was asked are passed over."""
        open_now = {each.lock.lid: each for each in standing.locks if each.mine}
        for key, reply in replies.items():
            lid, _, number = key.partition(".")
            each = open_now.get(lid)
            if each is None:
                self.notes.append("A question was answered or closed elsewhere before this answer came.")
            elif number != (str(each.denials) if each.denials else ""):
                continue  # an answer to it was denied since, and this one was not given to the reasons for that
            elif reply.action != "accept":
                self.left.add(lid)
                self.notes.append("The user left a question open; it can still be answered.")
            elif (form := form_of(each)) is None:
                self.waiting.add(lid)  # the page asks; whoever is there answers when they like
            else:
                await self._answer(lid, form.answer(reply.content))

    async def _answer(self, lid: str, candidate: Any) -> None:
        try:
            await self.run.answer(lid, candidate, timeout=ANSWER_SECONDS)
        except CallError as error:
            if error.code in (404, 410):
                self.notes.append("A question was answered or closed elsewhere before this answer came.")
            elif error.reason == "bad-candidate":
                self.runs.reject(self.run, lid, [one_line(error.message, 300)])
            elif error.reason == "busy":
                self.notes.append("Another answer came first and is looked at by the flow; this one was not taken.")
            elif error.reason != "denied":
                raise
        except (DeadlineError, NetworkError) as error:
            # It may have arrived: the run tells, and the same answer is not made a second time.
            self.notes.append(f"It is not known yet whether an answer was taken ({one_line(error, 200)}).")


def form_of(each: Lock) -> Form | None:
    """Return the flat form of a lock, if it has one."""
    return flat_form(each.lock.schema, each.lock.default if each.lock.has_default else None)


def _message(standing: Standing, each: Lock) -> str:
    flow = one_line(standing.state.get("name") or standing.state.get("path"), 80)
    node = standing.state.get("node")
    place = one_line(node.get("name") if isinstance(node, Mapping) else standing.run.node, 80)
    why = _reasons(each.reasons)
    return f"The flow {flow} on {place} asks: {one_line(each.lock.title, 500)}{why} (run {run_ref(standing.run)})"


def _reasons(reasons: Sequence[str]) -> str:
    return f" It did not take the latest answer: {'; '.join(reasons)}." if reasons else ""
