"""The composition root: fast, lazy, one line per error."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from kodo.cli import main
from kodo.cli.commands import COMMANDS
from kodo.cli.examples import EXAMPLES
from kodo.client.known_nodes import KnownNodes
from kodo.p2p.net.keystore import load_identity

HEAVY = (
    "ray",
    "aiortc",
    "zeroconf",
    "aiohttp",
    "pydantic",
    "rich",
    "kodo.client",
    "kodo.node",
    "kodo.registry",
    "asyncio",
)


def python(code: str, home: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
    environment = {**kept, "KODO_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["nope"]])
def test_the_list_of_commands_imports_none_of_them(tmp_path: Path, words: list[str]) -> None:
    code = f"""
import sys, kodo.cli.main as main
main.run({words!r})
print("\\n", *[name for name in sys.modules if name.startswith("kodo.cli.") or name in {HEAVY!r}])
"""
    loaded = set(python(code, tmp_path).splitlines()[-1].split())
    # An error is reported by the modules that all commands report by.
    reporting = {
        "kodo.cli.runtime",
        "kodo.cli.logs",
        "kodo.cli.exits",
        "kodo.cli.text",
        "kodo.client",
        "asyncio",
        "pydantic",
    }
    assert loaded - (reporting if words == ["nope"] else set()) == {
        "kodo.cli.main",
        "kodo.cli.commands",
        "kodo.cli.parameters",
    }


COSTLY = (
    *(
        "aiohttp",
        "argon2",
        "joserfc",
        "jsonschema",
        "cronsim",
        "segno",
        "keyring",
        "kodo.mcp",
        "kodo.node",
        "kodo.p2p.core.sctp",
        "kodo.p2p.net.certificate",
        "kodo.registry.client.client",
        "kodo.registry.query.query",
        "kodo.registry.query.tree",
        "mcp",
        "mcp_types",
        "OpenSSL",
        "pydantic",
        "ray",
        "rich",
    ),
    *("ctypes", "cryptography.x509", "email.message", "importlib.metadata", "platformdirs"),
    *("sqlite3", "tomllib", "typer.rich_utils", "urllib.request", "yaml", "yarl", "zeroconf"),
)
"""What takes long to import."""

MODELS = frozenset(["email.message", "importlib.metadata", "pydantic"])
HTTP = MODELS | {"aiohttp", "kodo.registry.client.client", "urllib.request", "yarl"}
QUERIES = frozenset(["kodo.registry.query.query", "kodo.registry.query.tree"])
RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

MAY_IMPORT = {
    "config": MODELS | {"urllib.request"},
    "id": frozenset[str](),
    "nodes": frozenset[str](),
    "nodes --node alpha": frozenset[str](),
    "nodes --timeout 5": MODELS,
    "nodes --query online": QUERIES,
    "flows": frozenset[str](),
    "flows --query broken": QUERIES,
    "ps": frozenset[str](),
    "ps --json": frozenset[str](),
    "locks": frozenset[str](),
    "shares": frozenset[str](),
    f"state {RUN}": frozenset[str](),
    f"kill {RUN}": frozenset[str](),
    f"outputs {RUN}": frozenset[str](),
    f"share {RUN}": frozenset[str](),
    f"answer {RUN} yes": frozenset[str](),
    "run alpha/Noop --detach": frozenset[str](),
    "schedule alpha/Noop --every 1h": frozenset[str](),
    "schedules": frozenset[str](),
    "invite alpha/Noop": frozenset[str](),
    "invitations": frozenset[str](),
    "open kodo:none": frozenset[str](),
    f"unschedule {RUN}": frozenset[str](),
    "run alpha/Noop --each rows.csv": frozenset[str](),
    "kill --state locked --yes": frozenset[str](),
    "download --all --yes": frozenset[str](),
    f"run --like {RUN} n=1 --detach": frozenset[str](),
    "ps --registry http://127.0.0.1:9": HTTP,
    "nodes --registry http://127.0.0.1:9": HTTP,
}
"""Which of it each command may import, where it does not look around on the local network."""


@pytest.mark.parametrize("command", MAY_IMPORT)
def test_a_command_imports_what_it_needs(tmp_path: Path, command: str) -> None:
    words = [*command.split(), "--no-lan"]
    code = f"""
