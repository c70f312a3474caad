"""The names that memories take."""

import pytest

from kodo.protocol.memory import MAX_KEY_BYTES, check_key


@pytest.mark.parametrize("key", ["a", "a/b c", "größe", "می\u200cخواهم", "👩\u200d💻", "x" * MAX_KEY_BYTES])
def test_a_key_is_any_printable_text_joined_letters_too(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "\u200c", "\u200d\u200c", "a\n", "\x1b[2J", "a\u202eb", "x" * (MAX_KEY_BYTES + 1), 5, None]
)
def test_what_cannot_be_shown_is_no_key(key: object) -> None:
    with pytest.raises(ValueError, match="a key"):
        check_key(key)
