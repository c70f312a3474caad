from dataclasses import replace

import pytest

from kodo.p2p.errors import CallError
from kodo.registry.query.glob import fold
from kodo.registry.query.tree import FLOW_FIELDS, NODE_FIELDS
from kodo.registry.reads.flow_pages import FLOW_KEYS
from kodo.registry.reads.node_pages import NODE_KEYS
from kodo.registry.reads.pages import COUNT_LIMIT, PageRequest, parse_page
from kodo.registry.records.record import verify_record
from kodo.registry.store.store import Store
from tests.support.records import NOW, UNHURRIED, address, flow, identity, signed_record

FLOWS = {
    1: [
        flow("flows.market.Competitor", name="Competitor Analysis", author="ana@example.com", tags=("market", "ÖL")),
        flow(
            "flows.trend.Scout", name="Trend Scout", author="bob@example.com", tags=("a*b", 'say "hi"'), release="2"
        ),
    ],
    2: [
        flow("flows.trend.Radar", name="Straße", organization="Other", description="Finds TRENDS early", tags=()),
        flow("atlas", name="Code Atlas", author="eve@example.com", tags=("back\\slash", "x"), published=5),
    ],
}
NAMES = {1: "alpha.example.com", 2: "Beta.example.com"}


@pytest.fixture
async def store(tmp_path):
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        for number, flows in FLOWS.items():
            signed = signed_record(identity(number), *flows, name=NAMES[number])
            await store.put(verify_record(signed), signed, NOW + number)
        yield store


async def found(store, search):
    page = await store.search(PageRequest(search=search), NOW)
    return {row["path"].rpartition(".")[2] for row in page["result"]}


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("trend", {"Scout", "Radar"}),
        ("trend*", {"Scout"}),
        ("*EARLY", {"Radar"}),
        ("alpha", {"Competitor", "Scout"}),
        ("beta.*", {"Radar", "atlas"}),
        ("strasse", {"Radar"}),
        ("STRASSE", {"Radar"}),
        ("bob@example.com", {"Scout"}),
        ("other", {"Radar"}),
        ("market", {"Competitor"}),
        ("öl", {"Competitor"}),
        ("Öl", {"Competitor"}),
        ("x", {"Competitor", "Scout", "Radar", "atlas"}),
        ("[x]", {"atlas"}),
        ("a[*]b", {"Scout"}),
        ('"hi"', {"Scout"}),
        ('say "hi"', {"Scout"}),
        ("back\\slash", {"atlas"}),
        ("k\\s", {"atlas"}),
        ("b*hi", set()),
        ('market", "öl', set()),
        ("%", set()),
        ("Competitor*Analysis", {"Competitor"}),
        ("Competitor*market", set()),
        ("NEAR OR AND", set()),
        ("zzz", set()),
    ],
)
async def test_a_search_finds(store, search, expected):
    assert await found(store, search) == expected


async def test_the_path_is_no_field_of_the_search(store):
    assert await found(store, "flows.trend") == set()


async def test_a_flow_row_has_its_fields_and_those_of_its_node(store):
    page = await store.search(PageRequest(search="code atlas"), NOW)
    assert page["result"] == [
        {
            "path": "atlas",
            "name": "Code Atlas",
            "source": "flows/market.py",
            "description": "Looks at who else sells it",
            "author": "eve@example.com",
            "organization": "Example",
            "published": 5,
            "release": "0.1.2",
            "tags": ["back\\slash", "x"],
            "inputs_schema_sha256": "",
            "node": "Beta.example.com",
            "peer_id": str(identity(2).peer_id),
            "addrs": [address(identity(2))],
            "online": True,
            "state": "online",
            "ping": None,
            "availability": None,
            "performance": None,
        }
    ]


