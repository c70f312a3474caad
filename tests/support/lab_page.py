"""A page of a real Chromium on a host of a lab: shows it, and evaluates in it what comes on its standard input.

python -m tests.support.lab_page PROFILE URL|FOLDER [REGISTRY ...]

A folder is served on the host's loopback, at `ORIGIN`, as `web_page.serve` does. Each line is the JSON of
`{script, values}`, and is answered by one line, `{value}` or `{error}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.cdp import PageError, open_page, running_chromium
from tests.support.lab import ROOT, Lab
from tests.support.web_page import serve

__all__ = ["ORIGIN", "LabPage", "lab_page"]

ANSWER_SECONDS = 90.0
_PORT = 8365
ORIGIN = f"http://127.0.0.1:{_PORT}"


class LabPage:
    """The page, as a test has it, outside of the lab."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, script: str, **values: Any) -> Any:
        """Evaluate in the page, as `cdp.Page.run`.

        Raises:
            PageError: it threw.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"script": script, "values": values}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the browser ended with code {await self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PageError("Error", answer["error"])
        return answer["value"]


@contextlib.asynccontextmanager
async def lab_page(lab: Lab, host: str, profile: Path, shown: str | Path, *registries: str) -> AsyncIterator[LabPage]:
    """Show a URL, or a page in a folder that may ask registries, in a Chromium on a host; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *lab.command(host, sys.executable, "-m", "tests.support.lab_page", str(profile), str(shown), *registries),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield LabPage(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def main(profile: Path, shown: str, *registries: str) -> None:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        serving = serve(Path(shown), *registries, port=_PORT)
        url = shown if "://" in shown else await stack.enter_async_context(serving)
        devtools = stack.enter_context(running_chromium(profile))
        page = await stack.enter_async_context(open_page(devtools, url, profile / "downloads"))
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            try:
                answer = {"value": await page.run(asked["script"], **asked["values"])}
            except (AssertionError, TimeoutError) as error:
                answer = {"error": f"{error!r} {page.problems}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
