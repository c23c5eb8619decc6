"""The transitions of the shared state, and what of it is believed."""

import msgspec
import pytest

from services.exceptions import Reason, UpstreamError
from services.freshness.fencing import Superseded, publish, record_failure
from services.freshness.policy import Policy, clamp
from services.freshness.state import (
    FAILURES_REMEMBERED,
    SECOND,
    Backoff,
    Entry,
    State,
    adopt,
    shift,
)

POLICY = Policy(ttl=60, refresh_ahead=10, stale_if_error=3600)
NOW = 1000 * SECOND
WALL = 1_795_000_000 * SECOND
# In seconds.
SOON = SECOND // 2


def entry(token: int, starts: float = -20, ends: float = 39.5) -> Entry:
    """`starts` and `ends` in seconds from now; its data is as old as a lifetime of 59.5 s says."""
    age = 59.5 - ends
    times = NOW + int(starts * SECOND), NOW + int(ends * SECOND)
    return Entry(token, "a" * 64, WALL - int(age * SECOND), *times)


def backoff(failures: int, until: float) -> Backoff:
    return Backoff(failures, Reason.DNS, NOW + int(until * SECOND), failures)


def test_a_failure_long_after_the_others_is_newer_though_it_counts_as_the_first() -> None:
    state = State(None, None, backoff(3, -700))

    failed = record_failure(state, Reason.DNS, 5 * SECOND, 0, NOW)

    assert failed.failures_in_a_row(NOW) == 1
    assert failed.order > state.order


class TestPublish:
    def test_with_nothing_valid_it_is_in_use_at_once(self) -> None:
        state = publish(State(entry(1, -90, -30)), entry(2), 1, NOW, 0)

        assert state.next is None
        assert state.entry_at(NOW) == state.current
        assert state.newest_token == 2

    def test_a_valid_entry_stays_until_it_expires(self) -> None:
        state = publish(State(entry(1, -50, 9.5)), entry(2, 0, 59), 1, NOW, 0)

        assert state.entry_at(NOW) == entry(1, -50, 9.5)
        after = state.entry_at(NOW + int(9.5 * SECOND))
        assert after
        assert after.token == 2

    def test_a_pending_entry_is_not_replaced_by_an_outdated_lease_holder(self) -> None:
        state = publish(State(entry(1, -50, 9.5)), entry(2, 0, 59), 1, NOW, 0)

        with pytest.raises(Superseded):
            publish(state, entry(3), 1, NOW, 0)

    def test_what_has_expired_is_not_published(self) -> None:
        with pytest.raises(UpstreamError) as caught:
            publish(State(), entry(2, -60, 0), 0, NOW, 0)

        assert caught.value.reason is Reason.DEADLINE

    def test_what_has_expired_and_is_superseded_is_no_failure(self) -> None:
        with pytest.raises(Superseded):
            publish(State(entry(3)), entry(2, -60, 0), 1, NOW, 0)

    def test_publishing_twice_changes_nothing(self) -> None:
        state = publish(State(), entry(2), 0, NOW, 0)

        assert publish(state, entry(2), 0, NOW, 0) == state

    def test_after_failures_it_activates_for_all_a_little_later(self) -> None:
        outage = State(entry(1, -90, -30), None, backoff(2, -1))
        state = publish(outage, entry(2), 1, NOW, SOON)

        assert state.entry_at(NOW) is None
        assert state.last_entry(NOW) == entry(1, -90, -30)
        assert state.failures_in_a_row(NOW) == 0
        activated = state.entry_at(NOW + SOON)
        assert activated
        assert activated.token == 2

    def test_with_no_stale_data_in_use_it_activates_at_once(self) -> None:
        state = publish(State(None, None, backoff(1, -1)), entry(1), 0, NOW, 0)

        assert state.entry_at(NOW)

    def test_it_ends_the_backoff(self) -> None:
        assert publish(State(None, None, backoff(3, -1)), entry(1), 0, NOW, 0).backoff is None


