"""Traces, sent to an OpenTelemetry collector if OTEL_EXPORTER_OTLP_ENDPOINT is set.

The packages are an extra, and nothing but settings.MIDDLEWARE imports this module. Hits of the response cache
have no spans: a span takes longer than a hit.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from functools import cache
from multiprocessing.util import Finalize

from django.http import HttpRequest, HttpResponse
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

from services import background, tracing
from totoro.observability.metrics import METHODS, route_of
from totoro.settings import VERSION

# For the last spans when the process ends. A collector that does not respond would take 10 seconds.
STOP_SECONDS = 2.0
W3C = TraceContextTextMapPropagator()


@cache
def tracer() -> Tracer:
    """Return the tracer of this process. Its thread sends the spans, so no request waits for it."""
    resource = Resource.create({"service.name": "totoro", "service.version": VERSION})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    # It reads the standard variables.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    Finalize(provider, stop, [provider], exitpriority=5)
    tracing.span = start_span
    return provider.get_tracer("totoro", VERSION)


def stop(provider: TracerProvider) -> None:
    wait([background.start(provider.shutdown, name="traces")], STOP_SECONDS)


@contextmanager
def start_span(name: str) -> Iterator[tracing.Attributes]:
    attributes: tracing.Attributes = {}
    kind = SpanKind.CLIENT if name.startswith("GET ") else SpanKind.INTERNAL
    with tracer().start_as_current_span(name, kind=kind, record_exception=False) as span:
        try:
            yield attributes
        finally:
            span.set_attributes(attributes)


class TracingMiddleware:
    """A span for each request that reaches Django, in the client's trace if it has one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        # In the worker: a thread does not survive a fork.
        self._tracer = tracer()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        method = request.META["REQUEST_METHOD"]
        method = method if method in METHODS else "_OTHER"
        route = route_of(request.path_info)
        attributes = {
            "http.request.method": method,
            "http.route": route,
            "url.scheme": request.scheme or "",
        }
        context = W3C.extract(request.headers)
        with self._tracer.start_as_current_span(
            f"{method} {route}", context, SpanKind.SERVER, attributes
        ) as span:
            trace_id = format_trace_id(span.get_span_context().trace_id)
            with bound_contextvars(trace_id=trace_id):
                response = self._get_response(request)
            span.set_attribute("http.response.status_code", response.status_code)
            span.set_attribute("totoro.request_id", response["X-Request-ID"])
            if response.status_code >= 500:
                span.set_status(StatusCode.ERROR)
        return response
