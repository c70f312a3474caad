import sqlite3
import stat
from dataclasses import replace

import pytest

from kodo.p2p.errors import CallError, UsageError
from kodo.registry.reads.pages import PageRequest
from kodo.registry.records.record import verify_goodbye, verify_heartbeat, verify_record
from kodo.registry.store.store import Bounds, Store
from tests.support.records import NOW, UNHURRIED, flow, identity, signed_goodbye, signed_heartbeat, signed_record

GAP_MS = 30_000


@pytest.fixture
def database(tmp_path):
    return tmp_path / "home" / "registry.db"


@pytest.fixture
async def store(database):
    async with Store(database, UNHURRIED) as store:
        yield store


async def put(store, signed, now=NOW):
    return await store.put(verify_record(signed), signed, now)


async def beat(store, now, **fields):
    signed = signed_heartbeat(**fields)
    await store.heartbeat(verify_heartbeat(signed), signed, now, gap_ms=GAP_MS)


async def leave(store, now=NOW, **fields):
    signed = signed_goodbye(**fields)
    await store.goodbye(verify_goodbye(signed), signed, now)


async def node_row(store, now=NOW):
    (row,) = (await store.nodes(PageRequest(), now))["result"]
    return row


async def paths(store, search=None, now=NOW):
    page = await store.search(PageRequest(search=search, by="path asc"), now)
    return [row["path"] for row in page["result"]]


def refuses(code, reason):
    return pytest.raises(CallError, match=rf"\({code} {reason}\)")


async def test_a_record_is_listed_with_its_flows(store):
    accepted = await put(store, signed_record(identity(), flow("a"), flow("b")))
    assert accepted.flows == ["a", "b"]
    assert accepted.refused == []
    assert await paths(store) == ["a", "b"]
    row = await node_row(store)
    assert (row["name"], row["online"], row["state"], row["flows"]) == ("flows.example.com", True, "online", 2)


async def test_the_signed_bytes_come_back_as_they_went_in(store):
    signed = signed_record(identity(), flow())
    await put(store, signed)
    assert await store.signed_record(str(identity().peer_id)) == signed


async def test_a_node_that_never_came_has_no_record(store):
    with refuses(404, "no-such-node"):
        await store.signed_record(str(identity().peer_id))


async def test_a_higher_seq_replaces_flows_and_addresses(store):
    await put(store, signed_record(identity(), flow("old"), flow("same"), flow("changed", release="1")))
    await put(
        store, signed_record(identity(), flow("same"), flow("changed", release="2"), flow("new"), seq=2, addrs=())
    )
    assert await paths(store) == ["changed", "new", "same"]
    assert (await node_row(store))["addrs"] == []
    page = await store.search(PageRequest(search="*"), NOW)
    assert {row["path"]: row["release"] for row in page["result"]}["changed"] == "2"


async def test_a_replaced_flow_is_no_longer_found_by_its_old_words(store):
    await put(store, signed_record(identity(), flow("a", name="Giraffe")))
    await put(store, signed_record(identity(), flow("a", name="Okapi"), seq=2))
    assert await paths(store, "giraffe") == []
    assert await paths(store, "okapi") == ["a"]


async def test_a_renamed_node_is_found_by_its_new_name_only(store):
    await put(store, signed_record(identity(), flow("a")))
    await put(store, signed_record(identity(), flow("a"), seq=2, name="second.example.com"))
    assert await paths(store, "flows.example.com") == []
    assert await paths(store, "second.*") == ["a"]


@pytest.mark.parametrize("seq", [1, 4, 5])
async def test_an_old_seq_is_refused_and_changes_nothing(store, seq):
    await put(store, signed_record(identity(), flow("kept"), seq=5))
    with refuses(409, "old-seq"):
        await put(store, signed_record(identity(), flow("other"), seq=seq))
    assert await paths(store) == ["kept"]


async def test_the_same_record_again_is_answered_but_does_not_prove_life(store):
    signed = signed_record(identity(), flow("a"), flow("b", author=""))
    first = await put(store, signed)
    assert await put(store, signed, NOW + 200_000) == first
    assert (await node_row(store, NOW + 300_000))["state"] == "unknown"


async def test_a_flow_that_lacks_something_is_refused_alone(store):
    accepted = await put(store, signed_record(identity(), flow("a"), flow("b", author="", release="")))
    assert accepted.flows == ["a"]
    assert accepted.refused == [{"path": "b", "reason": "missing-fields", "missing": ["author", "release"]}]


