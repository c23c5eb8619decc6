"""A bug in what every refresh calls: for servers under test, by PYTHONPATH."""

from typing import NoReturn

import requests


def broken(*arguments: object, **options: object) -> NoReturn:
    raise TypeError("a bug in a refresh")


requests.Session.get = broken  # type: ignore[method-assign]  # that is the bug
