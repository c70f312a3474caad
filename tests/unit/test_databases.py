"""Every database of kodo that fails while it is opened is closed again, whichever statement it was."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kodo.flow._runtime.memory_store import MemoryStore
from kodo.node.store.schema import open_reader, open_writer
from kodo.registry.store.schema import connect


def open_memory(path: Path) -> Any:
    store = MemoryStore(path.parent, lambda: 1)
    store.open()
    return store


OPENERS: dict[str, Callable[[Path], Any]] = {
    "a node's writer": lambda path: open_writer(path, None),
    "a node's reader": open_reader,
    "memories": open_memory,
    "a registry's writer": connect,
    "a registry's reader": lambda path: connect(path, readonly=True),
}


class Failing(sqlite3.Connection):
    """Fails at one statement, counted over all; knows which connections were not closed."""

    opened: ClassVar[set[int]] = set()
    left: ClassVar[int] = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Failing.opened.add(id(self))

    def _count(self) -> None:
        Failing.left -= 1
        if Failing.left == 0:
            raise sqlite3.OperationalError("injected")

    def execute(self, *args: Any) -> Any:
        self._count()
        return super().execute(*args)

    def executescript(self, *args: Any) -> Any:
        self._count()
        return super().executescript(*args)

    def close(self) -> None:
        super().close()
        Failing.opened.discard(id(self))


@pytest.mark.parametrize("opener", OPENERS)
def test_a_database_that_cannot_be_opened_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opener: str
) -> None:
    plain = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: plain(*args, factory=Failing, **kwargs))
    failed = 0
    for statement in range(1, 100):
        Failing.left, Failing.opened = statement, set()
        folder = tmp_path / str(statement)
        folder.mkdir()
        try:
            made = OPENERS[opener](folder / "a.db")
        except Exception:
            failed += 1
            assert Failing.opened == set(), f"statement {statement} failed, and the connection stays open"
            continue
        with contextlib.closing(made):
            break
    assert failed == statement - 1 > 0
