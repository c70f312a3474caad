"""What becomes of a node in every order of what is said of it: here, by members of the mesh, and by operators."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest

from kodo.p2p.errors import CallError
from kodo.registry.records.mesh import Item, Tombstone
from kodo.registry.records.record import verify_goodbye, verify_heartbeat, verify_record
from kodo.registry.records.signed import sign
from kodo.registry.store import last_seqs
from kodo.registry.store.file import REGISTRY_FILE
from kodo.registry.store.mesh_store import SILENT_S, check_item
from kodo.registry.store.store import Store
from tests.support.records import NOW, flow, identity, signed_goodbye, signed_heartbeat, signed_record

NODE = str(identity().peer_id)
A, B, OWN = (str(identity(number).peer_id) for number in (101, 102, 103))
RECORDS = {seq: signed_record(identity(), flow(), seq=seq, ttl_s=86400) for seq in (1, 2)}
BEATS = {seq: signed_heartbeat(seq=seq, at=NOW + 5) for seq in (1, 2)}
LEFT = signed_goodbye(seq=1)
LENGTH = 4
"""Of the longest orders that are tried of the 13 things that can be said."""


class HeldStore(Store):
    """A store on one connection, in whose transactions anything can be undone."""

    def __init__(self, connection):
        super().__init__(None)
        self.connection = connection

    async def _write(self, work):
        return work(self.connection)

    async def _read_mesh(self, work):
        return work(self.connection)


@dataclass
class Said:
    """What was said so far, as far as it was taken."""

    words: tuple = ()
    now: int = NOW
    seq: int = 0
    left: int = 0
    buried: int = 0
    here: bool = False
    annotated: bool = False
    problems: list = field(default_factory=list)


def announce(seq):
    async def say(store, said):
        record = verify_record(RECORDS[seq])
        await store.put(record, RECORDS[seq], said.now)
        return replace(said, seq=max(said.seq, seq), here=True, buried=0)

    return say


async def beat_here(store, said):
    row = node_row(store.connection)
    beat = BEATS[row["seq"] if row else 1]
    await store.heartbeat(verify_heartbeat(beat), beat, said.now, gap_ms=0)
    return replace(said, here=True)


async def goodbye_here(store, said):
    await store.goodbye(verify_goodbye(LEFT), LEFT, said.now)
    return replace(said, left=1, here=False)


async def clean(store, said):
    await store.remove(NODE)
    return replace(said, here=False)


async def bury(store, said):
    row = node_row(store.connection)
    stone = Tombstone(peer_id=OWN, node=NODE, seq=row["seq"] if row else 1, at=said.now)
    done = await store.mesh.bury(sign(stone, identity(103)), stone, said.now)
    return replace(said, here=False, buried=stone.seq if done else said.buried)


def bring(member, number, **what):
    if what.pop("tombstone", False):
        stone = Tombstone(peer_id=member, node=NODE, seq=9, at=NOW)
        what["tombstone"] = sign(stone, identity(number))
    item = check_item(Item(origin=member, hops=1, **what))

    async def say(store, said):
        before = node_row(store.connection)
        merged = await store.mesh.merge([item], member, OWN, said.now, most_nodes=10)
        if not merged.taken:
            return said
        after = node_row(store.connection)
        if after is not None:
            gone = after["left_at"] is not None
            return replace(said, seq=max(said.seq, after["seq"]), left=after["left_seq"], here=said.here and not gone)
        if before is not None and before["record_origin"] != member:
            said.problems.append("a tombstone removed what did not come by its signer")
        return said

    return say


async def goodbye_alone(store, said):
    said = await bring(B, 102, goodbye=LEFT)(store, said)
    return replace(said, left=1)  # also when it is not known here


async def annotate(store, said):
    await store.annotate(NODE, None, {"hidden": True}, replace=False)
    return replace(said, annotated=True)


async def be_silent(store, said):
    return replace(said, here=False, now=said.now + (SILENT_S + 1) * 1000)


WORDS = {
    "announces 1 here": announce(1),
    "announces 2 here": announce(2),
    "beats here": beat_here,
    "leaves here": goodbye_here,
    "is cleaned up": clean,
    "is unregistered": bury,
    "A tells 1, alive": bring(A, 101, record=RECORDS[1], beat=BEATS[1]),
    "B tells 2": bring(B, 102, record=RECORDS[2]),
    "A takes it back": bring(A, 101, tombstone=True),
    "is annotated": annotate,
    "is silent": be_silent,
    "A says it left": bring(A, 101, record=RECORDS[1], goodbye=LEFT),
    "B says no more than that it left": goodbye_alone,
}


def node_row(connection):
    return connection.execute(
        "SELECT n.*, c.origin, c.record_origin FROM nodes n LEFT JOIN changes c USING (peer_id) WHERE n.peer_id = ?",
        (NODE,),
    ).fetchone()


def look(connection, said):
    """Give what is not as it should be."""
    row = node_row(connection)
    found = list(said.problems)
    (hidden,) = connection.execute("SELECT hidden_nodes FROM totals").fetchone()
    if row is None:
        if said.here:
            found.append("a node that speaks here is gone")
        if hidden:
            found.append("a node that is gone is counted as hidden")
        return found
    if said.here and row["origin"] != "":
        found.append("a node that speaks here has another origin")
    if row["seq"] < said.seq:
        found.append("an older record is back")
    if row["left_at"] is None and row["seq"] <= said.left:
        found.append("a node is back from its goodbye")
    if row["seq"] <= said.buried:
        found.append("a node is back from its removal here")
    if (said.annotated and not row["hidden"]) or row["hidden"] != hidden:
        found.append("an annotation is lost")
    return found


async def explore(store, said, length, problems):
    """Say each thing next that was not said yet, look, and undo it."""
    for word, say in WORDS.items():
        if word in said.words:
            continue
        store.connection.execute(f"SAVEPOINT s{length}")
        before = store.connection.total_changes
        try:
            told = await say(store, replace(said, problems=[]))
        except CallError:
            told = said
        told = replace(told, words=(*said.words, word))
        for problem in look(store.connection, told):
            problems.setdefault(problem, told.words)
        # What changed nothing is left out: the orders without it are tried too.
        changed = store.connection.total_changes != before or told.now != said.now
        if length > 1 and changed:
            await explore(store, told, length - 1, problems)
        store.connection.execute(f"ROLLBACK TO s{length}")
        store.connection.execute(f"RELEASE s{length}")


@pytest.fixture
def connection(tmp_path):
    with closing(REGISTRY_FILE.open_writer(tmp_path / "registry.db")) as connection:
        assert isinstance(connection, sqlite3.Connection)
        yield connection


async def test_in_no_order_is_a_node_taken_away_brought_back_old_or_shown_against_an_operators_word(connection):
    problems = {}
    await explore(HeldStore(connection), Said(), LENGTH, problems)
    assert problems == {}


async def test_a_goodbye_of_a_node_that_is_not_known_keeps_its_older_records_out_and_no_newer_ones(connection):
    store = HeldStore(connection)
    said = await goodbye_alone(store, Said())
    await bring(A, 101, record=RECORDS[1], beat=BEATS[1])(store, said)
    assert node_row(connection) is None
    await bring(A, 101, record=RECORDS[2])(store, said)
    assert node_row(connection)["seq"] == 2


async def test_goodbyes_that_somebody_made_up_drive_none_out_that_was_here(connection, monkeypatch):
    monkeypatch.setattr(last_seqs, "MAX_KEPT", 10)
    store = HeldStore(connection)
    await announce(2)(store, Said())
    await store.remove(NODE)
    for number in range(200, 230):
        left = check_item(Item(origin=B, hops=1, goodbye=signed_goodbye(identity(number))))
        await store.mesh.merge([left], B, OWN, NOW, most_nodes=10)
    assert connection.execute("SELECT count(*) FROM last_seqs").fetchone()[0] <= 6
    await bring(A, 101, record=RECORDS[1])(store, Said())
    assert node_row(connection) is None
