"""Threads of a flow that outlast it, and its signal handlers."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kodo.node.executors.runner.threads import as_in_a_main_thread, explain_signals, wait_for_threads


def in_a_flows_thread(work):
    """Run it as a runner runs a flow; gives what it gave."""
    found = []

    def run():
        as_in_a_main_thread()
        found.append(work())

    thread = threading.Thread(target=run, name="kodo-flow", daemon=True)
    thread.start()
    thread.join(60)
    return found[0]


def test_threads_that_a_flow_starts_are_waited_for_as_at_the_end_of_a_program():
    go_on, done, warnings = threading.Event(), [], []

    def flow():
        before = threading.enumerate()
        threading.Thread(target=lambda: (go_on.wait(60), done.append(1))).start()
        threading.Timer(0.01, go_on.set).start()
        wait_for_threads(before, warnings.append, 60)

    in_a_flows_thread(flow)
    assert (done, warnings) == ([1], [])


def test_threads_that_go_on_are_named_and_daemons_and_idle_workers_are_not():
    end, warnings = threading.Event(), []

    def flow():
        before = threading.enumerate()
        threading.Thread(target=end.wait, name="serves for ever").start()
        threading.Thread(target=end.wait, name="a daemon", daemon=True).start()
        pool = ThreadPoolExecutor(1, "pool")
        pool.submit(int).result()
        wait_for_threads(before, warnings.append, 0.0)
        return pool

    pool = in_a_flows_thread(flow)
    end.set()
    pool.shutdown()
    (warning,) = warnings
    assert "1 of its threads still run after 0 s (serves for ever)" in warning


@pytest.fixture
def warnings():
    set_handler, set_wakeup, told = signal.signal, signal.set_wakeup_fd, []
    explain_signals(told.append)
    yield told
    signal.signal, signal.set_wakeup_fd = set_handler, set_wakeup


def test_a_handler_of_a_signal_that_ends_programs_is_left_out_with_a_warning(warnings):
    before = signal.getsignal(signal.SIGINT)
    assert in_a_flows_thread(lambda: signal.signal(signal.SIGINT, lambda *_: None)) == before
    assert signal.getsignal(signal.SIGINT) == before
    assert "SIGINT is never called" in warnings[0]


@pytest.mark.parametrize(
    "call", [lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN), lambda: signal.set_wakeup_fd(-1)]
)
def test_another_handler_is_refused_with_what_to_use_instead(warnings, call):
    def flow():
        with pytest.raises(ValueError, match=r"asyncio\.timeout"):
            call()
        return warnings

    assert in_a_flows_thread(flow) == []


def test_the_main_thread_sets_handlers_as_ever(warnings):
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    assert signal.signal(signal.SIGUSR2, before) == signal.SIG_IGN
    assert warnings == []
