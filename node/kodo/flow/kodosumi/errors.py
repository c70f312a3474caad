"""Errors that an app written for kodosumi raises."""

from __future__ import annotations

__all__ = ["InputsError", "KodosumiError"]

GLOBAL = "_global_"
"""The key of what is wrong with the form as a whole."""


class KodosumiError(Exception):
    """The root of an app's errors."""


class InputsError(KodosumiError):
    """What is wrong with inputs or an answer, as `InputsError("…", name="…")`; `errors` holds texts by field."""

    def __init__(self, *args: str, **kwargs: str):
        super().__init__(*args)
        self.errors: dict[str, list[str]] = {}
        self.add(**kwargs)

    def add(self, **kwargs: str) -> None:
        """Add a text to each of some fields."""
        for name, text in kwargs.items():
            self.errors.setdefault(name, []).append(text)

    def flash(self, message: str) -> None:
        """Add a text about the form as a whole."""
        self.add(**{GLOBAL: message})

    def has_errors(self) -> bool:
        """Return whether a field has a text."""
        return bool(self.errors)

    def __bool__(self) -> bool:
        return self.has_errors()

    def by_field(self) -> dict[str, list[str]]:
        """Return texts by field; those about the form as a whole are of the field without a name."""
        whole = [str(text) for text in (*self.args, *self.errors.get(GLOBAL, ()))]
        fields = {name: list(map(str, texts)) for name, texts in self.errors.items() if name != GLOBAL}
        return {**fields, "": whole} if whole else fields or {"": ["not accepted"]}

    def reasons(self) -> list[str]:
        """Return all texts, each with its field in front."""
        whole = [str(text) for text in (*self.args, *self.errors.get(GLOBAL, ()))]
        fields = [f"{name}: {text}" for name, texts in self.errors.items() if name != GLOBAL for text in texts]
        return [*whole, *fields] or ["not accepted"]
