"""The API's description against the API itself."""

import asyncio
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from openapi_spec_validator import validate

from kodo.registry.http.openapi import OPERATIONS
from tests.support.records import flow, signed_record

ROOT = Path(__file__).parents[3]
HOOKS = "tests.support.schemathesis_hooks"


async def test_it_describes_each_method_of_each_path(http):
    methods = defaultdict(set)
    for each in OPERATIONS:
        methods[each.path] |= {each.method.upper()} | ({"HEAD"} if each.method == "get" else set())
    for path, described in methods.items():
        async with http.request("PATCH", path.replace("{peer_id}", "x").replace("{op}", "auth.info")) as response:
            assert response.status == 405
            assert set(response.headers["Allow"].split(", ")) == described, path


def test_the_reference_and_the_document_name_the_same_calls():
    page_text = (ROOT / "docs" / "reference" / "registry.md").read_text()
    named = set(re.findall(r"`(GET|PUT|POST|DELETE) (/[a-z_/{}.]*)[?`]", page_text))
    page = {("GET", "/"), ("POST", "/api/issuer"), ("POST", "/api/issuer/token")}  # for people: no calls of programs
    assert named - page == {(each.method.upper(), each.path) for each in OPERATIONS}


async def test_it_is_valid_openapi(http):
    async with http.get("/openapi.json") as response:
        body = await response.json()
    assert body["openapi"].startswith("3.1")
    validate(body)
    gone = body["paths"]["/rendezvous/{peer_id}"]["post"]
    assert gone["deprecated"]
    assert "410" in gone["responses"]
    assert "200" not in gone["responses"]
    assert set(body["components"]["schemas"]["TurnAnswer"]["required"]) == {
        *("urls", "username", "credential", "expires_at"),
    }


async def test_schemathesis_finds_nothing(tmp_path, client, registry):
    await client.up(signed_record(None, flow()))
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        registry.url + "/openapi.json",
        "--max-examples=4",
        "--seed=20261122",
        "--phases=examples,coverage,fuzzing",
        # Schemas say that a body is bytes; that they are signed is more than a schema can say.
        "--exclude-checks=positive_data_acceptance",
        # It waits for news, and for WebSockets, as long as it is told to.
        "--exclude-path-regex=^/(records|rendezvous)$",
        "--no-color",
    ]
    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=hooks, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, output.decode()[-6000:]
