"""Each part dies, then all of them."""

import os
import signal
import time

import pytest

from tests.docker.conftest import Measure
from tests.docker.stack import Stack
from tests.support.load_client import LoadResult, under_load
from tests.support.servers import wait_until

# Different URLs, so that nginx has to ask web for most of them.
PATHS = ["/movies/", *[f"/movies/?page={number}" for number in range(500)]]
OUTAGE_SECONDS = 5


def measured(result: LoadResult, measure: Measure) -> None:
    measure("responses", len(result.responses))
    measure("lost", len(result.failures) + len(result.unsuccessful))
    measure("slowest", f"{result.latency(1):.2f} s")


@pytest.mark.parametrize("service", ["redis", "postgres", "fake-ghibli"])
def test_no_request_is_lost_while_a_part_behind_web_is_away(
    stack: Stack, measure: Measure, service: str
) -> None:
    with under_load([stack.url], connections=8, rate=50, paths=PATHS) as result:
        time.sleep(1)
        stack.kill(service)
        time.sleep(OUTAGE_SECONDS)
        stack.start(service)
        time.sleep(2)

    measured(result, measure)
    assert (result.failures, result.unsuccessful, result.backwards) == ([], [], [])


def test_no_request_is_lost_when_one_of_two_webs_is_killed(stack: Stack, measure: Measure) -> None:
    stack.start(web=2)

    with under_load([stack.url], connections=8, rate=50, paths=PATHS) as result:
        time.sleep(2)
        stack.run("docker", "kill", stack.containers("web")[0])
        time.sleep(OUTAGE_SECONDS)
        stack.start(web=2)

    measured(result, measure)
    assert (result.failures, result.unsuccessful) == ([], [])


def test_docker_restarts_a_web_that_was_killed(stack: Stack) -> None:
    [web] = stack.containers("web")
    before = stack.inspect(web)["RestartCount"]

    os.kill(stack.inspect(web)["State"]["Pid"], signal.SIGKILL)

    wait_until(lambda: stack.inspect(web)["RestartCount"] > before, what="a restart")
    wait_until(stack.is_healthy, seconds=60, what="healthy again")


def test_nginx_serves_what_it_has_while_everything_else_is_away(
    stack: Stack, measure: Measure
) -> None:
    for _ in range(3):  # nginx stores what was requested twice
        good = stack.get()

    stack.kill("web", "redis", "postgres", "fake-ghibli")
    wait_until(
        lambda: stack.get().headers["Cache-Control"] == "no-cache",
        seconds=70,
        what="the stored response is stale",
    )
    stale = stack.get()
    unknown = stack.get("/movies/?search=never+requested+before")

    measure("seconds for a stale response", f"{stale.elapsed.total_seconds():.2f}")
    assert stale.status_code == 200
    assert "stale" in stale.headers["Cache-Status"]
    assert stale.json()["api_data"] == good.json()["api_data"]
    assert unknown.status_code in (502, 503, 504)
    assert unknown.headers["Content-Type"] == "application/problem+json"
    assert unknown.headers["Retry-After"]

    stack.start()
    wait_until(lambda: stack.get("/movies/?a").status_code == 200, what="served again")


def test_a_restarted_stack_serves_its_last_good_snapshot_without_the_ghibli_api(
    stack: Stack, measure: Measure
) -> None:
    good = stack.get("/movies/").json()
    wait_until(
        lambda: stack.sql("select count(*) from services_storedsnapshot") != "0", what="saved"
    )

    stack.stop("fake-ghibli")
    stack.stop("nginx", "web", "redis", "postgres")  # the caches of all are in memory
    stack.start("postgres", "redis", "web", "nginx")
    response = stack.get("/movies/")

    measure("cache status", response.headers["Cache-Status"])
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.json()["api_data"] == good["api_data"]

    stack.start("fake-ghibli")
    wait_until(
        lambda: "ttl=-" not in stack.get("/movies/?b").headers["Cache-Status"],
        seconds=60,
        what="fresh again",
    )


def test_web_starts_without_redis(stack: Stack) -> None:
    stack.stop("web", "redis")

    stack.compose("up", "--detach", "--wait", "--no-deps", "web")

    assert stack.get("/movies/?c").status_code == 200
