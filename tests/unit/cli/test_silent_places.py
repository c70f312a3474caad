"""A registry that says nothing, in whichever way, costs no command more than a moment when what is nearby answers.

In virtual time: whoever waited for such a place would wait for ever, or until a deadline that is seen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kodo.client.resolve import FAR_SECONDS, SILENT_SECONDS
from kodo.p2p.errors import DeadlineError, NotFoundError
from kodo.p2p.net import names
from tests.support.virtual_time import run_virtual
from tests.support.world import World
from tests.unit.cli.test_near import COMMANDS, HONEST, Here, command

KINDS = ["says nothing", "says half a word", "is dead", "has no name", "has a silent name server", "refuses"]


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the name server of `silent.example` say nothing, and nobody know `none.example`."""
    for name in ("KODO_HOME", "KODO_REGISTRY", "KODO_NODE"):
        monkeypatch.delenv(name, raising=False)
    over = threading.Event()

    def look_up(host: str, *_: object) -> list[object]:
        if host == "silent.example":
            over.wait()
        raise socket.gaierror("no such name")

    monkeypatch.setattr(names.socket, "getaddrinfo", look_up)
    yield
    over.set()
    for thread in threading.enumerate():
        if thread.name == "name lookup":
            thread.join()


@contextlib.asynccontextmanager
async def registry(kind: str) -> AsyncIterator[str]:
    """Give the URL of a registry that is away."""
    match kind:
        case "has no name":
            yield "http://none.example:8360"
        case "has a silent name server":
            yield "http://silent.example:8360"
        case "refuses":
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                yield f"http://127.0.0.1:{nobody.getsockname()[1]}"
        case "says nothing":
            with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
                yield f"http://127.0.0.1:{silent.getsockname()[1]}"
        case "is dead":
            # Who is not taken from a full queue gets no answer to a connection either.
            with contextlib.ExitStack() as stack:
                full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
                for _ in range(4):
                    filler = stack.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(full.getsockname())
                yield f"http://127.0.0.1:{full.getsockname()[1]}"
        case "says half a word":

            async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                    await reader.read()
                writer.close()

            server = await asyncio.start_server(begin, "127.0.0.1", 0)
            try:
                yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            finally:
                server.close()


def seconds_of(name: str, home: Path, kind: str | None) -> float:
    """Return how long a command takes that knows of such a registry; None: of no registry."""
    world = World()

    async def run() -> float:
        world.service.answers.update(HONEST)
        async with world.host, contextlib.AsyncExitStack() as stack:
            await world.host.listen(["10.0.0.1"], 4711)
            world.claim("n.example")
            urls = [await stack.enter_async_context(registry(kind)) for _ in range(3)] if kind is not None else []
            client = world.client(home, confirm_node=lambda *_: True, registries=urls, timeout=3600)
            began = asyncio.get_running_loop().time()
            async with client:
                await command(name, Here(client, json=True))
            return asyncio.get_running_loop().time() - began

    return run_virtual(run())


@pytest.mark.parametrize("name", COMMANDS)
def test_registries_that_say_nothing_cost_a_command_no_more_than_a_moment(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = seconds_of(name, tmp_path / "usual", None)
    said = capsys.readouterr().out
    for kind in KINDS:
        assert seconds_of(name, tmp_path / kind, kind) <= usual + FAR_SECONDS + 0.01, kind
        assert capsys.readouterr().out == said, kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_nobody_has_is_not_waited_for_longer(kind: str, tmp_path: Path) -> None:
    async def run(timeout: float) -> float:
        async with registry(kind) as url:
            began = asyncio.get_running_loop().time()
            async with World().client(tmp_path, registries=[url] * 3, timeout=timeout) as client:
                with pytest.raises(DeadlineError if timeout == 2 else NotFoundError):
                    await client.node("mistyped")
            return asyncio.get_running_loop().time() - began

    assert run_virtual(run(3600)) <= SILENT_SECONDS
    if kind not in ("has no name", "refuses"):
        assert run_virtual(run(2)) == 2  # what --timeout says
