from collections.abc import Callable, Hashable
from typing import Any

from django.http import HttpResponse
from django.urls import get_script_prefix
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from movies import web_page
from movies.http.conditional import movies_response
from movies.http.representations import Representation, SnapshotRepresentations
from movies.http.throttling import ClientThrottle
from movies.openapi import document_detail, document_list
from movies.query.pagination import paginate
from movies.query.parameters import DetailQuerySerializer, ListQuerySerializer, Query, parse_query
from movies.serializers import MovieDetailSerializer, MovieListSerializer
from services.catalogue.snapshot import Snapshot
from services.freshness.cache import CacheResult, CacheStatus
from services.movies import movie_service

representations = SnapshotRepresentations()


class MovieView(APIView):
    http_method_names = ["get", "head", "options"]
    throttle_classes = [ClientThrottle]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Before the content negotiation, so that a request that is not acceptable (406) counts as well.
        super().check_throttles(request)
        super().initial(request, *args, **kwargs)

    def check_throttles(self, request: Request) -> None:
        """Do nothing where DRF calls this: `initial` has counted the request."""

    def respond(
        self,
        request: Request,
        result: CacheResult,
        key: Hashable,
        render: Callable[[], bytes],
        content_type: str = "application/json",
    ) -> HttpResponse:
        """Return the representation with this key, which is rendered once per snapshot."""
        representation = representations.of(result.snapshot).get(
            key, lambda: Representation(render(), content_type)
        )
        return movies_response(request._request, result, representation)


class MovieListView(MovieView):
    renderer_classes = [JSONRenderer, TemplateHTMLRenderer]

    @document_list
    def get(self, request: Request) -> HttpResponse:
        query = parse_query(request.query_params, ListQuerySerializer)
        result = movie_service().list()
        if isinstance(request.accepted_renderer, TemplateHTMLRenderer):
            return self._respond_with_html(request, query, result)
        if query.is_paged:
            return self._respond_with_page(request, query, result)

        def render() -> bytes:
            movies = query.select(result.snapshot.movies)
            return render_json(MovieListSerializer, result.snapshot, query, api_data=movies)

        return self.respond(request, result, query, render)

    def _respond_with_page(
        self, request: Request, query: Query, result: CacheResult
    ) -> HttpResponse:
        url = request.build_absolute_uri(request.path)
        page = paginate(query.select(result.snapshot.movies), query, url)

        def render() -> bytes:
            contents = {"api_data": page.movies, "pagination": page}
            return render_json(MovieListSerializer, result.snapshot, query, **contents)

        response = self.respond(request, result, (url, query), render)
        response["Link"] = page.link_header
        return response

    def _respond_with_html(
        self, request: Request, query: Query, result: CacheResult
    ) -> HttpResponse:
        is_stale = result.status is CacheStatus.STALE
        # Links in the HTML contain the prefix under which this client sees Totoro.
        key = (get_script_prefix(), query, is_stale)

        def render() -> bytes:
            return web_page.render(result.snapshot, query, is_stale=is_stale)

        response = self.respond(request, result, key, render, "text/html; charset=utf-8")
        response["Content-Security-Policy"] = web_page.POLICY
        return response


class MovieDetailView(MovieView):
    @document_detail
    def get(self, request: Request, movie_id: str) -> HttpResponse:
        query = parse_query(request.query_params, DetailQuerySerializer)
        movie, result = movie_service().get(movie_id)

        def render() -> bytes:
            return render_json(MovieDetailSerializer, result.snapshot, query, api_data=movie)

        return self.respond(request, result, (movie.id, query), render)


def render_json(
    envelope: type[serializers.Serializer[Any]], snapshot: Snapshot, query: Query, **contents: Any
) -> bytes:
    serializer = envelope(
        {"timestamp": snapshot.timestamp, **contents}, context={"fields": query.fields}
    )
    rendered: bytes = JSONRenderer().render(serializer.data)
    return rendered
