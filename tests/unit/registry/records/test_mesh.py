import pytest
from pydantic import ValidationError

from kodo.p2p.errors import IdentityError, PeerError
from kodo.registry.records.mesh import Batch, Item, Ledger, MeshBounds, Tombstone
from kodo.registry.records.signed import sign, unpack, verify
from kodo.registry.store.mesh_store import check_item
from tests.support.records import NOW, identity, signed_goodbye, signed_heartbeat, signed_record

ORIGIN = identity(101)
A = str(ORIGIN.peer_id)


def item(**fields):
    return Item(**{"origin": A, "hops": 1, **fields})


def batch(*items, of=ORIGIN, **fields):
    given = {"peer_id": str(of.peer_id), "epoch": bytes(16), "since": 0, "next": 7, "more": False, "items": items}
    return sign(Batch(**{**given, **fields}), of)


def tombstone(of=ORIGIN, node=None, seq=1, at=NOW):
    node = str((node or identity()).peer_id)
    return sign(Tombstone(peer_id=str(of.peer_id), node=node, seq=seq, at=at), of)


def test_a_batch_comes_back_as_it_went():
    sent = batch(item(record=signed_record(), beat=signed_heartbeat()), item(goodbye=signed_goodbye(), hops=3))
    read = verify(Batch, sent)
    assert [each.hops for each in read.items] == [1, 3]
    assert check_item(read.items[0]).node == str(identity().peer_id)
    assert sign(read, ORIGIN) == sent


def test_a_batch_changed_on_its_way_is_refused():
    changed = bytearray(batch(item(record=signed_record())))
    changed[len(changed) // 2] ^= 1
    with pytest.raises((IdentityError, PeerError)):
        verify(Batch, bytes(changed))


@pytest.mark.parametrize("fields", [{"since": 8}, {"next": 0, "more": True}, {"epoch": b"short"}])
def test_a_cursor_that_does_not_rise_is_no_batch(fields):
    with pytest.raises(ValidationError):
        batch(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"record": b"x", "tombstone": b"y"},
        {"goodbye": b"x", "beat": b"y"},
        {"record": b"w", "goodbye": b"x", "beat": b"y"},
        {"record": b"x", "hops": 17},
        {"record": b"x", "hops": 0},
    ],
)
def test_an_item_is_one_thing_and_has_come_a_bounded_way(fields):
    with pytest.raises(ValidationError):
        item(**fields)


@pytest.mark.parametrize(
    "forged",
    [
        item(record=b"nonsense"),
        item(record=signed_record(identity(1))[:-1] + b"\x00"),
        item(record=signed_record(), beat=signed_heartbeat(identity(2))),
        item(record=signed_record(seq=2), beat=signed_heartbeat(seq=1)),
        item(goodbye=signed_heartbeat()),
        item(record=signed_record(), goodbye=signed_goodbye(identity(2))),
        item(tombstone=tombstone(of=identity(102))),
    ],
    ids=[
        "nonsense",
        "signature",
        "another node's heartbeat",
        "another record's",
        "another kind",
        "another node's goodbye",
        "another origin's",
    ],
)
def test_a_forged_item_is_found_out(forged):
    with pytest.raises(PeerError):
        check_item(forged)


def test_no_kind_passes_for_another():
    envelope = unpack(tombstone())
    assert envelope["payload"]
    with pytest.raises(PeerError):
        verify(Batch, tombstone())


def test_a_liar_is_cut_off_and_gets_another_chance():
    bounds, ledger = MeshBounds(forged=3, cutoff_s=60), Ledger()
    assert ledger.judge(NOW, bounds, forged=2)
    assert not ledger.judge(NOW, bounds, forged=1)
    assert not ledger.trusted(NOW + 59_999)
    assert ledger.trusted(NOW + 60_000)
    assert ledger.forged == 3


def test_old_misdeeds_fade():
    bounds, ledger = MeshBounds(forged=3, window_s=100), Ledger()
    for hour in range(20):
        assert ledger.judge(NOW + hour * 3_600_000, bounds, forged=2)


def test_a_member_that_brings_too_much_waits_and_goes_on():
    bounds, ledger = MeshBounds(items_per_s=10, burst=100), Ledger()
    assert ledger.wait_s(NOW, 100, bounds) == 0
    wait = ledger.wait_s(NOW, 10, bounds)
    assert wait == pytest.approx(1.0)
    assert ledger.wait_s(NOW + 1000, 10, bounds) == 0


def test_one_batch_over_the_burst_is_taken_once_nothing_is_owed():
    bounds, ledger = MeshBounds(items_per_s=10, burst=100), Ledger()
    assert ledger.wait_s(NOW, 1000, bounds) == 0
    assert ledger.wait_s(NOW + 50_000, 1, bounds) > 0
