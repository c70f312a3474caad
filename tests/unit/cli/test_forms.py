"""Forms in a terminal: what is asked, and what becomes of the answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from kodo.cli.forms import fill_form, fill_missing, missing_inputs
from kodo.client.inputs import read_word
from kodo.client.schemas import labels


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    city: str
    zip: int = 1


class Approval(BaseModel):
    ok: bool
    depth: int = 3
    colour: Colour = Colour.RED
    words: list[str] = []
    note: str | None = None
    address: Address | None = None


class Person:
    """Types the lines given, one after the other; keeps what was asked and shown."""

    def __init__(self, *typed: str):
        self.typed = list(typed)
        self.asked: list[str] = []
        self.shown: list[str] = []
        self.secrets: list[bool] = []

    async def ask(self, prompt: str, secret: bool) -> str:
        self.asked.append(prompt)
        self.secrets.append(secret)
        return self.typed.pop(0)

    def say(self, text: str) -> None:
        self.shown.append(text)


async def fill(person: Person, schema: Any, **options: Any) -> Any:
    answer = await fill_form(schema, person.ask, person.say, **options)
    assert person.typed == []
    return answer


async def test_every_field_is_asked_for_and_read_by_its_type() -> None:
    person = Person("yes", "7", "blue", "a, b", "well", "y", "Ulm", "89073")
    assert await fill(person, Approval.model_json_schema()) == {
        "ok": True,
        "depth": 7,
        "colour": "blue",
        "words": ["a", "b"],
        "note": "well",
        "address": {"city": "Ulm", "zip": 89073},
    }


async def test_nothing_typed_takes_the_defaults() -> None:
    person = Person("no", "", "", "", "", "")
    answer = await fill(person, Approval.model_json_schema())
    assert answer == {"ok": False, "depth": 3, "colour": "red", "words": [], "note": None}


async def test_the_default_of_the_whole_gives_the_fields_theirs() -> None:
    person = Person("", "", "", "", "", "")
    answer = await fill(person, Approval.model_json_schema(), default={"ok": True, "depth": 9})
    assert (answer["ok"], answer["depth"]) == (True, 9)


async def test_a_line_that_does_not_fit_is_asked_for_again() -> None:
    person = Person("perhaps", "", "y")
    assert await fill(person, {"type": "boolean"}) is True
    assert "yes or no" in " ".join(person.shown)
    assert len(person.asked) == 3


async def test_a_choice_is_made_by_its_number() -> None:
    person = Person("2")
    assert await fill(person, {"enum": ["x", "y"]}) == "y"
    assert [text.strip() for text in person.shown] == ["1) x", "2) y"]


async def test_a_secret_is_not_echoed_nor_its_default_shown() -> None:
    class Login(BaseModel):
        token: SecretStr = SecretStr("s3cret")

    person = Person("")
    await fill(person, Login.model_json_schema(), default={"token": "s3cret"})
    assert person.secrets == [True]
    assert "s3cret" not in person.asked[0]


async def test_what_a_peer_wrote_cannot_act_on_the_terminal() -> None:
    class Evil(BaseModel):
        x: str = Field("\x1b[2Jdefault", description="\x1b]0;title\x07text\nsecond", title="t\r")

    person = Person("v")
    await fill(person, Evil.model_json_schema())
    everything = "".join(person.asked + person.shown)
    assert "\x1b" not in everything
    assert "\x07" not in everything
    assert "\r" not in everything
    assert "\n" not in everything


async def test_only_what_is_missing_is_asked_for() -> None:
    class Inputs(BaseModel):
        topic: str
        place: str
        depth: int = 3

    schema = Inputs.model_json_schema()
    assert missing_inputs(schema, {"place": "Ulm"}) == ["topic"]
    person = Person("bikes")
    assert await fill_missing(schema, {"place": "Ulm"}, person.ask, person.say) == {"place": "Ulm", "topic": "bikes"}


@pytest.mark.parametrize("schema", [None, True, [], "x", {"properties": 3, "required": "ok"}])
async def test_a_schema_that_is_none_asks_for_one_value(schema: Any) -> None:
    assert missing_inputs(schema, {}) == []
    assert await fill(Person('{"a": 1}'), schema) == {"a": 1}


PLAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "note": {
            "type": "string",
            "placeholder": "window seat",
            "description": "For the hotel.",
            "help": "Nobody else sees it.",
        },
        "by": {"enum": ["t", "b"], "enumNames": ["Train", "Bicycle"], "propertyOrder": 2},
        "size": {"oneOf": [{"const": 1, "title": "Small"}, {"const": 2}], "propertyOrder": 1},
    },
    "required": ["note", "by", "size"],
}


async def test_what_an_author_says_of_fields_is_shown_in_their_order() -> None:
    person = Person("2", "bicycle", "by the door")
    assert await fill(person, PLAN) == {"size": 2, "by": "b", "note": "by the door"}
    assert person.asked == ["size (1–2): ", "by (1–2): ", "note (e.g. window seat): "]
    assert person.shown == [
        "  1) Small (1)",
        "  2) 2 (2)",
        "  1) Train (t)",
        "  2) Bicycle (b)",
        "  For the hotel.",
        "  Nobody else sees it.",
    ]


GROUPED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "city": {"type": "string", "group": "Hotel"},
        "train": {"type": "string", "ui:group": "Way"},
        "stars": {"type": "integer", "group": " Hotel ", "propertyOrder": 1},
        "note": {"type": "string", "group": 7},
        "seat": {"type": "string", "group": "Way"},
    },
    "required": ["name", "seat", "city", "train", "stars"],
}


@pytest.mark.parametrize("ask", [fill_missing, None])
async def test_fields_of_a_group_stand_together_under_its_heading(ask: Any) -> None:
    person = Person("3", "Ulm", "ana", "RE 5", "window", "")
    filled = await (fill_missing(GROUPED, {}, person.ask, person.say) if ask else fill(person, GROUPED))
    assert filled == {"stars": 3, "city": "Ulm", "name": "ana", "train": "RE 5", "seat": "window"}
    names = ["stars (whole number)", "city", "name", "train", "seat", "note [leave out]"]
    assert [asked.removesuffix(": ") for asked in person.asked] == names[: 5 if ask else 6]
    assert person.shown == ["— Hotel —", "— Way —"]


@pytest.mark.parametrize("names", [None, "Train", ["Train"], ["Train", "Bicycle", "Car"], 7])
def test_names_that_do_not_fit_the_values_are_left_out(names: Any) -> None:
    assert labels({"enum": ["t", "b"], "enumNames": names}) is None


@pytest.mark.parametrize(("text", "value"), [("t", "t"), ("Train", "t"), ("bicycle", "b"), ("Train ", "t")])
def test_a_word_may_be_the_name_of_a_value(text: str, value: str) -> None:
    assert read_word(text, PLAN["properties"]["by"], PLAN) == value


def test_a_value_wins_over_the_name_of_another() -> None:
    assert read_word("a", {"enum": ["b", "a"], "enumNames": ["A", "B"]}, {}) == "a"


async def test_what_a_form_says_of_itself_is_shown_before_its_fields():
    person = Person("1")
    schema = {"type": "object", "description": "Arguments:\n{'what': 'a'}", "properties": {"x": {"type": "integer"}}}
    assert await fill_form(schema, person.ask, person.say) == {"x": 1}
    assert person.shown == ["Arguments:\n{'what': 'a'}"]


async def test_how_a_file_is_given_is_said() -> None:
    person = Person("@a.txt", "@b.txt, @c.txt")
    fields = {"one": {"type": "string", "format": "file"}, "many": {"type": "array", "items": {"format": "file"}}}
    await fill(person, {"type": "object", "properties": fields, "required": ["one", "many"]})
    assert person.asked == ["one (@ and the path of a file): ", "many (@ and a path, comma separated): "]
