"""Documents that change only with a deploy: rendered once, with an ETag, gzip and a lifetime."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpResponse
from django.urls import get_script_prefix
from rest_framework.request import Request

from movies.http.bounded_store import BoundedStore
from movies.http.conditional import conditional_response
from movies.http.representations import Representation

# Short, so that clients see the changes of a deploy soon.
MAX_AGE_SECONDS = 300
# More than there are, unless clients can set the prefix.
MAX_DOCUMENTS = 256
MAX_BYTES = 4 * 1024 * 1024
# Of documents for people, which load styles.
PAGE_POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

documents = BoundedStore[Representation](MAX_DOCUMENTS, MAX_BYTES)


def stored_document(get: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Render the response of a DRF view's `get` once for each prefix, path and media type."""

    @wraps(get)
    def stored(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        # Links in a document contain the prefix under which the client sees Totoro.
        key = get_script_prefix(), request.path, request.accepted_media_type
        document = documents.get(key)
        if document is None:
            response = view.finalize_response(request, get(view, request, *args, **kwargs))
            is_page = request.accepted_media_type == "text/html"
            policy = {"Content-Security-Policy": PAGE_POLICY} if is_page else {}
            content = response.render().content
            document = Representation(content, response["Content-Type"], policy)
            documents.put(key, document, document.size)
        headers = {"Cache-Control": f"public, max-age={MAX_AGE_SECONDS}"}
        return conditional_response(request._request, document, headers)

    return stored
