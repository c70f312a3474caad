"""The catalogue: flows found, searched, refused with reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kodo.node.catalog.catalog import Catalog, describe_flows
from kodo.node.catalog.scope import Scope
from kodo.node.runs.live import LiveRun
from kodo.node.schemas.judge import Judge
from kodo.node.store.rows import RunRow
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, KodoError, UsageError
from tests.unit.node.conftest import StillClock

SCHEMA = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "depth": {"type": "integer"}},
    "required": ["topic"],
    "additionalProperties": False,
}


def info(path: str, name: str, **more: Any) -> dict[str, Any]:
    said = {"path": path, "name": name, "entry": path.replace(".", ":"), "author": "ana@example.com", "release": "1"}
    return {**said, "schema": SCHEMA, "tags": ["market"], **more}


INFOS = [
    info("b.Beta", "Same"),
    info("a.Alpha", "Same", description="Reads ÄPFEL and pears", tags=["fruit"]),
    info("c.Gamma", "Other", published=77),
    info("d.Broken", "Broken", error="ImportError: no module named crewai"),
]


async def made(store: Store, infos: list[dict[str, Any]] = INFOS, **scope: Any) -> Catalog:
    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return infos

    catalog = Catalog(["x"], scope=Scope(**scope), describe=describe)
    await catalog.load(store)
    return catalog


def everything(path: str) -> bool:
    return True


GOOD = """
from kodo.flow import flow
@flow
def offered(): ...
"""

NOISY = """
import os, sys
print("noise")
os.environ["NOISE"] = "1"
sys.path.append("/noise")
os.chdir("/")
"""

QUIET = """
assert "NOISE" not in os.environ
assert "/noise" not in sys.path
"""

FLOODS = """
import os
for descriptor in range(3, 10):
    try:
        while True:
            os.write(descriptor, b"x" * 65536)
    except OSError:
        pass
