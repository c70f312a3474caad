"""The table of attacks in p2p's README names tests that exist, each line at least one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_attack_on_paths_has_tests_that_exist() -> None:
    table = (ROOT / "p2p" / "README.md").read_text(encoding="utf-8").partition("## Attacks on paths")[2]
    rows = re.findall(r"^\| (?!attack|-)(.+?) \| .+ \| (.*) \|$", table, re.MULTILINE)
    named = {attack: re.findall(r"`(test_\w+)`", tests) for attack, tests in rows}
    assert len(named) > 10
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {attack: set(tests) - defined or not tests for attack, tests in named.items()} == dict.fromkeys(
        named, False
    )
