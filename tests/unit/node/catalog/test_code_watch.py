"""What happens when the code of flows is edited while the node runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.node.catalog.code_watch import CodeWatch
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
        self.answers: list[list[str] | UsageError] = []
        self.watch = CodeWatch(self.code, lambda: self.seen, clock, self._reload if reload else None, keeps=keeps)
        self._caplog = caplog

    async def _reload(self) -> list[str]:
        answer = self.answers.pop(0)
        if isinstance(answer, UsageError):
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
