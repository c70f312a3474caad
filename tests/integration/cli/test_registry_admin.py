"""A registry as its operator uses it: `koco registry` in a process of its own."""

import contextlib
import json
import os
import shlex
import subprocess
import time

import pytest

from kodo.registry.client.client import RegistryClient
from tests.support.koco import KOCO, environment, koco_json
from tests.support.records import flow, identity, signed_record

NAME = "flows.example.com"


@contextlib.contextmanager
def running(home, stderr):
    process = subprocess.Popen(
        [KOCO, "registry", "--port", "0", "--closed", "--json"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=stderr,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        assert process.wait(20) == 0
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    home = tmp_path_factory.mktemp("registry")
    ours, its = os.openpty()
    with open(ours) as terminal, open(its, "w") as stderr, running(home, stderr) as (_, url):
        # The hint with the code is the first thing said.
        yield home, url, terminal.readline().split("and enter ")[1].strip()


def test_the_first_code_stands_in_no_log(tmp_path):
    """Whoever has it becomes an operator, and many read the logs of services and containers."""
    with running(tmp_path, subprocess.PIPE) as (process, _):
        _, hint = process.stderr.readline().split("make a code in its home: koco ")
        [made] = koco_json(tmp_path, *shlex.split(hint))
        process.terminate()
        assert "enter" not in process.stderr.read()
    assert made["code"]


async def test_an_operator_curates_what_is_listed(registry, tmp_path):
    home, url, code = registry
    at = ("--registry", url)
    (refused,) = koco_json(tmp_path, "register", NAME, *at, exit_code=4)
    assert refused["error"]["reason"] == "operator-only"
    koco_json(tmp_path, "operator", "--enrol", code, *at)
    koco_json(tmp_path, "register", NAME, *at)
    async with RegistryClient(url) as client:
        await client.up(signed_record(identity(), flow(), issued_at=time.time_ns() // 1_000_000))
    (words,) = koco_json(home, "annotate", f"{NAME}/{flow().path}", "tags=good,checked", *at)
    assert words["words"] == {"tags": ["good", "checked"]}
    (row,) = koco_json(tmp_path, "flows", "--no-lan", "--query", '"checked" in tags', *at)
    assert row["path"] == flow().path
    koco_json(home, "annotate", NAME, "hidden=true", *at)
    assert koco_json(tmp_path, "flows", "--no-lan", *at) == []
    (gone,) = koco_json(tmp_path, "unregister", NAME, *at)
    assert gone["removed"] == [str(identity().peer_id)]
    koco_json(tmp_path, "unregister", NAME, *at, exit_code=3)
    assert next(line["what"] for line in koco_json(home, "audit", *at)) == "unregister"
    assert len(koco_json(home, "operator", *at)) == 2
    (added,) = koco_json(home, "mesh", "add", "http://127.0.0.1:9", *at)
    assert koco_json(home, "mesh", "list", *at) == [added]
    koco_json(home, "mesh", "remove", "http://127.0.0.1:9", *at)
    assert koco_json(home, "stale", *at) == []
    koco_json(home, "annotate", NAME, "hidden=perhaps", *at, exit_code=2)
