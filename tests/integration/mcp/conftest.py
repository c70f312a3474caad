"""A node that `koco up` started, and `koco mcp` as hosts start it: over stdio, with the package's own client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from mcp import Client, StdioServerParameters
from mcp.client import session
from mcp.client.stdio import stdio_client

from tests.support.koco import KOCO, NodeProcess, end_all, environment

SCOPE = Path(__file__).parent / "scope" / "scope.yaml"
REVISIONS = ["2026-07-28", "legacy"]
"""How the package's client is told to speak: the revision without sessions, and the latest with `initialize`."""

OLDEST = "2025-06-18"
"""The oldest revision that hosts of today speak: it knows no questions at a URL."""


class BridgeNode(NodeProcess):
    """A node with the flows of these tests, without Ray."""

    def __init__(self, home: Path, *words: str, scope: Path = SCOPE) -> None:
        self.scope = scope
        super().__init__(home, "--executor", "process", "--host", "127.0.0.1", *words)


@contextlib.contextmanager
def started(home: Path, *words: str, scope: Path = SCOPE) -> Iterator[BridgeNode]:
    """Run a node; at its end nothing of it is left."""
    node = BridgeNode(home, *words, scope=scope)
    try:
        yield node
        if node.process.poll() is None:
            assert node.stop() == 0, node.stderr
    finally:
        if node.process.poll() is None:
            node.kill()
        end_all(home)


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeNode]:
    """One node for all tests that do not kill it."""
    with started(tmp_path_factory.mktemp("mcp") / "home") as node:
        yield node


class Bridge:
    """`koco mcp` in a process, and a host that speaks to it.

    Attributes:
        client: the host.
        stderr: what the bridge wrote there.
    """

    def __init__(self, client: Client, stderr: Path, before: set[int]) -> None:
        self.client = client
        self.stderr = stderr
        self._before = before

    @property
    def process(self) -> psutil.Process:
        """The bridge's own process."""
        [found] = [
            child
            for child in psutil.Process().children()
            if child.pid not in self._before and "mcp" in child.cmdline()
        ]
        return found

    async def tool(self, name: str, /, **arguments: Any) -> Any:
        """Call a tool; flows by the last part of their path."""
        return await self.client.call_tool(self.named(name), arguments)

    @staticmethod
    def named(name: str) -> str:
        """The tool of a flow, by the last part of its path."""
        own = name.startswith(("run", "read_", "save_", "share_", "find_", "show_"))
        return name if own and name != "read" else f"bridge_local-bridge_flows_{name}"


@contextlib.contextmanager
def asking_for(mode: str) -> Iterator[str]:
    """Let the package's client ask for a revision; by itself it always asks for the latest with `initialize`."""
    with pytest.MonkeyPatch.context() as patch:
        if mode == OLDEST:
            patch.setattr(session, "LATEST_HANDSHAKE_VERSION", mode)
            yield "legacy"
        else:
            yield mode


@contextlib.asynccontextmanager
async def bridge(
    home: Path, *words: str, mode: str, tmp: Path | None = None, **options: Any
) -> AsyncIterator[Bridge]:
    """Start a bridge as a host does."""
    stderr = (tmp or home) / "bridge.stderr"
    before = {child.pid for child in psutil.Process().children()}
    with stderr.open("w") as errlog, asking_for(mode) as known:
        parameters = StdioServerParameters(command=KOCO, args=["mcp", "--no-lan", *words], env=environment(home))
        transport = stdio_client(parameters, errlog=errlog)
        async with Client(transport, mode=known, cache=None, **options) as client:
            yield Bridge(client, stderr, before)


class Hosts:
    """Hosts that stay, each with its bridge, for tests that need none of their own: a bridge costs a second to start.

    One for each revision, and of each two: of a host that can ask a person, and of one that cannot.
    """

    def __init__(self, home: Path, tmp: Path) -> None:
        self._home = home
        self._tmp = tmp
        self._person: Callable[[Any, Any], Awaitable[Any]] | None = None
        self._open: dict[tuple[str, bool], Bridge] = {}
        self._kept: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def host(
        self, mode: str, person: Callable[[Any, Any], Awaitable[Any]] | None = None
    ) -> AsyncIterator[Bridge]:
        """Provide the host of a revision; `person` is whom it asks meanwhile."""
        key = (mode, person is not None)
        if key not in self._open:
            ready: asyncio.Future[Bridge] = asyncio.get_running_loop().create_future()
            self._kept.append(asyncio.create_task(self._keep(*key, ready)))
            await asyncio.wait([ready, self._kept[-1]], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await self._kept.pop()  # it says why
            self._open[key] = ready.result()
        self._person = person
        try:
            yield self._open[key]
        finally:
            self._person = None

    async def aclose(self) -> None:
        self._over.set()
        await asyncio.gather(*self._kept)

    async def _keep(self, mode: str, can_ask: bool, ready: asyncio.Future[Bridge]) -> None:
        """Keep a host in a task of its own: what opens its streams has to close them."""
        folder = self._tmp / f"{mode}-{can_ask}"
        folder.mkdir()
        options = {"elicitation_callback": self._ask} if can_ask else {}
        async with bridge(self._home, mode=mode, tmp=folder, **options) as here:
            ready.set_result(here)
            await self._over.wait()

    async def _ask(self, context: Any, params: Any) -> Any:
        assert self._person is not None, "nobody is there to be asked"
        return await self._person(context, params)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hosts(shared_node: BridgeNode, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosts]:
    """Hosts of the node that all tests share; for tests whose loop is the session's."""
    made = Hosts(shared_node.home, tmp_path_factory.mktemp("hosts"))
    yield made
    await made.aclose()


def text_of(result: Any) -> str:
    """The texts of a result."""
    return "\n".join(part.text for part in result.content if part.type == "text")