async def test_a_node_row_has_what_one_dials(store):
    page = await store.nodes(PageRequest(search="alpha*"), NOW)
    assert page["result"] == [
        {
            "name": "alpha.example.com",
            "peer_id": str(identity(1).peer_id),
            "addrs": [address(identity(1))],
            "online": True,
            "state": "online",
            "ping": None,
            "availability": None,
            "performance": None,
            "tags": [],
            "flows": 2,
            "seq": 1,
            "issued_at": NOW,
            "expires_at": NOW + 3_600_000,
            "seen_at": NOW + 1,
        }
    ]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("beta", ["Beta.example.com"]),
        ("competitor*", ["alpha.example.com"]),
        ("trend", list(NAMES.values())),
        ("q", []),
    ],
)
async def test_a_node_is_found_by_its_name_and_its_flows(store, search, expected):
    page = await store.nodes(PageRequest(search=search), NOW)
    assert [row["name"] for row in page["result"]] == expected


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("name", ["Code Atlas", "Competitor Analysis", "Straße", "Trend Scout"]),
        ("name desc", ["Trend Scout", "Straße", "Competitor Analysis", "Code Atlas"]),
        ("node desc, name ASC", ["Code Atlas", "Straße", "Competitor Analysis", "Trend Scout"]),
        ("published asc,path", ["Code Atlas", "Competitor Analysis", "Straße", "Trend Scout"]),
        # Equal rows stand in the order in which they came, or in its reverse: the last key says which.
        ("release desc,author desc", ["Trend Scout", "Code Atlas", "Straße", "Competitor Analysis"]),
        ("organization desc , path", ["Straße", "Code Atlas", "Competitor Analysis", "Trend Scout"]),
    ],
)
async def test_flows_are_sorted(store, by, expected):
    page = await store.search(PageRequest(by=by), NOW)
    assert [row["name"] for row in page["result"]] == expected


@pytest.mark.parametrize("way", ["asc", "desc"])
@pytest.mark.parametrize("kind", ["flows", "nodes"])
async def test_every_key_sorts_alone_and_after_another_and_its_pages_join(store, kind, way):
    await store.annotate(str(identity(1).peer_id), None, {"performance": 2.0, "availability": 0.5}, replace=False)
    read, keys = (store.search, FLOW_KEYS) if kind == "flows" else (store.nodes, NODE_KEYS)
    for by in (*keys, *(f"{first} asc,{last}" for first in ("online", "name") for last in keys)):
        whole = (await read(PageRequest(by=f"{by} {way}"), NOW))["result"]
        singles = [(await read(PageRequest(by=f"{by} {way}", p=p, pp=1), NOW))["result"] for p in range(1, 6)]
        assert [row for page in singles for row in page] == whole
        narrowed = await read(PageRequest(by=f"{by} {way}", search="a"), NOW)
        assert narrowed["result"] == whole
        if by in keys:
            values = [row[by] for row in whole]
            values = [fold(value) if isinstance(value, str) else value for value in values]
            known = [value for value in values if value is not None]
            assert known == sorted(known, reverse=way == "desc")


async def test_nodes_that_are_online_come_first(store):
    third = signed_record(identity(3), name="aaa")
    await store.put(verify_record(third), third, NOW - 290_000)
    page = await store.nodes(PageRequest(by="online desc,name asc"), NOW + 20_000)
    assert [(row["name"], row["online"]) for row in page["result"]] == [
        ("alpha.example.com", True),
        ("Beta.example.com", True),
        ("aaa", False),
    ]
    flows = await store.search(PageRequest(by="online asc,name desc"), NOW + 300_001)
    assert [row["online"] for row in flows["result"]] == [False, False, True, True]


async def test_pages_join_without_gap_or_double(store):
    pages = [await store.search(PageRequest(p=p, pp=3), NOW) for p in (1, 2, 3)]
    assert [len(page["result"]) for page in pages] == [3, 1, 0]
    assert len({row["path"] for page in pages for row in page["result"]}) == 4
    assert [page["total_pages"] for page in pages] == [2, 2, 2]


async def test_a_page_tells_totals_and_repeats_the_request(store):
    page = await store.search(PageRequest(search="trend", by="name desc", p=1, pp=1), NOW)
    del page["result"]
    assert page == {
        "total_records": 4,
        "filtered_records": 2,
        "total_pages": 2,
        "search": "trend",
        "query": None,
        "by": "name desc",
        "p": 1,
        "pp": 1,
    }


async def test_totals_over_the_limit_are_lower_bounds(tmp_path):
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        for number in range(1, 6):
            flows = [flow(f"f{index}", name="n", description="same words") for index in range(2001)]
            signed = signed_record(identity(number), *flows, name=f"node{number}")
            await store.put(verify_record(signed), signed, NOW)
        page = await store.search(PageRequest(search="words", pp=500), NOW)
    assert (page["total_records"], page["filtered_records"]) == (COUNT_LIMIT, COUNT_LIMIT)
    assert (page["total_pages"], page["total_is_lower_bound"], len(page["result"])) == (20, True, 500)


WAYS = {
    "look": {"_LOOK": 0},
    "pick": {"_LOOK": 1e9, "_PICK": 0, "_STEP": 0, "_JUDGE": 1e9},
    "sort": {"_LOOK": 1e9, "_PICK": 0, "_STEP": 1e9, "_JUDGE": 0},
}


