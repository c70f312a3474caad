#!/usr/bin/env python3
"""Set kodo's version: in `pyproject.toml`, and in the CHANGELOG, whose Unreleased part becomes that version.

    python bumpy.py major|minor|patch [--dry-run]
    python bumpy.py set X.Y.Z [--dry-run]

Needs the standard library only. Both files change, or neither does: a bad argument, or a file that does not look as
expected, changes nothing, says why and exits with 2.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BumpError", "bumped", "main", "with_release", "with_version"]

VERSION = re.compile(r"\.".join([r"(0|[1-9][0-9]{0,8})"] * 3))
UNRELEASED = re.compile(r"^## \[Unreleased\][ \t]*(?=\r?$)", re.MULTILINE | re.IGNORECASE)


class BumpError(Exception):
    """Nothing was changed; `str()` says why."""


def bumped(version: str, step: str) -> str:
    """The version after `version` (`X.Y.Z`) by one `step`: major, minor or patch.

    Raises:
        BumpError: `version` is not three plain numbers.
    """
    match = VERSION.fullmatch(version)
    if match is None:
        raise BumpError(
            f"the version {version!r} in pyproject.toml is not X.Y.Z, three numbers without leading zeros"
        )
    major, minor, patch = map(int, match.groups())
    return {
        "major": f"{major + 1}.0.0",
        "minor": f"{major}.{minor + 1}.0",
        "patch": f"{major}.{minor}.{patch + 1}",
    }[step]


def with_version(text: str, version: str) -> str:
    """`text` of a pyproject.toml with `project.version` set; every other character stays as it is.

    Raises:
        BumpError: it is not TOML, or has no version that can be replaced safely.
    """
    before = _parsed(text)
    pattern = re.compile(r"""^(version[ \t]*=[ \t]*)(?:"[^"\r\n]*"|'[^'\r\n]*')""", re.MULTILINE)
    table = re.search(r"^\[project\][ \t]*(?:#[^\n]*)?\r?$", text, re.MULTILINE)
    match = pattern.search(text, table.end()) if table else None
    if match is None:
        raise BumpError("pyproject.toml has no line 'version = \"X.Y.Z\"' in its table [project]")
    changed = f'{text[: match.start()]}{match[1]}"{version}"{text[match.end() :]}'
    # The line was found by its looks; only the parser can tell that it was the right one.
    before["project"]["version"] = version
    if _parsed(changed) != before:
        raise BumpError("pyproject.toml is laid out so that its version cannot be replaced safely")
    return changed


def with_release(text: str, version: str, date: datetime.date) -> str:
    """`text` of a CHANGELOG whose Unreleased part is now `version` of `date`, with a new, empty Unreleased above.

    Raises:
        BumpError: there is not exactly one Unreleased heading, or that version is there already.
    """
    found = UNRELEASED.findall(text)
    if len(found) != 1:
        raise BumpError(f"CHANGELOG.md has {len(found)} headings '## [Unreleased]'; one is needed")
    if re.search(rf"^## \[{re.escape(version)}\]", text, re.MULTILINE):
        raise BumpError(f"CHANGELOG.md has a heading for {version} already")
    newline = "\r\n" if "\r\n" in text else "\n"
    heading = f"## [Unreleased]{newline}{newline}## [{version}] - {date.isoformat()}"
    return UNRELEASED.sub(heading, text)


def _parsed(text: str) -> dict[str, dict[str, object]]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BumpError(f"pyproject.toml cannot be parsed: {error}") from error
    if not isinstance(tables.get("project"), dict) or not isinstance(tables["project"].get("version"), str):
        raise BumpError("pyproject.toml has no project.version")
    return tables


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise BumpError(f"{path.name} is missing in {path.parent}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BumpError(f"{path.name} cannot be read: {error}") from error


def _staged(path: Path, text: str) -> Path:
    """A temporary file beside `path` with `text` on disk and the same mode."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, path.stat().st_mode)
    return Path(name)


def _replace_all(texts: dict[Path, str]) -> None:
    """Put every text in its file, or, when one cannot be written, leave all files as they were."""
    originals = {path: path.read_bytes() for path in texts}
    staged: dict[Path, Path] = {}
    replaced: list[Path] = []
    try:
        for path, text in texts.items():
            staged[path] = _staged(path, text)
        for path, temporary in staged.items():
            os.replace(temporary, path)
            replaced.append(path)
    except OSError as error:
        for path in replaced:
            path.write_bytes(originals[path])
        raise BumpError(f"could not write: {error}") from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None, *, root: Path | None = None) -> int:
    """Run the command; the answer is its exit code. `root` holds the two files, by default beside this one."""
    parser = argparse.ArgumentParser(prog="bumpy.py", description="Set kodo's version.", allow_abbrev=False)
    parser.add_argument("step", choices=["major", "minor", "patch", "set"])
    parser.add_argument("version", nargs="?", metavar="X.Y.Z", help="the version, for 'set' only")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    options = parser.parse_args(arguments)
    if (options.step == "set") != (options.version is not None):
        parser.error("'set' needs one version X.Y.Z" if options.step == "set" else "only 'set' takes a version")
    root = root or Path(__file__).resolve().parent
    # Links are followed first, for replacing one would leave its target as it was.
    project, changelog = (root / "pyproject.toml").resolve(), (root / "CHANGELOG.md").resolve()
    try:
        text = _read(project)
        current = str(_parsed(text)["project"]["version"])
        if options.step == "set":
            version = options.version
            if VERSION.fullmatch(version) is None:
                raise BumpError(f"{version!r} is not X.Y.Z, three numbers without leading zeros")
        else:
            version = bumped(current, options.step)
        today = datetime.datetime.now().astimezone().date()
        texts = {
            project: with_version(text, version),
            changelog: with_release(_read(changelog), version, today),
        }
        if not options.dry_run:
            _replace_all(texts)
    except BumpError as error:
        print(f"bumpy.py: nothing changed: {error}", file=sys.stderr)
        return 2
    print(f"{'would set' if options.dry_run else 'set'} {current} -> {version} in pyproject.toml and CHANGELOG.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
