"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ["p2p", "node", "registry", "client"]
FOLDERS = [*SOURCE_ROOTS, "client/web", "docs", "scripts", "tests", "tests/interop", "tests/vectors", "tests/web"]
NOT_OURS = {".git", "node_modules", "__pycache__", "dist", "build", ".hypothesis", ".run"}

MAX_MODULE_LINES = 600

HEAVY = {
    "aiortc": [],
    "OpenSSL": ["kodo/p2p/net/certificate.py", "kodo/p2p/net/dtls.py", "kodo/p2p/net/link.py"],
    "aioice": [],
    "zeroconf": ["kodo/p2p/net/discovery.py"],
    "ray": ["kodo/node/executors/ray/", "kodo/samples/"],
    "aiohttp": [
        "kodo/monitor/",
        "kodo/registry/",
        "kodo/web/",
        "kodo/cli/",
        "kodo/access/http.py",
        "kodo/access/outgoing.py",
        "kodo/http/",
        "kodo/node/webhooks/targets.py",
    ],
    "apprise": ["kodo/node/webhooks/targets.py"],
    "prometheus_client": ["kodo/monitor/", "kodo/node/metrics.py", "kodo/registry/metrics.py"],
    "joserfc": ["kodo/access/jose.py"],
    "mcp": ["kodo/mcp/server.py", "kodo/flow/mcp.py"],
    "mcp_types": ["kodo/mcp/server.py", "kodo/flow/mcp.py"],
    "cronsim": ["kodo/node/launches/times.py"],
    "segno": ["kodo/cli/qr.py"],
    "argon2": ["kodo/access/passwords.py"],
    "typer": ["kodo/cli/"],
    "rich": ["kodo/cli/"],
    "hypothesis": [],
    "pytest": [],
}
"""Where alone a library may be imported: modules, or folders where it ends with a slash."""

FILE_MAKERS = {
    "kodo/cli/new.py": "the files of a new project, which hold no secret",
    "kodo/flow/_runtime/debugger.py": "opens a terminal",
    "kodo/client/filelock.py": "locks, which are empty",
    "kodo/client/login.py": "a lock, which is empty",
    "kodo/client/transfer.py": "downloads",
    "kodo/flow/_runtime/capture.py": "half a line of output, which may be lost",
    "kodo/flow/_runtime/memory_store.py": "files that a flow remembers",
    "kodo/flow/_runtime/spool.py": "events that the node has not taken: parts of it are worth having",
    "kodo/node/executors/ray/forking/server.py": "nothing: what it writes to is the kernel's",
    "kodo/node/executors/ray/forking/setup_worker.py": "a lock and a log",
    "kodo/node/backup.py": "a home that is being restored, in a folder of its own until all is verified",
    "kodo/node/home.py": "the node's lock and port",
    "kodo/node/executors/process/starter.py": "a log",
    "kodo/node/executors/ray/cluster.py": "a lock and a log",
    "kodo/node/executors/ray/package.py": "copies of sources, in a folder that is made anew",
    "kodo/node/executors/runner/service.py": "where a crash is told of",
    "kodo/node/executors/runner/upload_receiver.py": "files that runs on other machines send",
    "kodo/node/files/outputs.py": "outputs",
    "kodo/node/files/uploads.py": "uploads and what they are",
    "kodo/p2p/net/files.py": "keys, secrets and whatever else is to be whole: the one helper",
    "kodo/registry/store/file.py": "the lock of a registry's database",
    "kodo/sqlite/file.py": "databases",
}
"""Modules that make files, and which. Keys and secrets are made by one: half of one is worth nothing."""


def shipped() -> list[Path]:
    """Every module of kodo."""
    return sorted(path for root in SOURCE_ROOTS for path in (ROOT / root / "kodo").rglob("*.py"))


def in_wheel(path: Path) -> str:
    """The module's path as it is installed."""
    return path.relative_to(ROOT).as_posix().partition("/")[2]


def offending(rule: Callable[[Path], object]) -> dict[str, object]:
    """What breaks a rule, by module: one test for all modules, which hundreds of tests would take long to collect."""
    return {in_wheel(path): found for path in shipped() if (found := rule(path))}


