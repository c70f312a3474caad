"""The scope file: read whole, or refused with the place and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.node.catalog.scope import Scope, check_node_name, default_name, load_scope
from kodo.p2p.errors import UsageError

GOOD = """
name: flows.example.com
flows: ["flows.market:competitor", "./competitor.yaml", "flows.*"]
overrides:
  flows.market.competitor:
    tags: [market]
    resources: {num_cpus: 2, runtime_env: {pip: [rich]}}
    limits: {concurrent_runs: 3}
"""


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "scope.yaml"
    path.write_text(text)
    return load_scope(path)


def test_a_scope_names_the_node_and_its_flows(tmp_path: Path) -> None:
    path = tmp_path / "scope.yaml"
    path.write_text(GOOD)
    scope = load_scope(path)
    assert (scope.name, len(scope.flows)) == ("flows.example.com", 3)
    override = scope.overrides["flows.market.competitor"]
    assert (override.tags, override.resources.num_cpus, override.limits.concurrent_runs) == (["market"], 2, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flwos: []", "did you mean flows"),
        ("overrides: {a: {tag: [x]}}", "did you mean tags"),
        ("overrides: {a: {resources: {num_cpu: 1}}}", "did you mean num_cpus"),
        ("overrides: {a: {limits: {zzz: 1}}}", "known are concurrent_runs"),
        ("name: 'a b'", "like a domain name"),
        ("flows: 5", "flows"),
        ('flows: ["a\\0"]', "names no file"),
        ('roots: ["a\\0"]', "names no file"),
        ("- a", "not a map"),
        ("flows: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load(tmp_path, text)


def test_a_python_file_is_the_scope_of_its_flows(tmp_path: Path) -> None:
    path = tmp_path / "greeting.py"
    path.write_text("raise RuntimeError('a scope is read, not imported')")
    scope = load_scope(path)
    assert (scope.name, scope.flows) == (None, ["greeting.py"])


@pytest.mark.parametrize("name", ["my-flows.py", "1st.py", ".py", "a b.py"])
def test_a_python_file_that_cannot_be_imported_is_no_scope(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError):
        load_scope(tmp_path / name)


@pytest.mark.parametrize("name", ["greeting.py", "folder.py"])
def test_a_python_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match=name):
        load_scope(tmp_path / name)


def test_a_scope_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        load_scope(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("name", ["a", "flows.example.com", "my-node_2", "x" * 63])
def test_names_like_domains_are_taken(name: str) -> None:
    assert check_node_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "a..b", "-a", "a b", "a/b", "ä", "a\n", "x" * 64, "a." * 127 + "a"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        check_node_name(name)


def test_the_default_name_is_one() -> None:
    assert check_node_name(default_name())


def test_a_root_with_a_name_that_no_folder_has_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        Scope(roots=["a" * 300]).import_roots(tmp_path)
