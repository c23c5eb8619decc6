"""Lifetimes, backoff, and when a refresh is due."""

import pytest

from services.exceptions import Reason
from services.freshness.policy import (
    LONGEST_BACKOFF_SECONDS,
    Policy,
    backoff_seconds,
    refresh_due,
)
from services.freshness.state import SECOND, Backoff, Entry, State

POLICY = Policy(ttl=60, refresh_ahead=10, stale_if_error=3600)
NOW = 1000 * SECOND


def entry(token: int, starts: float, ends: float) -> Entry:
    """`starts` and `ends` in seconds from now."""
    times = NOW + int(starts * SECOND), NOW + int(ends * SECOND)
    return Entry(token, "a" * 64, 0, *times)


@pytest.mark.parametrize(("ttl", "seconds"), [(60, 59.5), (10, 9.5), (2, 1.9), (1, 0.95)])
def test_an_entry_expires_a_little_before_its_ttl(ttl: float, seconds: float) -> None:
    assert Policy(ttl, 0, 0).lifetime == int(seconds * SECOND)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 30), (99, 30)])
def test_backoffs_grow_to_half_a_minute(failures: int, seconds: float) -> None:
    assert backoff_seconds(failures, None, 0.0) == seconds


def test_backoffs_vary_by_a_fifth() -> None:
    assert backoff_seconds(1, None, -1.0) == pytest.approx(4)
    assert backoff_seconds(1, None, 1.0) == pytest.approx(6)


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(7, 7), (2, 5), (999_999, 300), (-1, 5), (0.5, 5)]
)
def test_the_ghibli_api_may_ask_for_a_longer_backoff(retry_after: float, seconds: float) -> None:
    assert backoff_seconds(1, retry_after, 0.0) == seconds
    assert seconds <= LONGEST_BACKOFF_SECONDS


BACKOFF = Backoff(1, Reason.DNS, NOW + 5 * SECOND)


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        pytest.param(State(), 0, id="nothing"),
        pytest.param(State(entry(1, -30, 30)), 20, id="ahead of its end"),
        pytest.param(State(entry(1, -55, 5)), 0, id="in its last seconds"),
        pytest.param(State(entry(1, -90, -30)), 0, id="expired"),
        pytest.param(State(entry(1, -55, 5), entry(2, 5, 60)), 5, id="next is there"),
        pytest.param(State(entry(1, -90, -30), None, BACKOFF), 5, id="backoff"),
        pytest.param(State(entry(1, -52, 8), None, BACKOFF), 5, id="backoff in its last seconds"),
    ],
)
def test_a_refresh_is_due_only_if_requested(state: State, seconds: float) -> None:
    assert refresh_due(state, NOW, POLICY, requested=True) == seconds * SECOND
    assert refresh_due(state, NOW, POLICY, requested=False) is None
