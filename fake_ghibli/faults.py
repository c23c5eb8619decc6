"""Faults that the fake Ghibli API can inject into its responses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# Responses with these statuses have no body, so they cannot carry the HTML.
WITHOUT_BODY = (204, 304)


@dataclass
class Faults:
    delay: float = 0.0
    """Seconds before each response."""
    status: int | None = None
    """All responses have this status and a body of HTML."""
    reset: bool = False
    """Connections are reset in the middle of the body."""
    hang: bool = False
    """Requests are read and get no response."""
    stamp: bool = False
    """The description of every film is the time of the response."""

    def set(self, faults: Mapping[str, Any]) -> None:
        """Set all of them; none, with a ValueError, if one is invalid."""
        for name, value in faults.items():
            _check(name, value)
        for name, value in faults.items():
            setattr(self, name, value)


def _check(name: str, value: object) -> None:
    match name:
        case "delay":
            is_valid, meaning = _is_delay(value), "a number of seconds, 0 or more"
        case "status":
            is_valid, meaning = _is_status(value), "null or a status that has a body, 200 to 599"
        case "reset" | "hang" | "stamp":
            is_valid, meaning = isinstance(value, bool), "true or false"
        case _:
            known = ", ".join(fault.name for fault in fields(Faults))
            raise ValueError(f"There is no fault {name!r}, only {known}.")
    if not is_valid:
        raise ValueError(f"{name} is {meaning}, not {value!r}.")


def _is_delay(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def _is_status(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return value is None
    return 200 <= value <= 599 and value not in WITHOUT_BODY
