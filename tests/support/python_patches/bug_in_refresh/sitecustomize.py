"""A bug in a function that every refresh calls. For servers under test, through PYTHONPATH."""

from typing import NoReturn

from requests.adapters import HTTPAdapter


def broken(*arguments: object, **options: object) -> NoReturn:
    raise TypeError("a bug in a refresh")


HTTPAdapter.send = broken  # type: ignore[method-assign]  # that is the bug
