from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework.renderers import StaticHTMLRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from services.background import CoalescedCalls
from totoro.observability.internal_clients import is_internal
from totoro.observability.metrics import AllWorkers

# Adding up the counts of all workers takes 30 ms and more.
collections = CoalescedCalls("metrics")


class PlainTextRenderer(StaticHTMLRenderer):
    """Used for content negotiation only: the view renders the text itself."""

    media_type = "text/plain"
    format = "txt"


class MetricsView(APIView):
    """Metrics in Prometheus' text format, for internal clients; 404 for all others."""

    renderer_classes = [PlainTextRenderer]
    swagger_schema = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not is_internal(request):
            raise Http404  # outside of DRF, whose Allow header would show that the view exists
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(
            collections.start("all", generate_latest, AllWorkers()).result(),
            content_type=CONTENT_TYPE_PLAIN_0_0_4,
            headers={"Cache-Control": "no-store"},
        )
