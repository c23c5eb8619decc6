"""Environment variables: what each accepts, and that an invalid value stops the process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from urllib.parse import quote

import pytest
from configurations.utils import uppercase_attributes

from tests.support.servers import ROOT, clean_environment, manage
from totoro.env.parsers import TEMPLATE_SECRET
from totoro.settings import Dev, Production, Variable

VARIABLES = {
    value.variable: value
    for value in uppercase_attributes(Production).values()
    if isinstance(value, Variable)
}

DEFAULTS = {
    "ALLOWED_HOSTS": ["127.0.0.1", "localhost", "[::1]"],
    "GHIBLI_API_BASE_URL": "https://ghibliapi.vercel.app/",
    "CACHE_TTL": 60,
    "REFRESH_AHEAD": None,
    "STALE_IF_ERROR": 86_400,
    "SNAPSHOT_HISTORY": 100,
    "THROTTLE_RATE": (600, 60),
    "TRUSTED_PROXIES": 0,
    "REDIS_URL": "",
    "DATABASE_URL": "",
    "CORS_ALLOWED_ORIGINS": ["*"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": "",
    "SENTRY_DSN": "",
    "SENTRY_ENVIRONMENT": "production",
    "LOG_LEVEL": "INFO",
    "ACCESS_LOG": False,
    "ACCESS_LOG_ADDRESSES": False,
    "RESPONSE_CACHE": True,
    "WEB_CONCURRENCY": 1,
    "PORT": 8000,
}

VALID = [
    ("DJANGO_SECRET_KEY", "a secret", "a secret"),
    (
        "ALLOWED_HOSTS",
        "api.example.org, .example.net,[::1],",
        ["api.example.org", ".example.net", "[::1]"],
    ),
    ("ALLOWED_HOSTS", "*", ["*"]),
    ("GHIBLI_API_BASE_URL", "https://ghibliapi.dev", "https://ghibliapi.dev/"),
    ("CACHE_TTL", "5", 5),
    ("CACHE_TTL", " 60 ", 60),
    ("CACHE_TTL", "0060", 60),
    ("CACHE_TTL", "1", 1),
    ("CACHE_TTL", "86400", 86_400),
    ("REFRESH_AHEAD", "0", 0),
    ("STALE_IF_ERROR", "0", 0),
    ("SNAPSHOT_HISTORY", "1", 1),
    ("THROTTLE_RATE", "600/min", (600, 60)),
    ("THROTTLE_RATE", "10/s", (10, 1)),
    ("THROTTLE_RATE", "10/sec", (10, 1)),
    ("THROTTLE_RATE", "10/second", (10, 1)),
    ("THROTTLE_RATE", "1/m", (1, 60)),
    ("THROTTLE_RATE", "0060/Minute", (60, 60)),
    ("THROTTLE_RATE", "5000/h", (5000, 3600)),
    ("THROTTLE_RATE", "5000/hour", (5000, 3600)),
    ("THROTTLE_RATE", "7/d", (7, 86_400)),
    ("THROTTLE_RATE", "1000000000/day", (1_000_000_000, 86_400)),
    ("THROTTLE_RATE", "off", None),
    ("TRUSTED_PROXIES", "2", 2),
    ("REDIS_URL", "", ""),
    ("REDIS_URL", "redis://cache:6379/0", "redis://cache:6379/0"),
    ("REDIS_URL", "rediss://:secret@cache", "rediss://:secret@cache"),
    ("REDIS_URL", "unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock?db=1"),
    ("REDIS_URL", "rediss://cache/1?ssl_cert_reqs=none", "rediss://cache/1?ssl_cert_reqs=none"),
    *(
        ("REDIS_URL", url, url)
        for url in (
            "redis+sentinel://a:26379,b:26380/mymaster/0",
            "redis+sentinel://u:p%40@10.0.0.1,[::1]:26379/my.master-1?sentinel_password=p%26",
            "rediss+sentinel://a,b/mymaster?sentinel_username=u&ssl_ca_certs=/etc/ca.pem",
        )
    ),
    ("DATABASE_URL", "", ""),
    ("DATABASE_URL", "sqlite:////data/totoro.sqlite3", "sqlite:////data/totoro.sqlite3"),
    ("DATABASE_URL", "sqlite:////data/totoro@home.sqlite3", "sqlite:////data/totoro@home.sqlite3"),
    ("DATABASE_URL", "postgresql://u:p@db:5432/totoro", "postgresql://u:p@db:5432/totoro"),
    (
        "DATABASE_URL",
        "postgresql://db/totoro?sslmode=verify-full&sslrootcert=/ca.crt",
        "postgresql://db/totoro?sslmode=verify-full&sslrootcert=/ca.crt",
    ),
    ("CORS_ALLOWED_ORIGINS", "*", ["*"]),
    (
        "CORS_ALLOWED_ORIGINS",
        "https://A.example, http://localhost:3000",
        ["https://a.example", "http://localhost:3000"],
    ),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "http://collector:4318"),
    ("SENTRY_DSN", "", ""),
    ("SENTRY_DSN", "https://key@sentry.example/1", "https://key@sentry.example/1"),
    ("SENTRY_ENVIRONMENT", "staging", "staging"),
    ("LOG_LEVEL", "debug", "DEBUG"),
    ("ACCESS_LOG", "True", True),
    ("ACCESS_LOG", "off", False),
    ("ACCESS_LOG_ADDRESSES", "true", True),
    ("RESPONSE_CACHE", "on", True),
    ("RESPONSE_CACHE", "off", False),
    ("WEB_CONCURRENCY", "4", 4),
    ("PORT", "80", 80),
]

INVALID = [
    ("DJANGO_SECRET_KEY", ""),
    ("DJANGO_SECRET_KEY", TEMPLATE_SECRET),
    ("ALLOWED_HOSTS", ""),
    ("ALLOWED_HOSTS", " , "),
    ("ALLOWED_HOSTS", "https://api.example.org"),
    ("ALLOWED_HOSTS", "api.example.org:8000"),
    ("ALLOWED_HOSTS", "api.example.org evil.example"),
    ("CACHE_TTL", ""),
    ("CACHE_TTL", "abc"),
    ("CACHE_TTL", "0"),
    ("CACHE_TTL", "86401"),
    ("CACHE_TTL", "-1"),
    ("CACHE_TTL", "+1"),
    ("CACHE_TTL", "1e3"),
    ("CACHE_TTL", "1.5"),
    ("CACHE_TTL", "1_000"),
    ("CACHE_TTL", "\uff11\uff12"),
    ("CACHE_TTL", "9" * 5000),
    ("REFRESH_AHEAD", "-1"),
    ("STALE_IF_ERROR", "forever"),
    ("SNAPSHOT_HISTORY", "0"),
    ("THROTTLE_RATE", ""),
    ("THROTTLE_RATE", "600"),
    ("THROTTLE_RATE", "0/min"),
    ("THROTTLE_RATE", "-1/min"),
    ("THROTTLE_RATE", "1.5/s"),
    ("THROTTLE_RATE", "600/fortnight"),
    ("THROTTLE_RATE", "600/5min"),
    ("THROTTLE_RATE", "600 / min"),
    ("THROTTLE_RATE", "\uff11/s"),
    ("THROTTLE_RATE", "10000000000/s"),
    ("THROTTLE_RATE", "none"),
    ("TRUSTED_PROXIES", "-1"),
    ("TRUSTED_PROXIES", "11"),
    ("TRUSTED_PROXIES", "*"),
    ("REDIS_URL", "cache:6379"),
    ("REDIS_URL", "http://cache:6379"),
    ("REDIS_URL", "redis://cache:port/0"),
    ("REDIS_URL", "redis://cache:6379/zero"),
    ("REDIS_URL", "unix://"),
    ("REDIS_URL", "redis://cache/0?socket_timeout=5"),
    ("REDIS_URL", "redis://cache/0?max_connections=-1"),
    ("REDIS_URL", "redis://cache/0?decode_responses=True"),
    ("REDIS_URL", "redis://cache/0?acorn=1"),
    ("REDIS_URL", "redis://cache?db=zero"),
    ("REDIS_URL", "redis://cache?ssl_cert_reqs=none"),
    ("REDIS_URL", "rediss://cache?ssl_cert_reqs=never"),
    ("REDIS_URL", "rediss://cache?ssl_check_hostname=off"),
    ("REDIS_URL", "rediss+sentinel://a/mymaster?ssl_cert_reqs=never"),
    ("REDIS_URL", "redis+sentinel://a:26379,b:26379"),
    ("REDIS_URL", "redis+sentinel://a,b/"),
    ("REDIS_URL", "redis+sentinel://a,/mymaster"),
    ("REDIS_URL", "redis+sentinel:///mymaster"),
    ("REDIS_URL", "redis+sentinel://a:x,b:26379/mymaster"),
    ("REDIS_URL", "redis+sentinel://a/mymaster/zero"),
    ("REDIS_URL", "redis+sentinel://a/my:master"),
    ("REDIS_URL", "redis+sentinel://a/mymaster?db=1"),
    ("REDIS_URL", "redis+sentinel://a/mymaster?ssl_ca_certs=/etc/ca.pem"),
    ("REDIS_URL", "http+sentinel://a/mymaster"),
    ("DATABASE_URL", "totoro.sqlite3"),
    ("DATABASE_URL", "mysql://u:p@db/totoro"),
    ("DATABASE_URL", "postgresql://u:p@db"),
    ("DATABASE_URL", "postgresql://u:p@db/"),
    ("DATABASE_URL", "postgresql://u:p/p@db/totoro"),
    ("DATABASE_URL", "sqlite://"),
    ("DATABASE_URL", "sqlite:////data/totoro.sqlite3?timeout=20"),
    ("DATABASE_URL", "postgresql://u:p@db/totoro?connect_timeout=60"),
    ("DATABASE_URL", "postgresql://u:p@db/totoro?foo=bar"),
    ("DATABASE_URL", "postgresql://u:p@db/totoro?sslmode=zz"),
    ("CORS_ALLOWED_ORIGINS", ""),
    ("CORS_ALLOWED_ORIGINS", "*,https://a.example"),
    ("CORS_ALLOWED_ORIGINS", "a.example"),
    ("CORS_ALLOWED_ORIGINS", "https://a.example/"),
    ("CORS_ALLOWED_ORIGINS", "https://a.example/path"),
    ("CORS_ALLOWED_ORIGINS", "null"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ("SENTRY_DSN", "sentry.example/1"),
    ("SENTRY_DSN", "https://sentry.example/1"),
    ("SENTRY_DSN", "https://key@sentry.example/project"),
    ("SENTRY_DSN", "https://key@sentry.example:port/1"),
    ("LOG_LEVEL", "verbose"),
    ("ACCESS_LOG", ""),
    ("ACCESS_LOG", "2"),
    ("ACCESS_LOG_ADDRESSES", "192.0.2.1"),
    ("RESPONSE_CACHE", "maybe"),
    ("WEB_CONCURRENCY", "0"),
    ("WEB_CONCURRENCY", "auto"),
    ("PORT", "65536"),
]


def default(variable: Variable) -> object:
    return None if variable.default is None else variable.to_python(variable.default)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_variable_has_a_default(name: str) -> None:
    assert default(VARIABLES[name]) == DEFAULTS[name]


def test_every_variable_but_the_secret_key_has_a_default() -> None:
    assert VARIABLES.keys() - DEFAULTS.keys() == {"DJANGO_SECRET_KEY"}


@pytest.mark.parametrize(("name", "text", "value"), VALID)
def test_accepts_a_valid_value(name: str, text: str, value: object) -> None:
    assert VARIABLES[name].to_python(text) == value


@pytest.mark.parametrize(("name", "text"), INVALID)
def test_an_invalid_value_stops_the_start_and_is_named(name: str, text: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        VARIABLES[name].to_python(text)

    shown = "(not shown)" if VARIABLES[name].secret and text else repr(text)
    assert str(stopped.value).startswith(f"totoro: {name} = {shown}: must ")
    assert "\n" not in str(stopped.value)


def test_every_variable_is_tested() -> None:
    assert {name for name, _, _ in VALID} == set(VARIABLES)
    # Any text is a valid environment.
    assert {name for name, _ in INVALID} | {"GHIBLI_API_BASE_URL", "SENTRY_ENVIRONMENT"} == set(
        VARIABLES
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "postgresql://totoro:hunter2/x@db/totoro"),
        ("DATABASE_URL", "postgresql://totoro:x:hunter2@[db/totoro"),
        ("DATABASE_URL", "hunter2"),
        ("REDIS_URL", "redis://:hunter2/x@cache/0"),
        ("REDIS_URL", "redis://:x@cache/hunter2"),
        ("SENTRY_DSN", "https://hunter2@sentry.example/project"),
        ("SENTRY_DSN", "https://key@sentry.example:hunter2/1"),
    ],
)
def test_does_not_show_an_invalid_secret(name: str, text: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        VARIABLES[name].to_python(text)

    assert "hunter2" not in str(stopped.value)


@pytest.mark.parametrize("url", ["http://localhost:99999", "http://[::1"])
def test_the_error_for_a_url_without_a_password_is_about_host_and_port(url: str) -> None:
    with pytest.raises(SystemExit, match="must be a URL with a valid host and port"):
        VARIABLES["GHIBLI_API_BASE_URL"].to_python(url)


def test_a_folder_for_the_database_that_cannot_be_created_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithSqlite(Production):
        DATABASE_URL = ""

    (tmp_path / "var").write_text("a file")
    monkeypatch.setattr("totoro.settings.SQLITE_FILE", tmp_path / "var" / "totoro.sqlite3")

    with pytest.raises(SystemExit, match="totoro: cannot create the folder"):
        _ = WithSqlite().DATABASES


def test_dev_generates_a_secret_key() -> None:
    assert isinstance(Dev.SECRET_KEY, Variable)
    assert len(Dev.SECRET_KEY.default) >= 50


PRODUCTION = {**clean_environment(), "DJANGO_SECRET_KEY": "only-for-this-test"}


def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return manage(*arguments, environment={**PRODUCTION, **variables}, check=False)


def python(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


SECRETS = {"DJANGO_SECRET_KEY", "REDIS_URL", "DATABASE_URL", "SENTRY_DSN"}


def start_with_file(
    variable: str, path: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Start with a secret in a file; without DJANGO_SECRET_KEY, if that is the one."""
    environment = {name: text for name, text in PRODUCTION.items() if name != variable}
    return manage(
        "check",
        environment={**environment, f"{variable}_FILE": str(path), **variables},
        check=False,
    )


