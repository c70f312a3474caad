"""What every test process does alike: it collects quickly, begins with what takes longest, and times nothing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # environments for some frameworks have no Hypothesis
    from hypothesis import HealthCheck, settings

    # A slow machine is not a failure.
    settings.register_profile("kodo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("kodo")

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
