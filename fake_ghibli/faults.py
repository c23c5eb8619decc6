"""What can be made to go wrong with the fake Ghibli API, while it runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# These have no body by definition, so they cannot carry one of HTML.
WITHOUT_BODY = (204, 304)


@dataclass
class Faults:
    delay: float = 0.0
    """Seconds before each answer."""
    status: int | None = None
    """Every request gets this status and a body of HTML."""
    reset: bool = False
    """Connections are cut in the middle of the body."""
    hang: bool = False
    """Requests are taken and never answered."""
    stamp: bool = False
    """The description of every film is the time of the answer."""

    def set(self, wanted: Mapping[str, Any]) -> None:
        """Sets all of them or, with a ValueError, none."""
        for name, value in wanted.items():
            _check(name, value)
        for name, value in wanted.items():
            setattr(self, name, value)


def _check(name: str, value: object) -> None:
    match name:
        case "delay":
            right, meaning = _is_delay(value), "a number of seconds, 0 or more"
        case "status":
            right, meaning = _is_status(value), "null or a status that has a body, 200 to 599"
        case "reset" | "hang" | "stamp":
            right, meaning = isinstance(value, bool), "true or false"
        case _:
            known = ", ".join(fault.name for fault in fields(Faults))
            raise ValueError(f"There is no fault {name!r}, only {known}.")
    if not right:
        raise ValueError(f"{name} is {meaning}, not {value!r}.")


def _is_delay(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def _is_status(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return value is None
    return 200 <= value <= 599 and value not in WITHOUT_BODY
