"""The file that says which way sessions took last."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.client.last_sessions import FRESH_MS, MAX_SESSIONS, LastSession, LastSessions


def session(number: int = 1, route: str = "lan", at: int = 0) -> LastSession:
    return LastSession(f"peer{number}", f"n{number}.example", route, at, 3)


def test_the_latest_session_with_each_node_is_kept_and_the_latest_is_last(tmp_path: Path) -> None:
    kept = LastSessions(tmp_path / "last_sessions")
    assert kept.all() == {}
    kept.remember([session(1), session(2, "relay")])
    kept.remember([session(1, "punched", 5)])
    assert list(kept.all().values()) == [session(2, "relay"), session(1, "punched", 5)]
    assert kept.path.stat().st_mode & 0o777 == 0o600


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    kept = LastSessions(tmp_path / "last_sessions")
    kept.remember([session(number) for number in range(MAX_SESSIONS + 9)])
    assert list(kept.all()) == [f"peer{number}" for number in range(9, MAX_SESSIONS + 9)]


def test_what_has_not_changed_is_not_written_at_once(tmp_path: Path) -> None:
    kept = LastSessions(tmp_path / "last_sessions")
    kept.remember([session(at=0)])
    kept.remember([session(at=FRESH_MS - 1)])
    assert kept.all()["peer1"].at == 0
    kept.remember([session(at=FRESH_MS)])
    assert kept.all()["peer1"].at == FRESH_MS
    kept.remember([session(route="a way that is none", at=9 * FRESH_MS)])
    assert kept.all()["peer1"].route == "lan"


@pytest.mark.parametrize(
    "line",
    [
        *("", "{}", "[]", "null", "{", "[" * 5000, "\xff"),
        '{"peer_id": 1, "name": "n", "route": "lan", "at": 1, "addresses": 1}',
        '{"peer_id": "p", "name": "n", "route": "x", "at": 1, "addresses": 1}',
        '{"peer_id": "p", "name": "n", "route": [], "at": 1, "addresses": 1}',
        '{"peer_id": "p", "name": "n", "route": "lan", "at": "soon", "addresses": 1}',
        '{"peer_id": "p", "name": "n", "route": "lan", "at": 1, "addresses": 1, "more": 1}',
    ],
)
def test_a_damaged_line_hides_no_other(tmp_path: Path, line: str) -> None:
    kept = LastSessions(tmp_path / "last_sessions")
    kept.remember([session(1)])
    kept.path.write_text(f"{line}\n{kept.path.read_text()}", encoding="latin-1")
    assert list(kept.all()) == ["peer1"]
