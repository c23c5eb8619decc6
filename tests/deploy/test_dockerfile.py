"""What the Dockerfile builds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import read
from tests.support.servers import ROOT
from totoro.settings import VERSION

HADOLINT = Path(sys.executable).with_name("hadolint")


def stages() -> dict[str, str]:
    """Return the text of each build stage."""
    return dict(
        re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", read("Dockerfile"), re.M | re.S)
    )


def copied(stage: str) -> set[str]:
    lines = re.findall(r"^COPY (.+)$", stages()[stage], re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True)

    assert done.stdout == ""
    assert done.returncode == 0


def test_the_production_image_has_only_what_serves() -> None:
    requirements = {"requirements/main.txt", "requirements/tracing.txt"}

    assert copied("build") == {*requirements, "manage.py", "movies", "services", "totoro"}
    assert copied("production") == {"--from=serving", "/venv", "/app"}


@pytest.mark.parametrize("stage", ["fake-ghibli", "test", "dev", "serving"])
def test_all_images_need_what_the_production_image_needs(stage: str) -> None:
    """Else BuildKit 0.8 brings back deleted files, as the Dockerfile says."""
    assert f"FROM build AS {stage}\n" in read("Dockerfile")


@pytest.mark.parametrize("stage", ["production", "fake-ghibli", "test", "dev"])
def test_an_image_runs_as_a_user_with_a_high_id(stage: str) -> None:
    [user] = re.findall(r"^USER (\d+):\d+$", stages()[stage], re.MULTILINE)

    assert int(user) >= 10_000


def test_the_default_is_the_production_image() -> None:
    assert list(stages())[-1] == "production"


@pytest.mark.parametrize("stage", ["production", "dev"])
def test_the_image_starts_without_a_shell_and_checks_its_health(stage: str) -> None:
    text = stages()[stage]

    assert re.search(r'^CMD \["python", "manage.py", ', text, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .* CMD \["python", ', text, re.MULTILINE)
    assert "ENTRYPOINT" not in text


def test_packages_are_installed_by_their_hashes_only() -> None:
    installs = re.findall(r"pip --python .*", read("Dockerfile"))

    assert len(installs) == 3
    assert all("install --quiet --require-hashes --requirement" in line for line in installs)


def test_the_labels_have_the_version_and_the_revision() -> None:
    production = stages()["production"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', production))

    assert labels.keys() == {"title", "description", "licenses", "version", "revision"}
    assert (labels["version"], labels["revision"]) == ("$VERSION", "$REVISION")
    assert f"ARG VERSION={VERSION}\n" in production
