"""Queries mean what they mean in pandas: the same random records, asked by both, in SQL and in memory."""

import json
import sqlite3
import warnings

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kodo.registry.query.query import QueryError, parse_query
from kodo.registry.query.rows import fits
from kodo.registry.query.sql import compile_query, register_functions
from kodo.registry.query.tree import Kind

FIELDS = {
    "name": Kind.TEXT,
    "author": Kind.TEXT,
    "size": Kind.NUMBER,
    "score": Kind.NUMBER,
    "online": Kind.BOOL,
    "published": Kind.TIME,
    "tags": Kind.TAGS,
}
TEXTS = [
    "",
    "a",
    "A",
    "trend",
    "Trend",
    "a trend ",
    "ß",
    "ẞ",
    "straße",
    "STRASSE",
    "İ",
    "é",
    "e\u0301",
    "Ω",
    "x|y",
    "😀",
    "%_",
]
NUMBERS = [0.0, 1.0, -1.0, 1.5, 2.0, -2.5, 3.0, 1e9]
DAYS = ["'2024-01-01'", "'2024-06-30T12:00:00'", "'1969-12-31'"]

nulls = ["isnull", "notnull", "isna", "notna"]
texts = st.sampled_from(TEXTS)
records = st.lists(
    st.fixed_dictionaries(
        {
            "name": texts,
            "author": st.none() | texts,
            "size": st.sampled_from([0, 1, 2, 3, -7, 1000]),
            "score": st.none() | st.sampled_from(NUMBERS),
            "online": st.sampled_from([True, False, None]),
            "published": st.sampled_from([0, 1_704_067_200_000, 1_719_748_800_000, 1_735_682_400_000, -1]),
            "tags": st.lists(texts.filter(bool), max_size=3),
        }
    ),
    min_size=1,
    max_size=8,
)

# Each is the query for us, and the same for pandas, which knows no lists in cells and takes what contains gets for a
# regular expression.


def same(strategy):
    return strategy.map(lambda text: (text, text))


def joined(form, *strategies):
    """Put pairs into `form`, each into its own language."""
    return st.tuples(*strategies).map(
        lambda found: (form.format(*(pair[0] for pair in found)), form.format(*(pair[1] for pair in found)))
    )


quoted = texts.map(repr)
column = st.sampled_from(["name", "author"])
text_value = st.one_of(
    same(column), joined("{}.str.{}()", same(column), same(st.sampled_from(["lower", "upper", "strip"])))
)
number = st.recursive(
    same(st.sampled_from(["size", "score", "score", "size", "2", "0", "0.5", "-1", "3"])),
    lambda inner: (
        joined("({} {} {})", inner, same(st.sampled_from(["+", "-", "*", "/", "//", "%"])), inner)
        | joined("(-{})", inner)
    ),
    max_leaves=3,
)
field_number = joined("({} + {})", same(st.sampled_from(["size", "score"])), number) | same(
    st.sampled_from(["size", "score"])
)
sign = same(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
tested = joined(
    "{}.str.{}({})", text_value, same(st.sampled_from(["startswith", "endswith"])), same(quoted)
) | st.tuples(text_value, quoted).map(lambda found: (f"{found[0][0]}.str.contains({found[1]}, regex=False)",) * 2)
atom = st.one_of(
    joined("{} {} {}", text_value, sign, same(quoted)),
    joined("{} {} {}", same(quoted), sign, text_value),
    joined("name {} author", sign),
    joined("{} {} {}", field_number, sign, number),
    joined("{} {} {} {} {}", number, sign, field_number, sign, number),
    joined("{}.str.len() {} {}", text_value, sign, same(st.sampled_from(["0", "1", "5"]))),
    joined(
        "published {} {}",
        same(st.sampled_from(["<", "<=", ">", ">="])),
        same(st.sampled_from(DAYS)),
    ),
    joined("online {} {}", same(st.sampled_from(["==", "!="])), same(st.sampled_from(["True", "False"]))),
    joined(
        "{}.{}()", text_value | same(st.sampled_from(["score", "online"])), same(st.sampled_from(["isnull", "notna"]))
    ),
    joined("{} {} {}", same(column), same(st.sampled_from(["in", "not in"])), same(st.lists(texts).map(repr))),
    joined("score {} [1, 2.0, -2.5]", same(st.sampled_from(["in", "not in", "==", "!="]))),
    tested,
    st.tuples(quoted, st.sampled_from(["in", "not in"])).map(
        lambda found: (
            f"{found[0]} {found[1]} tags",
            f"{'not ' * (found[1] == 'not in')}@tagged(tags, {found[0]})",
        )
    ),
)
queries = st.recursive(
    atom,
    lambda inner: (
        joined("{} {} {}", inner, same(st.sampled_from(["and", "or", "&", "|"])), inner)
        | joined("not ({})", inner)
        | joined("~({})", inner)
        | joined("({})", inner)
    ),
    max_leaves=5,
)


def tagged(tags, word):
    """Say of each row whether `word` is among its tags."""
    return pd.Series([word in row for row in tags], index=tags.index)


def by_pandas(rows, query):
    frame = pd.DataFrame(rows).astype({"name": "str", "author": "str", "size": "float64", "score": "float64"})
    frame["online"] = frame["online"].astype(object)
    frame["published"] = pd.to_datetime(frame["published"], unit="ms")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(frame.query(query, local_dict={"tagged": tagged}, engine="python").index)


def by_sql(rows, condition):
    connection = sqlite3.connect(":memory:")
    try:
        register_functions(connection)
        connection.execute(f"CREATE TABLE t ({', '.join(FIELDS)})")
        for row in rows:
            values = [json.dumps(row["tags"]) if name == "tags" else row[name] for name in FIELDS]
            connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(FIELDS))})", values)
        parameters = {}
        sql = compile_query(condition, {name: f"t.{name}" for name in FIELDS}, parameters)
        return [
            row[0] - 1 for row in connection.execute(f"SELECT rowid FROM t WHERE {sql} ORDER BY rowid", parameters)
        ]
    finally:
        connection.close()


@settings(max_examples=300)
@given(records, queries)
@example(
    [{"name": "K", "author": None, "size": 1, "score": None, "online": None, "published": 0, "tags": []}],
    ("not (author == 'K') & score != 1 | size / 0 > 1",) * 2,
)
@example(
    [{"name": "K", "author": None, "size": 1, "score": 0, "online": None, "published": 0, "tags": []}],
    ("size / -score < 0",) * 2,
)
@example(
    [{"name": "K", "author": None, "size": 1, "score": 0, "online": None, "published": 0, "tags": []}],
    ("size / -0 > 0 and size / (0 * -1) > 0 and size / -0.0 < 0",) * 2,
)
def test_a_query_finds_what_pandas_finds(rows, query):
    ours, theirs = query
    try:
        condition = parse_query(ours, FIELDS)
    except QueryError:
        # Constants alone: Python divides them by zero before pandas gets to see a column.
        with pytest.raises(ZeroDivisionError):
            by_pandas(rows, theirs)
        return
    in_memory = [at for at, row in enumerate(rows) if fits(condition, row)]
    assert by_sql(rows, condition) == in_memory == by_pandas(rows, theirs)
