"""The whole stack in containers, as an operator starts it, from a copy of the project's files."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from tests.support.servers import ROOT, free_port, wait_until

PROJECT = "totoro-test"
START_SECONDS = 180
READ_METRICS = (
    "import urllib.request as r;"
    "print(r.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
)


class Stack:
    """Each method that changes something waits until its effect is there."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        copy_project(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"PORT": self.port, **settings}
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_PROFILES": "demo",
            "TOTORO_IMAGE": PROJECT,
        }

    def create(self) -> None:
        """Follow the README: create the files, and start everything."""
        self.make("create-env-vars-from-template")
        file = self.folder / ".env"
        text = file.read_text()
        for name, value in self.settings.items():
            text = re.sub(rf"(?m)^{name}=.*", f"{name}={value}", text)
        file.write_text(text)
        self.make("docker-detached-totoro-server")

    def make(self, target: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("make", "--no-print-directory", *target.split(), check=check)

    def compose(self, *arguments: str, check: bool = True) -> str:
        return self.run("docker", "compose", *arguments, check=check).stdout

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def get(self, path: str = "/movies/", **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def containers(self, *services: str) -> list[str]:
        """Return the IDs of the running containers of these services, or of all."""
        return self.compose("ps", "--quiet", *services).split()

    def inspect(self, container: str) -> dict[str, Any]:
        [details] = json.loads(self.run("docker", "inspect", container).stdout)
        details_of_container: dict[str, Any] = details
        return details_of_container

    def is_healthy(self) -> bool:
        states = [self.inspect(container)["State"] for container in self.containers()]
        return all(
            state.get("Health", {}).get("Status", "healthy") == "healthy" for state in states
        )

    def start(self, *services: str, **replicas: int) -> None:
        """Bring everything, or these services, into the normal state, each in so many replicas."""
        scale = [f"--scale={name}={number}" for name, number in replicas.items()]
        self.compose("up", "--detach", "--wait", "--no-recreate", *scale, *services)
        wait_until(self.is_healthy, seconds=START_SECONDS, what="all containers are healthy")

    def stop(self, *services: str) -> None:
        self.compose("stop", *services)

    def kill(self, *services: str) -> None:
        self.compose("kill", *services)

    def metrics(self, index: int = 1) -> str:
        """Return the metrics of one of the containers of web, as a client inside it gets them."""
        get = ["python", "-c", READ_METRICS]
        return self.compose("exec", "-T", "--index", str(index), "web", *get)

    def image_id(self, tag: str) -> str:
        inspect = ["docker", "image", "inspect", "--format={{.Id}}", f"{PROJECT}:{tag}"]
        return self.run(*inspect).stdout.strip()

    def sql(self, query: str) -> str:
        psql = ["psql", "--username=totoro", "--tuples-only", "--no-align", f"--command={query}"]
        return self.compose("exec", "-T", "postgres", *psql).strip()

    def remove(self) -> None:
        self.compose("down", "--volumes", "--timeout", "10", check=False)
        images = self.run("docker", "images", "--quiet", PROJECT).stdout.split()
        if images:
            self.run("docker", "rmi", "--force", *set(images), check=False)


def copy_project(folder: Path) -> None:
    """Copy what git knows or does not ignore, with changes that are not committed yet."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (source := ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line.strip()]