def test_these_variables_are_secrets() -> None:
    assert {name for name, variable in VARIABLES.items() if variable.secret} == SECRETS


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_can_be_in_a_file(
    name: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = [(text, value) for each, text, value in VALID if each == name and text][-1]
    (tmp_path / "secret").write_bytes((text + end).encode())
    monkeypatch.setenv(name, "")  # as good as not set
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))

    assert variable(name).setup(name) == value


def variable(name: str) -> Variable:
    """Return a copy that reads the environment, as in Production."""
    each = copy(VARIABLES[name])
    each.environ = True
    return each


def test_a_relative_path_begins_in_the_projects_folder(tmp_path: Path) -> None:
    code = "import os; os.chdir('/')\n" + VALUES % ["SECRET_KEY"]
    environment = {**clean_environment(), "DJANGO_SECRET_KEY_FILE": "LICENSE"}

    values = json.loads(python(code, {**environment, "PYTHONPATH": str(ROOT)}).stdout)

    assert values == {"SECRET_KEY": (ROOT / "LICENSE").read_text().strip()}


def test_an_empty_name_of_a_file_is_as_good_as_none() -> None:
    assert start("check", DJANGO_SECRET_KEY_FILE="").returncode == 0


def test_a_secret_in_a_file_and_in_its_variable_stops_the_start(tmp_path: Path) -> None:
    stopped = start("check", DJANGO_SECRET_KEY_FILE=str(tmp_path / "any"))

    assert_stopped(
        stopped, "totoro: DJANGO_SECRET_KEY and DJANGO_SECRET_KEY_FILE are both set: remove one"
    )


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_file_that_is_missing_stops_the_start(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "missing")

    assert_stopped(
        start_with_file(name, path),
        f"totoro: {name}_FILE = {path!r}: must be a file that can be read: No such file",
    )


