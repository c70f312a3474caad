"""A Chromium that is driven by its own protocol (CDP), as a person would drive it: by roles and accessible names.

Elements are found in the accessibility tree that a screen reader gets, clicked and typed into by real input events.
What a page asks of the network, and what its policy refuses, is kept for tests to look at.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.browser import FLAGS

WAIT_S = 60.0
"""What hangs fails by it."""


class PageError(AssertionError):
    """The page did not do what a test waits for."""


class Browser:
    """A Chromium with a profile of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._next = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

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
            elif (page := self._pages.get(said.get("sessionId", ""))) is not None:
                page.take(said["method"], said["params"])

    async def context(self) -> str:
        """Return a new profile without anything in it, as another person has."""
        return str((await self.send("Target.createBrowserContext"))["browserContextId"])

    async def page(self, url: str, *, context: str | None = None, width: int = 1280, height: int = 900) -> Page:
        """Open a page in a tab of its own."""
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


class Page:
    """A tab.

    Attributes:
        requests: the URLs that it asked for.
        complaints: errors and refused policies, as the console says them.
    """

    def __init__(self, browser: Browser, session: str, target: str):
        self._browser = browser
        self._session = session
        self._target = target
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def take(self, method: str, params: dict[str, Any]) -> None:
        """Note what happens."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))

    async def send(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Make a call of the protocol in this tab."""
        return await self._browser.send(method, params, self._session)

    async def goto(self, url: str) -> None:
        """Go to an address, from anew."""
        await self.send("Page.navigate", {"url": url})
        await self.wait("document.readyState === 'complete'")

    async def reload(self) -> None:
        """Load it again."""
        await self.evaluate("window.before = true")
        await self.send("Page.reload")
        await self.wait("!window.before && document.readyState === 'complete'")

    async def resize(self, width: int, height: int) -> None:
        """Give it a size in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.send("Emulation.setDeviceMetricsOverride", metrics)

    async def dark(self, on: bool) -> None:
        """Have the system say that dark is wanted, or light."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        await self.send("Emulation.setEmulatedMedia", {"features": [feature]})

    async def offline(self, on: bool) -> None:
        """Take the network of its requests away; WebRTC is not affected."""
        network = {"offline": on, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.send("Network.emulateNetworkConditions", network)

    async def evaluate(self, code: str) -> Any:
        """Return what an expression gives, awaited where it is a promise."""
        result = await self.send(
            "Runtime.evaluate", {"expression": code, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        )
        if "exceptionDetails" in result:
            raise PageError(result["exceptionDetails"].get("exception", {}).get("description", "it failed"))
        return result["result"].get("value")

    async def wait(self, code: str, seconds: float = WAIT_S) -> Any:
        """Wait until an expression is true; a deadline, not a measurement."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            with contextlib.suppress(PageError):
                if value := await self.evaluate(code):
                    return value
            if asyncio.get_running_loop().time() > deadline:
                raise PageError(f"{code} did not come true; the page says:\n{await self.text()}\n{self.complaints}")
            await asyncio.sleep(0.03)

    async def gives(self, code: str, wanted: Any) -> None:
        """Wait until an expression gives what is wanted: a page draws in its own time."""
        try:
            await self.wait(f"JSON.stringify({code}) === {json.dumps(json.dumps(wanted, separators=(',', ':')))}")
        except PageError:
            found = await self.evaluate(code)
            assert found == wanted, code

    async def text(self) -> str:
        """Return all text that is shown."""
        return str(await self.evaluate("document.body ? document.body.innerText : ''"))

    async def sees(self, text: str, seconds: float = WAIT_S) -> None:
        """Wait until a text is shown."""
        shown = r"document.body.innerText.replaceAll('\u00a0', ' ')"
        await self.wait(f"{shown}.includes({json.dumps(text)})", seconds)

    async def hash(self, begin: str) -> str:
        """Wait until the address's fragment begins so, and return it."""
        return str(await self.wait(f"location.hash.startsWith({json.dumps(begin)}) && location.hash"))

    async def all(self, role: str, name: str | None = None, *, within: tuple[str, str] | None = None) -> list[int]:
        """Return the nodes of a role and accessible name that a screen reader is told of."""
        if within is None:
            root = {"objectId": await self._root()}
        else:
            outer = await self.all(*within)
            if not outer:
                return []
            root = {"backendNodeId": outer[0]}
        asked: dict[str, Any] = {**root, "role": role, **({} if name is None else {"accessibleName": name})}
        found = (await self.send("Accessibility.queryAXTree", asked))["nodes"]
        return [node["backendDOMNodeId"] for node in found if not node.get("ignored")]

    async def _root(self) -> str:
        result = await self.send("Runtime.evaluate", {"expression": "document"})
        return str(result["result"]["objectId"])

    async def find(
        self, role: str, name: str | None = None, *, within: tuple[str, str] | None = None, seconds: float = WAIT_S
    ) -> int:
        """Wait for the first element of a role and accessible name."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            with contextlib.suppress(PageError):
                if found := await self.all(role, name, within=within):
                    return found[0]
            if asyncio.get_running_loop().time() > deadline:
                raise PageError(
                    f"there is no {role} {name!r}; the page says:\n{await self.text()}\n{self.complaints}"
                )
            await asyncio.sleep(0.03)

    async def click(self, role: str, name: str | None = None, *, within: tuple[str, str] | None = None) -> None:
        """Click on it, where it is; a click that met something else, because the page moved, is made again."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while not await self._is_clicked(await self.find(role, name, within=within)):
            if asyncio.get_running_loop().time() > deadline:
                raise PageError(f"no click meets the {role} {name!r}; the page says:\n{await self.text()}")
            await asyncio.sleep(0.05)

    async def _is_clicked(self, node: int) -> bool:
        """Click on a node once, and return whether the click met it; one that did not is kept from what it met."""
        before = None
        while True:
            try:
                await self.send("DOM.scrollIntoViewIfNeeded", {"backendNodeId": node})
                quads = (await self.send("DOM.getContentQuads", {"backendNodeId": node}))["quads"]
                target = (await self.send("DOM.resolveNode", {"backendNodeId": node}))["object"]["objectId"]
            except PageError:
                return False  # it is gone: drawn anew
            if quads and quads == before:
                break
            before = quads  # what is still moving is clicked where it comes to rest
            await asyncio.sleep(0.05)
        watch = """function () {
            window.met = false
            const take = event => {
                const meets = event.composedPath().some(each => each === this || each.control === this)
                if (event.type === 'pointerdown') window.met = meets
                if (window.met) return
                event.preventDefault()
                event.stopImmediatePropagation()
            }
            const kinds = ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click']
            for (const kind of kinds) window.addEventListener(kind, take, { capture: true })
            window.unwatch = () => kinds.forEach(kind => window.removeEventListener(kind, take, { capture: true }))
        }"""
        await self.send("Runtime.callFunctionOn", {"functionDeclaration": watch, "objectId": target})
        x, y = sum(quads[0][0::2]) / 4, sum(quads[0][1::2]) / 4
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            await self.send("Input.dispatchMouseEvent", event)
        # A click that loads another page takes the watch with it.
        return bool(await self.evaluate("window.unwatch ? (window.unwatch(), window.met) : true"))

    async def fill(self, role: str, name: str, text: str, *, within: tuple[str, str] | None = None) -> None:
        """Replace what is in a field by what is typed."""
        node = await self.find(role, name, within=within)
        await self.send("DOM.focus", {"backendNodeId": node})
        await self.evaluate("document.activeElement.select && document.activeElement.select()")
        if text:
            await self.send("Input.insertText", {"text": text})
        else:
            await self.press("Delete")

    async def press(self, key: str) -> None:
        """Press a key."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "Delete": 46, " ": 32}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        text = {"Enter": "\r", " ": " "}.get(key)
        await self.send("Input.dispatchKeyEvent", {"type": "keyDown", **event, **({"text": text} if text else {})})
        await self.send("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    async def choose(self, name: str, option: str) -> None:
        """Choose an option of a list."""
        node = await self.find("combobox", name)
        target = (await self.send("DOM.resolveNode", {"backendNodeId": node}))["object"]["objectId"]
        code = """function (text) {
            this.value = [...this.options].find(each => each.textContent === text).value
            this.dispatchEvent(new Event('change', { bubbles: true }))
        }"""
        call = {"functionDeclaration": code, "objectId": target, "arguments": [{"value": option}]}
        await self.send("Runtime.callFunctionOn", call)

    async def attach(self, name: str, *files: Path) -> None:
        """Choose files in a field for files."""
        label = f"[...document.querySelectorAll('label')].find(each => each.textContent === {json.dumps(name)})"
        await self.wait(f"{label}.control !== null")
        field = await self.send("Runtime.evaluate", {"expression": f"{label}.control"})
        given = {"objectId": field["result"]["objectId"], "files": [str(file) for file in files]}
        await self.send("DOM.setFileInputFiles", given)

    async def context(self) -> str | None:
        """Return its profile, in which another tab of the same person is opened."""
        info = await self._browser.send("Target.getTargetInfo", {"targetId": self._target})
        found: str | None = info["targetInfo"].get("browserContextId")
        return found

    async def downloads(self, folder: Path) -> None:
        """Let it save files in a folder without asking."""
        given = {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": False}
        context = await self.context()
        await self._browser.send(
            "Browser.setDownloadBehavior", {**given, **({"browserContextId": context} if context else {})}
        )

    async def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Save how it looks."""
        given = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = await self.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
            )
            given["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        data = (await self.send("Page.captureScreenshot", given))["data"]
        await asyncio.to_thread(file.write_bytes, base64.b64decode(data))

    async def close(self) -> None:
        """Close the tab."""
        await self._browser.send("Target.closeTarget", {"targetId": self._target})


@contextlib.asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """Run a Chromium for as long as the block lasts."""
    executable = shutil.which("chromium")
    if executable is None:
        raise RuntimeError("Chromium is missing; scripts/test installs it")
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else []), "--disable-dev-shm-usage"]
    process = await asyncio.create_subprocess_exec(
        executable,
        *flags,
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(WAIT_S):
            url = ""
            while not url:
                line = (await process.stderr.readline()).decode(errors="replace")
                assert line, "Chromium ended before it was ready"
                url = line.partition("DevTools listening on ")[2].strip()
        drain = asyncio.create_task(_drain(process.stderr))
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
            browser = Browser(socket)
            reading = asyncio.create_task(browser.read())
            try:
                yield browser
            finally:
                for task in (reading, drain):
                    task.cancel()
                await asyncio.gather(reading, drain, return_exceptions=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
