"""Traces arrive at a real OTLP/HTTP collector, and nobody waits for it."""

import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fake_ghibli import FakeGhibli
from fake_ghibli.listener import Listener
from tests.support.servers import ROOT, Totoro, clean_environment, free_port, manage, wait_until
from totoro.settings import VERSION

WITHOUT_PACKAGES = ROOT / "tests" / "support" / "python_patches" / "production_packages"
# Of a client, which has sampled it or not (W3C Trace Context).
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE_ID}-00f067aa0ba902b7-{flag}" for flag in ("01", "00"))


class Collector(Listener):
    """Stores the spans that it gets."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0, lambda *connection: Inbox(self, *connection))
        self.received: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.received)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def span(self, name: str) -> Span:
        """Wait for the span of this name."""
        wait_until(lambda: name in self.names, what=f"{name} arrives")
        [span] = [span for span in self.spans if span.name == name]
        return span


class Inbox(BaseHTTPRequestHandler):
    def __init__(self, collector: Collector, *connection: Any) -> None:
        self.collector = collector
        super().__init__(*connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        self.collector.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli() as upstream:
        yield upstream


def traced(folder: Path, upstream: FakeGhibli, endpoint: str, **variables: Any) -> Totoro:
    return Totoro(
        folder,
        GHIBLI_API_BASE_URL=upstream.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        **{"OTEL_BSP_SCHEDULE_DELAY": 50, **variables},
    )


def attributes(pairs: Any) -> dict[str, object]:
    def value(pair: KeyValue) -> object:
        return getattr(pair.value, str(pair.value.WhichOneof("value")))

    return {pair.key: value(pair) for pair in pairs}


def test_a_request_is_a_span_in_the_trace_of_its_client(
    tmp_path: Path, collector: Collector, upstream: FakeGhibli
) -> None:
    server = traced(tmp_path, upstream, collector.url, ACCESS_LOG="on")
    headers = {"traceparent": SAMPLED, "X-Request-ID": "mine"}
    server.get("/movies/none/?q=personal", headers=headers)

    span = collector.span("GET /movies/{id}/")
    assert server.terminate() == 0

    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, "00f067aa0ba902b7")
    assert span.kind == Span.SPAN_KIND_SERVER
    assert attributes(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/movies/{id}/",
        "http.response.status_code": 404,
        "url.scheme": "http",
        "totoro.request_id": "mine",
    }
    resource = attributes(collector.received[0].resource_spans[0].resource.attributes)
    assert (resource["service.name"], resource["service.version"]) == ("totoro", VERSION)
    [line] = [line for line in server.events("request") if line["request_id"] == "mine"]
    assert line["trace_id"] == TRACE_ID
    sent = str(collector.received)
    for private in ("personal", "127.0.0.1", socket.gethostname(), "only-for-this-test"):
        assert private not in sent


def test_a_refresh_is_a_trace_and_sends_nothing_to_the_ghibli_api(
    tmp_path: Path, collector: Collector, upstream: FakeGhibli
) -> None:
    server = traced(tmp_path, upstream, collector.url)
    server.get("/movies/")
    names = ("refresh", "GET films", "GET people")
    refresh, films, people = map(collector.span, names)
    server.terminate()

    assert films.parent_span_id == people.parent_span_id == refresh.span_id
    assert refresh.parent_span_id == b""
    assert films.kind == people.kind == Span.SPAN_KIND_CLIENT
    assert attributes(refresh.attributes) == {"totoro.outcome": "succeeded", "totoro.reason": ""}
    headers = {name.lower() for seen in upstream.requests for name in seen.headers}
    assert headers
    assert not {"traceparent", "tracestate", "baggage"} & headers


def test_a_failed_refresh_has_its_reason_and_the_response_is_an_error(
    tmp_path: Path, collector: Collector, upstream: FakeGhibli
) -> None:
    upstream.faults.status = 404
    server = traced(tmp_path, upstream, collector.url)
    server.get("/movies/")
    refresh, request = map(collector.span, ("refresh", "GET /movies/"))
    server.terminate()

    assert attributes(refresh.attributes)["totoro.reason"] == "upstream_4xx"
    assert attributes(request.attributes)["http.response.status_code"] == 503
    assert request.status.code == Status.STATUS_CODE_ERROR


def test_hits_and_what_a_client_has_not_sampled_are_not_sent(
    tmp_path: Path, collector: Collector, upstream: FakeGhibli
) -> None:
    server = traced(tmp_path, upstream, collector.url)
    for _ in range(10):
        server.get("/movies/")
    server.get("/redoc/", headers={"traceparent": NOT_SAMPLED})
    assert server.terminate() == 0  # which sends what is left

    assert 1 <= collector.names.count("GET /movies/") <= 2
    assert "GET /redoc/" not in collector.names


def test_every_worker_sends_its_spans(
    tmp_path: Path, collector: Collector, upstream: FakeGhibli
) -> None:
    server = traced(
        tmp_path,
        upstream,
        collector.url,
        WEB_CONCURRENCY=2,
        ACCESS_LOG="on",
        OTEL_BSP_SCHEDULE_DELAY=60_000,  # so that all of them wait for the stop
    )

    def workers() -> set[int]:
        server.get("/readyz")
        return {line["pid"] for line in server.events("request")}

    wait_until(lambda: len(workers()) == 2, what="both respond")
    assert server.terminate() == 0

    of_log = {line["request_id"] for line in server.events("request")}
    of_spans = {attributes(span.attributes).get("totoro.request_id") for span in collector.spans}
    assert of_log == of_spans - {None}


def test_no_span_arrives_without_the_variable(
    tmp_path: Path, collector: Collector, upstream: FakeGhibli
) -> None:
    # The other variables turn nothing on.
    server = traced(
        tmp_path, upstream, "", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces"
    )
    server.get("/movies/")
    server.terminate()

    assert collector.received == []


@pytest.mark.parametrize("is_hung", [False, True], ids=["dead", "hung"])
def test_an_unavailable_collector_slows_neither_requests_nor_the_stop(
    tmp_path: Path, upstream: FakeGhibli, is_hung: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # it accepts no connection
        port = hung.getsockname()[1] if is_hung else free_port()
        server = traced(tmp_path, upstream, f"http://127.0.0.1:{port}")
        for path in ("/movies/", "/readyz", "/none/") * 10:
            server.get(path, headers={"Cache-Control": "no-cache"})
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 10  # 2 seconds; the exporter waits for 10 and repeats


def test_missing_packages_stop_the_start_with_one_line() -> None:
    environment = {
        **clean_environment(),
        "PYTHONPATH": str(WITHOUT_PACKAGES),
        "DJANGO_SECRET_KEY": "only-for-this-test",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    }

    stopped = manage("serve", environment=environment, check=False)

    assert stopped.returncode == 1
    assert stopped.stderr == (
        "totoro: OTEL_EXPORTER_OTLP_ENDPOINT = 'http://collector:4318':"
        " needs `pip install -r requirements/tracing.txt`\n"
    )
