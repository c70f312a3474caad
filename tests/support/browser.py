"""A Chromium of its own, for the tests and for measuring, and how it is spoken to: its own protocol (CDP)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.page import WAIT_S, Page, PageError

__all__ = ["Browser", "chromium", "connected", "open_page", "running_chromium"]

FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
]
PORT_SECONDS = 30.0


class Browser:
    """A connection to a Chromium.

    Attributes:
        ended: how each download ended, `completed` or `canceled`, where a page has asked for downloads.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._next = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> Any:
        """Make a call of the protocol and return its result."""
        self._next += 1
        number = self._next
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {
            "id": number,
            "method": method,
            "params": params or {},
            **({"sessionId": session} if session else {}),
        }
        await self._socket.send_str(json.dumps(message))
        async with asyncio.timeout(WAIT_S):
            return await answer

    async def read(self) -> None:
        """Take what the browser says until it ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                answer = self._answers.pop(said["id"], None)
                if answer is not None and not answer.done():
                    if "error" in said:
                        answer.set_exception(PageError(said["error"]["message"]))
                    else:
                        answer.set_result(said["result"])
            elif said["method"] == "Browser.downloadProgress":
                if said["params"]["state"] != "inProgress":
                    self.ended.put_nowait(said["params"]["state"])
            elif (page := self._pages.get(said.get("sessionId", ""))) is not None:
                page.take(said["method"], said["params"])

    async def context(self) -> str:
        """Return a new profile without anything in it, as another person has; it lasts as long as the connection."""
        made = await self.send("Target.createBrowserContext", {"disposeOnDetach": True})
        return str(made["browserContextId"])

    async def forget(self, context: str) -> None:
        """Close a profile and all of its pages."""
        await self.send("Target.disposeBrowserContext", {"browserContextId": context})

    async def page(self, url: str, *, context: str | None = None, width: int = 1280, height: int = 900) -> Page:
        """Open a page in a tab of its own; without a context in the browser's first profile, which is on disk."""
        given = {"browserContextId": context} if context else {}
        target = (await self.send("Target.createTarget", {"url": "about:blank", "newWindow": True, **given}))[
            "targetId"
        ]
        session = (await self.send("Target.attachToTarget", {"targetId": target, "flatten": True}))["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            await page.send(f"{domain}.enable")
        # Each tab is as one in front: what is behind others draws nothing.
        await page.send("Emulation.setFocusEmulationEnabled", {"enabled": True})
        await page.resize(width, height)
        await page.goto(url)
        return page


@contextlib.contextmanager
def running_chromium(profile: Path, *flags: str, url: str = "about:blank") -> Iterator[str]:
    """Run a Chromium of one's own, which shows a URL; give the address of its DevTools, `127.0.0.1:PORT`."""
    executable = shutil.which("chromium")
    if executable is None:
        raise RuntimeError("Chromium is missing; scripts/test installs it")
    flags = (*FLAGS, *flags, *(["--no-sandbox"] if os.geteuid() == 0 else []))
    browser = subprocess.Popen(
        [executable, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", url],
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
async def connected(devtools: str) -> AsyncIterator[Browser]:
    """Connect to a running Chromium; several may."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://{devtools}/json/version") as response:
            url = (await response.json())["webSocketDebuggerUrl"]
        async with http.ws_connect(url, max_msg_size=0) as socket:
            browser = Browser(socket)
            reading = asyncio.create_task(browser.read())
            try:
                yield browser
            finally:
                reading.cancel()
                await asyncio.wait([reading])


@contextlib.asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """Run a Chromium for as long as the block lasts, and connect to it."""
    with running_chromium(profile) as devtools:
        async with connected(devtools) as browser:
            yield browser


@contextlib.asynccontextmanager
async def open_page(devtools: str, url: str, downloads: Path, *, on_disk: bool = False) -> AsyncIterator[Page]:
    """Show a URL in a profile of its own of a running browser; what it downloads lies in `downloads`.

    Args:
        on_disk: in the browser's first profile instead; others keep in memory what a page stores.
    """
    async with connected(devtools) as browser:
        context = None if on_disk else await browser.context()
        try:
            page = await browser.page(url, context=context)
            await page.downloads(downloads)
            yield page
        finally:
            if context is not None:
                await browser.forget(context)
