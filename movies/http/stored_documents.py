"""Documents that change only with a deploy: rendered once, with an ETag, gzip and a lifetime."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

from django.http import HttpResponse
from django.urls import get_script_prefix
from rest_framework.request import Request

from movies.http.conditional import conditional_response
from movies.http.representations import BoundedCache, Rendition

# Short enough that what a deploy changes is seen soon.
MAX_AGE_SECONDS = 300


class Document(NamedTuple):
    rendition: Rendition
    content_type: str


documents: BoundedCache[Document] = BoundedCache()


def stored_document(get: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Render what a DRF view's `get` responds once for each prefix, path and media type."""

    @wraps(get)
    def stored(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        def make() -> Document:
            response = get(view, request, *args, **kwargs)
            response.accepted_renderer = request.accepted_renderer
            response.accepted_media_type = request.accepted_media_type
            response.renderer_context = view.get_renderer_context()
            response.render()
            return Document(Rendition(response.content), response["Content-Type"])

        # Links in it hold the prefix under which this client sees Totoro.
        key = (get_script_prefix(), request.path, request.accepted_media_type)
        document = documents.get(key, make)
        response = conditional_response(request._request, document.rendition, document.content_type)
        response["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
        return response

    return stored
