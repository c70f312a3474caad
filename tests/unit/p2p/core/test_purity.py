import ast
from pathlib import Path

import pytest

import kodo.p2p.core

MODULES = sorted(Path(kodo.p2p.core.__path__[0]).glob("**/*.py"))
ALLOWED = {
    "__future__",
    "base64",
    "binascii",
    "bisect",
    "collections",
    "cryptography",
    "dataclasses",
    "enum",
    "math",
    "functools",
    "google_crc32c",
    "hashlib",
    "hmac",
    "ipaddress",
    "itertools",
    "kodo",
    "msgpack",
    "re",
    "struct",
    "typing",
}
"""No sockets, files, clocks, randomness, tasks or threads among them."""


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_imports_nothing_that_does_io(path):
    assert {name.partition(".")[0] for name in imports(path)} <= ALLOWED
    inside = {name for name in imports(path) if name.startswith("kodo")}
    assert all(name.startswith(("kodo.p2p.core", "kodo.p2p.errors")) for name in inside)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_makes_no_keys_and_reads_no_files(path):
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not names & {"generate", "generate_key", "open", "print", "input", "random_transaction_id"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__init__"], ids=lambda path: path.stem)
def test_every_module_says_what_it_offers(path):
    tree = ast.parse(path.read_text())
    named = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    assert len(named) == 1
    offered = ast.literal_eval(named[0].value)
    inside = path.relative_to(kodo.p2p.core.__path__[0]).with_suffix("").parts
    module = __import__(".".join(["kodo.p2p.core", *inside]), fromlist=["_"])
    assert all(hasattr(module, name) for name in offered)
