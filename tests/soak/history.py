"""When which fault was active."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Window:
    """When something was down (monotonic seconds)."""

    start: float
    end: float = float("inf")


@dataclass
class Stopped(Window):
    """When a worker was stopped, and the ports of the clients connected to it."""

    ports: frozenset[int] = frozenset()


@dataclass
class History:
    """All injected faults."""

    upstream: list[Window] = field(default_factory=list)
    redis: list[Window] = field(default_factory=list)
    database: list[Window] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    kills: list[tuple[int, Window]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def close(window: Window) -> None:
    window.end = time.monotonic()


def is_open(windows: Sequence[Window]) -> bool:
    return any(window.end == float("inf") for window in windows)
