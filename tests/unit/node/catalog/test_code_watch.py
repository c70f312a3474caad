"""What happens when the code of flows is edited while the node runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kodo.node.catalog.code_watch import CodeWatch
from kodo.node.catalog.scope import Scope
from kodo.node.catalog.scope_code import ScopeCode
from kodo.p2p.errors import UsageError
from tests.unit.node.conftest import StillClock


class Rig:
    """A scope of one file, and what was told."""

    def __init__(self, root: Path, clock: StillClock, caplog: pytest.LogCaptureFixture, *, reload: bool, keeps: bool):
        self.file = root / "a.py"
        self.file.write_text("x = 1")
        self.code = ScopeCode([root], None)
        self.seen = self.code.look()
        self.answers: list[list[str] | Exception] = []
        self.watch = CodeWatch(self.code, lambda: self.seen, clock, self._reload if reload else None, keeps=keeps)
        self._caplog = caplog

    async def _reload(self) -> list[str]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.seen = self.code.look()
        return answer

    async def told(self) -> list[str]:
        """Look once and return what was told."""
        self._caplog.clear()
        await self.watch.look()
        return [record.getMessage() for record in self._caplog.records]


async def test_without_reload_an_edit_is_told_once(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, clock, caplog, reload=False, keeps=True)
    assert await rig.told() == []
    rig.file.write_text("x = 20")
    [told] = await rig.told()
    assert told.startswith("a.py changed: runs go on with the code that the node started with; restart it")
    assert await rig.told() == []
    rig.file.write_text("x = 300")
    assert len(await rig.told()) == 1


async def test_where_no_code_is_kept_nothing_is_promised(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, clock, caplog, reload=False, keeps=False)
    rig.file.write_text("x = 20")
    [told] = await rig.told()
    assert told.startswith("a.py changed: restart the node: until then runs may take the new code")


async def test_with_reload_an_edit_is_taken_once(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, clock, caplog, reload=True, keeps=True)
    rig.answers = [[], ["it is broken"]]
    rig.file.write_text("x = 20")
    assert await rig.told() == ["a.py changed: new runs take the new code"]
    assert await rig.told() == []
    rig.file.write_text("x = 300")
    assert await rig.told() == ["a.py changed: it is broken"]
    assert (await rig.told(), rig.answers) == ([], [])


async def test_what_cannot_be_taken_is_told_and_tried_again_when_it_was_edited(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, clock, caplog, reload=True, keeps=True)
    rig.answers = [UsageError("the scope is no map"), []]
    rig.file.write_text("x = 20")
    assert await rig.told() == ["a.py changed, and the flows stay as they were: the scope is no map"]
    assert await rig.told() == []
    rig.file.write_text("x = 300")
    assert await rig.told() == ["a.py changed: new runs take the new code"]


async def test_whatever_goes_wrong_when_flows_are_described_anew_is_told_and_ends_nothing(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, clock, caplog, reload=True, keeps=True)
    rig.answers = [PermissionError(13, "Permission denied"), []]
    rig.file.write_text("x = 20")
    [told] = await rig.told()
    assert told.startswith("a.py changed, and the flows stay as they were: PermissionError: [Errno 13]")
    rig.file.write_text("x = 300")
    assert await rig.told() == ["a.py changed: new runs take the new code"]


async def test_sources_that_cannot_be_looked_at_are_told_once_and_end_nothing(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ScopeCode):
        def look(self) -> dict[str, tuple[int, int]]:
            raise RuntimeError("nobody thought of this")

    rig = Rig(tmp_path, clock, caplog, reload=True, keeps=True)
    rig.watch = CodeWatch(Broken([tmp_path], None), lambda: rig.seen, clock, rig._reload)
    [told] = await rig.told()
    assert told.endswith("the flows stay as they were: RuntimeError: nobody thought of this")
    assert await rig.told() == []


async def test_without_reload_variables_that_change_are_told_as_they_are_read(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, clock, caplog, reload=False, keeps=True)
    rig.code.watch([tmp_path], [tmp_path / ".env"])
    rig.file.write_text("x = 20")
    (tmp_path / ".env").write_text("A=1")
    code, variables = await rig.told()
    assert code.startswith("a.py changed: runs go on with the code that the node started with")
    assert variables.startswith(".env changed: runs in processes that are ready have the variables of before")


@pytest.mark.parametrize("env", ["a" * 300, ".env\0", "\ud800.env"])
async def test_an_env_that_cannot_be_looked_at_ends_nothing(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture, env: str
) -> None:
    with pytest.raises((OSError, ValueError)):
        os.stat(tmp_path / env)
    said = tmp_path / "langgraph.json"
    said.write_text(json.dumps({"graphs": {"a": "./a.py:graph"}, "env": env}))
    rig = Rig(tmp_path, clock, caplog, reload=True, keeps=True)
    beside = Scope(flows=[said.name]).files_beside(tmp_path)
    assert beside[0] == said
    assert caplog.text == ""  # it may be there: describing says what is wrong
    rig.code.watch([tmp_path], beside)
    assert {os.path.basename(path) for path in rig.code.look()} == {"a.py", said.name}
    rig.answers = [[]]
    assert await rig.told() == [f"{said.name} changed: new runs take the new code"]
