import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.memory_store import MemoryLimits, MemoryStore, Once
from kodo.p2p.errors import CallError, CapacityError, IntegrityError, NotFoundError, UsageError
from kodo.protocol.room import Promise

FID = "0" * 26


class Clock:
    now = 1000


def make(root: Path, **limits: int) -> MemoryStore:
    store = MemoryStore(root, lambda: Clock.now, limits=MemoryLimits(**limits))
    store.open()
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    made = make(tmp_path)
    yield made
    made.close()


def piece(data: bytes, *, whole: bytes | None = None, offset: int = 0, name: str = "f") -> dict[str, Any]:
    whole = data if whole is None else whole
    about = {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    return {"name": name, "upload": "u1", "offset": offset, "data": data, **about}


def everything_under(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_what_was_set_is_there_after_a_restart(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.perform("set", "long", "f", {"key": "k", "value": [1]})
    store.perform("file.write", "long", "f", piece(b"abc"))
    store.close()
    store = make(tmp_path)
    assert store.perform("get", "long", "f", {"key": "k"})["value"] == [1]  # type: ignore[index]
    assert store.perform("file.read", "long", "f", {"name": "f"})["data"] == b"abc"  # type: ignore[index]
    store.close()


def test_a_change_asked_twice_under_one_number_is_made_once(store: MemoryStore) -> None:
    once = Once(FID, 1, 1)
    store.perform("set", "long", "f", {"key": "k", "value": 1})
    first = store.perform("delete", "long", "f", {"key": "k"}, once)
    store.perform("set", "long", "f", {"key": "k", "value": 2})
    assert [first, store.perform("delete", "long", "f", {"key": "k"}, once)] == [True, True]
    assert store.perform("get", "long", "f", {"key": "k"})["value"] == 2  # type: ignore[index]


def test_answers_are_forgotten_once_the_run_has_them(store: MemoryStore, tmp_path: Path) -> None:
    for aid in range(1, 6):
        store.perform("set", "short", FID, {"key": "k", "value": aid}, Once(FID, aid, aid))
    with contextlib.closing(sqlite3.connect(tmp_path / "memory.db")) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (1,)
        store.forget_answers(set())
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (0,)


def test_a_version_that_is_not_there_any_more_is_refused(store: MemoryStore) -> None:
    version = store.perform("set", "long", "f", {"key": "k", "value": 1})["version"]  # type: ignore[index]
    store.perform("delete", "long", "f", {"key": "k"})
    store.perform("set", "long", "f", {"key": "k", "value": 1})
    with pytest.raises(CallError, match="changed"):
        store.perform("set", "long", "f", {"key": "k", "value": 2, "version": version})
    with pytest.raises(CallError, match="changed"):
        store.perform("set", "long", "f", {"key": "k", "value": 2, "version": 0})


def test_every_bound_is_kept_and_less_is_always_taken(tmp_path: Path) -> None:
    store = make(tmp_path, keys=2, key_bytes=2000, files=1, file_bytes=10, memories=2)
    for key in ("a", "b"):
        store.perform("set", "long", "f", {"key": key, "value": "x" * 500})
    for args in ({"key": "c", "value": 1}, {"key": "a", "value": "x" * 1800}):
        with pytest.raises(CapacityError):
            store.perform("set", "long", "f", args)
    store.perform("delete", "long", "f", {"key": "a"})
    store.perform("set", "long", "f", {"key": "c", "value": 1})
    store.perform("file.write", "long", "f", piece(b"x" * 10))
    for over in (piece(b"", name="g"), piece(b"x" * 11)):
        with pytest.raises(CapacityError):
            store.perform("file.write", "long", "f", over)
    store.perform("file.write", "long", "f", piece(b"y" * 9))
    store.perform("set", "long", "g", {"key": "k", "value": 1})
    with pytest.raises(CapacityError):
        store.perform("set", "long", "h", {"key": "k", "value": 1})
    assert [row[:4] for row in store.memories("long")] == [("long", "f", 2, 1), ("long", "g", 1, 0)]
    assert list((tmp_path / "parts").iterdir()) == []
    store.close()


def test_a_full_disk_refuses_and_stores_nothing(tmp_path: Path) -> None:
    class Full:
        def promise(self, size: int) -> Promise:
            raise CapacityError("full")

    store = MemoryStore(tmp_path, lambda: 1, room=Full())
    store.open()
    for op, args in (("set", {"key": "k", "value": 1}), ("file.write", piece(b"x"))):
        with pytest.raises(CapacityError):
            store.perform(op, "long", "f", args)
    assert store.memories() == []
    store.close()


def test_a_file_that_is_not_what_was_said_is_refused_and_gone(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        store.perform("file.write", "long", "f", piece(b"abc") | {"sha256": "0" * 64})
    with pytest.raises(IntegrityError):
        store.perform("file.write", "long", "f", piece(b"abcd", whole=b"abc"))
    assert [*(tmp_path / "files").iterdir(), *(tmp_path / "parts").iterdir()] == []
    with pytest.raises(NotFoundError):
        store.perform("file.read", "long", "f", {"name": "f"})


def test_pieces_go_on_where_the_store_is(store: MemoryStore) -> None:
    whole = b"abcdef"
    assert store.perform("file.write", "long", "f", piece(whole[:3], whole=whole)) == {"offset": 3}
    assert store.perform("file.write", "long", "f", piece(whole[4:], whole=whole, offset=4)) == {"offset": 3}
    assert store.perform("file.write", "long", "f", piece(whole[3:], whole=whole, offset=3)) == {"offset": 6}
    assert store.perform("file.read", "long", "f", {"name": "f"})["data"] == whole  # type: ignore[index]


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(store: MemoryStore) -> None:
    store.perform("file.write", "long", "f", piece(b"old"))
    version = store.perform("file.read", "long", "f", {"name": "f"})["version"]  # type: ignore[index]
    store.perform("file.write", "long", "f", piece(b"new"))
    with pytest.raises(CallError, match="changed"):
        store.perform("file.read", "long", "f", {"name": "f", "offset": 1, "version": version})


def test_a_forgotten_memory_leaves_nothing_on_the_disk(store: MemoryStore, tmp_path: Path) -> None:
    store.perform("set", "short", FID, {"key": "canary-key", "value": "canary-value"}, Once(FID, 1, 1))
    store.perform("file.write", "short", FID, piece(b"canary-file"), Once(FID, 2, 2))
    store.perform("set", "long", "f", {"key": "kept", "value": 1})
    assert b"canary" in everything_under(tmp_path)
    store.ended(FID)
    store.forget("short", FID)
    assert b"canary" not in everything_under(tmp_path)
    assert [row.scope for row in store.memories()] == ["long"]


def test_what_a_crash_left_is_removed_at_the_start(store: MemoryStore, tmp_path: Path) -> None:
    store.perform("file.write", "long", "f", piece(b"kept"))
    (tmp_path / "files" / "orphan").write_bytes(b"x")
    (tmp_path / "parts" / "part").write_bytes(b"x")
    store.close()
    store.open()
    assert len(list((tmp_path / "files").iterdir())) == 1
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("get", {}),
        ("set", {"key": "k"}),
        ("set", {"key": "k", "value": b"bytes"}),
        ("set", {"key": "k", "value": {1: 2}}),
        ("set", {"key": "k", "value": 1, "version": "x"}),
        ("file.write", {"name": "f"}),
        ("file.write", piece(b"x") | {"name": "../x"}),
        ("file.write", piece(b"x") | {"upload": "../x"}),
        ("file.read", {"name": "f", "offset": "x"}),
        ("drop tables", {}),
    ],
)
def test_nonsense_is_refused(store: MemoryStore, op: str, args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        store.perform(op, "long", "f", args)
    assert store.memories() == []


def test_a_file_that_is_no_database_of_memories_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(b"not a database, and long enough to be looked at" * 10)
    with pytest.raises(UsageError):
        make(tmp_path)
    assert os.stat(tmp_path / "memory.db").st_size == 470
