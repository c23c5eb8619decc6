"""What the workers share, and how it changes. Pure: no clock, no store, no lock.

Instants are integer microseconds of one time line: in a process that of its boot clock, in a shared
store that of the store's clock. `timestamp` alone is Unix time: that of the data. An expired `current`
is the last known good of the shared store until `next` activates.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec.structs import replace

from services.exceptions import Reason

SECOND = 1_000_000
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Two clocks that differ by no more than this count as equal.
AGREEMENT = SECOND // 2
# Failures count towards the next backoff for this long after the last one has ended.
FAILURES_REMEMBERED = 600 * SECOND
# What a document may hold as a number: far beyond today's microseconds, and safe to add up.
Number = Annotated[int, msgspec.Meta(ge=0, le=10**17)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A snapshot in use from `valid_from` to `expires_at`; `digest` names its bytes."""

    token: Number
    digest: Digest
    timestamp: Number
    valid_from: Number
    expires_at: Number


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nobody refreshes before `until`, after so many failures in a row since `since`.

    With 0 failures it is over, and the entry that ended it is about to activate. `number` grows with
    each failure since the newest entry, also when earlier failures are no longer remembered.
    """

    failures: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    reason: Reason
    until: Number
    number: Number = 0
    since: Number = 0


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one document that all workers share."""

    current: Entry | None = None
    next: Entry | None = None
    backoff: Backoff | None = None

    @property
    def entries(self) -> Iterator[Entry]:
        return (entry for entry in (self.current, self.next) if entry)

    def with_entries(self, change: Callable[[Entry], Entry | None]) -> "State":
        """Return the state with each entry changed, or left out where `change` returns None."""
        current, following = (entry and change(entry) for entry in (self.current, self.next))
        return State(current, following, self.backoff)

    @property
    def newest_token(self) -> int:
        return max((entry.token for entry in self.entries), default=0)

    @property
    def order(self) -> tuple[int, int]:
        """Of two states the one with the greater order is newer."""
        return self.newest_token, self.backoff.number if self.backoff else 0

    def entry_at(self, now: int) -> Entry | None:
        """Return the entry in use, or None."""
        entry = self.last_entry(now)
        return entry if entry and now < entry.expires_at else None

    def last_entry(self, now: int) -> Entry | None:
        """Return the newest entry that is or was in use."""
        if self.next and self.next.valid_from <= now:
            return self.next
        return self.current if self.current and self.current.valid_from <= now else None

    def pending_entry(self, now: int) -> Entry | None:
        """Return the next entry before its activation."""
        return self.next if self.next and now < self.next.valid_from else None

    def is_backing_off(self, now: int) -> bool:
        return self.backoff is not None and now < self.backoff.until

    def failures_in_a_row(self, now: int) -> int:
        backoff = self.backoff
        return backoff.failures if backoff and now < backoff.until + FAILURES_REMEMBERED else 0

    def situation(self, now: int) -> tuple[int, bool, int]:
        """Return what requests meet: the newest entry's token, whether it is valid, failures since."""
        last = self.last_entry(now)
        failures = self.backoff.failures if self.backoff else 0
        return last.token if last else 0, self.entry_at(now) is not None, failures


def microseconds(moment: datetime) -> int:
    return (moment - UNIX_EPOCH) // timedelta(microseconds=1)


def moment(timestamp: int) -> datetime:
    return UNIX_EPOCH + timedelta(microseconds=timestamp)


def adopt(own: State, read: State, now: int) -> State:
    """Return the newer of two states, with the times of entries that are known already.

    These were mapped to this process' clock when they were first seen. They may only end earlier: a
    store whose clock was set back must not prolong them. What is in use stays until something newer
    activates: the state of workers that shared another store may name an older entry before that.
    """
    if read.order < own.order:
        return own
    known = {entry.token: entry for entry in own.entries}

    def as_known(entry: Entry) -> Entry:
        first = known.get(entry.token, entry)
        is_earlier = entry.expires_at < first.expires_at - AGREEMENT
        return replace(first, expires_at=entry.expires_at) if is_earlier else first

    adopted = read.with_entries(as_known)
    current, following = adopted.current, adopted.next
    in_use = own.last_entry(now)
    if in_use and following and (current.token if current else 0) < in_use.token < following.token:
        return replace(adopted, current=in_use)
    return adopted


def shift(state: State, by: int) -> State:
    """Return the state with all instants on another time line."""

    def shifted(entry: Entry) -> Entry:
        return replace(entry, valid_from=entry.valid_from + by, expires_at=entry.expires_at + by)

    backoff = state.backoff
    if backoff:
        backoff = replace(backoff, until=backoff.until + by, since=max(backoff.since + by, 0))
    return replace(state.with_entries(shifted), backoff=backoff)
