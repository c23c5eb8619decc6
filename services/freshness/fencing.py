"""The changes of the shared state that a lease holder makes. Pure.

A holder that stalled and comes late is refused by its fencing token: the state has a newer one.
"""

from msgspec.structs import replace

from services.exceptions import Reason, UpstreamError
from services.freshness.state import Backoff, Entry, State


class Superseded(Exception):
    """Another worker was faster, and what it shared stays."""


def publish(state: State, entry: Entry, known_token: int, now: int, propagation: int) -> State:
    """Return the state with a new entry.

    A valid entry stays until it expires. If workers serve stale data because of a backoff, all
    change to the new entry `propagation` later, when each has read of it. Raises Superseded if the
    state is newer than what was known when the lease began, UpstreamError if the entry has expired.
    """
    if state.newest_token == entry.token:  # it was stored, and the reply got lost
        return state
    if state.newest_token > known_token:
        raise Superseded
    if entry.expires_at <= now:
        raise UpstreamError(Reason.DEADLINE, "the data took longer to arrive than it is fresh")
    if current := state.entry_at(now):
        return State(current, replace(entry, valid_from=current.expires_at))
    if propagation and state.backoff and state.failures_in_a_row(now):
        ended = Backoff(0, state.backoff.reason, now)
        activated = replace(entry, valid_from=now + propagation)
        return State(state.last_entry(now), activated, ended)
    return State(replace(entry, valid_from=now))


def record_failure(
    state: State, reason: Reason, duration: int, known_token: int, now: int
) -> State:
    """Return the state with a backoff of that duration; Superseded if it is newer than known."""
    if state.newest_token > known_token or state.is_backing_off(now):
        raise Superseded
    earlier = state.failures_in_a_row(now)
    since = state.backoff.since if state.backoff and earlier else now
    # A document that somebody else wrote may hold the greatest number there can be.
    failures, number = min(earlier + 1, 1_000_000), state.order[1] + 1
    return replace(state, backoff=Backoff(failures, reason, now + duration, number, since))