@functools.cache
def text_of(path: Path) -> str:
    """The text of a module."""
    return path.read_text(encoding="utf-8")


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module; all of them are kept while these tests run, since each rule goes through all."""
    return ast.parse(path.read_bytes())


@pytest.fixture(scope="module", autouse=True)
def _forget_trees() -> Iterator[None]:
    yield
    parsed.cache_clear()
    text_of.cache_clear()
    nodes.cache_clear()
    imported.cache_clear()


def module_name(path: Path) -> str:
    return in_wheel(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a module's syntax tree."""
    return list(ast.walk(parsed(path)))


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The top-level names of all that a module imports, wherever in it."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def is_ours(name: str) -> bool:
    """Whether a file or folder belongs to the project, by its name."""
    return name not in NOT_OURS and not name.startswith(".venv") and not name.endswith(("_cache", ".egg-info"))


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of the project, by its path."""
    for place, folders, names in os.walk(ROOT):
        folders[:] = sorted(filter(is_ours, folders))
        for path in (Path(place) / name for name in sorted(filter(is_ours, names))):
            try:
                if path.is_file():
                    yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_kodo_is_a_namespace_package(root: str) -> None:
    assert (ROOT / root / "kodo").is_dir()
    assert not (ROOT / root / "kodo" / "__init__.py").exists()


def test_every_package_is_typed() -> None:
    packages = [path for root in SOURCE_ROOTS for path in (ROOT / root / "kodo").iterdir() if path.name[0] != "_"]
    assert {path.name for path in packages} >= {"p2p", "protocol", "node", "flow", "registry", "client", "web", "cli"}
    assert [path.name for path in packages if not (path / "py.typed").is_file()] == []
    assert [path.name for path in packages if not (path / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_what_it_is_for(folder: str) -> None:
    readme = ROOT / folder / "README.md"
    assert readme.is_file()
    assert len(readme.read_text(encoding="utf-8")) > 200


APART = {f"kodo.flow.adapters.{name}" for name in ("crewai_memory", "llama_index", "openai_agents", "pydantic_ai")}
"""Modules that import what only an environment of its own has; there they are tested."""


def listed(name: str, tree: ast.Module) -> set[str]:
    """The public names of a module."""
    if name not in APART:
        return set(getattr(importlib.import_module(name), "__all__", ()))
    (names,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return set(ast.literal_eval(names))


def unlisted_or_missing(path: Path) -> str | list[str]:
    """What is wrong with a module's list of public names."""
    if path.name == "__main__.py" or module_name(path) in APART:
        return ""
    module = importlib.import_module(module_name(path))
    definitions = [
        node for node in parsed(path).body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    if any(not node.name.startswith("_") for node in definitions) and not hasattr(module, "__all__"):
        return "it defines public names and lists none"
    return [name for name in getattr(module, "__all__", []) if not hasattr(module, name)]


def test_public_names_are_listed_and_exist() -> None:
    assert offending(unlisted_or_missing) == {}


def test_what_modules_take_of_each_other_is_listed() -> None:
    paths = {module_name(path): path for path in shipped()}
    trees = {name: parsed(path) for name, path in paths.items()}
    public = {name: listed(name, tree) for name, tree in trees.items()}
    unlisted = [
        f"{name} takes {node.module}.{alias.name}"
        for name, path in paths.items()
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module in trees
        for alias in node.names
        if f"{node.module}.{alias.name}" not in trees and alias.name not in public[node.module]
    ]
    assert unlisted == []


def test_a_modules_logger_is_called_logger() -> None:
    def otherwise(path: Path) -> set[str]:
        return set(re.findall(r"^(\w+) = logging\.getLogger\(__name__\)", text_of(path), re.MULTILINE)) - {"logger"}

    assert offending(otherwise) == {}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_a_heavy_library_is_imported_in_its_place_only(library: str) -> None:
    allowed = HEAVY[library]
    elsewhere = [
        in_wheel(path)
        for path in shipped()
        if library in imported(path)
        and not any(
            in_wheel(path) == place or (place[-1] == "/" and in_wheel(path).startswith(place)) for place in allowed
        )
    ]
    assert elsewhere == []


def makes_files(tree: ast.AST) -> bool:
    """Whether a module has what makes a file: O_CREAT, `open` to write, or a call that does so itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
            return True
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        modes = [
            value.value
            for value in [*node.args, *(word.value for word in node.keywords)]
            if isinstance(value, ast.Constant)
        ]
        if name in ("write_text", "write_bytes", "mkstemp", "NamedTemporaryFile"):
            return True
        if name == "open" and any(isinstance(mode, str) and re.fullmatch("[wxa][bt+]*", mode) for mode in modes):
            return True
    return False


def test_keys_and_secrets_are_made_in_one_place() -> None:
    found = {in_wheel(path) for path in shipped() if makes_files(parsed(path))}
    assert found == set(FILE_MAKERS)


def test_a_module_stays_readable() -> None:
    lines = {in_wheel(path): len(text_of(path).splitlines()) for path in shipped()}
    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_a_module_of_tests_stays_readable() -> None:
    modules = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert [path for path, lines in modules.items() if lines > MAX_MODULE_LINES] == []


def test_every_module_says_what_it_is() -> None:
    assert offending(lambda path: parsed(path).body and not ast.get_docstring(parsed(path))) == {}


ENTERING_BY_HAND = {"kodo/client/sync.py": "opens and closes an async client on the loop of another thread"}
"""Who calls `__aenter__` or `__aexit__`; everybody else enters by `async with`, or an `AsyncExitStack`."""


def test_contexts_are_entered_by_async_with() -> None:
    def by_hand(node: ast.AST) -> bool:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return False
        ours = ast.unparse(node.func.value) == "super()"
        return node.func.attr in ("__aenter__", "__aexit__", "__enter__", "__exit__") and not ours

    found = {in_wheel(path) for path in shipped() if any(map(by_hand, nodes(path)))}
    assert found == set(ENTERING_BY_HAND)


def test_databases_are_opened_in_one_place() -> None:
    found = {
        in_wheel(path)
        for path in shipped()
        if re.search(r"sqlite3\.connect\((?!\":memory:\")", path.read_text(encoding="utf-8"))
    }
    assert found == {"kodo/sqlite/copy.py", "kodo/sqlite/file.py"}


def docstrings(tree: ast.AST) -> Iterator[str]:
    """The docstring of a module, and of each function and class in it."""
    kinds = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    yield from (doc for node in ast.walk(tree) if isinstance(node, kinds) and (doc := ast.get_docstring(node)))


def test_docstrings_begin_with_a_verb_that_programmers_expect() -> None:
    # "Return", "Make", "Report": what a function gives is what it returns.
    own = ("Give a user roles", "Give a role grants")  # what `koco user grant` does

    def otherwise(path: Path) -> list[str]:
        found = [doc for doc in docstrings(parsed(path)) if re.match(r"(Give|Say|Have|Let|Tell)s?\b", doc)]
        return [doc for doc in found if not doc.startswith(own)]

    assert offending(otherwise) == {}


RENAMING = {
    "kodo/p2p/net/files.py": "the one helper: random names",
    "kodo/client/transfer.py": "parts that a later download takes up again, named by their content",
    "kodo/flow/_runtime/memory_store.py": "in folders of its own, from one random name to another",
    "kodo/node/executors/ray/cluster.py": "a folder that is to be removed, to a random name",
    "kodo/node/files/outputs.py": "from a folder of parts, by descriptors that follow no link",
    "kodo/node/files/uploads.py": "fixed names",
}
"""Who gives a file its name when it is whole; for any other name than these, `whole_file` does."""


def test_files_get_their_names_by_the_one_helper() -> None:
    def renames(node: ast.AST) -> bool:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return False
        system = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
        # Of a path `replace` takes one argument, of a text two, of a record names.
        return node.func.attr == "rename" or (node.func.attr == "replace" and (system or len(node.args) == 1))

    found = {in_wheel(path) for path in shipped() if any(map(renames, nodes(path)))}
    assert found == set(RENAMING)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # Put together here so that this file does not name them; "../work/x" is no place.
    places = ["work/", "tmp/w/", r"root/\.", "Users/"]
    pattern = re.compile("|".join([*(rf"(?<![\w.])/{place}" for place in places), "shared" + "/design"]))
    found = [(name, match[0]) for name, text in texts() if (match := pattern.search(text))]
    assert found == []


def test_no_file_leaves_work_for_later_or_a_merge_unfinished() -> None:
    words = ["TO" + "DO", "FIX" + "ME", "X" + "XX:"]
    sources = (".py", ".mjs", ".ts", ".tsx", ".css", ".md", ".toml", ".yaml")
    conflict = re.compile(r"^(?:<{7}|>{7}) .*", re.MULTILINE)  # what Git writes where it could not merge
    found = []
    for name, text in texts():
        found += [(name, word) for word in words if name.endswith(sources) and word in text]
        found += [(name, match) for match in conflict.findall(text)]
    assert found == []


@pytest.mark.parametrize("folder", ["client/web", "tests/interop"])
def test_the_lock_file_of_npm_names_no_registry(folder: str) -> None:
    text = (ROOT / folder / "package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in text
    assert "registry." not in text
    assert "ignore-scripts=true" in (ROOT / folder / ".npmrc").read_text(encoding="utf-8")


def test_every_npm_package_of_the_page_is_pinned_and_described() -> None:
    package = json.loads((ROOT / "client" / "web" / "package.json").read_text(encoding="utf-8"))
    described = (ROOT / "client" / "web" / "README.md").read_text(encoding="utf-8")
    for name, version in (package["dependencies"] | package["devDependencies"]).items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert f"`{name}`" in described, name


def test_a_module_of_the_page_stays_readable_and_says_what_it_is() -> None:
    modules = {path.as_posix(): text_of(path) for path in (ROOT / "client" / "web" / "src").rglob("*.ts*")}
    assert modules
    assert [name for name, text in modules.items() if not text.startswith("/**")] == []
    assert [name for name, text in modules.items() if len(text.splitlines()) > MAX_MODULE_LINES] == []


def test_the_version_is_written_in_one_place() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = [in_wheel(path) for path in shipped() if f'"{version}"' in path.read_text(encoding="utf-8")]
    assert found == []


@pytest.mark.parametrize(
    "name",
    [
        "scripts/run",
        "scripts/test",
        "scripts/docs",
        "scripts/page",
        "scripts/lock",
        "scripts/release",
        "scripts/python",
        ".ci/run",
        "bumpy.py",
    ],
)
def test_what_is_started_by_hand_can_be(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & 0o111 == 0o111
    assert path.read_bytes().startswith(b"#!/usr/bin/env ")


def test_no_sql_numbers_its_values() -> None:
    # Python 3.12 takes `?1` for a name and refuses a sequence of values; terminals' own codes begin with "[".
    assert offending(lambda path: re.findall(r"(?<!\[)\?[1-9]", text_of(path))) == {}


COMMAND = re.compile(
    r"\bkoco [a-z]|\bchmod |\bpip install |(?<![\w-])--[a-z][a-z-]*[ =](?!is |lets )|did you mean |take one of: "
    r"|take a path: "
)
"""What begins a command, or a word of one, that people copy into a shell."""

END = re.compile(r"[`;]|\. |, and | is |\n")
"""What ends it within a message."""

QUOTED = {"shlex.quote", "shlex.join", "shell_word", "shell_command", "answer_words", "_meant"}
"""What gives words as a shell has to read them."""

OWN = {"running.first_code"}
"""Names of what kodo itself made of letters and digits alone."""


def is_quoted(value: ast.expr) -> bool:
    """Whether an expression gives shell words: a call that quotes, or texts joined of such calls."""
    name = ast.unparse(value.func) if isinstance(value, ast.Call) else ast.unparse(value)
    return name in QUOTED | OWN


def unquoted(tree: ast.AST) -> Iterator[str]:
    """Every text in a command of a message that is not quoted."""
    assigned = {
        target.id: each.value
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    for each in ast.walk(tree):
        if isinstance(each, ast.JoinedStr) and not ast.unparse(each)[2:].startswith("--"):  # a word for a process
            inside = False
            for part in each.values:
                if isinstance(part, ast.Constant):
                    for found in re.finditer(f"{COMMAND.pattern}|{END.pattern}", str(part.value)):
                        inside = COMMAND.match(found[0]) is not None
                elif isinstance(part, ast.FormattedValue) and inside:
                    value = part.value
                    if isinstance(value, ast.Name):
                        value = assigned.get(value.id, value)
                    joined = isinstance(value, ast.Call) and ast.unparse(value.func).endswith(".join") and value.args
                    if joined and isinstance(value, ast.Call) and isinstance(value.args[0], ast.GeneratorExp):
                        value = value.args[0].elt
                    if not is_quoted(value):
                        yield f"line {each.lineno}: {ast.unparse(part)}"
        elif isinstance(each, ast.Call) and each.args and isinstance(each.args[0], ast.Constant):
            text = each.args[0].value
            if isinstance(text, str) and "%s" in text and (found := COMMAND.search(text)):
                before = text[: found.end()].count("%")
                yield from (
                    f"line {each.lineno}: {ast.unparse(arg)}"
                    for arg in each.args[1 + before :]
                    if not is_quoted(assigned.get(arg.id, arg) if isinstance(arg, ast.Name) else arg)
                )
        elif isinstance(each, ast.BinOp) and isinstance(each.op, (ast.Add, ast.Mod)):
            text = each.left.value if isinstance(each.left, ast.Constant) else ""
            if isinstance(text, str) and COMMAND.search(text):
                yield f"line {each.lineno}: {ast.unparse(each)}"


def test_what_is_not_ours_is_quoted_in_every_command_that_is_shown() -> None:
    assert offending(lambda path: list(unquoted(parsed(path)))) == {}


@pytest.mark.parametrize(
    "line",
    [
        'f"come back with: koco follow {run}"',
        'f"`koco follow {run}`"',
        'f"do: chmod 600 {path!r}"',
        'f"it may be known: --registry {url}"',
        'f"; did you mean {name!r}?"',
        'log("%s: koco login --node %s", what, node)',
        '"koco follow " + run',
        "f\"take one of: {', '.join(row for row in rows)}\"",
    ],
)
def test_the_rule_of_quoting_finds(line: str) -> None:
    assert len(list(unquoted(ast.parse(line)))) == 1


def heading_anchor(heading: str) -> str:
    """The anchor that a Markdown reader makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", sorted(name for name, _ in texts() if name.endswith(".md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    here = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", here.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (here.parent / path).resolve() if path else here
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading_anchor(heading) for heading in headings}, target


