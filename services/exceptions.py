"""What can go wrong. totoro/exception_handler.py says what clients see of it."""

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """Why a refresh failed: the word in the log, the metric and the problem's `type`.

    `explanation` says it of the Ghibli API, on the problem's page.
    """

    explanation: str

    def __new__(cls, word: str, explanation: str) -> Self:
        reason = str.__new__(cls, word)
        reason._value_, reason.explanation = word, explanation
        return reason

    DNS = "dns", "its host name does not resolve"
    REFUSED = "refused", "it refuses connections"
    CONNECT_TIMEOUT = "connect_timeout", "connecting to it times out"
    READ_TIMEOUT = "read_timeout", "it accepts requests but does not respond"
    DEADLINE = "deadline", "it responds too slowly"
    PROTOCOL = "protocol", "its response is not HTTP"
    RESET = "reset", "it resets connections"
    TRUNCATED = "truncated", "its response is incomplete"
    TLS = "tls", "its TLS certificate cannot be verified"
    REDIRECT = "redirect", "it redirects to another URL, which Totoro does not follow"
    STATUS = "status", "it responds with an unexpected status"
    UPSTREAM_4XX = "upstream_4xx", "it rejects Totoro's requests"
    UPSTREAM_5XX = "upstream_5xx", "it responds with a server error"
    RATE_LIMITED = "rate_limited", "it limits the rate of Totoro's requests"
    CONTENT_TYPE = "content_type", "its response is not JSON"
    TOO_LARGE = "too_large", "its response is too large"
    BAD_JSON = "bad_json", "its response is invalid JSON"
    SCHEMA = "schema", "its data is not a list of films or people"
    EMPTY = "empty", "it lists no films or no people"
    TORN = "torn", "its films and its people do not match"
    SHRUNK = "shrunk", "more than half of its films are missing"
    SLOW = "slow", "it has not responded yet"
    BUSY = "busy", "too many requests are waiting for it already"
    INTERNAL = "internal", "Totoro failed to process its data"


class TotoroError(Exception):
    """The base class of all exceptions that Totoro raises on purpose."""


class MovieNotFound(TotoroError):
    def __init__(self, movie_id: str) -> None:
        super().__init__(f"Movie ID {movie_id} not present in external API!")


class UpstreamError(TotoroError):
    """A refresh failed; views never see it.

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
