"""The page's engine in a real Chromium, and real nodes for it; and the page itself, with `koco up` and `koco web`."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kodo.node.app import Node
from kodo.node.executors.in_process import InProcessExecutor
from tests.support import koco as support
from tests.support.browser import connected, open_page, running_chromium
from tests.support.page import Page
from tests.support.page_world import ROOT, PagesNode, World
from tests.support.web_page import FLOWS, SurvivingExecutor, build_harness, node_at, serve


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine, built as the page is."""
    return build_harness(tmp_path_factory.mktemp("harness"))


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Chromium for all; each test has a profile of its own in it."""
    with running_chromium(tmp_path_factory.mktemp("chromium")) as devtools:
        yield devtools


@pytest.fixture
async def page(devtools: str, built: Path, tmp_path: Path) -> AsyncIterator[Page]:
    async with serve(built) as url, open_page(devtools, url, tmp_path / "downloads") as page:
        yield page
        assert page.complaints == []
        assert [each for each in page.requests if not each.startswith((url, "blob:"))] == []


@pytest.fixture
async def executor() -> AsyncIterator[InProcessExecutor]:
    async with SurvivingExecutor(FLOWS) as executor:
        yield executor


@pytest.fixture
async def node(tmp_path: Path, executor: InProcessExecutor) -> AsyncIterator[Node]:
    async with node_at(tmp_path / "home", executor) as node:
        yield node


@pytest.fixture(scope="session")
def koco_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesNode]:
    home = tmp_path_factory.mktemp("koco")
    # The page cannot tell what runs its flows, and without Ray a node starts in a tenth of the time.
    words = ("--executor", "process", "--runners", "1")
    running = PagesNode(home, "--with-registry", "--registry-port", "0", *words)
    try:
        yield running
        assert running.stop() == 0, running.stderr
    finally:
        support.end_all(home)


@pytest.fixture(scope="session")
def whole_built() -> None:
    """The page, built into the package."""
    subprocess.run([ROOT / "scripts" / "page"], check=True, timeout=300, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def koco_serving(home: Path, *words: str) -> Iterator[str]:
    """Run a `koco` that serves HTTP; gives the URL that it is ready at."""
    with subprocess.Popen(
        [support.KOCO, *words, "--json"],
        env=support.environment(home),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["ready"] is True
            yield ready["url"]
        finally:
            process.terminate()
            process.wait(30)


def koco_web(home: Path, *words: str) -> contextlib.AbstractContextManager[str]:
    """Run `koco web`; gives the page's address with its key."""
    return koco_serving(home, "web", "--no-lan", "--port", "0", *words)


@pytest.fixture(scope="session")
def koco_url(tmp_path_factory: pytest.TempPathFactory, koco_node: PagesNode, whole_built: None) -> Iterator[str]:
    """The address of `koco web`, which knows the node by its registry."""
    with koco_web(tmp_path_factory.mktemp("user"), "--registry", koco_node.ready["registries"][0]) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(
    tmp_path_factory: pytest.TempPathFactory, devtools: str, koco_node: PagesNode, koco_url: str
) -> AsyncIterator[World]:
    async with connected(devtools) as browser:
        yield World(koco_node, koco_url, browser, tmp_path_factory.mktemp("files"))


@pytest_asyncio.fixture(loop_scope="session")
async def opened(world: World) -> AsyncIterator[Page]:
    """The page, open; afterwards nothing was asked of a third party, and no policy was offended."""
    page = await world.page()
    await page.find("link", "Tally")
    try:
        yield page
        assert page.complaints == []
        assert [each for each in page.requests if not world.is_own(each)] == []
    finally:
        await page.close()
