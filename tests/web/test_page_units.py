"""The page's own checks: types, lint, unit tests and the build, as `client/web/README.md` says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "client" / "web"


@pytest.mark.parametrize("script", ["check", "lint", "test"])
def test_the_page_passes_its_own(script: str) -> None:
    npm = shutil.which("npm")
    assert npm is not None, "Node.js is missing; scripts/test installs it"
    done = subprocess.run(
        [npm, "run", "--silent", script],
        cwd=WEB,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]


def test_what_is_built_is_named_by_its_content(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None, "Node.js is missing; scripts/test installs it"
    subprocess.run(
        [node, "build.mjs", "--outdir", str(tmp_path / "out")],
        cwd=WEB,
        check=True,
        timeout=120,
        stdout=subprocess.DEVNULL,
    )
    built = {path.name for path in (tmp_path / "out").iterdir()}
    page = (tmp_path / "out" / "index.html").read_text()
    fixed = {"index.html", "sw.js"}
    assert "index.html" in built
    named = [name for name in built - fixed if re.fullmatch(r"[a-z-]+-[A-Z0-9]{8}\.[a-z0-9]+", name)]
    assert sorted(named) == sorted(built - fixed)
    assert any(f'src="{name}"' in page for name in named)
    assert "<script>" not in page
    assert "style=" not in page
