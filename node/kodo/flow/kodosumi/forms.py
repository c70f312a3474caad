"""The elements of kodosumi's forms, and the JSON Schema that a `Model` of them is.

kodosumi shows a form in a browser, and an app gets what the browser sends: text, also for numbers, `""` where a field
was left empty, and a bool for a checkbox. `Model.schema` describes the same form, and `Model.values` makes of inputs
what the browser would send.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from kodo.protocol.uploads import UPLOAD_PATTERN

__all__ = [
    "HR",
    "HTML",
    "Action",
    "Break",
    "Cancel",
    "Checkbox",
    "Errors",
    "InputArea",
    "InputDate",
    "InputDateTime",
    "InputFiles",
    "InputNumber",
    "InputOption",
    "InputPassword",
    "InputText",
    "InputTime",
    "Markdown",
    "Model",
    "Select",
    "Submit",
]

_TIME = r"^\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?$"
_DATE_TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?$"


class Element:
    """One element; one with a `name` is a field."""

    name: str | None = None
    label: str | None = None
    value: Any = None
    required: bool = False

    def note(self) -> str:
        """Return its text for the form's description."""
        return ""

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a field."""
        return {}

    def sent(self, value: Any) -> Any:
        """Return what a browser would send for a value; None: nothing was filled in."""
        return "" if value is None else value


class _Note(Element):
    def __init__(self, text: str | None = None, *_: Any, **__: Any):
        self.text = text or ""


class Markdown(_Note):
    """Text above or between fields."""

    def note(self) -> str:
        """Return its text."""
        return dedent(self.text).strip()


class HTML(_Note):
    """Text with tags; the form's description has it without them."""

    def note(self) -> str:
        """Return its text."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.text)).strip()


class Break(_Note):
    """Room, which a JSON Schema has not."""


class HR(_Note):
    """A line, likewise."""


class Errors(_Note):
    """Where a browser shows what is wrong with the whole form."""


class Submit(_Note):
    """The button that sends the form."""


class Cancel(_Note):
    """The button that leaves it."""


class _Field(Element):
    def __init__(
        self,
        name: str,
        label: str | None = None,
        value: Any = None,
        required: bool = False,
        placeholder: str | None = None,
        **more: Any,
    ):
        self.name, self.label, self.value, self.required, self.placeholder = name, label, value, required, placeholder
        self.more = more
        """What only some kinds of fields have, as `pattern` and `max_length`."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema, without type."""
        found: dict[str, Any] = {"title": self.label or str(self.name).replace("_", " ").strip().capitalize()}
        if self.placeholder:
            found["description"] = f"For example: {self.placeholder}"
        if self.value not in (None, ""):
            found["default"] = self.value
        return found


class InputText(_Field):
    """One line of text."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema; what may be left empty may be empty whatever its pattern."""
        found = {**super().schema(), "type": "string"}
        if self.value not in (None, ""):
            found["default"] = str(self.value)
        if self.required:
            found["minLength"] = 1
        if self.more.get("max_length"):
            found["maxLength"] = int(self.more["max_length"])
        if pattern := self.pattern():
            found["pattern"] = pattern if self.required else f"^$|{pattern}"
        return found

    def pattern(self) -> str:
        """Return what the whole text has to match, empty for anything."""
        return f"^(?:{self.more['pattern']})$" if self.more.get("pattern") else ""


class InputPassword(InputText):
    """Text that is a secret."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema; a secret has no default, which everybody would see."""
        found = {key: part for key, part in super().schema().items() if key != "default"}
        return {**found, "format": "password", "writeOnly": True}


class InputArea(InputText):
    """Several lines of text."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {**super().schema(), "format": "textarea"}


class InputDate(InputText):
    """A date, which an app gets as text: `2026-01-31`."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        found = super().schema()
        return {**found, "format": "date"} if self.required else {**found, "pattern": r"^$|^\d{4}-\d{2}-\d{2}$"}


class InputTime(InputText):
    """A time of day, which an app gets as text: `12:30`."""

    def pattern(self) -> str:
        """Return the pattern of times."""
        return _TIME


class InputDateTime(InputText):
    """A date and time, which an app gets as text: `2026-01-31T12:30`."""

    def pattern(self) -> str:
        """Return the pattern of dates with times."""
        return _DATE_TIME


