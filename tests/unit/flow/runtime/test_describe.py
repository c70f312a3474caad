"""`python -m kodo.flow._runtime.describe`, as a node calls it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kodo.protocol.flow_info import FlowInfo
from kodo.registry.records.record import FlowRecord

MARKET = '''
import os
from kodo.flow import flow
from helpers.tool import HELP, helped

print("noise")
os.write(1, b"more noise")

@flow(name="Competitor Analysis", author="ana@example.com", organization="Example", release="0.1.2", tags=["market"],
      resources={"num_cpus": 1})
async def competitor(topic: str, depth: int = 3) -> str:
    """One line shown in the catalogue."""

@flow
def bare(n: int): ...

class Crew:
    def kickoff(self, inputs): ...

class Typed:
    def kickoff(self, topic: str): ...

crew = Crew()
number = 5
def undecorated(a: int = 1): ...
def variadic(*args): ...
'''
DATED = """
import datetime as dt
from kodo.flow import flow

@flow(published="2026-11-22")
def text(): ...

@flow(published="2026-11-22T01:00:00+01:00", tags="market")
def zoned(): ...

@flow(published=dt.date(2026, 11, 22), release=dt.date(2026, 11, 22))
def day(): ...

@flow(published="soon")
def soon(): ...
"""
YAML = """
flow: {name: From YAML, author: y@example.com, release: "2"}
entry: flows.market:competitor
inputs: {topic: {type: string, default: cats}}
resources: {memory_mb: 512}
"""


@pytest.fixture
def scope(tmp_path: Path) -> Path:
    files = {
        "flows/market.py": MARKET,
        "flows/broken.py": "import not_there",
        "flows/leaves.py": "import sys; sys.exit('gone')",
        "flows/quiet.py": "",
        "dated.py": DATED,
        "dated.yaml": "flow: {published: 2026-11-22, tags: market}\nentry: dated:soon",
        "helpers/tool.py": "from kodo.flow import flow\nHELP = 1\n@flow\ndef helped(): ...\n",
        "market.yaml": YAML,
        "bad.yaml": "entry: 5",
        "odd.yaml": "entry: flows.market:bare\nwhat: 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def ask(scope: Path, *flows: str, **more: Any) -> dict[str, dict[str, Any]]:
    request = {"roots": [str(scope)], "flows": flows, **more}
    done = subprocess.run(
        [sys.executable, "-m", "kodo.flow._runtime.describe"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {info["path"]: info for info in json.loads(done.stdout)["flows"]}


def test_a_flow_is_described_by_its_decorator_hints_and_docstring(scope):
    info = ask(scope, "flows.market:competitor")["flows.market.competitor"]
    schema = info.pop("schema")
    assert info == {
        "path": "flows.market.competitor",
        "name": "Competitor Analysis",
        "entry": "flows.market:competitor",
        "source": "flows/market.py:9",
        "description": "One line shown in the catalogue.",
        "author": "ana@example.com",
        "organization": "Example",
        "release": "0.1.2",
        "tags": ["market"],
        "example": {"topic": "text", "depth": 3},
        "returns": {"type": "string"},
        "resources": {"num_cpus": 1},
        "needs_ray": False,
        "has_check": False,
    }
    assert schema["required"] == ["topic"]


def test_a_package_offers_its_own_flows_and_says_what_is_broken(scope):
    found = ask(scope, "flows.*")
    assert set(found) == {"flows.market.competitor", "flows.market.bare", "flows.broken", "flows.leaves"}
    assert "not_there" in found["flows.broken"]["error"]
    assert "broken.py:1" in found["flows.broken"]["error"]
    assert "SystemExit" in found["flows.leaves"]["error"]
    assert "error" not in found["flows.market.competitor"]


def test_a_flow_named_twice_is_described_once(scope):
    assert len(ask(scope, "flows.market", "flows.market:bare", "./flows/market.py:bare")) == 2


def test_functions_crews_and_classes_are_flows_without_a_decorator(scope):
    found = ask(scope, "flows.market:undecorated", "flows.market:crew", "flows.market:Typed")
    assert all("error" not in info for info in found.values())
    assert (found["flows.market.undecorated"]["author"], found["flows.market.undecorated"]["release"]) == (
        "unknown",
        "0",
    )
    assert found["flows.market.crew"]["schema"]["additionalProperties"] is True
    assert found["flows.market.Typed"]["schema"]["required"] == ["topic"]


def test_a_yaml_file_adds_to_its_entry(scope):
    info = ask(scope, "./market.yaml")["./market.yaml"]
    assert (info["name"], info["author"], info["release"], info["organization"]) == (
        "From YAML", "y@example.com", "2", "Example",
    )  # fmt: skip
    assert info["entry"] == "flows.market:competitor"
    assert info["resources"] == {"num_cpus": 1, "memory_mb": 512}
    assert info["example"] == {"topic": "cats"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("flows.market:missing", "missing"),
        ("flows.nowhere", "no module"),
        ("flows.quiet", "no @flow"),
        ("flows.market:number", "callable"),
        ("flows.market:variadic", "by name"),
        ("a b:c", "entry"),
        ("./bad.yaml", "entry"),
        ("./odd.yaml", "what"),
        ("./none.yaml", "no file"),
        ("../x.py:f", "no file"),
    ],
)
def test_what_cannot_be_offered_has_an_error_that_says_why(scope, spec, reason):
    (info,) = ask(scope, spec).values()
    assert reason in info["error"]


def test_published_is_a_date_as_text_or_as_a_date_and_becomes_milliseconds(scope):
    found = ask(scope, "dated", "./dated.yaml")
    day = 1_795_305_600_000
    assert {found[path]["published"] for path in ("dated.text", "dated.zoned", "dated.day", "./dated.yaml")} == {day}
    assert found["dated.soon"]["error"] == "published='soon' is not an ISO date such as 2026-01-31"
    assert found["dated.day"]["release"] == "2026-11-22"


def test_one_tag_need_not_be_a_list(scope):
    found = ask(scope, "dated", "./dated.yaml")
    assert found["dated.zoned"]["tags"] == found["./dated.yaml"]["tags"] == ["market"]


def test_what_an_author_does_not_say_has_a_default_that_registries_take(scope):
    bare = FlowInfo.from_map(ask(scope, "flows.market")["flows.market.bare"])
    assert (bare.description, bare.author, bare.organization, bare.release) == (bare.name, "unknown", "unknown", "0")
    said = {name: getattr(bare, name) for name in FlowRecord.SAID}
    assert FlowRecord(**{**said, "published": 1}).missing() == []


RAY = {
    "plain.py": "",
    "at_its_top.py": "import ray",
    "when_it_runs.py": "def later():\n    from ray.util import queue\n",
    "through_another.py": "import at_its_top",
    "only_its_name.py": "ray = 'import ray'",
    "like_it.py": "def later():\n    import rays, x.ray\n",
}
FLOW = "from kodo.flow import flow\n{}\n@flow\ndef run(): ...\n"


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("plain", False),
        ("at_its_top", True),
        ("when_it_runs", True),
        ("through_another", True),
        ("only_its_name", False),
        ("like_it", False),
    ],
)
def test_a_flow_needs_ray_when_its_module_imports_it(tmp_path, module, needed):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").touch()
    for name, text in RAY.items():
        (tmp_path / name).write_text(FLOW.format(text))
    assert ask(tmp_path, module)[f"{module}.run"]["needs_ray"] is needed


def test_a_flow_needs_no_ray_because_another_one_does(tmp_path):
    (tmp_path / "ray.py").touch()
    for name in ("at_its_top", "plain"):
        (tmp_path / f"{name}.py").write_text(FLOW.format(RAY[f"{name}.py"]))
    infos = ask(tmp_path, "at_its_top", "plain")
    assert [infos[f"{name}.run"]["needs_ray"] for name in ("at_its_top", "plain")] == [True, False]
