"""What the doctor finds wrong, and what not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kodo.cli import doctor
from kodo.p2p.distribution import how_to_install


def test_a_client_without_ray_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [finding] = doctor._ray(tmp_path)
    assert (finding.check, finding.todo) == ("ray", "")
    assert how_to_install("node") in finding.found
