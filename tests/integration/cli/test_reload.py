"""Code that is edited while its node runs: with `koco up --reload` and without."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.client.sync import Client, Run
from kodo.p2p.errors import CallError, UsageError
from tests.support.koco import NodeProcess, end_all, eventually

MADE_BY = 'author="test@example.com", organization="Test", release="1"'

SAYS = f"""
from kodo.flow import flow, lock

VERSION = 1

@flow(name="Says", {MADE_BY})
def says(word: str = "") -> str:
    '''Say which code it is.'''
    if word:
        lock("Go on?", bool)
    import later
    return f"{{VERSION}} {{later.VALUE}}"
"""

OTHER = f"""
from kodo.flow import flow

@flow(name="Other", {MADE_BY})
def other() -> int:
    '''Be beside.'''
    return 1
"""


class Scope:
    """A scope whose files are edited, and its node."""

    def __init__(self, folder: Path, *words: str):
        self.folder = folder
        (folder / "says.py").write_text(SAYS)
        (folder / "later.py").write_text("VALUE = 1")
        (folder / "other.py").write_text(OTHER)
        self.scope = folder / "scope.yaml"
        self.scope.write_text("name: reload.example\nflows: [says, other]\n")
        scope = self.scope

        class Node(NodeProcess):
            pass

        Node.scope = scope
        self.node = Node(folder / "home", "--executor", "process", *words)
        self.client = Client(folder / "home", lan=False)

    def run(self, flow: str = "says.says", **inputs: Any) -> Run:
        return self.client.launch(f"{self.node.address}/{flow}", inputs=inputs)

    def result(self, flow: str = "says.says", **inputs: Any) -> Any:
        run = self.run(flow, **inputs)
        run.wait()
        return run.state()["final"]["result"]

    def edit(self) -> None:
        """Edit code, form, and a module that the flow imports when it runs."""
        text = (self.folder / "says.py").read_text()
        new = text.replace("VERSION = 1", "VERSION = 2").replace(
            'word: str = ""', 'word: str = "", mood: str = "calm"'
        )
        (self.folder / "later.py").write_text("VALUE = 2")
        (self.folder / "says.py").write_text(new)

    def told(self, text: str) -> None:
        eventually(lambda: any(text in line for line in self.node.stderr))


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="kc-"))
    yield made
    end_all(made / "home")
    shutil.rmtree(made, ignore_errors=True)


def test_edited_code_is_offered_with_its_form_and_what_has_begun_keeps_its_own(folder: Path) -> None:
    scope = Scope(folder, "--reload")
    with scope.client:
        begun = scope.run(word="wait")
        [lock] = eventually(lambda: begun.state()["locks"])
        scope.edit()
        scope.told("says.py")
        assert eventually(lambda: "mood" in str(scope.client.show(f"{scope.node.address}/says.says")["schema"]))
        assert scope.result(mood="glad") == "2 2"
        begun.answer(lock["lid"], True)
        begun.wait()
        assert begun.state()["final"]["result"] == "1 1"
        (folder / "says.py").write_text("def (")
        scope.told("SyntaxError")
        scope.told("the last good version of Says stays offered")
        assert scope.result(mood="glad") == "2 2"
        (folder / "new.py").write_text(OTHER.replace("other", "new").replace("Other", "New"))
        scope.scope.write_text("name: reload.example\nflows: [says, new]\n")
        assert eventually(
            lambda: {flow["name"] for flow in scope.client.flows(node=scope.node.address)} == {"Says", "New"}
        )
        assert scope.result("new.new") == 1
        # Folders to import from are named anew, and what is edited there is noticed.
        (folder / ".lib").mkdir()
        far = OTHER.replace("other", "far").replace("Other", "Far")
        (folder / ".lib" / "far.py").write_text(far)
        scope.scope.write_text("name: reload.example\nflows: [says, far]\nroots: [.lib]\n")
        assert eventually(lambda: "Far" in {flow["name"] for flow in scope.client.flows(node=scope.node.address)})
        assert scope.result("far.far") == 1
        (folder / ".lib" / "far.py").write_text(far.replace("return 1", "return 22"))
        scope.told("far.py changed: ")
        assert scope.result("far.far") == 22
    assert scope.node.stop() == 0


def test_without_reload_edited_code_is_told_once_and_left(folder: Path) -> None:
    scope = Scope(folder)
    with scope.client:
        scope.edit()
        scope.told("changed: runs go on with the code that the node started with")
        assert [scope.result() for _ in range(3)] == ["1 1"] * 3
        with pytest.raises((CallError, UsageError), match="mood"):
            scope.run(mood="glad")
    assert scope.node.stop() == 0
    assert len([line for line in scope.node.stderr if "changed" in line]) == 1
