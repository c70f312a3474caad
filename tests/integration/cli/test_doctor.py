"""`koco doctor` finds what is wrong, and says what to do."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.koco import koco, koco_json


def test_a_fresh_home_is_well_and_a_key_that_others_may_read_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    [told] = koco_json(home, "doctor", "--no-lan")
    assert told["ok"] is True
    assert {"home", "disk", "clock", "port", "ray", "node"} <= {each["check"] for each in told["findings"]}
    koco_json(home, "id")
    (home / "user.key").chmod(0o644)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        variables = {"KODO_PORT": str(taken.getsockname()[1]), "KODO_HOST": "127.0.0.1"}
        variables |= {"KODO_REGISTRY": "http://127.0.0.1:9", "KODO_DISK_RESERVE": "1000TB"}
        done = koco(home, "doctor", "--no-lan", timeout=120, **variables)
    assert done.returncode == 1
    assert f"key: chmod 600 {home / 'user.key'}" in done.stdout
    for check in ("port: ", "registry: ", "disk: "):
        assert check in done.stdout, done.stdout
