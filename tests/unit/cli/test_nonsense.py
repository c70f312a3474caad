"""Every option of every command, given nonsense: exit code 2 and a sentence for people, before anything is begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kodo.cli import main
from kodo.cli.commands import COMMANDS, load

NONSENSE = "NONSENSE"
ANYTHING = {
    "AUDIENCE",
    "CODE",
    "FIELDS",
    "GLOB",
    "ID",
    "KEY",
    "NAME",
    "ROLE",
    "TAG",
    "TEXT",
    "USER",
    "WHO",
    "NODE",
    "PATH",
}
"""Metavars of what may be any text, or is known to a node only."""

NAMES_OF_A_FIXED_LIST = {("run", "--executor"), ("up", "--executor")}
"""Options whose metavar says that they are names, and which take a few."""

NOT_JUDGED = {
    "--backup": "a file that is made",
    "--files": "a folder that may be made later",
    "--home": "a folder that is made",
    "--host": "a name that the system resolves, when the place is begun",
    "--inputs": "a file, which is read once the flow is known",
    "--issuer": "used with auth = oidc only",
    "--name": "of a host or a node",
    "--out": "a folder that is made",
    "--password-file": "a file, which is read once there is somebody to send it to",
    "--registry": "one registry that cannot be asked is warned of; the others are used",
}

ARGUMENTS = {
    "fid": "01JD0000000000000000000000",
    "peer": "12D3KooWEKhLo3HV7MJZAF7f6pYxsn2zu8UdtHdmKM2paxMpFnMs",
}
"""What is given for an argument that has to be there, by its name; another one is `x`."""

COMMON = ("--timeout", "--node", "--registry", "--home")


def options() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every option that takes a value and is judged: the command's words, and the option. The common ones once."""
    seen = set()
    for name in COMMANDS:
        command = load(name)
        for sub, each in sorted(getattr(command, "commands", {"": command}).items()):
            needed = [p for p in each.params if p.param_type_name == "argument" and p.required]
            words = (name, *([sub] if sub else []), *(ARGUMENTS.get(str(p.name), "x") for p in needed))
            for parameter in each.params:
                option = next((word for word in parameter.opts if word.startswith("--")), "")
                if parameter.param_type_name != "option" or parameter.is_flag or option in NOT_JUDGED:
                    continue
                if parameter.metavar in ANYTHING and (name, option) not in NAMES_OF_A_FIXED_LIST:
                    continue
                if option in COMMON and option in seen:
                    continue
                seen.add(option)
                yield words, option


OPTIONS = list(options())


@pytest.mark.parametrize(("words", "option"), OPTIONS, ids=[f"{words[0]} {option}" for words, option in OPTIONS])
def test_an_option_given_nonsense_is_refused_in_a_sentence(
    words: tuple[str, ...],
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KODO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    code = main.run([*words, option, NONSENSE])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, ""), captured.err
    assert captured.err.startswith("koco: ")
    assert captured.err.count("\n") == 1
    for inside in ("ValidationError", "Traceback", "Value error", "pattern", "invalid literal", "pydantic"):
        assert inside not in captured.err