class TestRecordFailure:
    @pytest.mark.parametrize(
        ("before", "failures"),
        [(None, 1), (backoff(1, 0), 2), (backoff(7, -599), 8), (backoff(7, -601), 1)],
    )
    def test_failures_add_up_while_they_are_remembered(
        self, before: Backoff | None, failures: int
    ) -> None:
        state = record_failure(State(None, None, before), Reason.DNS, 5 * SECOND, 0, NOW)

        assert state.backoff
        assert (state.backoff.failures, state.backoff.reason) == (failures, Reason.DNS)
        assert state.backoff.until == NOW + 5 * SECOND
        assert FAILURES_REMEMBERED == 600 * SECOND

    def test_it_says_when_the_failures_in_a_row_began(self) -> None:
        first = record_failure(State(), Reason.DNS, SECOND, 0, NOW)
        second = record_failure(first, Reason.DNS, SECOND, 0, NOW + 2 * SECOND)
        much_later = record_failure(second, Reason.DNS, SECOND, 0, NOW + 700 * SECOND)

        begins = [state.backoff.since for state in (first, second, much_later) if state.backoff]
        assert begins == [NOW, NOW, NOW + 700 * SECOND]

    def test_the_number_of_failures_stops_growing_where_the_document_could_not_hold_it(
        self,
    ) -> None:
        before = State(None, None, backoff(1_000_000, 0))
        after = record_failure(before, Reason.DNS, SECOND, 0, NOW)

        assert msgspec.json.decode(msgspec.json.encode(after), type=State) == after

    def test_it_leaves_entries_alone(self) -> None:
        state = record_failure(State(entry(1)), Reason.DNS, SECOND, 1, NOW)

        assert state.current == entry(1)

    @pytest.mark.parametrize("state", [State(entry(2)), State(entry(1), None, backoff(1, 3))])
    def test_news_are_not_overwritten(self, state: State) -> None:
        with pytest.raises(Superseded):
            record_failure(state, Reason.DNS, SECOND, 1, NOW)


class TestAdopt:
    def test_the_newer_state_wins(self) -> None:
        older, newer = State(entry(1)), State(entry(2))

        assert adopt(older, newer, NOW) == adopt(newer, older, NOW) == newer

    def test_with_the_same_entries_more_failures_are_newer(self) -> None:
        older, newer = State(entry(1)), State(entry(1), None, backoff(1, 5))

        assert adopt(older, newer, NOW) == adopt(newer, older, NOW) == newer

    def test_an_entry_keeps_its_expiry_unless_the_other_is_clearly_earlier(self) -> None:
        for read, ends in ((60, 39.5), (39.3, 39.5), (20, 20)):
            adopted = adopt(State(entry(1)), State(entry(1, -20, read)), NOW)
            assert adopted.current
            assert adopted.current.expires_at == NOW + int(ends * SECOND)

    def test_what_is_in_use_stays_if_only_its_successor_was_read(self) -> None:
        adopted = adopt(State(entry(1, -50, 9.5)), State(None, entry(2, 9.5, 59)), NOW)

        assert adopted.entry_at(NOW) == entry(1, -50, 9.5)

    @pytest.mark.parametrize("own", [State(entry(2, -20, 39.5)), State(None, entry(2, -20, 39.5))])
    def test_what_is_in_use_stays_if_others_share_an_older_entry_and_its_successor(
        self, own: State
    ) -> None:
        adopted = adopt(own, State(entry(1, -50, 9.5), entry(3, 9.5, 59)), NOW)

        assert adopted.entry_at(NOW) == entry(2, -20, 39.5)
        assert adopted.entry_at(NOW + 10 * SECOND) == entry(3, 9.5, 59)


