import pytest

from benchmarks.load import BenchmarkError, Load, Sample, checked, parse

# What wrk 4.1 prints with wrk.lua.
OUTPUT = """Running 3s test @ http://127.0.0.1:8000/movies/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.03ms  541.12us  11.20ms   91.29%%
    Req/Sec    31.52k     2.01k   34.61k    70.00%%
  94077 requests in 3.01s, 4.12GB read
Requests/sec:  31258.10
Transfer/sec:      1.37GB

{"requests": 94077, "seconds": 3.009684, "p50": 953, "p99": 2104, "p999": 5012, "slowest": 11203, "errors": %d}
"""


def test_reads_the_summary_of_wrk() -> None:
    load = parse(OUTPUT % 0)

    assert load == Load(94077, 3.009684, p50=953, p99=2104, p999=5012, slowest=11203)


def test_a_load_with_errors_is_no_measurement() -> None:
    with pytest.raises(BenchmarkError, match="3 of 94077 requests failed"):
        parse(OUTPUT % 3)


def test_a_load_without_responses_is_no_measurement() -> None:
    with pytest.raises(BenchmarkError):
        parse('{"requests": 0, "seconds": 3, "errors": 0}')


def test_capacity_is_requests_per_cpu_second_and_rate_per_second_of_the_clock() -> None:
    sample = Sample(1000, 4.0, p50=1, p99=1, p999=1, slowest=1, cpu_seconds=0.5)

    assert (sample.capacity, sample.rate) == (2000, 250)


def test_a_server_that_had_no_cpu_time_was_not_measured() -> None:
    enough = Sample(3, 2.0, p50=1, p99=1, p999=1, slowest=1, cpu_seconds=0.1)
    starved = Sample(3, 2.0, p50=1, p99=1, p999=1, slowest=1, cpu_seconds=0.0)

    assert checked(enough) is enough
    with pytest.raises(BenchmarkError, match=r"only 0\.00 s"):
        checked(starved)
