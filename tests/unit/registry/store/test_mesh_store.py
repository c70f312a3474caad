import asyncio

import pytest

from kodo.p2p.errors import CallError
from kodo.registry.reads.pages import PageRequest
from kodo.registry.records.mesh import MAX_HOPS, TOMBSTONE_S, Item, Tombstone
from kodo.registry.records.record import MAX_TTL_S, verify_goodbye, verify_heartbeat, verify_record
from kodo.registry.records.signed import sign
from kodo.registry.store import mesh_store
from kodo.registry.store.mesh_store import SILENT_S, Bell, Cursor, check_item
from kodo.registry.store.store import Store
from tests.support.records import NOW, UNHURRIED, flow, identity, signed_goodbye, signed_heartbeat, signed_record

NODE = str(identity().peer_id)
A, B, OWN = (str(identity(number).peer_id) for number in (101, 102, 103))


@pytest.fixture
async def store(tmp_path):
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        yield store


def item(origin=A, hops=1, **fields):
    return check_item(Item(origin=origin, hops=hops, **fields))


def grave(number=101, seq=1, at=NOW, node=NODE):
    of = identity(number)
    return sign(Tombstone(peer_id=str(of.peer_id), node=node, seq=seq, at=at), of)


async def merge(store, *items, member=A, now=NOW, most_nodes=10, cursor=None):
    merged = await store.mesh.merge(items, member, OWN, now, most_nodes=most_nodes, cursor=cursor)
    return {name: getattr(merged, name) for name in ("taken", "known", "stale", "refused") if getattr(merged, name)}


async def told(store, since=0, epoch=None, now=NOW, **options):
    return await store.mesh.page(OWN, since, epoch, now, **options)


async def rows(store, now=NOW):
    return (await store.nodes(PageRequest(), now))["result"]


async def test_what_a_node_says_is_told_with_this_registry_as_its_origin(store):
    signed = signed_record(identity(), flow())
    await store.put(verify_record(signed), signed, NOW)
    page = await told(store)
    (first,) = page.items
    assert (first.origin, first.hops, first.record) == (OWN, 1, signed)
    assert not (await told(store, page.next, page.epoch)).items


async def test_each_node_is_told_once_and_as_it_is_now(store):
    for seq in (1, 2, 3):
        signed = signed_record(seq=seq)
        await store.put(verify_record(signed), signed, NOW)
    other = signed_record(identity(2), name="other.example.com")
    await store.put(verify_record(other), other, NOW)
    assert [each.record for each in (await told(store)).items] == [signed, other]


async def test_a_cursor_of_another_file_begins_anew(store):
    signed = signed_record()
    await store.put(verify_record(signed), signed, NOW)
    page = await told(store, 99, bytes(16))
    assert (page.since, len(page.items)) == (0, 1)


async def test_what_comes_by_the_mesh_is_listed_and_passed_on_one_hop_further(store):
    signed = signed_record(identity(), flow("a"))
    assert await merge(store, item(hops=3, record=signed)) == {"taken": 1}
    assert [row["peer_id"] for row in await rows(store)] == [NODE]
    assert await store.signed_record(NODE) == signed
    (passed,) = (await told(store)).items
    assert (passed.origin, passed.hops, passed.record) == (A, 4, signed)
    assert not (await told(store, own_only=True)).items


async def test_the_same_again_is_known_and_not_passed_on(store):
    signed = signed_record()
    await merge(store, item(record=signed))
    page = await told(store)
    assert await merge(store, item(hops=2, record=signed), member=B) == {"known": 1}
    assert not (await told(store, page.next, page.epoch)).items


async def test_what_began_here_is_not_taken_back_from_others(store):
    assert await merge(store, item(origin=OWN, record=signed_record())) == {"known": 1}
    assert await rows(store) == []


async def test_the_last_hop_is_kept_and_not_told(store):
    assert await merge(store, item(hops=MAX_HOPS, record=signed_record())) == {"taken": 1}
    page = await told(store)
    assert (page.items, page.next) == ((), 1)


async def test_a_higher_seq_wins_in_either_order(store):
    old, new = signed_record(seq=1), signed_record(seq=2)
    assert await merge(store, item(record=new), item(record=old)) == {"taken": 1, "known": 1}
    assert await store.signed_record(NODE) == new


async def test_another_record_of_the_same_seq_is_refused(store):
    await merge(store, item(record=signed_record()))
    other = signed_record(identity(), flow())
    assert await merge(store, item(record=other)) == {"refused": 1}
    assert await store.signed_record(NODE) == signed_record()


