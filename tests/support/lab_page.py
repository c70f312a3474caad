"""A page of a real Chromium on a host of a lab."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.browser import open_page, running_chromium
from tests.support.lab import Lab
from tests.support.page import Page
from tests.support.web_page import serve

__all__ = ["ORIGIN", "lab_page"]

_PORT = 8365
ORIGIN = f"http://127.0.0.1:{_PORT}"


@contextlib.asynccontextmanager
async def lab_page(lab: Lab, host: str, profile: Path, shown: Path, *registries: str) -> AsyncIterator[Page]:
    """Show the page in a folder, which may ask registries, in a Chromium on a host, served at `ORIGIN`."""
    async with contextlib.AsyncExitStack() as stack:
        with lab.inside(host):
            url = await stack.enter_async_context(serve(shown, *registries, port=_PORT))
            devtools = stack.enter_context(running_chromium(profile))
            page = await stack.enter_async_context(open_page(devtools, url, profile / "downloads"))
        yield page
