"""Local flows: which entry, imported from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.cli.local import describe_local, local_entry
from kodo.p2p.errors import NotFoundError, UsageError


def test_a_file_is_a_module_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "market.py").touch()
    assert local_entry("./flows/market.py:competitor", tmp_path) == ("market:competitor", [tmp_path / "flows"])


def test_a_file_alone_means_what_is_marked_in_it(tmp_path: Path) -> None:
    (tmp_path / "market.py").touch()
    assert local_entry("./market.py", tmp_path) == ("market", [tmp_path])


async def test_a_local_flow_is_described_without_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.py").write_text('from kodo.flow import flow\n@flow\ndef greet(name: str):\n    """Greets."""\n')
    (tmp_path / "two.py").write_text("from kodo.flow import flow\n@flow\ndef a(): ...\n@flow\ndef b(): ...\n")
    answer = (await describe_local("./one.py")).info
    assert (answer["path"], answer["description"], answer["example"]) == ("one.greet", "Greets.", {"name": "text"})
    assert (await describe_local("one:greet")).info == answer
    with pytest.raises(UsageError, match=r"2 flows \(a, b\); name one"):
        await describe_local("./two.py")
    app = """from kodosumi.core import Launch, ServeAPI, forms as F
app = ServeAPI()
@app.enter("/", F.Model())
def enter(request): ...
@app.enter("/b", F.Model())
def enter(request): ...
"""
    (tmp_path / "app_of_two.py").write_text(app)
    with pytest.raises(UsageError, match=r"2 flows \(enter, app\.flows\.enter\); name one"):
        await describe_local("./app_of_two.py")
    with pytest.raises(UsageError, match="cannot be run: the module two has no c"):
        await describe_local("./two.py:c")


def test_a_module_is_looked_for_in_the_working_folder(tmp_path: Path) -> None:
    assert local_entry("flows.market:competitor", tmp_path) == ("flows.market:competitor", [tmp_path])


def test_a_file_of_a_package_is_imported_from_above_it(tmp_path: Path) -> None:
    package = tmp_path / "src" / "pages"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "crew.py").touch()
    assert local_entry("./src/pages/crew.py:Pages", tmp_path) == ("pages.crew:Pages", [package, tmp_path / "src"])
    assert local_entry("crew.py", package) == ("pages.crew", [package, tmp_path / "src"])


def test_a_file_with_relative_imports_is_imported_from_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "market.py").write_text("from .helper import x\n")
    roots = [tmp_path / "flows", tmp_path]
    assert local_entry("./flows/market.py", tmp_path) == ("flows.market", roots)
    assert local_entry("market:competitor", tmp_path / "flows") == ("market:competitor", roots)


def test_a_file_with_the_name_of_a_module_of_pythons_is_refused(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").touch()
    with pytest.raises(UsageError, match="has the name of a module of Python's: rename it"):
        local_entry("./statistics.py", tmp_path)


def test_the_graphs_of_a_project_are_imported_from_its_folders(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    file = tmp_path / "langgraph.json"
    file.write_text('{"dependencies": [".", "langchain"], "graphs": {"agent": "./src/agent.py:graph"}}')
    assert local_entry("./langgraph.json", tmp_path) == (str(file), [tmp_path, tmp_path / "src"])
    assert local_entry("langgraph.json:agent", tmp_path)[0] == f"{file}:agent"


def test_a_yaml_file_keeps_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").touch()
    assert local_entry("./x.yaml", tmp_path) == ("x.yaml", [tmp_path])


@pytest.mark.parametrize("text", ["./nope.py:f", "./nope.yaml"])
def test_a_missing_file_is_not_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotFoundError, match="nope"):
        local_entry(text, tmp_path)


@pytest.mark.parametrize("text", ["./a-b.py:f", "./folder"])
def test_what_is_no_flow_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a-b.py").touch()
    with pytest.raises(UsageError):
        local_entry(text, tmp_path)


async def test_an_env_that_is_not_there_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.py").write_text("def greet(name: str): ...\n")
    (tmp_path / "langgraph.json").write_text('{"graphs": {"g": "./one.py:greet"}, "env": ".env"}')
    await describe_local("./langgraph.json:g")
    [told] = [record for record in caplog.records if "names as its env" in record.getMessage()]
    assert told.levelname == "WARNING"
