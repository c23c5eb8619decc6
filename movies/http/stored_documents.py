"""Documents that change only with a deploy: rendered once, with an ETag, gzip and a lifetime."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpResponse
from django.urls import get_script_prefix
from rest_framework.request import Request

from movies.http.conditional import conditional_response
from movies.http.representations import Representation, RepresentationCache

# Short, so that clients see the changes of a deploy soon.
MAX_AGE_SECONDS = 300

documents = RepresentationCache()


def stored_document(get: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Render the response of a DRF view's `get` once for each prefix, path and media type."""

    @wraps(get)
    def stored(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        def render() -> Representation:
            response = get(view, request, *args, **kwargs)
            view.finalize_response(request, response)
            response.render()
            return Representation(response.content, response["Content-Type"])

        # Links in a document contain the prefix under which the client sees Totoro.
        key = (get_script_prefix(), request.path, request.accepted_media_type)
        response = conditional_response(request._request, documents.get(key, render))
        response["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
        return response

    return stored
