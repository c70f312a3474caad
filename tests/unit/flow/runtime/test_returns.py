"""Return hints as schemas: what a flow that keeps its hint returns fits them, in the form in which it is stored."""

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, Field, SecretStr

from kodo.flow._runtime.plain import plain
from kodo.flow._runtime.returns import returned_schema

LIMIT = 32_000


class Level(enum.Enum):
    LOW = "low"


class Inner(BaseModel):
    word: str = Field(alias="theWord", default="w")
    hidden: str = Field("x", exclude=True)


class Tree(BaseModel):
    inner: Inner = Inner()
    children: list["Tree"] = []
    level: Level = Level.LOW


@dataclass
class Row:
    name: str
    size: int | None = None


class Point(NamedTuple):
    x: float
    y: float


class Facts(TypedDict):
    topic: str
    sure: NotRequired[bool]


KEPT = [
    (str, "x"),
    (int, 3),
    (float, 1.5),
    (bool, True),
    (None, None),
    (Optional[str], None),  # noqa: UP045 (as authors write it)
    (int | str, "x"),
    (Literal["a", 1], 1),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "x")),
    (set[int], {1, 2}),
    (dict[str, list[int]], {"a": [1]}),
    (Mapping[str, float], {"a": 1.5}),
    (Annotated[int, Field(ge=1)], 2),
    (Level, Level.LOW),
    (Tree, Tree(children=[Tree()])),
    (Row, Row("x")),
    (Point, Point(1.0, 2.0)),
    (Facts, {"topic": "x"}),
    (list[Facts], [{"topic": "x", "sure": True}]),
    (date, date(2026, 1, 31)),
    (timedelta, timedelta(hours=1)),
    (Decimal, Decimal("0.10")),
    (UUID, UUID(int=1)),
    (Path, Path("a/b")),
    (bytes, b"ab"),
    (SecretStr, SecretStr("x")),
    (Awaitable[int], 3),
    (Coroutine[Any, Any, list[str]], ["x"]),
    (Generator[str, None, int], 3),
]


def returning(hint: Any) -> Any:
    def work() -> None: ...

    work.__annotations__["return"] = hint
    return work


@pytest.mark.parametrize(("hint", "value"), KEPT, ids=[str(hint) for hint, _ in KEPT])
def test_what_keeps_a_hint_fits_its_schema_as_it_is_stored(hint: Any, value: Any) -> None:
    schema = returned_schema(returning(hint), LIMIT)
    assert schema
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(plain(value), schema)


@pytest.mark.parametrize(
    ("hint", "value"), [(int, "x"), (list[int], ["x"]), (Tree, {"level": "high"}), (Row, {}), (None, 1)]
)
def test_what_does_not_keep_it_does_not(hint: Any, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, returned_schema(returning(hint), LIMIT))


class Odd:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise RuntimeError("the author's own")


class Crew(BaseModel):
    agents: list[str] = []


Crew.__module__ = "crewai.crew"


@pytest.mark.parametrize(
    "hint", [Any, object, "NotThere", Odd, Callable[[], int], Iterator[int], AsyncIterator[int], Generator, Crew, 3]
)
def test_where_a_hint_tells_nothing_there_is_no_schema(hint: Any) -> None:
    assert returned_schema(returning(hint), LIMIT) == {}


def test_without_a_hint_there_is_no_schema() -> None:
    assert returned_schema(lambda: 1, LIMIT) == {}


def test_a_schema_that_is_too_long_is_not_told() -> None:
    hint = Literal[tuple(f"choice {number}" for number in range(5000))]  # type: ignore[valid-type]
    assert returned_schema(returning(hint), LIMIT) == {}
    assert returned_schema(returning(hint), 1 << 20)
