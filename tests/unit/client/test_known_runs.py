"""Which node each run of this user is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.client import known_runs
from kodo.client.known_runs import KnownRuns
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import UsageError
from kodo.protocol.ids import make_id

ONE, TWO = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))


def fid(number: int) -> str:
    return make_id(number, bytes(10))


@pytest.fixture
def runs(tmp_path: Path) -> KnownRuns:
    return KnownRuns(tmp_path / "home" / "known_runs")


def test_a_run_is_remembered_for_every_later_process(runs: KnownRuns) -> None:
    assert runs.get(fid(1)) is None
    runs.add({fid(1): ONE})
    assert KnownRuns(runs.path).get(fid(1)) == ONE


def test_the_file_is_for_its_owner_alone(runs: KnownRuns) -> None:
    runs.add({fid(1): ONE})
    assert runs.path.stat().st_mode & 0o077 == 0


def test_what_is_known_stays_whatever_is_claimed_later(runs: KnownRuns) -> None:
    runs.add({fid(1): ONE})
    runs.add({fid(1): TWO, fid(2): TWO})
    assert (runs.get(fid(1)), runs.get(fid(2))) == (ONE, TWO)


def test_what_is_no_fid_is_not_remembered(runs: KnownRuns) -> None:
    runs.add({"no fid\n" + fid(1): ONE})
    assert runs.get(fid(1)) is None


def test_the_oldest_are_forgotten_when_the_file_is_full(runs: KnownRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_runs, "MAX_FILE_BYTES", 8000)
    for number in range(300):
        runs.add({fid(number): ONE})
        assert runs.path.stat().st_size <= 8000
        assert runs.get(fid(number)) == ONE
    assert runs.get(fid(0)) is None


def test_a_listing_takes_no_place_from_what_was_launched(runs: KnownRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_runs, "MAX_FILE_BYTES", 8000)
    runs.add({fid(1): ONE})
    runs.add({fid(number): TWO for number in range(1000)}, make_room=False)
    assert (runs.get(fid(1)), runs.get(fid(2))) == (ONE, None)


def test_a_damaged_line_is_told_of_when_its_run_is_meant(runs: KnownRuns) -> None:
    runs.add({fid(1): ONE})
    runs.path.write_text(f"rubbish\n{fid(2)} nobody\n{runs.path.read_text()}")
    assert runs.get(fid(1)) == ONE
    with pytest.raises(UsageError, match="known_runs"):
        runs.get(fid(2))
