"""A flow that is called as plain Python, outside of a node."""

import contextlib
import functools
import hashlib
import io

import pytest
from pydantic import BaseModel

import kodo.flow
from kodo.flow import action, agent, emit, event, fid, flow, lock, output, progress, result
from kodo.flow._runtime.context import LockExpiredError
from kodo.flow._runtime.current import install
from kodo.p2p.errors import UsageError


@pytest.fixture(autouse=True)
def terminal(tmp_path, monkeypatch):
    install(None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_everything_that_authors_import_is_there():
    assert all(hasattr(kodo.flow, name) for name in kodo.flow.__all__)
    assert {"flow", "progress", "result", "lock", "output", "event", "emit"} <= set(kodo.flow.__all__)


def test_emitters_print_a_readable_line_each(capsys):
    progress(10, "reading")
    progress(done=1, total=4)
    action("searching")
    agent("Ana", goal="find")
    assert lines(capsys) == [
        "[progress] 10% reading",
        "[progress] 25% (1/4)",
        "[action] searching",
        '[agent] {"name": "Ana", "goal": "find"}',
    ]


async def test_emitters_may_be_awaited_or_not(capsys):
    result("a")
    await result("b")
    assert lines(capsys) == ["[result] a", "[result] b"]


@pytest.mark.parametrize("name", ["final", "fatal", "lock", "unlock", "output", "inputs", "kill", "nonsense"])
def test_events_that_are_not_a_flows_to_emit_are_refused(name):
    with pytest.raises(UsageError, match="progress"):
        emit(name, {})


def test_the_decorator_leaves_the_function_as_it_was():
    @flow(name="Twice", tags=["a"])
    def double(n: int) -> int:
        """Double it.

        More.
        """
        return 2 * n

    assert double(4) == 8
    assert double.__kodo_flow__.name == "Twice"
    assert double.__kodo_flow__.description == "Double it."
    assert double.__kodo_flow__.tags == ("a",)


def test_event_tells_start_and_end_and_failure(capsys):
    @event(name="divide")
    def divide(a, b):
        return a / b

    assert divide(4, b=2) == 2
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    started, ended, again, failed = lines(capsys)
    assert started == '[action] {"name": "divide", "phase": "start", "arguments": {"a": 4, "b": 2}}'
    assert ended.startswith('[action] {"name": "divide", "runtime_s": ')
    assert again.startswith('[action] {"name": "divide", "phase": "start"')
    assert failed.startswith("[action-error]")
    assert "ZeroDivisionError" in failed


async def test_event_works_on_coroutines(capsys):
    @event
    async def fetch():
        return 1

    assert await fetch() == 1
    assert len(lines(capsys)) == 2


class Service:
    @event(name="class")
    @classmethod
    def of_class(cls, a):
        return cls, a

    @event(name="static")
    @staticmethod
    def static(a):
        return a

    @event(name="method")
    def method(self, a):
        return self, a


class Callback:
    async def __call__(self, a):
        return a


def test_event_works_on_every_kind_of_method(capsys):
    service = Service()
    assert service.of_class(1) == (Service, 1)
    assert Service.static(2) == 2
    assert service.method(3) == (service, 3)
    starts = [line for line in lines(capsys) if '"start"' in line]
    assert starts == [
        f'[action] {{"name": "{name}", "phase": "start", "arguments": {{"a": {number}}}}}'
        for number, name in enumerate(("class", "static", "method"), 1)
    ]


async def test_event_works_on_callables_without_a_name(capsys):
    assert event(functools.partial(max, 3))(4) == 4
    assert await event(Callback())(5) == 5
    assert await event(functools.partial(Callback().__call__))(6) == 6
    assert len(lines(capsys)) == 6


def test_event_on_a_generator_ends_when_the_generator_does(capsys):
    @event
    def numbers(n):
        got = yield from range(n)
        return got or "end"

    items = numbers(2)
    assert next(items) == 0
    assert len(lines(capsys)) == 1
    with pytest.raises(StopIteration) as stop:
        next(items), next(items)
    assert stop.value.value == "end"
    assert '"phase": "end"' in lines(capsys)[0]


async def test_event_on_an_async_generator_ends_with_it_also_when_it_is_left_early(capsys):
    closed = []

    @event
    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async with contextlib.aclosing(numbers()) as items:
        async for _ in items:
            break
    assert closed == [True]
    assert '"phase": "end"' in lines(capsys)[1]


def test_there_is_no_run_outside_of_a_node():
    assert fid() is None


def test_an_output_lands_below_outputs(tmp_path):
    info = output.write("a/b.md", ["x", b"y"])
    assert (tmp_path / "outputs" / "a" / "b.md").read_bytes() == b"xy"
    assert info == {
        "name": "a/b.md",
        "size": 2,
        "sha256": hashlib.sha256(b"xy").hexdigest(),
        "media_type": "text/markdown",
    }


async def test_an_output_is_awaited_in_async_code(tmp_path):
    (tmp_path / "source").write_bytes(b"abc")
    assert (await output.write("copy.bin", tmp_path / "source"))["size"] == 3


@pytest.mark.parametrize("name", ["../x", "/x", "", "a\0b", "x" * 256])
def test_an_output_with_a_bad_name_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        output.write(name, b"")


def test_an_output_of_a_wrong_type_leaves_nothing_behind(tmp_path):
    with pytest.raises(UsageError):
        output.write("x", 5)
    with pytest.raises(UsageError):
        output.write("x", [b"a", 5])
    assert list((tmp_path / "outputs").iterdir()) == []


class Approval(BaseModel):
    approved: bool


def test_a_lock_without_terminal_takes_its_default():
    assert lock("Go on?", Approval, default=Approval(approved=True)).approved is True


def test_a_lock_without_terminal_and_default_says_so():
    with pytest.raises(LockExpiredError, match="Go on"):
        lock("Go on?")


async def test_a_lock_is_awaited_in_async_code():
    assert await lock("Number?", int, default=3) == 3


def test_a_lock_asks_on_the_terminal_until_the_answer_fits(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", Terminal('no\n{"approved": false}\n{"approved": true}\n'))
    answer = lock("Go on?", Approval, check=lambda value: [] if value.approved else ["please approve"])
    assert answer == Approval(approved=True)
    assert "[unlock-deny] please approve" in capsys.readouterr().out
