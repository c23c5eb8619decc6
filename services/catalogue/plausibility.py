"""Films that are gone: not believed at first, believed when they stay away. Pure.

The Ghibli API has had the same films for years. When many of them vanish, something broke there, and
what is kept is better than what comes. But one day it may be meant.
"""

from datetime import datetime
from typing import NamedTuple

from services.catalogue.snapshot import Snapshot
from services.exceptions import Reason, UpstreamError

# Fewer films than this share of the last good answer's are not believed…
SHARE = 0.5
# …until so many flights in a row brought as few, over so many seconds: ten minutes are enough to
# notice a broken deployment and to take it back.
FLIGHTS = 3
SECONDS = 600.0


class Loss(NamedTuple):
    """So many films are left; since the answer of `known`, `flights` in a row brought as many, the
    first of them at `since` (boot clock)."""

    films: int
    known: datetime
    since: float
    flights: int = 0


def is_loss(found: Snapshot, known: Snapshot) -> bool:
    return len(found.movies) < SHARE * len(known.movies)


class Shrinkage:
    """What one process has seen of it. A good answer, from whomever, makes it start anew."""

    def __init__(self) -> None:
        self._loss: Loss | None = None

    def check(self, found: Snapshot, known: Snapshot, now: float) -> None:
        """UpstreamError if too little is left of what is known to believe it already."""
        if not is_loss(found, known):
            return
        films = len(found.movies)
        loss = self._loss
        if not loss or (loss.films, loss.known) != (films, known.timestamp):
            loss = Loss(films, known.timestamp, now)
        self._loss = loss = loss._replace(flights=loss.flights + 1)
        if loss.flights < FLIGHTS or now - loss.since < SECONDS:
            raise UpstreamError(
                Reason.SHRUNK, f"only {films} of {len(known.movies)} films are left"
            )