async def test_a_path_that_comes_twice_is_listed_once(store):
    accepted = await put(store, signed_record(identity(), flow("a", name="First"), flow("a", name="Second")))
    assert accepted.refused == [{"path": "a", "reason": "duplicate-path"}]
    assert await paths(store, "first") == ["a"]


@pytest.mark.parametrize("fields", [{"name": "x\x1b[2J"}, {"description": "a\x07"}, {"tags": ("a\nb",)}])
async def test_control_characters_are_kept_from_terminals(store, fields):
    accepted = await put(store, signed_record(identity(), flow("a", **fields)))
    assert accepted.refused == [{"path": "a", "reason": "control-characters"}]


async def test_a_description_may_have_lines(store):
    assert (await put(store, signed_record(identity(), flow("a", description="one\n\ttwo\r\n")))).flows == ["a"]


async def test_a_name_belongs_to_the_first_peer_that_used_it(store):
    await put(store, signed_record(identity(1)))
    with refuses(409, "name-taken"):
        await put(store, signed_record(identity(2), flow("x"), name="FLOWS.example.com"))
    assert await paths(store) == []
    with refuses(404, "no-such-node"):
        await store.signed_record(str(identity(2).peer_id))


async def test_a_name_stays_bound_when_its_peer_goes_by_another(store):
    await put(store, signed_record(identity(1)))
    await put(store, signed_record(identity(1), seq=2, name="other.example.com"))
    with refuses(409, "name-taken"):
        await put(store, signed_record(identity(2)))


async def test_one_peer_cannot_collect_names(database):
    async with Store(database, replace(UNHURRIED, names=2)) as store:
        for seq in (1, 2):
            await put(store, signed_record(seq=seq, name=f"n{seq}"))
        with refuses(409, "too-many-names"):
            await put(store, signed_record(seq=3, name="n3"))
        await put(store, signed_record(seq=4, name="n1"))


async def test_a_full_registry_takes_known_nodes_only(database):
    async with Store(database, replace(UNHURRIED, nodes=1)) as store:
        await put(store, signed_record(identity(1)))
        with refuses(507, "registry-full"):
            await put(store, signed_record(identity(2), name="other"))
        await put(store, signed_record(identity(1), seq=2))
        # The name of who was turned away is still free.
        await put(store, signed_record(identity(1), seq=3, name="other"))


async def test_a_full_registry_forgets_who_has_been_silent_for_a_day(database):
    async with Store(database, replace(UNHURRIED, nodes=2, flows=3)) as store:
        await put(store, signed_record(identity(1), flow("a"), flow("b"), ttl_s=7 * 86400))
        await put(store, signed_record(identity(2), flow("c"), name="two", ttl_s=7 * 86400), NOW + 1000)
        late = NOW + 86_400_000
        with refuses(507, "registry-full"):
            await put(store, signed_record(identity(3), name="three", ttl_s=7 * 86400), late - 1)
        # The first has been silent for a day now; the other has not, by a second.
        accepted = await put(
            store, signed_record(identity(3), flow("d"), name="flows.example.com", ttl_s=7 * 86400), late
        )
        assert accepted.flows == ["d"]
        assert await paths(store, now=late) == ["c", "d"]
        assert await paths(store, "competitor", now=late) == ["c", "d"]
        with refuses(404, "no-such-node"):
            await store.signed_record(str(identity(1).peer_id))
        with refuses(507, "registry-full"):
            await put(store, signed_record(identity(4), name="four", ttl_s=7 * 86400), late)


async def test_a_full_registry_forgets_first_who_never_answered_a_probe(database):
    async with Store(database, replace(UNHURRIED, nodes=2)) as store:
        await put(store, signed_record(identity(1), name="one"))
        await put(store, signed_record(identity(2), name="two"))
        await store.measured(str(identity(1).peer_id), 0.1, NOW)
        await store.measured(str(identity(2).peer_id), None, NOW)
        await put(store, signed_record(identity(3), name="two"))
        assert await store.knows(str(identity(1).peer_id))
        assert not await store.knows(str(identity(2).peer_id))
        # Nobody knows yet whether the new one answers.
        with refuses(507, "registry-full"):
            await put(store, signed_record(identity(4), name="four"))


