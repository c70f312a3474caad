"""What becomes of names that not every system stores."""

import json
from pathlib import Path

import pytest

from kodo.protocol.manifest import check_output_name
from kodo.protocol.portable_names import original_name, portability, stored_names

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "portable.json").read_text())


@pytest.mark.parametrize("case", VECTORS["renamed"], ids=lambda case: repr(case["names"])[:60])
def test_names_are_stored_as_the_vectors_say(case):
    names = [check_output_name(name) for name in case["names"]]
    stored = stored_names(names, VECTORS["system"])
    assert stored == dict(zip(names, case["stored"], strict=True))
    if "lossy" not in case:
        assert [original_name(stored[name]) for name in names] == names


@pytest.mark.parametrize("name", VECTORS["refused"], ids=lambda name: repr(name)[:30])
def test_what_is_no_name_of_an_output_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        check_output_name(name)


@pytest.mark.parametrize(
    ("name", "windows", "mac"),
    [
        ("report.md", "report.md", "report.md"),
        ("10:30.txt", "10%3A30.txt", "10:30.txt"),
        ("CON", "%43ON", "CON"),
        ("a/nul.txt", "a/%6Eul.txt", "a/nul.txt"),
        ("notes.", "notes%2E", "notes."),
        ("a\nb", "a%0Ab", "a%0Ab"),
        ("gpj.\u202eexe", "gpj.%E2%80%AEexe", "gpj.%E2%80%AEexe"),
        ("100%41", "100%2541", "100%2541"),
        ("50% off", "50% off", "50% off"),
        ("👩\u200d💻.png", "👩\u200d💻.png", "👩\u200d💻.png"),
    ],
)
def test_a_name_is_escaped_where_the_system_needs_it(name, windows, mac):
    assert stored_names([name], "win32") == {name: windows}
    assert stored_names([name], "darwin") == {name: mac}
    assert original_name(windows) == original_name(mac) == name


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (["a.txt", "A.txt"], ["a.txt", "%41.txt"]),
        (["Data/x", "data/y"], ["%44ata/x", "data/y"]),
        (["\u00e9", "e\u0301"], ["%C3%A9", "e%CC%81"]),
    ],
)
def test_names_that_a_system_takes_for_one_are_told_apart(names, stored):
    for system in ("win32", "darwin"):
        assert list(stored_names(names, system).values()) == stored


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a:b", "not each system takes"),
        ("ends.", "Windows drops"),
        ("aux.md", "Windows has a device AUX"),
        ("A.md", "Windows and macOS take it for 'a.md'"),
        ("می\u200cخواهم.txt", None),
        ("b.md", None),
    ],
)
def test_a_name_that_not_each_system_stores_says_why(name, why):
    found = portability(name, ["a.md", name])
    assert found is None if why is None else why in str(found)


def test_a_name_that_is_too_long_with_escapes_is_cut_and_stays_one_of_its_own():
    names = [":" * 255, ":" * 254 + "?"]
    stored = stored_names(names, "win32")
    assert len(set(stored.values())) == 2
    assert all(len(name) <= 255 for name in stored.values())


def test_on_linux_names_stay_but_for_control_characters():
    names = ["a:b", "CON", "100%41", "A", "a", "👩\u200d💻"]
    assert stored_names(names, "linux") == {name: name for name in names}
    assert list(stored_names(["x\x1b[2J", "x%1B[2J"], "linux").values()) == ["x%1B[2J", "x%251B[2J"]
