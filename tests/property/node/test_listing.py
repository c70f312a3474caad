"""Whatever authors say of their flows, and however many there are, a node can sign a record of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.node.catalog.catalog import Flow
from kodo.node.catalog.listing import listed
from kodo.p2p.core.identity import Identity
from kodo.protocol.flow_info import MAX_TAGS
from kodo.registry.records.record import NodeRecord, sign_record, verify_record

IDENTITY = Identity.from_seed(bytes(32))

texts = st.text(st.characters(), max_size=40) | st.builds(str.__mul__, st.characters(), st.integers(0, 6000))
flows = st.builds(
    Flow,
    path=texts.filter(bool),
    name=texts,
    entry=st.just("m:f"),
    source=texts,
    description=texts,
    author=texts,
    organization=texts,
    release=texts,
    published=st.integers(-(2**70), 2**70),
    tags=st.lists(texts, max_size=80).map(tuple),
)


def signed(*said: Flow) -> NodeRecord:
    record = NodeRecord(
        peer_id=str(IDENTITY.peer_id),
        name="n",
        flows=listed(said).records,
        seq=1,
        issued_at=0,
        ttl_s=60,
    )
    return verify_record(sign_record(record, IDENTITY))


@given(st.lists(flows, max_size=4))
def test_what_any_author_says_is_signed(said: list[Flow]) -> None:
    assert len(signed(*said).flows) <= len(said)


@pytest.mark.parametrize(
    ("count", "character", "length"), [(10_001, "x", 1), (10_000, "報", 4096), (300, "x", 4096), (3000, "x", 4096)]
)
def test_so_many_flows_are_signed_and_what_is_cut_is_told(count: int, character: str, length: int) -> None:
    said = [
        Flow(path=f"flows.f{number}", name="f" * 256, entry="m:f", description=character * length)
        for number in range(count)
    ]
    listing = listed(said)
    assert signed(*said).flows == listing.records
    assert listing.cuts


def test_tags_beyond_the_bounds_are_told_of_and_the_others_are_listed() -> None:
    tags = ("long" * 40, *(f"tag{number}" for number in range(60)))
    listing = listed([Flow(path="flows.f", name="f", entry="m:f", tags=tags)])
    assert listing.records[0].tags == tags[1 : MAX_TAGS + 1]
    [cut] = listing.cuts
    assert cut.startswith(f"{MAX_TAGS} of the 61 tags of flows.f are listed: ")


def test_what_fits_is_listed_as_it_was_said() -> None:
    flow = Flow(path="flows.f", name="f", entry="m:f", description="d" * 4096, tags=("a", "b"))
    listing = listed([flow, Flow(path="flows.broken", name="b", entry="m:b", error="it is")])
    assert [(each.path, each.description, each.tags) for each in listing.records] == [
        ("flows.f", "d" * 4096, ("a", "b"))
    ]
    assert listing.cuts == ()
