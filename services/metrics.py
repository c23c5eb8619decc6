"""What operators can count: Prometheus metrics of the services.

`serve` gives its workers a common folder for them (PROMETHEUS_MULTIPROC_DIR), so that a scrape of any
worker covers all of them, including those that have ended. Counting costs under 2 µs.
"""

from prometheus_client import Counter, Gauge, Histogram

from services.exceptions import Reason

refreshes = Counter("totoro_refreshes", "Refreshes that ended.", ["outcome", "reason"])
refresh_duration = Histogram(
    "totoro_refresh_duration_seconds",
    "How long refreshes took.",
    ["outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20),
)
snapshot_timestamp = Gauge(
    "totoro_snapshot_timestamp_seconds",
    "When the Ghibli API was asked for the newest data (Unix time); 0 before there is any.",
    multiprocess_mode="max",
)
lease_requests = Counter("totoro_lease_requests", "Requests for the lease.", ["outcome"])
fencing_token = Gauge(
    "totoro_fencing_token", "The newest entry's fencing token.", multiprocess_mode="max"
)
upstream_data_repairs = Counter(
    "totoro_upstream_data_repairs", "Repaired defects of the Ghibli API's data.", ["defect"]
)
redis_errors = Counter("totoro_redis_errors", "Redis failed or took too long.", ["command"])
redis_invalid_values = Counter("totoro_redis_invalid_values", "Values in Redis that are not ours.")
database_errors = Counter("totoro_database_errors", "The database failed.", ["action"])
throttled_requests = Counter(
    "totoro_throttled_requests", "Requests of clients that had used up their quota."
)
cache_results = Counter("totoro_cache_results", "Results by cache status.", ["status"])

# There from the start: of a series that begins with 1, Prometheus sees no increase.
for _outcome in ("succeeded", "superseded"):
    refreshes.labels(_outcome, "")
for _reason in Reason:
    refreshes.labels("failed", _reason)
for _command in (
    *("read", "get_movies", "compare_and_set", "acquire_lease", "renew_lease", "release_lease"),
    "take_quota",
):
    redis_errors.labels(_command)
for _action in ("read", "write", "invalid_row"):
    database_errors.labels(_action)
