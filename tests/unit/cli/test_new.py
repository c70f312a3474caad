"""`koco new`: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.cli.new import module_name, write_project
from kodo.p2p.errors import UsageError


@pytest.mark.parametrize(
    ("name", "module"), [("greeting", "greeting"), ("My-Flow", "my_flow"), ("a.b c", "a_b_c"), ("x1", "x1")]
)
def test_a_name_becomes_that_of_a_module(name: str, module: str) -> None:
    assert module_name(name) == module


@pytest.mark.parametrize("name", ["", "1st", "…", "class", "types", "kodo", "crewai", "-"])
def test_a_name_that_python_would_not_import_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        module_name(name)


def test_nothing_is_written_over_and_nothing_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("mine")
    with pytest.raises(UsageError, match=r"b\.py exists already; nothing was written"):
        write_project(tmp_path, {"a.py": "", "b.py": "theirs"})
    assert [path.name for path in tmp_path.iterdir()] == ["b.py"]
    assert (tmp_path / "b.py").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        write_project(tmp_path / "file" / "flow", {"a.py": ""})
