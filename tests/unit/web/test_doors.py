"""Keys: one that the terminal shows, and those that pages trade it for."""

from __future__ import annotations

import pytest

from kodo.p2p.errors import CallError
from kodo.web.doors import Keys


def test_the_entry_key_is_traded_for_a_key_that_passes() -> None:
    keys = Keys()
    keys.check(keys.enter(keys.entry))


@pytest.mark.parametrize("shown", ["", "x", "é", "\ud800"])
def test_a_wrong_entry_key_lets_nobody_in(shown: str) -> None:
    with pytest.raises(CallError) as refused:
        Keys().enter(shown)
    assert (refused.value.code, refused.value.reason) == (401, "bad-key")


def test_the_entry_key_itself_opens_nothing() -> None:
    keys = Keys()
    with pytest.raises(CallError) as refused:
        keys.check(keys.entry)
    assert refused.value.reason == "key-needed"


def test_the_key_that_was_given_longest_ago_is_forgotten_when_there_are_too_many() -> None:
    keys = Keys()
    given = [keys.enter(keys.entry) for _ in range(257)]
    for key in given[1:]:
        keys.check(key)
    with pytest.raises(CallError):
        keys.check(given[0])


def test_keys_end_with_the_server() -> None:
    keys = Keys()
    key = keys.enter(keys.entry)
    with pytest.raises(CallError):
        Keys().check(key)
