"""The counter that the tests of cost rest on: it counts the first run of a piece of code as it counts the next."""

from __future__ import annotations

import threading

from tests.support.operations import operations


def test_work_that_runs_for_the_first_time_counts_as_much_as_later():
    def work() -> None:
        for number in range(100):
            part(number)

    def part(number: int) -> int:
        return number * 2

    first, second = operations(work), operations(work)
    assert first == second
    assert first > 500


def test_what_another_thread_does_is_not_counted():
    def beside() -> None:
        while not done.is_set():
            started.set()

    done, started = threading.Event(), threading.Event()
    alone = operations(lambda: None)
    thread = threading.Thread(target=beside)
    thread.start()
    started.wait()
    try:
        assert operations(lambda: None) == alone
    finally:
        done.set()
        thread.join()