UNUSABLE_FILES = {
    "empty": (b"", "must be a file with 1 to 65536 bytes"),
    "blank": (b"\r\n", "must be a file with 1 to 65536 bytes"),
    "huge": (b"hunter2" * 10_000, "must be a file with 1 to 65536 bytes"),
    "latin-1": ("hunter2 ä".encode("latin-1"), "must be a file in UTF-8"),
    "with an invalid value": (b"postgresql://u:hunter2#@db/totoro", "must be a URL whose password"),
}


@pytest.mark.parametrize("case", UNUSABLE_FILES)
def test_an_unusable_file_stops_the_start_and_is_not_shown(case: str, tmp_path: Path) -> None:
    content, must = UNUSABLE_FILES[case]
    path = tmp_path / "secret"
    path.write_bytes(content)

    stopped = start_with_file("DATABASE_URL", path)

    assert_stopped(stopped, f"totoro: DATABASE_URL_FILE = {str(path)!r}: {must}")
    assert "hunter2" not in stopped.stderr


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_folder_or_pipe_instead_of_a_file_stops_the_start(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(path := tmp_path / "secret")

    assert_stopped(
        start_with_file("REDIS_URL", path),
        f"totoro: REDIS_URL_FILE = {str(path)!r}: must be a file,",
    )


def test_a_file_that_may_not_be_read_stops_the_start(tmp_path: Path) -> None:
    # Not even root may read its own memory at address 0.
    assert_stopped(
        start_with_file("SENTRY_DSN", "/proc/self/mem"),
        "totoro: SENTRY_DSN_FILE = '/proc/self/mem': must be a file that can be read: ",
    )


VALUES = """
import json, totoro.wsgi
from django.conf import settings
print(json.dumps({name: getattr(settings, name) for name in %r}))
"""


def assert_stopped(
    process: subprocess.CompletedProcess[str], line: str, *, output: str = ""
) -> None:
    assert process.returncode == 1
    assert process.stdout == output
    assert process.stderr.startswith(line)
    assert process.stderr.count("\n") == 1


def test_starts_in_a_valid_environment() -> None:
    assert start("check").returncode == 0


@pytest.mark.parametrize("command", ["check", "serve", "migrate", "help"])
def test_a_command_stops_at_an_invalid_value_with_one_line(command: str) -> None:
    assert_stopped(start(command, CACHE_TTL="abc"), "totoro: CACHE_TTL = 'abc': must be ")


def test_a_worker_stops_at_an_invalid_value_with_one_line() -> None:
    worker = python("import totoro.wsgi", {**PRODUCTION, "PORT": "http"})

    assert_stopped(worker, "totoro: PORT = 'http': must be ")


@pytest.mark.parametrize("key", [None, "", TEMPLATE_SECRET])
def test_production_is_the_default_and_does_not_start_without_a_key(key: str | None) -> None:
    environment = clean_environment() | ({} if key is None else {"DJANGO_SECRET_KEY": key})

    stopped = manage("check", environment=environment, check=False)

    shown = "(not shown)" if key else "''"
    assert_stopped(stopped, f"totoro: DJANGO_SECRET_KEY = {shown}: must be ")


@pytest.mark.parametrize("name", ["Nope", "", "production", "Base", "settings.Production"])
def test_an_unknown_configuration_stops_the_start_with_one_line(name: str) -> None:
    stopped = start("check", DJANGO_CONFIGURATION=name)

    assert_stopped(stopped, f"totoro: DJANGO_CONFIGURATION = {name!r}: must be one of Dev, ")


PASSWORDS = ["pa#ss", "12#ss", "pa@ss", "pa/ss", "12/s@s", "pa?ss", "12?ss", "pa%ss", "#", "%"]


@pytest.mark.parametrize("password", PASSWORDS)
def test_an_unencoded_password_before_sentinels_is_refused(password: str) -> None:
    with pytest.raises(SystemExit, match="must be a URL whose password has #, @, /"):
        VARIABLES["REDIS_URL"].to_python(f"redis+sentinel://u:{password}@a:26379,b:1/mymaster")


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "url",
    ["DATABASE_URL=postgresql://totoro:{}@db:5432/totoro", "REDIS_URL=redis://u:{}@cache:6379/0"],
)
def test_an_unencoded_password_stops_the_start_and_is_not_shown(url: str, password: str) -> None:
    name, _, value = url.format(password).partition("=")
    stopped = start("check", **{name: value})

    assert_stopped(stopped, f"totoro: {name} = (not shown): must be a URL whose password has #, @")
    assert (
        start("check", **{name: url.partition("=")[2].format(quote(password, safe=""))}).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("THROTLE_RATE", "THROTTLE_RATE"),
        ("ALLOWED_HOST", "ALLOWED_HOSTS"),
        ("SENTRY_DNS", "SENTRY_DSN"),
        ("DATABASE_URL_FLIE", "DATABASE_URL_FILE"),
        ("DJANGO_CONFIGURATON", "DJANGO_CONFIGURATION"),
    ],
)
def test_warns_once_of_a_misspelt_variable(name: str, meant: str) -> None:
    process = start("check", **{name: "1"})

    assert process.returncode == 0
    [line] = [json.loads(line) for line in process.stderr.splitlines() if "unknown" in line]
    assert line["event"] == "environment_variable_unknown"
    assert (line["variable"], line["meant"]) == (name, meant)


