"""Runs one command: settings, event loop, signals, errors, what goes to stdout and what to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from kodo.cli.exits import Exit, failure_of
from kodo.cli.logs import log_commands, logs_json
from kodo.cli.text import line, lines, to_json
from kodo.client.config import Loaded, load_settings
from kodo.p2p.errors import DeadlineError
from kodo.p2p.net.turns import new_loop

if TYPE_CHECKING:
    from kodo.cli.table import Table
    from kodo.client import Client
    from kodo.client.peer import RemoteNode

__all__ = ["Context", "close_pipe", "execute", "report"]

logger = logging.getLogger(__name__)

COLLECT_AFTER_S = 1.0
"""When garbage begins to be collected: a command that is over by then has made none to speak of."""


class Context:
    """What a command knows of its surroundings.

    Attributes:
        json: only JSON on stdout.
        node: the `--node` option, or the setting.
        loaded: the settings in force.
        interactive: there is a person: stdin and stderr are terminals, and `--json` was not given.
        farewell: what to say when the user interrupts; None when there is nothing to say.
        stop: set by a signal instead of cancelling the command, when the command says so.
        cleaning: the command has something to stop (a node): a second interrupt does not cut that short.
    """

    def __init__(self, loaded: Loaded, *, json: bool, verbose: bool):
        self.loaded = loaded
        self.json = json
        self.verbose = verbose
        self.node = loaded.settings.node
        self.farewell: str | None = None
        self.cleaning = False
        self.interactive = not json and sys.stdin.isatty() and sys.stderr.isatty()
        self.signal: signal.Signals | None = None
        self.stop: asyncio.Event | None = None

    def client(self, **options: Any) -> Client:
        """Make a client with the settings in force."""
        from kodo.client import Client

        return Client(settings=self.loaded, confirm_node=self._confirm if self.interactive else None, **options)

    async def _confirm(self, remote: RemoteNode, claim: str) -> bool:
        """Ask the person whether a node is the one that is meant."""
        from kodo.cli.terminal import ask_line

        self.say(
            f"the node {remote} ({remote.peer_id}) {claim}, and nothing else confirms that it is the node you mean"
        )
        return (await ask_line("go on with it? [y/N] ")).strip().lower() in ("y", "yes")

    def emit(self, value: Mapping[str, Any]) -> None:
        """Write one JSON document, one line."""
        _write(to_json(value))

    def show(self, text: object = "") -> None:
        """Write for people on stdout, made safe."""
        _write(lines(text))

    def show_table(self, table: Table, none: str = "", *, wide: bool = False) -> None:
        """Write a table whole, however many rows there are: its cells are safe and bounded. `none` without rows.

        Args:
            wide: as wide as it is, whatever the terminal's width.
        """
        if table.rows or not none:
            _write(table.render(sys.maxsize if wide else None))
        else:
            self.show(none)

    def say(self, text: object) -> None:
        """Write a remark on stderr, made safe; after the terminal has closed it is lost."""
        if logs_json():
            logger.info("%s", text)
            return
        with contextlib.suppress(OSError):
            print(line(text), file=sys.stderr, flush=True)


def execute(
    function: Callable[..., Awaitable[int | None]], values: Mapping[str, Any], common: Mapping[str, Any]
) -> int:
    """Run a command; give its exit code. Errors were reported when it returns."""
    json, verbose = bool(common["json"]), bool(common["verbose"])
    log_commands(verbose)
    try:
        flags = {name: common[name] for name in ("node", "registry", "lan", "timeout")}
        loaded = load_settings(common["home"], flags)
        context = Context(loaded, json=json, verbose=verbose)
        if common.get("bounded") and common["timeout"] is not None:
            function = _within(loaded.settings.timeout_s, function)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_main(function, values, context))
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        unread = _unread(error)
        if unread is None:
            return report(error, json=json, verbose=verbose)
        if not isinstance(unread, BrokenPipeError):
            with contextlib.suppress(OSError):
                print(f"koco: {unread}", file=sys.stderr, flush=True)
        return close_pipe()


def _within(seconds: float, function: Callable[..., Awaitable[int | None]]) -> Callable[..., Awaitable[int | None]]:
    """Make a command that ends with an error unless it is done in time."""

    async def bounded(*args: Any, **values: Any) -> int | None:
        try:
            async with asyncio.timeout(seconds) as bound:
                return await function(*args, **values)
        except TimeoutError:
            if not bound.expired():
                raise
            raise DeadlineError(f"not done within {seconds:g} s, the time that --timeout gives it") from None

    return bounded


async def _main(function: Callable[..., Awaitable[int | None]], values: Mapping[str, Any], context: Context) -> int:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    loop.call_later(COLLECT_AFTER_S, _collect_garbage)

    def on_signal(number: signal.Signals) -> None:
        if context.signal is None:
            context.signal = number
            if context.stop is not None:
                context.stop.set()
            elif task is not None:
                task.cancel()
        elif context.cleaning:
            context.say("stopping what this command started; this takes some seconds")
        else:
            # The second time at once: nothing of ours has to be put in order but the terminal.
            _leave(context)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal that closes ends a node in order too; under nohup it is not meant to.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal, number)
    try:
        return await function(context, **values) or Exit.OK
    except asyncio.CancelledError:
        if context.signal is None:
            raise
        if task is not None:
            task.uncancel()
    except BaseExceptionGroup as group:
        if context.signal is None:
            raise
        logger.debug("while stopping: %s", failure_of(group).message)
    return _say_farewell(context)


class _UnwritableError(OSError):
    """Stdout takes no more: a full disk, a device."""


def _write(text: str) -> None:
    """Write a line to stdout.

    Raises:
        BrokenPipeError: nobody reads it.
        _UnwritableError: it cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _UnwritableError(f"stdout cannot be written: {error.strerror}") from error


