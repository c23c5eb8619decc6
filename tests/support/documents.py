"""What the tests of the documents read of them."""

import re

from tests.support.servers import ROOT


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


README = read("README.md")


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)", prose(text), re.MULTILINE)


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (.*?) \|", prose(text), re.MULTILINE)
