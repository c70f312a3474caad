"""One world for all tests that use `koco` itself: it takes several seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.nat_world import World, running_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("world")) as made:
        yield made
