"""A running server: a request to it, and a measurement of it."""

import http.client
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.load import BenchmarkError, Sample, measure
from benchmarks.workloads import Workload

TRIES = 5


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


@dataclass(frozen=True)
class Server:
    """`pids`: the processes whose trees serve its requests. `workloads`: None for all."""

    name: str
    url: str
    pids: Sequence[int]
    workloads: Sequence[Workload] | None = None

    def supports(self, workload: Workload) -> bool:
        return self.workloads is None or workload in self.workloads

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def responds(self) -> bool:
        try:
            return self.get("/movies/").status == 200
        except (ConnectionError, http.client.HTTPException):
            return False

    def measure(self, workload: Workload, *, connections: int, seconds: int) -> Sample:
        """Measure, and again if that failed: the machine may have stalled, or an ETag have changed."""
        for _ in range(TRIES - 1):
            with suppress(BenchmarkError):
                return self._measure(workload, connections, seconds)
        return self._measure(workload, connections, seconds)

    def _measure(self, workload: Workload, connections: int, seconds: int) -> Sample:
        headers = self._headers(workload)
        self.get(workload.path, headers)  # fills the caches, which may have expired
        url = self.url + workload.path
        try:
            sample = measure(self.pids, url, headers, connections, seconds, workload.script)
        except BenchmarkError as error:
            raise BenchmarkError(f"{self.name}, {workload.name}: {error}") from error
        status = self.get(workload.path, headers).status
        if status != workload.status:
            raise BenchmarkError(f"{self.name}, {workload.name}: the status has become {status}")
        return sample

    def _headers(self, workload: Workload) -> Mapping[str, str]:
        if workload.status == 304:
            return {"If-None-Match": self.get(workload.path).header("ETag")}
        return workload.headers