import sys, kodo.cli.main as main
main.run({words!r})
print("\\n", *[name for name in {sorted(COSTLY)!r} if name in sys.modules])
"""
    loaded = set(python(code, tmp_path / "home").splitlines()[-1].split())
    assert loaded - MAY_IMPORT[command] == set()


def test_a_command_builds_one_model_of_settings(tmp_path: Path) -> None:
    code = """
import kodo.cli.main as main
main.run(["ps", "--no-lan", "--timeout", "5"])
from kodo.settings.fields import SettingsModel
def models(of):
    return [of, *(each for under in of.__subclasses__() for each in models(under))]
print("\\n", *{each.__name__ for each in models(SettingsModel) if each.__pydantic_complete__})
"""
    assert python(code, tmp_path / "home").splitlines()[-1].split() == ["Settings"]


@pytest.mark.parametrize(("lasts", "collects"), [(False, False), (True, True)])
def test_garbage_is_collected_in_commands_that_last(tmp_path: Path, *, lasts: bool, collects: bool) -> None:
    code = f"""
import asyncio, atexit, gc, kodo.cli.main as main, kodo.cli.find as find
async def nodes(self, **_):
    async with asyncio.timeout(60):
        while {lasts} and not gc.isenabled():
            await asyncio.sleep(0.01)
    return []
import kodo.client
kodo.client.Client.nodes = nodes
atexit.register(lambda: print("\\n", gc.isenabled()))
main.main(["nodes", "--no-lan"])
"""
    assert python(code, tmp_path / "home").splitlines()[-1].split() == [str(collects)]


@pytest.mark.parametrize("command", ["config", "id", "nodes --no-lan", "flows --no-lan", "ps --no-lan"])
def test_no_client_command_imports_ray(tmp_path: Path, command: str) -> None:
    code = f"""
