"""A crew in YAML: what is wrong with it is said before it runs."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.load import load_entry, load_yaml
from kodo.flow._runtime.sources import add_roots
from kodo.flow.adapters.crew_yaml import YamlCrew
from kodo.p2p.errors import NotFoundError, UsageError

CREW: dict[str, Any] = {
    "agents": {"ana": {"role": "{b} reader", "goal": "know {a}", "backstory": "{{c}} {b}\n"}},
    "tasks": {
        "read": {"description": "read {a}", "expected_output": "notes", "agent": "ana"},
        "write": {"description": "write", "expected_output": "page", "agent": "ana", "context": ["read"]},
    },
}


def test_names_in_braces_make_the_form_in_their_order() -> None:
    assert YamlCrew(CREW).schema()["required"] == ["b", "a"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((), [], "map"),
        (("agents",), {}, "agents"),
        (("tasks",), None, "tasks"),
        (("tools",), {}, "map"),
        (("agents", "ana"), "Ana", "ana of `agents` lacks backstory, goal, role"),
        (("tasks", "read", "agent"), "bob", "'bob'"),
        (("tasks", "read", "context"), ["write"], "'write'"),
    ],
)
def test_what_a_crew_lacks_is_named(path: tuple[str, ...], value: Any, said: str) -> None:
    crew: Any = copy.deepcopy(CREW)
    place = crew
    for step in path[:-1]:
        place = place[step]
    if path:
        place[path[-1]] = value
    else:
        crew = value
    with pytest.raises(UsageError, match=said):
        YamlCrew(crew)


def write(folder: Path, text: str) -> Path:
    file = folder / "flows" / "page.yaml"
    file.parent.mkdir()
    file.write_text(text)
    return file


YAML = """
flow: {name: Page}
crew:
  agents: {ana: {role: r, goal: g, backstory: b}}
  tasks: {read: {description: "read {topic}", expected_output: e, agent: ana}}
"""


def test_a_file_with_a_crew_is_found_again_by_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, YAML)
    monkeypatch.setattr("sys.path", list(sys.path))
    add_roots([str(tmp_path)])
    loaded = load_yaml("./flows/page.yaml", tmp_path)
    assert (loaded.path, loaded.entry, loaded.definition.name) == ("./flows/page.yaml", "flows/page.yaml", "Page")
    assert loaded.schema is not None
    assert loaded.schema["required"] == ["topic"]
    assert load_entry(loaded.entry).schema == loaded.schema
    with pytest.raises(NotFoundError, match=r"other\.yaml"):
        load_entry("flows/other.yaml")


def test_inputs_of_the_file_replace_the_names_in_braces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, YAML + "inputs: {topic: {type: string, default: stars}}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    schema = load_yaml("flows/page.yaml", tmp_path).schema
    assert schema is not None
    assert schema["properties"] == {"topic": {"type": "string", "default": "stars"}}


@pytest.mark.parametrize("text", [YAML + "entry: a:b\n", "flow: {name: x}\n"])
def test_a_file_says_one_thing_to_run(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(UsageError, match="must name what to run"):
        load_yaml("flows/page.yaml", tmp_path)


def test_a_crew_outside_of_the_scopes_folders_is_refused(tmp_path: Path) -> None:
    write(tmp_path, YAML)
    with pytest.raises(UsageError, match="below"):
        load_yaml("flows/page.yaml", tmp_path)
