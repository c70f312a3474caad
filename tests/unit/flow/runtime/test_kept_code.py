"""Code as it was kept, for processes that import it after it was edited."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.flow._runtime.kept_code import kept_as, kept_sources
from kodo.node.catalog.scope_code import ScopeCode

PROGRAM = """
import importlib, json, sys
from pathlib import Path
from kodo.flow._runtime.kept_code import kept_text, use_kept_code
from kodo.flow._runtime.sources import add_roots
kept, root, *names = sys.argv[1:]
add_roots([root])
use_kept_code(kept)
modules = [importlib.import_module(name) for name in names]
print(json.dumps([[module.VALUE, module.__file__] for module in modules] + [kept_text(Path(root, "crew.yaml"))]))
"""


@pytest.fixture
def scope(tmp_path: Path) -> Path:
    root = tmp_path / "scope"
    (root / "pack").mkdir(parents=True)
    (root / "plain.py").write_text("from helper import VALUE")
    (root / "helper.py").write_text("VALUE = 1")
    (root / "pack" / "__init__.py").write_text("")
    (root / "pack" / "inner.py").write_text("from .deep import VALUE")
    (root / "pack" / "deep.py").write_text("VALUE = 1")
    (root / "crew.yaml").write_text("one")
    return root


def imported(kept: str, root: Path, *names: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kept, str(root), *names], capture_output=True, text=True, check=True
    )
    found: list[object] = json.loads(done.stdout)
    return found


def keep(scope: Path) -> str:
    code = ScopeCode([scope], scope.parent / "code")
    return asyncio.run(code.keep(code.look()))


def test_sources_that_lie_elsewhere_are_kept_where_they_are_linked(scope: Path) -> None:
    elsewhere = scope.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("helper.py", "crew.yaml"):
        (scope / name).rename(elsewhere / name)
        (scope / name).symlink_to(elsewhere / name)
    kept = keep(scope)
    (elsewhere / "helper.py").write_text("VALUE = 22")
    (elsewhere / "crew.yaml").write_text("two and more")
    assert imported(kept, scope, "helper") == [[1, os.fspath(scope / "helper.py")], "one"]
    assert {kept_as(scope / name) for name in ("helper.py", "crew.yaml")} <= kept_sources(kept).keys()


@pytest.mark.parametrize("folder", ["a", "caf\udce9", "報"])
@pytest.mark.parametrize("name", ["caf\udce9", "\udcff\udcfe", "報", "a b\n"])
def test_code_is_kept_whatever_names_files_and_folders_have(tmp_path: Path, folder: str, name: str) -> None:
    root = tmp_path / folder
    root.mkdir()
    sources = {os.fspath(root / f"{each}.py"): b"VALUE = 1" for each in (name, "helper")}
    for path, content in sources.items():
        Path(path).write_bytes(content)
    code = ScopeCode([root], tmp_path / "code")
    kept = asyncio.run(code.keep(code.look(), [os.fspath(root)]))
    assert kept_sources(kept) == sources
    (root / "crew.yaml").write_text("one")
    (root / "helper.py").write_text("VALUE = 22")
    assert imported(kept, root, "helper")[0] == [1, os.fspath(root / "helper.py")]


@pytest.mark.parametrize("same_time", [True, False])
def test_what_was_edited_since_is_imported_as_it_was(scope: Path, same_time: bool) -> None:
    kept = keep(scope)
    for file in (scope / "helper.py", scope / "pack" / "deep.py", scope / "crew.yaml"):
        before = file.stat()
        file.write_text(file.read_text().replace("1", "2").replace("one", "two"))
        # An edit within the same second, of the same length: what Python's own compiled code cannot tell.
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + (1 if same_time else 5_000_000_000)))
    places = [str(scope / "plain.py"), str(scope / "pack" / "inner.py")]
    assert imported(kept, scope, "plain", "pack.inner") == [[1, places[0]], [1, places[1]], "one"]
    # What was compiled of it is not taken for what there is now, nor the other way round.
    assert imported(keep(scope), scope, "plain", "pack.inner") == [[2, places[0]], [2, places[1]], "two"]
    assert imported(kept, scope, "plain") == [[1, places[0]], "one"]


def test_the_folders_that_it_was_imported_from_are_kept_too(scope: Path) -> None:
    (scope.parent / "lib").mkdir()
    (scope.parent / "lib" / "far.py").write_text("VALUE = 5")
    code = ScopeCode([scope], scope.parent / "code")
    kept = asyncio.run(code.keep(code.look(), [str(scope), str(scope.parent / "lib")]))
    assert imported(kept, scope, "far") == [[5, str(scope.parent / "lib" / "far.py")], "one"]


def test_what_came_since_and_what_is_kept_nowhere_is_imported_as_it_is(scope: Path) -> None:
    kept = keep(scope)
    (scope / "new.py").write_text("VALUE = 3")
    assert imported(kept, scope, "new") == [[3, str(scope / "new.py")], "one"]
    (scope / "helper.py").write_text("VALUE = 20")
    assert imported(str(scope / "nothing"), scope, "plain") == [[20, str(scope / "plain.py")], "one"]
