"""Secrets, links and codes come from a prompt, stdin or the environment; other texts are what they are."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from kodo.cli.launching import given_inputs
from kodo.cli.running import _candidate
from kodo.cli.runtime import Context
from kodo.cli.secret import read_secret
from kodo.cli.values import answer_words, parse_assignments, secret_fields
from kodo.client.config import load_settings
from kodo.client.schemas import is_secret
from kodo.p2p.errors import UsageError

SECRET = "s3cret"


class Form(BaseModel):
    text: str = ""
    key: SecretStr
    maybe: SecretStr | None = None
    many: list[SecretStr] = []


class Outer(BaseModel):
    inner: Form


class Found:
    """A flow with this form."""

    name = "Flow"
    inputs_schema = Form.model_json_schema()


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\nsecond\n"))
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.delenv("NOTHING", raising=False)
    return Context(load_settings(tmp_path, {}), json=False, verbose=False)


async def inputs(context: Context, *words: str) -> dict[str, Any]:
    found: Any = Found()
    return await given_inputs(
        context, found.name, found.inputs_schema, words=list(words), texts=[], file=None, ask=False
    )


@pytest.mark.parametrize("name", ["key", "maybe"])
@pytest.mark.parametrize("word", ["-", "env:TOKEN"])
async def test_a_secret_is_read_from_elsewhere(
    context: Context, name: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await inputs(context, f"{name}={word}") == {name: SECRET}
    assert capsys.readouterr() == ("", "")


async def test_secrets_from_stdin_take_a_line_each(context: Context) -> None:
    assert await inputs(context, "key=-", "maybe=-") == {"key": SECRET, "maybe": "second"}


async def test_what_was_read_is_taken_as_it_is(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("@/etc/hostname", "env:HOME", "-", "a=b"):
        monkeypatch.setenv("TOKEN", value)
        assert await inputs(context, "key=env:TOKEN") == {"key": value}


@pytest.mark.parametrize("name", ["key", "maybe", "many"])
async def test_a_secret_as_a_word_is_taken_with_a_warning(
    context: Context, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await inputs(context, f"{name}={SECRET}") == {name: [SECRET] if name == "many" else SECRET}
    told = capsys.readouterr().err
    assert f"{name}=-" in told
    assert f"{name}=env:VARIABLE" in told
    assert SECRET not in told


@pytest.mark.parametrize("text", ["-", "env:TOKEN", "env:", "--"])
async def test_a_text_that_is_no_secret_stays_what_it_is(
    context: Context, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await inputs(context, f"text={text}") == {"text": text}
    assert capsys.readouterr() == ("", "")


async def test_a_secret_from_a_file_is_not_warned_of(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(SECRET)
    assert await inputs(context, f"key=@{tmp_path / 'key'}") == {"key": SECRET}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["env:NOTHING", "-"])
async def test_a_secret_that_is_not_there_is_an_error(
    context: Context, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(UsageError, match="key"):
        await inputs(context, f"key={word}")


def test_secrets_inside_of_objects_are_found() -> None:
    schema = Outer.model_json_schema()
    assert secret_fields(["inner.key=-", "inner.text=-", "what=-"], schema) == [("inner.key", "-")]
    assert parse_assignments(["inner.key=-"], schema, {"inner.key": SECRET}) == {"inner": {"key": SECRET}}


def test_a_secret_that_does_not_fit_is_not_shown() -> None:
    schema = {"properties": {"pin": {"type": "integer", "writeOnly": True}}}
    with pytest.raises(UsageError) as refused:
        parse_assignments([f"pin={SECRET}"], schema)
    assert SECRET not in str(refused.value)


async def test_an_answer_that_is_a_secret_is_read_from_elsewhere(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = {"schema": {"type": "string", "format": "password", "writeOnly": True}}
    for words in (["-"], ["value=env:TOKEN"], [SECRET]):
        assert await _candidate(context, lock, words, [], None, False) == SECRET
    assert "warning" in capsys.readouterr().err
    assert await _candidate(context, {"schema": Form.model_json_schema()}, ["key=env:TOKEN"], [], None, False) == {
        "key": SECRET
    }
    assert await _candidate(context, {"schema": {"type": "string"}}, ["-"], [], None, False) == "-"


def test_hints_ask_for_secrets() -> None:
    assert answer_words(Form.model_json_schema()) == "text=… key=- maybe=- many=-"
    assert answer_words({"type": "string", "format": "password"}) == "-"
    assert is_secret({"type": "string", "writeOnly": True}, {})
    assert not is_secret({"type": "string"}, {})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours
    os.close(ours)


async def test_at_a_terminal_a_secret_is_asked_for_without_being_shown(
    terminal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    os.write(terminal, f"{SECRET}\n".encode())
    assert await read_secret("-", "the code") == SECRET
    assert capsys.readouterr().err == "the code: \n"
