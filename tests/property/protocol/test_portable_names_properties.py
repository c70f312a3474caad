from hypothesis import given
from hypothesis import strategies as st

from kodo.protocol.manifest import check_output_name
from kodo.protocol.portable_names import WINDOWS, fold, original_name, portability, stored_names

PARTS = st.sampled_from(
    [
        "a",
        "A",
        "CON",
        "con",
        "Nul.txt",
        "é",
        "e\u0301",
        "É",
        "a:b",
        "a%3Ab",
        "%41",
        "end.",
        "end ",
        "ß",
        "ss",
        "ſ",
        "…?",
    ]
) | st.text(min_size=1, max_size=6)


def is_name(name: str) -> bool:
    try:
        return bool(check_output_name(name))
    except ValueError:
        return False


NAMES = st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(is_name), max_size=12)


@given(NAMES, st.sampled_from([WINDOWS, "darwin"]))
def test_no_two_names_are_stored_as_one_and_each_is_turned_back(names: set[str], system: str) -> None:
    stored = stored_names(names, system)
    assert set(stored) == names
    assert len({fold(name) for name in stored.values()}) == len(names)
    assert {original_name(name) for name in stored.values()} == names


@given(NAMES)
def test_what_windows_is_given_it_can_store(names: set[str]) -> None:
    stored = stored_names(names, WINDOWS)
    for name in stored.values():
        assert portability(name, stored.values()) is None
        assert check_output_name(name) == name


@given(NAMES)
def test_a_name_that_needs_nothing_stays(names: set[str]) -> None:
    for name, stored in stored_names(names, WINDOWS).items():
        if portability(name, names) is None and "%" not in name and name.islower() and name.isascii():
            assert stored == name


@given(NAMES)
def test_on_linux_no_two_names_are_stored_as_one(names: set[str]) -> None:
    stored = stored_names(names, "linux").values()
    assert len(set(stored)) == len(names)
