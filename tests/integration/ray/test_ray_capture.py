"""What a flow prints becomes events, and stands nowhere else."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "canary-5f0c1b7e"


def files_with(folder: Path, text: str) -> list[str]:
    found = []
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base, name)
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path))
    return found


async def test_all_output_of_flow_children_and_ray_tasks_becomes_events(run):
    made = await run("prints", secret=CANARY)
    await made.end()
    assert made.texts("stdout") == [
        f"flow print {CANARY}",
        f"flow child {CANARY}",
        f"task print {CANARY}",
        f"task child {CANARY}",
        f"tail {CANARY}",
    ]
    assert made.texts("stderr") == [f"flow write {CANARY}", f"task write {CANARY}"]
    assert [event.data for event in made.events if event.event == "log"] == [
        {"level": "INFO", "logger": "my.logger", "text": f"flow log {CANARY}"}
    ]
    assert f"task progress {CANARY}" in made.texts("progress")
    assert made.events[-1].event == "final"


async def test_nothing_of_a_run_stands_in_rays_files_or_in_the_nodes_output(home, run, capfd):
    made = await run("prints", secret=CANARY)
    await made.end()
    failed = await run("fails", secret=CANARY)
    await failed.end()
    assert (home / "ray" / "sessions" / "session_latest").exists() or os.listdir(home / "ray" / "sessions")
    assert files_with(home, CANARY) == []
    printed = capfd.readouterr()
    assert CANARY not in printed.out + printed.err
    assert "Worker" not in printed.out + printed.err
