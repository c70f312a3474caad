"""What a node keeps in its home beside its database."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kodo.node.home import last_port, remember_port


def test_the_port_is_remembered_for_its_owner_alone(tmp_path: Path) -> None:
    assert last_port(tmp_path) == 0
    remember_port(tmp_path, 4711)
    file = tmp_path / "node.port"
    assert (last_port(tmp_path), stat.S_IMODE(file.stat().st_mode)) == (4711, 0o600)
    file.chmod(0o644)  # as an earlier version left it
    remember_port(tmp_path, 12)
    assert (last_port(tmp_path), stat.S_IMODE(file.stat().st_mode)) == (12, 0o600)


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "-1"])
def test_what_is_no_port_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.port").write_text(text)
    assert last_port(tmp_path) == 0
