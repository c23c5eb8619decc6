"""The scripts that create and check .env and secrets/."""

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.env_mistakes import IN_FILES, MISTAKES
from tests.support.servers import HIDDEN_PACKAGES, ROOT, clean_environment

SECRETS = ["secrets/database_url", "secrets/django_secret_key", "secrets/postgres_password"]
CREATED = [".env", ".poetry.env", *SECRETS]
# As earlier versions made it.
EARLIER = "DJANGO_SECRET_KEY='earlier key'\nCACHE_TTL=30\nPOSTGRES_PASSWORD=abc123\nPORT=8000\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, without its tests, whose files the scripts may change."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    # The settings read files relative to the folder that they are in.
    shutil.copytree(ROOT / "totoro", tmp_path / "totoro")
    for name in ("services", "movies", "staticfiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    for file in (".env.template", ".poetry.env.template", "docker-compose.yml", "manage.py"):
        shutil.copy(ROOT / file, tmp_path)
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
    key, password = (
        created[f"secrets/{name}"].strip() for name in ("django_secret_key", "postgres_password")
    )
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

    assert "moved DJANGO_SECRET_KEY from .env\ncreated secrets/django_secret_key\n" in output
    assert "moved POSTGRES_PASSWORD from .env\ncreated secrets/postgres_password\n" in output
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

    assert len((project / "secrets" / "django_secret_key").read_text().strip()) == 64
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


# The check, with a fake docker.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder of programs, which is all that the check finds: a fake docker and what it uses."""
    (folder := tmp_path / "programs").mkdir()
    for name in ("sh", "awk", "sed", "grep", "tail", "dirname"):
        program = shutil.which(name)
        assert program
        (folder / name).symlink_to(program)
    shutil.copy(ROOT / "tests" / "support" / "fake_docker.sh", folder / "docker")
    return folder


def replace_docker(folder: Path, command: str) -> None:
    (folder / "docker").unlink()
    (folder / "docker").write_text(f"#!/bin/sh\n{command}\n")
    (folder / "docker").chmod(0o755)


def check(project: Path, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path / "sh", "scripts/check-env-vars.sh"],
        cwd=project,
        env={
            "PATH": str(path),
            "FAKE_DOCKER_PYTHON": sys.executable,
            "FAKE_DOCKER_PYTHONPATH": str(HIDDEN_PACKAGES),
            **variables,
        },
        capture_output=True,
        text=True,
    )


def assert_stops_with_one_line(process: subprocess.CompletedProcess[str], part: str) -> None:
    assert process.returncode == 1
    assert re.fullmatch(r"totoro: .+\n", process.stderr)
    assert part in process.stderr
    assert process.stdout == ""
    assert "hunter2" not in process.stderr


def commands(project: Path) -> list[str]:
    """Return the commands of docker that were used, without their options."""
    lines = (project / "docker.log").read_text().splitlines()
    return [" ".join(line.split()[:2]) for line in lines]


@pytest.mark.parametrize("earlier", [False, True])
def test_the_created_files_are_valid(project: Path, path: Path, earlier: bool) -> None:
    if earlier:
        (project / ".env").write_text(EARLIER)
    create(project)

    process = check(project, path)

    assert (process.returncode, process.stderr) == (0, "")
    # Nothing that changes what runs.
    assert set(commands(project)) == {
        "compose version",
        "version",
        "compose config",
        "compose build",
        "compose ps",
        "compose run",
    }


VALID = """
# comment
  # comment
CACHE_TTL=60 # comment
  ALLOWED_HOSTS=a.example,[::1],*
SENTRY_ENVIRONMENT='a b; $HOME "c" # no comment'  # comment
LOG_LEVEL="INFO"
REDIS_URL=redis://:pa#ss@cache:6379/0?a=b
SENTRY_DSN=
COMPOSE_PROJECT_NAME=ghibli
OTEL_TRACES_EXPORTER=none
PORT='80'
"""


def test_accepts_what_compose_and_shells_read_alike(project: Path, path: Path) -> None:
    create(project)
    (project / ".env").write_text(VALID)
    replace_docker(path, "exit 0")

    assert check(project, path).stderr == ""


def test_an_override_of_compose_may_name_further_variables(project: Path, path: Path) -> None:
    create(project)
    (project / ".env").write_text("TZ=UTC\n")
    (project / "docker-compose.override.yml").write_text("# ${TZ}\n")
    replace_docker(path, "exit 0")

    assert check(project, path).stderr == ""


# Some of the settings' mistakes; tests/totoro/test_settings.py has the others.
@pytest.mark.parametrize("name", [*IN_FILES, "template's secret", "# in a password", "Test"])
def test_a_mistake_stops_with_one_line_that_names_it(name: str, project: Path, path: Path) -> None:
    create(project)
    MISTAKES[name].make(project)

    assert_stops_with_one_line(check(project, path), MISTAKES[name].line)


def test_each_mistake_in_a_file_has_a_line(project: Path, path: Path) -> None:
    create(project)
    with (project / ".env").open("a") as env:
        env.write("THROTLE_RATE=5/min\nCACHE_TTL=30\n")

    lines = check(project, path).stderr.splitlines()

    assert [line.split(": ")[2] for line in lines] == ["THROTLE_RATE", "CACHE_TTL"]


@pytest.mark.parametrize(
    "message",
    [
        "Bind for 0.0.0.0:8000 failed: port is already allocated",
        "listen tcp4 0.0.0.0:8000: bind: address already in use",
    ],
)
def test_the_port_of_another_program_stops_with_one_line(
    message: str, project: Path, path: Path
) -> None:
    create(project)

    process = check(project, path, FAKE_DOCKER_RUN=message)

    assert_stops_with_one_line(process, "PORT = 8000: another program uses this port")


def test_a_database_that_runs_must_be_reachable(project: Path, path: Path) -> None:
    create(project)
    (project / "secrets" / "database_url").write_text(
        "postgresql://totoro:hunter2@127.0.0.1:9/totoro"
    )

    process = check(project, path, FAKE_DOCKER_PS="envcheck-postgres")

    assert_stops_with_one_line(process, "totoro: DATABASE_URL: connection failed: ")


def test_the_own_port_is_not_published_twice(project: Path, path: Path) -> None:
    create(project)
    runs = []
    for ps in ("", "0.0.0.0:8000->8080/tcp"):
        check(project, path, FAKE_DOCKER_PS=ps, FAKE_DOCKER_RUN="not checked here")
        runs.append((project / "docker.log").read_text().splitlines()[-1])

    assert ["--publish 8000:1" in run for run in runs] == [True, False]


def test_says_what_to_do_without_docker(project: Path, path: Path) -> None:
    create(project)
    (path / "docker").unlink()

    assert_stops_with_one_line(check(project, path), "Docker is missing: see https://docs.docker")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("exit 1", "Docker Compose is missing: see https://docs.docker"),
        ('[ "$1" = compose ]', "Docker does not respond: start it"),
        (
            '[ "$2" != config ] || { echo "Invalid hostPort: http" >&2; exit 1; }',
            "PORT: must be a whole number from 1 to 65535",
        ),
        ('[ "$2" != config ] || { echo "a: b" >&2; exit 1; }', ".env or docker-compose.yml: a: b"),
    ],
)
def test_says_what_to_do_when_docker_fails(
    command: str, line: str, project: Path, path: Path
) -> None:
    create(project)
    replace_docker(path, command)

    assert_stops_with_one_line(check(project, path), line)
