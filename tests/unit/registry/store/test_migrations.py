import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from kodo.p2p.errors import CallError
from kodo.registry.query.glob import fold
from kodo.registry.reads.pages import PageRequest
from kodo.registry.records.record import verify_record
from kodo.registry.store.file import SCHEMA_VERSION
from kodo.registry.store.mesh_changes import MESH_DDL
from kodo.registry.store.store import Store
from tests.support.records import NOW, UNHURRIED, flow, identity, signed_record

VERSION_1 = Path(__file__).parents[3] / "support" / "registry_v1.sql"
SIGNED = signed_record(identity(), flow("a", name="Straße"), flow("b", tags=('say "hi"',)), ttl_s=86400)
LEFT = signed_record(identity(2), flow("c"), name="gone.example.com", ttl_s=86400)


def old_file(database, version):
    """Write a file as the first release did."""
    connection = sqlite3.connect(database)
    connection.executescript(f"BEGIN; {VERSION_1.read_text()} COMMIT; PRAGMA user_version=1;")
    for signed, left_at in ((SIGNED, None), (LEFT, NOW)):
        record = verify_record(signed)
        node = connection.execute(
            "INSERT INTO nodes (peer_id, name, k_name, addrs, seq, issued_at, expires_at, signed, flows, seen_at, "
            "beat_at, ping, left_at, left_seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 77, '{\"cpu\": 5.0}', ?, ?)",
            (
                record.peer_id,
                record.name,
                fold(record.name),
                json.dumps(record.addrs),
                record.seq,
                record.issued_at,
                record.expires_at,
                signed,
                len(record.flows),
                NOW,
                left_at,
                0 if left_at is None else 1,
            ),
        ).lastrowid
        connection.execute("INSERT INTO names VALUES (?, ?)", (fold(record.name), record.peer_id))
        for each in record.flows:
            data = each.model_dump(exclude_none=True) | {"inputs_schema_sha256": each.inputs_schema_sha256.hex()}
            texts = (record.name, each.name, each.description, each.author, each.organization)
            keys = [fold(text) for text in texts]
            connection.execute(
                "INSERT INTO flows (node_id, path, published, release, data, k_node, k_name, k_description, "
                "k_author, k_organization, k_tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (node, each.path, each.published, each.release, json.dumps(data), *keys, json.dumps(each.tags)),
            )
    connection.commit()
    if version == 2:
        connection.executescript(f"{MESH_DDL} PRAGMA user_version=2;")
    connection.close()


def shape(database):
    """Give all statements that made what is in a file."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
        return {name: sql and " ".join(sql.replace("IF NOT EXISTS ", "").split()) for name, sql in rows}


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_a_file_of_an_earlier_release_is_taken_over_whole(tmp_path, version):
    database = tmp_path / "old.db"
    old_file(database, version)
    async with Store(database, UNHURRIED) as store:
        assert await store.signed_record(str(identity().peer_id)) == SIGNED
        assert await store.counts(NOW) == {"online": 1, "unknown": 0, "offline": 1, "flows": 3}
        assert await store.counts(NOW + 300_000) == {"online": 0, "unknown": 1, "offline": 1, "flows": 3}
        for search, paths in (("strasse", ["a"]), ('"hi"', ["b"]), ("gone", ["c"]), ("ß", ["a"])):
            page = await store.search(PageRequest(search=search), NOW)
            assert [row["path"] for row in page["result"]] == paths
        (row,) = (await store.nodes(PageRequest(search="flows.example.com"), NOW))["result"]
        assert (row["ping"], row["flows"]) == ({"cpu": 5.0}, 2)
        with pytest.raises(CallError, match="name-taken"):
            await put(store, signed_record(identity(3)))
        page = await store.mesh.page(str(identity(9).peer_id), 0, None, NOW)
        assert [item.record for item in page.items] == [SIGNED, LEFT]
        # And it can be written to: what is in the index is known well enough to be taken out.
        await put(store, signed_record(identity(), flow("d"), seq=2))
        assert (await store.search(PageRequest(search="strasse"), NOW))["result"] == []
    async with Store(tmp_path / "new.db"):
        pass
    assert shape(database) == shape(tmp_path / "new.db")


async def put(store, signed):
    return await store.put(verify_record(signed), signed, NOW)


async def test_a_crash_in_the_middle_of_it_leaves_the_old_file(tmp_path, monkeypatch):
    from kodo.registry.store import migrations

    database = tmp_path / "old.db"
    old_file(database, 2)
    before = shape(database)

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "add_flows", crash)
    with pytest.raises(KeyboardInterrupt):
        await Store(database).__aenter__()
    assert shape(database) == before
    monkeypatch.undo()
    async with Store(database, UNHURRIED) as store:
        assert (await store.counts(NOW))["flows"] == 3
