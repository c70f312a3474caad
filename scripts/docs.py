"""Write the generated blocks of `docs/`, then build the site from it: docs.py [--check]

The site is built strictly: a warning ends the build. It loads nothing from elsewhere, neither when it is built nor
when it is read, so it can be opened as a file. With `--check` nothing is written into `docs/`; a block that is not
what the code says now ends with exit code 1.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reference import MAKERS
from reference.blocks import fill

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SITE = ROOT / ".run" / "docs"


def stale() -> dict[Path, str]:
    """Return the pages whose generated blocks are not what the code says now, with what they should be."""
    found = {}
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (fresh := fill(page, MAKERS)) != page:
            found[path] = fresh
    return found


def build() -> int:
    """Build the site, strictly; return Sphinx's exit code."""
    shutil.rmtree(SITE, ignore_errors=True)
    options = ["--builder", "html", "--fail-on-warning", "--nitpicky", "--keep-going", "--quiet"]
    words = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(SITE)]
    return subprocess.run(words, cwd=ROOT, check=False).returncode


def loaded_from_elsewhere() -> list[str]:
    """Return what the built pages would load from another place: scripts, styles, fonts, pictures."""
    pattern = re.compile(
        r"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc=|<link\b[^>]*\brel="(?:stylesheet|preload|preconnect|icon)"[^>]*\bhref="""
        r"""|url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)"""
    )
    pages = [path for path in sorted(SITE.rglob("*")) if path.suffix in (".html", ".css")]
    return [
        f"{path.relative_to(SITE)}: {found}" for path in pages for found in pattern.findall(path.read_text("utf-8"))
    ]


def main(arguments: Sequence[str]) -> int:
    """Write, or check, and build."""
    parser = argparse.ArgumentParser(prog="scripts/docs", description="Build the documentation.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing into docs/; end with 1 where one is stale"
    )
    options = parser.parse_args(arguments)
    pages = stale()
    for path, page in pages.items():
        print(f"· {path.relative_to(ROOT)}", file=sys.stderr)
        if not options.check:
            path.write_text(page, encoding="utf-8")
    if pages and options.check:
        print("these pages are not what the code says; write them: scripts/docs", file=sys.stderr)
        return 1
    if code := build():
        return code
    if found := loaded_from_elsewhere():
        print("the site loads from elsewhere:", *found, sep="\n  ", file=sys.stderr)
        return 1
    print(f"the site is in {(SITE / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
