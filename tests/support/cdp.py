"""Drives a page of a real Chromium by the DevTools protocol: evaluates in it, and reads its log."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.support.browser import FLAGS

__all__ = ["Page", "PageError", "as_function", "open_page", "running_chromium"]

PORT_SECONDS = 30.0
RUN_SECONDS = 60.0
"""What hangs fails by it."""


class PageError(AssertionError):
    """What was evaluated threw; `name` is the error's own."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def as_function(script: str, values: Mapping[str, Any]) -> str:
    """Write the call of an async function of a body and names; it gives `{value}`, or `{name, text}` of an error."""
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    return f"""(async () => {{ try {{ return {{ value: await (async () => {{ {names}{script} }})() }} }}
        catch (error) {{ return {{ name: error?.name, text: String(error?.stack ?? error) }} }} }})()"""


class Page:
    """One page, over one WebSocket.

    Attributes:
        requests: every URL that the page asked for.
        problems: what it threw and did not catch, and what its console calls an error.
        downloads: how each download of the browser ended, `completed` or `canceled`.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.downloads: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if (answer := self._answers.pop(said.get("id", 0), None)) is not None:
                if not answer.done():
                    answer.set_result(said)
                continue
            method, about = said.get("method"), said.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                details = about["exceptionDetails"]
                self.problems.append(str(details.get("exception", {}).get("description") or details["text"]))
            elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
                self.problems.append(about["entry"]["text"])
            elif method == "Browser.downloadProgress" and about["state"] != "inProgress":
                self.downloads.put_nowait(about["state"])
            for waiter in self._waiting.pop(method, []):
                if not waiter.done():
                    waiter.set_result(about)

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        said = await answer
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        return dict(said["result"])

    async def heard(self, method: str) -> Any:
        """Wait for an event of the protocol."""
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(method, []).append(waiter)
        return await waiter

    async def go(self, url: str) -> None:
        """Load a URL, whole."""
        loaded = asyncio.ensure_future(self.heard("Page.loadEventFired"))
        await self.send("Page.navigate", url=url)
        await loaded

    async def run(self, script: str, **values: Any) -> Any:
        """Evaluate the body of an async function, with `values` as its names; return what it returns, as JSON.

        Raises:
            PageError: it threw.
        """
        body = as_function(script, values)
        async with asyncio.timeout(RUN_SECONDS):
            said = await self.send("Runtime.evaluate", expression=body, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise PageError("SyntaxError", json.dumps(said["exceptionDetails"]))
        answer = said["result"]["value"]
        if "text" in answer:
            raise PageError(answer["name"], answer["text"])
        return answer.get("value")


@contextlib.contextmanager
def running_chromium(profile: Path, *flags: str) -> Iterator[str]:
    """Run a Chromium of one's own; give the address of its DevTools, `127.0.0.1:PORT`."""
    executable = shutil.which("chromium")
    if executable is None:
        raise RuntimeError("Chromium is missing; scripts/test installs it")
    flags = (*FLAGS, *flags, *(["--no-sandbox"] if os.geteuid() == 0 else []))
    browser = subprocess.Popen(
        [executable, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"127.0.0.1:{_port(profile)}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, 9)
        browser.wait()


def _port(profile: Path) -> int:
    """Wait for the port that Chromium chose."""
    file, until = profile / "DevToolsActivePort", time.monotonic() + PORT_SECONDS
    while not (file.is_file() and (lines := file.read_text().splitlines())):
        if time.monotonic() > until:
            raise RuntimeError("Chromium did not start")
        time.sleep(0.05)
    return int(lines[0])


@contextlib.asynccontextmanager
async def open_page(devtools: str, url: str, downloads: Path, *, on_disk: bool = False) -> AsyncIterator[Page]:
    """Show a URL in a profile of its own of a running browser; what it downloads lies in `downloads`.

    Args:
        on_disk: in the browser's first profile instead; others keep in memory what a page stores.
    """
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://{devtools}/json/version") as response:
            main = (await response.json())["webSocketDebuggerUrl"]
        async with http.ws_connect(main, max_msg_size=0) as over, Page(over) as browser:
            made = {} if on_disk else await browser.send("Target.createBrowserContext")
            await browser.send(
                "Browser.setDownloadBehavior",
                behavior="allow",
                **made,
                downloadPath=str(downloads),
                eventsEnabled=True,
            )
            target = await browser.send("Target.createTarget", url="about:blank", **made)
            where = f"ws://{devtools}/devtools/page/{target['targetId']}"
            try:
                async with http.ws_connect(where, max_msg_size=0) as socket, Page(socket) as page:
                    for domain in ("Page", "Runtime", "Network", "Log"):
                        await page.send(f"{domain}.enable")
                    page.downloads = browser.downloads
                    await page.go(url)
                    yield page
            finally:
                if made:
                    await browser.send("Target.disposeBrowserContext", **made)
