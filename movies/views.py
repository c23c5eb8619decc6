from collections.abc import Callable, Hashable
from typing import Any

from django.http import HttpResponse
from django.template.loader import render_to_string
from django.urls import get_script_prefix
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from movies import web_page
from movies.http.conditional import respond
from movies.http.renderers import PageRenderer, PlainJSONRenderer
from movies.http.representations import Shelf, Shelves
from movies.http.throttling import ClientThrottle
from movies.openapi import document_detail, document_list
from movies.query import pagination
from movies.query.params import DetailQuerySerializer, ListQuerySerializer, Query, read_query
from movies.serializers import TimestampField, sparse
from services.freshness import Answer, Source
from services.movies import movie_service

shelves = Shelves()


class MovieView(APIView):
    """What the list and one movie have in common."""

    http_method_names = ["get", "head", "options"]
    throttle_classes = [ClientThrottle]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.check_throttles(request)  # first, so that what is not acceptable (406) counts too
        super().initial(request, *args, **kwargs)

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
    renderer_classes = [PlainJSONRenderer, PageRenderer]

    @document_list
    def get(self, request: Request) -> HttpResponse:
        """Every Studio Ghibli movie, each with the people who appear in it, in the Ghibli API's order.

        Without parameters all of them; with `limit` or `offset` a page, which has `pagination` as a
        third key and a `Link` header to its neighbours.
        """
        query = read_query(request.query_params, ListQuerySerializer)
        answer = movie_service().list()
        if isinstance(request.accepted_renderer, PageRenderer):
            return self._page_for_people(request, query, answer)
        if query.is_paged:
            return self._page(request, query, answer)

        def represent(shelf: Shelf) -> list[Any]:
            movies = shelf.represented(query.select(answer.snapshot.movies))
            return [sparse(movie, query.fields) for movie in movies]

        return self.respond(request, answer, query, represent)

    def _page(self, request: Request, query: Query, answer: Answer) -> HttpResponse:
        found = pagination.paginate(query.select(answer.snapshot.movies), query)
        address = request.build_absolute_uri(request.path)
        links = pagination.links(found, query, address)

        def represent(shelf: Shelf) -> list[Any]:
            movies = shelf.represented(found.movies)
            return [sparse(movie, query.fields) for movie in movies]

        response = self.respond(
            request,
            answer,
            (address, query),
            represent,
            lambda: {"pagination": pagination.summary(found, links)},
        )
        response["Link"] = pagination.link_header(links)
        return response

    def _page_for_people(self, request: Request, query: Query, answer: Answer) -> HttpResponse:
        is_stale = answer.source is Source.STALE

        def make() -> bytes:
            shown = web_page.show(answer.snapshot, query, is_stale=is_stale)
            return render_to_string("movies/list.html", shown).encode()

        # Its links hold the prefix under which this client sees Totoro.
        key = (PageRenderer, get_script_prefix(), query, is_stale)
        rendition = shelves.of(answer.snapshot).get(key, make)
        response = respond(request._request, answer, rendition, "text/html; charset=utf-8")
        response["Content-Security-Policy"] = web_page.POLICY
        return response


class MovieDetailView(MovieView):
    @document_detail
    def get(self, request: Request, movie_id: str) -> HttpResponse:
        """The same object that the list holds."""
        query = read_query(request.query_params, DetailQuerySerializer)
        movie, answer = movie_service().get(movie_id)
        return self.respond(
            request,
            answer,
            (movie.id, query.fields),
            lambda shelf: sparse(shelf.represented([movie])[0], query.fields),
        )