async def test_flows_find_room_where_nodes_that_never_answered_had_theirs(database):
    async with Store(database, replace(UNHURRIED, flows=3)) as store:
        await put(store, signed_record(identity(1), flow("a"), flow("b"), name="one"))
        await store.measured(str(identity(1).peer_id), None, NOW)
        accepted = await put(store, signed_record(identity(2), *map(flow, "cde"), name="two"))
        assert accepted.flows == ["c", "d", "e"]


async def test_flows_find_room_where_silent_nodes_had_theirs(database):
    async with Store(database, replace(UNHURRIED, flows=3)) as store:
        await put(store, signed_record(identity(1), flow("a"), flow("b"), ttl_s=7 * 86400))
        late = NOW + 86_400_000
        accepted = await put(store, signed_record(identity(2), *map(flow, "cde"), name="two", ttl_s=7 * 86400), late)
        assert accepted.flows == ["c", "d", "e"]
        assert await store.counts(late) == {"online": 1, "unknown": 0, "offline": 0, "flows": 3}


async def test_flows_over_the_bound_are_refused_with_that_reason(database):
    async with Store(database, replace(UNHURRIED, flows=3)) as store:
        await put(store, signed_record(identity(1), flow("a"), flow("b")))
        signed = signed_record(identity(2), flow("c"), flow("d"), name="other")
        for _ in range(2):
            accepted = await put(store, signed)
            assert accepted.flows == ["c"]
            assert accepted.refused == [{"path": "d", "reason": "registry-full"}]
        kept = await put(store, signed_record(identity(1), flow("b"), flow("a"), flow("e"), seq=2))
        assert kept.flows == ["b", "a"]


async def test_an_expired_record_is_refused(store):
    with refuses(400, "record-expired"):
        await put(store, signed_record(ttl_s=60), NOW + 60_000)


async def test_a_record_from_the_far_future_is_refused(store):
    with refuses(400, "clock-ahead"):
        await put(store, signed_record(issued_at=NOW + 300_001))
    await put(store, signed_record(issued_at=NOW + 300_000))


async def test_heartbeats_keep_a_node_online(store):
    await put(store, signed_record())
    await beat(store, NOW + 200_000, at=NOW + 200_000, cpu=12.5, queued=3)
    row = await node_row(store, NOW + 499_999)
    assert row["state"] == "online"
    assert row["ping"] == {"cpu": 12.5, "queued": 3}
    assert (await node_row(store, NOW + 500_000))["state"] == "unknown"


async def test_a_node_that_came_back_to_life_is_online_again(store):
    await put(store, signed_record(ttl_s=7 * 86400))
    late = NOW + 5 * 3_600_000
    assert (await node_row(store, late))["online"] is None
    await beat(store, late, at=late)
    assert (await node_row(store, late))["online"] is True


async def test_a_heartbeat_of_an_unknown_node_is_404(store):
    with refuses(404, "no-such-node"):
        await beat(store, NOW)


@pytest.mark.parametrize("seq", [1, 3])
async def test_a_heartbeat_for_another_record_is_406(store, seq):
    await put(store, signed_record(seq=2))
    with refuses(406, "other-seq"):
        await beat(store, NOW, seq=seq)


async def test_a_heartbeat_for_an_expired_record_is_406(store):
    await put(store, signed_record(ttl_s=60))
    with refuses(406, "record-expired"):
        await beat(store, NOW + 60_000, at=NOW + 60_000)


@pytest.mark.parametrize("at", [NOW + 1000, NOW + 999])
async def test_a_heartbeat_that_does_not_rise_is_refused_and_not_counted(store, at):
    await put(store, signed_record())
    await beat(store, NOW, at=NOW + 1000)
    with refuses(409, "not-rising"):
        await beat(store, NOW + 200_000, at=at)
    assert (await node_row(store, NOW + 300_000))["state"] == "unknown"


async def test_a_heartbeat_too_soon_is_told_how_long_to_wait(store):
    await put(store, signed_record())
    await beat(store, NOW, at=1)
    with refuses(429, "too-often") as caught:
        await beat(store, NOW + 10_500, at=2)
    assert caught.value.data == {"retry_after_s": 20}
    await beat(store, NOW + GAP_MS, at=2)


