"""Run one framework's small flow, in whatever environment has it: run.py NAME. Its model is on this machine.

Prints `calls HOST` for each host that this process asks for, and the flow's answer as `answer: …`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import runpy
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
HERE = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}


def watch(name: str, arguments: tuple[Any, ...]) -> None:
    """Tell of each host that is looked up or connected to, and is not this machine."""
    host: Any = None
    if name == "socket.getaddrinfo":
        host = arguments[0]
    elif name == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if host is not None and (text := host.decode() if isinstance(host, bytes) else str(host)) not in HERE:
        os.write(2, f"calls {text}\n".encode())


def main(name: str) -> None:
    """Run it."""
    sys.path[0] = str(ROOT)  # not this folder, whose files are called as what they import
    ours = types.ModuleType("tests")  # some packages install one of that name
    ours.__path__ = [str(ROOT / "tests")]
    sys.modules["tests"] = ours
    from tests.support.chat import ChatServer, say

    sys.addaudithook(watch)
    flow = runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))
    with ChatServer(flow.get("SCRIPT", [say("all is well")])) as server:
        answer = flow["work"](server.url)
        if inspect.iscoroutine(answer):
            answer = asyncio.run(answer)
    print(f"answer: {answer}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
