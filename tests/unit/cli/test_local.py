"""Local flows: which entry, imported from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.cli.local import local_entry
from kodo.p2p.errors import NotFoundError, UsageError


def test_a_file_is_a_module_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "market.py").touch()
    assert local_entry("./flows/market.py:competitor", tmp_path) == ("market:competitor", tmp_path / "flows")


def test_a_module_is_looked_for_in_the_working_folder(tmp_path: Path) -> None:
    assert local_entry("flows.market:competitor", tmp_path) == ("flows.market:competitor", tmp_path)


def test_a_yaml_file_keeps_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").touch()
    assert local_entry("./x.yaml", tmp_path) == ("x.yaml", tmp_path)


@pytest.mark.parametrize("text", ["./nope.py:f", "./nope.yaml"])
def test_a_missing_file_is_not_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotFoundError, match="nope"):
        local_entry(text, tmp_path)


@pytest.mark.parametrize("text", ["./a-b.py:f", "./x.py", "./folder"])
def test_what_is_no_flow_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a-b.py").touch()
    with pytest.raises(UsageError):
        local_entry(text, tmp_path)