async def test_a_new_record_may_be_followed_by_a_heartbeat_at_once(store):
    await put(store, signed_record())
    await beat(store, NOW, at=100)
    await put(store, signed_record(seq=2), NOW + 1)
    await beat(store, NOW + 2, seq=2, at=1)


async def test_a_registry_clock_set_back_locks_no_node_out(store):
    await put(store, signed_record())
    await beat(store, NOW + 500_000, at=1)
    await beat(store, NOW, at=2)


async def test_a_goodbye_takes_a_node_offline(store):
    await put(store, signed_record())
    await leave(store)
    row = await node_row(store)
    assert (row["online"], row["state"]) == (None, "offline")


async def test_after_a_goodbye_only_a_higher_seq_brings_a_node_back(store):
    signed = signed_record()
    await put(store, signed)
    await leave(store)
    with refuses(409, "old-seq"):
        await put(store, signed)
    with refuses(406, "left"):
        await beat(store, NOW + 1000, at=NOW + 1000)
    await put(store, signed_record(seq=2))
    assert (await node_row(store))["online"] is True


async def test_an_old_goodbye_is_refused(store):
    await put(store, signed_record(seq=2))
    with refuses(409, "old-seq"):
        await leave(store, seq=1)
    assert (await node_row(store))["online"] is True


async def test_a_goodbye_from_beyond_the_known_record_holds_against_records_up_to_it(store):
    await put(store, signed_record(seq=2))
    await leave(store, seq=4)
    with refuses(409, "old-seq"):
        await put(store, signed_record(seq=4))
    await put(store, signed_record(seq=5))


async def test_the_same_goodbye_again_is_fine(store):
    await put(store, signed_record())
    await leave(store)
    await leave(store, NOW + 1000)


async def test_a_goodbye_of_an_unknown_node_is_404(store):
    with refuses(404, "no-such-node"):
        await leave(store)


async def test_counts_tell_states_apart(store):
    await put(store, signed_record(identity(1), flow("a"), ttl_s=86400))
    await put(store, signed_record(identity(2), flow("a"), flow("b"), name="two", ttl_s=86400))
    await put(store, signed_record(identity(3), name="three", ttl_s=86400), NOW + 400_000)
    await leave(store, of=identity(2))
    assert await store.counts(NOW + 400_000) == {"online": 1, "unknown": 1, "offline": 1, "flows": 3}


async def test_everything_is_there_after_a_restart(database):
    signed = signed_record(identity(), flow("a"))
    async with Store(database, UNHURRIED) as store:
        await put(store, signed)
        await beat(store, NOW + 60_000, at=77)
    async with Store(database, UNHURRIED) as store:
        assert await store.signed_record(str(identity().peer_id)) == signed
        assert await paths(store, "competitor") == ["a"]
        with refuses(409, "not-rising"):
            await beat(store, NOW + 120_000, at=77)


async def test_a_failed_write_leaves_nothing_behind(store, database):
    await put(store, signed_record(identity(1)))
    with refuses(409, "name-taken"):
        await put(store, signed_record(identity(2)))
    connection = sqlite3.connect(database)
    try:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("nodes", "names")]
    finally:
        connection.close()
    assert counts == [1, 1]


async def test_the_file_is_the_owners_alone(store, database):
    await put(store, signed_record())
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in database.parent.iterdir()} == {0o600}


async def test_a_second_owner_is_turned_away(store, database):
    with pytest.raises(UsageError, match="another registry"):
        await Store(database).__aenter__()


async def test_a_file_that_is_no_database_is_named(database):
    database.parent.mkdir()
    database.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(UsageError, match=r"registry\.db"):
        await Store(database).__aenter__()


async def test_a_file_of_a_later_release_is_left_alone(database):
    async with Store(database):
        pass
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UsageError, match="newer kodo"):
        await Store(database).__aenter__()


async def test_a_closed_store_refuses_and_closes_again(database):
    async with Store(database, UNHURRIED) as store:
        pass
    await store.aclose()
    with refuses(503, "closed"):
        await store.counts(NOW)


async def test_a_page_that_takes_too_long_is_stopped(database):
    async with Store(database, Bounds(read_s=0.0)) as store:
        flows = [flow(f"f{number}", description="d" * 50) for number in range(2000)]
        await put(store, signed_record(identity(), *flows))
        with refuses(422, "too-slow"):
            await store.search(PageRequest(search="?x*", by="online asc"), NOW)
