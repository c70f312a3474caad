import pytest

from kodo.p2p.errors import CallError
from kodo.registry.query.tree import FLOW_FIELDS, NODE_FIELDS
from kodo.registry.reads.pages import PageRequest, parse_page
from kodo.registry.records.record import verify_record
from kodo.registry.store.store import Store
from tests.support.records import NOW, UNHURRIED, flow, identity, signed_record

PEER = str(identity().peer_id)
OTHER = str(identity(2).peer_id)


async def put(store, signed):
    return await store.put(verify_record(signed), signed, NOW)


@pytest.fixture
async def store(tmp_path):
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        await put(store, signed_record(identity(), flow("a", tags=("own",)), flow("b", name="Second")))
        await put(store, signed_record(identity(2), flow("c"), name="other.example.com"))
        yield store


async def rows(store, hidden=False, **given):
    request = parse_page({"by": "path", **given}, FLOW_FIELDS)
    page = await store.search(
        PageRequest(request.search, request.query, request.condition, "path", hidden=hidden), NOW
    )
    assert page["filtered_records"] == len(page["result"])
    return {row["path"]: row for row in page["result"]}


async def test_an_admins_words_stand_in_place_of_the_nodes(store):
    await store.annotate(PEER, "a", {"tags": ["Curated"], "description": "Best of all"}, replace=False)
    row = (await rows(store))["a"]
    assert (row["tags"], row["description"], row["author"]) == (["Curated"], "Best of all", "ana@example.com")
    assert set(await rows(store, search="curated")) == {"a"}
    assert set(await rows(store, search="own")) == set()
    assert set(await rows(store, query="'Curated' in tags")) == {"a"}
    assert await store.signed_record(PEER) == signed_record(
        identity(), flow("a", tags=("own",)), flow("b", name="Second")
    )


async def test_words_outlive_the_record_and_wait_for_their_flow(store):
    await store.annotate(PEER, "later", {"tags": ["awaited"]}, replace=False)
    await store.annotate(PEER, "a", {"name": "Better"}, replace=False)
    await put(store, signed_record(identity(), flow("a", release="9"), flow("later"), seq=2))
    found = await rows(store)
    assert (found["a"]["name"], found["a"]["release"]) == ("Better", "9")
    assert found["later"]["tags"] == ["awaited"]


async def test_words_are_merged_replaced_and_taken_back(store):
    await store.annotate(PEER, "a", {"name": "One", "tags": ["t"]}, replace=False)
    await store.annotate(PEER, "a", {"description": "Two"}, replace=False)
    assert await store.annotations(PEER) == {"a": {"name": "One", "tags": ["t"], "description": "Two"}}
    await store.annotate(PEER, "a", {"name": None}, replace=False)
    assert (await rows(store))["a"]["name"] == "Competitor Analysis"
    await store.annotate(PEER, "a", {"author": "x@example.com"}, replace=True)
    row = (await rows(store))["a"]
    assert (row["tags"], row["author"]) == (["own"], "x@example.com")
    await store.annotate(PEER, "a", {}, replace=True)
    assert await store.annotations(PEER) == {}
    assert (await rows(store))["a"]["author"] == "ana@example.com"


async def test_a_hidden_flow_is_seen_by_admins_only(store):
    await store.annotate(PEER, "a", {"hidden": True}, replace=False)
    for given in ({}, {"search": "competitor"}, {"search": "co"}, {"query": "online"}, {"query": "'own' in tags"}):
        assert "a" not in await rows(store, **given)
        assert (await rows(store, hidden=True, **given)).get("a", {"hidden": True})["hidden"] is True
    assert set(await rows(store, hidden=True, search="own")) == {"a"}
    page = await store.search(PageRequest(), NOW)
    assert page["total_records"] == 2
    assert (await store.counts(NOW))["flows"] == 2
    nodes = await store.nodes(PageRequest(search="own"), NOW)
    assert nodes["result"] == []
    await store.annotate(PEER, "a", {"hidden": False}, replace=False)
    assert set(await rows(store)) == {"a", "b", "c"}


async def test_a_hidden_node_hides_its_flows_also_those_that_come(store):
    await store.annotate(PEER, None, {"hidden": True}, replace=False)
    await put(store, signed_record(identity(), flow("a"), flow("new"), seq=2))
    assert set(await rows(store)) == {"c"}
    assert set(await rows(store, hidden=True)) == {"a", "new", "c"}
    page = await store.nodes(PageRequest(), NOW)
    assert ([row["peer_id"] for row in page["result"]], page["total_records"]) == ([OTHER], 1)
    assert await store.counts(NOW) == {"online": 1, "unknown": 0, "offline": 0, "flows": 1}
    await store.annotate(PEER, None, {}, replace=True)
    assert set(await rows(store)) == {"a", "new", "c"}