async def test_an_old_record_does_not_prove_life(store):
    await merge(store, item(record=signed_record()), now=NOW + 600_000)
    (row,) = await rows(store, NOW + 600_000)
    assert (row["online"], row["seen_at"]) == (False, NOW)


async def test_a_heartbeat_comes_along_and_proves_life(store):
    signed, now = signed_record(), NOW + 600_000
    await merge(store, item(record=signed), now=now)
    page = await told(store, now=now)
    beat = signed_heartbeat(at=now - 1000, cpu=7.0)
    assert await merge(store, item(record=signed, beat=beat), now=now) == {"taken": 1}
    (row,) = await rows(store, now)
    assert (row["online"], row["ping"]) == (True, {"cpu": 7.0})
    (passed,) = (await told(store, page.next, page.epoch, now)).items
    assert passed.beat == beat
    assert await merge(store, item(record=signed, beat=beat), member=B, now=now) == {"known": 1}


async def test_a_heartbeat_from_the_future_proves_nothing(store):
    signed = signed_record()
    await merge(store, item(record=signed))
    ahead = signed_heartbeat(at=NOW + 10_000_000)
    assert await merge(store, item(record=signed, beat=ahead)) == {"known": 1}


async def test_heartbeats_are_passed_on_now_and_then(store):
    signed = signed_record()
    await store.put(verify_record(signed), signed, NOW)
    changes = []
    for seconds in range(0, 600, 60):
        now = NOW + seconds * 1000
        beat = signed_heartbeat(at=now)
        await store.heartbeat(verify_heartbeat(beat), beat, now, gap_ms=30_000)
        changes.append((await told(store, now=now)).next)
    assert len(set(changes)) == 5


async def test_a_goodbye_travels_with_its_record(store):
    signed = signed_record()
    await merge(store, item(record=signed))
    assert await merge(store, item(goodbye=signed_goodbye())) == {"taken": 1}
    (row,) = await rows(store)
    assert row["state"] == "offline"
    (passed,) = (await told(store)).items
    assert (passed.record, passed.goodbye) == (signed, signed_goodbye())
    assert await merge(store, item(goodbye=signed_goodbye()), item(record=signed)) == {"known": 2}
    assert await merge(store, item(record=signed_record(seq=2))) == {"taken": 1}


async def test_a_goodbye_here_is_told(store):
    signed, bye = signed_record(), signed_goodbye()
    await store.put(verify_record(signed), signed, NOW)
    await store.goodbye(verify_goodbye(bye), bye, NOW)
    (passed,) = (await told(store)).items
    assert (passed.origin, passed.goodbye) == (OWN, bye)


async def test_a_record_that_has_ended_arrives_as_ended(store):
    ended = item(record=signed_record(seq=2), goodbye=signed_goodbye(seq=2))
    await merge(store, item(record=signed_record(seq=1)))
    assert await merge(store, ended) == {"taken": 1}
    (row,) = await rows(store)
    assert (row["seq"], row["state"]) == (2, "offline")
    assert await merge(store, ended, member=B) == {"known": 1}


async def test_a_goodbye_of_nobody_is_nothing(store):
    assert await merge(store, item(goodbye=signed_goodbye())) == {"known": 1}


async def test_the_expired_is_stale_and_what_has_just_expired_nobodys_fault(store):
    expired = item(record=signed_record())
    assert await merge(store, expired, now=NOW + 3600_000) == {"refused": 1}
    assert await merge(store, expired, now=NOW + 3_900_000) == {"stale": 1}
    assert await rows(store) == []


async def test_the_name_of_another_node_is_refused_alone(store):
    await merge(store, item(record=signed_record(identity(1))))
    taken = item(record=signed_record(identity(2)))
    third = item(record=signed_record(identity(3), name="third.example.com"))
    assert await merge(store, taken, third) == {"taken": 1, "refused": 1}
    assert len(await rows(store)) == 2


async def test_a_member_brings_a_bounded_number_of_nodes(store):
    items = [item(record=signed_record(identity(n), name=f"n{n}.example.com")) for n in range(1, 6)]
    assert await merge(store, *items, most_nodes=3) == {"taken": 3, "refused": 2}
    assert await merge(store, *items, member=B, most_nodes=3) == {"taken": 2, "known": 3}


async def test_a_tombstone_removes_what_its_signer_told(store):
    signed = signed_record(identity(), flow())
    await merge(store, item(record=signed))
    assert await merge(store, item(tombstone=grave())) == {"taken": 1}
    assert await rows(store) == []
    (passed,) = (await told(store)).items
    assert (passed.origin, passed.hops, passed.tombstone) == (A, 2, grave())
    assert await merge(store, item(record=signed), member=B) == {"known": 1}
    assert await merge(store, item(tombstone=grave()), member=B) == {"known": 1}
    assert await merge(store, item(record=signed_record(seq=2)), member=B) == {"taken": 1}


