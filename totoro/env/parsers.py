"""Parsers of environment variables that hold no URL, and of secrets in files.

Each takes a text without surrounding white space and returns its value, or raises ValueError with what
is allowed.
"""

import re
from collections.abc import Callable
from pathlib import Path

# The key in the .env.template of earlier versions.
TEMPLATE_SECRET = "filled-in-by-make"  # noqa: S105 (the one value that is never accepted)

MAX_SECRET_BYTES = 65_536

# As Django compares them: without a port or a scheme.
ALLOWED_HOST = re.compile(r"\*|\.?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
# As browsers send it: without a path or a user.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
RATE = re.compile("0*([1-9][0-9]{0,9})/(s|sec|second|m|min|minute|h|hour|d|day)")


def text_of_file(path: Path) -> str:
    """Return the text of a secret's file. The messages of errors contain no part of it."""
    try:
        if path.exists() and not path.is_file():  # a named pipe would block
            raise ValueError("must be a file, not a folder, pipe or device")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"must be a file that can be read: {error.strerror}") from None
    if not 0 < len(content.strip()) <= len(content) <= MAX_SECRET_BYTES:
        raise ValueError(f"must be a file with 1 to {MAX_SECRET_BYTES} bytes")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("must be a file in UTF-8") from None


def boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("must be true or false")


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() is slow for many digits.
        if re.fullmatch("[0-9]{1,100}", text) and minimum <= int(text) <= maximum:
            return int(text)
        raise ValueError(f"must be a whole number from {minimum} to {maximum}")

    return parse


def rate(text: str) -> tuple[int, int] | None:
    """Return requests and seconds, or None for `off`."""
    if text.lower() == "off":
        return None
    if match := RATE.fullmatch(text.lower()):
        return int(match[1]), {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2][0]]
    raise ValueError("must be off or like 600/min, with a whole number and s, min, h or day")


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.upper() in allowed:
            return text.upper()
        raise ValueError(f"must be one of {', '.join(allowed)}")

    return parse


def secret_key(text: str) -> str:
    if text not in ("", TEMPLATE_SECRET):
        return text
    raise ValueError(
        "must be a secret of your own, not empty and not the template's; `make"
        " create-env-vars-from-template` makes one"
    )


def hosts(text: str) -> list[str]:
    names = _names(text)
    if names and all(map(ALLOWED_HOST.fullmatch, names)):
        return names
    raise ValueError("must be host names or addresses without a port, separated by commas")


def origins(text: str) -> list[str]:
    names = _names(text.lower())
    if names == ["*"] or (names and all(map(ORIGIN.fullmatch, names))):
        return names
    raise ValueError("must be * or origins like https://example.org, separated by commas")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
