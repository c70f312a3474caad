"""The page's engine in a real Chromium, and real nodes for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kodo.node.app import Node
from kodo.node.executors.in_process import InProcessExecutor
from tests.support.cdp import Page, open_page, running_chromium
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
        assert page.problems == []
        assert [each for each in page.requests if not each.startswith((url, "blob:"))] == []


@pytest.fixture
async def executor() -> AsyncIterator[InProcessExecutor]:
    async with SurvivingExecutor(FLOWS) as executor:
        yield executor


@pytest.fixture
async def node(tmp_path: Path, executor: InProcessExecutor) -> AsyncIterator[Node]:
    async with node_at(tmp_path / "home", executor) as node:
        yield node
