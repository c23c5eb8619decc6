"""The types of query parameters. Each accepts exactly what its OpenAPI `schema` says."""

from typing import Any

from rest_framework import serializers

MAX_TEXT_LENGTH = 100
MAX_NAMES = 50


class IntegerParameter(serializers.IntegerField):
    """Decimal digits without sign, spaces or exponent."""

    def __init__(self, min_value: int, max_value: int, *, example: int, **options: Any) -> None:
        super().__init__(min_value=min_value, max_value=max_value, required=False, **options)
        self.range = range(min_value, max_value + 1)
        self.example = example
        self.schema = {"type": "integer", "minimum": min_value, "maximum": max_value}

    def to_internal_value(self, data: Any) -> int:
        number = parse_digits(str(data), self.range)
        if number is None:
            raise serializers.ValidationError(
                f"Must be a whole number from {self.range[0]} to {self.range[-1]}."
            )
        return number


class TextParameter(serializers.CharField):
    """A text to search for. An empty text counts as absent, because forms send empty fields."""

    def __init__(self, *, example: str, **options: Any) -> None:
        # DRF would trim the text before it checks the length.
        super().__init__(
            required=False,
            allow_blank=True,
            max_length=MAX_TEXT_LENGTH,
            trim_whitespace=False,
            **options,
        )
        self.example = example
        # Without NUL, which Django refuses.
        self.schema = {"type": "string", "maxLength": MAX_TEXT_LENGTH, "pattern": r"^[^\x00]*$"}

    def run_validation(self, data: Any = serializers.empty) -> str:
        text: str = super().run_validation(data)
        return text.strip()


class NamesParameter(serializers.CharField):
    """Comma-separated names out of `allowed`; repeated names count once."""

    def __init__(self, allowed: tuple[str, ...], *, example: str, **options: Any) -> None:
        super().__init__(
            required=False,
            error_messages={"blank": f"Must be one or more of {', '.join(allowed)}."},
            **options,
        )
        self.allowed = allowed
        self.example = example
        self.schema = {
            "type": "array",
            "items": {"type": "string", "enum": list(allowed)},
            "collectionFormat": "csv",
            "maxItems": MAX_NAMES,
            **({"allowEmptyValue": True} if self.allow_blank else {"minItems": 1}),
        }

    def run_validation(self, data: Any = serializers.empty) -> Any:
        text = super().run_validation(data)
        names = [name.strip() for name in text.split(",")] if text else []
        if len(names) > MAX_NAMES:
            raise serializers.ValidationError(f"Must be at most {MAX_NAMES} names.")
        if unknown := [name for name in names if name not in self.allowed]:
            raise serializers.ValidationError(
                f"{unknown[0]!r} is not one of {', '.join(self.allowed)}."
            )
        return tuple(dict.fromkeys(names))


def parse_digits(text: str, allowed: range) -> int | None:
    """Return the number that ASCII digits spell if it is in the range, else None."""
    # The length is checked first: int() is slow for thousands of digits.
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(allowed[-1]))
    return int(text) if is_number and int(text) in allowed else None
