from kodo.access.throttle import Throttle


def test_a_burst_passes_and_the_next_waits():
    throttle = Throttle(burst=3, every_ms=1000)
    assert [throttle.wait_ms("a", 5000) for _ in range(4)] == [0, 0, 0, 1000]


def test_waiting_as_told_is_enough():
    throttle = Throttle(burst=1, every_ms=1000)
    assert throttle.wait_ms("a", 0) == 0
    wait = throttle.wait_ms("a", 400)
    assert wait == 600
    assert throttle.wait_ms("a", 400 + wait) == 0


def test_what_was_refused_does_not_count():
    throttle = Throttle(burst=1, every_ms=1000)
    assert throttle.wait_ms("a", 0) == 0
    assert [throttle.wait_ms("a", 500) for _ in range(3)] == [500, 500, 500]


def test_keys_do_not_spend_each_others_share():
    throttle = Throttle(burst=1, every_ms=1000)
    assert throttle.wait_ms("a", 0) == 0
    assert throttle.wait_ms("b", 0) == 0


def test_a_clock_set_back_locks_nobody_out():
    throttle = Throttle(burst=1, every_ms=1000)
    assert throttle.wait_ms("a", 10**9) == 0
    assert throttle.wait_ms("a", 0) == 0


def test_the_oldest_key_is_forgotten_over_the_bound():
    throttle = Throttle(burst=1, every_ms=1000, keys=2)
    for key in ("a", "b", "c"):
        throttle.wait_ms(key, 0)
    assert throttle.wait_ms("a", 0) == 0
    assert throttle.wait_ms("c", 0) == 1000
