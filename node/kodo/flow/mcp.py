"""Tools of MCP servers, called by a flow: `async with mcp.server("npx", "-y", "some-server") as tools`.

    async with mcp.server("https://tools.example/mcp", headers={"Authorization": token}) as tools:
        found = await tools.call("search", query="bikes")

The flow says which tool it calls, with what; no model does. Each call is an `action` event when it starts and one
when it ends, or an `action-error`. `with` and plain calls do the same in sync flows. A `SecretStr` among the
credentials or arguments reaches the server, and no event; what a command writes to stderr is the flow's own, without
them. It needs the extra `mcp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO
from urllib.parse import urlsplit

from kodo.flow._runtime.pending import Pending
from kodo.flow._runtime.plain import plain
from kodo.flow.emit import action, emit
from kodo.p2p.distribution import how_to_install
from kodo.p2p.errors import DeadlineError, KodoError, NetworkError, UsageError
from kodo.protocol.secrets import MASK

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from mcp import Client
    from pydantic import SecretStr

__all__ = ["Server", "ToolError", "server"]

CALL_SECONDS = 60.0
CONNECT_SECONDS = 30.0
CLOSE_SECONDS = 10.0
MAX_TOOLS = 10_000
_SHOWN = 10_000

Texts = Mapping[str, "str | SecretStr"]


class ToolError(KodoError):
    """A tool said that it failed, or there is no such tool. Unhandled, it ends the run.

    Attributes:
        server, tool: which.
    """

    def __init__(self, server: str, tool: str, message: str):
        super().__init__(f"{tool} of {server}: {message}")
        self.server = server
        self.tool = tool


def server(
    target: str,
    /,
    *arguments: str,
    env: Texts | None = None,
    cwd: str | Path | None = None,
    headers: Texts | None = None,
    timeout: float = CALL_SECONDS,
) -> Server:
    """Use an MCP server: `async with`, in sync flows `with`.

    Args:
        target: a URL (`https://…`, streamable HTTP), or the command of a server that is started here (stdio).
        arguments: of the command.
        env: variables for the command, besides those that it needs to run at all; a `SecretStr` is shown to it alone.
        cwd: where the command runs; the flow's own folder by default.
        headers: of every request, e.g. `Authorization`; a `SecretStr` is shown to the server alone.
        timeout: seconds that one call may take.

    Raises:
        UsageError: the package `mcp` is not installed, or the arguments do not fit the target.
    """
    return Server(target, arguments, env or {}, cwd, headers or {}, timeout)


class Server:
    """An MCP server that a flow uses; from `server`.

    Attributes:
        name: what events call it: the command's name, or the URL's host.
    """

    def __init__(
        self,
        target: str,
        arguments: tuple[str, ...],
        env: Texts,
        cwd: str | Path | None,
        headers: Texts,
        timeout: float,
    ):
        self._is_url = target.startswith(("http://", "https://"))
        if self._is_url and (arguments or env or cwd is not None):
            raise UsageError("a server at a URL takes headers; arguments, env and cwd are for a command")
        if not self._is_url and headers:
            raise UsageError("a command takes env; headers are for a server at a URL")
        self.name = urlsplit(target).hostname or "?" if self._is_url else Path(target).name
        self._target, self._arguments, self._cwd = target, arguments, cwd
        self._env, self._headers, self._timeout = env, headers, timeout
        given = (*env.values(), *headers.values())
        self._secrets = [secret for value in given if (secret := _secret_in(value)) is not None]
        self._client: Client | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._portal: BlockingPortal | None = None
        self._opened = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        """Start or reach the server.

        Raises:
            UsageError: the package `mcp` is not installed, or the command cannot be started.
            NetworkError: it does not answer as an MCP server does.
        """
        await self._begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._end()

    async def _begin(self) -> None:
        _check_installed()
        self._closing = asyncio.Event()
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        # The client lives in a task of its own: an error of the flow's then stays what it is, and is in no group.
        self._task = asyncio.create_task(self._live(ready))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._client = await ready
        except TimeoutError:
            await self._end()
            raise NetworkError(
                f"{self.name} did not answer as an MCP server within {CONNECT_SECONDS:.0f} s"
            ) from None
        except BaseException:
            await self._end()
            raise

    async def _end(self) -> None:
        self._client = None
        self._closing.set()
        task, self._task = self._task, None
        if task is not None:
            _, late = await asyncio.wait({task}, timeout=CLOSE_SECONDS)
            for each in late:
                each.cancel()

    def __enter__(self) -> Self:
        """Start or reach the server; see `__aenter__`."""
        _check_installed()
        from anyio.from_thread import start_blocking_portal

        with contextlib.ExitStack() as opening:
            portal = opening.enter_context(start_blocking_portal())
            portal.call(self._begin)
            self._portal, self._opened = portal, opening.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        portal, self._portal = self._portal, None
        if portal is not None:
            with self._opened:
                portal.call(self._end)

    async def _live(self, ready: asyncio.Future[Client]) -> None:
        from mcp import Client

        try:
            async with self._transport() as target, Client(target, cache=None) as client:
                ready.set_result(client)
                await self._closing.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not ready.done():
                ready.set_exception(self._not_there(error))

    @asynccontextmanager
    async def _transport(self) -> AsyncGenerator[Any, None]:
        async with AsyncExitStack() as stack:
            if self._is_url:
                import httpx2
                from mcp.client.streamable_http import streamable_http_client

                headers = {name: _revealed(value) for name, value in self._headers.items()}
                patience = httpx2.Timeout(CONNECT_SECONDS, read=max(self._timeout, CONNECT_SECONDS))
                client = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=patience))
                yield streamable_http_client(self._target, http_client=client)
            else:
                from mcp import StdioServerParameters
                from mcp.client.stdio import stdio_client

                parameters = StdioServerParameters(
                    command=self._target,
                    args=list(self._arguments),
                    env={name: _revealed(value) for name, value in self._env.items()},
                    cwd=self._cwd,
                )
                errors = await stack.enter_async_context(self._stderr())
                yield stdio_client(parameters, errlog=errors)

    @asynccontextmanager
    async def _stderr(self) -> AsyncGenerator[TextIO, None]:
        """Provide a file for the command's stderr, whose lines become the flow's own, without secrets."""
        reading, writing = os.pipe()
        lines = asyncio.StreamReader(limit=_SHOWN)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(reading, "rb", buffering=0)
        )

        async def relay() -> None:
            while True:
                try:
                    line = await lines.readline()
                except ValueError:
                    continue  # a line without an end; the part that was read is gone
                if not line:
                    return
                print(self._masked(line.decode(errors="replace").rstrip("\n")), file=sys.stderr, flush=True)

        async with asyncio.TaskGroup() as tasks:
            relaying = tasks.create_task(relay())
            try:
                with os.fdopen(writing, "w") as errors:
                    yield errors
            finally:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):  # what the command started may hold its stderr on
                        await asyncio.wait({relaying})
                relaying.cancel()
                pipe.close()

    def _not_there(self, error: BaseException) -> KodoError:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        said = self._masked(str(first) or type(first).__name__)
        if isinstance(first, (FileNotFoundError, PermissionError)):
            return UsageError(f"the MCP server {self.name} cannot be started: {said}")
        return NetworkError(f"the MCP server {self.name} does not answer as one: {said}")

    def tools(self) -> Any:
        """Return the server's tools: `name, description, schema` of each. Awaited in async flows."""
        return self._do("tools", "", self._tools)

    async def _tools(self) -> list[dict[str, Any]]:
        client, cursor = self._open(), None
        rows: list[dict[str, Any]] = []
        while len(rows) < MAX_TOOLS:
            async with self._translated("tools/list"):
                page = await client.list_tools(cursor=cursor)
            rows += [
                {"name": tool.name, "description": tool.description or "", "schema": tool.input_schema}
                for tool in page.tools
            ]
            cursor = page.next_cursor
            if not cursor:
                break
        return rows

    def call(self, tool: str, /, **arguments: Any) -> Any:
        """Call a tool, and return what it gives: its structured content, else its text. Awaited in async flows.

        What is neither is a list of MCP's content blocks as maps. A call is made once; nothing is asked of a model.

        Raises:
            ToolError: the tool failed, or there is no such tool.
            DeadlineError: it took longer than `timeout`; it may go on at the server.
            NetworkError: the server has ended.
        """
        return self._do("call", tool, partial(self._call, tool, arguments))

    def _do(self, method: str, what: str, work: Any) -> Any:
        if self._portal is not None:
            return self._portal.call(work)
        return Pending(f"mcp.server(…).{method}({what!r})", work)

    async def _call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        client = self._open()
        shown = self._shown(arguments)
        name = f"{self.name}: {tool}"
        await action(name=name, phase="start", arguments=shown)
        began = time.monotonic()
        try:
            async with self._translated(tool):
                given = plain(_revealed_in(arguments))
                answer = await client.call_tool(tool, given, read_timeout_seconds=self._timeout)
            text = "\n".join(part.text for part in answer.content if part.type == "text")
            if answer.is_error:
                raise ToolError(self.name, tool, self._masked(text[:_SHOWN]) or "it failed")
        except KodoError as error:
            runtime = round(time.monotonic() - began, 3)
            said = {"type": type(error).__name__, "message": str(error)[:_SHOWN]}
            await emit("action-error", {"name": name, "runtime_s": runtime, **said})
            raise
        await action(name=name, phase="end", runtime_s=round(time.monotonic() - began, 3))
        if answer.structured_content is not None:
            return answer.structured_content
        if all(part.type == "text" for part in answer.content):
            return text
        return [part.model_dump(by_alias=True, mode="json", exclude_none=True) for part in answer.content]

    def _open(self) -> Client:
        if self._client is None:
            raise UsageError(f"use the MCP server {self.name} inside of `async with`, in sync flows `with`")
        return self._client

    @asynccontextmanager
    async def _translated(self, tool: str) -> AsyncGenerator[None, None]:
        from mcp.shared.exceptions import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        try:
            yield
        except MCPError as error:
            said = self._masked(error.error.message[:_SHOWN])
            if error.error.code == REQUEST_TIMEOUT:
                raise DeadlineError(f"{tool} of {self.name} took longer than {self._timeout:g} s") from None
            if error.error.code == CONNECTION_CLOSED:
                raise NetworkError(f"the MCP server {self.name} has ended: {said}") from None
            raise ToolError(self.name, tool, said) from None
        except RuntimeError as error:
            raise ToolError(self.name, tool, self._masked(str(error)[:_SHOWN])) from None

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, MASK)
        return text

    def _shown(self, value: Any) -> Any:
        """Return arguments as an event may show them."""
        if (secret := _secret_in(value)) is not None:
            self._secrets.append(secret)
            return MASK
        if isinstance(value, Mapping):
            return {str(key): self._shown(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._shown(part) for part in value[:1000]]
        return self._masked(value[:_SHOWN]) if isinstance(value, str) else plain(value)


def _check_installed() -> None:
    with contextlib.suppress(ImportError):
        import mcp  # noqa: F401

        return
    raise UsageError(f"this flow uses MCP, and the package mcp is not installed; {how_to_install('mcp')}")


def _secret_in(value: Any) -> str | None:
    """Return what a `SecretStr` holds; it is known by its method: pydantic takes long to import."""
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal()) if callable(reveal) else None


def _revealed(value: str | SecretStr) -> str:
    secret = _secret_in(value)
    return str(value) if secret is None else secret


def _revealed_in(value: Any) -> Any:
    if (secret := _secret_in(value)) is not None:
        return secret
    if isinstance(value, Mapping):
        return {str(key): _revealed_in(part) for key, part in value.items()}
    return [_revealed_in(part) for part in value] if isinstance(value, (list, tuple)) else value
