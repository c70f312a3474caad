"""Every database of kodo: closed again when it cannot be opened, and brought up from the earliest that there were."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kodo.access.accounts import Accounts
from kodo.flow._runtime.memory_store import MEMORY_FILE, MemoryStore
from kodo.node.store.rows import NewEvent
from kodo.node.store.schema import NODE_FILE
from kodo.node.store.store import Store
from kodo.p2p.errors import UsageError
from kodo.protocol.run_state import RunState
from kodo.registry.store.file import REGISTRY_FILE
from kodo.sqlite.file import DatabaseFile
from tests.unit.node.conftest import StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def open_memory(path: Path) -> Any:
    store = MemoryStore(path.parent, lambda: 1)
    store.open()
    return store


OPENERS: dict[str, Callable[[Path], Any]] = {
    "a node's writer": NODE_FILE.open_writer,
    "a node's reader": NODE_FILE.open_reader,
    "memories": open_memory,
    "a registry's writer": REGISTRY_FILE.open_writer,
    "a registry's reader": REGISTRY_FILE.open_reader,
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


SUPPORT = Path(__file__).parents[1] / "support"
EARLIEST = {
    "node_v1.sql": ("node.db", NODE_FILE),
    "node_0_1_0.sql": ("node.db", NODE_FILE),
    "memory_v0.sql": ("memory.db", MEMORY_FILE),
    "registry_v1.sql": ("registry.db", REGISTRY_FILE),
}
"""The earliest databases that there were, and those of 0.1.0, as kodo wrote them then; and what opens them now."""


def kept(name: str, path: Path) -> None:
    """Make a database as it was kept."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((SUPPORT / name).read_text(encoding="utf-8"))
        if name.startswith("registry"):
            connection.execute("PRAGMA user_version=1")


def shape(path: Path) -> set[tuple[str, str]]:
    """Return what is in a database: names of tables and of their columns, of indexes and triggers."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
        columns = [
            (name, column[1])
            for kind, name in names
            if kind == "table"
            for column in connection.execute(f"PRAGMA table_info({name})")
        ]
        return {*names, *columns}


@pytest.mark.parametrize("name", EARLIEST)
def test_the_earliest_databases_are_brought_up_to_what_a_new_one_is(tmp_path: Path, name: str) -> None:
    place, kind = EARLIEST[name]
    kept(name, tmp_path / place)
    kind.open_writer(tmp_path / place).close()
    kind.open_writer(tmp_path / "new.db").close()
    assert shape(tmp_path / place) == shape(tmp_path / "new.db")
    with contextlib.closing(kind.open_reader(tmp_path / place)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == kind.version
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_the_earliest_node_has_its_runs_and_goes_on(tmp_path: Path, clock: StillClock) -> None:
    kept("node_v1.sql", tmp_path / "node.db")
    done, live = (f"{number:026}" for number in (1, 2))
    async with Store(tmp_path / "node.db", clock=clock) as store:
        view = await store.view(done)
        assert view is not None
        assert (view.state, view.final["result"], view.inputs) == (RunState.DONE, "# Done", {"n": 1})
        assert [row.fid for row in await store.unfinished()] == [live]
        stored = await store.append(live, [NewEvent.make("log", {"text": "again"}, 2)])
        assert [event.seq for event in stored] == [5]
        assert (await store.run(live)).tags == ("nightly",)  # type: ignore[union-attr]


async def test_a_node_of_0_1_0_has_its_runs_files_and_users_and_goes_on(tmp_path: Path, clock: StillClock) -> None:
    kept("node_0_1_0.sql", tmp_path / "node.db")
    done, live = (f"{number:026}" for number in (1, 2))
    async with Store(tmp_path / "node.db", clock=clock) as store:
        view = await store.view(done)
        assert view is not None
        assert (view.state, view.final["result"]) == (RunState.DONE, "# Done")
        assert [row.name for row in (await store.outputs(done))[1]] == ["report.md"]
        assert [row.fid for row in await store.unfinished()] == [live]
        assert [event.seq for event in await store.append(live, [NewEvent.make("log", {"text": "again"}, 2)])] == [5]
        _, users = await Accounts(store, clock.now_ms).users(1, 10)
        assert [(user["name"], user["roles"]) for user in users] == [("ana", ["operator", "user"])]


@pytest.mark.parametrize("kind", [NODE_FILE, MEMORY_FILE, REGISTRY_FILE], ids=["node", "memory", "registry"])
def test_a_database_of_a_newer_kodo_is_refused_with_words_and_left_as_it_is(
    tmp_path: Path, kind: DatabaseFile
) -> None:
    path = tmp_path / "newer.db"
    kind.open_writer(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={kind.version + 1}")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="newer"):
        kind.open_writer(path)
    assert path.read_bytes() == before


def test_the_earliest_memories_are_remembered(tmp_path: Path) -> None:
    kept("memory_v0.sql", tmp_path / "memory.db")
    for version in (1, 3):
        with contextlib.closing(open_memory(tmp_path / "memory.db")) as store:
            answer = store.perform("get", "long", "flows.a", {"key": "seen"})
            assert answer == {"version": version, "value": [1, "two"]}
            store.perform("set", "long", "flows.a", {"key": "seen", "value": [1, "two"]})
