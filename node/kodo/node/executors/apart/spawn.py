"""Start the process that keeps the runners, under its account."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator

from kodo.node.executors.apart.account import Account
from kodo.node.executors.apart.executor import Connect

__all__ = ["as_account"]

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 4096
MAX_LINES = 1000
"""What is logged of the process's stderr."""


def as_account(account: Account) -> Connect:
    """Return what starts a process of that account which keeps runners, and connects to it."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "kodo.node.executors.apart.host",
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    # Not the node's own: it may be a terminal, into which nobody else may write.
                    stderr=asyncio.subprocess.PIPE,
                    limit=MAX_LINE_BYTES,
                    env=account.environment(os.environ),
                    **account.process(),
                )
            try:
                reader, writer = await asyncio.open_unix_connection(sock=ours)
                telling = asyncio.ensure_future(_log(process.stderr))
                try:
                    yield reader, writer
                finally:
                    writer.close()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(2.0):  # it ends by itself when the node has gone
                            await process.wait()
                    telling.cancel()
                    await asyncio.wait([telling])
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()

    return connect


async def _log(stderr: asyncio.StreamReader | None) -> None:
    """Log what the process writes, up to a bound, and read on."""
    for number in itertools.count():
        if stderr is None:
            return
        try:
            line = await stderr.readline()
        except ValueError:  # a longer one: what was read of it is dropped
            continue
        if not line:
            return
        if number < MAX_LINES:
            logger.warning("runners: %s", line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip())