def _unread(error: BaseException) -> OSError | None:
    """Return what stdout refused, wherever it is among errors: a run is followed by several tasks."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_unread, error.exceptions)), None)
    return error if isinstance(error, (BrokenPipeError, _UnwritableError)) else None


def _collect_garbage() -> None:
    """Begin to collect garbage, where `koco` has put it off; what was imported until now stays anyway."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _say_farewell(context: Context) -> int:
    code = Exit.INTERRUPTED if context.signal == signal.SIGINT else Exit.TERMINATED
    if context.json:
        message = line(context.farewell or "interrupted")
        context.emit({"error": {"code": 499, "reason": "interrupted", "message": message, "exit": code}})
    elif context.farewell:
        context.say(context.farewell)
    return code


def _leave(context: Context) -> None:
    terminal = sys.modules.get("kodo.cli.terminal")
    if terminal is not None:
        terminal.show_typing()  # a form asked for a secret, or a live display showed nothing that is typed
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # a live display may have hidden the cursor
        if context.farewell and not context.json:
            context.say(context.farewell)
        sys.stdout.flush()
    os._exit(Exit.INTERRUPTED)


def report(error: BaseException, *, json: bool, verbose: bool) -> int:
    """Print an error on one line, with `json` as an object on stdout; return the exit code. `verbose` shows where."""
    failure = failure_of(error)
    if verbose and not logs_json():
        print(lines("".join(traceback.format_exception(error))), file=sys.stderr)
    try:
        if json:
            print(to_json(failure.to_json()), flush=True)
        elif logs_json():
            logger.error("%s", failure.message)
        else:
            print("koco: " + "\n".join(failure.lines()), file=sys.stderr, flush=True)
    except BrokenPipeError:
        return close_pipe()
    return failure.exit


def close_pipe() -> int:
    """Nobody reads any more: be silent from here on, also when the interpreter flushes at its end."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.stdout.fileno())
    return Exit.PIPE_CLOSED
