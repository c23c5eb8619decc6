"""Static files: their names in pages, and the responses for them.

Names carry a hash of the content (`list.0123456789ab.css`), so that caches may keep them for ever.
"""

from typing import Any

from django.contrib.staticfiles.storage import ManifestFilesMixin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import get_script_prefix
from django.utils.cache import get_conditional_response
from django.utils.http import parse_http_date
from rest_framework.exceptions import MethodNotAllowed
from whitenoise.middleware import WhiteNoiseFileResponse, WhiteNoiseMiddleware
from whitenoise.responders import StaticFile
from whitenoise.storage import CompressedManifestStaticFilesStorage

from movies.http.conditional import PreconditionFailed
from movies.http.negotiation import prefers_gzip
from totoro.exception_handler import render
from totoro.problem_types import METHOD_NOT_ALLOWED, PRECONDITION_FAILED

METHODS = ["GET", "HEAD", "OPTIONS"]


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # no types
    # Links to source maps are left as they are: the maps are not collected (see the Makefile).
    patterns = tuple(
        (files, [pattern for pattern in patterns if "sourceMappingURL" not in str(pattern)])
        for files, patterns in ManifestFilesMixin.patterns
    )

    def stored_name(self, name: str) -> str:
        """Return the hashed name, or the plain one of a file that was not collected.

        That is the debug toolbar's in Dev, and every file before `make static`.
        """
        hashed: str = self.hashed_files.get(self.hash_key(name), name)
        return hashed

    def url(self, name: str, force: bool = False) -> str:
        """Return the path that works from where the client is, behind X-Forwarded-Prefix too."""
        url: str = super().url(name, force)
        return get_script_prefix() + url.removeprefix("/")


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # no types
    """WhiteNoise, which knows the files, with responses that are right in every case.

    WhiteNoise itself gives gzip and identity one strong ETag, compares If-None-Match as a text, sends
    gzip to whoever refuses it, ignores If-Range, and leaves errors empty. Ranges are not offered, as
    RFC 9110, section 14.2, allows: no file here is large.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        if request.method == "OPTIONS":
            response: HttpResponse = JsonResponse({"methods": METHODS})
            response["Allow"] = ", ".join(METHODS)
            return response
        if request.method not in METHODS:
            response = render(request, METHOD_NOT_ALLOWED, MethodNotAllowed(request.method or ""))
            response["Allow"] = ", ".join(METHODS)
            return response
        return _file_response(static_file, request)


def _file_response(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
    accepts = "gzip" if prefers_gzip(request.headers.get("Accept-Encoding", "")) else ""
    path, pairs = static_file.get_path_and_headers({"HTTP_ACCEPT_ENCODING": accepts})
    headers: dict[str, Any] = dict(pairs)
    etag = headers.get("ETag")
    if etag and "Content-Encoding" in headers:
        headers["ETag"] = etag = f'{etag.removesuffix(chr(34))}-gzip"'
    modified = headers.get("Last-Modified")
    full = HttpResponse(headers=headers)
    last_modified = parse_http_date(modified) if modified else None
    response: HttpResponse = get_conditional_response(request, etag, last_modified, full) or full
    if response.status_code == PRECONDITION_FAILED.status:
        return render(request, PRECONDITION_FAILED, PreconditionFailed())
    if response is not full or request.method == "HEAD":
        return response
    file = open(path, "rb")  # noqa: SIM115 (the response closes it)
    streamed: HttpResponse = WhiteNoiseFileResponse(file, headers=headers)
    return streamed
