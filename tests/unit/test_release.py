"""What a release is made of, and that making one publishes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.release import check_tag, unreleased

ROOT = Path(__file__).resolve().parents[2]


def workflow() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))


def test_a_tag_is_that_of_the_version() -> None:
    check_tag("v1.2.3", "1.2.3")


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2.30", "v1.2", "V1.2.3", ""])
def test_another_tag_is_refused_and_the_right_one_said(tag: str) -> None:
    with pytest.raises(ValueError, match=r"it has to be v1\.2\.3"):
        check_tag(tag, "1.2.3")


def test_what_is_unreleased_ends_where_a_version_begins() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One.\n\n## [0.1.0] - 2026-01-01\n\n- Zero.\n"
    assert unreleased(text) == "### Added\n\n- One."


@pytest.mark.parametrize("text", ["## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- Zero.\n", "# Changelog\n"])
def test_an_empty_part_has_nothing_to_release(text: str) -> None:
    assert unreleased(text) == ""


def test_what_builds_may_not_sign_and_what_signs_runs_nothing_of_ours() -> None:
    jobs = workflow()["jobs"]
    signing = [name for name, job in jobs.items() if "id-token" in job["permissions"]]
    assert signing == ["attest"]
    assert not any("run" in step or "checkout" in step.get("uses", "") for step in jobs["attest"]["steps"])
    assert jobs["build"]["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("path", [".github/workflows/release.yml", "scripts/release", "scripts/release.py"])
def test_a_release_publishes_nothing(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    words = ["twine", "pypi-publish", "uv publish", "hatch publish", "git push", "gh release"]
    assert [word for word in words if word in text] == []
