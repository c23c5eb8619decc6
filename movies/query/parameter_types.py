"""The types of query parameters. Each accepts exactly what its OpenAPI `schema` says."""

from dataclasses import dataclass
from typing import Any

from rest_framework.exceptions import ValidationError

MAX_TEXT_LENGTH = 100
MAX_NAMES = 50


@dataclass(frozen=True, kw_only=True)
class IntegerParameter:
    """Decimal digits without sign, spaces or exponent."""

    allowed: range
    help_text: str
    example: int

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.allowed[0], "maximum": self.allowed[-1]}

    def parse(self, text: str) -> int:
        number = parse_digits(text, self.allowed)
        if number is None:
            raise ValidationError(
                f"Must be a whole number from {self.allowed[0]} to {self.allowed[-1]}."
            )
        return number


@dataclass(frozen=True, kw_only=True)
class TextParameter:
    """A text to search for."""

    help_text: str
    example: str

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": MAX_TEXT_LENGTH, "pattern": r"^[^\x00]*$"}

    def parse(self, text: str) -> str:
        if len(text) > MAX_TEXT_LENGTH:
            raise ValidationError(f"Must be at most {MAX_TEXT_LENGTH} characters.")
        if "\x00" in text:
            raise ValidationError("Null characters are not allowed.")
        return text.strip()


@dataclass(frozen=True, kw_only=True)
class NamesParameter:
    """Comma-separated names out of `allowed`; repeated names count once."""

    allowed: tuple[str, ...]
    help_text: str
    example: str
    can_be_empty: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "array",
            "items": {"type": "string", "enum": list(self.allowed)},
            "collectionFormat": "csv",
            "maxItems": MAX_NAMES,
            **({"allowEmptyValue": True} if self.can_be_empty else {"minItems": 1}),
        }

    def parse(self, text: str) -> tuple[str, ...]:
        names = [name.strip() for name in text.split(",")] if text.strip() else []
        if not names and not self.can_be_empty:
            raise ValidationError(f"Must be one or more of {', '.join(self.allowed)}.")
        if len(names) > MAX_NAMES:
            raise ValidationError(f"Must be at most {MAX_NAMES} names.")
        if unknown := [name for name in names if name not in self.allowed]:
            raise ValidationError(f"{unknown[0]!r} is not one of {', '.join(self.allowed)}.")
        return tuple(dict.fromkeys(names))


Parameter = IntegerParameter | TextParameter | NamesParameter


def parse_digits(text: str, allowed: range) -> int | None:
    """Return the number that ASCII digits spell if it is in the range, else None."""
    # The length is checked first: int() is slow for thousands of digits.
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(allowed[-1]))
    return int(text) if is_number and int(text) in allowed else None
