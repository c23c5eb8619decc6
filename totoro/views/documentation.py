"""The OpenAPI 2 document, Swagger UI and Redoc, all from drf-yasg."""

from types import SimpleNamespace
from typing import Any

from django.http import HttpResponse
from drf_yasg import openapi
from drf_yasg.generators import OpenAPISchemaGenerator
from drf_yasg.views import get_schema_view
from rest_framework.request import Request

from movies.http.negotiation import QualityNegotiation
from movies.http.stored_documents import stored_document
from totoro.settings import VERSION

INFO = openapi.Info(
    title="Totoro API",
    default_version=VERSION,
    description=(
        "All Studio Ghibli movies, each with the people who appear in it, from the public Ghibli"
        " API.\n\nWhile the Ghibli API works, no data is older than a minute; `timestamp` is when it"
        " was requested. While the Ghibli API is down, the last known good data is served, marked as"
        " stale.\n\nErrors are always `application/problem+json` (RFC 9457), whatever the Accept"
        " header."
    ),
    contact=openapi.Contact(name="The Totoro team"),
    license=openapi.License(name="MIT", url="https://spdx.org/licenses/MIT.html"),
)
TAGS = {
    "movies": "Studio Ghibli's movies and the people who appear in them.",
    "problems": "The problem types of the API's errors, each explained.",
}

# Swagger UI and Redoc need inline styles and data: and blob: URLs. Scripts are loaded from this host
# only, and so are images: Redoc's logo, on another host, is blocked.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'"
)


class FormatParameter(QualityNegotiation):
    """Select the document by `?format=openapi`, a parameter that the API itself ignores."""

    settings = SimpleNamespace(URL_FORMAT_OVERRIDE="format")  # type: ignore[assignment]  # all it reads


class DocumentGenerator(OpenAPISchemaGenerator):  # type: ignore[misc]  # no types
    def get_schema(self, *args: Any, **kwargs: Any) -> openapi.Swagger:
        document = super().get_schema(*args, **kwargs)
        document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
        return document

    def get_path_parameters(self, path: str, view_cls: type) -> list[openapi.Parameter]:
        """Return none: each operation declares its own."""
        return []


# Without a URL, so without host and scheme, the document is right behind any proxy.
GeneratedSchemaView: Any = get_schema_view(
    INFO, url="", public=True, generator_class=DocumentGenerator
)
stored_schema = stored_document(GeneratedSchemaView.get)


class SchemaView(GeneratedSchemaView):  # type: ignore[misc]  # no types
    content_negotiation_class = FormatParameter

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        # Pages are not compressed, so that the debug toolbar can change them.
        is_page = request.accepted_media_type == "text/html"
        get = GeneratedSchemaView.get if is_page else stored_schema
        response: HttpResponse = get(self, request, *args, **kwargs)
        if is_page:
            response["Content-Security-Policy"] = PAGE_POLICY
        return response
