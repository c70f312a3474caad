"""Following a run in a terminal: its events as they come, its locks as forms, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kodo.cli.display import Display, JsonDisplay, PlainDisplay
from kodo.cli.exits import Exit, details_of, told_details
from kodo.cli.text import compact, human_bytes, line, lines
from kodo.cli.values import answer_words
from kodo.p2p.errors import CallError, KodoError, UsageError
from kodo.protocol.breakpoints import LOGGER, TERMINAL, is_breakpoint
from kodo.protocol.events import OpenLock, RunState
from kodo.protocol.secrets import asks_secrets

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Run

__all__ = [
    "RETRIED",
    "Look",
    "again",
    "ask_for",
    "come_back",
    "follow_run",
    "last_line",
    "make_display",
    "say_refusal",
    "settle",
    "show_end",
]

QUEUE_SECONDS = 2.0
"""How often a run that waits for its turn is asked for its place."""

RETRIED = (400, 409, 422)
"""Codes of refusals after which another answer may be accepted."""

SETTLE_SECONDS = 0.3
"""How long a lock stands before anything is done about it: events that are read again may close it at once."""


def come_back(run: Run) -> str:
    """Return how to come back to a run that goes on."""
    return f"the run goes on; come back with: koco follow {shlex.quote(run.address)}"


@dataclass(frozen=True, slots=True)
class Look:
    """How a run is shown on a terminal: what it is called until its flow is known, on which node, and the options."""

    title: str
    place: str | None = None
    logs: bool = False
    wide: bool = False


def make_display(context: Context, run: Run, look: Look) -> Display:
    """Choose how events are shown."""
    if context.json:
        return JsonDisplay(run.fid, context.emit)
    if context.interactive and sys.stdout.isatty():
        from kodo.cli.live import LiveDisplay, console_of

        return LiveDisplay(
            console_of(), look.title, place=look.place, logs=look.logs, wide=look.wide, route=lambda: run.route
        )
    return PlainDisplay(context.show)


async def follow_run(
    context: Context,
    run: Run,
    look: Look,
    *,
    after: int = 0,
    live: bool = True,
    defaults: bool = False,
) -> None:
    """Show a run's events from `after` on until it is over; see to its locks meanwhile.

    Args:
        look: how they are shown on a terminal.
        live: wait for what comes.
        defaults: answer each lock with its default.
    """
    changed, goes_on = asyncio.Event(), asyncio.Event()
    handled: set[Any] = set()  # locks that no person is asked
    with make_display(context, run, look) as display:
        async with (
            _background(_watch_queue(run, display), wanted=live),
            _background(_see_to_locks(context, run, display, changed, goes_on, defaults), wanted=live),
            aclosing(run.follow(after, live=live)) as events,
        ):
            async for event in events:
                if event.event == "lock" and _is_for_the_debugger(event.data.get("schema")):
                    handled.add(event.data.get("lid"))
                if event.data.get("lid") not in handled:
                    display.show(event, run.view)
                changed.set()
                if run.view.state.over or (event.event == "log" and event.data.get("logger") == LOGGER):
                    goes_on.set()


async def _watch_queue(run: Run, display: Display) -> None:
    """Show a run's place in its node's queue until the run begins."""
    while display.waits:
        try:
            place = (await run.state()).get("queue_position")
        except (KodoError, TimeoutError):
            return  # whoever follows the run tells of that
        display.queue(place if isinstance(place, int) else None)
        if not isinstance(place, int):
            return
        await asyncio.sleep(QUEUE_SECONDS)


@contextlib.asynccontextmanager
async def _background(work: Any, *, wanted: bool) -> AsyncIterator[None]:
    """Do `work` beside the block and end it with the block."""
    if not wanted:
        work.close()
        yield
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


async def _see_to_locks(
    context: Context, run: Run, display: Display, changed: asyncio.Event, goes_on: asyncio.Event, defaults: bool
) -> None:
    """Answer the locks that come, one after the other: by a form, by their defaults, or say how to.

    Raises:
        UsageError: only defaults are wanted, there is none, and nobody to ask.
    """
    seen: set[str] = set()

    def new_lock() -> OpenLock | None:
        lock = next((each for lid, each in run.view.locks.items() if lid not in seen), None)
        if lock is not None:
            seen.add(lock.lid)
        return lock

    while True:
        await changed.wait()
        changed.clear()
        await asyncio.sleep(SETTLE_SECONDS)
        while lock := new_lock():
            if _is_for_the_debugger(lock.schema):
                with display.pause():
                    goes_on.clear()
                    await _try_answer(context, run, lock, True)
                    await _debug(context, run, display, changed, goes_on, new_lock)
            elif defaults and lock.has_default:
                await _try_answer(context, run, lock, lock.default)
            elif context.interactive:
                with display.pause(lock.lid):
                    await _ask_while_open(context, run, lock, changed)
            elif defaults:
                # A node that this command has started ends with it: nobody could come back.
                how = "" if context.cleaning else f", or answer it with: {_how(run, lock)}"
                raise UsageError(
                    f"{line(lock.title, 200)!r} has no default, so --yes cannot answer it; on a terminal you "
                    f"are asked without --yes{how}"
                )
            else:
                context.say(f"waits for an answer: {lock.title}; give it with: {_how(run, lock)}")


async def _debug(
    context: Context,
    run: Run,
    display: Display,
    changed: asyncio.Event,
    goes_on: asyncio.Event,
    new_lock: Callable[[], OpenLock | None],
) -> None:
    """Wait until the debugger lets the flow go on. What it steps over may ask: then it does not read the terminal."""
    while not goes_on.is_set():
        waiting = [asyncio.ensure_future(each.wait()) for each in (goes_on, changed)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        changed.clear()
        while not goes_on.is_set() and (lock := new_lock()):
            if _is_for_the_debugger(lock.schema):
                await _try_answer(context, run, lock, True)
            else:
                with display.pause(lock.lid):
                    await _ask_while_open(context, run, lock, changed)


def _is_for_the_debugger(schema: Any) -> bool:
    """Return whether a lock asks for this terminal, as `breakpoint()` in a local flow does."""
    return TERMINAL in os.environ and is_breakpoint(schema)


def _how(run: Run, lock: OpenLock) -> str:
    if run.by_link:
        return f"koco open - --run {shlex.quote(run.fid)}, at a terminal, and enter the link"
    return line(f"koco answer {shlex.quote(run.address)} {shlex.quote(lock.lid)} {answer_words(lock.schema)}")


async def _ask_while_open(context: Context, run: Run, lock: OpenLock, changed: asyncio.Event) -> None:
    """Ask until the lock is answered, here or elsewhere."""
    default, has_default = lock.default, lock.has_default
    while True:
        form = asyncio.ensure_future(ask_for(context, lock.title, lock.schema, default, has_default))
        try:
            while not form.done() and lock.lid in run.view.locks and not run.view.state.over:
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait([form, waiting], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                changed.clear()
        finally:
            if not form.done():
                form.cancel()
            await asyncio.wait([form])
            changed.set()
        if form.cancelled():
            context.say("")
            context.say(f"answered elsewhere: {lock.title}")
            return
        if await _try_answer(context, run, lock, form.result()):
            return
        default, has_default = again(lock.schema, form.result(), (default, has_default))


async def ask_for(context: Context, title: str, schema: Any, default: Any, has_default: bool) -> Any:
    """Fill in a lock's form."""
    from kodo.cli.forms import fill_form
    from kodo.cli.terminal import ask_line

    context.say("")
    context.say(f"? {title}")
    preset = {"default": default} if has_default else {}
    return await fill_form(schema, ask_line, context.say, **preset)


