"""A Chromium that is driven by its own protocol (CDP), as a person would drive it: by roles and accessible names.

Elements are found in the accessibility tree that a screen reader gets, clicked and typed into by real input events.
What a page asks of the network, and what its policy refuses, is kept for tests to look at.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.browser import Browser

__all__ = ["WAIT_S", "Page", "PageError", "as_function"]

WAIT_S = 60.0
"""What hangs fails by it."""


class PageError(AssertionError):
    """The page did not do what a test waits for, or threw; `name` is then the error's own."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


def as_function(script: str, values: Mapping[str, Any]) -> str:
    """Write the call of an async function of a body and names; it gives `{value}`, or `{name, text}` of an error."""
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    return f"""(async () => {{ try {{ return {{ value: await (async () => {{ {names}{script} }})() }} }}
        catch (error) {{ return {{ name: error?.name, text: String(error?.stack ?? error) }} }} }})()"""


class Page:
    """A tab; `Browser.page` opens one.

    Attributes:
        requests: the URLs that it asked for.
        complaints: errors and refused policies, as the console says them.
        ended: how each download of its browser ended, `completed` or `canceled`, once `downloads` was called.
    """

    def __init__(self, browser: Browser, session: str, target: str):
        self._browser = browser
        self._session = session
        self._target = target
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.ended = browser.ended

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

    async def run(self, script: str, **values: Any) -> Any:
        """Evaluate the body of an async function, with `values` as its names; return what it returns, as JSON.

        Raises:
            PageError: it threw.
        """
        answer = await self.evaluate(as_function(script, values))
        if "text" in answer:
            raise PageError(answer["text"], answer["name"])
        return answer.get("value")

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
            root: dict[str, Any] = {"objectId": await self._root()}
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
        given = {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": True}
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
