"""The exceptions of Totoro.

TotoroError
├── MovieNotFound       no movie has the requested id (404)
├── UpstreamError       a refresh failed; views never see it
└── MoviesUnavailable   refreshes fail and there is no earlier data (503)
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a refresh failed: the word in the log, the metric and the problem's `type`."""

    DNS = "dns"
    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect_timeout"
    READ_TIMEOUT = "read_timeout"
    DEADLINE = "deadline"
    PROTOCOL = "protocol"
    RESET = "reset"
    TRUNCATED = "truncated"
    TLS = "tls"
    REDIRECT = "redirect"
    STATUS = "status"
    UPSTREAM_4XX = "upstream_4xx"
    UPSTREAM_5XX = "upstream_5xx"
    RATE_LIMITED = "rate_limited"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    BAD_JSON = "bad_json"
    SCHEMA = "schema"
    EMPTY = "empty"
    TORN = "torn"
    SHRUNK = "shrunk"
    SLOW = "slow"
    BUSY = "busy"
    INTERNAL = "internal"


class TotoroError(Exception):
    """The base class of all exceptions that Totoro raises on purpose."""


class MovieNotFound(TotoroError):
    def __init__(self, movie_id: str) -> None:
        super().__init__(f"Movie ID {movie_id} not present in external API!")


class UpstreamError(TotoroError):
    """A refresh failed.

    `retriable`: an immediate retry may help. `retry_after`: seconds for which the Ghibli API asked
    not to be called.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        retriable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retriable = retriable
        self.retry_after = retry_after


class MoviesUnavailable(TotoroError):
    """No movies can be served; `retry_after` is the time until the next attempt, in seconds."""

    def __init__(self, reason: Reason, *, retry_after: float) -> None:
        super().__init__(
            f"The movies cannot be fetched right now ({reason}), and no earlier data is available."
        )
        self.reason = reason
        self.retry_after = retry_after
