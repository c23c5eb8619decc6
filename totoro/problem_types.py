"""The kinds of problem that Totoro answers with (RFC 9457), and a page about each.

`type` of a problem is `/problems/<name>/`, and that address explains it, as JSON or as HTML.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.http import Http404
from django.urls import get_script_prefix
from drf_yasg import openapi
from drf_yasg.utils import swagger_auto_schema
from rest_framework.renderers import TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from movies.http.renderers import PlainJSONRenderer
from movies.http.stored_documents import stored_document
from movies.openapi import JSON, problem
from movies.serializers import KindOfProblemSerializer
from services.exceptions import Reason

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'"
)


@dataclass(frozen=True)
class Problem:
    """A kind of problem. `about` explains it to a client's author; `detail` is what a problem says
    of itself where its exception says nothing."""

    name: str
    status: int
    title: str
    about: str
    detail: str = ""

    @property
    def type(self) -> str:
        """The address of its explanation, from where the client is (X-Forwarded-Prefix)."""
        return f"{get_script_prefix()}problems/{self.name}/"


MOVIE_NOT_FOUND = Problem(
    "movie-not-found",
    404,
    "Movie not found",
    "No movie of the Ghibli API has this id. Ids are those of the list at /movies/; upper and lower"
    " case are the same. Asking again helps only if the Ghibli API adds the movie.",
)
NOT_FOUND = Problem(
    "not-found",
    404,
    "Not found",
    "There is nothing at this address. The addresses there are stand in the documentation at /.",
    "There is nothing at this address.",
)
BAD_REQUEST = Problem(
    "bad-request",
    400,
    "Bad request",
    "The request is malformed, or a query parameter is not what it may be; then detail names the"
    " parameter and says what is allowed. Change the request before sending it again.",
    "This request is malformed.",
)
HOST_NOT_ALLOWED = Problem(
    "host-not-allowed",
    400,
    "Host not allowed",
    "The request names a host under which Totoro is not served. If you operate Totoro, add the host"
    " to the variable ALLOWED_HOSTS and restart it; its log names the host in the event"
    " host_not_allowed. Otherwise, check the address that you use.",
    "This host is not allowed. ALLOWED_HOSTS, a variable of the server, decides which hosts are.",
)
FORBIDDEN = Problem(
    "forbidden",
    403,
    "Forbidden",
    "This request is not allowed for anybody.",
    "This is not allowed.",
)
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed",
    405,
    "Method not allowed",
    "Everything here is read only. The header Allow says which methods there are.",
)
NOT_ACCEPTABLE = Problem(
    "not-acceptable",
    406,
    "Not acceptable",
    "The header Accept rules out every form that this address has. JSON there is everywhere; leave"
    " the header out, or send application/json or */*.",
)
PRECONDITION_FAILED = Problem(
    "precondition-failed",
    412,
    "Precondition failed",
    "If-Match or If-Unmodified-Since asks for another answer than the current one. Data changes"
    " every minute; to ask whether it has, send If-None-Match.",
)
URI_TOO_LONG = Problem(
    "uri-too-long",
    414,
    "URI too long",
    "The address with its query is longer than any that makes sense here.",
    "This address is longer than any here.",
)
UNSUPPORTED_MEDIA_TYPE = Problem(
    "unsupported-media-type",
    415,
    "Unsupported media type",
    "The request has a body, which no request here needs. Leave it out.",
)
TOO_MANY_REQUESTS = Problem(
    "too-many-requests",
    429,
    "Too many requests",
    "This address has asked more often than its share. RateLimit-Policy says how often one may ask,"
    " RateLimit what is left, Retry-After in how many seconds to come again. Answers may be cached:"
    " Cache-Control says for how long.",
)
SERVER_ERROR = Problem(
    "server-error",
    500,
    "Server error",
    "A bug of Totoro's; its operators have been told. request_id helps them to find it.",
    "Something went wrong in Totoro.",
)

REASONS = {
    Reason.DNS: "its name does not resolve",
    Reason.REFUSED: "it refuses connections",
    Reason.CONNECT_TIMEOUT: "no connection to it comes about in time",
    Reason.READ_TIMEOUT: "it takes requests and then goes silent",
    Reason.DEADLINE: "it answers too slowly",
    Reason.PROTOCOL: "what it says is not HTTP",
    Reason.RESET: "it breaks connections off",
    Reason.TRUNCATED: "its answers end early",
    Reason.TLS: "its certificate is not to be trusted",
    Reason.REDIRECT: "it sends Totoro elsewhere, where Totoro does not go",
    Reason.STATUS: "it answers with a status that makes no sense here",
    Reason.UPSTREAM_4XX: "it refuses Totoro's requests",
    Reason.UPSTREAM_5XX: "it fails",
    Reason.RATE_LIMITED: "it asks Totoro to come less often",
    Reason.CONTENT_TYPE: "it answers with something that is not JSON",
    Reason.TOO_LARGE: "its answers are too large to be true",
    Reason.BAD_JSON: "its JSON is broken",
    Reason.SCHEMA: "its data has not the shape of films and people",
    Reason.EMPTY: "it says that there are no films, or no people",
    Reason.TORN: "its films and its people do not belong together",
    Reason.SHRUNK: "more than half of its films are suddenly gone",
    Reason.SLOW: "it is still being asked, for longer than a request waits",
    Reason.BUSY: "as many requests as may wait for it do so already",
    Reason.INTERNAL: "its data came, and Totoro failed to make use of it",
}


def upstream_problem(reason: Reason) -> Problem:
    """The Ghibli API's trouble of this kind, with nothing kept to serve instead."""
    name = reason.replace("_", "-").removeprefix("upstream-")
    return Problem(
        f"upstream-{name}",
        503,
        "The Ghibli API is unavailable",
        f"The Ghibli API, where the movies come from, cannot be used: {REASONS[reason]}. Totoro goes"
        " on asking it, and Retry-After says when to come again. This is answered only while no"
        " earlier answer is kept.",
    )


