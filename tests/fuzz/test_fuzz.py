"""One batch of each parser's inputs, always the same; `scripts/fuzz` tries millions of others."""

from __future__ import annotations

import pytest

from tests.fuzz.runner import Tally, run_batch
from tests.fuzz.targets import Target, all_targets

TARGETS = all_targets()
SEED = 1


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_a_parser_takes_what_comes_or_refuses_it_by_its_own_error_and_in_linear_time(target: Target) -> None:
    tally = Tally()
    run_batch(target, SEED, 0, tally)
    assert tally.findings == []
    assert tally.inputs


def test_what_a_parser_should_not_raise_is_found_again_by_its_seed_and_batch() -> None:
    def read(data: bytes) -> None:
        if data[:1] == b"x":
            raise ZeroDivisionError("found")

    target = Target("odd", lambda rng: rng.choice([b"x", b"y"]), lambda: read)
    first, again = Tally(), Tally()
    for tally in (first, again):
        run_batch(target, 5, 7, tally)
    assert first.findings == again.findings
    assert [finding.what.partition(" (")[0] for finding in first.findings] == ["ZeroDivisionError: found"]


def test_work_that_grows_faster_than_its_input_is_found() -> None:
    def read(data: bytes) -> None:
        some = data[:1000]  # all of a long one would take this test a minute
        for _ in some:
            for _ in some:
                pass

    tally = Tally()
    run_batch(Target("slow", lambda rng: b"a" * 50, lambda: read, steps=10), 1, 0, tally)
    assert "steps" in tally.findings[0].what
