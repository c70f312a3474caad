"""What a flow's folder holds is read without waiting: a pipe or a device in place of a file is refused at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.kept_code import kept_text
from kodo.flow._runtime.load import load_yaml
from kodo.flow._runtime.projects import graphs_of, project_definition, set_environment
from kodo.flow._runtime.sources import root_of
from kodo.node.catalog.scope import load_scope
from kodo.node.catalog.source_reader import read_sources
from kodo.node.executors.ray.package import gather
from kodo.p2p.errors import KodoError

READERS: dict[str, Callable[[Path, Path], Any]] = {
    "a scope file": lambda folder, file: load_scope(file),
    "a flow's YAML": lambda folder, file: load_yaml(file.name, folder),
    "the text of a source": lambda folder, file: kept_text(file),
    "what is kept": lambda folder, file: read_sources([str(file)], 1000) or None,
    "what a module imports relatively": lambda folder, file: root_of(file) and None,
    "what travels to a cluster": lambda folder, file: (
        gather([folder], [file.name], not_in=folder / "home").files or None
    ),
}


def put(folder: Path, kind: str) -> None:
    os.mkfifo(folder) if kind == "pipe" else folder.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_none_is_refused_or_left_out(tmp_path: Path, reader: str, kind: str) -> None:
    for name in ("flow.yaml", "flow.py") if reader != "a scope file" else ("flow.yaml",):
        put(tmp_path / name, kind)
        try:
            assert READERS[reader](tmp_path, tmp_path / name) is None
        except (KodoError, OSError) as error:
            assert "regular file" in str(error)  # noqa: PT017 (some leave it out)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_the_files_of_a_project_are_no_exception(tmp_path: Path, kind: str) -> None:
    (tmp_path / "agent.py").write_text("graph = None")
    put(tmp_path / ".env", kind)
    put(tmp_path / "pyproject.toml", kind)
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"a": "./agent.py:graph"}, "env": ".env"}))
    with pytest.raises(KodoError, match="its env, cannot be read: it is not a regular file"):
        set_environment("agent", [str(tmp_path)])
    assert project_definition(tmp_path / "agent.py", "A").author == ""
    (tmp_path / "langgraph.json").unlink()
    put(tmp_path / "langgraph.json", kind)
    with pytest.raises(KodoError, match="there is no file"):
        graphs_of("langgraph.json", tmp_path)