class InputNumber(_Field):
    """A number, which an app gets as text."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema; a step of whole numbers makes it an integer."""
        step, least = self.more.get("step"), self.more.get("min_value")
        whole = step is not None and float(step).is_integer() and float(least or 0).is_integer()
        found = {**super().schema(), "type": "integer" if whole else "number"}
        if "default" in found:
            found["default"] = int(self.value) if whole else float(self.value)
        for bound, key in ((least, "minimum"), (self.more.get("max_value"), "maximum")):
            if bound is not None:
                found[key] = bound
        return found

    def sent(self, value: Any) -> Any:
        """Return its text, a whole number's without `.0`."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        return "" if value is None else str(value)


class Checkbox(_Field):
    """Yes or no."""

    def __init__(
        self, name: str, option: str | None = None, label: str | None = None, value: bool = False, **more: Any
    ):
        super().__init__(name, label or option, bool(value), **more)
        self.option = option if label else None

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        told = {"description": self.option} if self.option and self.option != self.label else {}
        return {**super().schema(), "type": "boolean", "default": bool(self.value), **told}

    def sent(self, value: Any) -> Any:
        """Return whether it is ticked."""
        return bool(self.value if value is None else value)


class InputOption(Element):
    """One choice of a `Select`: `name` is its value."""

    def __init__(self, name: str | None = None, label: str | None = None, value: bool | None = False, **_: Any):
        self.name, self.label, self.value = name, label, value


class Select(_Field):
    """One of some choices."""

    def __init__(
        self,
        name: str,
        option: Iterable[InputOption | dict[str, Any]],
        label: str | None = None,
        value: str | None = None,
        **_: Any,
    ):
        self.option = [
            each
            if isinstance(each, InputOption)
            else InputOption(**{key: part for key, part in each.items() if key != "type"})
            for each in option
        ]
        chosen = next((each.name for each in self.option if each.value), None) if value is None else value
        # A browser sends the first one when nobody chooses.
        super().__init__(name, label, chosen or next((each.name for each in self.option), None))

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema; labels that say more than their values are in the description."""
        told = [f"{each.name}: {each.label}" for each in self.option if each.label and each.label != each.name]
        texts = {"description": "\n".join(told)} if told else {}
        return {**super().schema(), "type": "string", "enum": [each.name for each in self.option], **texts}

    def sent(self, value: Any) -> Any:
        """Return the value of the choice."""
        return self.value if value is None else value


class Action(_Field):
    """A button that sends the form with a value of its own; buttons of one name are one choice."""

    def __init__(self, name: str | None = None, value: str | None = None, text: str | None = None, **_: Any):
        super().__init__(name or "", text, value)
        self.name = name
        self.text = text or ""

    def sent(self, value: Any) -> Any:
        """Return the value of the button that was chosen, None when it was another one."""
        return value


class InputFiles(_Field):
    """Files; an app gets their names, and reads them by `tracer.fs()`, below `in/`."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        file: dict[str, Any] = {"type": "string", "format": "file", "pattern": UPLOAD_PATTERN}
        found = {key: part for key, part in super().schema().items() if key != "default"}
        if not (self.more.get("multiple") or self.more.get("directory")):
            return {**found, **file}
        return {**found, "type": "array", "items": file, **({"minItems": 1} if self.required else {})}

    def sent(self, value: Any) -> Any:
        """Return the files' names."""
        return {path.name for path in self.paths(value)} or None

    @staticmethod
    def paths(value: Any) -> list[Path]:
        """Return where the files of a value are."""
        return [Path(each) for each in (value if isinstance(value, list) else [value]) if each]


class Model:
    """A form: its elements in their order."""

    def __init__(self, *children: Element):
        self.children = list(children)

    def fields(self) -> list[Element]:
        """Return the elements that are fields."""
        return [each for each in self.children if each.name]

    def schema(self) -> dict[str, Any]:
        """Return the form as JSON Schema; the texts between its fields are its description."""
        properties: dict[str, Any] = {}
        required: list[str] = []
        submits = any(isinstance(each, Submit) for each in self.children)
        for each in self.fields():
            name = str(each.name)
            if isinstance(each, Action):
                self._add_button(properties, each)
            else:
                properties[name] = each.schema()
            if (each.required or (isinstance(each, Action) and not submits)) and "default" not in properties[name]:
                required.append(name)
        found = {"type": "object", "properties": properties, "required": list(dict.fromkeys(required))}
        notes = "\n\n".join(note for each in self.children if (note := each.note()))
        return {**found, "additionalProperties": False, **({"description": notes} if notes else {})}

    def _add_button(self, properties: dict[str, Any], button: Action) -> None:
        name, value = str(button.name), str(button.value or "")
        found = properties.setdefault(name, {"title": name.capitalize(), "type": "string", "enum": []})
        if value not in found["enum"]:
            found["enum"].append(value)
        if button.text and button.text != value:
            found["description"] = f"{found.get('description', '')}\n{value}: {button.text}".strip()

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an app gets for some inputs: of each field what a browser would send."""
        return {
            str(each.name): each.sent(
                inputs.get(str(each.name), None if isinstance(each, (Action, InputFiles)) else each.value)
            )
            for each in self.fields()
        }

    def files(self, inputs: Mapping[str, Any]) -> dict[str, Path]:
        """Return the files among some inputs, by name."""
        found = [each for each in self.fields() if isinstance(each, InputFiles)]
        return {path.name: path for each in found for path in each.paths(inputs.get(str(each.name)))}
