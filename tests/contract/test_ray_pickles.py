"""Where Ray reads pickles: `kodo.node.executors.ray.guard` stands in each place that a node's process comes to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

GUARDED = {"_private/serialization.py", "exceptions.py", "_private/function_manager.py"}
ELSEWHERE = {
    "_private/runtime_env/setup_hook.py": "in workers",
    "_private/worker.py": "the configuration of this process's own job",
    "cloudpickle/cloudpickle.py": "what the others call",
}
LIBRARIES = "autoscaler|air|collective|dag|dashboard|data|experimental|llm|rllib|serve|tests|train|tune|util|workflow"
"""Parts of Ray that a node does not use."""


def test_ray_reads_pickles_where_it_is_known_to() -> None:
    root = Path(str(ray.__file__)).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not re.match(rf"({LIBRARIES})/", path.relative_to(root).as_posix())
        and re.search(r"pickle\.loads?\(|pickle\.loads?$", path.read_text(encoding="utf-8", errors="replace"), re.M)
    }
    assert found == GUARDED | set(ELSEWHERE)


def test_each_of_them_is_guarded() -> None:
    script = """
import importlib, pickle
from kodo.node.executors.ray import guard
guard.guard()
guard.guard()
for name in guard._READERS:
    module = importlib.import_module(name)
    assert module.pickle.loads is guard.loads, name
    assert module.pickle.loads(module.pickle.dumps({"a": 1})) == {"a": 1}
    assert issubclass(module.pickle.pickle.PicklingError, Exception)
print(sorted(guard._READERS))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    expected = sorted("ray." + name.removesuffix(".py").replace("/", ".") for name in GUARDED)
    assert done.stdout.strip() == str(expected)
