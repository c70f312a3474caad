import sqlite3

import pytest

from kodo.registry.records.status import STATUS_SQL, Status, online, status

SEEN = 1_000_000
LATER = SEEN + 10**9


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (-5, Status.ONLINE),
        (0, Status.ONLINE),
        (299.999, Status.ONLINE),
        (300, Status.UNKNOWN),
        (3899.999, Status.UNKNOWN),
        (3900, Status.OFFLINE),
    ],
)
def test_a_silent_node_becomes_unknown_and_then_offline(age_s, expected):
    now = SEEN + round(age_s * 1000)
    assert status(now, seen_at=SEEN, expires_at=LATER, left=False) == expected


@pytest.mark.parametrize(("past_s", "expected"), [(-1, Status.ONLINE), (0, Status.UNKNOWN), (3600, Status.OFFLINE)])
def test_a_node_is_unknown_when_its_record_has_expired(past_s, expected):
    expires_at = SEEN + 10_000
    now = expires_at + past_s * 1000
    # It still sends heartbeats; they stand behind nothing.
    assert status(now, seen_at=now, expires_at=expires_at, left=False) == expected


def test_a_node_that_said_goodbye_is_offline_at_once():
    assert status(SEEN, seen_at=SEEN, expires_at=LATER, left=True) == Status.OFFLINE


def test_online_is_true_false_or_null():
    assert [online(state) for state in Status] == [True, False, None]


@pytest.mark.parametrize("age_s", [-5, 0, 299, 300, 301, 3899, 3900, 10_000])
@pytest.mark.parametrize("expires_s", [-1, 0, 100, 1000, 10**6])
@pytest.mark.parametrize("left_at", [None, 1])
def test_sql_judges_as_python_does(age_s, expires_s, left_at):
    now, expires_at = SEEN + age_s * 1000, SEEN + expires_s * 1000
    expected = online(status(now, seen_at=SEEN, expires_at=expires_at, left=left_at is not None))
    connection = sqlite3.connect(":memory:")
    try:
        sql = f"SELECT {STATUS_SQL} FROM (SELECT :seen AS seen_at, :expires AS expires_at, :left AS left_at) n"
        row = connection.execute(sql, {"now": now, "seen": SEEN, "expires": expires_at, "left": left_at}).fetchone()
    finally:
        connection.close()
    assert row[0] is expected if expected is None else row[0] == expected
