"""`make create-env-vars-from-template`: .env, .poetry.env and secrets/."""

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ROOT, clean_environment

TEMPLATES = [".env.template", ".poetry.env.template"]
SECRETS = ["secrets/database_url", "secrets/django_secret_key", "secrets/postgres_password"]
CREATED = [".env", ".poetry.env", *SECRETS]
# As earlier versions made it.
EARLIER = "DJANGO_SECRET_KEY='earlier key'\nCACHE_TTL=30\nPOSTGRES_PASSWORD=abc123\nPORT=8000\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with what the scripts need, so that they do not change the real one."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in TEMPLATES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def create(project: Path) -> str:
    """Run the script, and return what it says."""
    script = ["sh", "scripts/create-env-vars.sh"]
    process = subprocess.run(script, cwd=project, check=True, capture_output=True, text=True)
    assert process.stderr == ""
    return process.stdout


def texts(project: Path) -> dict[str, str]:
    return {name: (project / name).read_text() for name in CREATED}


def settings_from_shell(project: Path) -> str:
    """Return the secret key with which the settings start after `source .poetry.env`."""
    code = "import totoro.wsgi; from django.conf import settings; print(settings.SECRET_KEY)"
    # The settings read files relative to the folder that they are in.
    shutil.copytree(ROOT / "totoro", project / "totoro")
    for name in ("services", "movies", "staticfiles"):
        (project / name).symlink_to(ROOT / name)
    shell = ["sh", "-c", f'. ./.poetry.env && exec {sys.executable} -c "{code}"']
    return subprocess.run(
        shell,
        cwd=project,
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def modes(project: Path, *names: str) -> Iterator[int]:
    return (stat.S_IMODE((project / name).stat().st_mode) for name in names)


def test_creates_the_settings_and_random_secrets(project: Path) -> None:
    output = create(project)

    assert output.splitlines() == [
        f"created {name}" for name in [".env", ".poetry.env", *SECRETS[1:], SECRETS[0]]
    ]
    created = texts(project)
    assert created[".env"] == (project / ".env.template").read_text()
    key, password = created["secrets/django_secret_key"], created["secrets/postgres_password"]
    assert len(key) == len(password) == 64
    assert key != password
    assert (
        created["secrets/database_url"] == f"postgresql://totoro:{password}@postgres:5432/totoro\n"
    )


def test_only_the_owner_enters_the_folder_whose_files_containers_read(project: Path) -> None:
    create(project)

    assert set(modes(project, "secrets")) == {0o700}
    assert set(modes(project, *SECRETS)) == {0o644}
    assert set(modes(project, ".env")) == {0o600}


def test_overwrites_nothing(project: Path) -> None:
    create(project)
    before = texts(project)

    output = create(project)

    assert texts(project) == before
    assert "created" not in output


def test_moves_the_secrets_of_an_earlier_env_file(project: Path) -> None:
    (project / ".env").write_text(EARLIER)

    output = create(project)

    assert "moved DJANGO_SECRET_KEY from .env to secrets/django_secret_key" in output
    assert "moved POSTGRES_PASSWORD from .env to secrets/postgres_password" in output
    created = texts(project)
    assert created["secrets/django_secret_key"] == "earlier key\n"
    assert created["secrets/database_url"] == "postgresql://totoro:abc123@postgres:5432/totoro\n"
    lines = [line for line in created[".env"].splitlines() if not line.startswith("#")]
    assert lines == [
        "DJANGO_SECRET_KEY_FILE=secrets/django_secret_key",
        "CACHE_TTL=30",
        "PORT=8000",
    ]


@pytest.mark.parametrize("secret", ["", "filled-in-by-make"])
def test_a_placeholder_of_an_earlier_env_file_is_no_secret(project: Path, secret: str) -> None:
    (project / ".env").write_text(f"DJANGO_SECRET_KEY={secret}\n")

    create(project)

    assert len((project / "secrets" / "django_secret_key").read_text()) == 64
    assert (project / ".env").read_text() == "DJANGO_SECRET_KEY_FILE=secrets/django_secret_key\n"


def test_makes_no_url_of_a_password_that_needs_percent_encoding(project: Path) -> None:
    (project / ".env").write_text("POSTGRES_PASSWORD='hunter2#'\n")

    script = ["sh", "scripts/create-env-vars.sh"]
    process = subprocess.run(script, cwd=project, capture_output=True, text=True)

    assert process.returncode == 1
    assert process.stderr.startswith("secrets/postgres_password has characters that need")
    assert "hunter2" not in process.stdout + process.stderr
    assert not (project / "secrets" / "database_url").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_the_settings_start_with_the_created_files_without_docker(
    project: Path, earlier: bool
) -> None:
    if earlier:
        (project / ".env").write_text(EARLIER)
    create(project)

    key = settings_from_shell(project)

    assert key == (project / "secrets" / "django_secret_key").read_text().strip()


def test_git_and_images_ignore_the_secrets() -> None:
    ignored = ["git", "check-ignore", "--no-index", *CREATED]
    assert (
        subprocess.run(ignored, cwd=ROOT, capture_output=True, check=True).stdout.count(b"\n") == 5
    )
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert not {"!secrets", "!secrets/", "!.env"} & set(allowed)