KINDS: dict[str, Problem] = {
    kind.name: kind
    for kind in (
        MOVIE_NOT_FOUND,
        NOT_FOUND,
        BAD_REQUEST,
        HOST_NOT_ALLOWED,
        FORBIDDEN,
        METHOD_NOT_ALLOWED,
        NOT_ACCEPTABLE,
        PRECONDITION_FAILED,
        URI_TOO_LONG,
        UNSUPPORTED_MEDIA_TYPE,
        TOO_MANY_REQUESTS,
        SERVER_ERROR,
        *map(upstream_problem, Reason),
    )
}


class ProblemPage(APIView):
    """What the kinds of problem have in common as pages."""

    http_method_names = ["get", "head", "options"]
    renderer_classes = [PlainJSONRenderer, TemplateHTMLRenderer]

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        is_page = getattr(request, "accepted_media_type", "") == "text/html"
        if is_page and response.status_code < HTTPStatus.BAD_REQUEST:
            response["Content-Security-Policy"] = PAGE_POLICY
        return response


class ProblemListView(ProblemPage):
    @swagger_auto_schema(
        operation_id="listProblems",
        operation_summary="All kinds of problem",
        tags=["problems"],
        produces=[JSON],
        responses={200: KindOfProblemSerializer(many=True), 406: problem("Not on offer.")},
    )
    @stored_document
    def get(self, request: Request) -> Response:
        """Every `type` that an error can have."""
        kinds = [described(kind) for kind in KINDS.values()]
        if request.accepted_renderer.format == "html":
            return Response({"problems": kinds}, template_name="problems/list.html")
        return Response(kinds)


class ProblemView(ProblemPage):
    @swagger_auto_schema(
        operation_id="getProblem",
        operation_summary="One kind of problem",
        tags=["problems"],
        manual_parameters=[
            openapi.Parameter(
                "name",
                openapi.IN_PATH,
                type=openapi.TYPE_STRING,
                enum=sorted(KINDS),
                required=True,
            )
        ],
        produces=[JSON],
        responses={
            200: KindOfProblemSerializer,
            404: problem("There is no such kind."),
            406: problem("Not on offer."),
        },
    )
    @stored_document
    def get(self, request: Request, name: str) -> Response:
        """What it means and what to do about it; the address is the `type` of such errors."""
        if name not in KINDS:
            raise Http404
        return Response(described(KINDS[name]), template_name="problems/problem.html")


def described(kind: Problem) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in ("type", "title", "status", "about")}
