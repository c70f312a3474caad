"""The page's engine as a page under the page's own policy, and nodes for it whose flows run in this process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner, LockDeniedError

WEB = Path(__file__).resolve().parents[2] / "client" / "web"
LID = "0" * 25 + "1"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "worker-src 'self'; frame-src blob:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
    "trusted-types kodo"
)


async def count(run: InProcessRunner) -> int:
    for number in range(run.spec.inputs["n"]):
        run.emit("result", {"number": number, "text": "x" * run.spec.inputs.get("size", 0)})
    return int(run.spec.inputs["n"])


async def ask(run: InProcessRunner) -> Any:
    def judge(candidate: Any) -> Any:
        if candidate == "no":
            raise LockDeniedError("yes is the only answer")
        return candidate

    return await run.lock(LID, {"type": "string"}, judge=judge, expires_s=3600)


async def make(run: InProcessRunner) -> str:
    for name, size in run.spec.inputs["files"].items():
        await asyncio.to_thread(run.output, name, pieces(size))
    return "made"


async def wait(run: InProcessRunner) -> str:
    run.emit("result", {"number": 0})
    for number in range(1, 1000):
        await asyncio.sleep(0.05)
        run.emit("result", {"number": number})
    return "waited"


async def mirror(run: InProcessRunner) -> Any:
    return run.spec.inputs["value"]


FLOWS = {"count": count, "ask": ask, "make": make, "wait": wait, "mirror": mirror}


def pieces(size: int) -> Iterator[bytes]:
    """Bytes in which no chunk is like another, piece by piece."""
    source = random.Random(1)
    for at in range(0, size, 64 << 20):
        yield source.randbytes(min(size - at, 64 << 20))


def content(size: int) -> bytes:
    """The same as one."""
    return b"".join(pieces(size))


async def describe(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    schema = {"type": "object"}
    return [
        {"path": f"flows.{name}", "name": name, "entry": name, "schema": schema, "release": "1"} for name in FLOWS
    ]


@contextlib.asynccontextmanager
async def node_at(home: Path, executor: InProcessExecutor, **more: Any) -> AsyncIterator[Node]:
    """Run a node on loopback."""
    settings: dict[str, Any] = {
        "home": home,
        "entries": tuple(f"flows.{name}" for name in FLOWS),
        "name": "here.example",
        "hosts": ("127.0.0.1",),
        "announce_lan": False,
        "disk_reserve_bytes": 0,
        **more,
    }
    async with Node(NodeConfig(**settings), executor=executor, describe=describe) as node:
        yield node


def target(node: Node) -> dict[str, Any]:
    return {"peerId": node.peer_id, "addrs": [str(address) for address in node.addresses]}


def build_harness(folder: Path) -> Path:
    """Build the engine as the page is built, with `client/web/test/harness.ts` in the place of pages."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("Node.js is missing; scripts/test installs it")
    subprocess.run(
        [node, "build.mjs", "--entry", "test/harness.ts", "--outdir", str(folder)],
        cwd=WEB,
        check=True,
        timeout=120,
        stdout=subprocess.DEVNULL,
    )
    return folder


@contextlib.asynccontextmanager
async def serve(folder: Path, *registries: str, port: int = 0) -> AsyncIterator[str]:
    """Serve a folder as the page is served: on loopback, with its policy, which lets it ask registries."""
    policy = CSP.replace("connect-src 'self'", " ".join(["connect-src 'self'", *registries]))

    @web.middleware
    async def policed(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        response.headers["Content-Security-Policy"] = policy
        return response

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / "index.html")

    async def nothing(_: web.Request) -> web.Response:
        return web.Response(status=204)

    app = web.Application(middlewares=[policed])
    app.add_routes([web.get("/", index), web.get("/favicon.ico", nothing), web.static("/", folder)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"{site.name}/"
    finally:
        await runner.cleanup()


class SurvivingExecutor(InProcessExecutor):
    """Its runners outlive their node, as processes do."""

    async def aclose(self) -> None:
        """Leave them alone: the next node adopts them."""
