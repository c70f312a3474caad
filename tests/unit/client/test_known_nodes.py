"""Pins of names: made once, kept, refused when they change."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from kodo.client.known_nodes import KnownNodes, check_name
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import IdentityError, UsageError


def peer(number: int) -> PeerId:
    return Identity.from_seed(bytes([number]) * 32).peer_id


@pytest.fixture
def known(tmp_path: Path) -> KnownNodes:
    return KnownNodes(tmp_path / "home" / "known_nodes")


def test_a_pinned_name_is_found_by_another_instance(known: KnownNodes) -> None:
    known.pin("flows.example.com", peer(1))
    assert KnownNodes(known.path).get("flows.example.com") == peer(1)


def test_without_a_file_nothing_is_pinned(known: KnownNodes) -> None:
    assert known.get("flows.example.com") is None
    assert not known.path.exists()


def test_a_changed_peer_id_is_refused_and_both_are_named(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    with pytest.raises(IdentityError) as error:
        known.pin("n", peer(2))
    assert str(peer(1)) in str(error.value)
    assert str(peer(2)) in str(error.value)
    assert known.get("n") == peer(1)


def test_pinning_again_changes_nothing(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    before = known.path.stat().st_ino
    known.pin("n", peer(1))
    assert known.path.stat().st_ino == before


def test_only_the_owner_may_read_the_pins(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600


def test_a_forgotten_name_may_be_pinned_anew(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    known.pin("m", peer(3))
    assert known.forget("n")
    assert not known.forget("n")
    known.pin("n", peer(2))
    assert (known.get("n"), known.get("m")) == (peer(2), peer(3))


def test_comments_and_empty_lines_are_passed_over(known: KnownNodes) -> None:
    known.path.parent.mkdir()
    known.path.write_text(f"# mine\n\n  # more\nn {peer(1)}\n")
    assert dict(known.all()) == {"n": peer(1)}


@pytest.mark.parametrize("line", ["n", "n 12D3KooWnonsense", "n a b"])
def test_a_damaged_line_is_named(known: KnownNodes, line: str) -> None:
    known.path.parent.mkdir()
    known.path.write_text(f"m {peer(1)}\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        known.get("m")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\nb", "#a", "a\x1b[2J", "x" * 254])
def test_names_that_would_break_the_file_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def _pin_many(path: str, start: int) -> None:
    for number in range(start, start + 20):
        KnownNodes(Path(path)).pin(f"n{number}", peer(number % 250 + 1))


def test_writers_in_several_processes_lose_no_pin(known: KnownNodes) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_pin_many, args=(str(known.path), start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(known.all()) == 40
