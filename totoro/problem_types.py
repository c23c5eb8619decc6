"""The problem types of the API (RFC 9457): every error response has one of these."""

from dataclasses import dataclass

from django.urls import get_script_prefix

from services.exceptions import Reason


@dataclass(frozen=True)
class ProblemType:
    """`description` says what happened, `solution` what the client or the operator can do."""

    name: str
    status: int
    title: str
    description: str
    solution: str

    @property
    def uri(self) -> str:
        """Return the path of its page, with the prefix under which the client sees Totoro."""
        return f"{get_script_prefix()}problems/{self.name}/"


MOVIE_NOT_FOUND = ProblemType(
    "movie-not-found",
    404,
    "Movie not found",
    "No movie has this ID.",
    "Use an ID from the list at /movies/. IDs are not case-sensitive.",
)
NOT_FOUND = ProblemType(
    "not-found",
    404,
    "Not found",
    "Nothing exists at this URL.",
    "Check the URL. The documentation at / lists every URL of the API.",
)
BAD_REQUEST = ProblemType(
    "bad-request",
    400,
    "Bad request",
    "The request is malformed, or a query parameter is invalid.",
    "Correct the request before you send it again. If a parameter is invalid, the error's detail"
    " names the parameter and what it accepts.",
)
HOST_NOT_ALLOWED = ProblemType(
    "host-not-allowed",
    400,
    "Host not allowed",
    "The Host header of the request is not allowed by the server's ALLOWED_HOSTS variable.",
    "Check the URL. If you operate this server, add the host to ALLOWED_HOSTS and restart it. The"
    " log event host_not_allowed names the host.",
)
FORBIDDEN = ProblemType(
    "forbidden",
    403,
    "Forbidden",
    "No client is allowed to send this request.",
    "Do not send the request again.",
)
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed",
    405,
    "Method not allowed",
    "This URL does not support the method of the request.",
    "Use a method from the Allow header. The API is read-only.",
)
NOT_ACCEPTABLE = ProblemType(
    "not-acceptable",
    406,
    "Not acceptable",
    "This URL offers none of the media types in the Accept header.",
    "Remove the Accept header, or add */* to it.",
)
PRECONDITION_FAILED = ProblemType(
    "precondition-failed",
    412,
    "Precondition failed",
    "The current data does not match If-Match or If-Unmodified-Since.",
    "Remove these headers. To check whether data has changed, send If-None-Match.",
)
URI_TOO_LONG = ProblemType(
    "uri-too-long",
    414,
    "URI too long",
    "The URL, including its query string, is too long.",
    "Shorten the URL.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    415,
    "Unsupported media type",
    "The request has a body in a format that the API does not read.",
    "Send the request without a body.",
)
TOO_MANY_REQUESTS = ProblemType(
    "too-many-requests",
    429,
    "Too many requests",
    "Your client has sent more requests than the rate limit allows.",
    "Wait as many seconds as Retry-After says. RateLimit-Policy holds the limit, RateLimit what is"
    " left of it. To send fewer requests, cache responses for as long as Cache-Control allows.",
)
SERVER_ERROR = ProblemType(
    "server-error",
    500,
    "Server error",
    "Something went wrong in Totoro.",
    "Try again later. If you report the error, include its request_id: the server has logged the"
    " error under it.",
)


def upstream_problem_type(reason: Reason) -> ProblemType:
    name = reason.replace("_", "-").removeprefix("upstream-")
    return ProblemType(
        f"upstream-{name}",
        503,
        "The Ghibli API is unavailable",
        f"The Ghibli API, the source of the movies, cannot be used: {reason.explanation}. Totoro has"
        " no earlier data to serve instead.",
        "Try again after as many seconds as Retry-After says. Totoro keeps trying meanwhile.",
    )


_constants = [each for each in globals().values() if isinstance(each, ProblemType)]
PROBLEM_TYPES = {each.name: each for each in [*_constants, *map(upstream_problem_type, Reason)]}