async def test_a_tombstone_that_comes_before_its_record_stops_it(store):
    assert await merge(store, item(tombstone=grave())) == {"taken": 1}
    assert await merge(store, item(record=signed_record())) == {"known": 1}
    assert await rows(store) == []


async def test_a_tombstone_of_another_registry_removes_nothing(store):
    await merge(store, item(record=signed_record()))
    assert await merge(store, item(origin=B, tombstone=grave(102)), member=B) == {"known": 1}
    assert len(await rows(store)) == 1


async def test_a_tombstone_does_not_reach_a_later_record(store):
    await merge(store, item(record=signed_record(seq=2)))
    assert await merge(store, item(tombstone=grave(seq=1))) == {"known": 1}
    assert len(await rows(store)) == 1


async def test_a_node_that_speaks_to_this_registry_is_its_own(store):
    signed = signed_record()
    await merge(store, item(record=signed))
    beat = signed_heartbeat()
    await store.heartbeat(verify_heartbeat(beat), beat, NOW, gap_ms=30_000)
    assert await merge(store, item(tombstone=grave())) == {"known": 1}
    assert [row["peer_id"] for row in await rows(store)] == [NODE]


@pytest.mark.parametrize("words", [{"beat": signed_heartbeat(at=NOW + 5)}, {"goodbye": signed_goodbye()}])
async def test_what_is_told_of_a_node_goes_on_as_its_teller_s_and_only_who_told_the_record_takes_it_back(
    store, words
):
    signed = signed_record()
    await merge(store, item(record=signed), now=NOW + 5)
    assert await merge(store, item(origin=B, record=signed, **words), member=B, now=NOW + 5) == {"taken": 1}
    # Else it would not reach A, which passes over what it began itself.
    assert [each.origin for each in (await told(store, now=NOW + 5)).items] == [B]
    assert await merge(store, item(origin=B, tombstone=grave(102)), member=B, now=NOW + 5) == {"known": 1}
    assert await merge(store, item(tombstone=grave()), now=NOW + 5) == {"taken": 1}


async def test_a_record_that_has_ended_goes_on_as_its_teller_s(store):
    await merge(store, item(record=signed_record(seq=1)))
    ended = item(origin=B, record=signed_record(seq=2), goodbye=signed_goodbye(seq=2))
    assert await merge(store, ended, member=B) == {"taken": 1}
    assert [each.origin for each in (await told(store)).items] == [B]


async def test_a_member_that_passes_on_heartbeats_takes_no_node_from_here(store):
    signed = signed_record(ttl_s=86400)
    await store.put(verify_record(signed), signed, NOW)
    # Between two of the node's own beats there is always one of the member's, also when one would be passed on.
    for seconds in range(60, SILENT_S + 600, 119):
        now = NOW + seconds * 1000
        theirs, own = signed_heartbeat(at=now - 1), signed_heartbeat(at=now)
        await merge(store, item(record=signed, beat=theirs), now=now)
        await store.heartbeat(verify_heartbeat(own), own, now, gap_ms=0)
    assert await merge(store, item(tombstone=grave(at=now)), now=now) == {"known": 1}
    assert [each.origin for each in (await told(store, now=now)).items] == [OWN]


async def test_a_node_that_is_silent_here_and_speaks_to_another_registry_is_that_ones(store):
    signed = signed_record(ttl_s=86400)
    await store.put(verify_record(signed), signed, NOW)
    for silent, origin in ((SILENT_S - 1, OWN), (SILENT_S, A)):
        now = NOW + silent * 1000
        assert await merge(store, item(record=signed, beat=signed_heartbeat(at=now)), now=now) == {"taken": 1}
        assert [each.origin for each in (await told(store, now=now)).items] == [origin]


async def test_the_last_seqs_of_nodes_that_are_gone_are_bounded_and_end(store, monkeypatch):
    monkeypatch.setattr("kodo.registry.store.last_seqs.MAX_KEPT", 2)

    async def refused(number, now=NOW):
        old = signed_record(identity(number), name=f"n{number}.example.com", seq=1, ttl_s=86400)
        try:
            await store.put(verify_record(old), old, now)
        except CallError as error:
            return error.reason, error.data
        return None

    for number in (1, 2, 3):
        signed = signed_record(identity(number), name=f"n{number}.example.com", seq=2, ttl_s=86400)
        await store.put(verify_record(signed), signed, NOW)
        assert await store.remove(verify_record(signed).peer_id)
    assert [await refused(number) for number in (1, 2, 3)] == [None, ("old-seq", {"seq": 1}), ("old-seq", {"seq": 1})]
    longest = signed_record(identity(2), name="n2.example.com", seq=1, issued_at=NOW + MAX_TTL_S * 1000)
    await store.put(verify_record(longest), longest, NOW + MAX_TTL_S * 1000)


