"""Text that management commands print."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return [line.rstrip() for line in lines]


def printable(text: str) -> str:
    """Replace control characters, which a terminal would execute, in data of the Ghibli API."""
    return "".join(character if character.isprintable() else "?" for character in text)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
