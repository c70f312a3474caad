"""The page's policy, and which files it consists of."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.p2p.errors import UsageError
from kodo.web.site import BUILD_COMMAND, Site, policy, security_headers


def test_nothing_but_the_pages_own_files_acts() -> None:
    rules = dict(rule.partition(" ")[::2] for rule in policy().split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == rules["worker-src"] == "'self'"
    assert rules["frame-src"] == "blob:"
    assert rules["require-trusted-types-for"] == "'script'"
    assert rules["trusted-types"] == "kodo"
    assert "unsafe" not in policy()
    assert "*" not in policy()


def test_registries_may_be_asked_besides() -> None:
    assert "connect-src 'self' https://a.example;" in policy(["https://a.example"])
    assert "https://a.example" in security_headers(["https://a.example"])["Content-Security-Policy"]


def test_a_page_that_is_not_built_is_refused_with_the_command_that_builds_it(tmp_path: Path) -> None:
    assert not Site.is_built(tmp_path)
    with pytest.raises(UsageError, match=BUILD_COMMAND):
        Site("web", folder=tmp_path)


def test_only_files_that_were_there_have_a_path(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<html data-host="">')
    (tmp_path / "app-ABCDEFGH.js").write_text("1")
    (tmp_path / "app-ABCDEFGH.js.map").write_text("{}")
    (tmp_path / ".built").write_text("")
    assert Site("web", folder=tmp_path).paths == ["/", "/app-ABCDEFGH.js"]
    (tmp_path / "late.js").write_text("2")
    assert len(Site("web", folder=tmp_path).routes()) == 3


def test_the_command_that_builds_the_page_exists() -> None:
    assert (Path(__file__).resolve().parents[3] / BUILD_COMMAND).is_file()
