"""Static files: their names in pages, and the responses for them.

Names contain a hash of the content (`list.0123456789ab.css`), so that caches may store them for ever.
"""

from django.contrib.staticfiles.storage import ManifestFilesMixin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import get_script_prefix
from django.utils.cache import get_conditional_response
from django.utils.http import parse_http_date
from rest_framework.exceptions import MethodNotAllowed
from whitenoise.middleware import WhiteNoiseFileResponse, WhiteNoiseMiddleware
from whitenoise.responders import StaticFile
from whitenoise.storage import CompressedManifestStaticFilesStorage

from movies.http.content_encoding import prefers_gzip
from totoro.exception_handler import problem_response
from totoro.problem_types import METHOD_NOT_ALLOWED, PRECONDITION_FAILED

METHODS = ["GET", "HEAD", "OPTIONS"]


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # no types
    # Without links to source maps, which are not collected (see the Makefile).
    patterns = tuple(
        (files, [pattern for pattern in patterns if "sourceMappingURL" not in str(pattern)])
        for files, patterns in ManifestFilesMixin.patterns
    )

    def stored_name(self, name: str) -> str:
        """Return the hashed name, or the plain one of a file that was not collected.

        Those are the debug toolbar's in Dev, and all files before `make static`.
        """
        hashed: str = self.hashed_files.get(self.hash_key(name), name)
        return hashed

    def url(self, name: str, force: bool = False) -> str:
        """Return the path with the prefix under which the client sees Totoro."""
        url: str = super().url(name, force)
        return get_script_prefix() + url.removeprefix("/")


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # no types
    """WhiteNoise, with responses that follow RFC 9110.

    WhiteNoise itself gives the gzipped and the plain file the same strong ETag, compares If-None-Match
    as a string, sends gzip to clients that refuse it, ignores If-Range, and sends errors without a
    body. Ranges are not supported, as section 14.2 allows: no file here is large.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return _file_response(static_file, request)
        if request.method == "OPTIONS":
            response: HttpResponse = JsonResponse({"methods": METHODS})
        else:
            error = MethodNotAllowed(request.method or "")
            response = problem_response(request, METHOD_NOT_ALLOWED, error)
        response["Allow"] = ", ".join(METHODS)
        return response


def _file_response(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
    encoding = "gzip" if prefers_gzip(request.META.get("HTTP_ACCEPT_ENCODING", "")) else ""
    path, pairs = static_file.get_path_and_headers({"HTTP_ACCEPT_ENCODING": encoding})
    headers: dict[str, str] = dict(pairs)
    etag = headers.get("ETag")
    if etag and "Content-Encoding" in headers:
        headers["ETag"] = etag = etag.removesuffix('"') + '-gzip"'
    modified = headers.get("Last-Modified")
    last_modified = parse_http_date(modified) if modified else None
    full = HttpResponse(headers=headers)
    response: HttpResponse = get_conditional_response(request, etag, last_modified, full) or full
    if response.status_code == PRECONDITION_FAILED.status:
        return problem_response(request, PRECONDITION_FAILED)
    if response is full and request.method == "GET":
        file = open(path, "rb")  # noqa: SIM115 (the response closes it)
        response = WhiteNoiseFileResponse(file, headers=headers)
    return response