async def test_a_node_has_tags_a_description_and_measures_of_an_admins(store):
    await store.annotate(
        PEER, None, {"tags": ["eu"], "description": "Ours", "availability": 0.5, "performance": 2.0}, replace=False
    )
    request = parse_page({"query": "'eu' in tags and availability < 0.6 and performance == 2"}, NODE_FIELDS)
    (row,) = (await store.nodes(request, NOW))["result"]
    assert (row["tags"], row["description"], row["availability"]) == (["eu"], "Ours", 0.5)
    assert {path: row["performance"] for path, row in (await rows(store)).items()} == {"a": 2.0, "b": 2.0, "c": None}
    await store.annotate(PEER, None, {"performance": None}, replace=False)
    assert (await rows(store))["a"]["performance"] is None


@pytest.mark.parametrize(
    ("path", "words", "arg"),
    [
        ("a", {"nmae": "x"}, "nmae"),
        ("a", {"tags": "x"}, "tags"),
        ("a", {"tags": [1]}, "tags.0"),
        ("a", {"name": "x\x1b[2J"}, "name"),
        ("a", {"tags": ["a\nb"]}, "tags.0"),
        ("a", {"description": "d" * 4097}, "description"),
        ("a", {"availability": 1.0}, "availability"),
        (None, {"availability": float("nan")}, "availability"),
        (None, {"name": "x"}, "name"),
        (None, {"hidden": 1}, "hidden"),
    ],
)
async def test_what_is_no_annotation_is_refused_by_name(store, path, words, arg):
    with pytest.raises(CallError) as caught:
        await store.annotate(PEER, path, words, replace=False)
    assert (caught.value.code, caught.value.data) == (400, {"arg": arg})
    assert await store.annotations(PEER) == {}


async def test_a_node_that_is_not_known_cannot_be_annotated(store):
    with pytest.raises(CallError, match="404 no-such-node"):
        await store.annotate(str(identity(9).peer_id), None, {"hidden": True}, replace=False)


async def test_of_a_hidden_node_other_registries_and_readers_are_told_nothing_until_it_is_shown(store):
    own = str(identity(103).peer_id)
    epoch = (await store.mesh.page(own, 0, None, NOW)).epoch

    async def told(since=0):
        page = await store.mesh.page(own, since, epoch, NOW)
        return [verify_record(item.record).peer_id for item in page.items], page.next

    await store.annotate(PEER, None, {"hidden": True}, replace=False)
    assert (await told())[0] == [OTHER]
    with pytest.raises(CallError, match="no-such-node"):
        await store.signed_record(PEER, hidden=False)
    assert verify_record(await store.signed_record(PEER)).peer_id == PEER
    _, since = await told()
    await store.annotate(PEER, None, {"hidden": None}, replace=False)
    assert (await told(since))[0] == [PEER]
    assert verify_record(await store.signed_record(PEER, hidden=False)).peer_id == PEER


async def test_what_was_said_of_a_node_outlives_it_and_is_shown_when_it_comes_back(store):
    words = {"tags": ["eu"], "description": "Ours", "availability": 0.5}
    await store.annotate(PEER, None, words, replace=False)
    await store.annotate(PEER, "a", {"name": "Better"}, replace=False)
    assert await store.remove(PEER)
    assert await store.annotations(PEER) == {"": words, "a": {"name": "Better"}}
    await put(store, signed_record(identity(), flow("a"), seq=2))
    (node,) = [row for row in (await store.nodes(PageRequest(), NOW))["result"] if row["peer_id"] == PEER]
    assert {name: node[name] for name in words} == words
    assert (await rows(store))["a"]["name"] == "Better"


async def test_a_node_that_is_gone_can_be_hidden_and_shown_before_it_comes_back(store):
    await store.annotate(PEER, None, {"hidden": True}, replace=False)
    await store.remove(PEER)
    assert (await store.counts(NOW))["online"] == 1
    await put(store, signed_record(identity(), flow("a"), seq=2))
    assert set(await rows(store)) == {"c"}
    assert await store.counts(NOW) == {"online": 1, "unknown": 0, "offline": 0, "flows": 1}
    await store.remove(PEER)
    await store.annotate(PEER, None, {}, replace=True)
    await put(store, signed_record(identity(), flow("a"), seq=3))
    assert set(await rows(store)) == {"a", "c"}
    with pytest.raises(CallError, match="no-such-node"):
        await store.annotate(str(identity(9).peer_id), None, {}, replace=True)


async def test_annotations_of_all_nodes_together_are_bounded(store, monkeypatch):
    monkeypatch.setattr("kodo.registry.store.annotations.MAX_ALL_NOTES", 2)
    await store.annotate(PEER, "a", {"name": "One"}, replace=False)
    await store.remove(PEER)
    await store.annotate(OTHER, "c", {"name": "Two"}, replace=False)
    with pytest.raises(CallError, match="507 too-many-notes"):
        await store.annotate(OTHER, None, {"hidden": True}, replace=False)
    await store.annotate(PEER, "a", {"name": None}, replace=False)
    await store.annotate(OTHER, None, {"hidden": True}, replace=False)
