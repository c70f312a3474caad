import json
import sqlite3

import pytest

from kodo.registry.query.query import MAX_QUERY_CHARACTERS, QueryError, parse_query
from kodo.registry.query.rows import fits
from kodo.registry.query.sql import compile_query, register_functions
from kodo.registry.query.tree import FLOW_FIELDS

ROWS = [
    {
        "name": "Trend Scout",
        "author": "ana@example.com",
        "online": True,
        "performance": 1.5,
        "tags": ["test", 'say "hi"'],
        "published": 1_704_067_200_000,
        "ping": {"cpu": 12.5, "queued": 0},
    },
    {
        "name": "trend radar",
        "author": "bob@example.com",
        "online": False,
        "performance": None,
        "tags": [],
        "published": 1_735_689_600_000,
        "ping": None,
    },
    {
        "name": "Straße",
        "author": None,
        "online": None,
        "performance": 2.0,
        "tags": ["Test"],
        "published": 5,
        "ping": {},
    },
]


@pytest.fixture(scope="module")
def by_sql():
    connection = sqlite3.connect(":memory:")
    register_functions(connection)
    columns = {name: f"t.{name}" for name in ROWS[0]} | {
        f"ping.{key}": f"json_extract(t.ping, '$.{key}')" for key in ("cpu", "queued")
    }
    connection.execute(f"CREATE TABLE t ({', '.join(ROWS[0])})")
    for row in ROWS:
        values = {key: json.dumps(value) if key in ("tags", "ping") else value for key, value in row.items()}
        connection.execute(f"INSERT INTO t VALUES ({', '.join(':' + key for key in values)})", values)

    def find(condition):
        parameters = {}
        sql = compile_query(condition, columns, parameters)
        return {row[0] - 1 for row in connection.execute(f"SELECT rowid FROM t WHERE {sql}", parameters)}

    yield find
    connection.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('online and performance > 1.2 and "test" in tags and name.str.contains("Trend")', {0}),
        ("online", {0}),
        ("not online", {1, 2}),
        ("~online", {1, 2}),
        ("online == False", {1}),
        ("online.isnull()", {2}),
        ("online in [True, False]", {0, 1}),
        ("performance != 1.5", {1, 2}),
        ("not performance > 1.7", {0, 1}),
        ("1 < performance <= 2", {0, 2}),
        ("performance == performance", {0, 2}),
        ("performance.isna() or performance > 1.7", {1, 2}),
        ("performance * 2 - 1 >= 2", {0, 2}),
        ("performance / 0 > 5", {0, 2}),
        ("performance // 1 == performance", {2}),
        ("-performance < -1.6", {2}),
        ("performance ** 2 == 2.25 | performance % 2 == 0", {0, 2}),
        ("online == True & performance > 1", {0}),
        ("online | performance > 1", {0, 2}),
        ("author in ['ana@example.com', 'x']", {0}),
        ("author not in ('ana@example.com',)", {1, 2}),
        ("author == ['ana@example.com']", {0}),
        ("author in []", set()),
        ('"test" not in tags', {1, 2}),
        ("'say \"hi\"' in tags", {0}),
        ("name in tags", set()),
        ('name.str.contains("trend")', {1}),
        ('name.str.lower().str.contains("trend")', {0, 1}),
        ('name.str.upper() == "STRASSE"', {2}),
        ('name.str.startswith("T")', {0}),
        ('name.str.endswith("r")', {1}),
        ('name.str.contains("t|e", regex=False)', set()),
        ('author.str.contains("")', {0, 1}),
        ('not author.str.contains("ana")', {1, 2}),
        ("name.str.len() == 6", {2}),
        ("name.str.strip() > 'Trend'", {0, 1}),
        ("published >= '2024-01-01' and published < '2025-01-01'", {0}),
        ("published == '2024-01-01T01:00:00+01:00'", {0}),
        ("'2024-06-01' < published", {1}),
        ("published in ['2025-01-01', '2024-01-01T00:00Z']", {0, 1}),
        ("published > 1704067199999", {0, 1}),
        ("published - 1 > '2024-01-01'", None),
        ("ping.cpu > 10", {0}),
        ("ping.queued.isnull()", {1, 2}),
        ("  (name=='Straße')  ", {2}),
    ],
)
def test_a_query_holds_for(by_sql, query, expected):
    if expected is None:
        with pytest.raises(QueryError):
            parse_query(query, FLOW_FIELDS)
        return
    condition = parse_query(query, FLOW_FIELDS)
    assert by_sql(condition) == expected
    assert {at for at, row in enumerate(ROWS) if fits(condition, row)} == expected


