"""Typical mistakes in .env and secrets/, for tests with and without Docker."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mistake:
    """A change of a project's files, and a part of the one line that it causes."""

    make: Callable[[Path], None]
    line: str


def env(change: Callable[[bytes], bytes], line: str) -> Mistake:
    """Return a mistake in .env, where most are made."""

    def make(project: Path) -> None:
        file = project / ".env"
        file.write_bytes(change(file.read_bytes()))

    return Mistake(make, line)


def setting(text: str, line: str) -> Mistake:
    """Return a mistake that is in .env instead of the line with the same name, or at its end."""
    name = re.split("[^A-Z_]", text)[0]

    def change(content: bytes) -> bytes:
        others = re.sub(rb"(?m)^%s=.*\n" % name.encode(), b"", content)
        return others + f"{text}\n".encode()

    return env(change, line)


def added(text: str, line: str) -> Mistake:
    return env(lambda content: content + f"{text}\n".encode(), line)


def secret(name: str, content: str | None, line: str) -> Mistake:
    """Return a mistake in a file of secrets/; it is missing if the content is None."""

    def make(project: Path) -> None:
        file = project / "secrets" / name
        if content is None:
            file.unlink()
        else:
            file.write_text(content, newline="")

    return Mistake(make, line)


def directory(name: str) -> Callable[[Path], None]:
    """Return what Docker does when a file to mount is missing."""

    def make(project: Path) -> None:
        (project / name).unlink()
        (project / name).mkdir()

    return make


KEY = "secrets/django_secret_key"
URL = "postgresql://totoro:{}@postgres:5432/totoro\n"
QUOTES = "Compose and shells read this value differently; put it into single quotes"

# Found before a container starts.
IN_FILES = {
    "no .env": Mistake(lambda project: (project / ".env").unlink(), ".env is missing"),
    "a folder instead of .env": Mistake(directory(".env"), ".env is missing"),
    "byte order mark": env(lambda text: b"\xef\xbb\xbf" + text, ".env, line 1: byte order mark"),
    "UTF-16": env(lambda text: text.decode().encode("utf-16"), ".env, line 1: byte order mark"),
    "CRLF": env(lambda text: text.replace(b"\n", b"\r\n"), ".env, line 1: Windows line ends"),
    "misspelt": added("THROTLE_RATE=5/min", "THROTLE_RATE: nothing reads it"),
    "lower case": added("cache_ttl=5", "cache_ttl: nothing reads it"),
    "space before =": setting("CACHE_TTL =60", "CACHE_TTL: remove the space beside ="),
    "space after =": setting("CACHE_TTL= 60", "CACHE_TTL: remove the space beside ="),
    "export": setting("CACHE_TTL=60\nexport LOG_LEVEL=INFO", "LOG_LEVEL: remove the word export"),
    "twice": setting("LOG_LEVEL=INFO\nLOG_LEVEL=INFO", "LOG_LEVEL: line "),
    "colon": added("PORT: 8000", "not of the form NAME=value"),
    "no value": added("ACCESS_LOG", "not of the form NAME=value"),
    "quote inside": setting("SENTRY_ENVIRONMENT=Tom's", f"SENTRY_ENVIRONMENT: {QUOTES}"),
    "quote not closed": setting('SENTRY_ENVIRONMENT="a', f"SENTRY_ENVIRONMENT: {QUOTES}"),
    "quotes around a part": setting('SENTRY_ENVIRONMENT="a"b', f"SENTRY_ENVIRONMENT: {QUOTES}"),
    "space in a value": setting("SENTRY_ENVIRONMENT=a b", f"SENTRY_ENVIRONMENT: {QUOTES}"),
    "dollar": setting("REDIS_URL=redis://:hunter2$1@r/0", f"REDIS_URL: {QUOTES}"),
    "dollar in quotes": setting('REDIS_URL="redis://:hunter2$1@r/0"', f"REDIS_URL: {QUOTES}"),
    "ampersand": setting("DATABASE_URL=sqlite:///x?a=b&c=d", f"DATABASE_URL: {QUOTES}"),
    "no secrets": Mistake(
        lambda project: shutil.rmtree(project / "secrets"), "secrets/ is missing"
    ),
    "no secret": secret("django_secret_key", None, f"{KEY} is missing or empty"),
    "empty secret": secret("database_url", "", "secrets/database_url is missing or empty"),
    "a folder instead of a secret": Mistake(directory(KEY), f"{KEY} is a folder"),
    "CRLF in a secret": secret(
        "postgres_password", "hunter2\r\n", "secrets/postgres_password has Windows line ends"
    ),
}
# Found by Totoro itself, in the container.
IN_SETTINGS = {
    "template's secret": secret(
        "django_secret_key", "filled-in-by-make\n", "DJANGO_SECRET_KEY_FILE ="
    ),
    "blank secret": secret("django_secret_key", "\n", "DJANGO_SECRET_KEY_FILE ="),
    "# in a password": secret("database_url", URL.format("hunter2#"), "DATABASE_URL_FILE ="),
    "@ in a password": secret("database_url", URL.format("hunter2@"), "DATABASE_URL_FILE ="),
    "/ in a password": secret("database_url", URL.format("hunter2/x"), "DATABASE_URL_FILE ="),
    "? in a password": secret("database_url", URL.format("hunter2?x"), "DATABASE_URL_FILE ="),
    "% in a password": secret("database_url", URL.format("hunter2%x"), "DATABASE_URL_FILE ="),
    "scheme in ALLOWED_HOSTS": setting("ALLOWED_HOSTS=https://a.example", "ALLOWED_HOSTS ="),
    "port in ALLOWED_HOSTS": setting("ALLOWED_HOSTS=a.example:8000", "ALLOWED_HOSTS ="),
    "no number": setting("WEB_CONCURRENCY=many", "WEB_CONCURRENCY ="),
    "out of range": setting("CACHE_TTL=0", "CACHE_TTL ="),
    "empty": setting("CACHE_TTL=", "CACHE_TTL ="),
    "refresh after expiry": setting("REFRESH_AHEAD=60", "REFRESH_AHEAD ="),
    "http": setting("GHIBLI_API_BASE_URL=http://ghibliapi.vercel.app/", "GHIBLI_API_BASE_URL ="),
    "no scheme": setting("GHIBLI_API_BASE_URL=ghibliapi.vercel.app", "GHIBLI_API_BASE_URL ="),
    "Dev": setting("DJANGO_CONFIGURATION=Dev", "DJANGO_CONFIGURATION ="),
    "Test": setting("DJANGO_CONFIGURATION=Test", "DJANGO_CONFIGURATION ="),
    "configuration": setting("DJANGO_CONFIGURATION=production", "DJANGO_CONFIGURATION ="),
    "secret in two places": added(
        "DJANGO_SECRET_KEY=hunter2", "DJANGO_SECRET_KEY and DJANGO_SECRET_KEY_FILE"
    ),
}
MISTAKES = IN_FILES | IN_SETTINGS