import sys, kodo.cli.main as main
code = main.run({command.split()!r})
assert code == 0, code
assert not [name for name in sys.modules if name.split(".")[0] == "ray" or name.startswith("kodo.node")]
"""
    python(code, tmp_path / "home")


def registered() -> dict[str, tuple[str, str]]:
    """What the modules of commands register, by name: the module, and what the help begins with."""
    found = {}
    for path in sorted(Path(main.__file__).parent.glob("*.py")):
        module = importlib.import_module(f"kodo.cli.{path.stem}")
        if not hasattr(module, "register"):
            continue
        app = typer.Typer()
        module.register(app)
        for each in app.registered_commands:
            found[str(each.name)] = (path.stem, each.callback.__doc__ or "" if each.callback else "")
        for group in app.registered_groups:
            found[str(group.name)] = (path.stem, group.typer_instance.info.help if group.typer_instance else "")
    return {name: (module, " ".join(help_.split("\n\n")[0].split())) for name, (module, help_) in found.items()}


def test_the_table_of_commands_is_what_the_modules_have() -> None:
    assert {name: (entry.module, entry.help) for name, entry in COMMANDS.items()} == registered()


def test_a_help_tells_what_each_command_does_in_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [name for name, entry in COMMANDS.items() if f"{name} {entry.help}" not in shown] == []


def test_every_command_takes_the_common_options(capsys: pytest.CaptureFixture[str]) -> None:
    names = "up registry nodes flows show run ps state follow locks answer kill outputs download id config"
    for name in names.split():
        assert main.run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        for option in ("--json", "--node", "--registry", "--timeout", "--home", "--verbose"):
            assert option in shown, (name, option)


@pytest.mark.parametrize("arguments", [["nope"], ["run"], ["up", "--port", "70000"], ["nodes", "--wrong"]])
def test_misuse_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("koco: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["user"]])
def test_a_group_without_a_command_shows_its_help_and_nothing_else(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    captured = capsys.readouterr()
    assert "Usage: koco" in captured.out + captured.err
    assert "Error" not in captured.out + captured.err


@pytest.mark.parametrize("example", [each for lines in EXAMPLES.values() for each in lines])
def test_every_example_of_a_help_can_be_typed(example: str) -> None:
    koco, *words = shlex.split(example)
    command: Any = typer.main.get_command(main.app)
    context = command.make_context(koco, words)
    while isinstance(command, typer.core.TyperGroup):
        name, found, words = command.resolve_command(context, words)
        command, context = found, found.make_context(name, list(words), parent=context)


def test_a_help_ends_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["unshare", "--help"]) == 0
    assert capsys.readouterr().out.split()[-4:] == ["Examples:", "koco", "unshare", "NODE/SID"]


def test_misuse_is_json_where_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["nodes", "--wrong", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["reason"]) == (400, "usage")


def test_a_bad_setting_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kodo.toml").write_text("prot = 1\n")
    monkeypatch.setenv("KODO_HOME", str(tmp_path))
    assert main.run(["config"]) == 2
    assert "did you mean port?" in capsys.readouterr().err


def test_config_tells_each_value_and_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kodo.toml").write_text("port = 4711\n")
    monkeypatch.setenv("KODO_HOME", str(tmp_path))
    monkeypatch.setenv("KODO_NAME", "n.example")
    assert main.run(["config", "--json", "--timeout", "7s"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["port"] == {"value": 4711, "source": str(tmp_path / "kodo.toml")}
    assert told["name"] == {"value": "n.example", "source": "env KODO_NAME"}
    assert told["timeout"] == {"value": 7.0, "source": "flag"}
    assert told["lan"] == {"value": True, "source": "default"}


def test_id_tells_both_peer_ids_and_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(2):
        assert main.run(["id", "--json", "--home", str(tmp_path / "home")]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert told[0]["addrs"] == []
    [user, node] = [told[0][name]["peer_id"] for name in ("user", "node")]
    assert user != node
    assert (told[0]["user_peer_id"], told[0]["peer_id"]) == (user, node), "as programs before read them"
    assert (told[0]["node"]["running"], told[0]["node"]["addrs"]) == (False, [])


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    code = "import kodo.cli.main as m, sys; sys.exit(m.run(['config']))"
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "KODO_HOME": str(tmp_path)}
    with os.fdopen(writing, "wb") as stdout:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize(
    ("words", "like"),
    [(["version"], ["--version"]), (["help"], ["--help"]), (["help", "ps"], ["ps", "--help"])],
)
def test_help_and_version_may_be_typed_as_commands(
    words: list[str], like: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = [(main.run(each), capsys.readouterr().out) for each in (words, like)]
    assert said[0] == said[1]
    assert said[0][0] == 0
    assert said[0][1]


def test_the_package_can_be_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "kodo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == python("from kodo.cli.main import run; run(['--version'])", tmp_path)


@pytest.mark.parametrize(
    "error", ["BrokenPipeError()", "ExceptionGroup('', [ExceptionGroup('', [BrokenPipeError()])])"]
)
def test_who_reads_no_further_ends_a_command_quietly(tmp_path: Path, error: str) -> None:
    code = f"""
from kodo.cli import runtime
async def fails(context):
    raise {error}
common = dict.fromkeys(("json", "node", "registry", "lan", "timeout", "home", "verbose"))
raise SystemExit(runtime.execute(fails, {{}}, common))
"""
    environment = {**os.environ, "KODO_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


@pytest.mark.parametrize(
    ("given", "shown"),
    [("system", "system"), ("http://me:secret@proxy.example.com:3128", "http://proxy.example.com:3128")],
)
def test_config_tells_which_proxy_is_used_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str, shown: str
) -> None:
    monkeypatch.setenv("KODO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KODO_PROXY", given)
    assert main.run(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["proxy"] == {"value": shown, "source": "env KODO_PROXY"}


@pytest.mark.parametrize("words", [["config"], ["config", "--json"]])
def test_an_output_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kodo", *words],
            env={**os.environ, "KODO_HOME": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (141, 1)
    assert "stdout cannot be written: No space left on device" in done.stderr


def test_a_node_that_is_gone_is_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    peer_id = load_identity(home, "node").peer_id
    known = KnownNodes(home / "known_nodes")
    known.pin("gone.example", peer_id)
    known.pin("here.example", peer_id)
    assert main.run(["forget", "gone.example", "--json", "--home", str(home)]) == 0
    assert json.loads(capsys.readouterr().out) == {"node": "gone.example", "peer_id": str(peer_id)}
    assert list(known.all()) == ["here.example"]
    assert main.run(["forget", "gone.example", "--home", str(home)]) == 3
    refusal = " ".join(capsys.readouterr().err.split())
    assert f"no node is known as 'gone.example'; known names are in {known.path}" in refusal