def test_does_not_warn_of_other_programs_variables() -> None:
    others = ["PATH", "HOME", "LANG", "HOSTNAME", "REDIS_PORT", "POSTGRES_USER", "PGPORT", "TERM"]

    assert "unknown" not in start("check", **dict.fromkeys(others, os.environ["PATH"])).stderr


def test_dev_without_its_packages_stops_the_start_with_one_line() -> None:
    without = ROOT / "tests" / "support" / "python_patches" / "production_packages"
    environment = {**PRODUCTION, "DJANGO_CONFIGURATION": "Dev", "PYTHONPATH": str(without)}

    stopped = manage("check", environment=environment, check=False)
    assert_stopped(stopped, "totoro: DJANGO_CONFIGURATION = 'Dev': needs the development packages")


@pytest.mark.parametrize(
    ("variables", "ahead"),
    [
        ({}, 10),
        ({"CACHE_TTL": "600"}, 10),
        ({"CACHE_TTL": "12"}, 2),
        ({"CACHE_TTL": "12", "REFRESH_AHEAD": "11"}, 11),
        ({"REFRESH_AHEAD": "0"}, 0),
    ],
)
def test_the_default_of_refresh_ahead_depends_on_cache_ttl(
    variables: dict[str, str], ahead: float
) -> None:
    process = python(VALUES % ["REFRESH_AHEAD"], {**PRODUCTION, **variables})

    assert json.loads(process.stdout) == {"REFRESH_AHEAD": ahead}


