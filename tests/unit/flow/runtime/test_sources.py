"""Where flows' sources are imported from: packages, projects, relative imports, strays, names in several roots."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime import sources
from kodo.flow._runtime.projects import graphs_of, project_definition, roots_of_graphs, set_environment
from kodo.flow._runtime.sources import add_roots, file_of, import_source, module_of, root_of, strays
from kodo.node.catalog.catalog import describe_flows
from kodo.node.catalog.scope import Scope
from kodo.p2p.errors import NotFoundError, UsageError

FLOW = """
from kodo.flow import flow
{imports}

@flow
def {name}():
    return {value}
"""


def tree(folder: Path, **files: str) -> Path:
    """Write files: `__` stands for `/`, `_PY` for `.py`, `_INIT` for `__init__.py`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_INIT", "__init__.py").replace("_PY", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


async def described(base: Path, *flows: str, roots: list[str] | None = None) -> dict[str, Any]:
    """Return flows by path, and what is wrong with them."""
    scope = Scope(flows=list(flows), roots=roots or [])
    found = [str(root) for root in scope.import_roots(base)]
    infos = await describe_flows({"roots": found, "flows": list(flows), "base": str(base)})
    return {info["path"]: info.get("error") for info in infos}


@pytest.mark.parametrize(
    ("source", "is_package", "root"),
    [
        ("x = 1", False, "a/b"),
        ("x = 1", True, "a"),
        ("from . import x", False, "a"),
        ("from ..y import x", False, ""),
        ("from ..y import x", True, ""),
        ("def f():\n    from .y import x", False, "a"),
        ("this is no Python", False, "a/b"),
    ],
)
def test_a_file_is_imported_from_above_its_package_and_its_relative_imports(
    tmp_path: Path, source: str, is_package: bool, root: str
):
    tree(tmp_path, a__b__flows_PY=source, **({"a__b___INIT": ""} if is_package else {}))
    assert root_of(tmp_path / "a" / "b" / "flows.py") == tmp_path / root


def test_a_module_is_named_by_its_own_root_where_that_is_one(tmp_path: Path):
    file = tree(tmp_path, src__app___INIT="", src__app__flows_PY="") / "src" / "app" / "flows.py"
    assert module_of(file, [tmp_path]) == "src.app.flows"
    assert module_of(file, [tmp_path, tmp_path / "src"]) == "app.flows"


@pytest.mark.parametrize(
    ("name", "why"),
    [("calendar.py", "has the name of a module of Python's"), ("no-name.py", "with plain names")],
)
def test_a_file_that_cannot_be_imported_is_refused_with_its_name(tmp_path: Path, name: str, why: str):
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=why) as refused:
        module_of(tmp_path / name, [tmp_path])
    assert name in str(refused.value)


def test_two_files_that_would_be_one_module_are_refused_with_both(tmp_path: Path):
    tree(tmp_path, a__common___INIT="", a__common__x_PY="", b__common___INIT="", b__common__x_PY="")
    roots = [tmp_path / "a", tmp_path / "b"]
    assert module_of(tmp_path / "a" / "common" / "x.py", roots) == "common.x"
    with pytest.raises(UsageError, match=r"b/common/x.py and .*a/common/x.py are both imported as common.x"):
        module_of(tmp_path / "b" / "common" / "x.py", roots)


def test_only_a_module_whose_imports_lead_out_of_the_scope_is_named_by_its_file(tmp_path: Path):
    tree(tmp_path, near_PY="from .y import x", a__deep_PY="from .y import x", plain_PY="")
    assert file_of("near:f", tmp_path) == tmp_path / "near.py"
    assert file_of("a.deep", tmp_path) is None
    assert file_of("plain", tmp_path) is None
    assert file_of("./plain.py:f", tmp_path) == tmp_path / "plain.py"


def test_strays_are_files_and_packages_with_names_of_pythons(tmp_path: Path):
    tree(tmp_path, random_PY="", types_PY="", email___INIT="", test___INIT="", queue__note="", fine_PY="")
    assert [path.name for path in strays([tmp_path])] == ["random.py", "types.py", "email"]


