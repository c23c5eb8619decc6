"""What operators can count: Prometheus metrics of the services.

`serve` gives its workers a common folder for them (PROMETHEUS_MULTIPROC_DIR), so that a scrape of any
worker tells of all, of those that have ended too. Adding one costs a worker under 2 µs.
"""

from prometheus_client import Counter, Gauge, Histogram

from services.exceptions import Reason

flights = Counter("totoro_flights", "Flights that ended.", ["outcome", "reason"])
flight_seconds = Histogram(
    "totoro_flight_seconds",
    "How long flights took.",
    ["outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20),
)
snapshot_timestamp = Gauge(
    "totoro_snapshot_timestamp_seconds",
    "When the Ghibli API was asked for the newest data (Unix time); 0 before the first answer.",
    multiprocess_mode="max",
)
leases = Counter("totoro_leases", "Asked for the right to fly.", ["outcome"])
fence = Gauge("totoro_fence", "The newest answer's fence.", multiprocess_mode="max")
publications = Counter("totoro_publications", "Answers handed to the other workers.", ["outcome"])
mended = Counter("totoro_mended", "Defects of the Ghibli API's data that were mended.", ["defect"])
redis_troubles = Counter("totoro_redis_troubles", "Redis failed or took too long.", ["command"])
redis_refused = Counter("totoro_redis_values_refused", "Values in Redis that are not ours.")
database_troubles = Counter("totoro_database_troubles", "The database failed.", ["action"])
throttled = Counter("totoro_throttled", "Requests of clients that had used up their quota.")
answers = Counter("totoro_answers", "Answers by how they were come by.", ["source"])

# There from the start: of a series that begins with 1, Prometheus sees no increase.
for _outcome in ("landed", "late"):
    flights.labels(_outcome, "")
for _reason in Reason:
    flights.labels("failed", _reason)
_COMMANDS = "view last acquire renew release publish fail restore restore_last lease_quota"
for _command in _COMMANDS.split():
    redis_troubles.labels(_command)
for _action in ("read", "write", "refused"):
    database_troubles.labels(_action)
