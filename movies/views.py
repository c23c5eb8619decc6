from collections.abc import Callable, Hashable
from typing import Any

from django.http import HttpResponse
from drf_yasg import openapi
from drf_yasg.utils import swagger_auto_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from movies import pages, selection
from movies.caching import respond
from movies.negotiation import WeighedNegotiation
from movies.query import DetailQuerySerializer, ListQuerySerializer, Query, read
from movies.renditions import Shelf, Shelves
from movies.serializers import (
    MovieDetailSerializer,
    MovieListSerializer,
    ProblemSerializer,
    TimestampField,
)
from services.freshness import Answer
from services.movies import movie_service

BAD_QUERY = openapi.Response(
    "A parameter is not what it may be: `detail` names it and says what is allowed.",
    ProblemSerializer,
)
UNAVAILABLE = openapi.Response(
    "The Ghibli API cannot be used and no earlier answer is kept. `Retry-After` says when to ask"
    " again, `type` what is wrong.",
    ProblemSerializer,
)
UNACCEPTABLE = openapi.Response("Only JSON is on offer.", ProblemSerializer)
NO_SUCH_MOVIE = openapi.Response("No movie has this id.", ProblemSerializer)
MOVIE_ID = openapi.Parameter(
    "movie_id",
    openapi.IN_PATH,
    type=openapi.TYPE_STRING,
    description="A movie's `id`, in upper or lower case.",
    required=True,
)

shelves = Shelves()


class MovieView(APIView):
    """What the list and one movie have in common."""

    http_method_names = ["get", "head", "options"]
    content_negotiation_class = WeighedNegotiation

    def respond(
        self,
        request: Request,
        answer: Answer,
        question: Hashable,
        represent: Callable[[Shelf], Any],
        extra: Callable[[], dict[str, Any]] = dict,
    ) -> HttpResponse:
        """The envelope of what `represent` makes of the answer's shelf, made once a question."""
        shelf = shelves.of(answer.snapshot)

        def make() -> bytes:
            timestamp = TimestampField().to_representation(answer.snapshot.timestamp)
            envelope = {"api_data": represent(shelf), "timestamp": timestamp, **extra()}
            rendered: bytes = JSONRenderer().render(envelope)
            return rendered

        rendition = shelf.get(question, make)
        return respond(request._request, answer, rendition, "application/json")


class MovieListView(MovieView):
    @swagger_auto_schema(
        operation_id="listMovies",
        operation_summary="All movies with their people",
        tags=["movies"],
        query_serializer=ListQuerySerializer,
        responses={200: MovieListSerializer, 400: BAD_QUERY, 406: UNACCEPTABLE, 503: UNAVAILABLE},
    )
    def get(self, request: Request) -> HttpResponse:
        """Every Studio Ghibli movie, each with the people who appear in it, oldest movie first.

        Without parameters all of them; with `limit` or `offset` a page, which has `pagination` as a
        third key and a `Link` header to its neighbours.
        """
        query = read(request.query_params, ListQuerySerializer)
        answer = movie_service().list()
        if query.is_paged:
            return self._page(request, query, answer)

        def represent(shelf: Shelf) -> list[Any]:
            movies = shelf.represented(selection.select(answer.snapshot.movies, query))
            return [selection.sparse(movie, query.fields) for movie in movies]

        return self.respond(request, answer, query, represent)

    def _page(self, request: Request, query: Query, answer: Answer) -> HttpResponse:
        page = selection.page(selection.select(answer.snapshot.movies, query), query)
        address = request.build_absolute_uri(request.path)
        links = pages.links(page, query, address)

        def represent(shelf: Shelf) -> list[Any]:
            movies = shelf.represented(page.movies)
            return [selection.sparse(movie, query.fields) for movie in movies]

        response = self.respond(
            request,
            answer,
            (address, query),
            represent,
            lambda: {"pagination": pages.pagination(page, links)},
        )
        response["Link"] = pages.link_header(links)
        return response


class MovieDetailView(MovieView):
    @swagger_auto_schema(
        operation_id="getMovie",
        operation_summary="One movie with its people",
        tags=["movies"],
        manual_parameters=[MOVIE_ID],
        query_serializer=DetailQuerySerializer,
        responses={
            200: MovieDetailSerializer,
            400: BAD_QUERY,
            404: NO_SUCH_MOVIE,
            406: UNACCEPTABLE,
            503: UNAVAILABLE,
        },
    )
    def get(self, request: Request, movie_id: str) -> HttpResponse:
        """The same object that the list holds."""
        query = read(request.query_params, DetailQuerySerializer)
        movie, answer = movie_service().get(movie_id)
        return self.respond(
            request,
            answer,
            (movie.id, query.fields),
            lambda shelf: selection.sparse(shelf.represented([movie])[0], query.fields),
        )
