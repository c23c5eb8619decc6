"""What is in the images, and what containers may do."""

import re

import pytest

from tests.docker.conftest import Measure
from tests.docker.stack import PROJECT, Stack

MB = 1_000_000
# The base image's layers, of which the production image consists as well.
BASE = "python:3.13-slim"


def test_the_image_adds_at_most_90_mb_to_its_base(stack: Stack, measure: Measure) -> None:
    image, base = (
        int(stack.run("docker", "image", "inspect", "--format={{.Size}}", name).stdout)
        for name in (f"{PROJECT}:latest", BASE)
    )

    measure("MB added", round((image - base) / MB))
    assert image - base <= 90 * MB


def test_the_image_holds_only_what_serves(stack: Stack) -> None:
    files = stack.compose("exec", "-T", "web", "find", "/app", "/venv", "-type", "f").splitlines()

    unwanted = re.compile(
        r"/app/(fake_ghibli|tests|benchmarks)/|/site-packages/pip/|drf_yasg/static/|django/contrib/(admin/(static|templates)|gis)/"
        r"|/LC_MESSAGES/|/\.env|/secrets/|/\.git/"
    )
    assert [file for file in files if unwanted.search(file)] == []
    assert [file for file in files if file.startswith("/app/staticfiles/")]


def test_the_image_says_what_it_is(stack: Stack) -> None:
    [web] = stack.containers("web")
    labels = stack.inspect(web)["Config"]["Labels"]

    assert labels["org.opencontainers.image.title"] == "Totoro"
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])


def test_every_container_is_confined(stack: Stack, measure: Measure) -> None:
    for container in stack.containers():
        details = stack.inspect(container)
        host = details["HostConfig"]
        name = details["Config"]["Labels"]["com.docker.compose.service"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["CpuQuota"] > 0 or host["NanoCpus"] > 0, name
        assert host["LogConfig"]["Config"]["max-size"], name
        assert not host["Privileged"], name


@pytest.mark.parametrize("service", ["web", "nginx", "redis", "postgres"])
def test_no_process_runs_as_root(stack: Stack, service: str) -> None:
    status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")

    [uid] = re.findall(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    [capabilities] = re.findall(r"^CapEff:\s+(\w+)", status, re.MULTILINE)
    assert int(uid) > 0
    assert int(uid) >= 10_000 or service != "web"
    assert int(capabilities, 16) == 0


def test_web_cannot_write_outside_its_folders(stack: Stack) -> None:
    program = "open('/app/movies/new.py', 'w')"

    done = stack.run("docker", "compose", "exec", "-T", "web", "python", "-c", program, check=False)

    assert "Read-only file system" in done.stderr


def test_only_nginx_publishes_a_port(stack: Stack) -> None:
    published = {
        stack.inspect(container)["Config"]["Labels"]["com.docker.compose.service"]: ports
        for container in stack.containers()
        if (
            ports := [
                port
                for port in stack.inspect(container)["NetworkSettings"]["Ports"].values()
                if port
            ]
        )
    }

    assert list(published) == ["nginx"]


def test_secrets_are_in_no_environment_variable(stack: Stack) -> None:
    secrets = [
        (stack.folder / "secrets" / name).read_text().strip()
        for name in ("django_secret_key", "postgres_password", "database_url")
    ]

    for container in stack.containers():
        environment = str(stack.inspect(container)["Config"]["Env"])
        assert not [secret for secret in secrets if secret in environment]


def test_metrics_are_for_the_inside(stack: Stack) -> None:
    assert stack.get("/metrics").status_code == 404
    assert "totoro_build_info" in stack.metrics()
