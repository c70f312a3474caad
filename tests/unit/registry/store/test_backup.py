import sqlite3
import stat

import pytest

from kodo.p2p.errors import CallError, UsageError
from kodo.registry.reads.pages import PageRequest
from kodo.registry.records.record import verify_record
from kodo.registry.store.backup import back_up
from kodo.registry.store.store import Store
from tests.support.records import NOW, UNHURRIED, flow, identity, signed_record


async def put(store, number, *flows):
    signed = signed_record(identity(number), *flows, name=f"node{number}")
    await store.put(verify_record(signed), signed, NOW)


async def test_a_backup_of_a_registry_that_runs_is_a_registry(tmp_path):
    copy = tmp_path / "copy.db"
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        await put(store, 1, flow("a"))
        size = back_up(tmp_path / "registry.db", copy)
        await put(store, 2, flow("b"))
        back_up(tmp_path / "registry.db", tmp_path / "second.db")
    assert (copy.stat().st_size, stat.S_IMODE(copy.stat().st_mode)) == (size, 0o600)
    assert {file.name for file in tmp_path.iterdir()} == {"registry.db", "registry.db.lock", "copy.db", "second.db"}
    epochs = set()
    for file, paths in (
        (copy, ["a"]),
        (tmp_path / "second.db", ["a", "b"]),
        (tmp_path / "registry.db", ["a", "b"]),
    ):
        async with Store(file, UNHURRIED) as store:
            # Its changes are counted anew, so that readers with a cursor of the other file miss none.
            epochs.add((await store.mesh.page(str(identity(3).peer_id), 0, None, NOW)).epoch)
            assert len(epochs) == 1 + [copy, tmp_path / "second.db", tmp_path / "registry.db"].index(file)
            page = await store.search(PageRequest(search="competitor", by="path"), NOW)
            assert [row["path"] for row in page["result"]] == paths


def damage(database):
    """Overwrite the middle of a file."""
    with database.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(size // 4 // 4096 * 4096)
        file.write(b"\xa5" * (size // 2))


async def damaged(tmp_path):
    database = tmp_path / "registry.db"
    async with Store(database, UNHURRIED) as store:
        for number in range(1, 30):
            await put(store, number, *(flow(f"f{at}", description="words " * 100) for at in range(10)))
    damage(database)
    return database


async def test_a_damaged_file_is_not_copied_over_a_good_backup(tmp_path):
    database = await damaged(tmp_path)
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"the good one")
    with pytest.raises(UsageError, match=r"damaged|malformed"):
        back_up(database, copy)
    assert copy.read_bytes() == b"the good one"
    assert not list(tmp_path.glob("*.part"))


async def test_damage_is_told_as_such(tmp_path):
    database = await damaged(tmp_path)

    async def read():
        async with Store(database, UNHURRIED) as store:
            for search in (None, "words", "?o*"):
                await store.search(PageRequest(search=search, pp=500), NOW)

    with pytest.raises((CallError, UsageError), match=r"damaged|malformed") as caught:
        await read()
    assert isinstance(caught.value, UsageError) or (caught.value.code, caught.value.reason) == (503, "damaged")


def test_nothing_to_copy_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"no registry database .*registry\.db"):
        back_up(tmp_path / "registry.db", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    sqlite3.connect(tmp_path / "registry.db").close()
    (tmp_path / "registry.db").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        back_up(tmp_path / "registry.db", tmp_path / "nowhere" / "copy.db")
