"""Drives a page of a real Firefox by WebDriver BiDi: evaluates in it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.page import PageError, as_function

__all__ = ["FIREFOX", "FirefoxPage", "open_firefox"]

START_SECONDS = 60.0
RUN_SECONDS = 60.0

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
"""Its program, None where there is none."""

PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}
"""It calls nobody."""


class FirefoxPage:
    """One page, over one WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._context = ""

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async for message in self._socket:
            said = json.loads(message.data)
            if said.get("id") == number:
                if said["type"] == "error":
                    raise RuntimeError(f"{method}: {said['message']}")
                return dict(said["result"])
        raise RuntimeError("Firefox went away")

    async def begin(self, url: str) -> None:
        """Open a session and a URL."""
        await self.send("session.new", capabilities={})
        tree = await self.send("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]
        await self.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def run(self, script: str, **values: Any) -> Any:
        """Evaluate the body of an async function, as `tests.support.page.Page.run`."""
        async with asyncio.timeout(RUN_SECONDS):
            said = await self.send(
                "script.evaluate",
                expression=f"{as_function(script, values)}.then(JSON.stringify)",
                target={"context": self._context},
                awaitPromise=True,
            )
        if said["type"] != "success":
            raise PageError(json.dumps(said["exceptionDetails"]), "SyntaxError")
        answer = json.loads(said["result"]["value"])
        if "text" in answer:
            raise PageError(answer["text"], answer["name"])
        return answer.get("value")


def _make_profile(folder: Path) -> None:
    folder.mkdir(parents=True)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (folder / "user.js").write_text("".join(lines))


@contextlib.asynccontextmanager
async def open_firefox(profile: Path, url: str) -> AsyncIterator[FirefoxPage]:
    """Show a URL in a Firefox of its own."""
    if FIREFOX is None:
        raise RuntimeError("Firefox is missing")
    _make_profile(profile)
    browser = await asyncio.create_subprocess_exec(
        FIREFOX,
        "--headless",
        "--no-remote",
        f"--profile={profile}",
        "--remote-debugging-port=0",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": str(profile), "MOZ_HEADLESS": "1"},
        start_new_session=True,
    )
    assert browser.stderr is not None
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_SECONDS):
            while b"ws://" not in (line := await browser.stderr.readline()):
                if not line:
                    raise RuntimeError("Firefox did not start")
        reading = asyncio.ensure_future(_pass_over(browser.stderr))
        where = line[line.index(b"ws://") :].decode().strip()
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{where}/session", max_msg_size=0) as socket:
            page = FirefoxPage(socket)
            await page.begin(url)
            yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, 9)
        if reading is not None:
            reading.cancel()
        await browser.wait()


async def _pass_over(stream: asyncio.StreamReader) -> None:
    """Read what nobody wants, so that its writer goes on."""
    while await stream.read(1 << 16):
        pass