async def _try_answer(context: Context, run: Run, lock: OpenLock, candidate: Any) -> bool:
    """Send an answer; return whether nothing is left to be asked."""
    try:
        await run.answer(lock.lid, candidate)
    except CallError as error:
        say_refusal(context, error)
        return error.code not in RETRIED
    return True


def again(schema: Any, entered: Any, before: tuple[Any, bool]) -> tuple[Any, bool]:
    """Return what a form begins with when it is asked again: what was entered, unless a secret may be in it."""
    return before if asks_secrets(schema) else (entered, True)


def say_refusal(context: Context, error: CallError) -> None:
    """Show why an answer was not accepted, field by field."""
    told = told_details(details_of(error.data))
    if len(told) == 1:
        context.say(f"not accepted: {told[0]}")
        return
    context.say(f"not accepted: {error.message or error.reason}")
    for each in told:
        context.say(f"  {each}")


async def settle(run: Run) -> None:
    """Acknowledge a run that is done and was followed to its end, when it made no file to be fetched."""
    if run.view.state is RunState.DONE and not run.view.outputs:
        await run.settle({})


def last_line(run: Run) -> dict[str, Any]:
    """Return the line that ends `run --json` and `follow --json`."""
    view = run.view
    ending: dict[str, Any] = {"fid": run.fid, "state": str(view.state)}
    if view.final is not None:
        ending["final"] = view.final
    if view.fatal is not None:
        ending["fatal"] = view.fatal
    return {**ending, "outputs": list(view.outputs.values()), "route": run.route}


def show_end(context: Context, run: Run, *, downloads: bool = True) -> int:
    """Show how the run ended; give the exit code."""
    view = run.view
    code = Exit.RUN_FAILED if view.state is RunState.ERROR else Exit.OK
    if context.json:
        return code
    if view.fatal is not None:
        context.say(f"the run failed: {view.fatal.get('type')}: {view.fatal.get('message')}")
        if context.verbose and view.fatal.get("traceback"):
            print(lines(view.fatal["traceback"]), file=sys.stderr)
    elif view.final is not None and view.final.get("result") is not None:
        result = view.final["result"]
        if context.interactive and sys.stdout.isatty():
            from kodo.cli.live import console_of, show_result

            show_result(console_of(), result)
        else:
            context.show(result if isinstance(result, str) else compact(result, 20_000))
    for output in view.outputs.values():
        context.say(f"output: {output.get('name')} ({human_bytes(output.get('size'))})")
    if downloads and view.outputs and view.state.over:
        context.say(f"fetch what it made with: koco download {shlex.quote(run.address)}")
    if not view.state.over:
        context.say(come_back(run))
    return code
