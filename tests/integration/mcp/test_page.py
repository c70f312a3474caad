"""What no form may ask is answered on the page of `koco web`, where the user's browser is the same user."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult

from tests.integration.mcp.conftest import REVISIONS, BridgeNode, bridge, started, text_of
from tests.support.koco import KOCO, environment, koco, koco_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BridgeNode, Path, str]]:
    """A node with accounts, the home of a user who logged in there, and the origin of her page."""
    folder = tmp_path_factory.mktemp("page")
    ana = folder / "ana"
    with started(folder / "home", "--auth", "local") as node:
        [me] = koco_json(ana, "id")
        koco_json(node.home, "user", "add", "ana", "--no-lan")
        koco_json(node.home, "user", "grant", "ana", "node://*", "flow://*/2/x", "--no-lan")
        [made] = koco_json(node.home, "user", "enrol", "ana", me["user_peer_id"], "--no-lan")
        koco_json(ana, "login", "--node", node.address, "--code", made["code"], "--no-lan")
        words = [KOCO, "web", "--port", "0", "--no-browser", "--no-lan", "--json"]
        with subprocess.Popen(words, env=environment(ana), stdout=subprocess.PIPE, text=True) as page:
            assert page.stdout is not None
            url = json.loads(page.stdout.readline())["url"]
            try:
                yield node, ana, url.partition("/#")[0]
            finally:
                page.terminate()


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_secret_is_asked_for_at_the_page(
    place: tuple[BridgeNode, Path, str], mode: str, tmp_path: Path
) -> None:
    node, ana, origin = place
    asked: list[Any] = []

    async def open_page(context: Any, params: Any) -> ElicitResult:
        asked.append(params)
        return ElicitResult(action="accept")

    options: dict[str, Any] = {"mode": mode, "tmp": tmp_path, "elicitation_callback": open_page}
    async with bridge(ana, "--node", node.address, **options) as here:
        names = [tool.name for tool in (await here.client.list_tools()).tools]
        [name] = [name for name in names if name.endswith("ask_deeply")]
        call = asyncio.create_task(here.client.call_tool(name, {"kind": "secret"}))
        while not asked:
            await asyncio.sleep(0.1)
            assert not call.done(), text_of(call.result())
        [params] = asked
        peer = node.ready["peer_id"]
        assert params.url.startswith(f"{origin}/#/run/{peer}/")
        assert getattr(params, "requested_schema", None) is None
        fid, _, lid = params.url.rpartition("/")[2].partition("?lock=")
        (tmp_path / "answer.json").write_text('{"password": "hush"}')
        words = ("answer", fid, lid, "--node", node.address, "--inputs", str(tmp_path / "answer.json"), "--no-lan")
        answered = await asyncio.to_thread(koco, ana, *words)
        assert answered.returncode == 0, answered.stderr
        done = await asyncio.wait_for(call, 60)
        assert done.structured_content["result"] == "got Secret"
        assert len(asked) == 1
