from typing import Any

from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from movies import web_page
from movies.http.conditional import movies_response
from movies.http.representations import Representation, Representations
from movies.http.throttling import ClientThrottle
from movies.openapi import document_detail, document_list
from movies.query.pagination import paginate
from movies.query.parameters import DETAIL_PARAMETERS, LIST_PARAMETERS, Query, cached_parser
from movies.serializers import MovieDetailSerializer, MovieListSerializer, encode
from services.catalogue.snapshot import Snapshot
from services.freshness.cache import CacheStatus, new_snapshot
from services.movies import movie_service

representations = Representations()

parse_list_query, parse_detail_query = map(cached_parser, (LIST_PARAMETERS, DETAIL_PARAMETERS))


class MovieView(APIView):
    """DRF's view without what this API has not: log-in, permissions, versions and request bodies."""

    throttle_classes = [ClientThrottle]
    format_kwarg = None

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        drf_request = Request(request)
        # It refers to the request, for parsers. Without reference cycles the garbage collector rests.
        drf_request.parser_context.clear()
        return drf_request

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Before the content negotiation, so that a request that is not acceptable (406) counts as well.
        self.check_throttles(request)
        renderer, media_type = self.perform_content_negotiation(request)
        request.accepted_renderer, request.accepted_media_type = renderer, media_type

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        if "Vary" in response:
            # It has Accept already, for which DRF would look.
            self.headers.pop("Vary", None)
        return super().finalize_response(request, response, *args, **kwargs)


class MovieListView(MovieView):
    renderer_classes = [JSONRenderer, TemplateHTMLRenderer]

    @document_list
    def get(self, request: Request) -> HttpResponse:
        query = parse_list_query(request.META.get("QUERY_STRING", ""))
        result = movie_service().list()
        if isinstance(request.accepted_renderer, TemplateHTMLRenderer):
            is_stale = result.status is CacheStatus.STALE
            representation = representations.get(result.snapshot, web_page.render, query, is_stale)
        elif query.is_paged:
            url = request.build_absolute_uri(request.path)
            representation = representations.get(result.snapshot, render_page, query, url)
        else:
            representation = representations.get(result.snapshot, render_list, query)
        return movies_response(request._request, result, representation)

    head = get  # Django would set it on the view itself, which would be a reference cycle


class MovieDetailView(MovieView):
    @document_detail
    def get(self, request: Request, movie_id: str) -> HttpResponse:
        query = parse_detail_query(request.META.get("QUERY_STRING", ""))
        movie, result = movie_service().get(movie_id)
        representation = representations.get(result.snapshot, render_movie, query, movie.id)
        return movies_response(request._request, result, representation)

    head = get


@receiver(new_snapshot)
def prepare_representations(snapshot: Snapshot, **_: Any) -> None:
    representations.prepare(snapshot)


def render_list(snapshot: Snapshot, query: Query) -> Representation:
    contents = {"api_data": query.select(snapshot.movies), "timestamp": snapshot.timestamp}
    return render_json(MovieListSerializer, query, contents)


def render_page(snapshot: Snapshot, query: Query, url: str) -> Representation:
    page = paginate(query.select(snapshot.movies), query, url)
    contents = {"api_data": page.movies, "timestamp": snapshot.timestamp, "pagination": page}
    return render_json(MovieListSerializer, query, contents, {"Link": page.link_header})


def render_movie(snapshot: Snapshot, query: Query, movie_id: str) -> Representation:
    contents = {"api_data": snapshot.movie(movie_id), "timestamp": snapshot.timestamp}
    return render_json(MovieDetailSerializer, query, contents)


def render_json(
    envelope: type[serializers.Serializer[Any]],
    query: Query,
    contents: dict[str, Any],
    headers: dict[str, str] | None = None,
) -> Representation:
    serializer = envelope(contents, context={"fields": query.fields})
    return Representation(encode(serializer.data), "application/json", headers)
