"""Build a release and check it, without publishing anything: release.py [major|minor|patch|set X.Y.Z] [--tag TAG]

A wheel and an sdist are built in a temporary folder from what is committed, and checked there: the wheel is installed
in a clean environment and used. Only then do they come into `dist/`. With a step, `bumpy.py` sets the version and
dates the CHANGELOG in that folder first and, once all is well, here too: commit and tag what it changed. `--tag` ends
with an error when the tag is not `v` and the version.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["check_tag", "main", "unreleased"]

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1800


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Run a command and return what it printed; end with its output when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        sys.exit(f"release.py: {' '.join(words)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def unreleased(changelog: str) -> str:
    """Return what the CHANGELOG says under Unreleased, without the heading."""
    _, _, rest = changelog.partition("## [Unreleased]\n")
    return rest.partition("\n## [")[0].strip()


def check_tag(tag: str, version: str) -> None:
    """Check that a tag is this version's.

    Raises:
        ValueError: it is not.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag {tag} is not of the version in pyproject.toml, {version}; it has to be v{version}")


def committed(folder: Path) -> None:
    """Write all that is committed into `folder`."""
    archive = folder.parent / "committed.tar"
    run(["git", "archive", "--output", archive, "HEAD"], ROOT)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def build(source: Path, dist: Path) -> None:
    """Build the wheel and the sdist with the locked build packages; the same commit gives the same bytes."""
    made_at = run(["git", "log", "-1", "--format=%ct"], ROOT).strip()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), "."]
    run(command, source, SOURCE_DATE_EPOCH=made_at)


def main(arguments: Sequence[str]) -> int:
    """Build and check; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/release", description="Build a release and check it, without publishing anything."
    )
    parser.add_argument("step", nargs="?", choices=["major", "minor", "patch", "set"], help="as bumpy.py takes it")
    parser.add_argument("version", nargs="?", metavar="X.Y.Z", help="the version, for 'set' only")
    parser.add_argument("--tag", help="end with an error unless this is the version's tag")
    options = parser.parse_args(arguments)
    bump = [word for word in (options.step, options.version) if word]
    if changed := run(["git", "status", "--porcelain"], ROOT):
        sys.exit(f"release.py: a release is built from what is committed; commit or remove first:\n{changed}")
    if bump and not unreleased((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")):
        sys.exit("release.py: CHANGELOG.md says nothing under Unreleased, so there is nothing to release")
    with tempfile.TemporaryDirectory(prefix="kodo-release-") as made:
        source, dist = Path(made, "source"), Path(made, "dist")
        committed(source)
        if bump:
            run([sys.executable, "bumpy.py", *bump], source)
        version = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        if options.tag:
            try:
                check_tag(options.tag, version)
            except ValueError as error:
                sys.exit(f"release.py: {error}")
        print(f"· building {version}", file=sys.stderr, flush=True)
        build(source, dist)
        print("· checking: installed in a clean environment, and used", file=sys.stderr, flush=True)
        print(run([sys.executable, source / "scripts" / "check_dist.py", dist], source), end="")
        if bump:
            print(run([sys.executable, ROOT / "bumpy.py", *bump], ROOT), end="")
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        shutil.copytree(dist, ROOT / "dist")
    for path in sorted((ROOT / "dist").iterdir()):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  dist/{path.name}")
    if bump:
        print(f"Nothing was published. Next: git commit -am 'Release {version}' && git tag v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