@pytest.fixture
async def crowd(tmp_path):
    words = ["market", "trend", "atlas", "radar", "Straße", 'say "hi"', "scout"]
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        for number in range(1, 7):
            flows = [
                flow(f"f{index}", name=f"{words[(index * 5 + number) % 7]} {index % 3}", published=NOW - index,
                     description=f"common {words[index % 7]}", tags=(words[(index + number) % 7], f"t{index % 2}"))
                for index in range(8)
            ]  # fmt: skip
            signed = signed_record(identity(number), *flows, name=f"{words[number % 3]}-{number}.example.com")
            await store.put(verify_record(signed), signed, NOW - 200_000 * (number % 2))
            await store.annotate(str(identity(number).peer_id), None, {"performance": number % 4}, replace=False)
        await store.annotate(str(identity(3).peer_id), "f2", {"hidden": True}, replace=False)
        yield store


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_many_rows_gives_the_same(crowd, way, monkeypatch):
    requests = [
        {"search": search, "query": query, "by": by, "pp": "7"}
        for search in ("common", "trend", "*rad*0", "*[m-t]ar*", "")
        for query in ("", "performance > 1", '"atlas" in tags', 'name.str.contains("mark") or "t1" in tags')
        for by in ("name", "published desc", "node", "online desc,name", "performance desc,path", "author,release")
    ]

    async def read():
        found = []
        for request in requests:
            for p in ("1", "2", "4"):
                page = await crowd.search(parse_page({**request, "p": p}, FLOW_FIELDS), NOW + 200_000)
                found.append([(row["peer_id"], row["path"]) for row in page["result"]])
        return found

    known = await read()
    assert sum(map(len, known)) > 500
    for name, value in WAYS[way].items():
        monkeypatch.setattr(f"kodo.registry.reads.flow_pages.{name}", value)
    for module in ("flow_pages", "pages"):
        monkeypatch.setattr(f"kodo.registry.reads.{module}.COUNT_LIMIT", 3)
    for request, got, expected in zip((r for r in requests for _ in range(3)), await read(), known, strict=True):
        assert got == expected, request


@pytest.mark.parametrize("way", ["look", "pick"])
async def test_every_way_to_many_nodes_gives_the_same(crowd, way, monkeypatch):
    bare = signed_record(identity(9), name="trend-without-flows.example.com")
    await crowd.put(verify_record(bare), bare, NOW)
    covered = signed_record(identity(8), flow("f"), name="trend-covered.example.com")
    await crowd.put(verify_record(covered), covered, NOW)
    await crowd.annotate(str(identity(8).peer_id), "f", {"hidden": True}, replace=False)
    requests = [
        {"search": search, "query": query, "by": by, "pp": "2"}
        for search in ("common", "trend", "*rad*0", "trend*", "*[m-t]ar*", "radar-", "tr")
        for query in ("", "performance > 1")
        for by in ("name", "online desc,name", "performance desc")
    ]

    async def read(hidden):
        found = []
        for request in requests:
            for p in ("1", "2"):
                asked = replace(parse_page({**request, "p": p}, NODE_FIELDS), hidden=hidden)
                page = await crowd.nodes(asked, NOW + 200_000)
                found.append([row["name"] for row in page["result"]])
        return found

    # An index that gives nothing leaves every row to be judged: what is found so is right.
    with monkeypatch.context() as plain:
        plain.setattr("kodo.registry.reads.node_pages.search_match", lambda glob: (None, False))
        known = {hidden: await read(hidden) for hidden in (False, True)}
    assert sum(map(len, known[False])) > 60
    assert known == {hidden: await read(hidden) for hidden in (False, True)}
    monkeypatch.setattr("kodo.registry.reads.node_pages._LOOK", 0 if way == "look" else 1e9)
    for module in ("node_pages", "pages"):
        monkeypatch.setattr(f"kodo.registry.reads.{module}.COUNT_LIMIT", 1)
    for hidden in (False, True):
        for request, got, expected in zip(
            (r for r in requests for _ in range(2)), await read(hidden), known[hidden], strict=True
        ):
            assert got == expected, request


