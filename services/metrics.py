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
    "When the data in the latest responses was requested from the Ghibli API (Unix time); 0 for none.",
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
redis_duration = Histogram(
    "totoro_redis_duration_seconds",
    "How long Redis took, retry included.",
    ["command"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
)
redis_invalid_values = Counter("totoro_redis_invalid_values", "Values in Redis that are not ours.")
database_errors = Counter("totoro_database_errors", "The database failed.", ["action"])
database_duration = Histogram(
    "totoro_database_duration_seconds",
    "How long the database took.",
    ["action"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2),
)
throttled_requests = Counter(
    "totoro_throttled_requests", "Requests of clients that had used up their quota."
)
cache_results = Counter("totoro_cache_results", "Results by cache status.", ["status"])

# There from the start: of a series that begins with 1, Prometheus sees no increase.
for _outcome in ("succeeded", "superseded"):
    refreshes.labels(_outcome, "")
for _reason in Reason:
    refreshes.labels("failed", _reason)
for _outcome in ("succeeded", "superseded", "failed"):
    refresh_duration.labels(_outcome)
for _outcome in ("granted", "busy", "lost"):
    lease_requests.labels(_outcome)
for _defect in ("duplicate", "unknown_film"):
    upstream_data_repairs.labels(_defect)
for _status in ("hit", "miss", "stale", "unavailable"):
    cache_results.labels(_status)
for _command in (
    *("read", "get_movies", "compare_and_set", "acquire_lease", "renew_lease", "release_lease"),
    "take_quota",
):
    redis_errors.labels(_command)
    redis_duration.labels(_command)
for _action in ("read", "write"):
    database_duration.labels(_action)
for _action in ("read", "write", "invalid_row"):
    database_errors.labels(_action)
