"""What travels to a joined cluster: what is imported, what is declared, never a secret, never without bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.node.executors.ray import package as package_module
from kodo.node.executors.ray.package import Package, gather, stage
from kodo.p2p.errors import CapacityError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "scope"
    made.mkdir()
    return made


def put(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(root: Path, *entries: str, declared: tuple[str, ...] = ()) -> list[str]:
    found = gather([root], entries or ["main:start"], declared, not_in=root / "home")
    return sorted(name for _, name in found.files)


def test_what_is_imported_travels_and_what_lies_beside_it_does_not(root: Path) -> None:
    put(root, "main.py", "import json\nimport helper\n\ndef start():\n    from late import x\n")
    put(root, "helper.py", "import third\n")
    put(root, "third.py")
    put(root, "late.py")
    put(root, "unused.py")
    put(root, "ray/session_1/logs/raylet.out", "x" * 1000)
    put(root, "outputs/report.pdf")
    assert names(root) == ["helper.py", "late.py", "main.py", "third.py"]


def test_a_package_travels_with_its_data_and_what_it_imports(root: Path) -> None:
    put(root, "main.py", "from pack.deep import a")
    put(root, "pack/__init__.py")
    put(root, "pack/deep/a.py", "from . import b\nimport other")
    put(root, "pack/deep/b.py")
    put(root, "pack/config/agents.yaml")
    put(root, "other/x.py")
    for left_out in ("__pycache__/a.pyc", ".git/config", "node_modules/x.js", "venv/pyvenv.cfg", "venv/lib/x.py"):
        put(root, f"pack/{left_out}")
    put(root, "pack/old.pyc")
    assert names(root) == [
        "main.py",
        "other/x.py",
        "pack/__init__.py",
        "pack/config/agents.yaml",
        "pack/deep/a.py",
        "pack/deep/b.py",
    ]


def test_a_yaml_flow_travels_with_what_it_names(root: Path) -> None:
    put(root, "flows/one.yaml", "entry: main:start")
    put(root, "main.py")
    assert names(root, "flows/one.yaml") == ["flows/one.yaml", "main.py"]


def test_gitignore_says_nothing_about_what_travels(root: Path) -> None:
    put(root, ".gitignore", "*.py\n")
    put(root, "main.py")
    assert names(root) == ["main.py"]


def test_declared_files_travel_folders_whole(root: Path) -> None:
    put(root, "main.py")
    for name in ("prompts/a.md", "prompts/b.txt", "data/x/y.json", "tools/dynamic.py", "far.py"):
        put(root, name, "import far" if name.endswith("dynamic.py") else "")
    declared = ("prompts/*.md", "data", "tools/*.py")
    assert names(root, declared=declared) == [
        "data/x/y.json",
        "far.py",
        "main.py",
        "prompts/a.md",
        "tools/dynamic.py",
    ]


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "a/../../x", "~/x", "nothing/*"])
def test_a_pattern_that_leads_elsewhere_or_to_nothing_is_refused(root: Path, pattern: str) -> None:
    put(root, "main.py")
    with pytest.raises(UsageError):
        names(root, declared=(pattern,))


@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.local", "prod.env", "server.key", "cert.pem", "id_ed25519", "id_rsa.pub", ".netrc", "kodo.toml",
        "credentials.json", "secrets.yaml", "SERVER.KEY", "token",
    ],
)  # fmt: skip
def test_a_secret_never_travels_declared_or_in_a_package(root: Path, name: str) -> None:
    put(root, "main.py", "import pack")
    put(root, "pack/__init__.py")
    put(root, f"pack/{name}", "hunter2")
    put(root, name, "hunter2")
    put(root, ".dotted")
    found = gather([root], ["main:start"], ["*", ".*"], not_in=root / "home")
    travels = {path for _, path in found.files}
    assert travels == {"main.py", "pack/__init__.py", ".dotted"}
    assert set(found.kept_back) == {name, f"pack/{name}"}


def test_nothing_of_the_nodes_home_travels(root: Path) -> None:
    put(root, "main.py", "import pack")
    put(root, "pack/__init__.py")
    put(root, "pack/home/node.db")
    found = gather([root], ["main:start"], not_in=root / "pack" / "home")
    assert {path for _, path in found.files} == {"main.py", "pack/__init__.py"}


def test_a_link_out_of_the_folder_is_kept_back(root: Path, tmp_path: Path) -> None:
    put(root, "main.py", "import pack")
    put(tmp_path, "outside.txt", "hunter2")
    put(root, "pack/__init__.py")
    (root / "pack" / "link.txt").symlink_to(tmp_path / "outside.txt")
    found = gather([root], ["main:start"], not_in=root / "home")
    assert found.kept_back == ["pack/link.txt"]


@pytest.mark.parametrize(("bound", "value"), [("MAX_PACKAGE_FILES", 3), ("MAX_PACKAGE_BYTES", 100)])
def test_too_much_is_refused_and_says_where_it_lies(
    root: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(package_module, bound, value)
    put(root, "main.py", "import pack")
    for number in range(3):
        put(root, f"pack/data/{number}.bin", "x" * 50)
    with pytest.raises(CapacityError, match="pack/data"):
        names(root)


@pytest.mark.parametrize("text", ["def broken(:", "import \x00", "\xff"])
def test_a_source_that_cannot_be_read_travels_as_it_is(root: Path, text: str) -> None:
    put(root, "main.py", text)
    assert names(root) == ["main.py"]


def test_the_copies_are_below_a_folder_for_each_root_and_are_made_anew(root: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    put(root, "main.py", "import more")
    put(second, "more.py")
    found = gather([root, second], ["main:start"], not_in=tmp_path / "home")
    put(tmp_path, "sent/kodo_scope_0/stale.py")
    places = stage(found, [root, second], tmp_path / "sent")
    assert [sorted(path.name for path in place.rglob("*")) for place in places] == [["main.py"], ["more.py"]]
    assert isinstance(found, Package)


def test_sources_travel_as_they_were_when_the_flows_were_described(root: Path, tmp_path: Path) -> None:
    put(root, "main.py", "import old")
    put(root, "old.py")
    put(root, "new.py")
    kept = {str(root / "main.py"): b"import old"}
    put(root, "main.py", "import new")
    found = gather([root], ["main:start"], not_in=tmp_path / "home", kept=kept)
    [place] = stage(found, [root], tmp_path / "sent", kept)
    assert {path.name: path.read_text() for path in place.iterdir()} == {"main.py": "import old", "old.py": ""}