async def test_relative_imports_work_in_whichever_way_a_packages_file_is_named(tmp_path: Path):
    one = FLOW.format(imports="from .helper import x\nfrom ..top import y", name="{}", value="[x, y]")
    package = {
        "out__top_PY": "y = 2",
        "out__inner__helper_PY": "x = 1",
        **{f"out__inner__{name}_PY": one.replace("{}", name) for name in ("one", "two", "three", "four")},
    }
    for marks in ({}, {"out___INIT": "", "out__inner___INIT": ""}):
        base = tree(tmp_path / f"marked{len(marks)}", **package, **marks)
        above = await described(base, "./out/inner/one.py", "out.inner.two", "out.inner.three:three", "out.inner.*")
        assert set(above) == {f"out.inner.{name}.{name}" for name in ("one", "two", "three", "four")}
        within = await described(base / "out" / "inner", "one.py", "./two.py:two", "three", "four:four")
        assert within == above == dict.fromkeys(above)


IN_CHILDREN = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from kodo.flow._runtime.sources import add_roots
add_roots([sys.argv[1]])
import work, test
for method in ("spawn", "forkserver"):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(work.places, 1).result(30) == work.places(1)
print(json.dumps([work.places(1), test.__file__]))
"""


def test_a_stray_file_is_imported_in_no_process_that_a_flow_starts(tmp_path: Path):
    for name in ("random", "types", "array", "select"):  # also one in C, whose folder no virtual environment has
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('stray')")
    (tmp_path / "test.py").write_text("")  # a name that sloppy scripts have
    (tmp_path / "work.py").write_text(
        "import random, types, array, select\n"
        "def places(_): return [getattr(each, '__file__', '') for each in (random, types, array, select)]"
    )
    done = subprocess.run(
        [sys.executable, "-c", IN_CHILDREN, tmp_path], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    python, sloppy = json.loads(done.stdout)
    assert [place for place in python if str(tmp_path) in place] == []
    assert sloppy == str(tmp_path / "test.py")


async def test_a_stray_file_breaks_no_flow_and_is_named_where_it_is_meant(tmp_path: Path):
    broken = "raise RuntimeError('stray')"
    names = ("random", "types", "queue", "secrets", "email", "calendar", "statistics", "uuid", "json", "asyncio")
    tree(tmp_path, **{f"{name}_PY": broken for name in names})
    tree(
        tmp_path,
        fine_PY=FLOW.format(imports="import random, secrets, email, uuid, statistics", name="fine", value="1"),
        meant_PY=FLOW.format(imports="from secrets import MY_TOKEN", name="meant", value="1"),
    )
    found = await described(tmp_path, "fine", "meant")
    assert found["fine.fine"] is None
    assert f"there is a {tmp_path / 'secrets.py'}, which was not imported" in found["meant"]


async def test_packages_of_one_name_in_different_roots_are_kept_apart(tmp_path: Path):
    flows = {}
    for root in ("a", "b"):
        source = FLOW.format(imports=f"from common.of_{root} import x", name=root, value="x")
        flows |= {
            f"{root}__flow_{root}_PY": source,
            f"{root}__common___INIT": "",
            f"{root}__common__of_{root}_PY": "x = 1",
        }
    tree(tmp_path, **flows)
    found = await described(tmp_path, "flow_a", "flow_b", "flow_a:a", roots=["a", "b"])
    assert found == {"flow_a.a": None, "flow_b.b": None}


async def test_what_only_another_roots_package_has_is_told_with_both_places(tmp_path: Path):
    source = FLOW.format(imports="import common.of_b", name="a", value="1")
    tree(tmp_path, a__flow_a_PY=source, a__common___INIT="", b__common___INIT="", b__common__of_b_PY="")
    (error,) = (await described(tmp_path, "flow_a", roots=["a", "b"])).values()
    assert f"{tmp_path / 'a'} and {tmp_path / 'b'} both have common" in error


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path / 'nowhere'}"):
        Scope(roots=["nowhere"]).import_roots(tmp_path)


GRAPH = """
from .state import State
from langgraph.graph import START, StateGraph

builder = StateGraph(State)
builder.add_node("speak", lambda state: {"said": state["said"].upper()})
builder.add_edge(START, "speak")
graph = builder.compile()
"""
STATE = """
from typing_extensions import TypedDict

class State(TypedDict):
    said: str
