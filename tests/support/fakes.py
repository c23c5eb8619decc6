"""A fake clock, and small films and snapshots."""

from datetime import UTC, datetime, timedelta

from services.catalogue import merge
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.ghibli.client import Fetched

EPOCH = datetime(2026, 11, 24, tzinfo=UTC)


class FakeClock(Clock):
    """A clock that moves only when a test advances it. `wall_offset` sets the wall clock (seconds)."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds
        self.wall_offset = 0.0

    def boot(self) -> float:
        return self.seconds

    def boot_us(self) -> int:
        return int(self.seconds * 1_000_000)

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds + self.wall_offset)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


def make_fetched(timestamp: datetime, title: str = "Ponyo") -> Fetched:
    film = {"id": "ponyo", "title": title}
    return Fetched(timestamp, [film], [{"id": "sosuke", "name": "Sosuke", "films": "/films/ponyo"}])


def make_snapshot(timestamp: datetime = EPOCH, title: str = "Ponyo") -> Snapshot:
    fetched = make_fetched(timestamp, title)
    return Snapshot(timestamp, merge.build(fetched.films, fetched.people).movies)