async def test_tombstones_live_as_long_as_the_longest_record(store):
    await merge(store, item(tombstone=grave()))
    later = NOW + TOMBSTONE_S * 1000
    assert not (await told(store, now=later)).items
    assert await merge(store, item(tombstone=grave(at=NOW)), now=later) == {"stale": 1}
    fresh = item(tombstone=grave(node=str(identity(2).peer_id), at=later + 1000))
    assert await merge(store, fresh, now=later + 1000) == {"taken": 1}
    assert len((await told(store, now=later)).items) == 1


async def test_what_is_buried_here_is_told(store):
    signed = signed_record(identity(), flow())
    await store.put(verify_record(signed), signed, NOW)
    stone = Tombstone(peer_id=OWN, node=NODE, seq=1, at=NOW)
    assert await store.mesh.bury(sign(stone, identity(103)), stone, NOW)
    assert not await store.mesh.bury(sign(stone, identity(103)), stone, NOW)
    assert await rows(store) == []
    (passed,) = (await told(store)).items
    assert (passed.origin, passed.tombstone is not None) == (OWN, True)
    with pytest.raises(CallError):
        await store.signed_record(NODE)


async def test_items_and_cursor_are_kept_together(store):
    at = Cursor(A, bytes(16), 42)
    await merge(store, item(record=signed_record()), cursor=("http://a", at))
    assert await store.mesh.cursor("http://a") == at
    await store.mesh.forget_cursors({"http://b"})
    assert await store.mesh.cursor("http://a") is None


async def test_a_batch_is_bounded_and_the_rest_follows(store, monkeypatch):
    monkeypatch.setattr("kodo.registry.store.mesh_store.MAX_ITEMS", 2)
    for number in range(1, 6):
        signed = signed_record(identity(number), name=f"n{number}.example.com")
        await store.put(verify_record(signed), signed, NOW)
    seen, since, epoch = [], 0, None
    while True:
        page = await told(store, since, epoch)
        seen += page.items
        since, epoch = page.next, page.epoch
        if not page.more:
            break
        assert len(page.items) == 2
    assert len(seen) == 5


async def test_what_rings_between_looking_and_waiting_is_heard():
    bell = Bell()
    news = bell.listen()
    bell.ring()
    await asyncio.wait_for(news.wait(3600), 30)


async def test_a_name_kept_for_another_peer_is_not_taken_by_the_mesh(store):
    await store.admin.admit("flows.example.com", str(identity(2).peer_id), OWN, NOW)
    assert await merge(store, item(record=signed_record())) == {"refused": 1}
    mine = signed_record(identity(2))
    assert (await store.put(verify_record(mine), mine, NOW)).refused == []


async def test_what_was_cleaned_up_does_not_count_against_its_member(store):
    await merge(store, item(record=signed_record()), most_nodes=1)
    await store.remove(NODE)
    other = signed_record(identity(2), name="other.example.com")
    assert await merge(store, item(record=other), most_nodes=1) == {"taken": 1}


async def test_what_is_buried_here_does_not_come_back_under_another_origin(store):
    signed = signed_record()
    await store.put(verify_record(signed), signed, NOW)
    own = sign(Tombstone(peer_id=OWN, node=NODE, seq=1, at=NOW), identity(103))
    assert await store.mesh.bury(own, Tombstone(peer_id=OWN, node=NODE, seq=1, at=NOW), NOW)
    assert await merge(store, item(record=signed)) == {"known": 1}
    assert await merge(store, item(tombstone=grave(seq=9)), item(record=signed)) == {"known": 2}
    assert await merge(store, item(record=signed_record(seq=2))) == {"taken": 1}


async def test_no_member_takes_all_the_room_for_tombstones(store, monkeypatch):
    monkeypatch.setattr(mesh_store, "_TOMBSTONES", 8)
    graves = [item(tombstone=grave(node=str(identity(number).peer_id))) for number in range(1, 5)]
    assert await merge(store, *graves) == {"taken": 2, "refused": 2}
    assert await merge(store, *graves[2:], member=B) == {"taken": 2}


async def test_a_node_that_spoke_up_meanwhile_is_not_cleaned_up(store):
    signed = signed_record()
    await store.put(verify_record(signed), signed, NOW)
    assert not await store.remove(NODE, silent_since=NOW)
    assert len(await rows(store)) == 1
    assert await store.remove(NODE, silent_since=NOW + 1)