def test_the_signs_to_where_things_are_changed_lead_somewhere() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (an? .*) \|$", text.partition("## Where would I change")[2], re.MULTILINE)
    assert len(rows) > 9
    astray = []
    for row in rows:
        folder = ROOT
        for name in re.findall(r"`([\w./-]+\.\w+|[\w./-]+/)`", row):
            path = ROOT / name if "/" in name else folder / name  # a name alone lies beside what was named before
            folder = path if name.endswith("/") else path.parent
            astray += [] if path.exists() else [f"{row.partition(' |')[0]}: {name}"]
    assert astray == []


def test_the_readme_of_the_client_says_what_each_of_its_modules_is_for() -> None:
    rows = re.findall(r"^\| ((?:`[\w.]+` ?)+)\|", (ROOT / "client" / "README.md").read_text(), re.MULTILINE)
    named = []
    for row in rows:
        package, *names = re.findall(r"\w+", row)
        if package in ("client", "cli", "mcp", "web"):
            named += [f"{package}.{name}" for name in names]
    modules = [module_name(path) for path in shipped() if path.is_relative_to(ROOT / "client")]
    assert sorted(named) == sorted(name.removeprefix("kodo.") for name in modules if name.count(".") == 2)


PARENT_AND_CHILD = ("kodo.p2p.net.stream", "kodo.p2p.net.session")
"""A session opens streams, and a stream belongs to its session: the one circle of modules there is."""


def test_modules_that_import_each_other_form_no_circle() -> None:
    modules = {module_name(path): path for path in shipped()}
    takes: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in nodes(path):
            if isinstance(node, ast.Import):
                takes[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                takes[name] |= (inner & modules.keys()) or {node.module}
        takes[name] &= modules.keys()
    child, parent = PARENT_AND_CHILD
    assert parent in takes[child], "this circle is open: take it out of the rule"
    takes[child].discard(parent)
    graphlib.TopologicalSorter(takes).prepare()  # raises with the circle


def test_modules_of_the_page_that_import_each_other_form_no_circle() -> None:
    modules = sorted((ROOT / "client" / "web" / "src").rglob("*.ts*"))
    takes = {}
    for path in modules:
        named = re.findall(r"""\b(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""", path.read_text())
        takes[path] = {(path.parent / each).resolve() for each in named} & set(modules)
    assert sum(map(len, takes.values())) > len(modules), "imports of the page are not found any more"
    graphlib.TopologicalSorter(takes).prepare()
