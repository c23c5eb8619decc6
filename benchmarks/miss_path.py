"""What a refresh and the first request after it cost, in CPU time of one process.

`python -m benchmarks.miss_path REPETITIONS` runs with Totoro's environment variables, and prints
milliseconds as JSON: the smallest of the repetitions. `measure_miss_path` starts it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO

import msgspec

from benchmarks.load import SERVER_CORE
from benchmarks.process_tree import pinned
from benchmarks.run import FILMS, Run
from services.catalogue import merge
from services.catalogue.snapshot import Snapshot
from tests.support.servers import ROOT

LIST_REQUEST = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/movies/",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_ACCEPT": "*/*",
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
}
REPETITIONS = {22: 30, 220: 10, 2200: 4}
LARGEST = 2200


def measure_miss_path(run: Run) -> None:
    figures = run.results.figures
    sizes = [FILMS * times for times in (1, *run.options.growth)]
    for movies in sizes:
        run.progress(f"refreshes of {movies:,} movies")
        with run.launcher(movies // FILMS) as launcher:
            environment = launcher.environment(RESPONSE_CACHE="off", LOG_LEVEL="ERROR")
            milliseconds = measure_in_process(environment, REPETITIONS[movies])
        for step, value in milliseconds.items():
            figures[f"{step}_ms_{movies}_movies"] = value
        figures[f"total_ms_{movies}_movies"] = milliseconds["refresh"] + milliseconds["first_list"]
    if LARGEST in sizes:
        largest, real = (figures[f"total_ms_{movies}_movies"] for movies in (LARGEST, FILMS))
        figures["refresh_growth"] = largest / real


def measure_in_process(environment: Mapping[str, str], repetitions: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.miss_path", str(repetitions)]
    with pinned(SERVER_CORE):
        finished = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
    milliseconds: dict[str, float] = json.loads(finished.stdout)
    return milliseconds


class Stopwatch:
    """Notes the smallest CPU time (milliseconds) of each step."""

    def __init__(self) -> None:
        self.smallest: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        elapsed = (time.process_time() - started) * 1000
        self.smallest[name] = min(elapsed, self.smallest.get(name, elapsed))


def main(repetitions: int) -> None:
    # Not before: importing the application loads the settings.
    from totoro.wsgi import application  # isort: skip
    from django.conf import settings

    from services.ghibli.client import GhibliClient
    from services.movies import movie_service

    def request_list() -> None:
        body = application({**LIST_REQUEST, "wsgi.input": BytesIO()}, lambda *_: lambda _: None)
        assert sum(map(len, body))

    watch = Stopwatch()
    for _ in range(repetitions):
        client = GhibliClient(settings.GHIBLI_API_BASE_URL)
        with watch.step("fetch_and_parse"):
            fetched = client.fetch()
        lists = [msgspec.json.encode(fetched.films), msgspec.json.encode(fetched.people)]
        with watch.step("parse_alone"):
            _ = [msgspec.json.decode(each) for each in lists]
        with watch.step("merge"):
            catalogue = merge.build(fetched.films, fetched.people)
        with watch.step("pack"):
            _ = Snapshot(fetched.timestamp, catalogue.movies).digest
        movie_service().close()
        movie_service.cache_clear()
        # All of the above, and what else a refresh does before requests get its data.
        with watch.step("refresh"):
            movie_service().list()
        for name in ("first_list", "second_list"):
            with watch.step(name):
                request_list()
    print(json.dumps(watch.smallest))


if __name__ == "__main__":
    main(int(sys.argv[1]))
