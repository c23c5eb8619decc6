"""What the OpenAPI document says of the movies: parameters, headers, statuses and real examples."""

from functools import cache
from typing import Any

from drf_yasg import openapi
from drf_yasg.utils import swagger_auto_schema
from rest_framework import serializers

from movies.query.params import (
    MAX_NAMES,
    DetailQuerySerializer,
    ListQuerySerializer,
    Names,
    Whole,
    Words,
)
from movies.serializers import (
    MovieDetailSerializer,
    MovieListSerializer,
    MovieSerializer,
    ProblemSerializer,
)
from services.catalogue import bundled, merge

JSON, PROBLEM = "application/json", "application/problem+json"
PORCO_ROSSO = "ebbb6b7c-945c-41ee-a792-de0e43191bd8"
# What Django takes for a text.
ANY_BUT_NUL = r"^[^\x00]*$"
TIMESTAMP = "2026-11-23T20:40:12.341359+00:00"


def parameters(serializer: type[serializers.Serializer[Any]]) -> list[openapi.Parameter]:
    """The query parameters that a serializer checks, with the same limits."""
    fields: dict[str, Any] = serializer().get_fields()
    return [
        openapi.Parameter(
            name,
            openapi.IN_QUERY,
            # Not as x-example: Swagger UI would ask with all of them at once.
            description=f"{field.help_text} For example `{field.example}`.",
            required=False,
            **kind(field),
        )
        for name, field in fields.items()
    ]


def kind(field: Whole | Words | Names) -> dict[str, Any]:
    match field:
        case Whole():
            return {"type": "integer", "minimum": field.least, "maximum": field.most}
        case Names():
            names = openapi.Items(type="string", enum=list(field.allowed))
            least = {"allowEmptyValue": True} if field.allow_blank else {"min_items": 1}
            listed = {"type": "array", "items": names, "collection_format": "csv"}
            return {**listed, "max_items": MAX_NAMES, **least}
        case Words():
            return {"type": "string", "max_length": field.max_length, "pattern": ANY_BUT_NUL}


def header(description: str, kind: str = "string") -> dict[str, str]:
    return {"type": kind, "description": description}


ALWAYS = {"X-Request-ID": header("The request's own, if it is a fit one, else a new one.")}
AGE = {
    "Cache-Control": header(
        "For how many seconds the answer stays fresh; no-cache if it is stale."
    ),
    "Cache-Status": header("How the answer was come by (RFC 9211), and why it is stale if it is."),
    "Age": header("Of a stale answer, in seconds.", "integer"),
    "ETag": header("Strong, of these bytes; for If-None-Match."),
    "Last-Modified": header("The envelope's timestamp, to the second."),
    "Vary": header("Accept, Accept-Encoding."),
}
QUOTA = {
    "RateLimit-Policy": header("How often one client may ask."),
    "RateLimit": header("How often it may still ask, and in how many seconds that starts anew."),
}
RETRY = {"Retry-After": header("Seconds.", "integer")}
LINK = {"Link": header("Of a page: its neighbours (RFC 8288), first, prev, next and last.")}


def problem(description: str, **headers: Any) -> openapi.Response:
    """Describe an error.

    Its media type is part of the text: `produces` of OpenAPI 2 is what a client may ask for with
    Accept, the same for all statuses, and nobody can ask for an error.
    """
    return openapi.Response(
        f"{description} As `{PROBLEM}`.", ProblemSerializer, headers={**ALWAYS, **headers}
    )


def answer(
    description: str, schema: type[serializers.Serializer[Any]], example: Any, **headers: Any
) -> openapi.Response:
    return openapi.Response(
        description, schema, examples={JSON: example}, headers={**ALWAYS, **AGE, **QUOTA, **headers}
    )


@cache
def example_movie() -> dict[str, Any]:
    facts = bundled.load()
    movies = merge.build(facts.films, facts.people).movies
    movie = next(movie for movie in movies if movie.id == PORCO_ROSSO)
    return dict(MovieSerializer(movie).data)


COMMON = {
    304: openapi.Response(
        "The client has this answer already: If-None-Match or If-Modified-Since says so.",
        headers={**ALWAYS, **AGE, **QUOTA},
    ),
    400: problem("A parameter is not what it may be: `detail` names it and says what is allowed."),
    406: problem("The header Accept rules out all that is on offer."),
    412: problem("If-Match or If-Unmodified-Since asks for another answer."),
    414: problem("The address is too long."),
    429: problem("Too many requests of this client.", **QUOTA, **RETRY),
    500: problem("A bug of Totoro's."),
    503: problem(
        "The Ghibli API cannot be used, and no earlier answer is kept: `type` says what is wrong.",
        **RETRY,
    ),
}

document_list = swagger_auto_schema(
    operation_id="listMovies",
    operation_summary="All movies with their people",
    tags=["movies"],
    produces=[JSON],
    manual_parameters=parameters(ListQuerySerializer),
    responses={
        200: answer(
            "The envelope of all movies, or of a page.",
            MovieListSerializer,
            {"api_data": [example_movie()], "timestamp": TIMESTAMP},
            **LINK,
        ),
        **COMMON,
    },
)
document_detail = swagger_auto_schema(
    operation_id="getMovie",
    operation_summary="One movie with its people",
    tags=["movies"],
    produces=[JSON],
    manual_parameters=[
        openapi.Parameter(
            "movie_id",
            openapi.IN_PATH,
            type=openapi.TYPE_STRING,
            description="A movie's `id`, in upper or lower case.",
            required=True,
            **{"x-example": PORCO_ROSSO},
        ),
        *parameters(DetailQuerySerializer),
    ],
    responses={
        200: answer(
            "The envelope of one movie.",
            MovieDetailSerializer,
            {"api_data": example_movie(), "timestamp": TIMESTAMP},
        ),
        **COMMON,
        404: problem("No movie has this id."),
    },
)
