"""Keys on disk: made once, private, refused when they are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import load_certificate, load_identity, make_home, write_private


def test_a_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "home", "node")
    assert load_identity(tmp_path / "home", "node").peer_id == first.peer_id


def test_the_node_and_its_user_have_keys_of_their_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert load_identity(home, "node").peer_id != load_identity(home, "user").peer_id


def test_the_certificate_and_so_the_address_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert load_certificate(home).digest == load_certificate(home).digest


def test_only_the_owner_may_read_what_is_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    load_identity(home, "user")
    load_certificate(home)
    write_private(home / "other", b"x")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {
        "user.key": 0o600,
        "node.crt": 0o600,
        "other": 0o600,
    }


@pytest.mark.parametrize("name", ["node.key", "node.crt"])
def test_a_key_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    load_identity(tmp_path, "node")
    load_certificate(tmp_path)
    (tmp_path / name).chmod(0o640)
    load = {"node.key": lambda: load_identity(tmp_path, "node"), "node.crt": lambda: load_certificate(tmp_path)}
    with pytest.raises(UsageError, match=f"chmod 600 .*{name}"):
        load[name]()


def test_a_home_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(UsageError, match="chmod 700"):
        make_home(home)


@pytest.mark.parametrize("content", [b"", b"zz", b"00" * 31, b"\xff" * 64])
def test_a_damaged_key_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / "node.key", content)
    with pytest.raises(UsageError, match="not a key"):
        load_identity(tmp_path, "node")
    assert (tmp_path / "node.key").read_bytes() == content


def test_a_damaged_certificate_is_refused(tmp_path: Path) -> None:
    load_certificate(tmp_path)
    pem = (tmp_path / "node.crt").read_bytes()
    write_private(tmp_path / "node.crt", pem[:200])
    with pytest.raises(UsageError):
        load_certificate(tmp_path)


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_private(tmp_path / "file", b"long content")
    write_private(tmp_path / "file", b"short")
    assert (tmp_path / "file").read_bytes() == b"short"
    assert os.listdir(tmp_path) == ["file"]
