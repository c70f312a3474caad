"""The tests of crews, in a virtual environment of their own where crewAI is not installed in this one."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from scripts.locks import install_commands, is_newest_wanted, path_of
from scripts.silence import listen_to

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / (".venv-crewai-unlocked" if is_newest_wanted() else ".venv-crewai")
TESTS = "tests/integration/ray/test_ray_crewai.py"
INSTALL_SECONDS = 1200


def do(*command: str | Path, seconds: float = INSTALL_SECONDS) -> str:
    """Run a command in the repository; gives what it printed, which is the failure when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout


INSTALLED = importlib.util.find_spec("crewai") is not None


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has crewAI."""
    if INSTALLED:
        return Path(sys.executable)
    made = VENV / "bin" / "python"
    sources = (ROOT / "pyproject.toml").read_bytes() + path_of("crewai").read_bytes()
    wanted = hashlib.sha256(sources + sys.version.encode()).hexdigest()
    stamp = VENV / ".kodo"
    if is_newest_wanted() or not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(VENV, with_pip=True, clear=True)
        for command in install_commands(made, "crewai", newest=is_newest_wanted()):
            do(*command)
        stamp.write_text(wanted)
    return made


@pytest.mark.skipif(INSTALLED, reason=f"{TESTS} runs in this environment")
def test_crews_become_flows_in_an_environment_that_has_crewai(python: Path):
    told = do(python, "-m", "pytest", "-q", TESTS, seconds=300)
    assert " passed" in told
    assert "skipped" not in told


def test_a_crew_says_nothing_to_anybody_and_leaves_nothing_of_its_run_in_the_home(python: Path):
    heard = listen_to("crewai", python)
    assert heard.answer == "all is well", heard.said
    assert heard.calls == []
    # A key for its maker's cloud is made when it is imported.
    assert [path for path in heard.left if "credentials" not in path] == []
