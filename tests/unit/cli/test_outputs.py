"""Where what a run made may go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kodo.cli.outputs import fetch
from kodo.p2p.errors import UsageError

CONTEXT: Any = SimpleNamespace(interactive=False, json=True)


class Made:
    """A run that made files of these names, lists some at first and all later, and knows where they went."""

    fid = "0" * 26

    def __init__(self, *names: str):
        self.names = names
        self.went: list[Path] = []

        self.asked = 0

    async def outputs(self) -> list[dict[str, Any]]:
        self.asked += 1
        return [{"name": name} for name in self.names[: None if self.asked > 1 else 1]]

    async def download(self, directory: Path, *, names: Any, check: Any, **_: Any) -> list[Any]:
        self.asked += 1
        if check is not None:
            check([row["name"] for row in await self.outputs()])
        self.went.append(directory)
        return []


@pytest.mark.parametrize("name", [".bashrc", ".ssh/authorized_keys", "a/.git/hooks/post-checkout"])
async def test_hidden_files_go_nowhere_unless_it_is_said_where(name: str, tmp_path: Path) -> None:
    run: Any = Made("report.md", name)
    with pytest.raises(UsageError, match="hidden"):
        await fetch(CONTEXT, run, None, None, False)
    assert run.went == []
    await fetch(CONTEXT, run, tmp_path, None, False)
    await fetch(CONTEXT, run, None, [name], False)
    assert run.went == [tmp_path, Path()]


async def test_files_go_to_this_folder_by_default() -> None:
    run: Any = Made("report.md", "data/big.bin", "a.b/c")
    await fetch(CONTEXT, run, None, None, False)
    assert run.went == [Path()]