class TestClamp:
    def believed(self, state: State, *, wall: float = 0, store: float = 0) -> State:
        """`wall` and `store`: how far these clocks are ahead (seconds)."""
        times = WALL + int(wall * SECOND), WALL + int(store * SECOND)
        return clamp(state, POLICY, NOW, *times)

    def test_what_is_in_order_is_believed(self) -> None:
        state = State(entry(1, -50, 9.5), entry(2, 9.5, 59), backoff(1, 5))

        assert self.believed(state) == state

    @pytest.mark.parametrize(
        ("wall", "ends"),
        [
            (0, 39.5),
            (0.3, 39.5),  # about the same: the store's clock counts, the same for everybody
            (20, 19.5),  # the wall clock says less is left
            (3600, -3560.5),  # our own clock was set forward
            (-3600, 39.5),  # our own clock was set back
        ],
    )
    def test_of_two_clocks_that_disagree_the_earlier_end_counts(
        self, wall: float, ends: float
    ) -> None:
        current = self.believed(State(entry(1)), wall=wall).current

        assert current
        assert current.expires_at == NOW + int(ends * SECOND)

    def test_nothing_outlives_its_lifetime(self) -> None:
        assert self.believed(State(entry(1, -20, 60.1))).current is None

    @pytest.mark.parametrize(("ahead", "is_believed"), [(4.9, True), (5.1, False), (1e6, False)])
    def test_data_dated_ahead_of_the_clock_is_refused(
        self, ahead: float, is_believed: bool
    ) -> None:
        future = msgspec.structs.replace(entry(1), timestamp=WALL + int(ahead * SECOND))

        assert bool(self.believed(State(future)).current) is is_believed

    @pytest.mark.parametrize(("years", "is_believed"), [(50, True), (150, False)])
    def test_a_token_of_a_clock_that_was_set_back_is_believed_and_a_made_up_one_is_not(
        self, years: int, is_believed: bool
    ) -> None:
        ahead = msgspec.structs.replace(entry(1), token=WALL + years * 365 * 86_400 * SECOND)

        assert bool(self.believed(State(ahead)).current) is is_believed

    def test_a_made_up_number_of_failures_is_refused(self) -> None:
        made_up = msgspec.structs.replace(backoff(1, 5), number=10**17)

        assert self.believed(State(None, None, made_up)).backoff is None

    def test_a_wall_clock_that_was_set_back_alone_refuses_nothing(self) -> None:
        assert self.believed(State(entry(1)), wall=-3600).current

    @pytest.mark.parametrize(("until", "is_believed"), [(299, True), (301, False), (1e9, False)])
    def test_a_backoff_longer_than_the_longest_is_dropped(
        self, until: float, is_believed: bool
    ) -> None:
        assert bool(self.believed(State(None, None, backoff(1, until))).backoff) is is_believed

    def test_an_activation_is_not_awaited_longer_than_it_takes(self) -> None:
        far = msgspec.structs.replace(entry(2), valid_from=NOW + 30 * SECOND)

        assert self.believed(State(None, far)).entry_at(NOW + SOON)

    def test_the_next_entry_is_newer_than_the_current_one(self) -> None:
        assert self.believed(State(entry(2, -50, 9.5), entry(1, 9.5, 59))).next is None


def test_another_time_line_and_back_changes_nothing() -> None:
    state = State(entry(1), entry(2), backoff(1, 5))

    assert shift(shift(state, 123_456_789_012), -123_456_789_012) == state


@pytest.mark.parametrize(
    "rubbish",
    [
        *(b"", b"123", b"null", b"[]", b"{", b'{"current":1}', b'{"extra":1}', b"\xff"),
        b'{"backoff":{"failures":-1,"reason":"dns","until":1}}',
        b'{"backoff":{"failures":1,"reason":"dns","until":"inf"}}',
        b'{"backoff":{"failures":1,"reason":"dns","until":1e999}}',
        b'{"backoff":{"failures":1,"reason":"nonsense","until":1}}',
        b'{"backoff":{"failures":1,"reason":"dns","until":100000000000000000000000}}',
        b'{"current":{"token":-1,"digest":"a","timestamp":0,"valid_from":0,"expires_at":0}}',
    ],
)
def test_a_document_that_is_not_a_state_is_not_decoded(rubbish: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        msgspec.json.decode(rubbish, type=State)
