"""A clone installs tomorrow what it installs today: the lock files, and that nothing is installed beside them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.locks import LOCKS, install_commands, path_of, requirements
from scripts.pythons import promised

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(LOCKS)

INSTALLING = {
    "scripts/check_dist.py": "what a user gets, who has no lock",
    "scripts/locks.py": "from the locks, or, when asked to, the newest",
    "scripts/silence.py": "the newest of each framework, to hear what it does now",
}
"""What may call pip, and what it installs."""


def pinned(name: str) -> list[Requirement]:
    """Each package of a lock file, without its hashes."""
    text = path_of(name).read_text(encoding="utf-8")
    return [Requirement(line.removesuffix("\\")) for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def chosen(name: str, python: str) -> dict[str, str]:
    """Each package's version, as a lock file says for this Python on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    taken = [one for one in pinned(name) if one.marker is None or one.marker.evaluate(environment)]
    versions = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in taken}
    assert len(versions) == len(taken), "two versions of one package"
    return versions


@pytest.mark.parametrize("python", promised())
@pytest.mark.parametrize("name", NAMES)
def test_a_lock_has_all_that_is_required(name: str, python: str) -> None:
    versions = chosen(name, python)
    wanted = [Requirement(text) for text in requirements(name)]
    unmet = [str(one) for one in wanted if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"))]
    assert unmet == [], "scripts/lock writes the lock files anew"


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_names_one_version_and_its_hashes_of_each_package(name: str) -> None:
    for entry in re.split(r"\n(?=[A-Za-z0-9])", path_of(name).read_text(encoding="utf-8"))[1:]:
        assert re.match(r"[A-Za-z0-9._\[\],-]+==[^\s*]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_names_no_registry_and_no_place(name: str) -> None:
    lines = path_of(name).read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not re.fullmatch(r"#.*|[\w.\[\],-]+==.*|    --hash=sha256:\w+( \\)?", line)]
    assert strange == []
    assert [line for line in lines if re.search(r"://|@|(?<!scripts)/|index-url|find-links", line)] == []


@pytest.mark.parametrize("python", promised())
def test_a_run_has_the_versions_that_were_tested(python: str) -> None:
    assert chosen("run", python).items() <= chosen("test", python).items()


@pytest.mark.parametrize("installer", [None, Path("uv")], ids=["pip", "uv"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_locked_is_installed_by_its_hashes_and_by_nothing_else(name: str, installer: Path | None) -> None:
    for command in install_commands("python", name, newest=False, installer=installer):
        assert "python" in command
        assert {"--require-hashes", "--no-index"} & set(command)


def test_nothing_is_installed_beside_the_locks() -> None:
    sources = [ROOT / ".ci" / "run", *(path for path in (ROOT / "scripts").rglob("*") if path.suffix in ("", ".py"))]
    calls = re.compile(r"""pip["']?,? ["']?install["' ]|bin" / "pip\"""")
    found = [path for path in sources if path.is_file() and calls.search(path.read_text(encoding="utf-8"))]
    assert {path.relative_to(ROOT).as_posix() for path in found} == set(INSTALLING)


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up, with an empty environment, which writes down what it installs."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.delenv("KODO_NEWEST", raising=False)
    import bootstrap

    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap, "path_of", lambda name: tmp_path / f"{name}.lock")
    for name in LOCKS:
        (tmp_path / f"{name}.lock").write_text("")
    bootstrap.installed = []
    monkeypatch.setattr(bootstrap, "do", lambda command, what, **_: bootstrap.installed.append(what))
    return bootstrap


def test_what_is_installed_is_left_alone(bootstrap: ModuleType) -> None:
    bootstrap.install_packages("test")
    bootstrap.installed.clear()
    bootstrap.install_packages("test")
    bootstrap.install_packages("run")
    assert bootstrap.installed == []


def test_processes_of_the_tests_find_kodo_compiled(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"],
        env=bootstrap.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_changed_lock_is_installed(bootstrap: ModuleType, tmp_path: Path) -> None:
    bootstrap.install_packages("test")
    (tmp_path / "test.lock").write_text("one==2")
    bootstrap.installed.clear()
    bootstrap.install_packages("test")
    assert bootstrap.installed


def test_a_run_installs_not_what_the_tests_need(bootstrap: ModuleType) -> None:
    bootstrap.install_packages("run")
    bootstrap.installed.clear()
    bootstrap.install_packages("test")
    assert bootstrap.installed


def test_the_newest_are_installed_each_time(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODO_NEWEST", "1")
    bootstrap.install_packages("test")
    bootstrap.installed.clear()
    bootstrap.install_packages("test")
    assert bootstrap.installed