def test_refresh_ahead_of_the_whole_cache_ttl_stops_the_start() -> None:
    stopped = start("check", CACHE_TTL="5", REFRESH_AHEAD="5")

    assert_stopped(stopped, "totoro: REFRESH_AHEAD = 5: must be less than CACHE_TTL")


def test_a_configuration_can_be_chosen_on_the_command_line() -> None:
    assert manage("check", "--configuration=Dev", environment=clean_environment()).returncode == 0


def test_the_test_configuration_ignores_the_environment() -> None:
    changed: dict[str, str] = {
        name: text for name, text, value in VALID if value != DEFAULTS.get(name)
    }
    assert changed.keys() == VARIABLES.keys()
    environment = {**clean_environment(), **changed, "DJANGO_CONFIGURATION": "Test"}
    expected = {
        setting: default(value)
        for setting, value in uppercase_attributes(Production).items()
        if isinstance(value, Variable) and setting != "SECRET_KEY"
    }
    expected |= {"REFRESH_AHEAD": 10, "THROTTLE_RATE": None}
    expected |= {"GHIBLI_API_BASE_URL": "http://127.0.0.1:9/"}
    expected |= {"ALLOWED_HOSTS": ["testserver", "127.0.0.1", "localhost"]}

    values = json.loads(python(VALUES % list(expected), environment).stdout)

    assert values == expected


def test_pytest_uses_the_test_configuration_whatever_the_environment_says() -> None:
    environment = {**clean_environment(), "DJANGO_CONFIGURATION": "Production", "CACHE_TTL": "abc"}

    collected = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "tests/totoro/management/test_serve.py",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert collected.returncode == 0, collected.stderr
