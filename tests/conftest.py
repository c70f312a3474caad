"""What every test process does alike: it collects quickly, and begins with what takes longest."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).parent / "unit"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector away from what stays until the end: hundreds of modules, thousands of tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the unit tests last: their files are short, so that no process waits long for the last file of another."""
    items.sort(key=lambda item: UNIT in item.path.parents)
