"""Typed access to the fields of a request body, with errors that name the field."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from gateway.errors import FieldError


class Fields:
    """The fields of one JSON object.

    A field that is absent or null has its default. Every field must be asked for or declared:
    `refuse_unknown` names the first that was not, so that nothing is silently dropped.
    """

    def __init__(self, body: Mapping[str, Any], path: str = "") -> None:
        """`path`: where the object stands in the body, e.g. `messages[0]`."""
        self._body = body
        self._path = path
        self._known: set[str] = set()

    def name(self, field: str) -> str:
        """The field as errors name it."""
        return f"{self._path}.{field}" if self._path else field

    def given(self, field: str) -> bool:
        """Whether the field has a value that is not null."""
        self._known.add(field)
        return self._body.get(field) is not None

    def value(self, field: str) -> Any:
        self._known.add(field)
        return self._body.get(field)

    def ignore(self, fields: Collection[str]) -> None:
        """Declares fields that change nothing here."""
        self._known.update(fields)

    def refuse_unknown(self) -> None:
        """Raises:
        FieldError: a field was neither asked for nor declared.
        """
        for field, value in self._body.items():
            if field not in self._known and value is not None:
                raise FieldError(
                    self.name(field),
                    f"Unrecognized request argument: {self.name(field)}",
                    code="unknown_parameter",
                )

    def string(self, field: str, default: str | None = None) -> str:
        """Without a default the field is required."""
        value = self._required(field, default)
        if not isinstance(value, str):
            raise self.wrong(field, "a string")
        return value

    def boolean(self, field: str, default: bool) -> bool:
        value = self._required(field, default)
        if not isinstance(value, bool):
            raise self.wrong(field, "true or false")
        return value

    def integer(self, field: str, default: int | None, *, low: int, high: int) -> int:
        """An integer from `low` to `high`; a float without a fraction counts as one."""
        value = self._required(field, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(field, "an integer")
        if not low <= value <= high:
            raise self.outside(field, low, high, value)
        return value

    def number(
        self, field: str, default: float, *, low: float, high: float = math.inf, above: bool = False
    ) -> float:
        """A finite number from `low` (above: excluded) to `high`."""
        value = self._required(field, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(field, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < low or number > high or (above and number == low):
            raise self.outside(field, low, high, value, above=above)
        return number

    def mapping(self, field: str) -> dict[str, Any]:
        """A JSON object; empty when absent."""
        value = self._required(field, {})
        if not isinstance(value, dict):
            raise self.wrong(field, "an object")
        return value

    def array(self, field: str) -> list[Any]:
        """A JSON array; empty when absent."""
        value = self._required(field, [])
        if not isinstance(value, list):
            raise self.wrong(field, "an array")
        return value

    def wrong(self, field: str, expected: str) -> FieldError:
        """The error for a value of the wrong type."""
        found = _type_name(self._body.get(field))
        return FieldError(
            self.name(field),
            f"{self.name(field)} must be {expected}, not {found}",
            code="invalid_type",
        )

    def outside(
        self, field: str, low: float, high: float, value: object, *, above: bool = False
    ) -> FieldError:
        """The error for a value out of range."""
        lower = f"above {low:g}" if above else f"at least {low}"
        upper = "" if math.isinf(high) else f" and at most {high}"
        shown = (
            str(value)[:40] if not isinstance(value, int) or abs(value) < 10**40 else "too large"
        )
        return FieldError(
            self.name(field),
            f"{self.name(field)} must be {lower}{upper}, not {shown}",
            code="invalid_value",
        )

    def _required(self, field: str, default: Any) -> Any:
        value = self.value(field)
        if value is not None:
            return value
        if default is None:
            raise FieldError(
                self.name(field),
                f"Missing required parameter: {self.name(field)}",
                code="missing_required_parameter",
            )
        return default


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else "null"