"""
PROJECT = """
[project]
name = "parrots"
version = "0.3.0"
description = "Birds that speak."
authors = [{name = "Ada", email = "ada@example.com"}]
"""


async def test_the_graphs_of_a_langgraph_project_are_flows_with_what_the_project_says(tmp_path: Path):
    graphs = {"parrot": "./src/agent/graph.py:graph", "other": {"path": "agent.graph:builder", "description": "Raw."}}
    tree(tmp_path, src__agent__graph_PY=GRAPH, src__agent__state_PY=STATE, src__agent___INIT="")
    (tmp_path / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    roots = [str(root) for root in Scope(flows=["langgraph.json"]).import_roots(tmp_path)]
    infos = await describe_flows({"roots": roots, "flows": ["langgraph.json"]})
    assert [(info["name"], info["path"], info["description"]) for info in infos] == [
        ("parrot", "agent.graph.graph", "Birds that speak."),
        ("other", "agent.graph.builder", "Raw."),
    ]
    assert [info.get("error") for info in infos] == [None, None]
    said = [(info["author"], info["organization"], info["release"]) for info in infos]
    assert said == [("ada@example.com", "Ada", "0.3.0")] * 2
    assert infos[0]["schema"]["properties"]["said"] == {"title": "Said", "type": "string"}
    assert [graph.name for graph in graphs_of("langgraph.json:other", tmp_path)] == ["other"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no `graphs`"),
        ('{"graphs": {}}', "has no `graphs`"),
        ('{"graphs": {"a": "./a.ts:graph"}}', "is not in Python"),
        ('{"graphs": {"a": "./a.py"}}', "is not written as"),
        ('{"graphs": {"a": 3}}', "is not written as"),
        ("x" * (2 << 20), "is larger than 1 MiB"),
    ],
)
def test_a_langgraph_json_that_is_wrong_is_refused_with_why(tmp_path: Path, text: str, why: str):
    (tmp_path / "langgraph.json").write_text(text)
    with pytest.raises(UsageError, match=why):
        graphs_of("langgraph.json", tmp_path)


def test_a_graph_or_file_that_is_not_there_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no file"):
        roots_of_graphs("langgraph.json", tmp_path)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "./a.py:graph"}}')
    with pytest.raises(NotFoundError, match="has no graph b; it has a"):
        graphs_of("langgraph.json:b", tmp_path)


ENV = """
import os
SEEN = {name: os.environ.get(name) for name in ("SINGS", "SECRET", "STAYS", "LANGSMITH_TRACING", "KODO_TOKEN", "N")}
if not os.environ.get("SINGS"):
    raise KeyError("SINGS")
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[object], dict[str, str | None]]]:
    """A function that imports a graph's module of a project with this `env`, as a runner does."""
    for name in ("SINGS", "SECRET", "KODO_TOKEN", "N"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STAYS", "the node's")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    tree(tmp_path, src__singing__graph_PY=ENV, src__singing___INIT="", other_PY="")

    def importing(env: object) -> dict[str, str | None]:
        said = {"graphs": {"bird": "./src/singing/graph.py:graph"}, "env": env}
        (tmp_path / "langgraph.json").write_text(json.dumps(said))
        add_roots([str(root) for root in Scope(flows=["langgraph.json"]).import_roots(tmp_path)])
        found: dict[str, str | None] = import_source("singing.graph").SEEN
        return found

    before, path, roots = dict(os.environ), list(sys.path), list(sources._roots)
    yield importing
    os.environ.clear()
    os.environ.update(before)
    sys.path[:], sources._roots[:] = path, roots
    for name in [name for name in sys.modules if name.partition(".")[0] == "singing"]:
        del sys.modules[name]


def test_the_variables_of_a_langgraph_json_are_set_before_its_graphs_are_imported(
    tmp_path: Path, seen: Callable[[object], dict[str, str | None]]
):
    text = (
        "export SINGS='la la' # a comment\nSECRET=\"${SINGS}!\"\nSTAYS=x\nLANGSMITH_TRACING=true\nKODO_TOKEN=x\nN\n"
    )
    (tmp_path / ".env").write_text(text)
    assert seen("./.env") == {
        "SINGS": "la la",
        "SECRET": "la la!",
        "STAYS": "the node's",
        "LANGSMITH_TRACING": "false",
        "KODO_TOKEN": None,
        "N": None,
    }


def test_they_may_stand_in_the_file_itself_and_reach_no_module_of_another_project(
    tmp_path: Path, seen: Callable[[object], dict[str, str | None]]
):
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "./other.py:graph"}, "env": {"SINGS": "x"}}')
    add_roots([str(tmp_path), str(tmp_path / "src")])
    with pytest.raises(KeyError, match="SINGS"):
        import_source("singing.graph")
    assert seen({"SINGS": "tweet", "N": 3})["N"] == "3"


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ([1], "is neither a file, as .env, nor a map"),
        ({"A": ["secret"]}, "the value of 'A' must be text, a number, or true or false"),
        ({"A=B": "secret"}, "'A=B' is no name of a variable"),
        ("a" * 300, "File name too long"),
        (".env\0", r"no file has the name '\.env\\x00'"),
        ("\ud800.env", r"no file has the name '\\ud800\.env'"),
        ("./src", "Is a directory"),
        ("./bytes", "it is no text of up to 1 MiB"),
    ],
)
def test_variables_that_cannot_be_read_are_refused_without_their_values(
    tmp_path: Path, seen: Callable[[object], dict[str, str | None]], env: object, why: str
):
    (tmp_path / "bytes").write_bytes(b"A=\xff\xfe")
    with pytest.raises(UsageError, match=why) as refused:
        seen(env)
    assert "secret" not in str(refused.value)


