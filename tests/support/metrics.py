"""Which metrics there are, and what /metrics says."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

# By name, as Prometheus shows it, the labels.
METRICS: dict[str, tuple[str, ...]] = {
    "totoro_requests_total": ("route", "method", "status"),
    "totoro_request_duration_seconds": ("route",),
    "totoro_cache_results_total": ("status",),
    "totoro_throttled_requests_total": (),
    "totoro_refreshes_total": ("outcome", "reason"),
    "totoro_refresh_duration_seconds": ("outcome",),
    "totoro_snapshot_timestamp_seconds": (),
    "totoro_snapshot_age_seconds": (),
    "totoro_lease_requests_total": ("outcome",),
    "totoro_fencing_token": (),
    "totoro_upstream_data_repairs_total": ("defect",),
    "totoro_redis_up": (),
    "totoro_redis_duration_seconds": ("command",),
    "totoro_redis_errors_total": ("command",),
    "totoro_redis_invalid_values_total": (),
    "totoro_database_up": (),
    "totoro_database_duration_seconds": ("action",),
    "totoro_database_errors_total": ("action",),
    "totoro_worker_restarts_total": (),
    "totoro_build_info": ("version", "python"),
    "totoro_cache_ttl_seconds": (),
    "totoro_stale_if_error_seconds": (),
    "totoro_workers": (),
    "totoro_connection_limit": (),
    "totoro_memory_limit_bytes": (),
}
PROCESS_METRICS = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}

Sample = tuple[str, frozenset[tuple[str, str]]]


def metrics_in(text: str) -> Iterator[tuple[str, Metric]]:
    """Yield each metric of Prometheus' text format with its name as in METRICS."""
    for metric in text_string_to_metric_families(text):
        yield metric.name + ("_total" if metric.type == "counter" else ""), metric


def samples_in(text: str) -> dict[Sample, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for _, metric in metrics_in(text)
        for sample in metric.samples
    }
