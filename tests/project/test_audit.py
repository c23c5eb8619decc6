"""`make audit` and `make sbom`, in their own environment, which they install if it is not there."""

import json
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pip._internal.models.index import PyPI

from fake_ghibli.listener import Listener
from tests.support.servers import ROOT, free_port
from totoro.settings import VERSION

pytestmark = pytest.mark.minutes

VULNERABILITY = {"id": "PYSEC-2026-1", "summary": "A test.", "affected": []}


class Osv(BaseHTTPRequestHandler):
    """OSV's API, with one vulnerability in the package of the path."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_vulnerable = query["package"]["name"] == self.path.strip("/")
        body = json.dumps({"vulns": [VULNERABILITY]} if is_vulnerable else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def osv() -> Iterator[Listener]:
    with Listener("127.0.0.1", 0, Osv) as listener:
        yield listener


def audit(osv_url: str) -> subprocess.CompletedProcess[str]:
    return make("audit", f"ARGS=--vulnerability-service osv --osv-url {osv_url}")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_says_that_there_is_no_known_vulnerability(osv: Listener) -> None:
    done = audit(f"{osv.url}/none")

    assert done.stdout.splitlines()[-1] == "No known vulnerabilities found"
    assert done.returncode == 0


@pytest.mark.parametrize("package", ["django", "opentelemetry-sdk"])
def test_a_vulnerability_of_a_package_is_a_failure_that_names_it(
    osv: Listener, package: str
) -> None:
    done = audit(f"{osv.url}/{package}")

    assert re.search(rf"^{package} .* PYSEC-2026-1", done.stdout, re.MULTILINE)
    assert done.returncode != 0


def test_an_unreachable_service_is_a_failure_in_one_line() -> None:
    done = audit(f"http://127.0.0.1:{free_port()}/")

    line, makes_own = done.stderr.splitlines()
    assert line.startswith("make audit: the vulnerability service cannot be used")
    assert "Connection refused" in line
    assert makes_own.startswith("make: ***")
    assert done.returncode != 0


def test_the_sbom_lists_what_is_locked() -> None:
    done = make("sbom")

    assert done.stderr == ""
    sbom = json.loads((ROOT / "var" / "sbom.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    root = sbom["metadata"]["component"]
    assert (root["name"], root["version"]) == ("totoro", VERSION)
    assert {component["purl"]: hashes(component) for component in sbom["components"]} == locked()


def hashes(component: dict[str, Any]) -> set[str]:
    (distribution,) = component["externalReferences"]
    assert (
        distribution["url"] == f"{PyPI.simple_url}/{component['name']}/"
    )  # the default, no mirror
    return {each["content"] for each in distribution["hashes"]}


def locked() -> dict[str, set[str]]:
    text = (ROOT / "requirements" / "main.txt").read_text()
    requirements = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    matches = [re.match(r"([a-z0-9-]+)(?:\[.*\])?==(\S+)", each) for each in requirements]
    return {
        f"pkg:pypi/{match[1]}@{match[2]}": set(re.findall("sha256:([0-9a-f]{64})", match.string))
        for match in matches
        if match
    }