async def test_a_project_whose_env_is_not_there_has_the_variables_of_its_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tree(tmp_path, agent__graph_PY=GRAPH, agent__state_PY=STATE, agent___INIT="")
    (tmp_path / "langgraph.json").write_text('{"graphs": {"p": "./agent/graph.py:graph"}, "env": ".env"}')
    assert await described(tmp_path, "langgraph.json") == {"agent.graph.graph": None}
    files = Scope(flows=["langgraph.json"]).files_beside(tmp_path)
    assert [file.name for file in files] == ["langgraph.json", ".env"]
    assert f"there is no {tmp_path / '.env'}" in caplog.text


WHO = """
import os
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    {who}: str

builder = StateGraph(State)
builder.add_node("sing", lambda state: state)
builder.add_edge(START, "sing")
seen = {{name for name in os.environ if name.startswith("SINGS_")}}
assert seen == {{"SINGS_{who}"}}, seen
graph = builder.compile()
"""


async def test_variables_of_a_project_do_not_reach_the_code_of_another(tmp_path: Path):
    for who in ("a", "b"):
        tree(tmp_path / who, graph_PY=WHO.format(who=who), **{f"{who}_PY": WHO.format(who=who)})
        graphs = {"own": f"./{who}.py:graph", "shared": "./graph.py:graph"}
        said = {"graphs": graphs, "env": {f"SINGS_{who}": "x"}}
        (tmp_path / who / "langgraph.json").write_text(json.dumps(said))
    found = await described(tmp_path, "a/langgraph.json", "b/langgraph.json")
    assert {path: error for path, error in found.items() if "both imported as graph" not in (error or "")} == {
        "a.graph": None,
        "b.graph": None,
        "graph.graph": None,
    }


def test_a_graph_that_is_named_by_its_module_has_the_variables_of_the_project_that_it_is_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for who in ("a", "b"):
        tree(tmp_path / who / "src", agents___INIT="", agents__graph_PY="")
        said = {"graphs": {"g": "agents.graph:graph"}, "env": {f"SINGS_{who}": "x"}}
        (tmp_path / who / "langgraph.json").write_text(json.dumps(said))
    roots = [str(tmp_path / place) for place in ("a", "a/src", "b", "b/src")]
    set_environment("agents.graph", roots)
    assert [name for name in os.environ if name.startswith("SINGS_")] == ["SINGS_a"]


@pytest.mark.parametrize("name", ["a" * 300, ".\0", ".\ud800"])
def test_what_no_folder_or_file_is_called_ends_nothing(tmp_path: Path, name: str):
    said = {"graphs": {"a": f"{name}.py:graph"}, "dependencies": [f".{name}", "."]}
    (tmp_path / "langgraph.json").write_text(json.dumps(said))
    assert roots_of_graphs("langgraph.json", tmp_path) == [tmp_path]
    assert Scope(flows=["langgraph.json"]).import_roots(tmp_path) == [tmp_path]


@pytest.mark.parametrize("text", ["", "[project]\nauthors = 3", "[project", "[project]\nauthors = [3]"])
def test_a_project_that_says_nothing_of_use_changes_nothing(tmp_path: Path, text: str):
    (tmp_path / "pyproject.toml").write_text(text)
    said = project_definition(tmp_path / "flow.py", "f", "d")
    assert (said.name, said.description, said.author, said.release) == ("f", "d", "", "")