"""


async def test_a_module_that_floods_the_answer_about_its_flows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodo.node.catalog.catalog._MAX_ANSWER", 1 << 20)
    (tmp_path / "floods.py").write_text(FLOODS)
    (tmp_path / "good.py").write_text(GOOD)
    [floods, good] = await describe_flows({"roots": [str(tmp_path)], "flows": ["floods", "good"]})
    assert "more than 1 MiB to describe" in floods["error"]
    assert "error" not in good


async def test_a_module_that_ends_its_process_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "ends.py").write_text("import os\nos._exit(3)")
    (tmp_path / "pack" / "good.py").write_text(GOOD)
    infos = await describe_flows({"roots": [str(tmp_path)], "flows": ["pack.*"]})
    assert {info["path"]: info.get("error") for info in infos} == {
        "pack.ends": "Python ended with exit code 3 when it was imported",
        "pack.good.offered": None,
    }


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.meta_path.clear()",
        "import sys; sys.modules.clear()",
        "import sys; sys.setrecursionlimit(60)",
        "import inspect; inspect.isclass = None",
        "import ctypes; ctypes.string_at(0)",
    ],
)
async def test_a_module_that_breaks_python_takes_no_other_along(tmp_path: Path, code: str) -> None:
    (tmp_path / "breaks.py").write_text(code)
    (tmp_path / "good.py").write_text(GOOD)
    breaks, good = await describe_flows({"roots": [str(tmp_path)], "flows": ["breaks", "good"]})
    assert breaks["error"]
    assert (good["path"], good.get("error")) == ("good.offered", None)


async def test_a_module_that_hangs_is_named_and_given_up_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kodo.node.catalog.import_watch.SLOW_SECONDS", 0.01)
    monkeypatch.setattr("kodo.node.catalog.catalog.IMPORT_SECONDS", 5)
    (tmp_path / "hangs.py").write_text("import threading\nthreading.Event().wait()")
    (tmp_path / "good.py").write_text(GOOD)
    [hangs, good] = await describe_flows({"roots": [str(tmp_path)], "flows": ["hangs", "good"]})
    assert hangs["error"] == "it did not finish within 5 s when it was imported"
    assert "error" not in good
    assert any(record.getMessage().startswith("hangs is slow to import") for record in caplog.records)


async def test_a_module_that_leaves_a_process_behind_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodo.node.catalog.catalog.IMPORT_SECONDS", 5)
    (tmp_path / "leaves.py").write_text(f"import subprocess\nsubprocess.Popen(['sleep', '60']){GOOD}")
    program = "subprocess.Popen(['sleep', '5'], start_new_session=True)"
    (tmp_path / "daemon.py").write_text(f"import subprocess\n{program}{GOOD}")
    for name in ("leaves", "daemon"):
        [info] = await describe_flows({"roots": [str(tmp_path)], "flows": [name]})
        assert "error" not in info


async def test_what_a_module_prints_and_changes_when_it_is_imported_stays_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "kodo")
    (tmp_path / "noisy.py").write_text(NOISY + GOOD)
    (tmp_path / "good.py").write_text(f"import os, sys\nassert open('prompt.txt').read() == 'x'{QUIET}{GOOD}")
    (tmp_path / "prompt.txt").write_text("x")
    infos = await describe_flows({"roots": [str(tmp_path)], "flows": ["noisy", "good"], "base": "/"})
    assert [info.get("error") for info in infos] == [None, None]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["noisy, while it is imported: noise"]


async def test_what_is_broken_by_an_edit_stays_offered_as_it_was(store: Store) -> None:
    told = {
        "a": [info("a.Alpha", "A", entry="a:Alpha"), info("a.Beta", "B", entry="a:Beta")],
        "p.*": [info("p.m.C", "C", entry="p.m:C")],
    }

    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [each for spec in request["flows"] for each in told[spec]]

    catalog = Catalog(list(told), describe=describe)
    await catalog.load(store)
    old = {flow.path: flow for flow in catalog.flows}
    told["a"] = [info("a", "a", entry="a", error="SyntaxError: invalid syntax (a.py:1)")]
    told["p.*"] = [info("p.m", "m", entry="p.m", error="ValueError: no"), info("p.n.D", "D", entry="p.n:D")]
    faults = await catalog.reload(store, list(told), Scope())
    assert [fault.partition(";")[2] for fault in faults] == [
        " the last good version of A, B stays offered",
        " the last good version of C stays offered",
    ]
    assert {flow.path: flow.error for flow in catalog.flows} == dict.fromkeys(["a.Alpha", "a.Beta", "p.m.C", "p.n.D"])
    assert all(catalog.find(path=path) is flow for path, flow in old.items())
    told["a"], told["p.*"] = [info("a.Alpha", "New", entry="a:Alpha")], [info("x", "x", entry="p.*", error="gone")]
    assert len(await catalog.reload(store, list(told), Scope())) == 1
    assert [flow.name for flow in catalog.flows] == ["New", "C", "D"]


async def test_what_was_broken_and_still_is_is_named_when_it_is_read_anew(store: Store) -> None:
    told = {"a": [info("a.A", "A", entry="a:A")], "b": [info("b", "b", entry="b", error="SyntaxError: one")]}

    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [each for spec in request["flows"] for each in told[spec]]

    catalog = Catalog(list(told), describe=describe)
    await catalog.load(store)
    told["b"] = [info("b", "b", entry="b", error="SyntaxError: two")]
    assert await catalog.reload(store, list(told), Scope()) == [
        "what works is offered; b is broken: SyntaxError: two"
    ]
    told["b"] = [info("b.B", "B", entry="b:B")]
    assert await catalog.reload(store, list(told), Scope()) == []


async def test_an_override_for_no_flow_changes_nothing_when_it_is_read_anew(store: Store) -> None:
    catalog = await made(store)
    before = catalog.flows
    with pytest.raises(UsageError, match="overrides"):
        await catalog.reload(store, ["x"], Scope(overrides={"z.None": {}}))
    assert catalog.flows == before


async def test_a_file_where_the_node_starts_is_no_module_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "types.py").write_text("raise ImportError('not meant')")
    (tmp_path / "scope").mkdir()
    (tmp_path / "scope" / "good.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path / "started")
    [good] = await describe_flows({"roots": [str(tmp_path / "scope")], "flows": ["good"]})
    assert "error" not in good


async def test_flows_are_in_the_order_of_their_paths_and_broken_ones_among_them(store: Store) -> None:
    catalog = await made(store)
    assert [flow.path for flow in catalog.flows] == ["a.Alpha", "b.Beta", "c.Gamma", "d.Broken"]
    assert catalog.flows[3].row()["broken"] == "ImportError: no module named crewai"
    assert catalog.flows[0].row()["broken"] is None


async def test_published_is_when_the_release_was_first_offered_unless_it_says(
    store: Store, clock: StillClock
) -> None:
    first = clock.ms
    await made(store)
    clock.advance(60)
    catalog = await made(
        store, [info("a.Alpha", "Same"), info("b.Beta", "Same", release="2"), info("c.Gamma", "O", published=77)]
    )
    assert [flow.published for flow in catalog.flows] == [first, first + 60_000, 77]


async def test_a_flow_that_ends_python_is_broken_and_the_others_are_not(store: Store) -> None:
    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "ends:it" in request["flows"]:
            raise KodoError("Python ended with exit code 3 when it was imported")
        return [info(spec.replace(":", "."), spec) for spec in request["flows"]]

    catalog = Catalog(["a:A", "ends:it", "b:B"], describe=describe)
    await catalog.load(store)
    assert {flow.path: flow.error for flow in catalog.flows} == {
        "a.A": None,
        "b.B": None,
        "ends.it": "Python ended with exit code 3 when it was imported",
    }


async def test_without_ray_flows_that_need_it_are_broken_and_the_others_are_not(store: Store) -> None:
    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            info("a.Alpha", "A"),
            info("b.Beta", "B", resources={"num_cpus": 1}),
            info("c.Gamma", "C", needs_ray=True),
            info("d.Delta", "D", resources={"num_cpus": None}),
        ]

    for has_ray in (True, False):
        catalog = Catalog(["x"], describe=describe, has_ray=has_ray)
        await catalog.load(store)
        assert [flow.needs_ray for flow in catalog.flows] == [False, True, True, False]
        assert [flow.error is None for flow in catalog.flows] == [True, has_ray, has_ray, True]


async def test_overrides_of_the_operator_win(store: Store) -> None:
    overrides = {"a.Alpha": {"tags": ["mine"], "resources": {"num_cpus": 2}, "limits": {"concurrent_runs": 1}}}
    flow = (
        await made(store, [info("a.Alpha", "A", resources={"num_cpus": 1, "memory_mb": 5})], overrides=overrides)
    ).flows[0]
    assert (flow.tags, flow.resources, flow.limits.concurrent_runs) == (("mine",), {"num_cpus": 2, "memory_mb": 5}, 1)


async def test_an_override_for_no_flow_names_the_nearest(store: Store) -> None:
    with pytest.raises(UsageError, match=r"did you mean a\.Alpha"):
        await made(store, overrides={"a.Alfa": {}})


async def test_a_flow_is_found_by_path_or_by_a_unique_name(store: Store) -> None:
    catalog = await made(store)
    assert catalog.find(path="b.Beta").path == "b.Beta"
    assert catalog.find(name="Other").path == "c.Gamma"
    assert catalog.find(path="Other").path == "c.Gamma"


async def test_an_ambiguous_name_gives_the_paths(store: Store) -> None:
    with pytest.raises(CallError) as caught:
        (await made(store)).find(name="Same")
    assert (caught.value.code, caught.value.reason, caught.value.data["paths"]) == (
        409,
        "ambiguous",
        ["a.Alpha", "b.Beta"],
    )


async def test_flows_that_are_not_granted_do_not_exist(store: Store) -> None:
    catalog = await made(store)
    assert catalog.find(name="Same", granted=lambda path: path == "b.Beta").path == "b.Beta"
    with pytest.raises(CallError) as hidden:
        catalog.find(path="a.Alpha", granted=lambda path: path == "b.Beta")
    with pytest.raises(CallError) as absent:
        catalog.find(path="a.Alpha2", granted=lambda path: path == "b.Beta")
    assert (
        (hidden.value.code, hidden.value.reason) == (absent.value.code, absent.value.reason) == (404, "no-such-flow")
    )
    assert catalog.search(None, None, lambda path: path == "b.Beta")[0] == 1


@pytest.mark.parametrize(
    ("search", "paths"),
    [
        ("*ALPHA*", ["a.Alpha"]),
        ("äpfel", ["a.Alpha"]),
        ("fruit", ["a.Alpha"]),
        ("mark?t", ["b.Beta", "c.Gamma", "d.Broken"]),
        ("[bc].*", ["b.Beta", "c.Gamma"]),
        ("nothing", []),
    ],
)
async def test_search_is_a_glob_over_all_that_describes_a_flow(store: Store, search: str, paths: list[str]) -> None:
    total, found = (await made(store)).search(search, None, everything)
    assert (total, [flow.path for flow in found]) == (4, paths)


async def test_by_sorts_by_several_fields(store: Store) -> None:
    catalog = await made(store)
    found = catalog.search(None, "name desc,path desc", everything)[1]
    assert [flow.path for flow in found] == ["b.Beta", "a.Alpha", "c.Gamma", "d.Broken"]


@pytest.mark.parametrize("by", ["size", "name up", "name desc more", "__class__"])
async def test_by_refuses_what_is_no_field(store: Store, by: str) -> None:
    with pytest.raises(CallError) as caught:
        (await made(store)).search(None, by, everything)
    assert (caught.value.code, caught.value.data) == (400, {"arg": "by"})


async def test_inputs_are_held_to_the_form(store: Store) -> None:
    catalog = await made(store)
    flow = catalog.find(path="a.Alpha")
    await flow.check({"topic": "bikes", "depth": 3}, catalog.judge, "ana")
    with pytest.raises(CallError) as caught:
        await flow.check({"depth": "deep", "colour": "red"}, catalog.judge, "ana")
    assert (caught.value.code, caught.value.reason) == (400, "bad-inputs")
    assert caught.value.data["missing"] == ["topic"]
    assert {place["at"] for place in caught.value.data["places"]} == {"", "/depth"}


async def test_a_broken_flow_cannot_be_launched(store: Store) -> None:
    catalog = await made(store)
    with pytest.raises(CallError) as caught:
        await catalog.find(path="d.Broken").check({}, catalog.judge, "ana")
    assert (caught.value.code, caught.value.reason) == (409, "flow-broken")


async def test_a_schema_that_refers_elsewhere_calls_nobody(store: Store) -> None:
    schema = {"type": "object", "$ref": "http://192.0.2.1/schema.json"}
    catalog = await made(store, [info("a.Alpha", "A", schema=schema)])
    with pytest.raises(CallError, match="not here"):
        await catalog.flows[0].check({}, catalog.judge, "ana")


class FullJudge(Judge):
    """One whose line is full."""

    async def do(self, *_: Any) -> Any:
        raise CallError(429, "busy", "large values at once: 16 in all; try again", {"retry_after_ms": 1000})


async def test_that_the_node_is_busy_is_no_fault_of_inputs(store: Store) -> None:
    catalog = await made(store)
    facts: dict[str, Any] = dict.fromkeys(RunRow.__dataclass_fields__)
    live = LiveRun(RunRow(**{**facts, "fid": "f", "principal": "ana", "path": "a.Alpha"}))
    assert await catalog.faults(live, {"topic": 3}) == ["/topic: 3 is not of type 'string'"]
    catalog.judge = FullJudge()
    with pytest.raises(CallError) as caught:
        await catalog.faults(live, {"topic": "bikes"})
    assert (caught.value.code, caught.value.reason) == (429, "busy")


class CountingJudge(Judge):
    """Counts what it is given to do."""

    done = 0

    async def do(self, work: Any, payer: str) -> Any:
        self.done += 1
        return await super().do(work, payer)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("inputs", "again", "asked"),
    [
        ({"topic": "x"}, (), []),
        ({"topic": "x"}, ("depth",), ["depth"]),
        ({}, (), ["topic"]),
        ({"depth": "none"}, (), None),
    ],
)
async def test_the_inputs_of_a_launch_are_judged_once(
    store: Store, strict: bool, inputs: dict[str, Any], again: tuple[str, ...], asked: list[str] | None
) -> None:
    flow, judge = (await made(store)).flows[0], CountingJudge()
    with contextlib.closing(judge):
        if asked is None or (strict and asked == ["topic"]):
            with pytest.raises(CallError, match="do not fit"):
                await flow.demand(inputs, judge, "", again, strict=strict)
        else:
            demand = await flow.demand(inputs, judge, "", again, strict=strict)
            assert (demand["required"] if demand else []) == asked
    assert judge.done == 1
