"""The texts, parameters, headers and examples of the movies in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

import msgspec
from drf_yasg import openapi
from drf_yasg.utils import swagger_auto_schema

from movies.query.parameter_types import Parameter
from movies.query.parameters import DETAIL_PARAMETERS, LIST_PARAMETERS
from movies.serializers import (
    MovieDetailSerializer,
    MovieListSerializer,
    ProblemSerializer,
)
from services.catalogue import bundled, merge
from services.catalogue.snapshot import Snapshot

EXAMPLE_ID = "ebbb6b7c-945c-41ee-a792-de0e43191bd8"

HEADERS = {
    "X-Request-ID": "The request's own `X-Request-ID` if it is valid, else a new one.",
    "Cache-Control": "`max-age` is the number of seconds for which the response stays fresh. A stale"
    " response has `no-cache`.",
    "Cache-Status": "Whether the response comes from the cache (RFC 9211). `detail` says why it is"
    " stale.",
    "Age": "The age of a stale response in seconds.",
    "ETag": "A strong validator for `If-None-Match`. It depends on the encoding.",
    "Last-Modified": "The `timestamp` of the response, in whole seconds.",
    "Vary": "`Accept, Accept-Encoding`.",
    "RateLimit-Policy": "The number of requests that a client can make per window.",
    "RateLimit": "The number of requests left, and the seconds until the window resets.",
    "Retry-After": "The number of seconds to wait before the next request.",
    "Link": "URLs of the first, previous, next and last page (RFC 8288). Only on a page.",
}
INTEGER_HEADERS = ("Age", "Retry-After")
# Not of errors, and `Link` not of every response.
MOVIE_HEADERS = tuple(name for name in HEADERS if name not in ("Retry-After", "Link"))


def headers(*names: str) -> dict[str, dict[str, str]]:
    types = {name: "integer" if name in INTEGER_HEADERS else "string" for name in names}
    return {name: {"type": types[name], "description": HEADERS[name]} for name in names}


def problem(description: str, *header_names: str) -> openapi.Response:
    """Describe an error.

    Its media type is part of the text, because `produces` of OpenAPI 2 holds for all statuses.
    """
    return openapi.Response(
        f"{description} Returned as `application/problem+json`.",
        ProblemSerializer,
        headers=headers("X-Request-ID", *header_names),
    )


def query_parameters(parameters: Mapping[str, Parameter]) -> list[openapi.Parameter]:
    return [
        openapi.Parameter(
            name,
            openapi.IN_QUERY,
            # Not as x-example: Swagger UI would send all examples at once.
            description=f"{parameter.help_text} For example `{parameter.example}`.",
            **parameter.schema,
        )
        for name, parameter in parameters.items()
    ]


def example(api_data: Any) -> dict[str, Any]:
    envelope = {"api_data": api_data, "timestamp": "2026-11-23T20:40:12.341359+00:00"}
    return {"application/json": envelope}


def load_example_movie() -> Any:
    timestamp, films, people = bundled.load()
    snapshot = Snapshot(timestamp, merge.build(films, people).movies)
    return msgspec.to_builtins(snapshot.movie(EXAMPLE_ID))


EXAMPLE_MOVIE = load_example_movie()
COMMON_RESPONSES = {
    304: openapi.Response(
        "Not modified: the client's copy is current.", headers=headers(*MOVIE_HEADERS)
    ),
    400: problem("A query parameter is invalid. `detail` names it and says what is allowed."),
    406: problem("No media type that `Accept` allows is available."),
    412: problem("The precondition in `If-Match` or `If-Unmodified-Since` failed."),
    414: problem("The URL is too long."),
    429: problem(
        "The client made too many requests.", "RateLimit-Policy", "RateLimit", "Retry-After"
    ),
    500: problem("An unexpected error in Totoro."),
    503: problem(
        "The Ghibli API is unavailable and there is no earlier data. `type` says why.",
        "Retry-After",
    ),
}

document_list = swagger_auto_schema(
    operation_id="listMovies",
    operation_summary="List movies",
    operation_description=(
        "Returns all Studio Ghibli movies, each with the people who appear in it, in the order of"
        " the Ghibli API.\n\nUse `limit` and `offset` to get a page of the list. A page has a third"
        " key, `pagination`, and a `Link` header."
    ),
    manual_parameters=query_parameters(LIST_PARAMETERS),
    responses={
        200: openapi.Response(
            "All movies that match, or a page of them.",
            MovieListSerializer,
            examples=example([EXAMPLE_MOVIE]),
            headers=headers(*MOVIE_HEADERS, "Link"),
        ),
        **COMMON_RESPONSES,
    },
)
document_detail = swagger_auto_schema(
    operation_id="getMovie",
    operation_summary="Get a movie",
    operation_description="Returns the movie with this ID, exactly as in the list.",
    manual_parameters=[
        openapi.Parameter(
            "movie_id",
            openapi.IN_PATH,
            type=openapi.TYPE_STRING,
            description="The `id` of the movie, in upper or lower case.",
            required=True,
            **{"x-example": EXAMPLE_ID},
        ),
        *query_parameters(DETAIL_PARAMETERS),
    ],
    responses={
        200: openapi.Response(
            "The movie.",
            MovieDetailSerializer,
            examples=example(EXAMPLE_MOVIE),
            headers=headers(*MOVIE_HEADERS),
        ),
        **COMMON_RESPONSES,
        404: problem("No movie has this ID."),
    },
)
