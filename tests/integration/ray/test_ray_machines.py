"""Two machines of a joined cluster: one is cut off and comes back, is killed, and the head is restarted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[3]


def test_a_lost_machine_is_told_with_its_name_and_a_restarted_head_is_joined_again() -> None:
    if os.geteuid() != 0 or not sys.platform.startswith("linux") or not shutil.which("nsenter"):
        pytest.skip("two machines are two network namespaces, which takes root on Linux")
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-m", "tests.integration.ray.cut_cluster"],
        cwd=HERE,
        # Tests before this one have told Ray in this process to stay on one machine.
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    lost = "the machine gpu-3 (10.79.0.2), which ran the flow, does not answer any more"
    assert seen["refused"] == "no machine of the Ray cluster has 3 GPU (the most that one has is 0)"
    assert seen["travelled"] == ["cut_flows.py"]
    assert (seen["lost"], seen["crashed"]) == (lost, lost)
    assert seen["left"]
    assert seen["cleared"]
    assert seen["again"] == "well"
    assert "before" not in seen
    assert f"{lost.partition(',')[0]} does not answer any more; runs that are lost with it: 1" in done.stderr
