"""Under which name kodo is installed, and that nobody is told to install what nobody has published."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from kodo.p2p import distribution
from kodo.p2p.distribution import DISTRIBUTION, IS_PUBLISHED, how_to_install, installed_version
from tests.unit.test_house import ROOT, in_wheel, shipped, texts

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
THIS_MODULE = Path(__file__).relative_to(ROOT).as_posix()

INSTALLER = (
    r"(?:pip3?\s+install|pipx\s+(?:install|run)|uv\s+(?:add|pip\s+install|tool\s+(?:install|run))|uvx|poetry\s+add)"
)
FROM_AN_INDEX = re.compile(rf"{INSTALLER}\s+(?:-{{1,2}}[\w-]+\s+)*['\"]?{DISTRIBUTION}(?![\w/-]|\.\w)", re.IGNORECASE)
"""A command that takes kodo from an index: by name, not by a path."""
NAMED_EXTRA = re.compile(rf"(?<![\w.]){DISTRIBUTION}\[[a-z]")
"""An extra as an index's packages are named; from a clone it is `.[node]`."""


@pytest.mark.parametrize(
    "text",
    ["pip install kodo", "pip install\n'kodo[node]'", 'pip3 install -U "kodo"', "uvx kodo", "pipx install kodo."],
)
def test_commands_that_take_kodo_from_an_index_are_found(text: str) -> None:
    assert FROM_AN_INDEX.search(text)


@pytest.mark.parametrize("text", ["pip install -e .", "pip install -e '.[node]'", "pip install kodo/dist/kodo.whl"])
def test_commands_that_take_kodo_from_a_path_are_right(text: str) -> None:
    assert not FROM_AN_INDEX.search(text)


def test_no_text_says_to_install_what_is_not_published() -> None:
    found = [
        (name, match[0])
        for name, text in texts()
        if name != THIS_MODULE and (match := FROM_AN_INDEX.search(text) or NAMED_EXTRA.search(text))
    ]
    assert IS_PUBLISHED or found == []


def test_every_extra_that_is_named_exists() -> None:
    named = {
        (name, extra)
        for name, text in texts()
        for match in re.finditer(r"""-e ['"]?\.\[([\w,]+)\]|how_to_install\(["'](\w+)["']\)""", text)
        for extra in (match[1] or match[2]).split(",")
        if name != THIS_MODULE
    }
    assert [(name, extra) for name, extra in sorted(named) if extra not in PROJECT["optional-dependencies"]] == []
    assert {extra for _, extra in named} >= {"node", "keyring"}


def test_the_name_is_that_of_the_project() -> None:
    assert PROJECT["name"] == DISTRIBUTION


def test_the_name_is_looked_up_in_one_module() -> None:
    lookup = re.compile(rf"""(?:version|distribution|metadata|files|requires)\(\s*["']{DISTRIBUTION}["']""")
    assert [in_wheel(path) for path in shipped() if lookup.search(path.read_text(encoding="utf-8"))] == []


def test_from_a_clone_an_extra_is_installed_where_the_clone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "IS_PUBLISHED", False)
    assert how_to_install("node") == "in your clone of kodo, run: pip install -e '.[node]'"


def test_once_published_an_extra_is_installed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "IS_PUBLISHED", True)
    assert how_to_install("node") == "pip install 'kodo[node]'"


def test_without_an_installed_package_the_version_is_known_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "DISTRIBUTION", "kodo-that-nobody-installed")
    assert installed_version.__wrapped__() == "0"


def test_the_version_is_looked_up_once() -> None:
    before = installed_version.cache_info()
    assert installed_version() == installed_version()
    assert installed_version.cache_info().misses <= before.misses + 1
    assert installed_version.cache_info().hits > before.hits
