"""The OpenAPI 2 document, Swagger UI and Redoc, all from drf-yasg's own files."""

from types import SimpleNamespace
from typing import Any

from django.http import HttpResponse
from drf_yasg import openapi
from drf_yasg.generators import OpenAPISchemaGenerator
from drf_yasg.views import get_schema_view
from rest_framework.request import Request

from movies.http.negotiation import WeighedNegotiation
from movies.http.stored_documents import stored_document
from totoro.settings import VERSION

INFO = openapi.Info(
    title="Totoro API",
    default_version=VERSION,
    description=(
        "All Studio Ghibli movies, each with the people who appear in it, from the public Ghibli"
        " API.\n\nNo answer is older than a minute while the Ghibli API is alive, and `timestamp`"
        " says how old it is. When the Ghibli API is away, the last good answer goes on, honestly"
        " marked as stale.\n\nErrors are `application/problem+json` (RFC 9457), whatever the request"
        " accepts."
    ),
    contact=openapi.Contact(name="The Totoro team"),
    license=openapi.License(name="MIT", url="https://spdx.org/licenses/MIT.html"),
)
TAGS = {
    "movies": "Studio Ghibli's movies and the people who appear in them.",
    "problems": "The kinds of error that the API returns, each explained.",
}

# Swagger UI and Redoc style themselves inline and draw with data: and blob: URLs; Redoc's logo from
# another host stays out. Scripts come from this host only.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'"
)


class FormatParameter(WeighedNegotiation):
    """Here `?format=openapi` picks the document; to the API itself `format` means nothing."""

    settings = SimpleNamespace(URL_FORMAT_OVERRIDE="format")  # type: ignore[assignment]  # all it reads


class DocumentGenerator(OpenAPISchemaGenerator):  # type: ignore[misc]  # no types
    def get_schema(self, *args: Any, **kwargs: Any) -> openapi.Swagger:
        document = super().get_schema(*args, **kwargs)
        document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
        return document

    def get_path_parameters(self, path: str, view_cls: type) -> list[openapi.Parameter]:
        """Return none: every operation describes its own, which may be declared once only."""
        return []


# Without a URL the document names no host and no scheme, so it is right behind any proxy.
GeneratedSchemaView: Any = get_schema_view(
    INFO, url="", public=True, generator_class=DocumentGenerator
)


stored_schema = stored_document(GeneratedSchemaView.get)


class SchemaView(GeneratedSchemaView):  # type: ignore[misc]  # no types
    http_method_names = ["get", "head", "options"]
    content_negotiation_class = FormatParameter

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        # The pages are left to the debug toolbar, which could not change compressed ones.
        is_page = request.accepted_media_type == "text/html"
        respond = GeneratedSchemaView.get if is_page else stored_schema
        response: HttpResponse = respond(self, request, *args, **kwargs)
        return response

    def finalize_response(
        self, request: Request, response: HttpResponse, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        response = super().finalize_response(request, response, *args, **kwargs)
        if getattr(response, "accepted_media_type", "") == "text/html":
            response["Content-Security-Policy"] = PAGE_POLICY
        return response
