"""The page's port: remembered, and told whose it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kodo.web import port as web_port
from kodo.web.port import holder_of, last_port, remember_port

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def table(tmp_path: Path, *rows: str) -> tuple[Path, ...]:
    file = tmp_path / "tcp"
    file.write_text(HEAD + "".join(f"   0: {row}\n" for row in rows))
    return (file, tmp_path / "missing")


def row(address: str, state: str, uid: int) -> str:
    return f"{address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 12345 1"


def test_a_port_is_remembered(tmp_path: Path) -> None:
    assert last_port(tmp_path) is None
    remember_port(tmp_path, 8361)
    assert last_port(tmp_path) == 8361
    assert (tmp_path / "web.port").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "-1"])
def test_what_is_no_port_is_not_remembered(tmp_path: Path, text: str) -> None:
    (tmp_path / "web.port").write_text(text)
    assert last_port(tmp_path) is None


@pytest.mark.parametrize("address", ["0100007F:20A9", "00000000:20A9", f"{'0' * 32}:20A9"])
def test_whoever_listens_on_loopback_is_found(tmp_path: Path, address: str) -> None:
    assert holder_of(8361, tables=table(tmp_path, row("0100007F:0050", "0A", 1), row(address, "0A", 1007))) == 1007


@pytest.mark.parametrize("other", [row("0100007F:20A9", "01", 7), row("0200A8C0:20A9", "0A", 7), "short", ""])
def test_connections_and_other_networks_hold_no_port(tmp_path: Path, other: str) -> None:
    assert holder_of(8361, tables=table(tmp_path, other)) is None


@pytest.mark.parametrize(("holder", "says"), [(os.getuid() + 1, "another account"), (os.getuid(), "already")])
def test_a_refusal_says_whose_the_port_is(holder: int, says: str) -> None:
    error = OSError(errno.EADDRINUSE, "Address already in use")
    refusal = web_port._refusal(8361, error, holder)
    assert says in refusal
    assert "--port" in refusal


def test_any_other_fault_is_told_as_it_is() -> None:
    assert "Permission denied" in web_port._refusal(80, OSError(errno.EACCES, "Permission denied"), None)
