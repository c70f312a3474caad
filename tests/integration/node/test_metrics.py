"""A node and a registry that serve metrics: health at its start and end, and all that the dashboard shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp

from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.registry.server import Registry, RegistryConfig

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana-dashboard.json"
_NAME = re.compile(r"\b(?:kodo|process|python)_[a-z0-9_]+")


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return answer.status, await answer.text()


def named_by(dashboard: dict[str, object]) -> set[str]:
    """The metrics that queries of a dashboard name."""
    panels = dashboard["panels"]
    assert isinstance(panels, list)
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    queries += [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]  # type: ignore[index]
    return {name for query in queries for name in _NAME.findall(query)}


async def test_every_metric_of_the_dashboard_exists(tmp_path: Path) -> None:
    registry = RegistryConfig(home=tmp_path / "registry", port=0, metrics="127.0.0.1:0")
    registry.home.mkdir(mode=0o700)
    async with Registry(registry) as listed:
        config = NodeConfig(
            home=tmp_path / "node", executor="process", lan=False, host=("127.0.0.1",), runners=0,
            registry=(listed.url,), metrics="127.0.0.1:0", quota_bytes=1 << 30,
        )  # fmt: skip
        async with Node(config) as node:
            assert node.monitor is not None
            assert listed.monitor is not None
            url = node.monitor.url
            assert await get(f"{url}/healthz") == (200, '{"status": "ok"}')
            assert (await get(f"{listed.url}/nodes"))[0] == 200
            assert (await get(f"{listed.url}/zanzibar"))[0] == 404
            texts = [(await get(f"{each}/metrics"))[1] for each in (url, listed.monitor.url)]
            await get(f"{listed.monitor.url}/metrics")
            told = "\n".join(texts)
    declared = {line.split()[2] for line in told.splitlines() if line.startswith("# TYPE")}
    known = {name + end for name in declared for end in ("", "_total", "_bucket", "_count", "_sum")}
    named = named_by(json.loads(DASHBOARD.read_text()))
    assert len(named) > 15
    assert named <= known, named - known
    assert "zanzibar" not in told
    own = {name for name in declared if name.startswith("kodo_") and not name.endswith("_created")}
    shown = {name for name in own if any(each.startswith(name.removesuffix("_total")) for each in named)}
    assert own - shown <= {"kodo_registry_info"}, "what nobody is shown need not be told"
