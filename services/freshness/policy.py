"""The numbers of the freshness guarantee: lifetimes, when a refresh is due, backoff. Pure."""

from typing import NamedTuple

from msgspec.structs import replace

from services.catalogue.snapshot import CLOCK_SKEW_SECONDS
from services.freshness.state import AGREEMENT, SECOND, Entry, State

# An entry expires this much (seconds) before the TTL is over, to be rendered, sent and read in time…
MARGIN_SECONDS = 0.5
# …but at most this share of a short TTL.
MARGIN_SHARE = 0.05
# Nobody refreshes for so long (seconds) after one, two, … failures in a row, give or take a fifth, so
# that processes that lost Redis do not ask in step.
BACKOFF_SECONDS = (5.0, 10.0, 20.0, 30.0)
BACKOFF_JITTER = 0.2
# The Ghibli API's own Retry-After may prolong a backoff, within these limits (seconds).
RETRY_AFTER_LIMITS = (1.0, 300.0)
LONGEST_BACKOFF_SECONDS = max(RETRY_AFTER_LIMITS[1], BACKOFF_SECONDS[-1] * (1 + BACKOFF_JITTER))
# The first entry after failures activates this much later: workers that serve stale data look for it
# every 0.2 s, a look takes 0.2 s at the most.
PROPAGATION_SECONDS = 0.5
# Fencing tokens are times of clocks that may have been set back since, and numbers of failures grow by one:
# beyond these they were made up, and would grow until no document may hold them.
MAX_TOKEN_AHEAD = 100 * 365 * 86_400 * SECOND
MAX_FAILURE_NUMBER = 10**9


class Policy(NamedTuple):
    """CACHE_TTL, REFRESH_AHEAD and STALE_IF_ERROR, in seconds.

    `max_waiting`: requests of a process that may wait for a refresh at a time; others need its threads.
    """

    ttl: float
    refresh_ahead: float
    stale_if_error: float
    max_waiting: int = 128

    @property
    def lifetime(self) -> int:
        """For how many microseconds an entry is valid, from its timestamp on."""
        return int((self.ttl - min(MARGIN_SECONDS, self.ttl * MARGIN_SHARE)) * SECOND)


def refresh_due(state: State, now: int, policy: Policy, *, requested: bool) -> int | None:
    """Return in how many microseconds a refresh is due, None for not at all.

    `requested`: a request came in this situation. What nobody asks for is not refreshed.
    """
    if not requested:
        return None
    if pending := state.pending_entry(now):
        return pending.valid_from - now
    entry = state.entry_at(now)
    due = entry.expires_at - int(policy.refresh_ahead * SECOND) if entry else now
    if state.backoff:
        due = max(due, state.backoff.until)
    return max(due - now, 0)


def backoff_seconds(failures: int, retry_after: float | None, jitter: float) -> float:
    """Return how long nobody refreshes after so many failures in a row; `jitter` from -1 to 1."""
    step = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
    least, most = RETRY_AFTER_LIMITS
    asked_for = min(max(retry_after, least), most) if retry_after is not None else 0.0
    return max(step * (1 + BACKOFF_JITTER * jitter), asked_for)


def clamp(state: State, policy: Policy, now: int, wall: int, store_time: int) -> State:
    """Return what may be believed of a state that somebody shared.

    `wall` and `store_time` are Unix times at `now`. An entry that outlives its lifetime or is dated
    ahead of both clocks is dropped, like one with a made-up token and a backoff beyond the longest:
    cut to a limit, it would move along with `now`. Where the wall clock ends an entry earlier than the
    store's, the wall clock counts: the store's may have been set back.
    """
    latest = max(wall, store_time) + int(CLOCK_SKEW_SECONDS * SECOND)

    def believed(entry: Entry | None, latest_start: int) -> Entry | None:
        if entry is None or entry.timestamp > latest or entry.token > latest + MAX_TOKEN_AHEAD:
            return None
        if entry.expires_at - now > policy.lifetime + AGREEMENT:
            return None
        end_by_wall = entry.timestamp + policy.lifetime - wall + now
        end = end_by_wall if end_by_wall < entry.expires_at - AGREEMENT else entry.expires_at
        return replace(entry, valid_from=min(entry.valid_from, latest_start), expires_at=end)

    current = believed(state.current, now)
    activation = now + int(PROPAGATION_SECONDS * SECOND)
    following = believed(state.next, max(activation, current.expires_at if current else 0))
    if current and following and following.token <= current.token:
        following = None
    backoff = state.backoff
    if backoff and (
        backoff.until - now > LONGEST_BACKOFF_SECONDS * SECOND
        or backoff.number > MAX_FAILURE_NUMBER
    ):
        backoff = None
    return State(current, following, backoff)
