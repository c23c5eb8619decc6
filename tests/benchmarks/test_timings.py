import pytest

from benchmarks.load import BenchmarkError
from benchmarks.timings import around_expiries
from tests.support.load_client import LoadResult, ObservedResponse

# Responses in 30 s, one every 10 ms; the entry expires every 10 s.
RESPONSES = [number / 100 for number in range(3000)]


def response(sent: float, latency: float) -> ObservedResponse:
    timestamp = 1000.0 + sent // 10
    return ObservedResponse(0, 1, sent, sent + latency, 200, timestamp, 0.0, 0.0, "", "")


def test_only_responses_within_half_a_second_of_an_expiry_are_near_it() -> None:
    slow = {4.0: 0.3, 9.6: 0.05, 10.4: 0.07, 20.2: 0.09}
    result = LoadResult([response(sent, slow.get(sent, 0.001)) for sent in RESPONSES])
    slowest, steady = around_expiries(result)

    # The median of the two expiries. Of 2,800 others, one is slow, which p99.9 leaves out.
    assert slowest == pytest.approx((0.07 + 0.09) / 2)
    assert steady == pytest.approx(0.001)


def test_a_run_without_an_expiry_says_nothing() -> None:
    with pytest.raises(BenchmarkError, match="no entry has expired"):
        around_expiries(LoadResult([response(sent, 0.001) for sent in RESPONSES[:900]]))


def test_a_run_with_a_failed_request_says_nothing() -> None:
    responses = [response(sent, 0.001) for sent in RESPONSES]
    failed = responses[7]._replace(status=503)

    with pytest.raises(BenchmarkError, match="requests failed"):
        around_expiries(LoadResult([*responses, failed]))