@pytest.mark.parametrize(
    ("query", "at", "word"),
    [
        ("", 0, "empty"),
        ("   ", 0, "empty"),
        ("online and", 10, "not a query"),
        ("name ==", 7, "not a query"),
        ("`name` == 'x'", 0, "not a query"),
        ("@name == 'x'", 0, "not a query"),
        ("online; online", 6, "not a query"),
        ("import os", 0, "not a query"),
        ("x = 1", None, "not a query"),
        ("name = 'x'", None, "not a query"),
        ("nmae == 'x'", 0, "no field"),
        ("performance > " + "9" * 400, 14, "whole numbers"),
        ("online == true", 10, "write True"),
        ("__import__('os').system('true')", 0, ".system() is not allowed"),
        ("online and eval('1')", 11, "functions cannot be called"),
        ("name.__class__ == 'x'", 0, "no field"),
        ("name.str.__class__ == 'x'", 0, "not allowed"),
        ("name.str.join('x') == 'x'", 0, ".str.join is not allowed"),
        ("name.map('x') == 'x'", 0, ".map() is not allowed"),
        ("ping.peer == 1", 0, "no field"),
        ("(lambda: 1)() == 1", 0, "functions cannot be called"),
        ("name == (lambda x: x)", 9, "lambda"),
        ("[x for x in tags] == 1", 0, "not allowed"),
        ("name[0] == 'x'", 0, "index"),
        ("name == f'{online}'", 8, "f-string"),
        ("(x := 1) == 1", 1, ":="),
        ("name == ('a' if online else 'b')", 9, "if"),
        ("name == {'a': 1}", 8, "dictionary"),
        ("online == await_(1)", 10, "functions"),
        ("name == b'x'", 8, "bytes"),
        ("performance == 1j", 15, "complex"),
        ("name == None", 8, "isnull"),
        ("name == ...", 8, "ellipsis"),
        ("name is 'x'", 0, "`is`"),
        ("name", 0, "not a condition"),
        ("performance + 1", 0, "not a condition"),
        ("tags == 'x'", 8, "does not compare"),
        ("tags == tags", 0, "in tags"),
        ("'x' in name", 7, "contains"),
        ("1 in tags", 0, "texts"),
        ("name == 3", 8, "does not compare"),
        ("performance > 'x'", 14, "does not compare"),
        ("online > True", 0, "order"),
        ("online == 1", 10, "does not compare"),
        ("published > 'soon'", 12, "ISO 8601"),
        ("published > '9999-12-31T23:59:59-23:59'", 12, "ISO 8601"),
        ("name + 'x' == 'x'", 0, "numbers"),
        ("~performance == 1", 0, "condition"),
        ("performance << 2 == 1", 0, "operator"),
        ("1 == 1", 0, "constants"),
        ("True", 0, "not a condition"),
        ("'x' in ['x']", 0, "a field on its left"),
        ("name in [author]", 9, "constants only"),
        ("name in ['a', 3]", 14, "does not compare"),
        ("name in [*tags]", 9, "not allowed"),
        ("(name == 'x') == True", 1, "condition"),
        ("name.isnull() == True", 0, "condition"),
        ("name.str.lower()", 0, "compare it"),
        ("name.str.contains(author)", 18, "in quotes"),
        ("name.str.contains('x', 'y')", 0, "argument"),
        ("name.str.contains('x', case=False)", 28, "regex=False"),
        ("name.str.contains('(a+)+$')", 18, "regular expressions"),
        ("name.str.contains('(a|aa)+', regex=True)", 35, "regex=False"),
        ("name.str.contains(**tags)", 20, "regex=False"),
        ("performance.str.len() > 1", 0, ".str takes"),
        ("tags.isnull()", 0, "never null"),
        ("performance > 9e999", 14, "finite"),
        ("performance > 99999999999999999999", 14, "whole numbers"),
        ("performance > 9**9**9**9", 17, "finite number"),
        ("performance > 1/0", 14, "finite number"),
        ("name == '\\x00'", 8, "NUL"),
        ("name == '\\ud800'", 8, "surrogate"),
        ("name == 'é' and nmae == 'x'", 16, "no field"),
        ("online & online | nmae == 'x'", 18, "no field"),
        ("online\nand online", 6, "one line"),
        ("online\0", 6, "one line"),
        ("name == '\ud800'", 9, "one line"),
        ("name == '" + "x" * MAX_QUERY_CHARACTERS + "'", MAX_QUERY_CHARACTERS, "at most"),
        ("(" * 60 + "online" + ")" * 60, None, None),
        ("(" * 2000 + "online" + ")" * 2000, None, "nested"),
        ("not " * 1000 + "online", None, "nested"),
        ("~" * 4000 + "online", None, "nested"),
        ("-" * 4000 + "performance > 1", None, "nested"),
        ("performance" + "+1" * 2000 + " > 1", None, "nested"),
        ("name" + ".str.lower()" * 300 + " == 'x'", None, "nested"),
        ("performance > " + "[" * 3000, None, ""),
        ("name in [" + "'x'," * 900 + "]", None, "elements"),
        ("'" * 3001, None, ""),
    ],
)
def test_what_is_no_query_is_refused_with_its_place(query, at, word):
    if word is None:
        parse_query(query, FLOW_FIELDS)
        return
    with pytest.raises(QueryError, match=r"^character \d+: ") as refused:
        parse_query(query, FLOW_FIELDS)
    assert word in str(refused.value)
    if at is not None:
        assert refused.value.at == at
