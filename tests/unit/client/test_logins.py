"""Logins as they are kept: by node, readable by their owner only, in a keyring where there is one."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringError

from kodo.client.logins import MAX_LOGINS, Login, Logins
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import UsageError

NODE, OTHER = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))
LOCAL = Login(provider="local", user="ana", expires_at=5, secret=f"local {NODE}")
ISSUED = Login(provider="oidc", user="ana", secret="oidc x", issuer="https://x", client_id="c", audience="a")


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority: ClassVar[float] = 5
    locked: ClassVar[bool] = False
    kept: ClassVar[dict[tuple[str, str], str]] = {}

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringError("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise KeyringError("locked")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    Ring.kept.clear()
    yield Ring()
    Ring.locked = False
    keyring.set_keyring(before)


def test_a_login_is_kept_by_node_for_its_owner_alone(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "logins.json", keyring=False)
    assert logins.get(NODE) is None
    logins.put(NODE, LOCAL, {"token": "t"})
    again = Logins(tmp_path / "logins.json", keyring=False)
    assert again.get(NODE) == LOCAL
    assert again.get(OTHER) is None
    assert again.tokens(LOCAL) == {"token": "t"}
    assert stat.S_IMODE((tmp_path / "logins.json").stat().st_mode) == 0o600


def test_the_file_is_refused_when_others_may_read_it(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "logins.json", keyring=False)
    logins.put(NODE, LOCAL, {"token": "t"})
    logins.path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        logins.get(NODE)


@pytest.mark.parametrize("content", ["[]", '{"nodes": 3}', '{"nodes": {"x": {}, "y": 3}}'])
def test_what_is_no_login_is_passed_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "logins.json"
    path.touch(mode=0o600)
    path.write_text(content)
    assert Logins(path, keyring=False).all() == {}


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, content: str) -> None:
    path = tmp_path / "logins.json"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(UsageError, match="log in again"):
        Logins(path, keyring=False).all()


def test_what_is_forgotten_is_gone_and_shared_tokens_stay_for_the_other(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "logins.json", keyring=False)
    logins.put(NODE, ISSUED, {"token": "t"})
    logins.put(OTHER, ISSUED, {"token": "t"})
    assert logins.forget(NODE)
    assert logins.tokens(ISSUED) == {"token": "t"}
    assert logins.forget(OTHER)
    assert not logins.forget(OTHER)
    assert "t" not in logins.path.read_text().replace("nodes", "").replace("tokens", "")


def test_there_is_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "logins.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"nodes": {str(number): {} for number in range(MAX_LOGINS)}}))
    with pytest.raises(UsageError, match="koco logout"):
        Logins(path, keyring=False).put(NODE, LOCAL, {})


def test_tokens_lie_in_the_keyring_where_there_is_one(tmp_path: Path, ring: Ring) -> None:
    logins = Logins(tmp_path / "logins.json")
    logins.put(NODE, LOCAL, {"token": "canary"})
    assert "canary" not in logins.path.read_text()
    assert logins.tokens(LOCAL) == {"token": "canary"}
    assert Logins(tmp_path / "other.json").tokens(LOCAL) == {}
    logins.forget(NODE)
    assert Ring.kept == {}


def test_a_locked_keyring_is_none(tmp_path: Path, ring: Ring) -> None:
    Ring.locked = True
    logins = Logins(tmp_path / "logins.json")
    logins.put(NODE, LOCAL, {"token": "t"})
    assert logins.tokens(LOCAL) == {"token": "t"}
    assert stat.S_IMODE(logins.path.stat().st_mode) == 0o600


def test_a_keyring_that_nobody_recommends_is_none(
    tmp_path: Path, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ring, "priority", 0.5)
    Logins(tmp_path / "logins.json").put(NODE, LOCAL, {"token": "t"})
    assert Ring.kept == {}
