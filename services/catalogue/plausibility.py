"""Refuse a snapshot from which most films have vanished, until the loss has lasted. Pure.

The list of films has not shrunk in years, so a large loss is probably a defect of the Ghibli API, and
the last known good is better. A loss that lasts may be intended and is accepted.
"""

from datetime import datetime

from services.catalogue.snapshot import Snapshot
from services.exceptions import Reason, UpstreamError

# A snapshot with less than this share of the known films is refused…
MIN_SHARE = 0.5
# …until so many refreshes in a row have returned the same number of films, over at least so many
# seconds: long enough to notice and revert a broken deployment.
MIN_REFRESHES = 3
MIN_SECONDS = 600.0


class PlausibilityCheck:
    """Counts the refreshes of this process with the same loss; a newer known snapshot ends it."""

    def __init__(self) -> None:
        self._loss: tuple[int, datetime] | None = None
        self._since = 0.0
        self._refreshes = 0

    def check(self, new: Snapshot, known: Snapshot, now: float) -> None:
        """Raise UpstreamError(SHRUNK) if `new` lacks too many films; `now` is of the boot clock."""
        films = len(new.movies)
        if films >= MIN_SHARE * len(known.movies):
            return
        loss = (films, known.timestamp)
        if loss != self._loss:
            self._loss, self._since, self._refreshes = loss, now, 0
        self._refreshes += 1
        if self._refreshes < MIN_REFRESHES or now - self._since < MIN_SECONDS:
            detail = f"only {films} of {len(known.movies)} films are left"
            raise UpstreamError(Reason.SHRUNK, detail)
