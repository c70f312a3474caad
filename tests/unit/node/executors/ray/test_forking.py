"""What a fork server is asked, and what it declines."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.node.executors.ray.forking.server import DeclinedError, OutdatedError, Request, check, read_request
from kodo.node.executors.ray.forking.setup_worker import fields, unfielded
from kodo.node.executors.runner.service import kodo_version

WORKER = "/ray/default_worker.py"
ENVIRONMENT = {"PATH": "/bin", "RAY_JOB_ID": "01000000"}


def asked(context: object, *words: str) -> bytes:
    given = [f"{name}={value}".encode() for name, value in ENVIRONMENT.items()]
    told = [WORKER, "--a=b=c", *words, "--language=PYTHON", f"--serialized-runtime-env-context={json.dumps(context)}"]
    return fields([b"1000", b"/home", fields([word.encode() for word in told]), fields(given)])


def request(**variables: str) -> Request:
    return Request([WORKER], ENVIRONMENT, variables, "/home", b"1000")


@given(st.lists(st.binary(max_size=300)))
def test_fields_come_apart_as_they_were_put_together(values: list[bytes]) -> None:
    assert unfielded(fields(values)) == values


def test_a_request_says_what_the_worker_is_to_be() -> None:
    context = {"env_vars": {"KODO_RUNNER": "runner-1"}, "py_executable": sys.executable, "command_prefix": []}
    read = read_request(asked(context, "--worker-id=7"))
    assert read == Request(
        [WORKER, "--a=b=c", "--worker-id=7"], ENVIRONMENT, {"KODO_RUNNER": "runner-1"}, "/home", b"1000"
    )


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_refused(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_request(data)


@pytest.mark.parametrize("context", [3, "text", [1], {"env_vars": {"A": 1}}, {"env_vars": [["A"]]}])
def test_a_runtime_environment_that_is_none_is_refused(context: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_request(asked(context))


@pytest.mark.parametrize(
    "context",
    [{"command_prefix": ["cd /x &&"]}, {"py_executable": "/other/python"}, {"override_worker_entrypoint": "/w.py"}],
)
def test_a_worker_with_a_command_of_its_own_is_declined(context: object) -> None:
    with pytest.raises(DeclinedError):
        read_request(asked(context))


def test_what_differs_from_runner_to_runner_may_differ() -> None:
    check(request(KODO_RUNNER="runner-2", OTEL_SDK_DISABLED="true"), WORKER, {**ENVIRONMENT, "KODO_RUNNER": "-"})


@pytest.mark.parametrize("variables", [{"PYTHONHASHSEED": "1"}, {"PATH": "/else"}, {"LD_PRELOAD": "x.so"}])
def test_a_variable_that_is_read_when_a_process_starts_is_declined(variables: dict[str, str]) -> None:
    with pytest.raises(DeclinedError):
        check(request(**variables), WORKER, ENVIRONMENT)


def test_a_variable_that_the_server_alone_has_is_declined() -> None:
    with pytest.raises(DeclinedError):
        check(request(), WORKER, {**ENVIRONMENT, "LANG": "C"})


def test_another_script_is_declined() -> None:
    with pytest.raises(DeclinedError):
        check(request(), "/other/default_worker.py", ENVIRONMENT)


def test_a_worker_of_another_version_is_declined_for_good() -> None:
    check(request(KODO_VERSION=kodo_version()), WORKER, ENVIRONMENT)
    with pytest.raises(OutdatedError):
        check(request(KODO_VERSION="0.0.1"), WORKER, ENVIRONMENT)


def test_a_worker_of_a_later_job_needs_another_server_and_one_of_an_earlier_job_none() -> None:
    later = Request([WORKER], {**ENVIRONMENT, "RAY_JOB_ID": "00010000"}, {}, "/home", b"1000")
    with pytest.raises(OutdatedError):
        check(later, WORKER, ENVIRONMENT)
    with pytest.raises(DeclinedError) as declined:
        check(request(), WORKER, later.environment)
    assert not isinstance(declined.value, OutdatedError)
