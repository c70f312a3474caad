"""The tests of crews, in a virtual environment of their own where crewAI is not installed in this one."""

import importlib.util
import sys
from pathlib import Path

import pytest

from kodo.node.executors.runner.telemetry import TELEMETRY_OFF
from scripts.silence import listen_to
from tests.support.apart import do, environment

TESTS = "tests/integration/ray/test_ray_crewai.py"
IN_ONE_PROCESS = ["tests/integration/crews_that_are_told.py", "tests/integration/crews_that_remember.py"]

INSTALLED = importlib.util.find_spec("crewai") is not None


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has crewAI."""
    if INSTALLED:
        return Path(sys.executable)
    return environment("crewai")


def test_crews_and_agents_are_told_ask_by_locks_and_remember_over_runs(python: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {**TELEMETRY_OFF, "OPENAI_API_KEY": "sk-of-nobody"}.items():
        monkeypatch.setenv(name, value)
    # crewAI warns of itself when it is imported.
    told = do(python, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", *IN_ONE_PROCESS, seconds=600)
    assert " passed" in told
    assert "skipped" not in told


def test_a_crew_says_nothing_to_anybody_and_leaves_nothing_of_its_run_in_the_home(python: Path):
    heard = listen_to("crewai", python)
    assert heard.answer == "all is well", heard.said
    assert heard.calls == []
    # A key for its maker's cloud is made when it is imported.
    assert [path for path in heard.left if "credentials" not in path] == []


def test_a_new_project_with_a_crew_passes_its_test(python: Path, tmp_path: Path):
    folder = tmp_path / "pages"
    do(python, "-c", "from kodo.cli.main import main; main()", "new", folder, "--crew")
    assert "1 passed" in do(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder)


def test_what_its_page_shows_works(python: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KODO_DOCS_ENVIRONMENT", "crewai")
    told = do(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/docs/test_pages.py", "-k", "shows_works")
    assert "1 passed" in told, told


@pytest.mark.skipif(INSTALLED, reason=f"{TESTS} runs in this environment")
def test_crews_become_flows_in_an_environment_that_has_crewai(python: Path):
    told = do(python, "-m", "pytest", "-q", TESTS, seconds=600)
    assert " passed" in told
    assert "skipped" not in told