@pytest.mark.parametrize(
    ("tag", "holds"),
    [("lit", True), ("li", False), ("it", False), ("a", True), ("LIT", False), ("c d", True), ("b", False)],
)
async def test_a_tag_is_found_whole_whatever_stands_beside_it(tmp_path, tag, holds):
    tags = ("lit", "a", 'b"lit2', "x\\", "c d", '"li', 'it"', "b,", "ö")
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        signed = signed_record(identity(1), flow(tags=tags))
        await store.put(verify_record(signed), signed, NOW)
        for path in (None, flow().path):
            request = {"query": f'"{tag}" in tags'}
            page = await store.search(parse_page(request, FLOW_FIELDS), NOW)
            assert bool(page["result"]) is holds
            await store.annotate(str(identity(1).peer_id), path, {"tags": list(tags)}, replace=False)
        page = await store.nodes(parse_page(request, NODE_FIELDS), NOW)
        assert bool(page["result"]) is holds


def test_a_request_has_defaults():
    assert parse_page({}, FLOW_FIELDS) == PageRequest(search=None, by="name asc", p=1, pp=100)
    assert parse_page({"search": "", "by": ""}, FLOW_FIELDS) == PageRequest()


@pytest.mark.parametrize(
    ("parameters", "arg"),
    [
        ({"p": "0"}, "p"),
        ({"p": "1.5"}, "p"),
        ({"p": "-1"}, "p"),
        ({"p": "١"}, "p"),
        ({"p": "1000001"}, "p"),
        ({"p": "9" * 5000}, "p"),
        ({"pp": "501"}, "pp"),
        ({"pp": "0"}, "pp"),
        ({"search": "a" * 513}, "search"),
        ({"search": "a\0b"}, "search"),
        ({"serach": "a"}, "serach"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, arg):
    with pytest.raises(CallError) as caught:
        parse_page(parameters, FLOW_FIELDS)
    assert (caught.value.code, caught.value.reason, caught.value.data["arg"]) == (400, "bad-args", arg)


def test_a_wrong_query_is_refused_with_its_place():
    with pytest.raises(CallError, match="character 12: there is no field 'nmae'") as caught:
        parse_page({"query": "online and nmae == 'x'"}, FLOW_FIELDS)
    assert (caught.value.code, caught.value.reason) == (400, "bad-args")
    assert caught.value.data == {"arg": "query", "at": 11}


FLOW_QUERIES = [
    ("online and 'market' in tags", {"Competitor"}),
    ("name.str.contains('Trend')", {"Scout"}),
    ("name.str.lower().str.startswith('str')", {"Radar"}),
    ("node == 'Beta.example.com' and published < '2000-01-01'", {"atlas"}),
    ("node == 'beta.example.com'", set()),
    ("organization in ['Other', 'None']", {"Radar"}),
    ("release.str.len() == 1", {"Scout"}),
    ("not path.str.startswith('flows.')", {"atlas"}),
    ("author.str.endswith('@example.com') and description.str.contains('TRENDS')", {"Radar"}),
    ("performance.isnull() and state == 'online' and ping.cpu.isnull()", {"Competitor", "Scout", "Radar", "atlas"}),
    ("requests_per_hour > 1", set()),
    ("'back\\\\slash' in tags", {"atlas"}),
]


@pytest.mark.parametrize(("query", "expected"), FLOW_QUERIES)
async def test_a_query_finds_flows(store, query, expected):
    page = await store.search(parse_page({"query": query}, FLOW_FIELDS), NOW)
    assert {row["path"].rpartition(".")[2] for row in page["result"]} == expected
    assert (page["query"], page["filtered_records"], page["total_records"]) == (query, len(expected), 4)


async def test_a_query_and_a_search_narrow_each_other(store):
    page = await store.search(parse_page({"query": "author >= 'b'", "search": "*trend*"}, FLOW_FIELDS), NOW)
    assert [row["path"] for row in page["result"]] == ["flows.trend.Scout"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("online", {"alpha.example.com", "Beta.example.com"}),
        ("not online", set()),
        ("flows == 2 and name.str.startswith('B')", {"Beta.example.com"}),
        ("'x' in tags", set()),
        ("seen_at == issued_at + 1", {"alpha.example.com"}),
    ],
)
async def test_a_query_finds_nodes(store, query, expected):
    page = await store.nodes(parse_page({"query": query}, NODE_FIELDS), NOW)
    assert {row["name"] for row in page["result"]} == expected


@pytest.mark.parametrize(
    "by", ["secret", "name up", "name asc desc", "name,", ",", "name;drop", "name,name,name,name,name", "data asc"]
)
async def test_a_wrong_sort_key_is_refused(store, by):
    for read in (store.search, store.nodes):
        with pytest.raises(CallError) as caught:
            await read(PageRequest(by=by), NOW)
        assert (caught.value.code, caught.value.data) == (400, {"arg": "by"})
