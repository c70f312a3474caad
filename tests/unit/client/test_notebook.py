"""A run in a real notebook kernel: its cell shows it, and shows it anew, escaped, until it is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[3]
LONG_S = 120

PREPARE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.support.world import FID, World, event
world = World()
await world.host.__aenter__()
await world.host.listen(["10.0.0.1"], 4711)
world.claim("n.example")
world.service.events = [event(1, "progress", percent=40, text="<b>half</b>"), event(2, "final", result="<script>")]
client = await world.client({{home!r}}).__aenter__()
run = await client.run(FID, node="n.example")
"""


THREAD = """
import threading
from kodo.client.notebook import open_cell
drawing = threading.Thread(target=open_cell(run))
drawing.start()
drawing.join()
"""
"""The library without async has its loop in a thread of its own."""


def cell_of(kernel: Any, code: str) -> list[tuple[str, dict[str, Any]]]:
    """Run a cell; return the messages that show something."""
    seen: list[tuple[str, dict[str, Any]]] = []
    reply = kernel.execute_interactive(
        code, timeout=LONG_S, output_hook=lambda message: seen.append((message["msg_type"], message["content"]))
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    return [each for each in seen if "data" in each[1]]


def test_a_cell_shows_a_run_as_it_is_until_it_is_over(tmp_path: Path) -> None:
    manager, kernel = jupyter_client.manager.start_new_kernel(startup_timeout=LONG_S)
    try:
        cell_of(kernel, PREPARE.format(home=str(tmp_path)))
        shown = cell_of(kernel, "view = await run.show()\nassert view.final")
        from_thread = cell_of(kernel, THREAD)
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    assert (shown[0][0], {kind for kind, _ in shown[1:]}) == ("display_data", {"update_display_data"})
    assert len({content["transient"]["display_id"] for _, content in shown}) == 1
    first, last = (content["data"]["text/html"] for _, content in (shown[0], shown[-1]))
    assert "not followed yet" in first
    assert "&lt;script&gt;" in last
    assert "<script>" not in last
    assert [kind for kind, _ in from_thread] == ["display_data", "update_display_data"]
