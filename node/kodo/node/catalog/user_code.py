"""Ask a process that runs the code of flows' authors one question: it gets JSON on stdin and answers in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kodo.node.executors.runner.telemetry import silenced
from kodo.p2p.errors import CapacityError, DeadlineError, KodoError

if TYPE_CHECKING:
    from kodo.node.executors.apart.account import Account

__all__ = ["ask_process"]

_PIECE_BYTES = 1 << 16
_END_SECONDS = 1.0


async def ask_process(
    module: str,
    request: Mapping[str, Any],
    *,
    seconds: float,
    most_bytes: int,
    account: Account | None = None,
    listen: Callable[[bytes], bool] | None = None,
) -> dict[str, Any]:
    """Run `python -m module` once and return what it answers. What it started goes with it.

    Cancelling is safe: the process ends.

    Args:
        account: under which it runs; None: this process's.
        listen: gets what it writes to stderr, line by line; when it returns True, `seconds` begin anew.

    Raises:
        DeadlineError: it did not end within `seconds`.
        CapacityError: it answered more than `most_bytes`.
        KodoError: it ended without an answer; says how.
    """
    environment = os.environ if account is None else account.environment(os.environ)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a types.py in the folder where the node was started is no module of Python's
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL if listen is None else asyncio.subprocess.PIPE,
        limit=_PIECE_BYTES,
        env={**environment, **silenced(environment), "PYTHONUNBUFFERED": "1"},
        **({"start_new_session": True} if account is None else account.process()),
    )
    try:
        async with asyncio.timeout(seconds) as bound:
            asking = _ask(process, json.dumps(dict(request)).encode(), most_bytes)
            if listen is None:
                answer = await asking
            else:
                renew = partial(_renew, bound, seconds)
                async with _beside(_hear(process, listen, renew)):
                    answer = await asking
    except TimeoutError:
        raise DeadlineError(f"it did not finish within {seconds:.0f} s") from None
    finally:
        # Its session is its own, so this ends what it has started and left, too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        # Waiting for it waits for its pipes, and those may be full, or held open by a daemon that it has started.
        process._transport.close()  # type: ignore[attr-defined]
        await process.wait()
    try:
        answered = await asyncio.to_thread(json.loads, answer)
    except (ValueError, RecursionError):
        answered = None
    if not isinstance(answered, dict):
        raise KodoError(f"Python ended with {_how(process.returncode)}")
    return answered


def _renew(bound: asyncio.Timeout, seconds: float) -> None:
    bound.reschedule(asyncio.get_running_loop().time() + seconds)


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do `work` beside the block; what the block leaves of it has a moment to be done."""
    task = asyncio.ensure_future(work)
    try:
        yield
        await asyncio.wait([task], timeout=1.0)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _hear(
    process: asyncio.subprocess.Process, listen: Callable[[bytes], bool], renew: Callable[[], None]
) -> None:
    """Pass on what a process writes to stderr, by lines, long ones in pieces."""
    assert process.stderr is not None
    rest = b""
    while piece := await process.stderr.read(_PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        lines, rest = (lines, rest) if len(rest) < _PIECE_BYTES else ([*lines, rest], b"")
        for line in lines:
            if listen(line):
                renew()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


async def _ask(process: asyncio.subprocess.Process, request: bytes, most_bytes: int) -> bytes:
    """Send a process its input and return what it writes until it ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):  # one that has ended before it read all is told by its exit code
        process.stdin.write(request)
        await process.stdin.drain()
    process.stdin.close()
    answer = bytearray()
    while piece := await process.stdout.read(_PIECE_BYTES):
        answer += piece
        if len(answer) > most_bytes:
            raise CapacityError(f"it answered more than {most_bytes} bytes")
    # What it has started may hold its stderr, for which waiting for its end waits, too; that ends with its session.
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait([ended], timeout=_END_SECONDS)
    finally:
        ended.cancel()
        await asyncio.wait([ended])
    return bytes(answer)
