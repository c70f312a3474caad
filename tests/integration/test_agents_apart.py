"""The tests of Pydantic AI, OpenAI Agents, LlamaIndex and Burr, in a virtual environment of their own."""

from pathlib import Path

import pytest

from scripts.silence import listen_to
from tests.support.apart import do, environment

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has them."""
    return environment("agents")


def test_agents_and_workflows_are_told_and_ask_by_locks_in_an_environment_that_has_them(python: Path):
    names = ["agents_of_libraries", "answers_of_agents", "burr_applications"]
    told = do(python, *PYTEST, *(f"tests/integration/{name}.py" for name in names), seconds=600)
    assert " passed" in told
    assert "skipped" not in told


def test_what_their_pages_show_works(python: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KODO_DOCS_ENVIRONMENT", "agents")
    told = do(python, *PYTEST, "tests/docs/test_pages.py", "-k", "shows_works", seconds=600)
    pages = [page for page in Path("docs").rglob("*.md") if "<!-- runs in: agents" in page.read_text()]
    assert f"{len(pages)} passed" in told, told


@pytest.mark.parametrize("name", ["burr", "llama-index-workflows", "openai-agents", "pydantic-ai"])
def test_they_say_nothing_to_anybody(python: Path, name: str):
    heard = listen_to(name, python)
    assert heard.answer == "all is well", heard.said
    assert (heard.calls, heard.left) == ([], [])
